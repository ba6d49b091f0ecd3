"""Formats of chat data: a row of a table with the fields that identify it and its reader, and the loop over a file.

The tables are in conversations.py, preferences.py, judgements.py and prompts.py. A new format is one reader and one row. Files are
read by records.py, archives opened by archives.py, and messages brought into one form by messages.py.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from understudy.data.archives import ARCHIVE_ENDINGS, archive_members
from understudy.data.chat.messages import (
    CONTEXT_FIELDS,
    RECORD_FIELDS,
    LeftOut,
    normalize_record,
    unused_fields,
    with_context,
)
from understudy.data.inputs import InputFile
from understudy.data.records import (
    READERS,
    FileRecord,
    RecordError,
    kind_of,
    numbered_header,
    read_records,
    shown_names,
)
from understudy.data.text.readers.fields import value_of

UNKNOWN_ROWS = 100
"""Records of no known format at the beginning of a file, after which it is refused."""
TABLES = (".csv", ".tsv")


class UnknownFormat(ValueError):
    """A file whose first records no format fits."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The reason why a record is left out, in its place. `intended`: its data says that it is not to be trained on."""

    reason: str
    intended: bool = False


@dataclass(frozen=True, slots=True)
class NotUsed:
    """A part of a record that is not used, such as the thoughts before an answer. A reader gives it before the record."""

    name: str


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A record to keep, or the reason why one was dropped, or why a file was.

    Attributes:
        offset: bytes of the file on disk that had been read.
        unused: fields of the record that no format reads.
        where: the file and line of a record that was dropped.
        intended: its data says that it is not to be trained on.
        file: "" for a record; "skipped" for a file of another kind in an archive, with its ending or a few words as the
            reason; "failed" for one that cannot be read or not to its end, with a sentence.
    """

    record: dict[str, Any] | None
    reason: str
    offset: int
    unused: tuple[str, ...] = ()
    where: str = ""
    intended: bool = False
    file: Literal["", "skipped", "failed"] = ""


Reader = Callable[[dict[str, Any]], Iterator[Any]]


@dataclass(frozen=True)
class Format:
    """One form in which records are published.

    Attributes:
        fields: sets of fields, one of which a record has.
        read: yields the contents of a record, Dropped or NotUsed, once or several times; a ValueError is a reason to
            drop it.
        optional: further fields that `read` uses. System messages, tools, history, label and weight are read in every
            format.
        keeps_fields: whether the record's other fields are kept.
        applies: a further condition on the first record of a file.
        gather: puts together all records of a file, where what is read is spread over several; they are held in memory.
    """

    name: str
    fields: tuple[tuple[str, ...], ...]
    read: Reader
    optional: tuple[str, ...] = ()
    keeps_fields: bool = False
    applies: Callable[[dict[str, Any]], bool] = lambda fields: True
    gather: Callable[[list[FileRecord]], Iterator[FileRecord | ParsedRow]] | None = None

    def has_fields(self, record: dict[str, Any]) -> bool:
        return any(all(name in record for name in names) for names in self.fields)

    def fits(self, record: dict[str, Any]) -> bool:
        return self.has_fields(record) and self.applies(record)

    def needs(self) -> str:
        return " or ".join(" + ".join(names) for names in self.fields)

    def used(self) -> set[str]:
        return {*self.optional, *itertools.chain(*self.fields)}


@dataclass(frozen=True)
class Kind:
    """A kind of records: conversations, preferences, judgements or prompts.

    Attributes:
        fields: those of the schema that each record has. The messages in the first decide its split, and follow the
            record's system message and history.
        formats: the table, in the order in which its rows are tried on the first record of a file.
        tidy: brings the contents that a format read into the schema, or gives the reason why nothing can be trained on
            them; ValueError where they are of another kind.
        divided: the noun for what is in one split only.
        labelled: whether records with the label false are trained on too.
    """

    name: str
    fields: tuple[str, ...]
    formats: Mapping[str, Format]
    tidy: Callable[[dict[str, Any]], dict[str, Any] | Dropped]
    divided: str = "prompts"
    labelled: bool = False


def read_formatted(
    kind: Kind,
    source: Path | InputFile,
    format_name: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[ParsedRow]:
    """The records of one file, in order, or of those in an archive; one that cannot be used is a row with the reason.

    Args:
        format_name: the row to take in place of the one that the first record fits.
        columns: the field of the file for a field of a format, as {"question": "Frage"}, with dots into nested objects;
            numbers from 1 for the columns of a CSV file without a header.

    Raises:
        ValueError: a damaged file.
        UnknownFormat: one whose first records no format fits.
    """
    file = InputFile.at(source) if isinstance(source, Path) else source
    if file.ending in ARCHIVE_ENDINGS:
        yield from _read_archive(kind, file, format_name, columns)
        return
    chosen = kind.formats[format_name] if format_name else None
    records = _records(file, columns or {})
    first: list[FileRecord] = []
    while chosen is None and len(first) < UNKNOWN_ROWS and (record := next(records, None)) is not None:
        first.append(record)
        if record.error is None:
            chosen = next((row for row in kind.formats.values() if row.fits(record.fields)), None)
    if chosen is None:
        if first:
            raise _unknown_format(kind, file, first)
        return
    gathered: list[FileRecord] = []
    unused: list[str] = []
    for record in itertools.chain(first, records):
        if record.error is not None:
            yield ParsedRow(None, record.error.reason, record.offset, where=record.where)
        elif not chosen.has_fields(record.fields):
            yield ParsedRow(None, f"not a record of the format {chosen.name}", record.offset, where=record.where)
        elif chosen.gather is None:
            yield from _rows(record, chosen, kind, unused_fields(record.fields, chosen.used()))
        else:
            unused += unused_fields(record.fields, chosen.used())
            used = {*chosen.used(), *RECORD_FIELDS}
            fields = {name: value for name, value in record.fields.items() if name in used}
            gathered.append(dataclasses.replace(record, fields=fields))
    if chosen.gather is not None:
        for item in chosen.gather(gathered):
            for row in [item] if isinstance(item, ParsedRow) else _rows(item, chosen, kind, ()):
                yield dataclasses.replace(row, unused=(*row.unused, *unused)) if unused else row
                unused = []


def _records(file: InputFile, columns: Mapping[str, str]) -> Iterator[FileRecord]:
    """The records of a file, with its own names of fields replaced, and the columns of a table in small letters."""
    table = file.ending in TABLES
    numbered = table and bool(columns) and all(column.isdigit() for column in columns.values())
    header = numbered_header(file) if numbered else ()
    for record in read_records(file, header=header, keep_going=True):
        if record.error is not None or not (columns or table):
            yield record
            continue
        try:
            yield dataclasses.replace(record, fields=_named_fields(record, columns, table))
        except RecordError as error:
            yield dataclasses.replace(record, error=error)


def _named_fields(record: FileRecord, columns: Mapping[str, str], table: bool) -> dict[str, Any]:
    """The fields of a record under the names that formats know.

    Raises:
        RecordError: a column is not there.
    """
    fields = record.fields
    if table:
        plain = [name.strip().lower() or "(unnamed)" for name in fields]
        fields = dict(zip(plain, fields.values())) if len(set(plain)) == len(plain) else fields
        columns = {name: column.strip().lower() for name, column in columns.items()} if columns else columns
    named = {
        name: value_of(fields, column, record.where, f"name another in --columns {name}=COLUMN")
        for name, column in columns.items()
    }
    taken = {column if column in fields else column.split(".")[0] for column in columns.values()}
    return {**{name: value for name, value in fields.items() if name not in taken}, **named}


def _unknown_format(kind: Kind, file: InputFile, first: Sequence[FileRecord]) -> ValueError:
    record = next((record for record in first if record.error is None), None)
    if record is None:
        return ValueError(str(first[0].error))
    known = "; ".join(f"{row.name} ({row.needs()})" for row in kind.formats.values())
    if file.ending in TABLES:
        columns = ("question", "answer")
        fields = columns if "question-answer" in kind.formats else next(iter(kind.formats.values())).fields[0]
        wanted = ",".join(f"{name}=COLUMN" for name in fields)
        hint = f"; name its columns with --columns {wanted}, by numbers from 1 if it has no header"
    else:
        hint = "; name its fields with --columns FIELD=NAME"
    return UnknownFormat(
        f"{record.where} has the fields {shown_names(record.fields)}, which no format has{hint}; the formats are {known}"
    )


def _rows(record: FileRecord, chosen: Format, kind: Kind, unused: tuple[str, ...]) -> Iterator[ParsedRow]:
    """What a format reads of one record. `unused`: its fields that nothing reads."""
    try:
        for row in _parse(record.fields, chosen, kind):
            if isinstance(row, NotUsed):
                unused = (*unused, row.name)
            elif isinstance(row, Dropped):
                yield ParsedRow(None, row.reason, record.offset, where=record.where, intended=row.intended)
            else:
                yield ParsedRow(row, "", record.offset, unused)
                unused = ()  # counted once a record
    except LeftOut as reason:
        yield ParsedRow(None, str(reason), record.offset, where=record.where, intended=True)
    except ValueError as error:
        yield ParsedRow(None, str(error), record.offset, where=record.where)


def _parse(fields: dict[str, Any], chosen: Format, kind: Kind) -> Iterator[dict[str, Any] | Dropped | NotUsed]:
    fields, key = normalize_record(fields, kind.labelled), kind.fields[0]
    others = {name: value for name, value in fields.items() if name not in CONTEXT_FIELDS}
    for parsed in chosen.read(fields):
        if isinstance(parsed, Dropped | NotUsed):
            yield parsed
            continue
        row = kind.tidy({**parsed, key: with_context(parsed[key], fields)})
        yield row if isinstance(row, Dropped) or not chosen.keeps_fields else {**others, **row}


def _read_archive(
    kind: Kind, file: InputFile, format_name: str | None, columns: Mapping[str, str] | None
) -> Iterator[ParsedRow]:
    """The records of the files in an archive. One that holds others is skipped, and one that is damaged a row.

    Raises:
        ValueError: none holds records of this kind.
    """
    problem: ValueError | None = None
    readable = False
    for member in archive_members(file):
        if member.file is None:
            if member.problem:
                yield ParsedRow(None, member.reason, member.offset(), where=member.where, file=member.problem)
            continue
        if member.file.ending not in (*READERS, *ARCHIVE_ENDINGS):
            yield ParsedRow(None, member.file.ending, member.offset(), where=member.where, file="skipped")
            continue
        try:
            for row in read_formatted(kind, member.file, format_name, columns):
                readable = True
                yield row
        except UnknownFormat as error:
            problem = problem or error
            yield ParsedRow(None, f"without {kind.name}", member.offset(), where=member.where, file="skipped")
        except ValueError as error:
            problem = error
            yield ParsedRow(None, str(error), member.offset(), where=member.where, file="failed")
    if not readable:
        raise problem or UnknownFormat(f"{file.where} holds no file of records: they end in {', '.join(READERS)}")


def parse_columns(text: str, kind: Kind) -> dict[str, str]:
    """`question=Frage,answer=Antwort` as a dict.

    Raises:
        ValueError: it is of another form, or names a field that no format of this kind reads.
    """
    columns: dict[str, str] = {}
    known = sorted(
        {*itertools.chain(*(row.used() for row in kind.formats.values())), *CONTEXT_FIELDS, "label", "weight"}
    )
    for pair in text.split(","):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not name or not column or name in columns:
            raise ValueError(f"--columns {text} is not of the form question=COLUMN,answer=COLUMN")
        if name not in known:
            raise ValueError(
                f"--columns names {name}, which no format of {kind.name} has: choose from {', '.join(known)}"
            )
        columns[name] = column
    return columns


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
