"""Data parallelism: each process holds the whole model, and gradients are averaged over the processes.

Sharding (`fully_shard`) belongs here when it comes.
"""

from __future__ import annotations

import contextlib

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from understudy.runtime import Runtime


def data_parallel(module: nn.Module, runtime: Runtime) -> nn.Module:
    """The module itself, or wrapped so that each backward pass averages gradients over the processes."""
    if runtime.world_size == 1:
        return module
    device_ids = [runtime.device.index] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=device_ids, gradient_as_bucket_view=True)


def without_gradient_sync(module: nn.Module) -> contextlib.AbstractContextManager[object]:
    """A context in which gradients accumulate locally, for all micro-batches but the last."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()
