"""Whether to compile: tried on a real batch, and given up with the reason where it does not work."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from understudy.runtime import Runtime
from understudy.train.objective import Objective


def compile_if_it_pays(
    objective: Objective, mode: str, runtime: Runtime, batch: Callable[[], dict[str, Tensor]]
) -> str:
    """Compile an objective in place, or leave it as it is; returns what was chosen and why.

    ``auto`` compiles on CUDA only: on a CPU the small models that a CPU can train gained less from it than the
    minute it takes (benchmarks/README.md). ``on`` compiles anywhere.

    Raises:
        ValueError: ``on``, and it cannot be compiled here.
    """
    if mode == "off":
        return "off, as asked"
    if mode == "auto" and runtime.device.type != "cuda":
        return f"off, since on {runtime.device.type} it rarely pays; --train.compile on tries it"
    import torch._dynamo.exc
    import torch._inductor.exc

    objective.compile()
    try:
        with runtime.autocast():
            loss, _ = objective({name: tensor.to(runtime.device) for name, tensor in batch().items()})
        torch.autograd.grad(loss, [p for p in objective.parameters() if p.requires_grad], allow_unused=True)
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
        objective._compiled_call_impl = None
        reason = str(error).strip().splitlines()[0]
        if mode == "on":
            raise ValueError(
                f"train.compile is on, and the model cannot be compiled here ({reason}); use auto"
            ) from error
        return f"off, since it failed here: {reason}"
    return "on"
