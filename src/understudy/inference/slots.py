"""The memory of the engine that serves many requests: as many rows of keys and values as were planned, and who has them.

A row that finishes leaves its keys and values where they are, and a request whose prompt begins alike takes that row
and reads only the rest: the next turn of a conversation, or another question under the same instructions. Not here:
running the model, the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from understudy.config import ModelShape
from understudy.model import KVCache
from understudy.model.kv_cache import memory_shape


@dataclass(eq=False)
class Slot:
    """Room for one request.

    Attributes:
        held: the tokens whose keys and values lie there.
        in_chunks: how many of these, from the first on, were read as whole chunks of a prompt, each chunk alone. Their
            numbers depend on nothing but the tokens, to the bit; those of tokens read one at a time, or in a chunk cut
            elsewhere, differ from them by rounding.
    """

    number: int
    held: list[int] = field(default_factory=list)
    in_chunks: int = 0
    taken: bool = False
    last_used: int = 0


class Slots:
    """All rows, and the cache they are in; the cache is None for a bigram, which looks at nothing it would have to keep.

    Args:
        chunk: in how many tokens at a time prompts are read; chunks begin at multiples of it.
        cache_bytes: the most that keys and values may take, which may leave room for fewer than ``max_rows``.

    Raises:
        ValueError: not one row fits.
    """

    def __init__(
        self,
        shape: ModelShape,
        max_rows: int,
        chunk: int,
        device: torch.device,
        dtype: torch.dtype,
        cache_bytes: int | None = None,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}; give 1 or more")
        if chunk < 1:
            raise ValueError(f"prefill_tokens is {chunk}; give 1 or more")
        self.chunk, self.cache, self.cache_bytes, self._uses = chunk, None, 0, 0
        rows = max_rows
        if shape.family != "bigram":
            numbers = torch.Size(memory_shape(shape, 1, shape.context_length)).numel()
            row_bytes = 2 * numbers * dtype.itemsize
            rows = max_rows if cache_bytes is None else min(max_rows, cache_bytes // row_bytes)
            if not rows:
                raise ValueError(
                    f"one row of {shape.context_length} tokens takes {row_bytes / 2**20:,.1f} MiB of keys and values, "
                    f"and cache_bytes allows {(cache_bytes or 0) / 2**20:,.1f} MiB; allow more"
                )
            self.cache = KVCache(shape, rows, None, device, dtype)
            for memory in (self.cache.keys, self.cache.values):
                memory.zero_()  # what was only promised is really taken now, and not in the middle of an answer
            self.cache_bytes = rows * row_bytes
        self.slots = [Slot(number) for number in range(rows)]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def cached_tokens(self) -> int:
        return sum(len(slot.held) for slot in self.slots)

    def take(self, tokens: Sequence[int], exactly: bool = False, reuse: bool = True) -> Slot | None:
        """A free row for a prompt, holding as much of its beginning as is kept anywhere free; None when all are taken.

        At least the prompt's last token is left to be read.

        Args:
            exactly: keep only what was read as the prompt itself would be read, so that it makes no difference.
            reuse: keep anything at all.
        """
        free = [slot for slot in self.slots if not slot.taken]
        if not free:
            return None
        shared = {slot.number: self._shared(slot, tokens, exactly) if reuse else 0 for slot in free}
        # Of those that share as much, the one whose loss is least: empty, or not used for the longest time.
        slot = max(free, key=lambda slot: (shared[slot.number], not slot.held, -slot.last_used))
        slot.taken = True
        self.forget(slot, shared[slot.number])
        return slot

    def give_back(self, slot: Slot) -> None:
        self._uses += 1
        slot.taken, slot.last_used = False, self._uses

    def forget(self, slot: Slot, kept: int = 0) -> None:
        """Hold only the first ``kept`` tokens."""
        del slot.held[kept:]
        slot.in_chunks = min(slot.in_chunks, kept)

    def next_chunk(self, slot: Slot, tokens: Sequence[int]) -> list[int]:
        """The tokens of the prompt to read next."""
        start = len(slot.held)
        return list(tokens[start : start - start % self.chunk + self.chunk])

    def add(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Count tokens whose keys and values were written after those held."""
        whole = len(slot.held) == slot.in_chunks and slot.in_chunks % self.chunk == 0 and len(tokens) == self.chunk
        slot.held += tokens
        if whole:
            slot.in_chunks = len(slot.held)

    def _shared(self, slot: Slot, tokens: Sequence[int], exactly: bool) -> int:
        most = min(len(tokens) - 1, slot.in_chunks if exactly else len(slot.held))
        same = next((place for place in range(most) if slot.held[place] != tokens[place]), most)
        return same - same % self.chunk if exactly else same
