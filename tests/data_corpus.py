"""Helpers of the tests of `prepare`: a small corpus of many kinds, and readers of the prepared data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from understudy.data.text import documents as reading
from understudy.data.text import encoding
from understudy.data.text.prepare import prepare
from understudy.data.text.shards import open_split
from understudy.data.text.summary import TextSummary
from understudy.tokenizer import load_tokenizer

FILES = ("train.bin", "val.bin", "tokenizer.json", "manifest.json")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small text is many batches and many journals."""
    monkeypatch.setattr(encoding, "BATCH_CHARS", 700)
    monkeypatch.setattr(encoding, "JOURNAL_BYTES", 2000)


def story(i: int) -> str:
    words = ["the", "miller", "walks", "to", "a", "mill", "and", "größer", "€", "night"]
    return f"Story {i}. " + " ".join(words[(i * 7 + j * j) % 10] for j in range(3 + i % 40)) + ".\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """322 documents in three files, one of them gzipped; two are empty, and a picture is in the way."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [story(i) for i in range(150)] + ["  \n", ""] + [story(i) for i in range(150, 170)]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), "utf-8")
    more = "".join(json.dumps({"text": story(i)}) + "\n" for i in range(170, 319))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(more.encode()))
    (folder / "c.txt").write_text("".join(story(i) for i in range(20)), "utf-8")
    (folder / "d.png").write_bytes(b"\0")
    return folder


def run(corpus: Path, out: Path, piece_chars: int = 1 << 20, **settings: Any) -> TextSummary:
    """`prepare` of files with a tokenizer of characters; a document longer than `piece_chars` comes in pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE_CHARS", piece_chars)
        return prepare([str(corpus)], out, **{"tokenizer": "char", **settings})


def contents(folder: Path) -> dict[str, bytes]:
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES), "nothing else is left"
    return {name: (folder / name).read_bytes() for name in FILES}


def documents(folder: Path, split: str) -> list[str]:
    tokenizer = load_tokenizer(folder)
    text = tokenizer.decode(open_split(folder, split, tokenizer.vocab_size).tokens)
    whole = text.split("<|endoftext|>")
    assert whole.pop() == "", "an end-of-text token follows every document"
    return whole
