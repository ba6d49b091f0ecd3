"""Windows of several data sets in given shares. Which set a sample is from, and which of its windows, follows from the
sample's index, the shares and the seed, so that a run resumes exactly at any number of processes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from understudy.data.loader import Batch, Windows, mix, permute

BLOCK = 1000
"""Samples among which the shares are exact, but for rounding to whole samples; their order is shuffled."""


@dataclass(frozen=True)
class Phase:
    """Shares of the data sets from a sample on, as weights of any sum."""

    first_sample: int
    weights: tuple[float, ...]

    def counts(self) -> np.ndarray:
        """Samples of each data set (S,) in a block, by the largest remainder."""
        exact = BLOCK * np.asarray(self.weights) / sum(self.weights)
        counts = np.floor(exact).astype(np.int64)
        counts[np.argsort(counts - exact, kind="stable")[: BLOCK - counts.sum()]] += 1
        return counts


class MixedWindows:
    """A batch source over several :class:`Windows`.

    Args:
        phases: the first begins at sample 0; each lasts until the next.
    """

    def __init__(self, parts: Sequence[Windows], phases: Sequence[Phase], seed: int) -> None:
        self.parts, self.phases, self.seed = parts, phases, seed
        self.per_epoch = sum(part.per_epoch for part in parts)
        self.before = [np.zeros(len(parts), dtype=np.int64)]  # samples of each part before each phase
        for number, (phase, following) in enumerate(itertools.pairwise(phases)):
            self.before.append(self.before[-1] + self._drawn(number, following.first_sample - phase.first_sample))

    @property
    def fetched(self) -> bool:
        """Whether a part lies in an object store."""
        return any(part.fetched for part in self.parts)

    def drawn(self, samples: int) -> np.ndarray:
        """How many of the first ``samples`` are from each part (S,)."""
        number = self._phase(samples)
        return self.before[number] + self._drawn(number, samples - self.phases[number].first_sample)

    def locate(self, sample: int) -> tuple[int, int]:
        """The part that a sample is from, and its index there."""
        number = self._phase(sample)
        block, place = divmod(sample - self.phases[number].first_sample, BLOCK)
        parts, ranks = self._block(number, block)
        part = int(parts[place])
        return part, int(self.before[number][part] + block * self.phases[number].counts()[part] + ranks[place])

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size`` as a batch."""
        self.prefetch(first, size)
        located = (self.locate(sample) for sample in range(first, first + size))
        rows = [self.parts[part].batch(index, 1) for part, index in located]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def prefetch(self, first: int, size: int) -> None:
        """Fetch what samples ``first`` to ``first + size`` need, of the parts that lie in an object store."""
        if not self.fetched:
            return
        wanted: dict[int, list[int]] = {}
        for part, index in map(self.locate, range(first, first + size)):
            wanted.setdefault(part, []).append(index)
        for part, indices in wanted.items():
            self.parts[part].prefetch(min(indices), max(indices) - min(indices) + 1)

    def _phase(self, sample: int) -> int:
        return max(number for number, phase in enumerate(self.phases) if phase.first_sample <= sample)

    def _drawn(self, phase: int, samples: int) -> np.ndarray:
        """Of the first samples of a phase, how many are from each part (S,)."""
        blocks, rest = divmod(samples, BLOCK)
        parts, _ = self._block(phase, blocks)
        counts: np.ndarray = blocks * self.phases[phase].counts() + np.bincount(parts[:rest], minlength=len(self.parts))
        return counts

    @functools.lru_cache(maxsize=8)  # noqa: B019  # lives as long as the run
    def _block(self, phase: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The part of each sample of a block (BLOCK,), and its rank among the block's samples of this part (BLOCK,)."""
        counts = self.phases[phase].counts()
        key = np.uint64(mix(np.uint64(mix(np.uint64(self.seed), np.uint64(phase))), np.uint64(block)))
        parts = np.repeat(np.arange(len(counts)), counts)[permute(np.arange(BLOCK), BLOCK, key)]
        ranks = np.empty(BLOCK, dtype=np.int64)
        for part, count in enumerate(counts):
            ranks[parts == part] = np.arange(count)
        return parts, ranks
