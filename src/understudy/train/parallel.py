"""Several processes training one model: today each holds all of it and they average gradients.

Sharding (`fully_shard`) belongs here when it comes; nothing else in the project asks how many processes there are,
but through :class:`Runtime`.
"""

from __future__ import annotations

import contextlib

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from understudy.runtime import Runtime


def data_parallel(objective: nn.Module, runtime: Runtime) -> nn.Module:
    """The objective itself, or wrapped so that each backward pass averages gradients over the processes."""
    if runtime.world_size == 1:
        return objective
    device_ids = [runtime.device.index] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=device_ids, gradient_as_bucket_view=True)


def gradients_stay_local(wrapped: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Accumulate without exchanging, for all micro-batches but the last."""
    if isinstance(wrapped, DistributedDataParallel):
        return wrapped.no_sync()
    return contextlib.nullcontext()
