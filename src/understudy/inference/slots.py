"""Cache slots of the batch engine: one row of keys and values for each request that runs.

A request that ends leaves its keys and values in the slot. A later request with the same prefix takes that slot and computes
only its remaining tokens, such as the next turn of a conversation or another question after the same system message. Not
here: running the model, the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from understudy.config.model import ModelShape
from understudy.inference.requests import SequenceRequest
from understudy.model import KVCache


@dataclass(eq=False)
class Slot:
    """One row of the KV cache.

    Attributes:
        tokens: the tokens whose keys and values are in the cache.
        exact_tokens: how many of them, from the first, were computed in whole prompt chunks. Their values are a function of
            the tokens alone, to the bit; those of tokens computed one at a time, or in a chunk that begins elsewhere,
            differ by rounding.
    """

    number: int
    tokens: list[int] = field(default_factory=list)
    exact_tokens: int = 0
    in_use: bool = False
    last_used: int = 0


class Slots:
    """All slots and their KV cache; the cache is None for a bigram, which needs none.

    Args:
        chunk: tokens of a prompt computed at a time; chunks begin at multiples of it.
    """

    def __init__(self, shape: ModelShape, max_rows: int, chunk: int, device: torch.device, dtype: torch.dtype) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}; give 1 or more")
        if chunk < 1:
            raise ValueError(f"prefill_tokens is {chunk}; give 1 or more")
        self.chunk, self.cache, self.cache_bytes, self._uses = chunk, None, 0, 0
        if shape.family != "bigram":
            self.cache = KVCache(shape, max_rows, None, device, dtype)
            self.cache_bytes = self.cache.allocate()
        self.slots = [Slot(number) for number in range(max_rows)]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def cached_tokens(self) -> int:
        return sum(len(slot.tokens) for slot in self.slots)

    def acquire(self, request: SequenceRequest) -> Slot | None:
        """A free slot for a prompt, with the longest cached prefix of it; None if no slot is free.

        At least the prompt's last token is left to compute. Of a request with a seed only whole prompt chunks are reused,
        so that the result does not depend on earlier requests; of one for the prompt's log-probabilities nothing is.
        """
        free = [slot for slot in self.slots if not slot.in_use]
        if not free:
            return None
        shared = {slot.number: self._shared_prefix(slot, request) for slot in free}
        # Of the slots with an equally long prefix: an empty one, else the least recently used.
        slot = max(free, key=lambda slot: (shared[slot.number], not slot.tokens, -slot.last_used))
        slot.in_use = True
        self.truncate(slot, shared[slot.number])
        return slot

    def release(self, slot: Slot) -> None:
        self._uses += 1
        slot.in_use, slot.last_used = False, self._uses

    def truncate(self, slot: Slot, length: int = 0) -> None:
        """Keep only the first ``length`` tokens of a slot."""
        del slot.tokens[length:]
        slot.exact_tokens = min(slot.exact_tokens, length)

    def next_chunk(self, slot: Slot, tokens: Sequence[int]) -> list[int]:
        """The tokens of the prompt to compute next."""
        start = len(slot.tokens)
        return list(tokens[start : start - start % self.chunk + self.chunk])

    def append(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Record tokens whose keys and values were written to the cache."""
        if len(slot.tokens) == slot.exact_tokens and slot.exact_tokens % self.chunk == 0 and len(tokens) == self.chunk:
            slot.exact_tokens += self.chunk
        slot.tokens += tokens

    def _shared_prefix(self, slot: Slot, request: SequenceRequest) -> int:
        """Tokens of the prompt that the slot holds and that may be reused."""
        tokens, exact = request.tokens, request.settings.seed is not None
        if request.prompt_logprobs is not None:
            return 0
        limit = min(len(tokens) - 1, slot.exact_tokens if exact else len(slot.tokens))
        shared = next((place for place in range(limit) if slot.tokens[place] != tokens[place]), limit)
        return shared - shared % self.chunk if exact else shared
