"""Prompts without an answer to imitate: the formats in which they are published, one row of FORMATS each, and a split
as a trainer reads it.

Each line of a prepared folder is `{"prompt": [messages]}`, which end with the user's, and where they are known `check`
(the argument of a corpus's verifier), `answer` (the correct one, as text), `category` and `task` (the name of its
verifier). Every format of conversations can be read so: its messages up to the last of the user's, and the last answer
as the correct one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from understudy.data.chat.conversations import ANSWERS, CONVERSATIONS, check_form, gsm8k_solution, tidy_messages
from understudy.data.chat.formats import Dropped, Format, Kind, NotUsed, Reader, message_field, read_formatted
from understudy.data.chat.messages import text_field, without_none, without_weights
from understudy.data.chat.prepared import Prepared, open_prepared
from understudy.data.generated import validate_check
from understudy.data.records import kind_of
from understudy.tokenizer.chat import ANSWERED, Message

_ANSWER = {"role": "assistant", "content": "."}  # any: a prompt is in order when an answer may follow it


def tidy_prompt(record: dict[str, Any]) -> dict[str, Any] | Dropped:
    """The messages of a prompt, its other fields as they are; or the reason why nothing can answer it.

    Raises:
        ValueError: the record holds no prompt, or a check that no corpus has.
    """
    if not isinstance(record["prompt"], list):
        raise ValueError(f"the field 'prompt' is not a list of messages but {kind_of(record['prompt'])}")
    if not record["prompt"]:
        return Dropped("no prompt")
    messages, reason = tidy_messages([*record["prompt"], _ANSWER])
    if reason:
        return Dropped(reason)
    texts = {name: text_field(record, name) for name in ("answer", "category", "task") if record.get(name) is not None}
    check = record.get("check")
    if check is not None:
        if not isinstance(check, dict):
            raise ValueError(f"the field 'check' is not an object but {kind_of(check)}")
        validate_check(check, texts.get("task", ""))
    return {**record, **texts, "prompt": without_weights(messages[:-1])}


ASKING_FIELDS = ("prompt", "question", "query", "instruction")


def _prompts(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A text or messages; the other fields are for the verifier."""
    record = {
        "prompt": message_field(fields, next(name for name in ASKING_FIELDS if name in fields), "user"),
        "check": without_none(fields.get("check")),
        "answer": text_field(fields, "answer").strip(),
        "category": text_field(fields, "category"),
        "task": text_field(fields, "task"),
    }
    yield {name: value for name, value in record.items() if name == "prompt" or value}


def _gsm8k(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The correct answer is the number alone."""
    _, number = gsm8k_solution(fields)
    yield {"prompt": message_field(fields, "question", "user"), "answer": number}


def _of_conversation(read: Reader) -> Reader:
    def read_as_prompts(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped | NotUsed]:
        for conversation in read(fields):
            if isinstance(conversation, Dropped | NotUsed):
                yield conversation
                continue
            messages = conversation["messages"]
            check_form(messages)
            end = max((i + 1 for i, m in enumerate(messages) if m["role"] in ANSWERED), default=0)
            answer = messages[-1]["content"].strip() if len(messages) > end else ""
            yield {"prompt": messages[:end]} | ({"answer": answer} if answer else {})

    return read_as_prompts


OTHER_ANSWERS = {"completion", *ANSWERS} - {"answer"}
OWN = Format(
    "prompts", tuple((name,) for name in ASKING_FIELDS), _prompts, ("check", "answer", "category", "task"),
    applies=lambda fields: not OTHER_ANSWERS & fields.keys(),
)  # fmt: skip


def _formats() -> Iterator[Format]:
    for name, row in CONVERSATIONS.formats.items():
        if name == "pairs":  # which a prompt with an answer fits too
            yield OWN
        yield replace(row, read=_gsm8k if name == "gsm8k" else _of_conversation(row.read), keeps_fields=False)


FORMATS = {row.name: row for row in _formats()}
"""In the order in which they are tried; a record that fits two is the first."""

PROMPTS = Kind("prompts", ("prompt",), FORMATS, tidy_prompt)
read_prompts = functools.partial(read_formatted, PROMPTS)


@dataclass(frozen=True, slots=True)
class Prompt:
    """`messages` end with the user's. `check`: for the checker of a corpus. `answer`: the right one. `category`: "" if none.
    `task`: the name of its verifier in rewards/verifiers.py; "" if none."""

    messages: tuple[Message, ...]
    check: dict[str, Any] | None
    answer: str | None
    category: str
    task: str = ""


Prompts = Prepared[Prompt]


def open_prompts(path: Path, split: str) -> Prompts:
    """One split of prompts: see :func:`open_prepared`."""
    return open_prepared(path, split, PROMPTS, prompt_of)


def prompt_of(record: dict[str, Any]) -> Prompt:
    """A line of the schema, as `tidy_prompt` leaves it."""
    return Prompt(
        tuple(record["prompt"]), record.get("check") or None, record.get("answer") or None, record.get("category") or "",
        record.get("task") or "",
    )  # fmt: skip
