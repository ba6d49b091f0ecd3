"""Judgements of single completions: the formats in which they are published, one row of FORMATS each, and a split as a
trainer reads it.

Each line of a prepared folder is

    {"prompt": [messages], "completion": [messages], "label": true}

where the prompt ends with the user's message, and the label says whether the completion is desirable. `annotator` and
`category` (texts) are kept where they are known.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.chat.formats import Dropped, Format, Kind, message_field, read_formatted
from understudy.data.chat.messages import text_field
from understudy.data.chat.preferences import NO_LABEL, label_of, message_list, read_pairs, tidy_answer
from understudy.data.chat.prepared import Prepared, open_prepared
from understudy.tokenizer.chat import Message

DETAILS = ("annotator", "category")


def tidy_judgement(record: dict[str, Any]) -> dict[str, Any] | Dropped:
    """The messages of a judged completion as they are trained on, its label as true or false, and its other fields as they
    are; or the reason to leave it out.

    Raises:
        ValueError: the record holds no judgement, or a field of the schema holds something else.
    """
    prompt, completion = (message_list(record, name) for name in ("prompt", "completion"))
    if not prompt:
        return Dropped("no prompt")
    label = label_of(record["label"])
    if label is None:
        return Dropped(NO_LABEL)
    parts = tidy_answer(prompt, completion)
    if isinstance(parts, Dropped):
        return parts
    details = {name: text for name in DETAILS if (text := text_field(record, name))}
    return {**record, **details, "prompt": parts[0], "completion": parts[1], "label": label}


def _labelled(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Text or messages, with true or false, or 1 or 0: the rows of KTO, also in TRL's form."""
    details = {name: fields[name] for name in DETAILS if fields.get(name) is not None}
    prompt, completion = message_field(fields, "prompt", "user"), message_field(fields, "completion", "assistant")
    yield {"prompt": prompt, "completion": completion, "label": fields["label"], **details}


def _of_pairs(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    """Each pair as two judgements: the chosen completion is desirable, the rejected one undesirable."""
    details = {name: fields[name] for name in DETAILS if fields.get(name) is not None}
    if fields.get("tie"):
        yield Dropped("a tie, which says nothing of either completion", intended=True)
        return
    for pair in read_pairs(fields):
        if isinstance(pair, Dropped):
            yield pair
            continue
        for side, label in (("chosen", True), ("rejected", False)):
            yield {"prompt": pair["prompt"], "completion": pair[side], "label": label, **details}


FORMATS = {
    row.name: row
    for row in (
        Format("kto", (("prompt", "completion", "label"),), _labelled, optional=DETAILS),
        Format("pairs", (("prompt", "chosen", "rejected"),), _of_pairs, optional=("tie", *DETAILS)),
    )
}
"""In the order in which they are tried; a record that fits two is the first."""

JUDGEMENTS = Kind("judgements", ("prompt", "completion", "label"), FORMATS, tidy_judgement, labelled=True)
read_judgements = functools.partial(read_formatted, JUDGEMENTS)


@dataclass(frozen=True, slots=True)
class LabelledCompletion:
    """A completion of a prompt, and whether it is desirable."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    desirable: bool


def open_judgements(path: Path, split: str) -> Prepared[LabelledCompletion]:
    """One split of judgements: see :func:`open_prepared`."""
    return open_prepared(path, split, JUDGEMENTS, _completion_of)


def _completion_of(record: dict[str, Any]) -> LabelledCompletion:
    return LabelledCompletion(tuple(record["prompt"]), tuple(record["completion"]), record["label"])
