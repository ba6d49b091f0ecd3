"""Checks of the exercises in notebook 11, a real model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def check_lora_forward(answer: Callable[..., Any]) -> None:
    """An adapter that starts at zero, and ranks and scales at which the transposes and the factor matter."""
    for inputs, outputs, rank, alpha in ((4, 6, 2, 2.0), (5, 3, 1, 16.0), (3, 3, 4, 8.0)):
        x, weight, a, b = _adapter(inputs, outputs, rank)
        case = f"with {inputs} inputs, {outputs} outputs, rank {rank} and alpha {alpha:g}"
        _same(answer(x, weight, a, torch.zeros_like(b), alpha), x @ weight.T, f"{case}, where B is zero,")
        _same(answer(x, weight, a, b, alpha), x @ weight.T + alpha / rank * (x @ a.T) @ b.T, case)


def check_merged_weight(answer: Callable[..., Any]) -> None:
    """The merged weight computes what the adapted layer computes, and the given weight stays as it was."""
    for inputs, outputs, rank, alpha in ((4, 6, 2, 2.0), (5, 3, 1, 16.0)):
        x, weight, a, b = _adapter(inputs, outputs, rank)
        case = f"with {inputs} inputs, {outputs} outputs, rank {rank} and alpha {alpha:g}"
        before = weight.clone()
        merged = answer(weight, a, b, alpha)
        _same(merged, weight + alpha / rank * b @ a, case)
        assert torch.equal(weight, before), "it changed the weight that it was given; return a new tensor"
        _same(x @ merged.T, x @ weight.T + alpha / rank * (x @ a.T) @ b.T, f"{case}, the output of the merged layer")


def check_adapter_parameters(answer: Callable[..., Any]) -> None:
    """One layer, several of different shapes, and none."""
    for shapes, rank in (([(6, 4)], 2), ([(960, 576), (576, 576), (3072, 576), (576, 1536)], 16), ([], 8)):
        expected = sum(rank * (outputs + inputs) for outputs, inputs in shapes)
        given = answer(list(shapes), rank)
        assert given == expected, (
            f"adapter_parameters({shapes}, {rank}) is {given} and should be {expected}; A is (rank, inputs) and B is "
            "(outputs, rank)"
        )


def check_quantise(answer: Callable[..., Any]) -> None:
    """A usual block, the largest value negative, small values, and zeros, which must not divide by zero."""
    torch.manual_seed(0)
    for name, block in (
        ("random numbers", torch.randn(32)),
        ("a large negative number", torch.cat([torch.tensor([-8.0]), torch.randn(31)])),
        ("tiny numbers", 1e-4 * torch.randn(32)),
        ("zeros", torch.zeros(32)),
    ):
        result = answer(block.clone())
        assert isinstance(result, tuple) and len(result) == 2, (
            f"for {name} it returned {result!r}; return (scale, numbers)"
        )
        scale, numbers = float(result[0]), torch.as_tensor(result[1])
        assert numbers.shape == (32,) and not numbers.isnan().any(), f"for {name} the numbers are {numbers.tolist()}"
        assert numbers.abs().max() <= 127 and torch.equal(numbers.float(), numbers.float().round()), (
            f"for {name} the numbers are not whole numbers from -127 to 127: {numbers.tolist()[:4]} ..."
        )
        largest = float(block.abs().max())
        assert abs(scale - largest / 127) <= 1e-6 + 1e-4 * largest, (
            f"for {name} the scale is {scale:.6g}; the largest number in size, {largest:.6g}, should become 127 or -127"
        )
        error = float((scale * numbers - block).abs().max())
        assert error <= scale / 2 + 1e-7, (
            f"for {name} scale * numbers is off by up to {error:.3g}; round to the nearest whole number"
        )


def _adapter(inputs: int, outputs: int, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An input (2, 3, I), a weight (O, I), and the matrices A (R, I) and B (O, R)."""
    torch.manual_seed(inputs)
    return (
        torch.randn(2, 3, inputs),
        torch.randn(outputs, inputs),
        torch.randn(rank, inputs),
        torch.randn(outputs, rank),
    )


def _same(given: Any, expected: Tensor, case: str) -> None:
    assert isinstance(given, Tensor), f"{case} it returned {given!r}; return a tensor"
    assert given.shape == expected.shape, (
        f"{case} the shape is {tuple(given.shape)} and should be {tuple(expected.shape)}"
    )
    assert torch.allclose(given, expected, rtol=1e-4, atol=1e-5), (
        f"{case} it is off by up to {float((given - expected).abs().max()):.3g}; the scale is alpha / rank"
    )
