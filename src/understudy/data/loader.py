"""Windows of tokens as batches: a sample is a pure function of the seed and its index.

The only state of a run is the number of samples seen, and any process can compute any sample. Not here: files
(shards.py) and devices.

Shapes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from understudy.data.shuffle import mix, permute
from understudy.losses import IGNORE

Batch = dict[str, Tensor]
"""``tokens`` (B, T) and ``targets`` (B, T), each target the token after; IGNORE where there is no loss."""


class Windows:
    """Windows of ``context_length`` tokens cut from one long array, shuffled anew each epoch.

    An epoch shows every window once, in an order and from an offset given by seed and epoch. Windows are adjacent and do
    not overlap: every token is a target once an epoch, except for less than a window at the two ends.

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
        rows = np.stack([self.tokens[start : start + self.context_length + 1] for start in starts]).astype(np.int64)
        block = torch.from_numpy(rows)
        return {"tokens": block[:, :-1].contiguous(), "targets": block[:, 1:].contiguous()}


def consecutive_batches(
    tokens: np.ndarray, context_length: int, batch_size: int, rank: int = 0, world_size: int = 1
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
