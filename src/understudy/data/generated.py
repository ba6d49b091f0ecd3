"""The table of generated corpora: text and messages made from a seed, without files or a network.

A second corpus is one class with the methods of GeneratedCorpus and one row of CORPORA.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol

from understudy.data.layout import Split

FINGERPRINT_RECORDS = 64


class GeneratedQuestion(NamedTuple):
    """A prompt with its correct answer. `check`: the argument of `GeneratedCorpus.score`."""

    messages: list[dict[str, Any]]
    answer: str
    check: dict[str, Any]
    category: str


class GeneratedCorpus(Protocol):
    """A corpus whose records are a pure function of (seed, split, index), with disjoint splits."""

    @property
    def counts(self) -> Mapping[str, Mapping[Split, int]]:
        """The default number of records of each kind: "text", "conversations", "preferences", "prompts"."""
        ...

    @property
    def annotators(self) -> dict[str, float]:
        """Simulated annotators of sampled answers, with the share of their errors."""
        ...

    def texts(self, seed: int, split: Split) -> Iterator[str]:
        """Documents, without end."""
        ...

    def records(self, kind: str, seed: int, split: Split, count: int) -> Iterator[dict[str, Any]]:
        """The first `count` conversations, preferences or prompts."""
        ...

    def question(self, seed: int, index: int, split: Split) -> GeneratedQuestion:
        """A prompt whose answers are to be sampled and compared."""
        ...

    def score(self, check: dict[str, Any], answer: str) -> float:
        """The true score of an answer, from 0 to 1.

        Raises:
            ValueError: a kind of check that the corpus does not have.
        """
        ...

    def choose(self, seed: int, split: Split, *pair: int) -> tuple[str, bool]:
        """The annotator who compares two answers, and whether their choice is correct."""
        ...


class _Hamlet:
    """Hamlet, imported when first used."""

    @property
    def counts(self) -> Mapping[str, Mapping[Split, int]]:
        from understudy.hamlet import DEFAULT_STORIES
        from understudy.hamlet.write import DEFAULT_COUNTS

        return {"text": DEFAULT_STORIES, **DEFAULT_COUNTS}

    @property
    def annotators(self) -> dict[str, float]:
        from understudy.hamlet.preferences import ANNOTATORS

        return ANNOTATORS

    def texts(self, seed: int, split: Split) -> Iterator[str]:
        from understudy.hamlet import stories

        return stories(seed, split)

    def records(self, kind: str, seed: int, split: Split, count: int) -> Iterator[dict[str, Any]]:
        from understudy.hamlet.write import write_lines

        return map(json.loads, write_lines(kind, seed, split, count))

    def question(self, seed: int, index: int, split: Split) -> GeneratedQuestion:
        from understudy.hamlet.conversations import question

        messages, turn = question(seed, index, split, "preference")
        return GeneratedQuestion(messages, turn.answer, turn.check, turn.category)

    def score(self, check: dict[str, Any], answer: str) -> float:
        from understudy.hamlet.checker import score

        return score(check, answer)

    def choose(self, seed: int, split: Split, *pair: int) -> tuple[str, bool]:
        from understudy.hamlet.preferences import choose

        return choose(seed, split, *pair)


CORPORA: dict[str, GeneratedCorpus] = {"hamlet": _Hamlet()}


def fingerprint(name: str, kind: str, seed: int) -> str:
    """The SHA-256 of the first records: another seed or a changed generator makes another corpus."""
    corpus = CORPORA[name]
    if kind == "text":
        first = "\0".join(islice(corpus.texts(seed, "train"), FINGERPRINT_RECORDS))
    else:
        records = corpus.records(kind, seed, "train", FINGERPRINT_RECORDS)
        first = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return hashlib.sha256(first.encode("utf-8")).hexdigest()


def record_count(split: Split, default: int, limit: int | None) -> int:
    """The number of records of a split: a limit may ask for more than the default to train on, not to validate."""
    return limit or default if split == "train" else min(default, limit or default)


def validate_check(check: dict[str, Any]) -> None:
    """Refuse a check that would stop a training when its first answer is scored.

    Raises:
        ValueError: no corpus has such a check, or a field of it is missing.
    """
    unknown: ValueError | None = None
    for corpus in CORPORA.values():
        try:
            corpus.score(check, "An answer.")
            return
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the check of kind {check.get('kind')!r} is not complete ({error!r})") from error
        except ValueError as error:
            unknown = error
    if unknown is not None:
        raise unknown
