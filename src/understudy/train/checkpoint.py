"""The state of training in a checkpoint: weights, optimisers, averaged weights, a critic, progress.

A resumed run takes the same steps to the bit. Tensors are safetensors and the rest is JSON; nothing is pickled. The
files themselves are written by run.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from understudy.model.weights import check_shapes, load_weights, weights_of
from understudy.run import RunFolder, other_checkpoint, read_state, read_tensors, read_weights
from understudy.train.loop import Trainer


def save_checkpoint(folder: RunFolder, trainer: Trainer, record: dict[str, Any], keep: int, is_best: bool) -> None:
    """Write a checkpoint of the trainer, and delete old ones but ``keep`` and the best.

    ``model.safetensors`` holds the weights to use (their average if there is one), ``training.safetensors`` the tensors
    that only training needs.

    Raises:
        ValueError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    weights = weights_of(trainer.objective.model)
    training = optimizer_tensors(trainer.optimizers) | _objective_tensors(trainer)
    if trainer.ema:
        training |= {f"weights/{name}": tensor for name, tensor in weights.items()}
        weights = {name: tensor.cpu().contiguous() for name, tensor in trainer.ema.means.items()}
    scaler = trainer.scaler.state_dict() if trainer.scaler else None
    state = record | dataclasses.asdict(trainer.progress) | {"scaler": scaler, "source": trainer.source.state()}
    try:
        folder.write_checkpoint(state, is_best, weights, training)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint of step {trainer.progress.step} could not be written to {folder.checkpoints} ({error}); earlier checkpoints are "
            "whole; make room and continue with --resume"
        ) from error
    folder.prune(keep)


def load_checkpoint(checkpoint: Path, trainer: Trainer) -> None:
    """Put a trainer into the state that a checkpoint holds.

    Raises:
        ValueError: a checkpoint that is damaged, of another format, or does not fit.
    """
    state = read_state(checkpoint)
    fields = [field.name for field in dataclasses.fields(trainer.progress)]
    if missing := sorted({"training_sha256", *fields} - state.keys()):
        raise ValueError(
            f"{checkpoint / 'state.json'} lacks {missing[0]}, which resuming needs; {other_checkpoint(checkpoint)}"
        )
    weights = read_weights(checkpoint, state)
    training = read_tensors(checkpoint / "training.safetensors", state["training_sha256"])
    if trainer.ema:
        check_shapes(weights, {name: tuple(mean.shape) for name, mean in trainer.ema.means.items()}, checkpoint)
        for name, mean in trainer.ema.means.items():
            mean.copy_(weights[name])
        weights = {n.removeprefix("weights/"): t for n, t in training.items() if n.startswith("weights/")}
    load_weights(trainer.objective.model, weights, checkpoint)
    load_optimizers(trainer.optimizers, training, checkpoint)
    for name in _objective_tensors(trainer):
        if name not in training:
            raise ValueError(f"the checkpoint {checkpoint} lacks {name}; it cannot be resumed")
        trainer.objective.get_parameter(name.removeprefix("objective/")).data.copy_(training[name])
    trainer.source.load_state(state.get("source") or {})
    if trainer.scaler and state.get("scaler"):
        trainer.scaler.load_state_dict(state["scaler"])
    for name in fields:
        setattr(trainer.progress, name, state[name])


def _objective_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Parameters of the objective that are not the model's, such as those of a critic."""
    return {
        f"objective/{name}": p.detach().cpu().contiguous()
        for name, p in trainer.objective.named_parameters()
        if not name.startswith("model.")
    }


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of optimisers as named tensors, ``adamw/token_embedding.weight/exp_avg`` and the like."""
    return {
        f"{prefix}{field}": torch.as_tensor(value).detach().cpu().contiguous()
        for optimizer, prefix, parameter in _parameters(optimizers)
        for field, value in optimizer.state[parameter].items()
    }


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor], source: Path) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    for optimizer, prefix, parameter in _parameters(optimizers):
        fields = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        if not fields and parameter.requires_grad:
            raise ValueError(f"the checkpoint {source} lacks the optimiser state {prefix}; it cannot be resumed")
        for field, tensor in fields.items():
            on_device = tensor.ndim or field == "step"
            optimizer.state[parameter][field] = tensor.to(parameter.device if on_device else "cpu")


def _parameters(
    optimizers: Sequence[torch.optim.Optimizer],
) -> Iterator[tuple[torch.optim.Optimizer, str, torch.nn.Parameter]]:
    """Each parameter, with its optimiser and the beginning of the names of its state."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for name, parameter in zip(group["names"], group["params"]):
                yield optimizer, f"{type(optimizer).__name__.lower()}/{name}/", parameter
