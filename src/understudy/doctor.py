"""Facts about this machine: versions, hardware, chosen device and precision, speed, and the memory plan of a preset."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict
from typing import Any

import torch

import understudy
from understudy.config.run import RunConfig
from understudy.console import bytes_text
from understudy.runtime import Runtime, choose_dtype, matmul_flops
from understudy.train.length import asked_length
from understudy.train.memory import free_bytes, largest_micro_batch, plan_memory, with_vocabulary


def examine(runtime: Runtime, config: RunConfig | None = None) -> dict[str, Any]:
    """Facts by section. The section ``plan`` needs a configuration."""
    import psutil

    facts: dict[str, Any] = {
        "versions": {
            "understudy": understudy.__version__, "python": platform.python_version(), "torch": torch.__version__,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "machine": {
            "cpu": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
            "free_bytes": free_bytes(runtime),
            "disk_free_bytes": shutil.disk_usage(".").free,
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "chosen": {
            "device": f"{runtime.device} ({runtime.reasons['device']})",
            "dtype": f"{str(runtime.dtype).removeprefix('torch.')} ({runtime.reasons['dtype']})",
            "compile": _compiler(runtime),
        },
        "speed": {name: matmul_flops(runtime.device, dtype) for name, dtype in _dtypes(runtime).items()},
    }  # fmt: skip
    if config is not None:
        facts["plan"] = plan(config, runtime)
    return facts


def plan(config: RunConfig, runtime: Runtime) -> dict[str, Any]:
    """The memory of one step of a configuration, and the largest micro-batch that fits."""
    config = with_vocabulary(config)
    largest = largest_micro_batch(config, runtime)
    used = config.train.micro_batch_size or largest
    memory = plan_memory(config, used, runtime.dtype, device=runtime.device)
    tokens_per_step = config.train.batch_size * config.model.context_length
    length = asked_length(config)  # its steps are known when the training begins
    return {
        "vocab_size": config.model.vocab_size,
        "micro_batch_size": used,
        "largest_micro_batch_that_fits": largest,
        **asdict(memory),
        "total_bytes": memory.total_bytes,
        "free_bytes": free_bytes(runtime),
        "tokens_per_step": tokens_per_step,
        **(length or {"tokens": config.train.steps * tokens_per_step}),
    }


def render(facts: dict[str, Any]) -> str:
    """The facts as text."""
    lines = []
    for section, rows in facts.items():
        lines.append(section)
        for name, value in rows.items():
            lines.append(f"  {name.removesuffix('_bytes').replace('_', ' '):<32}{_shown(section, name, value)}")
    return "\n".join(lines)


def _shown(section: str, name: str, value: Any) -> str:
    if section == "speed":
        return f"{value / 1e9:,.0f} GFLOP/s in matrix products"
    if name.endswith("_bytes"):
        return bytes_text(value)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _dtypes(runtime: Runtime) -> dict[str, torch.dtype]:
    best, _ = choose_dtype(runtime.device)
    return {"fp32": torch.float32, "bf16": torch.bfloat16} | ({"fp16": best} if best == torch.float16 else {})


def _compiler(runtime: Runtime) -> str:
    if runtime.device.type == "cuda":
        import importlib.util

        return "auto compiles" if importlib.util.find_spec("triton") else "off: triton is not installed"
    names = ("cl",) if sys.platform == "win32" else (os.environ.get("CXX", "g++"), "clang++")
    compiler = next(filter(None, map(shutil.which, names)), None)
    possible = f"possible with {compiler}" if compiler else "no C++ compiler is here"
    return f"off by default on {runtime.device.type}; {possible}"
