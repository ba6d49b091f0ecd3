"""The baseline every GPT must beat: the next token from the current one alone, as a table of logits.

It has the same forward as GPT, so that everything that trains, evaluates or samples takes either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from understudy.config.model import ModelConfig
from understudy.model.masks import AttentionContext, causal


class Bigram(nn.Module):
    """One row of logits for each token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = config.resolve()
        self.table = nn.Embedding(self.shape.padded_vocab_size, self.shape.padded_vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Tensor, context: AttentionContext | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ``tokens`` (B, T)."""
        return self.logits(self.hidden(tokens, context))

    def hidden(self, tokens: Tensor, context: AttentionContext | None = None) -> Tensor:
        """Rows of the table (B, T, padded V), which are the logits already, or (M, padded V) of the places that the
        context selects. The rest of the context is ignored: no token depends on another."""
        return self.table((context or causal()).selected(tokens))

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden[..., : self.shape.vocab_size]

    def set_activation_checkpointing(self, on: bool) -> None:
        """There is nothing here worth computing twice."""

    @torch.no_grad()
    def flops_per_token(self) -> int:
        """A table look-up multiplies nothing."""
        return 0
