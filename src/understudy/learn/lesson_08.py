"""Checks of notebook 8, PPO and GRPO: the clipped loss, leave-one-out advantages, generalised advantages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from understudy.losses import clipped_ratio_sum, generalised_advantages, group_advantages


def check_clipped_loss(answer: Callable[..., Any]) -> None:
    cases = [
        (1.0, 1.0, -1.0, "a ratio of 1 is not clipped: the loss is minus the advantage"),
        (1.5, 1.0, -1.2, "a good token that is 1.5 times as likely counts as 1.2 times"),
        (0.5, 1.0, -0.5, "a good token that became less likely is not clipped: the smaller of 0.5 A and 0.8 A counts"),
        (0.5, -1.0, 0.8, "a bad token that is half as likely counts as 0.8 times"),
        (1.5, -1.0, 1.5, "a bad token that became likelier is not clipped: the smaller of 1.5 A and 1.2 A counts"),
    ]
    for ratio, advantage, expected, rule in cases:
        old = torch.tensor([-2.0])
        value = _number(answer(old + math.log(ratio), old, torch.tensor([advantage]), 0.2, 0.2))
        assert math.isclose(value, expected, abs_tol=1e-4), (
            f"for the ratio {ratio} and the advantage {advantage:+} came {value:.4f}, and {expected} was expected: {rule}"
        )
    generator = torch.Generator().manual_seed(0)
    new, old, advantages = torch.randn(3, 50, generator=generator)
    for low, high in ((0.2, 0.2), (0.1, 0.3)):
        value, expected = (
            _number(answer(new, old, advantages, low, high)),
            float(clipped_ratio_sum(new, old, advantages, low, high)[0]) / 50,
        )
        assert math.isclose(value, expected, rel_tol=1e-4), (
            f"for 50 random tokens, low {low} and high {high} came {value:.4f}, and {expected:.4f} was expected; "
            "return the mean over the tokens, and mind that low and high may differ"
        )


def check_leave_one_out(answer: Callable[..., Any]) -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 2.0, 0.0]])
    for given in (rewards, torch.tensor([[5.0, 1.0]])):
        value, shape = answer(given.clone()), tuple(given.shape)
        assert isinstance(value, Tensor) and tuple(value.shape) == shape, (
            f"return a tensor of shape {shape} for rewards of that shape"
        )
        expected = group_advantages(given.flatten(), shape[1], divide=False, leave_one_out=True).view(shape)
        assert torch.allclose(value, expected, atol=1e-5), (
            f"for the rewards {given.tolist()} came {_rounded(value)}, and {_rounded(expected)} was expected: the baseline of "
            "an answer is the mean of the others in its row, without itself"
        )


def check_token_advantages(answer: Callable[..., Any]) -> None:
    cases: list[tuple[list[float], list[float], float]] = [
        ([0.0, 0.0, 1.0], [0.2, 0.5, 0.9], 1.0),
        ([0.0, 0.0, 1.0], [0.2, 0.5, 0.9], 0.0),
        ([-0.1, -0.1, 0.9, 0.0], [0.3, 0.1, 0.5, 0.2], 0.95),
        ([1.0], [0.4], 0.5),
    ]
    for rewards, values, lam in cases:
        given = f"for the rewards {rewards}, the values {values} and lam {lam}"
        result = answer(list(rewards), list(values), lam)
        assert isinstance(result, (list, tuple)) and len(result) == len(rewards), (
            f"{given} a list of {len(rewards)} numbers was expected, and {result!r} came"
        )
        mask = torch.ones(1, len(rewards), dtype=torch.bool)
        expected = generalised_advantages(torch.tensor([rewards]), torch.tensor([values]), mask, 1.0, lam)[0][0]
        assert torch.allclose(torch.tensor([float(x) for x in result]), expected, atol=1e-5), (
            f"{given} came {_rounded(torch.tensor([float(x) for x in result]))}, and {_rounded(expected)} was expected: go from "
            "the last token to the first, and take 0 as the value after the last"
        )


def _number(value: Any) -> float:
    assert isinstance(value, float) or (isinstance(value, Tensor) and value.numel() == 1), (
        f"return one number, the mean over the tokens; {value!r} came"
    )
    return float(value)


def _rounded(values: Tensor) -> list[Any]:
    return torch.round(values.double(), decimals=4).tolist()
