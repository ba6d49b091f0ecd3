"""What a stage minimises: a module that owns the model and turns a batch into a summed loss.

The loop divides by :meth:`count`, summed over all micro-batches and processes before the first forward, so that
however a batch is cut up, its gradient is the same. Not here: the loop, the batches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from understudy.losses import IGNORE, PADDING, chunked_cross_entropy_sum, cross_entropy_sum
from understudy.model import GPT, Bigram
from understudy.model.masks import packed


class Objective(nn.Module):
    """The contract of every objective."""

    model: GPT | Bigram

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        """What the summed loss of this batch is divided by, known before the forward."""
        raise NotImplementedError

    def tokens(self, batch: dict[str, Tensor]) -> Tensor | int:
        """How many tokens a forward over this batch reads; a number where every process reads as many."""
        if "documents" in batch:
            return (batch["documents"] != PADDING).sum()
        return batch["tokens"].numel()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss, and further sums to be logged."""
        raise NotImplementedError


class NextToken(Objective):
    """Cross-entropy of every next token that is to be learnt; ``loss_chunk_tokens`` as in TrainConfig.

    A batch is ``tokens`` and ``targets`` (B, T), and ``documents`` (B, T) where rows hold several.
    """

    def __init__(self, model: GPT | Bigram, loss_chunk_tokens: int = 0) -> None:
        super().__init__()
        self.model, self.loss_chunk_tokens = model, loss_chunk_tokens

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return (batch["targets"] != IGNORE).sum().to(torch.float32)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        targets = batch["targets"]
        if "documents" in batch:  # most tokens of a conversation have no target, and need no last hidden state
            at = (targets != IGNORE).flatten().nonzero()[:, 0]
            hidden = self.model.hidden(batch["tokens"], packed(batch["documents"], at))[None]  # (1, N, D)
            targets = targets.flatten()[at][None]  # (1, N)
        else:
            hidden = self.model.hidden(batch["tokens"])
        if not self.loss_chunk_tokens:
            return cross_entropy_sum(self.model.logits(hidden), targets), {}
        return chunked_cross_entropy_sum(hidden, targets, self.model.logits, self.loss_chunk_tokens), {}
