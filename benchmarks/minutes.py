"""Trainings of a given length in minutes: planned and actual time, and the loss of the same steps given by hand.

    python benchmarks/minutes.py --linux-doc build/linux-doc/data --minutes 2

The presets are portable on the kernel documentation (benchmarks/linux_doc.py prepares it), hamlet, and hamlet-chat from
that run. `command` is the time of the whole command: start, planning, evaluations, samples and the picture of the losses
included. The steps by hand are those of the saved configuration, as a YAML file.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plain import publish
from understudy.run import read_metrics

PLANNED = re.compile(r"train\.minutes .*?: ([\d,]+) steps, .* about (\d+):(\d+) at ([\d,]+) tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linux-doc", type=Path, required=True, help="the folder `data` that linux_doc.py prepared")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--work", type=Path, default=Path("build/minutes"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    understudy(work, "prepare", "--preset", "hamlet")
    understudy(work, "prepare", "--preset", "hamlet-chat")
    cases = {
        "portable": [
            "pretrain",
            "portable",
            "--data",
            str(options.linux_doc.resolve()),
            "--model.context_length",
            "512",
        ],
        "hamlet": ["pretrain", "hamlet"],
        "hamlet-chat": ["sft", "hamlet-chat", "--init-from", "hamlet-planned"],
    }
    results: dict[str, Any] = {"minutes": options.minutes}
    for name, words in cases.items():
        results[name] = measure(work, name, words, options.minutes)
        print(name, results[name], flush=True)
    publish(results, options.out)


def measure(work: Path, name: str, words: list[str], minutes: float) -> dict[str, Any]:
    start = time.perf_counter()
    output = understudy(work, *words, "--run", f"{name}-planned", "--minutes", str(minutes))
    command = time.perf_counter() - start
    planned = PLANNED.search(output)
    assert planned, output
    metrics = read_metrics(work / "runs" / f"{name}-planned" / "metrics.jsonl")[-1]
    saved = work / "runs" / f"{name}-planned" / "config.yaml"
    understudy(work, words[0], str(saved), "--run", f"{name}-by-hand")
    by_hand = read_metrics(work / "runs" / f"{name}-by-hand" / "metrics.jsonl")[-1]
    return {
        "steps": metrics["step"], "planned_seconds": 60 * int(planned[2]) + int(planned[3]),
        "planned_tokens_per_second": int(planned[4].replace(",", "")),
        "train_seconds": round(metrics["train_seconds"], 1), "command_seconds": round(command, 1),
        "loss": metrics["val/loss"], "loss_by_hand": by_hand["val/loss"],
    }  # fmt: skip


def understudy(work: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", *words], cwd=work, capture_output=True, text=True, env=os.environ
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
