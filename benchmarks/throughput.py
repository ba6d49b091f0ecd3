"""Training tokens a second of the GPT-2-shaped model: ours beside plain code, eager and compiled, on the same work.

    python benchmarks/throughput.py [--rounds 5] [--steps 20] [--no-compile] [--out benchmarks/results/throughput.json]

Each round times every contender for the same number of steps on the same random tokens, in turn; the medians over
rounds are compared. All use AdamW, clip gradients, and compute in fp32. The peak is a matrix product of 1024 squared,
timed between rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plain import PlainGPT, Shape, plain_optimizer, plain_step, publish
from understudy.bench import random_batch
from understudy.config.load import build_config
from understudy.config.run import RunConfig
from understudy.model import build_model
from understudy.optim import build_optimizers
from understudy.runtime import Runtime, matmul_flops
from understudy.train.loop import RepeatedBatches, Trainer, TrainingProgress
from understudy.train.objective import NextToken

SIZES = {
    "4 layers, width 128, context 64, batch 12": (Shape(65, 64, 4, 4, 128), 12),
    "6 layers, width 384, context 256, batch 8": (Shape(65, 256, 6, 6, 384), 8),
}


def ours(config: RunConfig, compiled: bool) -> tuple[Callable[[int], float], int]:
    """A function from steps to seconds, and the model's operations for each token."""
    torch.manual_seed(0)
    model = build_model(config.model)
    objective = NextToken(model)
    batch = random_batch(config, config.train.batch_size)
    compiled_objective: Any = torch.compile(objective) if compiled else None
    trainer = Trainer(
        objective, build_optimizers(model, config.optim), RepeatedBatches([batch]), lambda step: 1.0,
        Runtime(torch.device("cpu")), TrainingProgress(), 0, 1.0, compiled=compiled_objective,
    )  # fmt: skip

    def seconds(steps: int) -> float:
        before = trainer.progress.train_seconds
        trainer.total_steps = trainer.progress.step + steps
        return trainer.run().train_seconds - before

    return seconds, model.flops_per_token()


def plain(config: RunConfig, shape: Shape, compiled: bool) -> Callable[[int], float]:
    torch.manual_seed(0)
    model = PlainGPT(shape)
    optimizer = plain_optimizer(model)
    batch = random_batch(config, config.train.batch_size)
    if compiled:
        model.compile()

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            plain_step(model, optimizer, batch["tokens"], batch["targets"])
        return time.perf_counter() - start

    return seconds


def compare(shape: Shape, batch_size: int, rounds: int, steps: int, compile_too: bool) -> dict[str, Any]:
    config = build_config({
        "data": {"path": "none"},
        "model": {
            "family": "gpt2", "bias": False, "vocab_size": shape.vocab_size, "context_length": shape.context_length,
            "n_layers": shape.n_layers, "n_heads": shape.n_heads, "d_model": shape.d_model,
        },
        "optim": {"betas": [0.9, 0.99]}, "train": {"batch_size": batch_size},
    })  # fmt: skip
    eager, flops = ours(config, False)
    contenders = {"ours, eager": eager, "plain, eager": plain(config, shape, False)}
    if compile_too:
        contenders |= {"ours, compiled": ours(config, True)[0], "plain, compiled": plain(config, shape, True)}
    tokens = batch_size * shape.context_length * steps
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    peaks = []
    for run in contenders.values():
        run(3)  # compiles, fills caches
    for _ in range(rounds):
        peaks.append(matmul_flops(torch.device("cpu"), torch.float32))
        for name, run in contenders.items():
            rates[name].append(tokens / run(steps))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best_plain = max(rate for name, rate in medians.items() if name.startswith("plain"))
    best_ours = max(rate for name, rate in medians.items() if name.startswith("ours"))
    peak = statistics.median(peaks)
    return {
        "tokens_per_second": medians,
        "rounds": rates,
        "ours_eager_over_best_plain": medians["ours, eager"] / best_plain,
        "ours_over_best_plain": best_ours / best_plain,
        "matmul_gflops": peak / 1e9,
        "share_of_peak": {name: rate * flops / peak for name, rate in medians.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for name, (shape, batch) in SIZES.items():
        steps = max(3, arguments.steps // (1 if shape.d_model < 200 else 6))
        results[name] = compare(shape, batch, arguments.rounds, steps, not arguments.no_compile)
        print(name, json.dumps(results[name]["tokens_per_second"]), file=sys.stderr, flush=True)
    publish(results, arguments.out)


if __name__ == "__main__":
    main()
