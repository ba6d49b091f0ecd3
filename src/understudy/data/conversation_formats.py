"""Files of records in the forms that conversations are published in, read as messages.

json, jsonl (each also gzipped) and parquet become records; a format, recognised by the fields of a file's first
record, turns a record into conversations. What cannot be read is an error that names the file and the line; what
can be read and teaches nothing is handed on with the reason, to be counted. Nothing is fetched, split or written here.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.documents import BLOCK_BYTES, MAX_LINE_BYTES, PARQUET_ROWS
from understudy.tokenizer.chat import ROLES, Message, check_messages

ENDINGS = (".json", ".jsonl", ".parquet", ".json.gz", ".jsonl.gz")
NOT_SAID = "The text does not say."
SHAREGPT_ROLES = {
    "human": "user", "user": "user", "system": "system",
    "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bard": "assistant", "bing": "assistant",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation, or other record to keep: `record`; or why it is dropped: `reason`. `offset`: how many bytes
    of the file, as it lies on the disk, had been read."""

    record: dict[str, Any] | None
    reason: str
    offset: int


@dataclass(frozen=True, slots=True)
class Located:
    """A record, and what to call its place in a sentence."""

    where: str
    fields: dict[str, Any]
    offset: int


def is_readable(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def read_conversations(path: Path, format_name: str | None = None) -> Iterator[Row]:
    """The conversations of one file, `{"messages": [...]}` each, in order.

    Args:
        format_name: a row of FORMATS; by default the one that the first record's fields fit.

    Raises:
        ValueError: a broken or foreign record, by file and line.
    """
    chosen = FORMATS[format_name] if format_name else None
    for located in read_records(path):
        where, fields = located.where, located.fields
        chosen = chosen or _recognise(where, fields)
        if not chosen.fits(fields):
            raise ValueError(
                f"{where} has the fields {_names(fields)} where the format {chosen.name} has {chosen.needs()}: "
                "a file holds records of one format"
            )
        try:
            for messages in chosen.read(fields):
                kept, reason = tidy_messages(messages)
                others = fields if chosen.keeps_fields else {}
                yield Row(None if reason else {**others, "messages": kept}, reason, located.offset)
        except ValueError as problem:
            raise ValueError(f"{where} is no {chosen.name} record: {problem}") from problem


def tidy_messages(messages: Any) -> tuple[list[Message], str]:
    """Messages as they are trained on, and why they cannot be ("" where they can). A blank system message goes.

    Raises:
        ValueError: what is no conversation at all: a form, a role or a content that there is not.
    """
    well_formed = isinstance(messages, list) and all(
        isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str) for m in messages
    )
    if not well_formed:
        check_messages(messages)
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


def read_records(path: Path) -> Iterator[Located]:
    """The records of a file, whatever they hold.

    Raises:
        ValueError: a damaged file, or a line or element that is no JSON object.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from _parquet_records(path)
    elif name.endswith((".json", ".json.gz")) and not _has_a_record_a_line(path):
        yield from _json_records(path)
    else:
        yield from _jsonl_records(path)


def _jsonl_records(path: Path) -> Iterator[Located]:
    for number, (line, offset) in enumerate(_lines(path), 1):
        where = f"{path} line {number:,}"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB: jsonl has one object a line")
        if line.strip():
            yield Located(where, parse_object(line, where), offset)


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        ValueError: it holds none.
    """
    value = _parse(line.removeprefix(codecs.BOM_UTF8), where)
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a JSON object but {kind_of(value)}: jsonl has one object a line")
    return value


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as problem:
        raise ValueError(f"{where} is not UTF-8 (byte {problem.start}); convert it first") from problem
    except RecursionError as problem:
        raise ValueError(f"{where} is nested too deeply to be a conversation") from problem
    except ValueError as problem:
        raise ValueError(f"{where} is not JSON: {problem}") from problem


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Lines with the offset in the file as it lies on the disk."""
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw as stream:
        try:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                yield line, raw.tell()
        except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
            raise ValueError(f"{path} is a damaged or cut-off gzip file ({problem}); fetch it again") from problem


def _has_a_record_a_line(path: Path) -> bool:
    """Much that is called .json is jsonl: its first line is an object by itself."""
    first = next((line for line, _ in _lines(path) if line.strip()), b"")
    if not first.lstrip(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return False
    try:
        parse_object(first, str(path))
    except ValueError:
        return False
    return True


def _json_records(path: Path) -> Iterator[Located]:
    """A list of records, or one object; it is held in memory whole, as JSON must be."""
    size = path.stat().st_size
    value = _parse(b"".join(line for line, _ in _lines(path)).removeprefix(codecs.BOM_UTF8), str(path))
    if isinstance(value, dict):
        yield Located(str(path), value, size)
        return
    if not isinstance(value, list):
        raise ValueError(f"{path} holds {kind_of(value)}: a list of objects is expected")
    for number, fields in enumerate(value, 1):
        if not isinstance(fields, dict):
            raise ValueError(f"{path} element {number:,} is not an object but {kind_of(fields)}")
        yield Located(f"{path} element {number:,}", fields, size * number // len(value))


def _parquet_records(path: Path) -> Iterator[Located]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
            size, rows, number = path.stat().st_size, max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(PARQUET_ROWS, use_threads=False):
                for fields in batch.to_pylist():
                    number += 1
                    yield Located(f"{path} row {number:,}", fields, size * number // rows)
    except (pa.ArrowException, UnicodeDecodeError) as problem:
        reason = str(problem).splitlines()[0]
        raise ValueError(f"{path} is not a readable parquet file ({reason}); fetch or write it again") from problem


def kind_of(value: Any) -> str:
    """What a JSON value is, for a sentence."""
    kinds = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "nothing"}
    return kinds.get(type(value), "a number")


def _names(fields: dict[str, Any]) -> str:
    names = [str(name) for name in fields]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") or "none"


def _text(fields: dict[str, Any], name: str) -> str:
    """A field that holds text; one that is missing or null is empty."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"the field {name!r} is not text but {kind_of(value)}")
    return value


def _list(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"the field {name!r} is not a list of objects")
    return value


def _exchange(answer: str, *asked: str) -> list[Message]:
    """One turn, its parts a blank line apart, and the answer."""
    question = "\n\n".join(part.strip() for part in asked if part.strip())
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _messages(fields: dict[str, Any]) -> Iterator[Any]:
    yield fields["messages"]


def _sharegpt(fields: dict[str, Any]) -> Iterator[list[Message]]:
    messages = []
    for number, turn in enumerate(_list(fields, "conversations"), 1):
        role = SHAREGPT_ROLES.get(str(turn.get("from")))
        if role is None:
            raise ValueError(f"turn {number} is from {turn.get('from')!r}, none of {', '.join(SHAREGPT_ROLES)}")
        messages.append({"role": role, "content": _text(turn, "value")})
    yield messages


def _alpaca(fields: dict[str, Any]) -> Iterator[list[Message]]:
    yield _exchange(_text(fields, "output"), _text(fields, "instruction"), _text(fields, "input"))


def _dolly(fields: dict[str, Any]) -> Iterator[list[Message]]:
    yield _exchange(_text(fields, "response"), _text(fields, "instruction"), _text(fields, "context"))


def _seed_tasks(fields: dict[str, Any]) -> Iterator[list[Message]]:
    for instance in _list(fields, "instances"):
        yield _exchange(_text(instance, "output"), _text(fields, "instruction"), _text(instance, "input"))


def _squad(fields: dict[str, Any]) -> Iterator[list[Message]]:
    """A row of the hub, or the whole of a published file, `data` > `paragraphs` > `qas`."""
    if "data" not in fields:
        answers = fields["answers"] or {}
        texts = answers.get("text") if isinstance(answers, dict) else None
        if not isinstance(texts, list):
            raise ValueError("the field 'answers' is not of the form {\"text\": [...]}")
        yield _about_text(_text(fields, "context"), _text(fields, "question"), texts)
        return
    for article in _list(fields, "data"):
        for paragraph in _list(article, "paragraphs"):
            for question in _list(paragraph, "qas"):
                found = [answer.get("text") for answer in _list(question, "answers")]
                yield _about_text(_text(paragraph, "context"), _text(question, "question"), found)


def _about_text(context: str, question: str, answers: list[Any]) -> list[Message]:
    """The text comes before the question; of several answers the first counts, and none means that there is none."""
    answer = _text({"answer": answers[0]}, "answer") if answers else NOT_SAID
    return _exchange(answer, context, question) if question.strip() else _exchange(answer)


def _gsm8k(fields: dict[str, Any]) -> Iterator[list[Message]]:
    """The calculator's notes, <<48/2=24>>, are left out; "#### 24" becomes "The answer is 24."."""
    worked, mark, number = _text(fields, "answer").rpartition("####")
    if not mark or not number.strip():
        raise ValueError(
            "its answer does not end in '#### NUMBER'; for plain pairs call the fields prompt and response"
        )
    steps = re.sub(r"<<[^<>]*>>", "", worked).strip()
    yield _exchange(f"{steps}\nThe answer is {number.strip().replace(',', '')}.", _text(fields, "question"))


def _pairs(fields: dict[str, Any]) -> Iterator[list[Message]]:
    answer = "completion" if "completion" in fields else "response"
    yield _exchange(_text(fields, answer), _text(fields, "prompt"))


@dataclass(frozen=True)
class Format:
    """`fields`: sets of fields, one of which a record has. `keeps_fields`: the record's other fields are kept."""

    name: str
    fields: tuple[tuple[str, ...], ...]
    read: Callable[[dict[str, Any]], Iterator[Any]]
    keeps_fields: bool = False

    def fits(self, record: dict[str, Any]) -> bool:
        return any(all(name in record for name in names) for names in self.fields)

    def needs(self) -> str:
        return " or ".join(" + ".join(names) for names in self.fields)


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


def _recognise(where: str, fields: dict[str, Any]) -> Format:
    for row in FORMATS.values():
        if row.fits(fields):
            return row
    known = "; ".join(f"{row.name} ({row.needs()})" for row in FORMATS.values())
    raise ValueError(f"{where} has the fields {_names(fields)}, which no format has; the formats are {known}")


def read_preferences(path: Path) -> Iterator[Row]:
    """Pairs of answers, `{"prompt", "chosen", "rejected"}`, as they are: each text, or each a list of messages.

    Raises:
        ValueError: a record of another form, by file and line.
    """
    for located in read_records(path):
        fields = located.fields
        values = [fields.get(name) for name in ("prompt", "chosen", "rejected")]
        if not all(isinstance(value, str) for value in values) and not all(isinstance(value, list) for value in values):
            raise ValueError(
                f"{located.where} is no preference: prompt, chosen and rejected must each be text, or each a list of "
                f"messages; its fields are {_names(fields)}, and other formats are not read"
            )
        prompt, *answers = values
        try:
            blank = [_is_blank(prompt, answer) for answer in answers]
        except ValueError as problem:
            raise ValueError(f"{located.where} is no preference: {problem}") from problem
        reason = "empty text" if any(blank) else "chosen equals rejected" if answers[0] == answers[1] else ""
        yield Row(None if reason else fields, reason, located.offset)


def _is_blank(prompt: Any, answer: Any) -> bool:
    """Whether the prompt or the answer to it is empty.

    Raises:
        ValueError: messages that are no conversation which ends with the assistant.
    """
    if isinstance(prompt, str):
        return not prompt.strip() or not answer.strip()
    messages = check_messages(prompt + answer)
    if not prompt or not answer or messages[-1]["role"] != "assistant":
        raise ValueError("the prompt ends with a message from the user, and each answer with one from the assistant")
    return any(not m["content"] for m in messages if m["role"] != "system")
