"""The optimisers of a model, with the learning rate and weight decay of each parameter, and learning rate schedules."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from understudy.config.run import OptimConfig


def role(name: str, parameter: nn.Parameter) -> str:
    """The role of a parameter: ``vector`` (biases, norms, convolutions), ``head``, ``ngram``, ``embedding``, or ``matrix``."""
    if parameter.ndim != 2:
        return "vector"
    if name.startswith(("head.", "score.")):
        return "head"
    if name.startswith("ngram_embedding."):
        return "ngram"
    if "embedding" in name or name.startswith("table."):
        return "embedding"
    return "matrix"


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a model: AdamW alone, or Muon for the matrices and AdamW for the rest.

    Each group carries ``peak_lr``, which the schedule multiplies into ``lr``, and ``names`` of its parameters.
    """
    by_role: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_role.setdefault(role(name, parameter), []).append((name, parameter))
    if config.name == "adamw":
        decayed = [pair for kind, pairs in by_role.items() if kind != "vector" for pair in pairs]
        return [_adamw([
            _group(decayed, config.lr, config.weight_decay),
            _group(by_role.get("vector", []), config.lr, 0.0),
        ], config)]  # fmt: skip
    matrices = by_role.pop("matrix", [])
    rates = {"embedding": config.embedding_lr, "head": config.head_lr, "vector": config.vector_lr}
    rates["ngram"] = config.embedding_lr
    decays = {"ngram": config.weight_decay}  # else rare n-grams are memorised
    adamw_groups = [_group(pairs, rates[kind] or 0.0, decays.get(kind, 0.0)) for kind, pairs in by_role.items()]
    adamw = _adamw(adamw_groups, config)
    return [_muon(model, matrices, config), adamw] if matrices else [adamw]


def _muon(model: nn.Module, matrices: list[tuple[str, nn.Parameter]], config: OptimConfig) -> Muon:
    """Muon over groups of matrices with equal splits: queries, keys and values; a gate and its values; the gates of a
    convolution; or none."""
    groups: dict[tuple[int, ...], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in matrices:
        owner = model.get_submodule(name.rpartition(".")[0].rpartition(".")[0])
        splits: tuple[int, ...] = ()
        if name.endswith("qkv.weight"):
            splits = tuple(owner.widths)  # type: ignore[arg-type]
        elif name.endswith("up.weight") and getattr(owner, "activation", None) == "swiglu":
            splits = (len(parameter) // 2,) * 2
        elif name.endswith("gates.weight"):
            splits = (len(parameter) // 3,) * 3
        groups.setdefault(splits, []).append((name, parameter))
    return Muon(
        [
            _group(pairs, config.lr, config.weight_decay) | {"splits": list(splits) or None}
            for splits, pairs in groups.items()
        ],
        lr=config.lr,
        momentum=config.momentum or 0.0,
        newton_schulz_steps=config.newton_schulz_steps or 5,
    )


def _adamw(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.AdamW:
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=0.0, fused=True)


def _group(pairs: list[tuple[str, nn.Parameter]], lr: float, weight_decay: float) -> dict[str, Any]:
    return {
        "params": [parameter for _, parameter in pairs], "names": [name for name, _ in pairs],
        "lr": lr, "peak_lr": lr, "weight_decay": weight_decay,
    }  # fmt: skip


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is orthogonalised by Newton-Schulz (Jordan et al. 2024).

    Matrices of equal shape are stacked and orthogonalised together. A matrix that holds several, such as queries, keys and
    values, has ``splits``, and each part is orthogonalised by itself.

    Args:
        params: groups, each with ``params``, ``lr``, ``weight_decay`` and optionally ``splits``, the row counts of
            the parts of each of its matrices.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95, newton_schulz_steps: int = 5
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "weight_decay": 0.0, "steps": newton_schulz_steps, "splits": None,
        }  # fmt: skip
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


def lr_factor(config: OptimConfig, step: int, total_steps: int) -> float:
    """The share of the peak learning rate used by the step with index ``step`` (from 0) of ``total_steps``.

    Linear warm-up over ``warmup_steps``, then constant, cosine, linear, or stable with a linear decay over the last
    ``decay_fraction`` (wsd), ending at ``min_lr_fraction``.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    floor = config.min_lr_fraction or 0.0
    start = config.warmup_steps
    if config.schedule == "wsd":
        start = max(start, round(total_steps * (1 - (config.decay_fraction or 0.0))))
    if step < start:
        return 1.0
    progress = min(1.0, (step - start) / max(1, total_steps - start))
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return floor + (1 - floor) * shape
