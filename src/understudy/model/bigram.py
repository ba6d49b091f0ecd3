"""The baseline every GPT must beat: the next token from the current one alone, as a table of logits.

It has the same forward as GPT, so that everything that trains, evaluates or samples takes either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from understudy.config.model import ModelConfig


class Bigram(nn.Module):
    """One row of logits for each token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("model.vocab_size is not set; it comes from the tokenizer of the data")
        self.config = config
        self.table = nn.Embedding(config.padded_vocab_size, config.padded_vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Tensor, cache: None = None, documents: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ``tokens`` (B, T)."""
        return self.logits(self.hidden(tokens))

    def hidden(
        self, tokens: Tensor, cache: None = None, documents: Tensor | None = None, branches: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The rows of the table (B, T, padded V), which are the logits already; it sees no other tokens anyway. With
        ``at`` (M,) only those of the places, (M, padded V)."""
        return self.table(tokens if at is None else tokens.flatten()[at])

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden[..., : self.config.vocab_size]

    def set_activation_checkpointing(self, on: bool) -> None:
        """There is nothing here worth computing twice."""

    @torch.no_grad()
    def flops_per_token(self) -> int:
        """A table look-up multiplies nothing."""
        return 0
