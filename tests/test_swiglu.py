"""SwiGLU with its own backward pass against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from understudy.model.swiglu import swiglu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_pytorchs_to_the_bit_and_keeps_its_input_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 16, dtype=dtype, requires_grad=True)
    gradient = torch.randn(3, 5, 8, dtype=dtype)
    gate, value = x.chunk(2, dim=-1)
    expected = F.silu(gate) * value
    (expected_gradient,) = torch.autograd.grad(expected, x, gradient)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        result = swiglu(x)
    assert torch.equal(result, expected)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]
    assert torch.equal(torch.autograd.grad(result, x, gradient)[0], expected_gradient)


def test_its_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(swiglu, torch.randn(2, 6, dtype=torch.float64, requires_grad=True))
