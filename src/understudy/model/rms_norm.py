"""RMSNorm (Zhang and Sennrich 2019) with few passes over the activations.

PyTorch has one kernel for it on CUDA, and on a CPU ten passes forward and backward, more where the precisions of input and
weight differ.

Shapes: D features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last D features, computed in fp32. On a CPU the result has the precision of ``x``."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) from (..., D)."""
        if x.device.type == "cpu" and torch.compiler.is_compiling():
            wide = x.float()
            return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)
        if x.device.type != "cpu":
            same = torch.is_autocast_enabled(x.device.type)  # autocast computes it in fp32
            return F.rms_norm(x, self.weight.shape, self.weight if same else self.weight.to(x.dtype), self.eps)
        result: Tensor = _RMSNorm.apply(x.to(torch.promote_types(x.dtype, torch.float32)), self.weight, self.eps)
        return result.to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """Kept for the backward pass: the input, and one number for each of its rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.rsqrt(length.square_().div_(x.shape[-1]).add_(eps))  # (..., 1)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = ((x * inverse).mul_(gradient)).flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            scaled = gradient * weight
            along = (scaled * x).sum(-1, keepdim=True)  # (..., 1)
            factor = along.mul_(inverse.pow(3)).div_(-x.shape[-1])
            of_x = scaled.mul_(inverse).addcmul_(x, factor)
        return of_x, of_weight, None
