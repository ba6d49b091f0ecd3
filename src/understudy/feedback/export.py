"""Judgements as data of the training stages: corrections as conversations, other judgements as preferences between answers.

A preference needs two answers to the same prompt. So a correction and a comparison give one by themselves, but thumbs and
ratings only where answers to the same prompt were judged differently. Judgements without use are counted by reason. Not
here: files, the database (store.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
