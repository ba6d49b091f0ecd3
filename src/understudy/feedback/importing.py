"""Import of judgements into the store: preferences and conversations of other tools, or another store's export.

Records without an id get a hash of their contents, so that importing a file twice changes nothing. Not here: the file formats
(data/chat/).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from understudy.data.chat.conversation_formats import read_conversations
from understudy.data.chat.formats import ParsedRow
from understudy.data.chat.preference_formats import read_preferences
from understudy.data.records import read_records
from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore
from understudy.tokenizer.chat import Message

IMPORTED = "imported"
"""Run name of imported answers."""


@dataclass
class ImportedFeedback:
    """Numbers of new answers and judgements of a file, and of those left out by reason."""

    answers: int
    judgements: int
    left_out: Counter[str]


def import_file(store: FeedbackStore, path: Path, kind: str) -> ImportedFeedback:
    """Add the judgements of a file to the store, all of them or none.

    Args:
        kind: ``sft`` (conversations whose last answer is a correction), ``preferences``, or ``store`` (from `feedback export
            --kind store`).

    Raises:
        ValueError: a file that cannot be read, or of another format.
    """
    left_out = Counter[str]()
    answers: dict[str, AnswerRecord] = {}
    judgements: dict[str, Judgement] = {}
    known_answers, known_judgements = store.ids()
    for record in READERS[kind](path, left_out):
        if isinstance(record, AnswerRecord):
            answers.setdefault(record.id, record)
        elif record.id in known_judgements or record.id in judgements:
            left_out["judgements imported before"] += 1
        else:
            judgements[record.id] = record
    new = [record for id, record in answers.items() if id not in known_answers]
    store.add(new, judgements.values())
    return ImportedFeedback(len(new), len(judgements), left_out)


def _read_preferences(path: Path, left_out: Counter[str]) -> Iterator[AnswerRecord | Judgement]:
    for record in _records(read_preferences(path), left_out):
        if any(len(record[side]) != 1 for side in ("chosen", "rejected")):
            left_out["answers of several messages"] += 1
            continue
        chosen, rejected = (_answer(record["prompt"], record[side][0]["content"]) for side in ("chosen", "rejected"))
        yield from (chosen, rejected)
        yield _judged(Judgement(
            "comparison", chosen.id, record.get("annotator") or path.name, 0 if record.get("tie") else 1,
            other_answer_id=rejected.id,
        ))  # fmt: skip


def _read_conversations(path: Path, left_out: Counter[str]) -> Iterator[AnswerRecord | Judgement]:
    for record in _records(read_conversations(path), left_out):
        *prompt, last = record["messages"]
        if last["role"] != "assistant":
            left_out["conversations that do not end with an answer"] += 1
            continue
        answer = _answer(prompt, "")
        yield answer
        yield _judged(Judgement("correction", answer.id, path.name, correction=last["content"]))


def _read_store(path: Path, left_out: Counter[str]) -> Iterator[AnswerRecord | Judgement]:
    for located in read_records(path):
        try:
            kind = AnswerRecord if "answer" in located.fields else Judgement
            given = located.fields["answer" if kind is AnswerRecord else "judgement"]
            if given.keys() != {item.name for item in fields(kind)}:
                raise KeyError("fields")
            yield kind(**given)
        except (KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{located.where} is neither an answer nor a judgement; give a file from `feedback export --kind store`"
            ) from None


READERS: dict[str, Callable[[Path, Counter[str]], Iterator[AnswerRecord | Judgement]]] = {
    "sft": _read_conversations,
    "preferences": _read_preferences,
    "store": _read_store,
}


def _records(rows: Iterator[ParsedRow], left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if row.record is None:
            left_out[row.reason] += 1
        else:
            yield row.record


def _answer(prompt: list[Message], text: str) -> AnswerRecord:
    return AnswerRecord(_hash(prompt), prompt, text, IMPORTED, 0, "", {}, "stop", 0, _hash(prompt, text))


def _judged(judgement: Judgement) -> Judgement:
    """The judgement with an id that is a hash of its contents."""
    names = ("kind", "answer_id", "other_answer_id", "annotator", "value", "correction")
    return replace(judgement, id=_hash(*(getattr(judgement, name) for name in names)))


def _hash(*content: Any) -> str:
    return f"{IMPORTED}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}"
