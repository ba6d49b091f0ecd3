"""Judgements as what the training stages read: corrections as conversations, the rest as preferences between answers.

What teaches nothing is left out and counted with its reason. Here is no database but a store that is read, and no file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from understudy.data.chat.conversation_formats import tidy_conversation
from understudy.data.chat.formats import Dropped
from understudy.data.chat.preference_formats import MOST_ANSWERS, tidy_preference
from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore
from understudy.tokenizer.chat import Message

SEVERAL = "several"
"""The annotator of a pair whose ratings come from more than one."""


@dataclass
class ExportedFeedback:
    """Lines of one of the project's schemas, and how many were left out for which reason."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any] | Dropped) -> None:
        if isinstance(line, Dropped):
            self.left_out[line.reason] += 1
        else:
            self.lines.append(line)

    def text(self) -> str:
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)


def conversations(store: FeedbackStore) -> ExportedFeedback:
    """Every correction as a conversation that ends with it; the same one is written once, whoever gave it."""
    answers, exported, seen = _answers(store), ExportedFeedback(), set()
    for judgement in store.judgements():
        if judgement.correction is None:
            continue
        asked = answers[judgement.answer_id].prompt
        line = tidy_conversation({"messages": [*asked, *_said(judgement.correction)]})
        if not isinstance(line, Dropped):
            key = json.dumps(line["messages"])
            line = Dropped("corrected so already") if key in seen else line
            seen.add(key)
        exported.add(line)
    return exported


def preferences(store: FeedbackStore) -> ExportedFeedback:
    """Pairs of answers to the same prompt: a correction and what it corrects; what was compared; what was rated, or got
    a thumb, differently. What the same annotator says of the same pair twice over is written once."""
    answers, judgements = _answers(store), store.judgements()
    exported, seen = ExportedFeedback(), set()
    for pair in (*_direct(answers, judgements, exported), *_rated(answers, judgements, exported)):
        line = tidy_preference(pair)
        if not isinstance(line, Dropped):
            sides = [json.dumps(line[side]) for side in ("chosen", "rejected")]
            tie = line.get("tie", False)
            key = (json.dumps(line["prompt"]), tuple(sorted(sides) if tie else sides), tie, line["annotator"])
            line = Dropped("preferred so already") if key in seen else line
            seen.add(key)
        exported.add(line)
    return exported


def prompts(store: FeedbackStore) -> ExportedFeedback:
    """What people asked where they judged an answer, each prompt once."""
    found = {json.dumps(record.prompt): record.prompt for record in store.answers(judged=True)}
    return ExportedFeedback([{"prompt": prompt} for prompt in found.values()])


def everything(store: FeedbackStore) -> ExportedFeedback:
    """All records as they are, replaced judgements too, to be imported by another store."""
    lines: list[dict[str, Any]] = [{"answer": vars(record)} for record in store.answers()]
    return ExportedFeedback(lines + [{"judgement": vars(each)} for each in store.judgements(replaced=True)])


EXPORTS = {"sft": conversations, "preferences": preferences, "prompts": prompts, "store": everything}
"""What can be made of a store, by the name that `feedback export --kind` takes."""


def _answers(store: FeedbackStore) -> dict[str, AnswerRecord]:
    return {record.id: record for record in store.answers(judged=True)}


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _pair(prompt: list[Message], chosen: str, rejected: str, annotator: str, **others: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": _said(chosen), "rejected": _said(rejected), "annotator": annotator, **others}


def _direct(
    answers: dict[str, AnswerRecord], judgements: Iterable[Judgement], exported: ExportedFeedback
) -> Iterator[dict[str, Any]]:
    """Pairs that someone put in order: corrections and comparisons."""
    for judgement in judgements:
        answer = answers[judgement.answer_id]
        if judgement.correction is not None:
            yield _pair(answer.prompt, judgement.correction, answer.text, judgement.annotator)
        if judgement.other_answer_id is not None:
            texts = answer.text, answers[judgement.other_answer_id].text
            better, worse = texts if judgement.value != -1 else texts[::-1]
            tie = {"tie": True} if judgement.value == 0 else {}
            yield _pair(answer.prompt, better, worse, judgement.annotator, **tie)


def _rated(
    answers: dict[str, AnswerRecord], judgements: Iterable[Judgement], exported: ExportedFeedback
) -> Iterator[dict[str, Any]]:
    """Pairs of answers to one prompt whose mean rating, or mean thumb, differs; equal texts are one answer."""
    said: dict[tuple[str, str], dict[str, list[Judgement]]] = {}
    for judgement in judgements:
        if judgement.kind in ("rating", "thumb"):
            answer = answers[judgement.answer_id]
            texts = said.setdefault((judgement.kind, json.dumps(answer.prompt)), {})
            texts.setdefault(answer.text.strip(), []).append(judgement)
    for (kind, prompt), texts in said.items():
        if len(texts) == 1:
            exported.left_out[f"{kind} of the only answer to its prompt"] += len(next(iter(texts.values())))
        exported.left_out["more answers to one prompt than are compared"] += max(0, len(texts) - MOST_ANSWERS)
        rated = [(_mean(own), text, {each.annotator for each in own}) for text, own in texts.items()][:MOST_ANSWERS]
        for one, two in combinations(rated, 2):
            if one[0] == two[0]:
                exported.left_out[f"pair with equal {kind}s"] += 1
                continue
            (high, better, _), (low, worse, _) = sorted((one, two), key=lambda each: -each[0])
            names = one[2] | two[2]
            annotator = names.pop() if len(names) == 1 else SEVERAL
            yield _pair(json.loads(prompt), better, worse, annotator, rating_chosen=high, rating_rejected=low)
    exported.left_out += Counter()  # reasons that never came leave


def _mean(judgements: list[Judgement]) -> float:
    return sum(each.value or 0 for each in judgements) / len(judgements)
