"""Compilation of the objective, tried on a real batch and given up with the reason if it fails."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from understudy.runtime import Runtime
from understudy.train.objective import Objective

CHANGING_SHAPES = "off, since batches of this stage change their shape and each shape would be compiled anew"


def compile_objective(
    objective: Objective, mode: str, runtime: Runtime, first_batch: Callable[[], dict[str, Tensor]],
    fixed_shapes: bool = True,
) -> tuple[nn.Module | None, str]:  # fmt: skip
    """Compile an objective, and try it on the first batch.

    ``auto`` compiles on CUDA only: on a CPU the small models that a CPU can train gained less than the minute that
    compiling takes (benchmarks/README.md). ``on`` compiles anywhere. Only stages with ``fixed_shapes`` are compiled.

    Returns:
        The compiled module, which shares the parameters of the objective, or None; and the decision with its reason.

    Raises:
        ValueError: ``on``, and it cannot be compiled here.
    """
    if mode == "off":
        return None, "off, as asked"
    if not fixed_shapes:
        return None, CHANGING_SHAPES
    if mode == "auto" and runtime.device.type != "cuda":
        return None, f"off, since on {runtime.device.type} it rarely pays; --train.compile on tries it"
    compiled: nn.Module = torch.compile(objective)  # type: ignore[assignment]  # a module for a module
    error: Exception | None = None
    try:
        with runtime.autocast():
            loss, _ = compiled({name: tensor.to(runtime.device) for name, tensor in first_batch().items()})
        torch.autograd.grad(loss, [p for p in objective.parameters() if p.requires_grad], allow_unused=True)
    except RuntimeError as failure:  # the base of all errors of the compiler
        error = failure
    if not runtime.any(error is not None):  # all processes train the same code
        return compiled, "on"
    reason = str(error).strip().splitlines()[0] if error else "another process could not compile"
    if mode == "on":
        raise ValueError(f"train.compile is on, and the model cannot be compiled here ({reason}); use auto") from error
    return None, f"off, since it failed here: {reason}"
