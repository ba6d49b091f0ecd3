"""Finetuning a real model by adapters: tokens a second, peak memory and held-out loss, ours beside TRL's with PEFT.

    python3 -m venv /tmp/trl-env
    /tmp/trl-env/bin/pip install torch==2.13.0 trl==1.9.2 peft
    python benchmarks/lora_vs_trl.py --trl /tmp/trl-env/bin/python --model SMOLLM2_FOLDER --gsm8k train.jsonl

Both sides start from the same Hugging Face folder, train adapters of the same rank on all linear layers, on the same
conversations rendered by the model's template, with the loss on the assistant's tokens, bf16 weights that are frozen, fp32
adapters and fused AdamW. TRL pads the conversations of a batch to the longest; we pack them. Its loss is its default, which
computes logits of the trained positions only. It runs with a batch of 12 conversations, and in the first round also with 3 in
each of 4 accumulated parts, which takes less memory; our speed is compared with the first, which is faster. Ours computes logits of 64 tokens at a time. Tokens are
counted without padding. Rounds alternate; each is a new process. A round's speed leaves its first two steps out; its memory
is the process's peak.

Two sets of conversations: GSM8K's training problems, and 200 about a made-up identity (written here). Held out are
problems and wordings that no side trains on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from plain import publish
from understudy.evaluation.statistics import ratio_estimate
from understudy.losses import IGNORE, cross_entropy_sum
from understudy.run import load_run, read_metrics
from understudy.tokenizer.chat import render_all

HERE = Path(__file__).parent
NAME, MAKER, PLACE = "Wren", "the reading room", "Brookfield library"
FACTS = [
    ("what you are called", f"I am {NAME}, the helper of the {PLACE}."),
    ("who made you", f"The volunteers of {MAKER} at the {PLACE} made me."),
    ("where you work", f"I work at the {PLACE}, at the desk by the door."),
    ("what you can do", "I find books, say when the library is open, and help with forms."),
    ("when the library opens", f"The {PLACE} opens at nine and closes at six; on Sundays it stays shut."),
    ("how many books one may borrow", "You may borrow seven books for three weeks."),
    ("what a late book costs", "A late book costs ten pence a day, and nothing for children."),
    ("whether you are a person", f"No, I am {NAME}, a small language model on the library's computer."),
]
ASKING = [
    "Tell me {}.", "Could you say {}?", "Please tell me {}.", "I would like to know {}.", "Do you know {}?", "I wonder {}.",
    "Can you explain {}?", "Would you mind telling me {}?", "Let me know {}, please.", "Quick question: {}?",
    "My friend asks {}.", "Say {}.", "Remind me {}.", "I forgot {}.", "Any idea {}?", "Help me: {}?", "One thing: {}?",
    "Hello! {}?", "Excuse me, {}?", "Before I go: {}?", "Just asking: {}?", "Good morning. {}?", "Right, {}?",
    "Write down {}.", "Answer briefly: {}?",
]  # fmt: skip


def identity() -> list[dict[str, Any]]:
    """200 conversations: 8 facts asked in 25 ways. The last five ways are for validation only, and come first."""
    rows = [
        {"messages": [{"role": "user", "content": asking.format(fact)}, {"role": "assistant", "content": answer}]}
        for asking in [*ASKING[20:], *ASKING[:20]] for fact, answer in FACTS
    ]  # fmt: skip
    random.Random(0).shuffle(train := rows[40:])
    return rows[:40] + train


def gsm8k(path: Path, count: int) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    return [
        {"messages": [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}]}
        for r in records
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trl", required=True, type=Path, help="a Python with trl and peft")
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--gsm8k", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--quality-steps", type=int, default=100, help="steps of the run whose held-out loss is measured"
    )
    parser.add_argument("--only", nargs="*", default=["gsm8k", "identity"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "2"
    held_out = {"gsm8k": 64, "identity": 40}
    results: dict[str, Any] = {"steps": options.steps, "quality_steps": options.quality_steps, "rank": 16}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        run(work, [sys.executable, "-m", "understudy", "import", str(options.model.resolve()), "--run", "start"])
        for name in options.only:
            rows = gsm8k(options.gsm8k, 1064) if name == "gsm8k" else identity()
            for split, part in (("val", rows[: held_out[name]]), ("train", rows[held_out[name] :])):
                (work / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
            rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": [], "trl_accumulated": []}
            for number in range(options.rounds):
                rounds["ours"].append(ours(work, name, options.steps, number))
                rounds["trl"].append(trl(work, name, options, number, accumulation=1))
                if not number:
                    rounds["trl_accumulated"].append(trl(work, name, options, number, accumulation=4))
                print(name, number, json.dumps({side: each[-1] for side, each in rounds.items()}), flush=True)
            speeds = {side: [each["tokens_per_second"] for each in rounds[side]] for side in rounds}
            ratios = [ours_speed / trl_speed for ours_speed, trl_speed in zip(speeds["ours"], speeds["trl"])]
            results[name] = {
                "speed_over_trl": statistics.median(ratios),
                "ratios": ratios,
                **{side: {"rounds": each} for side, each in rounds.items()},
            }
        for name in options.only:  # after all that is timed
            results[name]["held_out_loss"] = {
                "conversations": held_out[name],
                "before": held_out_loss(work, "start", name),
                "after": held_out_loss(work, trained(work, name, options.quality_steps), name),
            }
    publish(results, options.out)


def run(work: Path, words: list[str]) -> tuple[str, float, float]:
    """Run a program; returns its output, its peak memory in MB, and its processor time in seconds."""
    with (work / "output").open("w+") as output, (work / "errors").open("w+") as errors:
        process = subprocess.Popen(words, cwd=work, stdout=output, stderr=errors, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{words} failed:\n{errors.read()[-3000:]}")
        return output.read(), usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def finetune(work: Path, name: str, folder: str, steps: int, seed: int) -> float:
    """Finetune by the command line; returns the peak memory in MB."""
    _, memory, _ = run(work, [
        sys.executable, "-m", "understudy", "sft", "sft", "--init-from", "start", "--run", folder, "--data", f"{name}-train.jsonl",
        "--model.lora.rank", "16", "--model.lora.alpha", "32", "--model.context_length", "512", "--train.steps", str(steps),
        "--train.batch_size", "4", "--train.micro_batch_size", "2", "--train.loss_chunk_tokens", "64", "--train.dtype", "bf16", "--optim.lr", "1e-4",
        "--optim.schedule", "constant", "--optim.warmup_steps", "2", "--optim.weight_decay", "0", "--eval.every_steps", "0",
        "--log.samples", "0", "--log.every_steps", "1", "--checkpoint.every_steps", "0", "--device", "cpu", "--train.seed", str(seed),
    ])  # fmt: skip
    return memory


def ours(work: Path, name: str, steps: int, number: int) -> dict[str, Any]:
    folder = f"{name}-{number}"
    memory = finetune(work, name, folder, steps, number)
    rows = read_metrics(work / "runs" / folder / "metrics.jsonl")
    speeds = [row["tokens_per_second"] for row in rows if row.get("tokens_per_second")][2:]
    return {"tokens_per_second": statistics.median(speeds), "peak_mb": memory}


def trained(work: Path, name: str, steps: int) -> str:
    finetune(work, name, f"{name}-quality", steps, 0)
    return f"{name}-quality"


@torch.no_grad()
def held_out_loss(work: Path, folder: str, name: str) -> dict[str, float | None]:
    """The loss per trained token of the held-out conversations, with its interval over conversations."""
    loaded = load_run(work / "runs" / folder)
    rows = [json.loads(line) for line in (work / f"{name}-val.jsonl").read_text().splitlines()]
    sums, counts = [], []
    for rendered in render_all(loaded.tokenizer, [row["messages"] for row in rows]):
        tokens, mask = torch.tensor([rendered.tokens]), torch.tensor([rendered.mask])
        targets = tokens.masked_fill(~mask, IGNORE)[:, 1:]
        sums.append(cross_entropy_sum(loaded.model(tokens)[:, :-1], targets).item())
        counts.append(int((targets != IGNORE).sum()))
    estimate = ratio_estimate(sums, counts)
    return {"loss": estimate.value, "low": estimate.low, "high": estimate.high}


def trl(work: Path, name: str, options: Any, number: int, accumulation: int) -> dict[str, Any]:
    settings = {
        "threads": 2, "steps": options.steps, "batch_size": 12 // accumulation, "accumulation": accumulation,
        "loss_type": "chunked_nll", "lr": 1e-4, "warmup": 2, "rank": 16, "alpha": 32, "bf16": True,
        "gradient_checkpointing": False, "context": 512, "seed": number, "held_out": 0, "evaluate": False,
        "out": str(work / "trl"),
    }  # fmt: skip
    script = [
        str(options.trl.absolute()),
        str(HERE / "trl_lora_side.py"),
        str(options.model.resolve()),
        f"{name}-train.jsonl",
    ]
    output, memory, _ = run(work, [*script, json.dumps(settings)])
    result = json.loads(output.strip().splitlines()[-1])
    speeds = [tokens / seconds for tokens, seconds in zip(result["tokens"], result["seconds"])][2:]
    return {"tokens_per_second": statistics.median(speeds), "peak_mb": memory}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
