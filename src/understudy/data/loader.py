"""Windows of tokens as batches: a sample is a pure function of the seed and its index.

The only state of a run is the number of samples seen, and any process can compute any sample. Not here: files
(shards.py) and devices.

Shapes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from understudy.losses import IGNORE

Batch = dict[str, Tensor]
"""``tokens`` (B, T) and ``targets`` (B, T), each target the token after; IGNORE where there is no loss."""


class TokenArray(Protocol):
    """Token ids (N,): an array in memory, a mapped file, or a file in an object store."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Any: ...


@runtime_checkable
class FetchedTokens(TokenArray, Protocol):
    """Tokens that are fetched when they are read."""

    def prefetch(self, starts: np.ndarray, length: int) -> None:
        """Fetch the rows of ``length`` tokens from ``starts`` (N,) on, with as few requests as possible."""


class Windows:
    """Windows of ``context_length`` tokens cut from one long array, shuffled anew each epoch.

    An epoch shows every window once, in an order and from an offset given by seed and epoch. Windows are adjacent and do
    not overlap: every token is a target once an epoch, except for less than a window at the two ends.

    Raises:
        ValueError: fewer tokens than one window and its last target.
    """

    def __init__(self, tokens: TokenArray, context_length: int, seed: int) -> None:
        if len(tokens) <= context_length:
            raise ValueError(
                f"the text has {len(tokens)} tokens, fewer than the {context_length + 1} that one window of "
                f"model.context_length {context_length} needs; lower it or bring more text"
            )
        self.tokens, self.context_length, self.seed = tokens, context_length, seed
        self.per_epoch = max(1, (len(tokens) - context_length) // context_length)
        self.offsets = min(context_length, len(tokens) - self.per_epoch * context_length)

    @property
    def fetched(self) -> bool:
        """Whether the tokens lie in an object store."""
        return isinstance(self.tokens, FetchedTokens)

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """The index of the first token of each sample of ``indices`` (N,)."""
        epochs, ranks = np.divmod(indices.astype(np.uint64), np.uint64(self.per_epoch))
        starts = np.empty(len(indices), dtype=np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            key = np.uint64(mix(np.uint64(self.seed), np.uint64(epoch)))
            window = permute(ranks[in_epoch], self.per_epoch, key)
            starts[in_epoch] = window * self.context_length + int(key % np.uint64(self.offsets))
        return starts

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size`` as a batch."""
        starts = self.starts(np.arange(first, first + size))
        if isinstance(self.tokens, FetchedTokens):
            self.tokens.prefetch(starts, self.context_length + 1)
        rows = np.stack([self.tokens[start : start + self.context_length + 1] for start in starts]).astype(np.int64)
        block = torch.from_numpy(rows)
        return {"tokens": block[:, :-1].contiguous(), "targets": block[:, 1:].contiguous()}

    def prefetch(self, first: int, size: int) -> None:
        """Fetch what samples ``first`` to ``first + size`` need, if the tokens lie in an object store."""
        if isinstance(self.tokens, FetchedTokens):
            self.tokens.prefetch(self.starts(np.arange(first, first + size)), self.context_length + 1)


def consecutive_batches(
    tokens: TokenArray, context_length: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """For evaluation: all of ``tokens`` in order, in adjacent windows; each token but the first is a target once.

    The last window may be short and is padded with ignored targets. Every ``world_size``-th batch from ``rank`` on.
    """
    starts = range(0, len(tokens) - 1, context_length)
    for first in range(0, len(starts), batch_size)[rank::world_size]:
        rows = starts[first : first + batch_size]
        inputs = np.zeros((len(rows), context_length), dtype=np.int64)
        targets = np.full((len(rows), context_length), IGNORE, dtype=np.int64)
        for row, start in enumerate(rows):
            window = np.asarray(tokens[start : start + context_length + 1], dtype=np.int64)
            inputs[row, : len(window) - 1], targets[row, : len(window) - 1] = window[:-1], window[1:]
        yield {"tokens": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}


def shuffled(sample: int, size: int, seed: int) -> int:
    """The index, of ``size``, that a sample has: each index once an epoch, in an order that seed and epoch give."""
    epoch, rank = divmod(sample, size)
    key = np.uint64(mix(np.uint64(epoch), np.uint64(seed)))
    return int(permute(np.array([rank]), size, key)[0])


def permute(indices: np.ndarray, size: int, key: np.uint64) -> np.ndarray:
    """The images of ``indices`` (N,) under a permutation of 0…size-1 chosen by ``key``, each computed by itself.

    A Feistel network permutes the next power of four. Images beyond ``size`` are permuted again until they are inside
    (cycle walking), which keeps it one to one.
    """
    half_bits = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half_bits) - np.uint64(1)
    values = indices.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        left, right = values[outside] >> half_bits, values[outside] & low
        for number in range(4):
            left, right = right, left ^ (mix(right + (np.uint64(number) << np.uint64(56)), key) & low)
        values[outside] = (left << half_bits) | right
        outside = values >= size
    return values.astype(np.int64)


def mix(value: np.ndarray | np.uint64, key: np.uint64) -> np.ndarray | np.uint64:
    """A 64-bit hash of value and key (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):  # a hash may overflow
        z = value * np.uint64(0x9E3779B97F4A7C15) + key * np.uint64(0xD1342543DE82EF95) + np.uint64(0x632BE59BD9B4E019)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
