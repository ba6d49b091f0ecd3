"""Questions of evaluations, and the word n-grams by which a document that has one of them is recognised.

As in datatrove's decontamination, a document is dropped that shares 12 words in a row with a question or its answer; the
text is simplified before (case, punctuation, accents, numbers). A shorter question is looked for as a whole, if it has 8
words or more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.inputs import file_ending
from understudy.data.records import READERS, read_records
from understudy.data.text.reading import read_file
from understudy.files import sha256_of_text

WORDS = 12
LEAST_WORDS = 8


@dataclass(frozen=True)
class Benchmark:
    """Questions to keep out of the training text. `questions`: of each its texts, such as the question and the answer."""

    name: str
    questions: tuple[tuple[str, ...], ...]

    @property
    def sha256(self) -> str:
        return sha256_of_text(json.dumps(self.questions, ensure_ascii=False))


def read_benchmark(path: Path) -> Benchmark:
    """A file whose text is to be kept out: every record, or every paragraph of a text.

    Raises:
        ValueError: it cannot be read, or has no text.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path} with questions to keep out of the text")
    if file_ending(path)[0] in READERS:
        questions = [tuple(_strings(record.fields)) for record in read_records(path)]
    else:
        text = "".join(piece.text + ("\n\n" if piece.ends else "") for piece in read_file(path) if piece.note is None)
        questions = [(block,) for block in text.split("\n\n")]
    filled = tuple(question for question in questions if any(text.strip() for text in question))
    if not filled:
        raise ValueError(f"{path} has no text to keep out of the training text")
    return Benchmark(path.name, filled)


def _strings(value: Any) -> Iterator[str]:
    """All texts in a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for inner in value:
            yield from _strings(inner)


@dataclass(frozen=True)
class ContaminationIndex:
    """The n-grams of benchmarks.

    Attributes:
        names: of the benchmarks.
        hashes: of each n the sorted 64-bit hashes of n-grams, shape (N,).
        owners: of each n the benchmark of each hash, shape (N,).
        too_short: of each benchmark the number of questions that are not looked for.
    """

    names: tuple[str, ...]
    hashes: dict[int, np.ndarray]
    owners: dict[int, np.ndarray]
    too_short: tuple[int, ...]

    def find(self, words: Sequence[str], hash_of: Any) -> tuple[str, str] | None:
        """The benchmark and the words that a document, as simplified words, shares with it; None for none."""
        for n, known in self.hashes.items():
            if len(words) < n:
                continue
            hashes = np.fromiter((hash_of(gram) for gram in n_grams(words, n)), np.uint64)
            places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            if (hits := known[places] == hashes).any():
                first = int(hits.argmax())
                return self.names[self.owners[n][places[first]]], " ".join(words[first : first + n])
        return None


def n_grams(words: Sequence[str], n: int) -> Iterator[str]:
    return (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))


def contamination_index(benchmarks: Iterable[Benchmark], split: Any, hash_of: Any) -> ContaminationIndex:
    """The index of benchmarks. `split` gives the simplified words of a text, `hash_of` the 64-bit hash of a string."""
    owners: dict[int, dict[int, int]] = {}
    names, too_short = [], []
    for number, benchmark in enumerate(benchmarks):
        names.append(benchmark.name)
        short = 0
        for question in benchmark.questions:
            texts = [split(text) for text in question]
            joined = [word for words in texts for word in words]
            grams = [*_grams_of(joined), *(gram for words in texts for gram in _grams_of(words))]
            short += not grams
            for n, gram in grams:
                owners.setdefault(n, {}).setdefault(hash_of(gram), number)
        too_short.append(short)
    hashes = {n: np.array(sorted(found), np.uint64) for n, found in sorted(owners.items(), reverse=True)}
    return ContaminationIndex(
        tuple(names), hashes,
        {n: np.array([owners[n][key] for key in known.tolist()], np.int32) for n, known in hashes.items()},
        tuple(too_short),
    )  # fmt: skip


def _grams_of(words: Sequence[str]) -> list[tuple[int, str]]:
    if len(words) >= WORDS:
        return [(WORDS, gram) for gram in n_grams(words, WORDS)]
    return [(len(words), " ".join(words))] if len(words) >= LEAST_WORDS else []
