"""Permutations that are pure functions of a seed."""

from __future__ import annotations

import numpy as np


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
