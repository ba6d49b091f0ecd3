"""The keys and values a model has already computed, so that each new token costs one position.

Rows may hold different numbers of tokens. A row's new tokens are written at its own length; what lies beyond a
row's length is never attended to. Not here: attention itself, sampling, which request has which row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.config.model import ModelConfig


class KVCache:
    """Room for ``batch_size`` rows of ``max_tokens`` tokens.

    Attributes:
        lengths: (B,) tokens held by each row. :meth:`set_lengths` with fewer forgets the last tokens of a row.
        tokens: (B, max_tokens) the tokens themselves, which n-gram embeddings look back at.
        apart: whether a step of one token attends row by row, to no more than each row holds. A row's numbers are then
            the same to the bit whatever rows are beside it, and need no mask. Many short rows are faster together.
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
        shape = row_shape(config, batch_size, self.max_tokens)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.tokens = torch.zeros(batch_size, self.max_tokens, dtype=torch.long, device=device)
        self.longest = 0  # of lengths, kept as a number so that no step waits for the device
        self._lengths = [0] * batch_size  # as numbers, where a step attends apart
        self.apart = batch_size == 1
        self._rows: Tensor | None = None  # (B,) where the rows lie; None: in order

    def pick(self, rows: Sequence[int], lengths: Sequence[int]) -> KVCache:
        """The rows listed, to hold ``lengths`` tokens, in the same memory: what the one writes, the other has.

        On a CPU they are attended to apart.
        """
        picked, device = copy.copy(self), self.lengths.device
        if list(rows) == list(range(rows[0], rows[0] + len(rows))):
            part = slice(rows[0], rows[0] + len(rows))
            picked.keys, picked.values, picked.tokens = self.keys[:, part], self.values[:, part], self.tokens[part]
        else:
            picked._rows = torch.tensor(rows, device=device)
        picked.set_lengths(torch.tensor(lengths, device=device))
        picked.apart = len(rows) == 1 or device.type == "cpu"
        return picked

    def positions(self, new_tokens: int) -> Tensor:
        """(B, T) where the next ``new_tokens`` tokens of each row go."""
        if new_tokens == 1:
            return self.lengths[:, None]
        return self.lengths[:, None] + torch.arange(new_tokens, device=self.lengths.device)

    def write_tokens(self, tokens: Tensor, positions: Tensor) -> None:
        """Store ``tokens`` (B, T) at ``positions`` (B, T)."""
        self.tokens[self._places()[:, None], positions] = tokens

    def earlier_tokens(self, positions: Tensor) -> Tensor:
        """The tokens (B, T) at ``positions`` (B, T)."""
        return self.tokens[self._places()[:, None], positions]

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Store (B, H, T, K) keys and values at ``positions`` (B, T); return all of the layer's so far.

        Returns:
            One pair of (B, H, longest + T, K), or in a step of one token that attends apart, for each row a pair of
            (1, H, its length + 1, K).
        """
        all_keys, all_values = self.keys[layer], self.values[layer]  # (B, H, max_tokens, K)
        new, end = positions.shape[1], self.longest + positions.shape[1]
        if len(positions) == 1 and self._rows is None:
            all_keys[:, :, self.longest : end] = keys
            all_values[:, :, self.longest : end] = values
        else:
            places = self._places()[:, None]
            all_keys[places, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
            all_values[places, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        if self.attends_apart(new):
            rows = range(len(positions)) if self._rows is None else self._rows.tolist()
            ends = [length + 1 for length in self._lengths]
            return [(all_keys[r : r + 1, :, :e], all_values[r : r + 1, :, :e]) for r, e in zip(rows, ends)]
        if self._rows is not None:
            all_keys, all_values = all_keys[self._rows], all_values[self._rows]
        return [(all_keys[:, :, :end], all_values[:, :, :end])]

    def attends_apart(self, new_tokens: int) -> bool:
        return self.apart and new_tokens == 1

    def advance(self, new_tokens: int) -> None:
        """Count ``new_tokens`` more tokens in each row."""
        self.lengths = self.lengths + new_tokens
        self.longest += new_tokens
        if self.apart:
            self._lengths = [length + new_tokens for length in self._lengths]

    def keep(self, rows: Tensor) -> None:
        """Keep only the rows listed in (R,), in that order; a row may be listed more than once.

        Where there are not more rows than before, only those that change their place are copied.
        """
        if len(rows) > len(self.lengths):
            self.keys, self.values, self.tokens = self.keys[:, rows], self.values[:, rows], self.tokens[rows]
        else:
            here, held = torch.arange(len(rows), device=rows.device), slice(self.longest)
            here = here[rows != here]
            there = rows[here]
            self.keys[:, here, :, held] = self.keys[:, there, :, held]
            self.values[:, here, :, held] = self.values[:, there, :, held]
            self.tokens[here] = self.tokens[there]
            self.keys, self.values = self.keys[:, : len(rows)], self.values[:, : len(rows)]
            self.tokens = self.tokens[: len(rows)]
        self.set_lengths(self.lengths[rows])  # the longest row may have left

    def set_lengths(self, lengths: Tensor) -> None:
        """Declare how many tokens of each row (B,) are real, after a forward over padded prompts."""
        self.lengths = lengths.to(self.lengths)
        self._lengths = lengths.tolist()
        self.longest = max(self._lengths)

    def _places(self) -> Tensor:
        return torch.arange(len(self.tokens), device=self.tokens.device) if self._rows is None else self._rows


def row_shape(config: ModelConfig, batch_size: int, max_tokens: int) -> tuple[int, int, int, int, int]:
    """Of the keys, and of the values: (layers, B, H, T, K)."""
    assert config.n_layers and config.n_kv_heads and config.head_width, "a bigram needs no cache"
    return config.n_layers, batch_size, config.n_kv_heads, max_tokens, config.head_width
