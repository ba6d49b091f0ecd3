"""Which tokens are in which batch: a pure function of the seed and the index of the sample.

There is no state to save but how many samples have been seen; any process can compute any sample. Not here:
files (shards.py) and devices.

Shapes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from understudy.losses import IGNORE

Batch = dict[str, Tensor]
"""``tokens`` (B, T) and ``targets`` (B, T), each target the token after; IGNORE where nothing is learnt."""


class Windows:
    """Windows of ``context_length`` tokens cut from one long array, shuffled anew each epoch.

    An epoch visits every window once, in an order and from a starting offset given by seed and epoch. Windows touch
    but do not overlap, so every token is a target once an epoch, but for less than a window at the two ends.

    Raises:
        ValueError: fewer tokens than one window and its last target.
    """

    def __init__(self, tokens: np.ndarray, context_length: int, seed: int) -> None:
        if len(tokens) <= context_length:
            raise ValueError(
                f"the text has {len(tokens)} tokens, fewer than the {context_length + 1} that one window of "
                f"model.context_length {context_length} needs; lower it or bring more text"
            )
        self.tokens, self.context_length, self.seed = tokens, context_length, seed
        self.per_epoch = max(1, (len(tokens) - context_length) // context_length)
        self.offsets = min(context_length, len(tokens) - self.per_epoch * context_length)

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """First token of each of the samples numbered ``indices`` (N,)."""
        epochs, places = np.divmod(indices.astype(np.uint64), np.uint64(self.per_epoch))
        starts = np.empty(len(indices), dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = np.uint64(mix(np.uint64(self.seed), np.uint64(epoch)))
            window = permute(places[here], self.per_epoch, key)
            starts[here] = window * self.context_length + int(key % np.uint64(self.offsets))
        return starts

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size`` as a batch."""
        starts = self.starts(np.arange(first, first + size))
        rows = np.stack([self.tokens[start : start + self.context_length + 1] for start in starts]).astype(np.int64)
        block = torch.from_numpy(rows)
        return {"tokens": block[:, :-1].contiguous(), "targets": block[:, 1:].contiguous()}


def consecutive_batches(
    tokens: np.ndarray, context_length: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """All of ``tokens`` in order, in windows that touch; each token but the first is a target exactly once.

    The last window may be short; what is missing is filled with ignored targets. Batches go round the processes.
    """
    starts = range(0, len(tokens) - 1, context_length)
    for number, first in enumerate(range(0, len(starts), batch_size)):
        if number % world_size != rank:
            continue
        rows = starts[first : first + batch_size]
        inputs = np.zeros((len(rows), context_length), dtype=np.int64)
        targets = np.full((len(rows), context_length), IGNORE, dtype=np.int64)
        for row, start in enumerate(rows):
            piece = np.asarray(tokens[start : start + context_length + 1], dtype=np.int64)
            inputs[row, : len(piece) - 1], targets[row, : len(piece) - 1] = piece[:-1], piece[1:]
        yield {"tokens": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}


def shuffled(index: int, size: int, seed: int) -> int:
    """Which of ``size`` things the sample numbered ``index`` is: each once an epoch, in an order of the epoch's own."""
    epoch, place = divmod(index, size)
    key = np.uint64(mix(np.uint64(epoch), np.uint64(seed)))
    return int(permute(np.array([place]), size, key)[0])


def permute(places: np.ndarray, size: int, key: np.uint64) -> np.ndarray:
    """Where each of ``places`` (N,) in 0…size-1 goes in a shuffle chosen by ``key``, computed place by place.

    A Feistel network shuffles the next power of four; places that land beyond ``size`` are sent through again
    until they land inside, which keeps it one to one.
    """
    half_bits = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half_bits) - np.uint64(1)
    values = places.astype(np.uint64)
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
    with np.errstate(over="ignore"):  # wrapping round is what a hash does
        z = value * np.uint64(0x9E3779B97F4A7C15) + key * np.uint64(0xD1342543DE82EF95) + np.uint64(0x632BE59BD9B4E019)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
