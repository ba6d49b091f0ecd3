"""Checks of the exercises in notebook 9, DPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from understudy import losses


def check_preference_probabilities(answer: Callable[..., Any]) -> None:
    """Equal rewards, different ones, and differences at which exp() overflows."""
    for rewards in (torch.zeros(3), torch.tensor([1.0, 0.0, -2.0]), torch.tensor([500.0, -500.0])):
        given = _tensor(answer(rewards.clone()), (len(rewards), len(rewards)), f"for the rewards {_list(rewards)}")
        expected = torch.sigmoid(rewards[:, None] - rewards[None])
        assert not torch.allclose(given, expected.T, atol=1e-5) or torch.allclose(expected, expected.T), (
            "rows and columns are exchanged: row i, column j is the probability that i is preferred to j"
        )
        _same(given, expected, f"for the rewards {_list(rewards)}")


def check_optimal_policy(answer: Callable[..., Any]) -> None:
    """Usual values, an answer that the reference never gives, and rewards at which exp() overflows."""
    for reference, rewards, beta in (
        (torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, -1.0]), 1.0),
        (torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, -1.0]), 0.25),
        (torch.tensor([0.1, 0.9]), torch.tensor([7.0, 7.0]), 0.5),
        (torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 1.0, 9.0]), 1.0),
        (torch.tensor([0.5, 0.5]), torch.tensor([100.0, 99.9]), 0.1),
    ):
        case = f"for reference {_list(reference)}, rewards {_list(rewards)} and beta {beta}"
        given = _tensor(answer(reference.clone(), rewards.clone(), beta), (len(reference),), case)
        assert torch.allclose(given.sum(), torch.tensor(1.0), atol=1e-4), (
            f"{case} the probabilities add up to {float(given.sum()):.4g} and should add up to 1; for large rewards divided "
            "by a small beta, subtract the largest before exp()"
        )
        _same(given, (reference.log() + rewards / beta).softmax(0), case)


def check_dpo_loss(answer: Callable[..., Any]) -> None:
    """No difference, random values against the library's loss, and log-ratios at which exp() overflows."""
    zeros = torch.zeros(2)
    given = _tensor(answer(zeros, zeros, zeros, zeros, 0.1), (2,), "for equal log-probabilities")
    _same(given, torch.full((2,), 0.6931), "for equal log-probabilities (the loss is log 2)")
    torch.manual_seed(0)
    for scale, beta in ((1.0, 0.1), (1.0, 2.0), (400.0, 1.0)):
        values = [-scale * torch.rand(5) for _ in range(4)]
        chosen, rejected, reference_chosen, reference_rejected = values
        case = f"for log-probabilities between -{scale:g} and 0 and beta {beta}"
        expected = losses.dpo_loss(chosen - reference_chosen, rejected - reference_rejected, beta)
        given = _tensor(answer(*(value.clone() for value in values), beta), (5,), case)
        assert given.isfinite().all(), f"{case} it returned {_list(given)}; use logsigmoid, which does not overflow"
        _same(given, expected, case)


def check_kl(answer: Callable[..., Any]) -> None:
    """Equal distributions, different ones in both directions, and a policy that never gives one of the answers."""
    half, skewed = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    for policy, reference in ((half, half), (skewed, half), (half, skewed), (torch.tensor([1.0, 0.0]), half)):
        case = f"for policy {_list(policy)} and reference {_list(reference)}"
        expected = torch.special.xlogy(policy, policy / reference).sum()
        given = _tensor(answer(policy.clone(), reference.clone()), (), case)
        assert not given.isnan(), f"{case} it returned nan; a term with policy probability 0 is 0"
        reverse = torch.special.xlogy(reference, reference / policy).sum()
        assert torch.isclose(expected, reverse) or not torch.isclose(given, reverse, atol=1e-5), (
            f"{case} it returned the KL of the reference from the policy; the mean is over the policy's answers"
        )
        _same(given, expected, case)


def _tensor(given: Any, shape: tuple[int, ...], case: str) -> Tensor:
    assert given is not None, "it returned nothing; is the return missing?"
    tensor = torch.as_tensor(given, dtype=torch.float32).detach()
    assert tuple(tensor.shape) == shape, (
        f"{case} it returned the shape {tuple(tensor.shape)}, and should return {shape}"
    )
    return tensor


def _same(given: Tensor, expected: Tensor, case: str) -> None:
    assert torch.allclose(given, expected, rtol=1e-3, atol=1e-4), (
        f"{case} it returned {_list(given)} and should return {_list(expected)}"
    )


def _list(tensor: Tensor) -> Any:
    return (tensor * 10_000).round().div(10_000).tolist()
