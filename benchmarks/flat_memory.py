"""Peak memory of `prepare` on files of 50 MB, 500 MB and 5 GB: one long text, and JSON lines.

    python benchmarks/flat_memory.py --out benchmarks/results/flat_memory.json

The text is random words, drawn so that a few are frequent and most are rare. It is written into a temporary folder (--work), one
file at a time. The peak is that of the process and its children, sampled 20 times a second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from one_of_everything import prepared
from plain import publish

SIZES = (50_000_000, 500_000_000, 5_000_000_000)
WORDS = 50_000
WORDS_AT_ONCE = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="in bytes")
    parser.add_argument("--kinds", default="txt,jsonl")
    parser.add_argument("--work", type=Path, default=Path("build/flat-memory"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"rows": []}
    for kind in options.kinds.split(","):
        for size in map(int, options.sizes.split(",")):
            shutil.rmtree(options.work, ignore_errors=True)
            options.work.mkdir(parents=True)
            file = options.work / f"text.{kind}"
            with file.open("wb") as target:
                written = 0
                for block in blocks(kind):
                    written += target.write(block)
                    if written >= size:
                        break
            run = prepared([str(file)], options.work / "out")
            if run["status"]:
                raise SystemExit(run["said"])
            manifest = json.loads((options.work / "out" / "manifest.json").read_text(encoding="utf-8"))
            tokens = sum(split["tokens"] for split in manifest["splits"].values())
            documents = sum(source["documents"] for source in manifest["sources"])
            row: dict[str, Any] = {"kind": kind, "bytes": written, "documents": documents, "tokens": tokens}
            row |= {"peak_mb": run["peak_mb"], "seconds": run["seconds"]}
            results["rows"].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            shutil.rmtree(options.work)
    publish(results, options.out)


def blocks(kind: str) -> Iterator[bytes]:
    """About 1 MB of text at a time, without end: the same every time."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(WORDS)])
    weights = 1 / np.arange(2, WORDS + 2)
    while True:
        drawn = rng.choice(words, WORDS_AT_ONCE, p=weights / weights.sum())
        lines = [" ".join(drawn[start : start + 12]) + ".\n" for start in range(0, WORDS_AT_ONCE, 12)]
        if kind == "jsonl":
            texts = ("".join(lines[start : start + 50]) for start in range(0, len(lines), 50))
            yield "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        else:
            yield "".join(lines).encode()


if __name__ == "__main__":
    main()
