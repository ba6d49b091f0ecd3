"""What a format is: a row of a table that says by which fields it is known and how it is read, and the one reader.

The tables are in conversation_formats.py, preference_formats.py and prompt_formats.py; files are read by records.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.chat.records import kind_of, read_records


@dataclass(frozen=True, slots=True)
class Dropped:
    """Instead of a record: why what was read is no use."""

    reason: str


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """One conversation, or other record to keep: `record`; or why it is dropped: `reason`. `offset`: how many bytes
    of the file, as it lies on the disk, had been read."""

    record: dict[str, Any] | None
    reason: str
    offset: int


@dataclass(frozen=True)
class Format:
    """`fields`: sets of fields, one of which a record has. `read`: what the record holds, or Dropped, once or several
    times. `keeps_fields`: the record's other fields are kept."""

    name: str
    fields: tuple[tuple[str, ...], ...]
    read: Callable[[dict[str, Any]], Iterator[Any]]
    keeps_fields: bool = False

    def fits(self, record: dict[str, Any]) -> bool:
        return any(all(name in record for name in names) for names in self.fields)

    def needs(self) -> str:
        return " or ".join(" + ".join(names) for names in self.fields)


def read_formatted(
    path: Path,
    formats: Mapping[str, Format],
    tidy: Callable[[Any], dict[str, Any] | Dropped],
    format_name: str | None = None,
) -> Iterator[ParsedRow]:
    """What one file holds, in order.

    Args:
        formats: the table, in the order in which its rows are tried on the first record.
        tidy: what a format read, as it is kept, or why it is dropped.
        format_name: the row to take whatever the first record looks like.

    Raises:
        ValueError: a broken or foreign record, by file and line.
    """
    chosen = formats[format_name] if format_name else None
    for located in read_records(path):
        where, fields = located.where, located.fields
        chosen = chosen or _recognise(where, fields, formats)
        if not chosen.fits(fields):
            raise ValueError(
                f"{where} has the fields {_names(fields)} where the format {chosen.name} has {chosen.needs()}: "
                "a file holds records of one format"
            )
        try:
            for found in chosen.read(fields):
                kept = found if isinstance(found, Dropped) else tidy(found)
                if isinstance(kept, Dropped):
                    yield ParsedRow(None, kept.reason, located.offset)
                else:
                    yield ParsedRow({**fields, **kept} if chosen.keeps_fields else kept, "", located.offset)
        except ValueError as problem:
            raise ValueError(f"{where} is no {chosen.name} record: {problem}") from problem


def _recognise(where: str, fields: dict[str, Any], formats: Mapping[str, Format]) -> Format:
    for row in formats.values():
        if row.fits(fields):
            return row
    known = "; ".join(f"{row.name} ({row.needs()})" for row in formats.values())
    raise ValueError(f"{where} has the fields {_names(fields)}, which no format has; the formats are {known}")


def _names(fields: dict[str, Any]) -> str:
    names = [str(name) for name in fields]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") or "none"


def text_field(fields: dict[str, Any], name: str) -> str:
    """A field that holds text; one that is missing or null is empty."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"the field {name!r} is not text but {kind_of(value)}")
    return value


def list_field(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A field that holds a list of objects."""
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"the field {name!r} is not a list of objects")
    return value


def number_field(fields: dict[str, Any], name: str) -> float | None:
    """A field that holds a number; None where it is missing, null or no number of a finite size."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"the field {name!r} is not a number but {kind_of(value)}")
    return value if abs(value) < float("inf") else None


def message_field(fields: dict[str, Any], name: str, role: str) -> list[Any]:
    """A field with a list of messages, or with the text of one message of `role`; empty where it is missing or null."""
    value = fields.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise ValueError(f"the field {name!r} is neither text nor a list of messages but {kind_of(value)}")
    return value
