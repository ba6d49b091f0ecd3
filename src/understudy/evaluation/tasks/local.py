"""Questions in a file of records, and the loss on a text file.

    {"question": "What is the capital of France?", "answer": "Paris"}
    {"question": "What is the capital of France?", "choices": ["Rome", "Paris"], "answer": "Paris"}
    {"messages": [{"role": "system", "content": "…"}, {"role": "user", "content": "…"}], "answer": "Paris"}

Choices are compared by likelihood. Without choices an answer is generated and compared with the correct one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from understudy.data.records import read_records
from understudy.evaluation.task import Example, Kind, Split, Task, question
from understudy.tokenizer.base import clean
from understudy.tokenizer.chat import Message, check_messages

Row = dict[str, Any]


class LocalTask(Task):
    """A file of questions. ``prompt`` is another name for ``question``; ``id`` and ``category`` may be given.

    ``answer`` may also be the index of the correct choice. The examples of ``few_shot`` are the first of the file,
    which are then no questions.
    """

    def __init__(self, path: Path, few_shot: int = 0) -> None:
        super().__init__(few_shot)
        self.name, self.path = path.stem, path
        self.kind: Kind = "choice" if self._all[0].choices else "answer"

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        part = self._all[: self.few_shot] if split == "train" else self._all[self.few_shot :]
        if not part:
            raise ValueError(f"{self.path} has {len(self._all)} questions, and few_shot {self.few_shot} leaves none")
        return part[:limit]

    @cached_property
    def _all(self) -> list[Example]:
        rows = read_rows(self.path)
        if not rows:
            raise ValueError(f"{self.path} has no questions; write one JSON object a line")
        examples = [_example(str(number), where, row) for number, (where, row) in enumerate(rows)]
        seen: dict[str, str] = {}
        for example, (where, _) in zip(examples, rows):
            if bool(example.choices) != bool(examples[0].choices):
                raise ValueError(f"{where} differs from the first line in having choices or not; use a file for each")
            if example.id in seen:
                raise ValueError(f"{where} has the id {example.id!r} of {seen[example.id]}; give each its own")
            seen[example.id] = where
        return examples


class TextTask(Task):
    """The loss on a text file whose documents are separated by blank lines."""

    kind = "loss"
    metric = "loss"

    def __init__(self, path: Path, few_shot: int = 0) -> None:
        super().__init__(few_shot)
        if few_shot:
            raise ValueError(f"{path} is text, which has no examples; leave few_shot out")
        self.name, self.path = path.stem, path

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is not UTF-8 (byte {error.start}); convert it first") from error
        blocks = text.replace("\r\n", "\n").split("\n\n")
        documents = [block.strip("\n") for block in blocks if block.strip()]
        if not documents:
            raise ValueError(f"{self.path} is empty; there is no text to predict")
        return [Example(str(i), "", text=text) for i, text in enumerate(documents[:limit])]


def _example(id: str, where: str, row: Row) -> Example:
    choices = texts_of(row["choices"], "choices", where) if row.get("choices") else ()
    return Example(
        clean(str(row.get("id", id))), _answer(row.get("answer"), choices, where), _messages(row, where),
        category=clean(str(row.get("category", ""))), choices=choices,
    )  # fmt: skip


def _messages(row: Row, where: str) -> tuple[Message, ...]:
    if "messages" not in row:
        return question(text_of(row, "question" if "question" in row else "prompt", where))
    try:
        messages = check_messages(row["messages"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if messages[-1]["role"] != "user":
        raise ValueError(f"{where}: the last message is from the {messages[-1]['role']}; an answer follows the user's")
    return tuple(messages)


def _answer(answer: Any, choices: tuple[str, ...], where: str) -> str:
    if choices and isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return choices[answer]
    if not isinstance(answer, str | int | float) or not str(answer).strip():
        raise ValueError(f"{where} has no answer; give a text, or with choices the number of one from 0")
    answer = clean(str(answer))
    if choices and answer not in choices:
        raise ValueError(f"{where} has the answer {answer!r}, which is none of its choices: {', '.join(choices)}")
    return answer


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[tuple[str, Row]]:
    """The rows of a file of records, each with its place. ``columns``: those of a CSV file without a header row.

    Raises:
        ValueError: a damaged file, with its name and the line.
    """
    return [(record.where, record.fields) for record in read_records(path, header=columns)]


def text_of(row: Row, field: str, where: str) -> str:
    """A field that must hold text."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} has no text in {field!r}; its fields are {', '.join(map(str, row)) or 'none'}")
    return clean(value)


def texts_of(values: Any, field: str, where: str) -> tuple[str, ...]:
    """A field that must hold a list of two texts or more, such as choices."""
    if not isinstance(values, list | tuple) or len(values) < 2 or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{where} has no list of two texts or more in {field!r}")
    return tuple(clean(value) for value in values)
