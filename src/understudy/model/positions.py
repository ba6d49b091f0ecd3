"""Positions: rotary embeddings (Su et al. 2021), and keys that carry features of the previous token.

Shapes: B batch, H heads, T time, K head width, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.config.model import ModelShape, RopeScaling


def rope_table(shape: ModelShape) -> Tensor:
    """(2, context, K) cosines and sines of rotary positions, each pair's angle in both halves of K; the first sine is negative."""
    frequencies = rope_frequencies(shape)
    if shape.rope_scaling:
        frequencies = scale_frequencies(frequencies, shape.rope_scaling)
    if shape.key_shift:
        frequencies[len(frequencies) // 2 :] = 0  # the shifted features are compared without position
    angles = torch.arange(shape.context_length, dtype=torch.float32)[:, None] * frequencies  # (context, K / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)))


def rope_frequencies(shape: ModelShape) -> Tensor:
    """(K / 2) rotary frequencies in radians a token, before they are scaled."""
    return shape.rope_theta ** (-torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width)


def scale_frequencies(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Rotary frequencies (K / 2), in radians a token, for a longer context.

    ``linear`` divides all by the factor (Chen et al. 2023). ``llama3`` divides low ones, keeps high ones, and interpolates
    between by the turns that a frequency makes in the first context (Llama 3.1; Grattafiori et al. 2024, section 3.4).
    """
    if scaling.type == "linear":
        return frequencies / scaling.factor
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_context * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate feature pairs (k, k + K/2) of ``x`` (B, H, T, K) by the angles of ``rope`` (2, [B, 1,] T, K)."""
    cos, sin = rope.to(x.dtype)
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


def shift_keys(k: Tensor, positions: Tensor | None, prev_index: Tensor | None = None) -> Tensor:
    """Keys (B, H, T, K) with half of their features, those that are not rotated, taken from the previous token.

    A query that matches its own token then attends to the token after its earlier copy: copying takes one layer instead of two.

    Args:
        positions: (B, T), where a row holds several documents; nothing precedes position 0.
        prev_index: (B, T), the place of the previous token; the one to the left when left out.
    """
    if prev_index is None:
        previous = F.pad(k[:, :, :-1], (0, 0, 1, 0))
    else:
        previous = k.gather(2, prev_index[:, None, :, None].expand_as(k))
    if positions is not None:
        previous = previous * (positions > 0)[:, None, :, None].to(k.dtype)
    k, previous = (x.unflatten(-1, (2, 2, -1)) for x in (k, previous))  # halves of pairs, rotated or not, K / 4
    return torch.cat((k[..., :1, :], previous[..., 1:, :]), dim=-2).flatten(-3)


@torch.no_grad()
def init_shifted_keys(qkv: Tensor, widths: Sequence[int], head_width: int, rotation: Tensor | None = None) -> None:
    """Copy W_q into the shifted half of W_k (Trockman and Kolter 2023, who start all of W_k so).

    Args:
        rotation: (D, D) by which the previous token's features are turned where keys read them; the pairs of the shifted half
            have low rotary frequencies.
        qkv: (Q + K + V, D), the weights of all projections, whose parts have ``widths`` rows.
    """
    q, k, _ = (part.unflatten(0, (-1, 2, 2, head_width // 4)) for part in qkv.split(list(widths)))
    matched = q[:: len(q) // len(k), :, 1]
    k[:, :, 1] = matched if rotation is None else matched @ rotation.T
