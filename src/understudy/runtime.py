"""Device, precision and process of a program, decided once by asking the machine and carried in a :class:`Runtime`.

Collectives do nothing if there is one process. Not here: models, training.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from understudy.environment import set_environment

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COLLECTIVE_TIMEOUT = timedelta(minutes=60)
"""Time that a process waits for the others before the job is ended. Between two collectives one process may work alone,
for example to compile or to write a large checkpoint to a slow disk. NCCL's default, 10 minutes, ends
healthy jobs; without a limit, a job of which one process is dead would wait for ever."""

LEAST_BF16_SPEEDUP = 1.2
"""Speed of bf16 products relative to fp32 from which a CPU computes in bf16: below it the casts cost more than is won."""

T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """One process of a run. ``dtype``: precision of matrix products. ``reasons``: why device and dtype were chosen."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    rank: int = 0
    world_size: int = 1
    seed: int = 1337
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def all_sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, on the device of ``value``."""
        if self.world_size == 1:
            return value
        total = value.to(self.device, copy=True)  # NCCL adds only tensors on the GPU
        dist.all_reduce(total)
        return total.to(value.device)

    def any(self, flag: bool) -> bool:
        """True in every process if the flag is true in one, so that all stop together."""
        if self.world_size == 1:
            return flag
        return bool(self.all_sum(torch.tensor(float(flag), device=self.device)).item() > 0)

    def all_gather(self, value: T) -> list[T]:
        """The value of each process, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def gather_shards(self, results: list[T]) -> list[T]:
        """The results of all items in order, from the results of each process for ``items[rank::world_size]``."""
        if self.world_size == 1:
            return results
        shards = self.all_gather(results)
        return [shards[i % self.world_size][i // self.world_size] for i in range(sum(map(len, shards)))]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """A context in which matrix products are in ``dtype``; no change for fp32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def seed_step(self, step: int) -> None:
        """Seed dropout by seed, step and rank, so that resuming needs no generator state."""
        torch.manual_seed(((self.seed * 1_000_003 + step) * 4099 + self.rank) % 2**63)

    def synchronize(self) -> None:
        """Wait for queued work, so that a clock read next includes it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


@contextlib.contextmanager
def start_runtime(
    device: str = "auto", dtype: str = "auto", seed: int = 1337, deterministic: bool = False
) -> Iterator[Runtime]:
    """Choose device and precision, join the other processes if started by `torchrun`, and leave them at the end.

    Args:
        deterministic: use only kernels that give the same bits each time, which are slower on a GPU.

    Raises:
        ValueError: a device or precision this machine does not have.
    """
    set_environment(deterministic)
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    _use_deterministic_algorithms(deterministic)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen, why_device = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    precision, why_dtype = choose_dtype(chosen, dtype)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    joins = world_size > 1 and not dist.is_initialized()  # a script that joined before keeps its group
    if joins:
        # If torch._dynamo is imported later, as optimisers do, it holds a reference to the process group; gloo's threads
        # then outlive interpreter shutdown and may abort it.
        torch.compiler.reset()  # imports it
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    try:
        runtime = Runtime(chosen, precision, rank, world_size, seed, {"device": why_device, "dtype": why_dtype})
        yield agree_on_dtype(runtime)
    finally:
        _use_deterministic_algorithms(deterministic_before)
        if joins:
            dist.destroy_process_group()


def _use_deterministic_algorithms(on: bool) -> None:
    if on != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler, which takes seconds
        torch.use_deterministic_algorithms(on)


def agree_on_dtype(runtime: Runtime) -> Runtime:
    """The runtime with a precision that all processes have: fp32 if they chose different ones."""
    if len(set(runtime.all_gather(runtime.dtype))) == 1:
        return runtime
    reasons = runtime.reasons | {"dtype": "fp32, since the machines of the processes have different units"}
    return replace(runtime, dtype=torch.float32, reasons=reasons)


def choose_device(name: str = "auto", local_rank: int = 0) -> tuple[torch.device, str]:
    """A device by name, or the best one present, with the reason.

    Raises:
        ValueError: the device is unknown or absent.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind, _, index = name.partition(":")
    if name == "auto":
        kind = next(kind for kind, is_present in present.items() if is_present)
    elif kind not in present or (index and not index.isdigit()):
        raise ValueError(f"the device {name!r} is not known; use auto, cpu, cuda, cuda:N or mps")
    elif not present[kind]:
        raise ValueError(f"the device {kind} was asked for, but PyTorch sees none; use --device cpu or auto")
    reason = "asked for" if name != "auto" else f"{kind} is the fastest device present"
    if kind != "cuda":
        return torch.device(kind), reason
    number = int(index) if index else local_rank
    if number >= torch.cuda.device_count():
        raise ValueError(f"the device cuda:{number} was asked for, but there are {torch.cuda.device_count()}")
    return torch.device("cuda", number), reason


def choose_dtype(device: torch.device, name: str = "auto") -> tuple[torch.dtype, str]:
    """A precision by name, or the fastest one that the device has units for, with the reason.

    A CPU without bf16 units emulates bf16 products, up to a hundred times slower than fp32, and with AVX512-BF16 alone
    they can take twice the time of fp32. So a CPU with these units is measured.

    Raises:
        ValueError: fp16 on a CPU.
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
        speedup = cpu_bf16_speedup()
        dtype = torch.bfloat16 if speedup >= LEAST_BF16_SPEEDUP else torch.float32
        return dtype, f"bf16 products have {speedup:.1f} times the speed of fp32 on this CPU"
    return torch.float32, f"this {device.type} has no bf16 units"


def let_threads_go() -> None:
    """End the OpenMP threads of the calling thread; its next computation starts new ones.

    Each computing thread keeps its own team. With more threads than cores GNU's OpenMP puts them to sleep after
    every step, and a model then generates at half its speed because another thread has computed before. Only on Linux.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # PyTorch was built without it
            ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD).omp_pause_resource_all(1)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AVX512-BF16, AMX, or Arm's BF16 extension)."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@functools.cache
def cpu_bf16_speedup(size: int = 384, rounds: int = 7) -> float:
    """Speed of bf16 matrix products relative to fp32 on one core of this CPU: the best of ``rounds`` of each, in turn.

    It is measured in processor time, so that other programs do not change the choice.
    """
    best, threads = {torch.float32: float("inf"), torch.bfloat16: float("inf")}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(rounds + 1):
            for dtype in best:
                a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
                start = time.thread_time()
                a @ b
                if number:  # the first product prepares its code
                    best[dtype] = min(best[dtype], time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]


def autocast_of(runtime: Runtime) -> torch.dtype | None:
    """The autocast dtype of generation; None for fp32."""
    return None if runtime.dtype == torch.float32 else runtime.dtype


def matmul_flops(device: torch.device, dtype: torch.dtype, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations per second of a square matrix product, the best of several within ``seconds``."""
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
