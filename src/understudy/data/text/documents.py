"""Documents of a file, as a stream of pieces with flat memory.

A .txt or .md file is one document, or several where a separator divides it; of every other format a record is one
(records.py), its text in a chosen field. A long document comes in pieces of about a million characters. A new format
of plain text is one ending in TEXT_ENDINGS; of records, one row of records.READERS.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.find import FileKinds
from understudy.data.records import BLOCK_BYTES, READERS, ByteStream, file_ending, kind_of, read_records, shown_names

TEXT_ENDINGS = (".txt", ".md")
TEXT_FILES = FileKinds((*TEXT_ENDINGS, ".jsonl", ".parquet"), (".json", ".csv", ".tsv", ".arrow"))
PIECE_CHARS = 1 << 20
CUT_WINDOW_CHARS = 1 << 16


@dataclass(frozen=True, slots=True)
class DocumentPiece:
    """A document, or one piece of a long one.

    Attributes:
        ends: whether it is the last piece of its document.
        offset: bytes of the file on disk that had been read, for progress.
    """

    text: str
    ends: bool
    offset: int


def uses_field(path: Path) -> bool:
    """Whether this file's text is taken from a named field."""
    return file_ending(path)[0] in READERS


def read_file(path: Path, field: str = "text", separator: str | None = None) -> Iterator[DocumentPiece]:
    """The documents of one file, in order.

    Args:
        field: of records, with dots into nested objects (`translation.en`).
        separator: a string between the documents of a .txt or .md file, itself left out.

    Raises:
        ValueError: not text (a NUL byte, not UTF-8), a broken line, a missing field, a damaged archive; the
            sentence names the file and the byte or line.
    """
    if not uses_field(path):
        yield from _read_text(path, separator)
        return
    for record in read_records(path, field.split(".")[0]):
        yield from split_document(_text_of(record.fields, field, record.where), record.offset)


def split_document(text: str, offset: int) -> Iterator[DocumentPiece]:
    """A document that is already in memory, in pieces."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = start + cut_position(text[start : start + PIECE_CHARS + 1], PIECE_CHARS)
        yield DocumentPiece(text[start:end], False, offset)
        start = end
    yield DocumentPiece(text[start:] if start else text, True, offset)


def cut_position(text: str, limit: int) -> int:
    """The place to cut `text` so that the first part has at most `limit` characters; needs len(text) > limit.

    The cut is one that the splitting patterns of GPT-2 and GPT-4 make in any case, so that the tokens of the
    pieces, put together, are the tokens of the whole: after a single newline between two words, or else
    before a single space between two words. Where the last CUT_WINDOW_CHARS characters have neither (a script
    without spaces), it is after a newline, and failing that at the limit; a token or two may then differ from the
    whole's.
    """
    assert len(text) > limit, f"a text of {len(text)} characters needs no cut at {limit}"
    lowest = max(1, limit - CUT_WINDOW_CHARS)
    for mark, kept in (("\n", 1), (" ", 0)):
        position = text.rfind(mark, lowest, limit)
        while position >= lowest:
            if not text[position - 1].isspace() and text[position + 1].isalnum():
                return position + kept
            position = text.rfind(mark, lowest, position)
    position = text.rfind("\n", lowest, limit)
    return position + 1 if position >= lowest else limit


def _read_text(path: Path, separator: str | None) -> Iterator[DocumentPiece]:
    with path.open("rb") as raw:
        stream = ByteStream(path, raw)
        decoder = codecs.getincrementaldecoder("utf-8")()
        documents = _Documents(separator)
        done = 0
        while block := stream.read(BLOCK_BYTES):
            if (position := block.find(b"\0")) >= 0:
                raise ValueError(f"{path} is not a text file: it has a NUL byte at byte {done + position:,}")
            text = _decode(path, decoder, block, done, final=False)
            yield from documents.add(text if done else text.removeprefix("\ufeff"), stream.offset)
            done += len(block)
        text = _decode(path, decoder, b"", done, final=True)
        yield from documents.end(text, stream.offset)


class _Documents:
    """Text that arrives in blocks, cut into documents at the separator and into pieces at the most."""

    def __init__(self, separator: str | None) -> None:
        self.separator = separator
        self.text = ""
        self.begun = False  # whether a piece of the present document was given

    def add(self, text: str, offset: int) -> Iterator[DocumentPiece]:
        self.text += text
        overlap = 0
        if self.separator is not None:
            *whole, self.text = self.text.split(self.separator)
            for document in whole:
                yield from self._document(document, offset)
            overlap = len(self.separator)  # the end of the text may be the beginning of a separator
        while len(self.text) > PIECE_CHARS + overlap:
            cut = cut_position(self.text, PIECE_CHARS)
            yield DocumentPiece(self._begin(self.text[:cut]), False, offset)
            self.text, self.begun = self.text[cut:], True

    def end(self, text: str, offset: int) -> Iterator[DocumentPiece]:
        yield from self.add(text, offset)
        if self.separator is None or self.begun or self.text.strip():
            yield from self._document(self.text, offset)

    def _document(self, text: str, offset: int) -> Iterator[DocumentPiece]:
        """The end of a document, or the whole of it."""
        if self.separator is not None:
            text = self._begin(text).rstrip("\r\n")
        yield from split_document(text, offset)
        self.begun = False

    def _begin(self, text: str) -> str:
        """A document's first piece without the line break after the separator."""
        return text if self.separator is None or self.begun else text.lstrip("\r\n")


def _decode(path: Path, decoder: codecs.IncrementalDecoder, block: bytes, done: int, final: bool) -> str:
    pending = len(decoder.getstate()[0])
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as error:
        position = done - pending + error.start
        raise ValueError(
            f"{path} is not UTF-8: byte {position:,} is {error.object[error.start]:#04x}; convert it first"
        ) from error


def _text_of(fields: dict[str, Any], name: str, where: str) -> str:
    """The text of a record; a null is an empty document. Lone surrogates, which JSON can spell, are no text."""
    value = _value_of(fields, name, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        inner = f": it has {', '.join(f'{name}.{key}' for key in value)}" if isinstance(value, dict) else ""
        raise ValueError(
            f"field {name!r} of {where} is not text but {kind_of(value)}{inner}; choose another with --field"
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"field {name!r} of {where} has half a surrogate pair and is not UTF-8") from error
    return value


def _value_of(fields: dict[str, Any], name: str, where: str) -> Any:
    """The value of a field, or of one inside nested objects where the name has dots."""
    if name in fields:
        return fields[name]
    value: Any = fields
    for part in name.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or part not in value:
            raise ValueError(
                f"{where} has no field {name!r}; its fields are {shown_names(fields)}: choose one with --field"
            )
        value = value[part]
    return value


def without_gutenberg(text: str, name: str) -> str:
    """A book without the header and licence of Project Gutenberg, its line ends plain newlines.

    Raises:
        ValueError: the lines that mark the beginning and the end of the book are not there.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    marks = [line.lstrip("* ").upper() if line.startswith("***") else "" for line in lines]
    begins = [i for i, mark in enumerate(marks) if mark.startswith("START OF TH")]
    ends = [i for i, mark in enumerate(marks) if mark.startswith("END OF TH")]
    if not begins or not ends or ends[-1] <= begins[0]:
        raise ValueError(f"{name} is no book of Project Gutenberg: its START and END lines are missing")
    return "\n".join(lines[begins[0] + 1 : ends[-1]]).strip("\n") + "\n"
