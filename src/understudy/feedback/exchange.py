"""Judgements as data of the training stages, and back from files of other tools or of another store.

Corrections become conversations, other judgements preferences, which need two answers to the same prompt. So a correction and
a comparison give one by themselves, but thumbs and ratings only where answers to the same prompt were judged differently.
Judgements without use are counted by reason. Imported records without an id get a hash of their contents, so that importing a
file twice changes nothing. Not here: the file formats (data/chat/), the database (store.py).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from understudy.data.chat.conversations import read_conversations, tidy_conversation
from understudy.data.chat.formats import Dropped, ParsedRow
from understudy.data.chat.preferences import MOST_ANSWERS, read_preferences, tidy_preference
from understudy.data.records import read_records
from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore
from understudy.tokenizer.chat import Message

SEVERAL = "several"
"""The annotator of a pair whose ratings come from several."""
UNPAIRED = "{kind}s on the only judged answer to a prompt (a {kind} is used only if two answers to the same prompt differ in it)"
"""Reason to leave out a thumb or rating that gives no pair."""


@dataclass
class ExportedFeedback:
    """Lines of a data format, and the number of judgements left out by reason."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    seen: set[Any] = field(default_factory=set)

    def add(self, line: dict[str, Any] | Dropped, key: Callable[[dict[str, Any]], Any], noun: str) -> None:
        """Add a line, unless an earlier one has its key."""
        if not isinstance(line, Dropped) and (given := key(line)) in self.seen:
            line = Dropped(f"{noun} given before")
        if isinstance(line, Dropped):
            self.left_out[line.reason] += 1
        else:
            self.seen.add(given)
            self.lines.append(line)

    def text(self) -> str:
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)


def conversations(store: FeedbackStore) -> ExportedFeedback:
    """Each correction as a conversation that ends with it, without duplicates."""
    answers, exported = _answers(store), ExportedFeedback()
    for judgement in store.judgements():
        if judgement.correction is not None:
            messages = [*answers[judgement.answer_id].prompt, *_assistant(judgement.correction)]
            line = tidy_conversation({"messages": messages})
            exported.add(line, lambda line: json.dumps(line["messages"]), "corrections")
    return exported


def preferences(store: FeedbackStore) -> ExportedFeedback:
    """Pairs of answers to the same prompt: a correction and its answer; two compared answers; two answers with different
    ratings or thumbs. Equal pairs of one annotator are written once."""
    answers, judgements, exported = _answers(store), store.judgements(), ExportedFeedback()

    def key(line: dict[str, Any]) -> Any:
        sides, tie = [json.dumps(line[side]) for side in ("chosen", "rejected")], line.get("tie", False)
        return json.dumps(line["prompt"]), tuple(sorted(sides) if tie else sides), tie, line["annotator"]

    for pair in (*_direct(answers, judgements), *_rated(answers, judgements, exported)):
        exported.add(tidy_preference(pair), key, "preferences")
    return exported


def prompts(store: FeedbackStore) -> ExportedFeedback:
    """The prompts of judged answers, each once."""
    prompts = {json.dumps(record.prompt): record.prompt for record in store.answers(judged=True)}
    return ExportedFeedback([{"prompt": prompt} for prompt in prompts.values()])


def everything(store: FeedbackStore) -> ExportedFeedback:
    """All records, including replaced judgements, for import into another store."""
    lines: list[dict[str, Any]] = [{"answer": vars(record)} for record in store.answers()]
    return ExportedFeedback(lines + [{"judgement": vars(judgement)} for judgement in store.judgements(replaced=True)])


EXPORTS = {"sft": conversations, "preferences": preferences, "prompts": prompts, "store": everything}
"""Exports by the name that `feedback export --kind` takes."""


def _answers(store: FeedbackStore) -> dict[str, AnswerRecord]:
    return {record.id: record for record in store.answers(judged=True)}


def _assistant(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _pair(prompt: list[Message], chosen: str, rejected: str, annotator: str, **others: Any) -> dict[str, Any]:
    sides = {"chosen": _assistant(chosen), "rejected": _assistant(rejected)}
    return {"prompt": prompt, **sides, "annotator": annotator, **others}


def _direct(answers: dict[str, AnswerRecord], judgements: Iterable[Judgement]) -> Iterator[dict[str, Any]]:
    """Pairs that an annotator ordered: corrections and comparisons."""
    for judgement in judgements:
        answer = answers[judgement.answer_id]
        if judgement.correction is not None:
            yield _pair(answer.prompt, judgement.correction, answer.text, judgement.annotator)
        if judgement.other_answer_id is not None:
            texts = answer.text, answers[judgement.other_answer_id].text
            chosen, rejected = texts if judgement.value != -1 else texts[::-1]
            tie = {"tie": True} if judgement.value == 0 else {}
            yield _pair(answer.prompt, chosen, rejected, judgement.annotator, **tie)


def _rated(
    answers: dict[str, AnswerRecord], judgements: Iterable[Judgement], exported: ExportedFeedback
) -> Iterator[dict[str, Any]]:
    """Pairs of answers to one prompt with different mean ratings or thumbs; equal texts count as one answer."""
    by_prompt: dict[tuple[str, str], dict[str, list[Judgement]]] = {}
    for judgement in judgements:
        if judgement.kind in ("rating", "thumb"):
            answer = answers[judgement.answer_id]
            texts = by_prompt.setdefault((judgement.kind, json.dumps(answer.prompt)), {})
            texts.setdefault(answer.text.strip(), []).append(judgement)
    for (kind, prompt), texts in by_prompt.items():
        if len(texts) == 1:
            exported.left_out[UNPAIRED.format(kind=kind)] += len(next(iter(texts.values())))
        exported.left_out[f"answers beyond {MOST_ANSWERS} to one prompt"] += max(0, len(texts) - MOST_ANSWERS)
        ratings = {text: sum(j.value or 0 for j in texts[text]) / len(texts[text]) for text in texts}
        for pair in combinations(list(texts)[:MOST_ANSWERS], 2):
            rejected, chosen = sorted(pair, key=ratings.__getitem__)
            if ratings[chosen] == ratings[rejected]:
                exported.left_out[f"pairs with equal {kind}s"] += 1
                continue
            names = {judgement.annotator for text in pair for judgement in texts[text]}
            yield _pair(
                json.loads(prompt), chosen, rejected, min(names) if len(names) == 1 else SEVERAL,
                rating_chosen=ratings[chosen], rating_rejected=ratings[rejected],
            )  # fmt: skip
    exported.left_out += Counter()  # drops reasons with a count of 0


# ---- import ---------------------------------------------------------------------------------------------------------

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
        if any("tool_calls" in record[side][0] for side in ("chosen", "rejected")):
            left_out["answers that call a tool"] += 1
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
        if "tool_calls" in last:
            left_out["answers that call a tool"] += 1
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
