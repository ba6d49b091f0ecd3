"""Cleaning, measured by training: the same small model on dirty pages as they are, filtered, deduplicated, and both.

    apt-get download postgresql-doc-15 python3.11-doc && for f in *-doc*.deb; do dpkg-deb -x $f pages; done
    python benchmarks/cleaning.py --pages pages --steps 1500 --seeds 3

The dirty corpus is the text of all HTML pages with everything on them: menus, headers, footers, scripts. A third of the pages
stands there again, and a sixth as near copies with a changed date line, as mirrors have it. Held-out text is the main text
(`prepare`'s reader) of every twentieth page, which is in no training text, nor are copies of it. All arms share the tokenizer
(byte-level BPE of 4,096 of the dirty training text) and see the same number of tokens. Differences are paired by seed, with
Student's interval.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import random
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

from linux_doc import bits_per_byte, understudy
from plain import publish
from understudy.data.text.readers.base import ReadOptions
from understudy.data.text.reading import read_file
from understudy.data.text.shards import read_manifest
from understudy.files import sha256_of_text
from understudy.run import load_run

ARMS = {
    "raw": "",
    "filtered": "--filter fineweb",
    "deduplicated": "--dedup minhash,sentence",
    "filtered and deduplicated": "--filter fineweb --dedup minhash,sentence",
}
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""The 97.5% point of Student's distribution for a number of seeds."""
LEAST_WORDS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, required=True, help="a folder with HTML pages")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=20_000, help="the most pages")
    parser.add_argument("--settings", default="", help="of the preset portable, such as '--model.n_layers 2'")
    parser.add_argument("--work", type=Path, default=Path("build/cleaning"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    write_corpus(options.pages, work, options.most)
    results: dict[str, Any] = {"steps": options.steps, "arms": {}}
    for name, cleaning in ARMS.items():
        data = prepare_arm(work, name, cleaning)
        manifest = read_manifest(data)
        assert manifest is not None
        values = []
        for seed in range(options.seeds):
            run = f"{name.replace(' ', '-')}-{seed}"
            shutil.rmtree(work / "runs" / run, ignore_errors=True)
            understudy(work, [
                "pretrain", "portable", "--run", run, "--data", str(data), "--seed", str(seed), "--train.steps",
                str(options.steps), "--log.samples", "0", *options.settings.split(),
            ])  # fmt: skip
            values.append(bits_per_byte(load_run(work / "runs" / run, "latest"), work / "data" / "raw"))
            print(name, seed, json.dumps(values[-1]), flush=True)
        train = manifest.splits["train"]
        results["arms"][name] = {
            "training_tokens": train.tokens, "training_documents": train.documents, "quality": manifest.quality, "seeds": values,
            "bits_per_byte": statistics.mean(value["bits_per_byte"] or 0.0 for value in values),
        }  # fmt: skip
    for arm in results["arms"].values():
        arm["minus_raw"] = difference(results["arms"]["raw"]["seeds"], arm["seeds"])
    publish(results, options.out)


def write_corpus(pages: Path, work: Path, most: int) -> None:
    """dirty.jsonl and held-out.jsonl."""
    if (work / "held-out.jsonl").is_file():
        return
    rng = random.Random(0)
    dirty: list[str] = []
    held_out: list[str] = []
    held_hashes: set[str] = set()
    seen: set[str] = set()
    for path in sorted(pages.rglob("*.html"))[:most]:
        if path.is_symlink() or (digest := sha256_of_text(path.read_text("utf-8", "replace"))) in seen:
            continue
        seen.add(digest)
        if int(digest[:8], 16) % 20 == 0:
            text = "".join(piece.text for piece in read_file(path, ReadOptions(), True) if piece.note is None).strip()
            if len(text.split()) >= LEAST_WORDS:
                held_out.append(text)
                held_hashes.add(digest)
        else:
            dirty.append(everything(path.read_text("utf-8", "replace")))
    copies = [rng.choice(dirty) for _ in range(len(dirty) // 3)]
    near = [f"Mirrored on day {rng.randrange(365)} of the year.\n{rng.choice(dirty)}" for _ in range(len(dirty) // 6)]
    everything_dirty = dirty + copies + near
    rng.shuffle(everything_dirty)
    for name, texts in (("dirty", everything_dirty), ("held-out", held_out)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (work / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def everything(page: str) -> str:
    """The text of a page with its menus and scripts; only the tags are cut."""
    text = html.unescape(re.sub(r"<[^>]+>", "\n", page))
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def prepare_arm(work: Path, name: str, cleaning: str) -> Path:
    """A prepared folder. The first arm trains the tokenizer of all."""
    folder = work / "data" / name.replace(" ", "-")
    tokenizer = ["--vocab-size", "4096"] if name == "raw" else ["--tokenizer", "data/raw/tokenizer.json"]
    understudy(
        work, ["prepare", "dirty.jsonl", "--val", "held-out.jsonl", "--out", str(folder), *tokenizer, *cleaning.split()]
    )
    return folder


def difference(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean of second minus first over seeds, with its interval."""
    values = [b["bits_per_byte"] - a["bits_per_byte"] for a, b in zip(first, second)]
    mean = statistics.mean(values)
    if len(values) not in T_975 or not any(values):
        return {"difference": mean, "low": None, "high": None}
    width = T_975[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return {"difference": mean, "low": mean - width, "high": mean + width}


if __name__ == "__main__":
    main()
