"""RMSNorm: PyTorch's values and gradients, in fewer passes, without its warning."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F

from understudy.config.model import ModelConfig
from understudy.model import GPT
from understudy.model.rms_norm import RMSNorm


@pytest.mark.parametrize("trained", [True, False])
def test_gradients_are_those_of_finite_differences(trained: bool) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(8, 1e-5).double()
    norm.weight.data.normal_()
    norm.weight.requires_grad_(trained)
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: norm(x), (x, norm.weight))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-3)])
def test_values_and_gradients_are_those_of_pytorch(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(64, 1e-6)
    norm.weight.data.normal_()
    x, upstream = (torch.randn(4, 7, 64, dtype=dtype) for _ in range(2))
    results = []
    for compute in (norm, lambda x: F.rms_norm(x.float(), (64,), norm.weight, 1e-6)):
        given = x.clone().requires_grad_()
        norm.weight.grad = None
        y = compute(given)
        y.backward(upstream.to(y.dtype))
        results.append([tensor.float() for tensor in (y.detach(), given.grad, norm.weight.grad)])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=10 * tolerance)
    assert norm(x).dtype == dtype


def test_training_in_bf16_gives_no_warning() -> None:
    """PyTorch warns of weights and inputs of different precision, and then takes its slow path."""
    config = ModelConfig(family="qwen3", vocab_size=65, context_length=16, n_layers=1, n_heads=2, d_model=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.autocast("cpu", torch.bfloat16):
            loss = GPT(config)(torch.zeros(1, 8, dtype=torch.long)).float().logsumexp(-1).sum()
        loss.backward()
