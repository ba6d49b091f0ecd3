"""Tokens a second of `prepare` beside `tiktoken` and `tokenizers` alone, on the same text with the same vocabulary.

    python benchmarks/encoding.py VOCABULARY long.txt small.jsonl [--rounds 3] [--threads 2] [--out FILE]

`prepare` reads, divides, hashes and writes; the peers get the text in memory, as a list of documents (of one long document,
a list of its pieces, because one string keeps only one core busy). Each round runs every contender once, in turn.
VOCABULARY is a folder with GPT-2's vocab.bpe and encoder.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiktoken
import tokenizers
from tiktoken_ext.openai_public import r50k_pat_str

from plain import publish
from understudy.data.text.prepare import prepare
from understudy.data.text.reading import read_file
from understudy.interop.huggingface_tokenizer import tokenizer_document
from understudy.tokenizer import load_tokenizer
from understudy.tokenizer.bpe import BPETokenizer


def peers(vocabulary: BPETokenizer, texts: list[str], threads: int, slow: bool) -> dict[str, Callable[[], int]]:
    """The other encoders as functions that return the number of tokens."""
    ranks = {vocabulary.token_bytes(id): id for id in range(vocabulary.vocab_size) if id != vocabulary.eot_id}
    engine = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    with_peers: dict[str, Callable[[], int]] = {
        "tiktoken": lambda: sum(map(len, engine.encode_ordinary_batch(texts, num_threads=threads)))
    }
    if slow:
        theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_document(vocabulary)))
        with_peers["tokenizers"] = lambda: sum(
            len(e.ids) for e in theirs.encode_batch_fast(texts, add_special_tokens=False)
        )
    return with_peers


def compare(file: Path, folder: Path, vocabulary: Path, rounds: int, threads: int, slow: bool) -> dict[str, Any]:
    loaded = load_tokenizer(vocabulary)
    assert isinstance(loaded, BPETokenizer)
    own = folder / "tokenizer.json"
    loaded.save(own)
    texts = [piece.text for piece in read_file(file) if piece.note is None]

    def ours() -> int:
        summary = prepare([str(file)], folder / "out", str(own), workers=threads, force=True)
        return sum(split.tokens for split in summary.manifest.splits.values())

    contenders = {"prepare": ours, **peers(loaded, texts, threads, slow)}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    tokens: dict[str, int] = {}
    for _ in range(rounds):
        for name, encode in contenders.items():
            start = time.perf_counter()
            tokens[name] = encode()
            rates[name].append(tokens[name] / (time.perf_counter() - start))
            print(file.name, name, f"{rates[name][-1]:,.0f} tokens a second", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    fastest = max((name for name in medians if name != "prepare"), key=medians.__getitem__)
    ratios = [ours / theirs for ours, theirs in zip(rates["prepare"], rates[fastest])]
    return {
        "bytes": file.stat().st_size, "documents": sum(piece.ends for piece in read_file(file)), "tokens": tokens,
        "tokens_per_second": medians, "rounds": rates, "fastest_peer": fastest, "ratio": statistics.median(ratios),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tiktoken-only", action="store_true", help="leave `tokenizers` out")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    results: dict[str, Any] = {
        "threads": arguments.threads, "tiktoken": tiktoken.__version__, "tokenizers": tokenizers.__version__, "files": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for file in arguments.files:
            results["files"][file.name] = compare(
                file,
                Path(folder),
                arguments.vocabulary,
                arguments.rounds,
                arguments.threads,
                not arguments.tiktoken_only,
            )
    publish(results, arguments.out)


if __name__ == "__main__":
    main()
