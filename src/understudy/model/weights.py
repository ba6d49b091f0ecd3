"""Weights of a model as named tensors: their shapes, their hash, and copying them into a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load_weights(model: Any, tensors: dict[str, Tensor], source: Path) -> None:
    """Copy tensors into a model: all of its weights, and no others.

    Raises:
        ValueError: a missing, unexpected or wrongly shaped tensor, by name.
    """
    check_shapes(tensors, {name: tuple(p.shape) for name, p in model.named_parameters()}, source)
    model.load_state_dict(tensors, strict=False)  # strict would ask for tied weights twice


def check_shapes(tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], source: object) -> None:
    """Refuse tensors that differ from the expected names and shapes.

    Raises:
        ValueError: a missing, unexpected or wrongly shaped tensor, by name.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise ValueError(
                f"the weights in {source} do not fit the model of its configuration: {name} is "
                f"{shapes.get(name, 'missing')}, and {expected.get(name, 'no such tensor')} is expected"
            )


def weights_of(model: Any) -> dict[str, Tensor]:
    """The parameters of a model by name, tied ones once, as they are saved."""
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}


def sha256_of_weights(weights: dict[str, Tensor]) -> str:
    """The SHA-256 of tensors, by name and content. A child run records its parent's."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
