"""Objectives: modules that own the model and turn a batch into a summed loss.

The loop divides the sum by :meth:`Objective.count`, summed over all micro-batches and processes before the first
forward, so that the gradient does not depend on how a batch is divided. Not here: the loop, the batches.
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
        """The number by which the summed loss of this batch is divided, such as its targets, as a scalar in fp32."""
        raise NotImplementedError

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """The number of tokens in a batch, without padding."""
        if "documents" in batch:
            return int((batch["documents"] != PADDING).sum())
        return batch["tokens"].numel()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss, and sums of further metrics by name."""
        raise NotImplementedError


CPU_LOGITS = 1 << 22
"""On a CPU, logits that are computed at once by default. More do not fit its cache, and get new memory in each step."""


def loss_chunk(setting: int | None, vocab_size: int, device: torch.device) -> int:
    """Tokens whose logits are computed at once, 0 for all, by the setting ``train.loss_chunk_tokens``."""
    if setting is None:
        return max(1, CPU_LOGITS // vocab_size) if device.type == "cpu" else 0
    return setting


class NextToken(Objective):
    """Cross-entropy of the next token. ``loss_chunk_tokens`` as in TrainConfig.

    A batch is ``tokens`` and ``targets`` (B, T); of packed rows also ``documents`` (B, T) and ``places`` (N,), the places
    in B x T that have a target.
    """

    def __init__(self, model: GPT | Bigram, loss_chunk_tokens: int | None = None) -> None:
        super().__init__()
        self.model, self.loss_chunk_tokens = model, loss_chunk_tokens

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return (batch["targets"] != IGNORE).sum().to(torch.float32)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        targets = batch["targets"]
        if "documents" in batch:  # most tokens of a conversation have no target, and need no last hidden state
            places = batch["places"]
            hidden = self.model.hidden(batch["tokens"], packed(batch["documents"], places))[None]  # (1, N, D)
            targets = targets.flatten()[places][None]  # (1, N)
        else:
            hidden = self.model.hidden(batch["tokens"])  # (B, T, D)
        chunk = loss_chunk(self.loss_chunk_tokens, self.model.config.vocab_size or 1, hidden.device)
        if not chunk or targets.numel() <= chunk:
            return cross_entropy_sum(self.model.logits(hidden), targets), {}
        weights = self.model.head.parameters() if isinstance(self.model, GPT) else ()
        return chunked_cross_entropy_sum(hidden, targets, self.model.logits, chunk, weights), {}
