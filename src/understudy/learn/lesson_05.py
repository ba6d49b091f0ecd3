"""Checks of the exercises in notebook 5, training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from understudy.config.run import OptimConfig
from understudy.losses import IGNORE, cross_entropy_sum
from understudy.optim import lr_factor


def check_mean_loss(answer: Callable[..., Any]) -> None:
    """Zero logits, ignored targets, and logits so large that exp() overflows."""
    logits, targets = torch.zeros(1, 3, 4), torch.tensor([[0, 3, 1]])
    _near(answer(logits, targets), math.log(4), "of zero logits over 4 tokens, all equally likely")
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    _near(answer(logits, targets), float(cross_entropy_sum(logits, targets)) / 10, "of random logits (2, 5, 7)")
    targets[0, 2:] = IGNORE
    expected = float(cross_entropy_sum(logits, targets)) / 7
    _near(answer(logits, targets), expected, "with 3 of 10 targets equal to -100, which count neither above nor below")
    logits = torch.tensor([[[1000.0, 0.0], [0.0, 1000.0]]])
    hint = "with logits of 1,000, where exp() overflows; use log_softmax"
    _near(answer(logits, torch.tensor([[0, 0]])), 500.0, hint)


def check_learning_rate(answer: Callable[..., Any]) -> None:
    """The whole schedule against the library's, with and without a warmup."""
    for steps, warmup, peak in ((100, 10, 1e-2), (50, 0, 3e-4), (20, 1, 1.0), (12, 12, 0.5)):
        config = OptimConfig(schedule="cosine", warmup_steps=warmup, min_lr_fraction=0.0)
        for step in range(steps):
            expected, given = peak * lr_factor(config, step, steps), float(answer(step, steps, warmup, peak))
            part = "warmup" if step < warmup else "decay"
            assert math.isclose(given, expected, rel_tol=1e-6, abs_tol=1e-9), (
                f"learning_rate({step}, {steps}, {warmup}, {peak}) is {given:.6g} and should be {expected:.6g}; the step "
                f"is in the {part}"
            )


def check_tokens_and_epochs(answer: Callable[..., Any]) -> None:
    """Less than an epoch, several, and a part of one."""
    for steps, batch_size, context, data in ((10, 4, 8, 640), (100, 32, 64, 204_800), (3, 2, 5, 7)):
        expected = steps * batch_size * context, steps * batch_size * context / data
        given = answer(steps, batch_size, context, data)
        call = f"tokens_and_epochs({steps}, {batch_size}, {context}, {data})"
        assert isinstance(given, tuple) and len(given) == 2, f"{call} is {given!r}; return a pair (tokens, epochs)"
        assert given[0] == expected[0], f"{call} says {given[0]} tokens; each step reads {batch_size} x {context}"
        hint = "divide without rounding" if int(given[1]) == int(expected[1]) else "an epoch is one pass over the data"
        assert math.isclose(given[1], expected[1]), (
            f"{call} says {given[1]} epochs and should say {expected[1]:.4g}; {hint}"
        )


def check_fit_power_law(answer: Callable[..., Any]) -> None:
    """Exact power laws, falling and rising, and one with noise."""
    x = [1e3, 1e4, 1e5, 1e6]
    for a, b in ((20.0, 0.1), (5.0, 0.5), (0.3, -0.25)):
        given = answer(x, [a * value**-b for value in x])
        hint = ""
        if len(given) == 2 and math.isclose(float(given[1]), -b, rel_tol=1e-4):
            hint = "; b is the slope with its sign changed"
        elif len(given) == 2 and math.isclose(float(given[0]), math.log(a), rel_tol=1e-4):
            hint = "; a is the exponential of the intercept"
        assert len(given) == 2 and all(
            math.isclose(float(g), e, rel_tol=1e-4) for g, e in zip(given, (a, b), strict=True)
        ), f"for y = {a} * x ** -{b} it returned {given}, and should return ({a}, {b}){hint}"
    noise = [1.1, 0.9, 0.9, 1.1]
    a, b = answer(x, [10 * value**-0.2 * factor for value, factor in zip(x, noise, strict=True)])
    assert math.isclose(float(b), 0.2, rel_tol=1e-3) and math.isclose(float(a), 10 * math.sqrt(0.99), rel_tol=1e-3), (
        f"for noisy points it returned ({a}, {b}); fit a line to log y against log x by least squares"
    )


def _near(given: Any, expected: float, case: str) -> None:
    assert given is not None, "it returned nothing; is the return missing?"
    value = float(given)
    assert math.isclose(value, expected, rel_tol=1e-4, abs_tol=1e-5), (
        f"{case}, it returned {value:.5g}, and the mean loss is {expected:.5g}"
    )
