"""Results of the steps of `understudy learn` by seed and precision, from which their bands and times are set.

    python benchmarks/ladder.py build/ladder --seeds 1337 1 2 --dtypes bf16 fp32

Each seed and precision has its own folder below the given one. Steps that are done are not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from understudy.learn import ladder

LADDER = ladder.LADDER


def measure(folder: Path, seed: int, dtype: str, number: int) -> dict[str, float | int | str]:
    """Train and measure one step in ``folder``; the seconds are of the processor and of the clock."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    ladder.LADDER = tuple(with_settings(step, seed, dtype) for step in LADDER)
    step = ladder.find_step(number)
    cpu, clock = time.process_time(), time.perf_counter()
    trained = step.train()
    value = step.measure.value(step)
    return {
        "step": number, "seed": seed, "dtype": dtype, "value": value, "trained": trained,
        "cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - clock,
    }  # fmt: skip


def with_settings(step: ladder.Step, seed: int, dtype: str) -> ladder.Step:
    train = {**step.settings.get("train", {}), "seed": seed, "dtype": dtype}
    return replace(step, settings={**step.settings, "train": train})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path)
    add("--seeds", type=int, nargs="+", default=[1337, 1, 2])
    add("--dtypes", nargs="+", default=["bf16", "fp32"])
    add("--steps", type=int, nargs="+", default=[step.number for step in LADDER])
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    values: dict[int, list[float]] = defaultdict(list)
    seconds: dict[int, list[float]] = defaultdict(list)
    for dtype in arguments.dtypes:
        for seed in arguments.seeds:
            for number in arguments.steps:
                row = measure(folder / f"{dtype}-{seed}", seed, dtype, number)
                print(json.dumps(row), flush=True)
                values[number].append(float(row["value"]))
                seconds[number] += [float(row["cpu_seconds"])] if row["trained"] else []
    for number, of_step in values.items():
        mean = statistics.mean(of_step)
        half = max(4 * statistics.stdev(of_step), 0.01 * mean) if len(of_step) > 1 else float("nan")
        cpu = statistics.median(seconds[number]) if seconds[number] else float("nan")
        print(
            f"step {number}: mean {mean:.4f}, {min(of_step):.4f} to {max(of_step):.4f}, n = {len(of_step)}; "
            f"band of 4 standard deviations {mean - half:.4f} to {mean + half:.4f}; {cpu:.0f} s of the processor"
        )


if __name__ == "__main__":
    main()
