"""Documents as a stream of pieces with flat memory, and the remarks of those who read them.

A long document comes in pieces of about a million characters. Files are read in reading.py, each kind by a module of
readers/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

PIECE_CHARS = 1 << 20
CUT_WINDOW_CHARS = 1 << 16
GUTENBERG_HEAD_CHARS = 1 << 16


class Note(NamedTuple):
    """A remark about what was read, counted in the manifest.

    Attributes:
        kind: "dropped": a record or document that cannot be used; "failed": a file that cannot be read, or not to its
            end; "skipped": a file of another kind in an archive; "changed": something done to a whole file.
        reason: for "failed" a sentence; else a few words, the same for all of the same kind.
        where: the file and line.
    """

    kind: Literal["dropped", "failed", "skipped", "changed"]
    reason: str
    where: str


@dataclass(frozen=True, slots=True)
class DocumentPiece:
    """A document, or one piece of a long one, or a note between documents.

    Attributes:
        ends: whether it is the last piece of its document.
        offset: bytes of the file on disk that had been read, for progress.
        note: such a piece has no text and is part of no document.
    """

    text: str
    ends: bool
    offset: int
    note: Note | None = None


def note_piece(
    kind: Literal["dropped", "failed", "skipped", "changed"], reason: str, where: str, offset: int
) -> DocumentPiece:
    return DocumentPiece("", False, offset, Note(kind, reason, where))


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


class DocumentCutter:
    """Text that arrives in blocks, cut into documents at the separator and into pieces of at most PIECE_CHARS.

    `end` gives the last piece, which may be empty.
    """

    def __init__(self, separator: str | None = None) -> None:
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


START_OF_BOOK = re.compile(r"^\*{3} ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK[^\n]*\n", re.MULTILINE | re.IGNORECASE)
END_OF_BOOK = re.compile(r"^\*{3} ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK", re.MULTILINE | re.IGNORECASE)


class GutenbergCutter:
    """Text that arrives in blocks, without the header and licence of Project Gutenberg where it has them.

    `cut`: whether it had them.
    """

    def __init__(self) -> None:
        self.cut = False
        self._place = "before"
        self._held = ""

    def add(self, text: str, final: bool = False) -> str:
        if self._place == "none":
            return text
        if self._place == "after":
            return ""
        text, self._held = self._held + text, ""
        if self._place == "before":
            start = START_OF_BOOK.search(text[:GUTENBERG_HEAD_CHARS])
            if start is None and len(text) < GUTENBERG_HEAD_CHARS and not final:
                self._held = text
                return ""
            if start is None:
                self._place = "none"
                return text
            self.cut, self._place, text = True, "leading", text[start.end() :]
        if self._place == "leading":
            text = text.lstrip("\n")
            if text:
                self._place = "inside"
        if end := END_OF_BOOK.search(text):
            self._place = "after"
            return text[: end.start()].rstrip("\n") + "\n"
        # The last line may be the beginning of the mark, and the empty lines before it are no text then.
        line = text.rfind("\n") + 1
        if not final and len(text) - line < len("*** END OF THIS PROJECT GUTENBERG EBOOK"):
            cut = len(text[:line].rstrip("\n"))
            text, self._held = text[:cut], text[cut:]
        return text


def without_book_marks(text: str) -> str:
    """A text in memory without the header and licence of Project Gutenberg, if it has them."""
    return GutenbergCutter().add(text, final=True)


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
