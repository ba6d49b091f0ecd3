"""Formats of chat data: a row of a table with the fields that identify it and its reader, and the loop over a file.

The tables are in conversations.py, preferences.py and prompts.py. A new format is one reader and one row. Files are
read by records.py, and messages brought into one form by messages.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.chat.messages import CONTEXT_FIELDS, normalize_record, unused_fields, with_context
from understudy.data.records import kind_of, read_records, shown_names

UNKNOWN_ROWS = 100
"""Records of no known format at the beginning of a file, after which it is refused."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The reason why a record is left out, in its place."""

    reason: str


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A record to keep, or the reason why one was dropped.

    Attributes:
        offset: bytes of the file on disk that had been read.
        unused: fields of the record that no format reads.
    """

    record: dict[str, Any] | None
    reason: str
    offset: int
    unused: tuple[str, ...] = ()


Reader = Callable[[dict[str, Any]], Iterator[Any]]


@dataclass(frozen=True)
class Format:
    """One form in which records are published.

    Attributes:
        fields: sets of fields, one of which a record has.
        read: yields the contents of a record, or Dropped, once or several times; a ValueError is a reason to drop it.
        optional: further fields that `read` uses. System messages, history, label and weight are read in every format.
        keeps_fields: whether the record's other fields are kept.
        applies: a further condition on the first record of a file.
    """

    name: str
    fields: tuple[tuple[str, ...], ...]
    read: Reader
    optional: tuple[str, ...] = ()
    keeps_fields: bool = False
    applies: Callable[[dict[str, Any]], bool] = lambda fields: True

    def has_fields(self, record: dict[str, Any]) -> bool:
        return any(all(name in record for name in names) for names in self.fields)

    def fits(self, record: dict[str, Any]) -> bool:
        return self.has_fields(record) and self.applies(record)

    def needs(self) -> str:
        return " or ".join(" + ".join(names) for names in self.fields)


@dataclass(frozen=True)
class Kind:
    """A kind of records: conversations, preferences or prompts.

    Attributes:
        fields: those of the schema that each record has. The messages in the first decide its split, and follow the
            record's system message and history.
        formats: the table, in the order in which its rows are tried on the first record of a file.
        tidy: brings the contents that a format read into the schema, or gives the reason why nothing can be trained on
            them; ValueError where they are of another kind.
        divided: the noun for what is in one split only.
    """

    name: str
    fields: tuple[str, ...]
    formats: Mapping[str, Format]
    tidy: Callable[[dict[str, Any]], dict[str, Any] | Dropped]
    divided: str = "prompts"


def read_formatted(kind: Kind, path: Path, format_name: str | None = None) -> Iterator[ParsedRow]:
    """The records of one file, in order; one that cannot be used is a row with the reason.

    Args:
        format_name: the row to take in place of the one that the first record fits.

    Raises:
        ValueError: a damaged file, or one whose first records no format fits.
    """
    formats = kind.formats
    chosen = formats[format_name] if format_name else None
    unknown: list[tuple[str, dict[str, Any], int]] = []
    for located in read_records(path):
        fields = located.fields
        if chosen is None:
            chosen = next((row for row in formats.values() if row.fits(fields)), None)
            if chosen is None:
                unknown.append((located.where, fields, located.offset))
                if len(unknown) == UNKNOWN_ROWS:
                    break
                continue
            for _, _, offset in unknown:
                yield ParsedRow(None, f"not a record of the format {chosen.name}", offset)
        if not chosen.has_fields(fields):
            yield ParsedRow(None, f"not a record of the format {chosen.name}", located.offset)
            continue
        unused = unused_fields(fields, {*chosen.optional, *itertools.chain(*chosen.fields)})
        try:
            for row in _parse(fields, chosen, kind):
                if isinstance(row, Dropped):
                    yield ParsedRow(None, row.reason, located.offset)
                else:
                    yield ParsedRow(row, "", located.offset, unused)
                    unused = ()  # counted once a record
        except ValueError as error:
            yield ParsedRow(None, str(error), located.offset)
    if chosen is None and unknown:
        where, fields, _ = unknown[0]
        known = "; ".join(f"{row.name} ({row.needs()})" for row in formats.values())
        raise ValueError(f"{where} has the fields {shown_names(fields)}, which no format has; the formats are {known}")


def _parse(fields: dict[str, Any], chosen: Format, kind: Kind) -> Iterator[dict[str, Any] | Dropped]:
    fields, key = normalize_record(fields), kind.fields[0]
    others = {name: value for name, value in fields.items() if name not in CONTEXT_FIELDS}
    for parsed in chosen.read(fields):
        if isinstance(parsed, Dropped):
            yield parsed
            continue
        row = kind.tidy({**parsed, key: with_context(parsed[key], fields)})
        yield row if isinstance(row, Dropped) or not chosen.keeps_fields else {**others, **row}


def list_field(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A field that holds a list of objects."""
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"the field {name!r} is not a list of objects")
    return value


def number_field(fields: dict[str, Any], name: str) -> float | None:
    """A field that holds a number; None where it is missing, null or not finite."""
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
