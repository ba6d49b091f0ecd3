"""The order of data: a pure function of seed and sample, that shows everything once an epoch."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.data.loader import Batch, Windows, consecutive_batches, permute
from understudy.losses import IGNORE
from understudy.train.stage import IndexedBatches


@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_permute_is_one_to_one(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, np.uint64(key))) == list(range(size))


def test_permute_shuffles_and_keys_differ() -> None:
    orders = [permute(np.arange(1000), 1000, np.uint64(key)) for key in range(3)]
    assert all(abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15 for order in orders)
    assert not np.array_equal(orders[0], orders[1])


@given(st.integers(1, 20), st.integers(2, 500), st.integers(0, 5))
def test_an_epoch_shows_every_window_once(context: int, extra: int, epoch: int) -> None:
    windows = Windows(np.arange(context + extra), context, seed=3)
    starts = windows.starts(np.arange(epoch * windows.per_epoch, (epoch + 1) * windows.per_epoch))
    assert sorted(np.diff(np.sort(starts))) == [context] * (windows.per_epoch - 1)
    assert starts.min() >= 0 and starts.max() + context < context + extra


def test_a_sample_does_not_depend_on_the_batch_it_comes_in() -> None:
    windows = Windows(np.arange(5000), 16, seed=1)
    whole = windows.batch(40, 12)
    for number in range(12):
        alone = windows.batch(40 + number, 1)
        assert (alone["tokens"][0] == whole["tokens"][number]).all()
    assert (whole["targets"] == whole["tokens"] + 1).all()
    assert not (Windows(np.arange(5000), 16, seed=2).batch(40, 12)["tokens"] == whole["tokens"]).all()


def test_consecutive_batches_predict_every_token_but_the_first_once() -> None:
    for processes in (1, 3):
        seen = []
        for rank in range(processes):
            for batch in consecutive_batches(np.arange(101), 8, 3, rank, processes):
                seen += batch["targets"][batch["targets"] != IGNORE].tolist()
        assert sorted(seen) == list(range(1, 101))


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="8 tokens, fewer than the 9"):
        Windows(np.arange(8), 8, seed=0)
    assert Windows(np.arange(9), 8, seed=0).batch(0, 2)["targets"][1, -1] == 8


def test_batches_are_read_one_step_ahead_and_stay_those_of_their_step() -> None:
    windows = Windows(np.arange(1000), 8, seed=3)
    read: list[int] = []

    class Recorded:
        def batch(self, first: int, size: int) -> Batch:
            read.append(first)
            return windows.batch(first, size)

    config = SimpleNamespace(train=SimpleNamespace(batch_size=6, micro_batch_size=3))
    context: Any = SimpleNamespace(config=config, runtime=SimpleNamespace(rank=0, world_size=1))
    source = IndexedBatches(Recorded(), context)
    for step in (0, 1, 2, 7, 7, 3):
        for number, batch in enumerate(source.batches(step)):
            assert torch.equal(batch["tokens"], windows.batch(6 * step + 3 * number, 3)["tokens"])
        deadline = time.monotonic() + 120
        while step == 2 and len(read) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
    source.thread.shutdown()
    assert read[:8] == [0, 3, 6, 9, 12, 15, 18, 21], "step 3 is read while 2 is used, and each once"
