"""Pretraining on real text for some minutes: bits per byte of held-out documents of Debian's kernel documentation.

    apt-get download linux-doc-6.1 && dpkg-deb -x linux-doc-6.1_*.deb linux-doc
    python benchmarks/linux_doc.py --text linux-doc --minutes 7
    python benchmarks/linux_doc.py --text linux-doc --tokens 819200 --seeds 0

Documents are the package's .rst.gz files, split by a hash of their text (`prepare`'s default). The tokenizer is byte-level BPE of
8,192, trained on the training split. Each recipe is a preset with changed settings. Held-out documents are read in windows that
begin with the document; the tokens of a later window see that window only. Bits are divided by the bytes of the documents.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plain import publish
from understudy.data.text.shards import open_split
from understudy.evaluation.statistics import ratio_estimate
from understudy.losses import IGNORE, cross_entropy_sum
from understudy.run import Run, load_run, read_metrics
from understudy.runtime import choose_dtype

BEFORE = (
    "--model.context_length 512 --train.batch_size 8 --optim.lr 0.0035 --optim.embedding_lr 0.00092 --optim.head_lr 0.00092 "
    "--optim.vector_lr 0.00092 --optim.newton_schulz_steps 5 --optim.decay_fraction 0.5 --model.family qwen3 "
    "--model.conv_layers [] --model.tied true --train.bigram_start false"
)
"""Portable's shape and learning rates of before: those of a batch of 131,072 tokens, times the square root of the batch."""
RANDOM = "--model.context_length 512 --model.tied true --train.bigram_start false"
RECIPES: dict[str, str] = {
    "before": BEFORE,
    "rates": f"{RANDOM} --model.family qwen3 --model.conv_layers []",
    "convolution": RANDOM,
    "after": "--model.context_length 512",
}
"""Settings of the preset `portable` by the name of a recipe; each has a piece more than the one above it: today's learning rates,
LFM2's form, and the bigram start with a head of its own."""
ROWS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="the folder that the package was unpacked into")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=7.0)
    length.add_argument("--tokens", type=int, help="the same number of tokens for each, in place of the same time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("build/linux-doc"))
    parser.add_argument("--recipe", action="append", default=[], metavar="NAME=SETTINGS", help="instead of RECIPES")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recipes = dict(each.split("=", 1) for each in options.recipe) or RECIPES
    work = options.work.resolve()
    data = prepare(options.text.resolve(), work)
    asked = {"tokens": options.tokens} if options.tokens else {"minutes": options.minutes}
    results: dict[str, Any] = dict(asked)
    for seed in options.seeds:
        for name, settings in recipes.items():
            run = pretrain(work, data, f"{name}-{seed}", settings, seed, asked)
            row = {"seed": seed, **bits_per_byte(run, data), **spent(run)}
            results.setdefault(name, {"settings": settings, "seeds": []})["seeds"].append(row)
            print(name, json.dumps(row), flush=True)
    for name in recipes:
        values = [row["bits_per_byte"] for row in results[name]["seeds"]]
        results[name] |= {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    publish(results, options.out)


def prepare(text: Path, work: Path) -> Path:
    """The prepared documents."""
    folder = work / "text"
    if not folder.exists():
        folder.mkdir(parents=True)
        for number, path in enumerate(sorted(text.rglob("*.rst.gz"))):
            (folder / f"{number:05}.txt").write_bytes(gzip.decompress(path.read_bytes()))
    understudy(work, ["prepare", str(folder), "--tokenizer", "bpe", "--vocab-size", "8192", "--out", "data"])
    return work / "data"


def pretrain(work: Path, data: Path, name: str, settings: str, seed: int, asked: dict[str, float]) -> Run:
    shutil.rmtree(work / "runs" / name, ignore_errors=True)
    [(length, value)] = asked.items()
    understudy(work, [
        "pretrain", "portable", "--run", name, "--data", str(data), f"--{length}", str(value), "--seed", str(seed),
        "--log.samples", "0", *settings.split(),
    ])  # fmt: skip
    return load_run(work / "runs" / name, "latest")


def understudy(work: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", *words], cwd=work, capture_output=True, text=True, env=os.environ
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])


def spent(run: Run) -> dict[str, Any]:
    """What the training took, and the validation loss over minutes."""
    rows = read_metrics(run.path / "metrics.jsonl")
    return {
        "tokens": rows[-1]["tokens"], "train_seconds": round(rows[-1]["train_seconds"], 1), "steps": rows[-1]["step"],
        "curve": [[round(r["train_seconds"], 1), round(r["val/loss"], 4)] for r in rows if "val/loss" in r],
    }  # fmt: skip


@torch.no_grad()
def bits_per_byte(run: Run, data: Path) -> dict[str, float | None]:
    """Bits per byte over the held-out documents, with an interval over documents."""
    tokens = torch.from_numpy(np.asarray(open_split(data, "val").tokens, "int64"))
    end, length = run.tokenizer.eot_id, run.config.model.context_length
    widths = torch.tensor([len(run.tokenizer.token_bytes(id)) for id in range(run.tokenizer.vocab_size)])
    ends = torch.eq(tokens, end or 0).nonzero()[:, 0].tolist()
    bits, sizes, dtype = [], [], choose_dtype(torch.device("cpu"))[0]
    for start, stop in zip([-1, *ends], ends):
        document = torch.cat(
            (tokens.new_tensor([end]), tokens[start + 1 : stop + 1])
        )  # the end before, the text, its own end
        rows = torch.zeros(-(-(len(document) - 1) // length), length, dtype=torch.long)
        targets = torch.full_like(rows, IGNORE)
        rows.view(-1)[: len(document) - 1], targets.view(-1)[: len(document) - 1] = document[:-1], document[1:]
        loss = 0.0
        for part, wanted in zip(rows.split(ROWS), targets.split(ROWS)):
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                logits = run.model(part)
            loss += cross_entropy_sum(logits, wanted).item()
        bits.append(loss / math.log(2))
        sizes.append(int(widths[document[1:-1]].sum()))
    estimate = ratio_estimate(bits, sizes)
    return {
        "bits_per_byte": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "documents": len(bits),
        "bytes": sum(sizes),
    }


if __name__ == "__main__":
    main()
