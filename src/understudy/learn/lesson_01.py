"""Checks of the exercises of notebook 1: characters and the bigram."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

TABLE = [[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.1, 0.9, 0.0]]
"""Probabilities of three tokens after each of three."""


def check_count_triples(answer: Callable[..., Any]) -> None:
    """A tensor (V, V, V) of counts, with triples that overlap and texts that are too short for one."""
    for ids, size in (([0, 1, 2, 0, 1, 2, 2], 3), ([1, 1, 1, 1, 1], 2), ([4, 0, 4], 5), ([0, 1], 3), ([], 2)):
        counts = answer(list(ids), size)
        _expect_tensor(counts, (size, size, size), f"count_triples({ids}, {size})")
        expected = torch.zeros(size, size, size, dtype=torch.long)
        for a, b, c in zip(ids, ids[1:], ids[2:]):
            expected[a, b, c] += 1
        wrong = (counts != expected).nonzero().tolist()
        assert not wrong, (
            f"for ids {ids} the entry {wrong[0]} must be {expected[tuple(wrong[0])].item()}, and yours is "
            f"{counts[tuple(wrong[0])].item()}"
        )


def check_smooth(answer: Callable[..., Any]) -> None:
    """Rows that sum to 1, also where a row has no count and nothing is added."""
    counts = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 6]])
    third = [1 / 3, 1 / 3, 1 / 3]
    for amount, expected in (
        (1, [[4 / 7, 2 / 7, 1 / 7], third, [1 / 9, 1 / 9, 7 / 9]]),
        (0.5, [[7 / 11, 3 / 11, 1 / 11], third, [0.5 / 7.5, 0.5 / 7.5, 6.5 / 7.5]]),
        (0, [[0.75, 0.25, 0.0], third, [0.0, 0.0, 1.0]]),
    ):
        given = counts.clone()
        probs = answer(given, amount)
        assert torch.equal(given, counts), "smooth changed the counts it was given; make a new tensor"
        _expect_tensor(probs, (3, 3), f"smooth(counts, {amount})")
        for number, row in enumerate(expected):
            close = torch.allclose(probs[number].double(), torch.tensor(row).double(), atol=1e-5)
            assert close, (
                f"with amount {amount}, the counts {counts[number].tolist()} must become "
                f"{_rounded(row)}, and yours are {_rounded(probs[number].tolist())}"
            )


def check_surprises(answer: Callable[..., Any]) -> None:
    """Minus log-probabilities in nats: one fewer than tokens, infinite for what cannot come."""
    table = torch.tensor(TABLE)
    for ids in ([0, 1, 2, 1], [0, 0], [2, 0, 2, 1, 2, 0], [1, 1]):
        given = answer(table.clone(), list(ids))
        _expect_tensor(given, (len(ids) - 1,), f"surprises(probs, {ids})")
        values = given.tolist()
        expected = [-math.log(p) if (p := TABLE[a][b]) else math.inf for a, b in pairwise(ids)]
        base_2 = [value / math.log(2) for value in expected]
        assert not (_close(values, base_2) and not _close(values, expected)), (
            "your values are in bits; use the natural logarithm"
        )
        assert _close(values, expected), (
            f"for ids {ids} the values must be {_rounded(expected)}, and yours are {_rounded(values)}"
        )


def check_sample_at_temperature(answer: Callable[..., Any]) -> None:
    """A list without the start, the likeliest tokens at 0, and the right frequencies otherwise."""
    cycle = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    ids = answer(cycle, 0, 5, 1.0, 1)
    assert isinstance(ids, list), f"return a list of ids, not {type(ids).__name__}"
    assert len(ids) == 5, f"length 5 must give 5 new ids, and yours has {len(ids)}; the start is not one of them"
    assert [int(token) for token in ids] == [1, 2, 0, 1, 2], (
        f"where 1 always follows 0, 2 follows 1 and 0 follows 2, five tokens after 0 must be [1, 2, 0, 1, 2], not {ids}"
    )
    ids = answer(torch.tensor(TABLE), 2, 4, 0, 1)
    assert [int(token) for token in ids] == [1, 2, 1, 2], (
        f"at temperature 0 the likeliest token is taken, so after 2 comes [1, 2, 1, 2], not {ids}"
    )
    coin = torch.tensor([[0.8, 0.2], [0.8, 0.2]])
    first, again, other = (answer(coin, 0, 60, 1.0, seed) for seed in (1, 1, 2))
    assert first == again, "the same seed must give the same list; make a torch.Generator from the seed"
    assert first != other, "another seed must give another list; you do not use the seed"
    for temperature in (1.0, 0.5, 2.0):
        sharp = 0.8 ** (1 / temperature), 0.2 ** (1 / temperature)
        expected = sharp[0] / sum(sharp)
        share = sum(int(token) == 0 for token in answer(coin, 0, 3000, temperature, 1)) / 3000
        assert abs(share - expected) < 0.04, (
            f"with probabilities 0.8 and 0.2 at temperature {temperature}, about {expected:.2f} of the tokens must be 0, "
            f"and {share:.2f} of yours are"
        )


def _expect_tensor(value: Any, shape: tuple[int, ...], call: str) -> None:
    assert isinstance(value, Tensor), f"{call} must return a tensor, not {type(value).__name__}"
    assert value.shape == shape, f"{call} must have shape {shape}, and yours has {tuple(value.shape)}"


def _close(values: list[float], expected: list[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) for a, b in zip(values, expected, strict=True))


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]
