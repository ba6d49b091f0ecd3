"""KV cache: keys and values of the tokens read so far, so that each new token costs one position.

Rows may hold different numbers of tokens. A row's new tokens are written at its own length; nothing beyond a row's
length is attended to. Not here: attention itself, sampling, which request has which row.

Shapes: B rows, H key and value heads, T new tokens, K head width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.config.model import ModelShape


class KVCache:
    """Room for ``batch_size`` rows of ``max_tokens`` tokens.

    Attributes:
        lengths: (B,) tokens held by each row. :meth:`set_lengths` with fewer forgets the last tokens of a row.
        longest: the largest of the lengths, as a number, so that no step waits for the device.
        tokens: (B, max_tokens) the tokens themselves, which n-gram embeddings look back at.
        per_row: whether a step of one token attends row by row, to no more than each row holds. Its results for a row are
            then the same to the bit whatever rows are beside it, and need no mask. Many short rows are faster together.
    """

    def __init__(
        self,
        shape: ModelShape,
        batch_size: int,
        max_tokens: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.max_tokens = max_tokens or shape.context_length
        if self.max_tokens > shape.context_length:
            raise ValueError(
                f"a cache of {self.max_tokens} tokens exceeds the model's context of {shape.context_length}"
            )
        memory = memory_shape(shape, batch_size, self.max_tokens)
        self.keys = torch.zeros(memory, device=device, dtype=dtype)
        self.values = torch.zeros(memory, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.tokens = torch.zeros(batch_size, self.max_tokens, dtype=torch.long, device=device)
        self.longest = 0
        self.window = shape.sliding_window or self.max_tokens  # keys that a step of one token attends to
        self.per_row = batch_size == 1
        self._lengths = [0] * batch_size  # as numbers, where a step attends row by row
        self._rows: Tensor | None = None  # (B,) places of the rows in the memory; None: in order

    def pick(self, rows: Sequence[int], lengths: Sequence[int]) -> KVCache:
        """A view of the rows listed, holding ``lengths`` tokens, in the same memory. On a CPU it attends row by row."""
        picked, device = copy.copy(self), self.lengths.device
        if list(rows) == list(range(rows[0], rows[0] + len(rows))):
            part = slice(rows[0], rows[0] + len(rows))
            picked.keys, picked.values, picked.tokens = self.keys[:, part], self.values[:, part], self.tokens[part]
        else:
            picked._rows = torch.tensor(rows, device=device)
        picked.set_lengths(torch.tensor(lengths, device=device))
        picked.per_row = len(rows) == 1 or device.type == "cpu"
        return picked

    def positions(self, new_tokens: int) -> Tensor:
        """(B, T) of the next ``new_tokens`` tokens of each row."""
        if new_tokens == 1:
            return self.lengths[:, None]
        return self.lengths[:, None] + torch.arange(new_tokens, device=self.lengths.device)

    def write_tokens(self, tokens: Tensor, positions: Tensor) -> None:
        """Store ``tokens`` (B, T) at ``positions`` (B, T)."""
        self.tokens[self._places()[:, None], positions] = tokens

    def earlier_tokens(self, positions: Tensor) -> Tensor:
        """The tokens (B, T) at ``positions`` (B, T)."""
        return self.tokens[self._places()[:, None], positions]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Store the keys and values (B, H, T, K) of new tokens; return all of the layer's so far.

        Returns:
            One pair of (B, H, longest + T, K), or where a step attends row by row, for each row a pair of
            (1, H, its length + 1 or the window, K).
        """
        all_keys, all_values = self.keys[layer], self.values[layer]  # (B, H, max_tokens, K)
        rows, new_tokens = len(keys), keys.shape[2]
        end = self.longest + new_tokens
        if rows == 1 and self._rows is None:
            all_keys[:, :, self.longest : end] = keys
            all_values[:, :, self.longest : end] = values
        else:
            places, positions = self._places()[:, None], self.positions(new_tokens)
            all_keys[places, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
            all_values[places, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        if self.attends_per_row(new_tokens):
            order = range(rows) if self._rows is None else self._rows.tolist()
            ends = [length + 1 for length in self._lengths]
            spans = [(r, slice(max(0, end - self.window), end)) for r, end in zip(order, ends)]
            return [(all_keys[r : r + 1, :, span], all_values[r : r + 1, :, span]) for r, span in spans]
        if self._rows is not None:
            all_keys, all_values = all_keys[self._rows], all_values[self._rows]
        return [(all_keys[:, :, :end], all_values[:, :, :end])]

    def attends_per_row(self, new_tokens: int) -> bool:
        return self.per_row and new_tokens == 1

    def advance(self, new_tokens: int) -> None:
        """Count ``new_tokens`` more tokens in each row."""
        self.lengths = self.lengths + new_tokens
        self.longest += new_tokens
        if self.per_row:
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


def memory_shape(shape: ModelShape, batch_size: int, max_tokens: int) -> tuple[int, int, int, int, int]:
    """Of the keys, and of the values: (layers, B, H, T, K)."""
    return shape.n_layers, batch_size, shape.n_kv_heads, max_tokens, shape.head_width
