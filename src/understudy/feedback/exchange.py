"""Judgements as data of the training stages, and back from files of other tools or of another store.

A correction becomes a conversation, of which it alone is trained on, and a preference. A comparison becomes a preference. A
thumb or a rating becomes a judgement of a single completion, and a preference where answers to the same prompt were judged
differently. An export counts the lines and the judgements of each kind, and those without use by reason. Imported records
without an id get a hash of their contents, so that importing a file twice changes nothing. Not here: the file formats
(data/chat/), the database (store.py).
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
from understudy.data.chat.judgements import tidy_judgement
from understudy.data.chat.messages import without_weights
from understudy.data.chat.preferences import MOST_ANSWERS, read_preferences, tidy_preference
from understudy.data.records import read_records
from understudy.feedback.records import KINDS, AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore
from understudy.tokenizer.chat import Message

SEVERAL = "several"
"""The annotator of a pair whose ratings come from several."""
UNPAIRED = "{kind}s on the only judged answer to a prompt (a {kind} is used only if two answers to the same prompt differ in it)"
"""Reason to leave out a thumb or rating that gives no pair."""


NEUTRAL_STARS = 3
NEUTRAL = "ratings of 3 stars, which are neither desirable nor undesirable"
"""Reason to leave out a rating that gives no label."""
AGAIN = "judgements of an answer that the same annotator judged again"
"""Reason to leave out a thumb or rating, of which an annotator's last one of an answer counts."""
USES: dict[str, tuple[str, ...]] = {
    "thumb": ("judgements", "preferences"), "rating": ("judgements", "preferences"),
    "correction": ("sft", "preferences"), "comparison": ("preferences",),
}  # fmt: skip
"""The exports that a judgement of each kind is for."""


@dataclass
class ExportedFeedback:
    """Lines of a data format.

    Attributes:
        left_out: the number of judgements left out by reason.
        given: the number of records in the store by kind: of judgements, or in other exports of answers.
        used: the number of lines by the kind of record that they were made of.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    seen: set[Any] = field(default_factory=set)

    def add(self, line: dict[str, Any] | Dropped, key: Callable[[dict[str, Any]], Any], noun: str, kind: str) -> None:
        """Add a line made of a judgement of this ``kind``, unless an earlier one has its key."""
        if not isinstance(line, Dropped) and (given := key(line)) in self.seen:
            line = Dropped(f"{noun} given before")
        if isinstance(line, Dropped):
            self.left_out[line.reason] += 1
        else:
            self.seen.add(given)
            self.lines.append(line)
            self.used[kind] += 1

    def summary(self, export: str) -> list[str]:
        """A phrase for each kind of record: the lines made of it, and for those without use here another ``export`` that
        uses them."""
        phrases = []
        for kind, count in self.given.items():
            phrase = f"{kind}s: {self.used[kind]:,} lines from {count:,}"
            others = USES.get(kind, (export,))
            if export not in others:
                phrase += (
                    f"; {' and '.join(f'--kind {name}' for name in others)} use{'s' if len(others) == 1 else ''} them"
                )
            phrases.append(phrase)
        return phrases

    def text(self) -> str:
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)


def conversations(store: FeedbackStore) -> ExportedFeedback:
    """Each correction as a conversation that ends with it, without duplicates. Earlier answers have the weight 0: they are
    read, and not trained on, since nobody vouched for them."""
    answers, judgements = _answers(store), store.judgements()
    exported = ExportedFeedback(given=_kinds(judgements))
    for judgement in judgements:
        if judgement.correction is not None:
            earlier = [
                {**message, "weight": 0} if message["role"] == "assistant" else message
                for message in answers[judgement.answer_id].prompt
            ]
            line = tidy_conversation({"messages": [*earlier, *_assistant(judgement.correction)]})
            exported.add(line, lambda line: json.dumps(line["messages"]), "corrections", judgement.kind)
    return exported


def preferences(store: FeedbackStore) -> ExportedFeedback:
    """Pairs of answers to the same prompt: a correction and its answer; two compared answers; two answers with different
    ratings or thumbs. Equal pairs of one annotator are written once."""
    answers, judgements = _answers(store), store.judgements()
    exported = ExportedFeedback(given=_kinds(judgements))

    def key(line: dict[str, Any]) -> Any:
        sides, tie = [json.dumps(line[side]) for side in ("chosen", "rejected")], line.get("tie", False)
        return json.dumps(line["prompt"]), tuple(sorted(sides) if tie else sides), tie, line["annotator"]

    for kind, pair in (*_direct(answers, judgements), *_rated(answers, judgements, exported)):
        exported.add(tidy_preference(pair), key, "preferences", kind)
    return exported


def single_judgements(store: FeedbackStore) -> ExportedFeedback:
    """Each thumb and each rating as a judgement of its answer: a thumb up, or 4 or 5 stars, is desirable; a thumb down, or 1
    or 2 stars, is not. Of one annotator's judgements of equal answers to a prompt the last one counts."""
    answers, judgements = _answers(store), store.judgements()
    exported = ExportedFeedback(given=_kinds(judgements))
    last: dict[tuple[str, str, str], Judgement] = {}
    for judgement in judgements:
        if judgement.kind not in ("thumb", "rating"):
            continue
        answer = answers[judgement.answer_id]
        key = json.dumps(answer.prompt), answer.text.strip(), judgement.annotator
        exported.left_out[AGAIN] += key in last
        last[key] = judgement
    for key, judgement in last.items():
        value = judgement.value or 0
        if judgement.kind == "rating" and value == NEUTRAL_STARS:
            exported.left_out[NEUTRAL] += 1
            continue
        prompt, text, annotator = key
        line = tidy_judgement({
            "prompt": json.loads(prompt), "completion": _assistant(text), "annotator": annotator,
            "label": value > (NEUTRAL_STARS if judgement.kind == "rating" else 0),
        })  # fmt: skip
        exported.add(line, lambda line: json.dumps(line), "judgements", judgement.kind)
    exported.left_out += Counter()  # drops reasons with a count of 0
    return exported


def prompts(store: FeedbackStore) -> ExportedFeedback:
    """The prompts of judged answers, each once."""
    answers = list(store.answers(judged=True))
    lines = [{"prompt": prompt} for prompt in {json.dumps(record.prompt): record.prompt for record in answers}.values()]
    kind = "judged answer"
    return ExportedFeedback(lines, given=Counter({kind: len(answers)}), used=Counter({kind: len(lines)}))


def everything(store: FeedbackStore) -> ExportedFeedback:
    """All records, including replaced judgements, for import into another store."""
    lines: list[dict[str, Any]] = [{"answer": vars(record)} for record in store.answers()]
    lines += [{"judgement": vars(judgement)} for judgement in store.judgements(replaced=True)]
    return ExportedFeedback(lines)


EXPORTS = {
    "sft": conversations, "preferences": preferences, "judgements": single_judgements, "prompts": prompts,
    "store": everything,
}  # fmt: skip
"""Exports by the name that `feedback export --kind` takes."""


def _answers(store: FeedbackStore) -> dict[str, AnswerRecord]:
    return {record.id: record for record in store.answers(judged=True)}


def _kinds(judgements: Iterable[Judgement]) -> Counter[str]:
    """The number of judgements of each kind, in the order of KINDS."""
    counts = Counter(judgement.kind for judgement in judgements)
    return Counter({kind: counts[kind] for kind in KINDS if counts[kind]})


def _assistant(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _pair(prompt: list[Message], chosen: str, rejected: str, annotator: str, **others: Any) -> dict[str, Any]:
    sides = {"chosen": _assistant(chosen), "rejected": _assistant(rejected)}
    return {"prompt": prompt, **sides, "annotator": annotator, **others}


def _direct(answers: dict[str, AnswerRecord], judgements: Iterable[Judgement]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs that an annotator ordered, each with its kind: corrections and comparisons."""
    for judgement in judgements:
        answer = answers[judgement.answer_id]
        if judgement.correction is not None:
            pair = _pair(answer.prompt, judgement.correction, answer.text, judgement.annotator)
            yield judgement.kind, pair
        if judgement.other_answer_id is not None:
            texts = answer.text, answers[judgement.other_answer_id].text
            chosen, rejected = texts if judgement.value != -1 else texts[::-1]
            tie = {"tie": True} if judgement.value == 0 else {}
            yield judgement.kind, _pair(answer.prompt, chosen, rejected, judgement.annotator, **tie)


def _rated(
    answers: dict[str, AnswerRecord], judgements: Iterable[Judgement], exported: ExportedFeedback
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs of answers to one prompt with different mean ratings or thumbs, each with its kind; equal texts count as one
    answer."""
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
            yield kind, _pair(
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
        answer = _answer(without_weights(prompt), "")
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
