"""How queries and keys know where they stand: rotary positions, and keys that carry the token before.

Shapes: B batch, H heads, T time, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.config.model import ModelConfig


def rope_table(config: ModelConfig) -> Tensor:
    """(2, context, K) cosines and sines of rotary positions, each pair's angle in both halves of K."""
    assert config.head_width and config.rope_theta
    frequencies = config.rope_theta ** (-torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width)
    if config.key_shift:
        frequencies[len(frequencies) // 2 :] = 0  # these features are compared wherever they stand
    angles = torch.arange(config.context_length, dtype=torch.float32)[:, None] * frequencies  # (context, K / 2)
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn feature pairs (k, k + K/2) of ``x`` (B, H, T, K) by the angles of ``rope`` (2, [B, 1,] T, K)."""
    cos, sin = rope.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def shift_keys(k: Tensor, positions: Tensor | None, before: Tensor | None = None) -> Tensor:
    """Keys (B, H, T, K) that carry, in the half of their features which no position turns, what the token before had.

    A query that looks for its own token then finds what followed it earlier, in one layer instead of two.

    Args:
        positions: (B, T), where several documents stand in a row; 0 has nothing before it.
        before: (B, T), the place of the token before; the one on the left when left out.
    """
    if before is None:
        earlier = F.pad(k[:, :, :-1], (0, 0, 1, 0))
    else:
        earlier = k.gather(2, before[:, None, :, None].expand_as(k))
    if positions is not None:
        earlier = earlier * (positions > 0)[:, None, :, None].to(k.dtype)
    own, earlier = (part.unflatten(-1, (2, 2, -1)) for part in (k, earlier))  # pairs' halves, turned or not, K / 4
    return torch.cat((own[..., :1, :], earlier[..., 1:, :]), dim=-2).flatten(-3)
