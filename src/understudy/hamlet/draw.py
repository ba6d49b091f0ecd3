"""Random choices that are identical on every platform and in every version of Python.

Only `random.Random(int).random()` is used of the standard library's generator: Python promises that
its sequence never changes. `choice`, `shuffle` and the rest carry no such promise, nor does `hash`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def stable_hash(*words: object) -> int:
    """A 64-bit hash of the text of `words`, the same in every process."""
    text = "\x1f".join(map(str, words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Draw:
    """A seeded stream of random choices."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def chance(self, p: float) -> bool:
        """Return True with probability `p`."""
        return self.random() < p

    def pick(self, options: Sequence[T]) -> T:
        """A uniformly chosen element of `options`."""
        return options[int(self.random() * len(options))]

    def between(self, low: int, high: int) -> int:
        """A uniform integer from `low` to `high`, both included."""
        return low + int(self.random() * (high - low + 1))

    def some(self, options: Sequence[T], n: int) -> list[T]:
        """A sample of `n` elements of `options` without replacement, in random order."""
        pool = list(options)
        assert n <= len(pool), f"{n} of {len(pool)} wanted"
        for i in range(n):
            j = i + int(self.random() * (len(pool) - i))
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:n]
