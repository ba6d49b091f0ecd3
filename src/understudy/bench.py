"""Speed of training and sampling on this machine, on random tokens. Comparisons with other projects: benchmarks/."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.config.run import RunConfig
from understudy.inference.generate import generate
from understudy.model import build_model
from understudy.optim import build_optimizers
from understudy.runtime import Runtime, matmul_flops
from understudy.train.loop import RepeatedBatches, StepCallback, Trainer, TrainingProgress
from understudy.train.memory import largest_micro_batch, with_vocabulary
from understudy.train.metrics import memory_bytes
from understudy.train.objective import NextToken
from understudy.train.runner import compile_objective

PARTS = 5
"""Measurements of training, of which the median is taken."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Tokens per second of each of PARTS measurements of training, with the model that was trained."""

    model: Any
    micro_batch_size: int
    compile: str
    rates: list[float]

    @property
    def tokens_per_second(self) -> float:
        return statistics.median(self.rates)


def measure_training(config: RunConfig, runtime: Runtime, seconds: float) -> TrainingSpeed:
    """Train on one batch of random tokens for about ``seconds`` in all."""
    config = with_vocabulary(config)
    torch.manual_seed(config.train.seed)
    model = build_model(config.model).to(runtime.device)
    micro = config.train.micro_batch_size or largest_micro_batch(config, runtime)
    batch = random_batch(config, micro)
    objective = NextToken(model, config.train.loss_chunk_tokens)
    compiled, decision = compile_objective(objective, config.train.compile, runtime, lambda: batch)
    batches = RepeatedBatches([batch] * (config.train.batch_size // micro))
    trainer = Trainer(
        objective, build_optimizers(model, config.optim), batches, lambda step: 1.0, runtime, TrainingProgress(), 10**9,
        config.optim.grad_clip, compiled=compiled,
    )  # fmt: skip
    parts = TimedParts(seconds / PARTS)
    trainer.run(parts)
    return TrainingSpeed(model, micro, decision, parts.rates)


def measure(config: RunConfig, runtime: Runtime, seconds: float) -> dict[str, Any]:
    """Tokens per second of training and of sampling: medians of several measurements.

    ``share_of_peak`` is the rate of floating-point operations of forward and backward, divided by that of a large matrix
    product in the same precision on this machine.

    Args:
        seconds: duration of all training measurements together.
    """
    speed = measure_training(config, runtime, seconds)
    model, per_second = speed.model, speed.tokens_per_second
    peak = matmul_flops(runtime.device, runtime.dtype)
    return {
        "device": str(runtime.device),
        "dtype": str(runtime.dtype).removeprefix("torch."),
        "compile": speed.compile,
        "parameters": sum(p.numel() for p in model.parameters()),
        "micro_batch_size": speed.micro_batch_size,
        "tokens_per_step": config.train.batch_size * config.model.context_length,
        "train_tokens_per_second": per_second,
        "train_tokens_per_second_of_parts": speed.rates,
        "flops_per_token": model.flops_per_token(),
        "matmul_flops_per_second": peak,
        "share_of_peak": per_second * model.flops_per_token() / peak,
        "memory_peak_bytes": memory_bytes(runtime.device)[1],
        "sample_tokens_per_second": {str(rows): _sampling_rate(model, rows, runtime) for rows in (1, 8)},
    }


@dataclass
class TimedParts(StepCallback):
    """Tokens per second of each of PARTS parts of at least ``seconds``."""

    seconds: float
    rates: list[float] = field(default_factory=list)
    _started: float = 0.0
    _tokens: int = 0

    def is_due(self, progress: TrainingProgress) -> bool:
        return True

    def after_step(self, progress: TrainingProgress, metrics: dict[str, float]) -> bool:
        elapsed = progress.train_seconds - self._started
        if elapsed >= self.seconds:
            self.rates.append((progress.tokens - self._tokens) / elapsed)
            self._started, self._tokens = progress.train_seconds, progress.tokens
        return len(self.rates) == PARTS


def random_batch(config: RunConfig, rows: int) -> dict[str, Tensor]:
    """A batch of random tokens, a function of ``train.seed``."""
    generator = torch.Generator().manual_seed(config.train.seed)
    size = (rows, config.model.context_length + 1)
    tokens = torch.randint(0, config.model.vocab_size or 1, size, generator=generator)
    return {"tokens": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}


def _sampling_rate(model: Any, rows: int, runtime: Runtime) -> float:
    new = min(128, model.config.context_length - 1)
    prompt = torch.zeros(rows, 1, dtype=torch.long, device=runtime.device)
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        generate(model, prompt, new, seed=1)
        runtime.synchronize()
        rates.append(rows * new / (time.perf_counter() - start))
    return statistics.median(rates)


def render(result: dict[str, Any]) -> str:
    """The measurements as text, one a line."""
    sampling = ", ".join(f"{rate:,.0f} with {rows}" for rows, rate in result["sample_tokens_per_second"].items())
    rows = {
        "device": f"{result['device']}, {result['dtype']}, compile {result['compile']}",
        "parameters": f"{result['parameters']:,}",
        "training": f"{result['train_tokens_per_second']:,.0f} tokens/s",
        "share of peak": f"{result['share_of_peak']:.0%} of {result['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s",
        "sampling": f"{sampling} rows, tokens/s",
        "memory at peak": f"{result['memory_peak_bytes'] / 2**20:,.0f} MiB",
    }
    return "\n".join(f"{name:<16}{value}" for name, value in rows.items())
