"""Checks of notebook 7, a reward model: the Bradley-Terry loss, pairs of a ranking, the best of n."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from understudy.losses import pair_loss


def check_bradley_terry_loss(answer: Callable[..., Any]) -> None:
    cases = [
        ([0.0], [0.0], "equal scores give log 2"),
        ([2.0], [0.0], "a chosen answer with the higher score gives less than log 2"),
        ([0.0], [2.0], "a chosen answer with the lower score gives more than log 2"),
        ([12.0, 10.0], [10.0, 12.0], "the loss is the mean over the pairs, and only differences count"),
        ([0.0], [1000.0], "it must stay finite: torch.nn.functional.logsigmoid computes log(sigmoid(x)) safely"),
    ]
    for chosen, rejected, rule in cases:
        one, other = torch.tensor(chosen), torch.tensor(rejected)
        given, expected = f"for chosen {chosen} and rejected {rejected}", float(pair_loss(one, other).mean())
        value = _number(answer(one, other))
        assert math.isclose(value, expected, rel_tol=1e-4), (
            f"{given} came {value:.4f}, and {expected:.4f} was expected: {rule}"
        )


def check_pairs_of_ranking(answer: Callable[..., Any]) -> None:
    cases: list[tuple[list[float], list[tuple[int, int]]]] = [
        ([3, 1, 2], [(0, 1), (0, 2), (2, 1)]),
        ([1, 1], []),
        ([0.5, 2.0, 0.5, 2.0], [(1, 0), (1, 2), (3, 0), (3, 2)]),
        ([7], []),
        ([4, 3, 2, 1], [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
    ]
    for ratings, expected in cases:
        given = answer(list(ratings))
        assert isinstance(given, list), f"return a list of pairs; {type(given).__name__} came"
        pairs = [tuple(pair) for pair in given]
        assert len(set(pairs)) == len(pairs), f"for the ratings {ratings} a pair came twice: {pairs}"
        assert set(pairs) == set(expected), (
            f"for the ratings {ratings} came {sorted(pairs)}, and {expected} was expected: the better answer first, and no "
            "pair for equal ratings"
        )


def check_best_of_n(answer: Callable[..., Any]) -> None:
    learned = torch.tensor([[0.95, 0.9, 0.5, 0.4], [2.0, 1.0, 3.0, 4.0]])
    true = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
    cases = [
        (1, 0.5, "with n = 1 all answers are kept"),
        (2, 0.75, "the kept answers are 0 and 2 of the first row, 0 and 3 of the second"),
        (4, 1.0, "the kept answers are 0 of the first row and 3 of the second"),
    ]
    for n, expected, rule in cases:
        value = _number(answer(learned.clone(), true.clone(), n))
        assert math.isclose(value, expected, abs_tol=1e-5), f"n = {n} gave {value:.3f}, not {expected}: {rule}"
    generator = torch.Generator().manual_seed(0)
    learned, true = torch.randn(2, 5, 12, generator=generator)
    for n in (2, 3, 6, 12):
        groups = learned.view(5, -1, n).argmax(-1, keepdim=True)
        expected = float(true.view(5, -1, n).gather(-1, groups).mean())
        value = _number(answer(learned.clone(), true.clone(), n))
        assert math.isclose(value, expected, abs_tol=1e-5), (
            f"for random scores (5, 12) and n = {n} came {value:.3f}, and {expected:.3f} was expected: choose by the learned "
            "score, and return the mean true score"
        )


def _number(value: Any) -> float:
    assert isinstance(value, float) or (isinstance(value, Tensor) and value.numel() == 1), (
        f"return one number, the mean; {value!r} came"
    )
    return float(value)
