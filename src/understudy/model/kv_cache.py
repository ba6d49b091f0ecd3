"""The keys and values a model has already computed, so that each new token costs one position.

Rows may hold different numbers of tokens. A row's new tokens are written at its own length; what lies beyond a
row's length is never attended to. Not here: attention itself, sampling.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.config import ModelConfig


class KVCache:
    """Room for ``batch_size`` rows of ``max_tokens`` tokens.

    Attributes:
        lengths: (B,) tokens held by each row. Setting it smaller forgets the last tokens of a row.
        tokens: (B, max_tokens) the tokens themselves, which n-gram embeddings look back at.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_tokens: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.max_tokens = max_tokens or config.context_length
        if self.max_tokens > config.context_length:
            raise ValueError(
                f"a cache of {self.max_tokens} tokens exceeds the model's context of {config.context_length}"
            )
        assert config.n_layers and config.n_kv_heads and config.head_width, "a bigram needs no cache"
        shape = (config.n_layers, batch_size, config.n_kv_heads, self.max_tokens, config.head_width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.tokens = torch.zeros(batch_size, self.max_tokens, dtype=torch.long, device=device)
        self.longest = 0  # of lengths, kept as a number so that no step waits for the device

    def positions(self, new_tokens: int) -> Tensor:
        """(B, T) where the next ``new_tokens`` tokens of each row go."""
        return self.lengths[:, None] + torch.arange(new_tokens, device=self.lengths.device)

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, H, T, K) keys and values at ``positions`` (B, T); return all of the layer's so far.

        The returned tensors are (B, H, longest + T, K).
        """
        index = positions[:, None, :, None].expand_as(keys)
        self.keys[layer].scatter_(2, index, keys.to(self.keys.dtype))
        self.values[layer].scatter_(2, index, values.to(self.values.dtype))
        end = self.longest + positions.shape[1]
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, new_tokens: int) -> None:
        """Count ``new_tokens`` more tokens in each row."""
        self.lengths = self.lengths + new_tokens
        self.longest += new_tokens

    def keep(self, rows: Tensor) -> None:
        """Keep only the rows listed in (R,), in that order; a row may be listed more than once."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.tokens = self.tokens[rows]
        self.set_lengths(self.lengths[rows])  # the longest row may have left

    def set_lengths(self, lengths: Tensor) -> None:
        """Declare how many tokens of each row (B,) are real, after a forward over padded prompts."""
        self.lengths = lengths.to(self.lengths)
        self.longest = int(lengths.max())
