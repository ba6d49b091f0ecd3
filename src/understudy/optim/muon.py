"""Muon: momentum whose update of a matrix is orthogonalised.

For the matrices inside a model's blocks; other parameters use AdamW (groups.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024).

    Matrices of equal shape are stacked and orthogonalised together. A matrix that holds several, such as queries, keys and
    values, has ``splits``, and each part is orthogonalised by itself.

    Args:
        params: groups, each with ``params``, ``lr``, ``weight_decay`` and optionally ``splits``, the row counts of
            the parts of each of its matrices.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        newton_schulz_steps: int = 5,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "steps": newton_schulz_steps,
            "splits": None,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "Muon takes no closure"
        # Parts of equal shape from all groups: (part of a parameter, its update, learning rate).
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor, float]]] = defaultdict(list)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p, update in zip(params, self._momentum(params, group["momentum"])):
                splits = group["splits"] or [len(p)]
                for part, part_update in zip(p.split(splits), update.split(splits)):
                    by_shape[tuple(part.shape)].append((part, part_update, group["lr"]))
            if group["weight_decay"]:
                for p in params:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
        for (rows, columns), parts in by_shape.items():
            scale = max(1.0, rows / columns) ** 0.5  # equal changes of outputs for wide and tall matrices
            updates = orthogonalise(torch.stack([update for _, update, _ in parts]), self.defaults["steps"])
            for (part, _, lr), update in zip(parts, updates):
                part.add_(update, alpha=-lr * scale)

    def _momentum(self, params: list[Tensor], momentum: float) -> list[Tensor]:
        """Add the gradients to the momentum; returns the Nesterov update."""
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        pairs = [(p.grad, self.state[p]["momentum"]) for p in params if p.grad is not None]
        return [grad.lerp(buffer.lerp_(grad, 1 - momentum), momentum) for grad, buffer in pairs]


# The first coefficients suit singular values in (0, 1], each next row the values after the row before (Amsel et al. 2025,
# "The Polar Express", their table for a lower bound of 1e-3).
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices (N, R, C) with singular values near 1, by ``steps`` rounds of an odd quintic (Newton-Schulz).

    Further steps repeat the last coefficients. In bf16 on a GPU.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)  # 1.02: rounding must not exceed 1
    for step in range(steps):
        a, b, c = POLAR_EXPRESS[min(step, len(POLAR_EXPRESS) - 1)]
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
