"""The table of generated corpora: text and messages made from a seed, without files or a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from understudy.data.layout import Split
from understudy.hamlet import DEFAULT_STORIES, checker, conversations, preferences, stories
from understudy.hamlet.write import DEFAULT_COUNTS, write_lines
from understudy.identity.conversations import COUNTS, IdentityConversations
from understudy.identity.settings import IdentitySettings
from understudy.instructions import checks, prompts

FINGERPRINT_RECORDS = 64


class GeneratedQuestion(NamedTuple):
    """A prompt with its correct answer. `check`: the argument of GeneratedCorpus.score."""

    messages: list[dict[str, Any]]
    answer: str
    check: dict[str, Any]
    category: str


@dataclass(frozen=True)
class GeneratedPrompts:
    """Prompts with a check, a pure function of (seed, split, index), with disjoint splits.

    Attributes:
        counts: the default number of records of each kind: "text", "conversations", "preferences", "judgements", "prompts".
        records: of (kind, seed, split, count), the first conversations, preferences, judgements or prompts.
        score: of (check, answer), the true score of an answer, from 0 to 1; ValueError for an unknown kind of check.
    """

    counts: Mapping[str, Mapping[Split, int]]
    records: Callable[[str, int, Split, int], Iterator[dict[str, Any]]]
    score: Callable[[dict[str, Any], str], float]


@dataclass(frozen=True)
class GeneratedCorpus(GeneratedPrompts):
    """Text, conversations, preferences and judgements too.

    Attributes:
        annotators: simulated annotators of sampled answers, with the share of their errors.
        texts: of (seed, split), documents without end.
        question: of (seed, index, split), a prompt whose answers are to be sampled and compared.
        choose: of (seed, split, *pair), the annotator who compares two answers, and whether their choice is correct.
    """

    annotators: dict[str, float]
    texts: Callable[[int, Split], Iterator[str]]
    question: Callable[[int, int, Split], GeneratedQuestion]
    choose: Callable[..., tuple[str, bool]]


def _hamlet_records(kind: str, seed: int, split: Split, count: int) -> Iterator[dict[str, Any]]:
    return map(json.loads, write_lines(kind, seed, split, count))


def _hamlet_question(seed: int, index: int, split: Split) -> GeneratedQuestion:
    messages, turn = conversations.question(seed, index, split, "preference")
    return GeneratedQuestion(messages, turn.answer, turn.check, turn.category)


def _instruction_records(kind: str, seed: int, split: Split, count: int) -> Iterator[dict[str, Any]]:
    return islice(prompts.prompts(seed, split), count)


CORPORA = {
    "hamlet": GeneratedCorpus(
        {"text": DEFAULT_STORIES, **DEFAULT_COUNTS}, _hamlet_records, checker.score, preferences.ANNOTATORS, stories,
        _hamlet_question, preferences.choose,
    ),
}  # fmt: skip
PROMPT_CORPORA: dict[str, GeneratedPrompts] = {
    **CORPORA,
    "instructions": GeneratedPrompts({"prompts": prompts.COUNTS}, _instruction_records, checks.score),
}
"""The corpora of CORPORA, and those that have nothing but prompts."""


def fingerprint(corpus: GeneratedPrompts, kind: str, seed: int) -> str:
    """The SHA-256 of the first records: another seed or a changed generator makes another corpus."""
    if kind == "text" and isinstance(corpus, GeneratedCorpus):
        first = "\0".join(islice(corpus.texts(seed, "train"), FINGERPRINT_RECORDS))
    else:
        records = corpus.records(kind, seed, "train", FINGERPRINT_RECORDS)
        first = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return hashlib.sha256(first.encode("utf-8")).hexdigest()


def identity_corpus(settings: IdentitySettings) -> GeneratedPrompts:
    """Conversations about who an assistant is."""

    def score(check: dict[str, Any], answer: str) -> float:
        raise ValueError("conversations about an identity have no checks")

    return GeneratedPrompts({"conversations": COUNTS}, IdentityConversations(settings).records, score)


def record_count(split: Split, default: int, limit: int | None) -> int:
    """The number of records of a split: a limit may ask for more than the default to train on, not to validate."""
    return limit or default if split == "train" else min(default, limit or default)


def checker_of(check: dict[str, Any], task: str = "") -> Callable[[dict[str, Any], str], float]:
    """GeneratedPrompts.score of the corpus that `task` names, else of the one that the check has a field of, else Hamlet's."""
    name = task if task in PROMPT_CORPORA else next((name for name in PROMPT_CORPORA if name in check), "hamlet")
    return PROMPT_CORPORA[name].score


def validate_check(check: dict[str, Any], task: str = "") -> None:
    """Refuse a check that would stop a training when its first answer is scored.

    Args:
        task: the name of the prompt's verifier; "" if none.

    Raises:
        ValueError: the corpus has no such check, or a field of it is missing.
    """
    try:
        checker_of(check, task)(check, "An answer.")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the check of kind {check.get('kind')!r} is not complete ({error!r})") from error
