"""Conversations: the formats in which they are published, one row of FORMATS each, and a split as a trainer reads it.

A format turns a record into conversations, `{"messages": [...]}` each, with an answer to train on. A record that
teaches nothing is handed on with the reason, to be counted.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.data.chat.exports import read_chatgpt, read_claude, read_open_webui
from understudy.data.chat.formats import (
    Dropped,
    Format,
    Kind,
    Reader,
    list_field,
    message_field,
    read_formatted,
)
from understudy.data.chat.messages import is_message_list, text_field, tool_calls
from understudy.data.chat.prepared import Prepared, open_prepared
from understudy.data.chat.trees import TREE_FIELDS, gather_trees, is_tree, read_threads
from understudy.tokenizer.chat import ROLES, Message, check_messages

NOT_IN_TEXT = "The text does not say."
"""The answer to a question of SQuAD that its text does not answer."""


def tidy_conversation(record: dict[str, Any]) -> dict[str, Any] | Dropped:
    """The messages of a record as they are trained on, or the reason why they cannot be.

    Raises:
        ValueError: the record holds no conversation.
    """
    messages, reason = tidy_messages(record["messages"])
    if messages and not any(m["role"] == "assistant" and m.get("weight") != 0 for m in messages):
        return Dropped("every answer has weight 0", intended=True)
    return Dropped(reason) if reason else {"messages": messages}


def tidy_messages(messages: Any) -> tuple[list[Message], str]:
    """Messages as they are trained on, and the reason why they cannot be, or "". A blank system message without tools is
    removed.

    Raises:
        ValueError: no list of messages, an unknown role, or a content that is no text.
    """
    check_form(messages)
    if (
        messages
        and messages[0]["role"] == "system"
        and not (messages[0]["content"].strip() or messages[0].get("tools"))
    ):
        messages = messages[1:]
    if not any(m["role"] == "assistant" for m in messages):
        return [], "no answer"
    for message in messages:
        if not message["content"].strip() and not (
            message.get("tools") or message.get("tool_calls") or message["role"] == "tool"
        ):
            return [], "empty answer" if message["role"] == "assistant" else "empty message"
    try:
        return check_messages(messages), ""
    except ValueError:
        # Form, roles and contents were looked at above, so only the order is left.
        return [], "turns out of order"


def check_form(messages: Any) -> None:
    """Refuse anything but messages, in any order.

    Raises:
        ValueError: no list of messages, an unknown role, or a content that is no text.
    """
    well_formed = isinstance(messages, list) and all(
        isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str) for m in messages
    )
    if not well_formed:
        check_messages(messages)


def _exchange(answer: str, *question: str) -> dict[str, list[Message]]:
    """One turn, the parts of its question a blank line apart, and the answer."""
    content = "\n\n".join(part.strip() for part in question if part.strip())
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


def _messages(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"messages": fields["messages"]}


DIALOGUE_FIELDS = ("conversations", "conversation", "dialogue", "dialog")


def _sharegpt(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Messages, or texts of the user and the assistant in turns."""
    name = next(name for name in DIALOGUE_FIELDS if name in fields)
    turns = fields[name]
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        turns = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    elif not is_message_list(turns):
        turns = list_field(fields, name)
    yield {"messages": turns}


def _turn(answer: str, *question: str) -> Reader:
    """The reader of records with an answer and the parts of its question in these fields."""

    def read(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield _exchange(text_field(fields, answer), *(text_field(fields, name) for name in question))

    return read


QUESTIONS = ("question", "query", "input", "user", "human", "q")
ANSWERS = ("answer", "response", "output", "assistant", "bot", "ai", "a")
"""Names of the columns of a table of questions and answers, in pairs: either is one of these."""
QUESTION_ANSWER = tuple((question, answer) for question in QUESTIONS for answer in ANSWERS)


def _question_answer(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    question, answer = next(pair for pair in QUESTION_ANSWER if all(name in fields for name in pair))
    yield _exchange(text_field(fields, answer), text_field(fields, question))


def _function_calls(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A question and the calls of tools that answer it, as JSON."""
    calls = tool_calls(fields["answers"])
    if not calls:
        raise ValueError("no answer")
    question = {"role": "user", "content": text_field(fields, "query")}
    yield {"messages": [question, {"role": "assistant", "content": "", "tool_calls": calls}]}


def _seed_tasks(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for instance in list_field(fields, "instances"):
        yield _exchange(
            text_field(instance, "output"), text_field(fields, "instruction"), text_field(instance, "input")
        )


def _squad(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
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
                answers = [answer.get("text") for answer in list_field(question, "answers")]
                yield _about_text(text_field(paragraph, "context"), text_field(question, "question"), answers)


def _about_text(context: str, question: str, answers: list[Any]) -> dict[str, Any]:
    """The text before the question, and the first of the answers; without any the text does not say."""
    answer = text_field({"answer": answers[0]}, "answer") if answers else NOT_IN_TEXT
    return _exchange(answer, context, question) if question.strip() else _exchange(answer)


def _gsm8k(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The calculator's notes, <<48/2=24>>, are left out; "#### 24" becomes "The answer is 24."."""
    solution, number = gsm8k_solution(fields)
    steps = re.sub(r"<<[^<>]*>>", "", solution).strip()
    yield _exchange(f"{steps}\nThe answer is {number}.", text_field(fields, "question"))


def gsm8k_solution(fields: dict[str, Any]) -> tuple[str, str]:
    """The steps before "#### 1,200", and the number, "1200".

    Raises:
        ValueError: the answer has no such end.
    """
    steps, mark, number = text_field(fields, "answer").rpartition("####")
    if not mark or not number.strip():
        raise ValueError("the answer does not end in '#### NUMBER'")
    return steps, number.strip().replace(",", "")


def _has_solution(fields: dict[str, Any]) -> bool:
    return "####" in str(fields["answer"])


def _pairs(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Texts or messages; those of KTO have a `label` too."""
    answer = next(name for name in ("completion", "response", "answer") if name in fields)
    answers = message_field(fields, answer, "assistant")
    if isinstance(fields[answer], int | float) and not isinstance(fields[answer], bool):
        answers = message_field({answer: text_field(fields, answer)}, answer, "assistant")
    yield {"messages": [*message_field(fields, "prompt", "user"), *answers]}


FORMATS = {
    row.name: row
    for row in (
        Format("messages", (("messages",),), _messages, keeps_fields=True),
        Format("sharegpt", tuple((name,) for name in DIALOGUE_FIELDS), _sharegpt),
        Format("chatgpt", (("mapping",),), read_chatgpt, ("current_node",), applies=lambda fields: isinstance(fields["mapping"], dict)),
        Format("open-webui", (("chat",),), read_open_webui, applies=lambda fields: isinstance(fields["chat"], dict)),
        Format("claude", (("chat_messages",),), read_claude),
        Format("oasst", (("prompt", "message_tree_id"),), read_threads, applies=is_tree),
        Format("oasst-messages", (("message_id", "parent_id", "text", "role"),), read_threads, TREE_FIELDS,
               gather=gather_trees),
        Format("squad", (("context", "question", "answers"), ("data",)), _squad),
        Format("seed-tasks", (("instruction", "instances"),), _seed_tasks),
        Format("dolly", (("instruction", "response"),), _turn("response", "instruction", "context"), ("context",)),
        Format("alpaca", (("instruction", "output"),), _turn("output", "instruction", "input"), ("input",)),
        Format("gsm8k", (("question", "answer"),), _gsm8k, applies=_has_solution),
        Format("function-calls", (("query", "answers", "tools"),), _function_calls),
        Format("pairs", (("prompt", "completion"), ("prompt", "response"), ("prompt", "answer")), _pairs),
        Format("question-answer", QUESTION_ANSWER, _question_answer),
    )
}  # fmt: skip
"""In the order in which they are tried; a record that fits two is the first."""

CONVERSATIONS = Kind("conversations", ("messages",), FORMATS, tidy_conversation, divided="conversations")
read_conversations = functools.partial(read_formatted, CONVERSATIONS)

Conversations = Prepared[dict[str, Any]]
"""Each record has `messages`, with an answer to train on, and the other fields of its line."""


def open_conversations(path: Path, split: str) -> Conversations:
    """One split of conversations: see :func:`open_prepared`."""
    return open_prepared(path, split, CONVERSATIONS, lambda record: record)
