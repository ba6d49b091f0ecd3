"""Where a program runs: device, precision, and its place among the processes started by `torchrun`.

Everything that differs between one CPU and many GPUs is decided here once, by asking the machine, and carried
in a frozen :class:`Runtime`. Reductions do nothing when there is one process. Not here: models, training.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """One process of a run. ``dtype`` is the precision of matrix products; ``reasons`` say what was chosen why."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    rank: int = 0
    world_size: int = 1
    seed: int = 1337
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and speaks to the user."""
        return self.rank == 0

    def all_sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, the same in each, where the tensor is."""
        if self.world_size == 1:
            return value
        total = value.to(self.device, copy=True)  # NCCL only adds what is on the GPU
        dist.all_reduce(total)
        return total.to(value.device)

    def any(self, flag: bool) -> bool:
        """True everywhere when the flag is true in any process, so that all stop together."""
        if self.world_size == 1:
            return flag
        return bool(self.all_sum(torch.tensor(float(flag), device=self.device)).item() > 0)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Matrix products in ``dtype``; nothing at all for fp32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def seed_step(self, step: int) -> None:
        """Make what is random in a step (dropout) a function of seed, step and rank, so that resuming needs no
        saved generator."""
        torch.manual_seed(((self.seed * 1_000_003 + step) * 4099 + self.rank) % 2**63)

    def synchronize(self) -> None:
        """Wait for queued work, so that a clock read next means something."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


@contextlib.contextmanager
def start_runtime(device: str = "auto", dtype: str = "auto", seed: int = 1337) -> Iterator[Runtime]:
    """Choose device and precision, join the other processes when started by `torchrun`, and leave them at the end.

    Raises:
        ValueError: a device or precision this machine does not have.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen, why_device = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    precision, why_dtype = choose_dtype(chosen, dtype)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world_size > 1:
        # Imported later, as optimisers do, it keeps the group for good; gloo's threads then free tensors while Python
        # ends, which now and then aborts a process that was done.
        importlib.import_module("torch._dynamo")
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Runtime(chosen, precision, rank, world_size, seed, {"device": why_device, "dtype": why_dtype})
    finally:
        if world_size > 1:
            dist.destroy_process_group()


def choose_device(name: str = "auto", local_rank: int = 0) -> tuple[torch.device, str]:
    """A device by name, or the best one present, with the reason.

    Raises:
        ValueError: the device is unknown or absent.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank), "a CUDA device is present"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's Metal is present"
        return torch.device("cpu"), "neither CUDA nor Metal is present"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise ValueError(f"the device {name!r} is not known; use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("the device cuda was asked for, but PyTorch sees no CUDA device; use --device cpu or auto")
        number = int(index) if index else local_rank
        if number >= torch.cuda.device_count():
            raise ValueError(f"the device cuda:{number} was asked for, but there are {torch.cuda.device_count()}")
        return torch.device("cuda", number), "asked for"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError("the device mps was asked for, but PyTorch sees no Metal device; use --device cpu or auto")
    return torch.device(kind), "asked for"


def choose_dtype(device: torch.device, name: str = "auto") -> tuple[torch.dtype, str]:
    """A precision by name, or the fastest this device computes in its own units, with the reason.

    A CPU without bf16 units emulates bf16 products up to a hundred times slower than fp32, so auto asks first.

    Raises:
        ValueError: fp16 on a CPU, which would need a scaler no CPU profits from.
    """
    if name == "fp16" and device.type == "cpu":
        raise ValueError("train.dtype fp16 needs a GPU; use fp32, or bf16 where the CPU has it")
    if name != "auto":
        return DTYPES[name], "asked for"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU has bf16 units"
        return torch.float16, "the GPU has no bf16 units; fp16 with a loss scaler"
    if device.type == "cpu" and cpu_has_bf16():
        return torch.bfloat16, "the CPU has bf16 units"
    return torch.float32, f"this {device.type} has no bf16 units that pay"


def let_threads_go() -> None:
    """End the helpers that this thread has computed with; the next computation has new ones.

    Each thread that computes keeps helpers of its own, and when there are more in all than cores, GNU's OpenMP sends
    them to sleep after every step: a model then answers at half its speed in one thread because another has computed
    before. Elsewhere than on Linux nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # PyTorch was built without it
            ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD).omp_pause_resource_all(1)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AVX512-BF16, AMX, or Arm's BF16 extension)."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast_of(runtime: Runtime) -> torch.dtype | None:
    """The runtime's precision as generating takes it."""
    return None if runtime.dtype == torch.float32 else runtime.dtype


def matmul_flops(device: torch.device, dtype: torch.dtype, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations a second of a square matrix product, the best of what fits in ``seconds``."""
    runtime = Runtime(device)
    size = size * 8 if device.type == "cuda" else size
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    if dtype == torch.bfloat16 and device.type == "cpu":
        a, b, size = a[:256, :256].contiguous(), b[:256, :256].contiguous(), 256  # emulated bf16 is very slow
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        runtime.synchronize()
        start = time.perf_counter()
        a @ b
        runtime.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
