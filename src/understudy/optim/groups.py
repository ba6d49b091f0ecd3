"""Parameter groups: the optimiser, learning rate and weight decay of each parameter, by its name and shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from understudy.config.run import OptimConfig
from understudy.optim.muon import Muon


def role(name: str, parameter: nn.Parameter) -> str:
    """The role of a parameter: ``vector`` (biases, norms), ``head``, ``ngram``, ``embedding``, or ``matrix``."""
    if parameter.ndim < 2:
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
    """Muon over groups of matrices with equal splits: queries, keys and values; a gate and its values; or none."""
    groups: dict[tuple[int, ...], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in matrices:
        owner = model.get_submodule(name.rpartition(".")[0].rpartition(".")[0])
        splits: tuple[int, ...] = ()
        if name.endswith("qkv.weight"):
            splits = tuple(owner.widths)  # type: ignore[arg-type]
        elif name.endswith("up.weight") and getattr(owner, "activation", None) == "swiglu":
            splits = (len(parameter) // 2,) * 2
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
