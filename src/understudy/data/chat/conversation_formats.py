"""The forms that conversations are published in, read as messages: one row of FORMATS each.

A format, recognised by the fields of a file's first record (formats.py), turns a record into conversations. What can
be read and teaches nothing is handed on with the reason, to be counted. Nothing is fetched, split or written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.data.chat.formats import Dropped, Format, ParsedRow, list_field, read_formatted, text_field
from understudy.tokenizer.chat import ROLES, Message, check_messages

NOT_SAID = "The text does not say."
SHAREGPT_ROLES = {
    "human": "user", "user": "user", "system": "system",
    "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bard": "assistant", "bing": "assistant",
}  # fmt: skip


def read_conversations(path: Path, format_name: str | None = None) -> Iterator[ParsedRow]:
    """The conversations of one file, `{"messages": [...]}` each, in order.

    Args:
        format_name: a row of FORMATS; by default the one that the first record's fields fit.

    Raises:
        ValueError: a broken or foreign record, by file and line.
    """
    return read_formatted(path, FORMATS, lambda messages: tidy_conversation({"messages": messages}), format_name)


def tidy_conversation(record: dict[str, Any]) -> dict[str, Any] | Dropped:
    """The messages of a record as they are trained on, or why they cannot be.

    Raises:
        ValueError: what is no conversation at all.
    """
    messages, reason = tidy_messages(record["messages"])
    return Dropped(reason) if reason else {"messages": messages}


def tidy_messages(messages: Any) -> tuple[list[Message], str]:
    """Messages as they are trained on, and why they cannot be ("" where they can). A blank system message goes.

    Raises:
        ValueError: what is no conversation at all: a form, a role or a content that there is not.
    """
    check_form(messages)
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]
    if not any(m["role"] == "assistant" for m in messages):
        return [], "no answer"
    for message in messages:
        if not message["content"].strip():
            return [], "empty answer" if message["role"] == "assistant" else "empty message"
    try:
        return check_messages(messages), ""
    except ValueError:
        # Form, roles and contents were looked at above, so only the order is left.
        return [], "turns out of order"


def check_form(messages: Any) -> None:
    """Whether these are messages at all, in any order.

    Raises:
        ValueError: a form, a role or a content that there is not.
    """
    well_formed = isinstance(messages, list) and all(
        isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str) for m in messages
    )
    if not well_formed:
        check_messages(messages)


def _exchange(answer: str, *asked: str) -> list[Message]:
    """One turn, its parts a blank line apart, and the answer."""
    question = "\n\n".join(part.strip() for part in asked if part.strip())
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _messages(fields: dict[str, Any]) -> Iterator[Any]:
    yield fields["messages"]


def _sharegpt(fields: dict[str, Any]) -> Iterator[list[Message]]:
    messages = []
    for number, turn in enumerate(list_field(fields, "conversations"), 1):
        role = SHAREGPT_ROLES.get(str(turn.get("from")))
        if role is None:
            raise ValueError(f"turn {number} is from {turn.get('from')!r}, none of {', '.join(SHAREGPT_ROLES)}")
        messages.append({"role": role, "content": text_field(turn, "value")})
    yield messages


def _alpaca(fields: dict[str, Any]) -> Iterator[list[Message]]:
    yield _exchange(text_field(fields, "output"), text_field(fields, "instruction"), text_field(fields, "input"))


def _dolly(fields: dict[str, Any]) -> Iterator[list[Message]]:
    yield _exchange(text_field(fields, "response"), text_field(fields, "instruction"), text_field(fields, "context"))


def _seed_tasks(fields: dict[str, Any]) -> Iterator[list[Message]]:
    for instance in list_field(fields, "instances"):
        yield _exchange(
            text_field(instance, "output"), text_field(fields, "instruction"), text_field(instance, "input")
        )


def _squad(fields: dict[str, Any]) -> Iterator[list[Message]]:
    """A row of the hub, or the whole of a published file, `data` > `paragraphs` > `qas`."""
    if "data" not in fields:
        answers = fields["answers"] or {}
        texts = answers.get("text") if isinstance(answers, dict) else None
        if not isinstance(texts, list):
            raise ValueError("the field 'answers' is not of the form {\"text\": [...]}")
        yield _about_text(text_field(fields, "context"), text_field(fields, "question"), texts)
        return
    for article in list_field(fields, "data"):
        for paragraph in list_field(article, "paragraphs"):
            for question in list_field(paragraph, "qas"):
                found = [answer.get("text") for answer in list_field(question, "answers")]
                yield _about_text(text_field(paragraph, "context"), text_field(question, "question"), found)


def _about_text(context: str, question: str, answers: list[Any]) -> list[Message]:
    """The text comes before the question; of several answers the first counts, and none means that there is none."""
    answer = text_field({"answer": answers[0]}, "answer") if answers else NOT_SAID
    return _exchange(answer, context, question) if question.strip() else _exchange(answer)


def _gsm8k(fields: dict[str, Any]) -> Iterator[list[Message]]:
    """The calculator's notes, <<48/2=24>>, are left out; "#### 24" becomes "The answer is 24."."""
    worked, number = gsm8k_solution(fields)
    steps = re.sub(r"<<[^<>]*>>", "", worked).strip()
    yield _exchange(f"{steps}\nThe answer is {number}.", text_field(fields, "question"))


def gsm8k_solution(fields: dict[str, Any]) -> tuple[str, str]:
    """What stands before "#### 1,200", and the number, "1200".

    Raises:
        ValueError: the answer has no such end.
    """
    worked, mark, number = text_field(fields, "answer").rpartition("####")
    if not mark or not number.strip():
        raise ValueError(
            "its answer does not end in '#### NUMBER'; for plain pairs call the fields prompt and response"
        )
    return worked, number.strip().replace(",", "")


def _pairs(fields: dict[str, Any]) -> Iterator[list[Message]]:
    answer = "completion" if "completion" in fields else "response"
    yield _exchange(text_field(fields, answer), text_field(fields, "prompt"))


FORMATS = {
    row.name: row
    for row in (
        Format("messages", (("messages",),), _messages, keeps_fields=True),
        Format("sharegpt", (("conversations",),), _sharegpt),
        Format("squad", (("context", "question", "answers"), ("data",)), _squad),
        Format("seed-tasks", (("instruction", "instances"),), _seed_tasks),
        Format("dolly", (("instruction", "response"),), _dolly),
        Format("alpaca", (("instruction", "output"),), _alpaca),
        Format("gsm8k", (("question", "answer"),), _gsm8k),
        Format("pairs", (("prompt", "completion"), ("prompt", "response")), _pairs),
    )
}
"""In the order in which they are tried; a record that fits two is the first."""
