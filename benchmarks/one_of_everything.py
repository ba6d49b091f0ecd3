"""`prepare` on one file of every kind of text, on files that it must refuse, and on a folder of real documentation.

    apt-get download linux-doc-6.1 && dpkg-deb -x linux-doc-6.1_*.deb linux-doc
    python benchmarks/one_of_everything.py --text linux-doc --out benchmarks/results/one_of_everything.json

The files are those of tests/everything.py, which also says how many documents and characters each must give. Every file is
prepared by the command in a process of its own; its peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from plain import publish
from understudy.data.text.shards import open_split

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from everything import examples, refusals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="a folder of real documents, prepared too")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"kinds": [], "refusals": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for example in examples():
            source, out = example.write(folder / "in"), folder / "out"
            run = prepared([source, "--tokenizer", "char", *example.options], out)
            row: dict[str, Any] = {"kind": example.kind, "name": Path(source).name, "options": list(example.options)}
            if run["status"] == 0:
                row |= counts(out)
            row["said"] = remarks(run["said"], name) if run["status"] == 0 else [run["said"]]
            row["right"] = (row.get("documents"), row.get("characters")) == (example.documents, example.characters)
            results["kinds"].append(row)
            clear(folder)
            print(json.dumps(row, ensure_ascii=False), file=sys.stderr, flush=True)
        for refusal in refusals():
            path = folder / "in" / refusal.name
            path.parent.mkdir(exist_ok=True)
            if callable(refusal.content):
                refusal.content(path)
            else:
                path.write_bytes(refusal.content)
            size = path.stat().st_size
            run = prepared([str(path), "--tokenizer", "char"], folder / "out")
            right = run["status"] == 2 and refusal.sentence in run["said"] and not (folder / "out").exists()
            said = run["said"].strip().removeprefix("understudy: ").replace(f"{name}/in/", "")
            row = {"kind": refusal.kind, "bytes": size, "said": said, "right": right, "peak_mb": run["peak_mb"]}
            results["refusals"].append(row)
            clear(folder)
            print(json.dumps(row, ensure_ascii=False), file=sys.stderr, flush=True)
        if options.text:
            run = prepared([options.text], folder / "out")
            manifest = json.loads((folder / "out" / "manifest.json").read_text(encoding="utf-8"))
            results["documentation"] = {
                "documents": sum(source["documents"] for source in manifest["sources"]),
                "bytes": sum(split["bytes"] for split in manifest["splits"].values()),
                "tokens": sum(split["tokens"] for split in manifest["splits"].values()),
                "vocab_size": manifest["vocab_size"], "seconds": run["seconds"], "peak_mb": run["peak_mb"],
                "said": remarks(run["said"], name),
            }  # fmt: skip
    publish(results, options.out)


def prepared(words: list[str], out: Path) -> dict[str, Any]:
    """Run the command, and return its exit status, what it said, its seconds, and the peak memory of its processes in MB."""
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        command = [sys.executable, "-m", "understudy", "prepare", *words, "--out", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=os.environ | {"NO_COLOR": "1"})
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.05)
        said.seek(0)
        text = said.read()
    return {
        "status": process.returncode, "said": text, "seconds": round(time.perf_counter() - start, 1), "peak_mb": peak >> 20,
    }  # fmt: skip


def memory(pid: int) -> int:
    """The resident bytes of a process and its children."""
    try:
        parent = psutil.Process(pid)
        return sum(int(process.memory_info().rss) for process in (parent, *parent.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def counts(out: Path) -> dict[str, int]:
    """Documents and characters of data that were prepared with a tokenizer of characters."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    tokens = [token for split in ("train", "val") for token in np.asarray(open_split(out, split).tokens).tolist()]
    return {
        "documents": sum(source["documents"] for source in manifest["sources"]),
        "characters": sum(token != manifest["eot_id"] for token in tokens),
    }


def remarks(said: str, folder: str) -> list[str]:
    """The remarks of a summary, which stand below the line of the tokenizer."""
    lines = [line.strip().replace(f"{folder}/in/", "") for line in said.splitlines()]
    last = max((i for i, line in enumerate(lines) if line.startswith("tokenizer: ")), default=-1)
    return lines[last + 1 :]


def clear(folder: Path) -> None:
    for name in ("in", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)


if __name__ == "__main__":
    main()
