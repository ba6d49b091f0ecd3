"""The state of training beside the model: optimisers, averaged weights, a critic, progress. All of it, so that a resumed run
takes the same steps to the bit. Tensors are safetensors and the rest is JSON; nothing is pickled.

Where files go and how they are written whole is run.py's business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.files import read_json, write_json
from understudy.run import FORMAT, RunFolder, load_weights, read_tensors, sha256_of_weights, weights_of
from understudy.train.loop import Trainer


def save_checkpoint(folder: RunFolder, trainer: Trainer, about: dict[str, Any], keep: int, is_best: bool) -> Path:
    """Write a checkpoint of the trainer.

    ``model.safetensors`` holds the weights to use (the averaged ones where there is an average).
    """
    from safetensors.torch import save_file

    model = trainer.objective.model
    weights = weights_of(model)
    training = optimizer_tensors(trainer.optimizers) | _beside_the_model(trainer)
    if trainer.ema:
        training |= {f"weights/{name}": tensor for name, tensor in weights.items()}
        weights = {name: tensor.cpu().contiguous() for name, tensor in trainer.ema.means.items()}
    state = about | {
        "format": FORMAT,
        **dataclasses.asdict(trainer.progress),
        "scaler": trainer.scaler.state_dict() if trainer.scaler else None,
        "source": trainer.source.state(),
        "weights_sha256": sha256_of_weights(weights),
    }
    writers = {
        "model.safetensors": lambda path: save_file(weights, path),
        "training.safetensors": lambda path: save_file(training, path),
        "state.json": lambda path: write_json(path, state),
    }
    return folder.write_checkpoint(trainer.progress.step, writers, keep, is_best)


def load_checkpoint(at: Path, trainer: Trainer) -> None:
    """Put a trainer into the state it was saved in.

    Raises:
        ValueError: a checkpoint that is damaged, of another format, or does not fit.
    """
    state = read_json(at / "state.json")
    if state.get("format") != FORMAT:
        raise ValueError(f"the checkpoint {at} has format {state.get('format')}, and this version reads {FORMAT}")
    weights, training = read_tensors(at / "model.safetensors"), read_tensors(at / "training.safetensors")
    raw = {name.removeprefix("weights/"): t for name, t in training.items() if name.startswith("weights/")}
    if trainer.ema:
        for name, mean in trainer.ema.means.items():
            mean.copy_(weights[name])
    load_weights(trainer.objective.model, raw if trainer.ema else weights, at)
    load_optimizers(trainer.optimizers, training, at)
    for name in _beside_the_model(trainer):
        if name not in training:
            raise ValueError(f"the checkpoint {at} lacks {name}; it cannot be resumed")
        trainer.objective.get_parameter(name.removeprefix("objective/")).data.copy_(training[name])
    trainer.source.load_state(state.get("source") or {})
    if trainer.scaler and state["scaler"]:
        trainer.scaler.load_state_dict(state["scaler"])
    for field in dataclasses.fields(trainer.progress):
        setattr(trainer.progress, field.name, state[field.name])


def _beside_the_model(trainer: Trainer) -> dict[str, Tensor]:
    """What else an objective trains, such as a critic of its own."""
    return {
        f"objective/{name}": p.detach().cpu().contiguous()
        for name, p in trainer.objective.named_parameters()
        if not name.startswith("model.")
    }


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of optimisers as named tensors, ``adamw/token_embedding.weight/exp_avg`` and the like."""
    tensors = {}
    for optimizer in optimizers:
        for key, name, values in _named_states(optimizer):
            for field, value in values.items():
                tensors[f"{key}/{name}/{field}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return tensors


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor], source: Path) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    for optimizer in optimizers:
        key = type(optimizer).__name__.lower()
        for group in optimizer.param_groups:
            for name, parameter in zip(group["names"], group["params"]):
                prefix = f"{key}/{name}/"
                found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                if not found and parameter.requires_grad:
                    raise ValueError(f"the checkpoint {source} lacks the {key} state of {name}; it cannot be resumed")
                for field, tensor in found.items():
                    where = parameter.device if tensor.ndim else "cpu"  # step counts of AdamW stay where they were made
                    if field == "step" and parameter.device.type != "cpu":
                        where = parameter.device
                    optimizer.state[parameter][field] = tensor.to(where)


def _named_states(optimizer: torch.optim.Optimizer) -> list[tuple[str, str, dict[str, Any]]]:
    key = type(optimizer).__name__.lower()
    return [
        (key, name, optimizer.state[parameter])
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"])
    ]
