"""Gated short convolution, which mixes the last few tokens in place of attention (LFM2, Liquid AI 2025).

Shapes: B batch, T time, D model width, W width of the convolution, M selected places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from understudy.config.model import ModelShape
from understudy.model.masks import AttentionContext


class ShortConv(nn.Module):
    """``c * conv(b * x)`` between two projections, where the first makes b, c and x of the input, and the convolution sums
    the last W tokens of a document, with weights of its own for each feature.

    One layer can bring the token before into each place, which attention needs two layers for.
    """

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.layer, self.width = layer, shape.conv_width
        self.gates = nn.Linear(shape.d_model, 3 * shape.d_model, bias=shape.bias)
        self.conv = nn.Conv1d(shape.d_model, shape.d_model, shape.conv_width, groups=shape.d_model, bias=shape.bias)
        self.project = nn.Linear(shape.d_model, shape.d_model, bias=shape.bias)
        self.dropout = nn.Dropout(shape.dropout)

    @torch.no_grad()
    def init_as_shift(self, rotation: Tensor, constant: float) -> None:
        """Start with the previous token's input, turned by ``rotation`` (D, D), as the output.

        Args:
            constant: the first feature of the input at first; from it the gates b and c start around 1.
        """
        b_and_c, x = self.gates.weight.split([2 * len(rotation), len(rotation)])
        b_and_c[:, 0] += 1 / constant
        x.copy_(torch.eye(len(rotation)))
        nn.init.uniform_(self.conv.weight, -0.1, 0.1)
        self.conv.weight[:, 0, -min(2, self.width)] += 1
        self.project.weight.copy_(rotation)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, D), or (M, D) of the selected places, from the normed residual stream (B, T, D)."""
        b, c, x = self.gates(x).chunk(3, dim=-1)
        y = context.selected(c * self.convolve(b * x, context))
        return self.dropout(self.project(y))

    def convolve(self, x: Tensor, context: AttentionContext) -> Tensor:
        """The convolution (B, T, D) of ``x`` (B, T, D), which stops at the beginning of each document."""
        memory = None
        if context.cache is not None and context.positions is not None:
            memory = context.cache.inputs_of(self.layer)
            context.cache.write(memory, x, context.positions)
        weight = self.conv.weight[:, 0].to(x.dtype).unbind(dim=-1)  # W of (D,); the last is that of the token itself
        y = x * weight[-1]
        for back in range(1, self.width):
            y = torch.addcmul(y, context.earlier(x, back, memory).to(x.dtype), weight[-1 - back])
        return y if self.conv.bias is None else y + self.conv.bias.to(y.dtype)
