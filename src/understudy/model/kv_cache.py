"""KV cache: keys and values of the tokens read so far, and the inputs of short convolutions, so that each new token costs
one position.

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
        keys, values: (attention layers, B, H, max_tokens, K).
        conv_inputs: (convolution layers, B, max_tokens, D). All are kept, though the last few would do, so that a row can
            be cut back to any length.
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
        conv = set(shape.conv_layers)
        attention = [layer for layer in range(shape.n_layers) if layer not in conv]
        self._numbers = {layer: n for layers in (attention, sorted(conv)) for n, layer in enumerate(layers)}
        memory = (len(attention), batch_size, shape.n_kv_heads, self.max_tokens, shape.head_width)
        self.keys = torch.zeros(memory, device=device, dtype=dtype)
        self.values = torch.zeros(memory, device=device, dtype=dtype)
        self.conv_inputs = torch.zeros(
            len(conv), batch_size, self.max_tokens, shape.d_model, device=device, dtype=dtype
        )
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
            picked.conv_inputs = self.conv_inputs[:, part]
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

    def write(self, memory: Tensor, x: Tensor, positions: Tensor) -> None:
        """Store ``x`` (B, T, ...) at ``positions`` (B, T) of ``memory`` (rows, max_tokens, ...): the tokens, or a layer's
        inputs."""
        memory[self._places()[:, None], positions] = x.to(memory.dtype)

    def read(self, memory: Tensor, positions: Tensor) -> Tensor:
        """What ``memory`` holds at ``positions`` (B, T): (B, T, ...)."""
        return memory[self._places()[:, None], positions]

    def inputs_of(self, layer: int) -> Tensor:
        """The memory (rows, max_tokens, D) of the inputs of a convolution."""
        return self.conv_inputs[self._numbers[layer]]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Store the keys and values (B, H, T, K) of new tokens; return all of the layer's so far.

        Returns:
            One pair of (B, H, longest + T, K), or where a step attends row by row, for each row a pair of
            (1, H, its length + 1 or the window, K).
        """
        number = self._numbers[layer]
        all_keys, all_values = self.keys[number], self.values[number]  # (B, H, max_tokens, K)
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
            self.conv_inputs = self.conv_inputs[:, rows]
        else:
            here, held = torch.arange(len(rows), device=rows.device), slice(self.longest)
            here = here[rows != here]
            there = rows[here]
            self.keys[:, here, :, held] = self.keys[:, there, :, held]
            self.values[:, here, :, held] = self.values[:, there, :, held]
            self.conv_inputs[:, here, held] = self.conv_inputs[:, there, held]
            self.tokens[here] = self.tokens[there]
            self.keys, self.values = self.keys[:, : len(rows)], self.values[:, : len(rows)]
            self.conv_inputs, self.tokens = self.conv_inputs[:, : len(rows)], self.tokens[: len(rows)]
        self.set_lengths(self.lengths[rows])  # the longest row may have left

    def replace(self, rows: Tensor, other: KVCache) -> None:
        """Put the rows of ``other`` in place of the rows listed in (R,); the lengths stay."""
        length = other.max_tokens
        self.keys[:, rows, :, :length], self.values[:, rows, :, :length] = other.keys, other.values
        self.conv_inputs[:, rows, :length], self.tokens[rows, :length] = other.conv_inputs, other.tokens

    def allocate(self) -> int:
        """Touch all memory, so that none is allocated in the middle of a completion; returns its bytes."""
        memories = (self.keys, self.values, self.conv_inputs)
        for memory in memories:
            memory.zero_()
        return sum(memory.nbytes for memory in memories)

    def set_lengths(self, lengths: Tensor) -> None:
        """Declare how many tokens of each row (B,) are real, after a forward over padded prompts."""
        self.lengths = lengths.to(self.lengths)
        self._lengths = lengths.tolist()
        self.longest = max(self._lengths)

    def _places(self) -> Tensor:
        return torch.arange(len(self.tokens), device=self.tokens.device) if self._rows is None else self._rows
