"""Text files, read: the kind of each by readers/table.py, and a bad one reported without stopping the others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from understudy.data.fetch.download import UnavailableError
from understudy.data.find import FileKinds
from understudy.data.inputs import InputFile
from understudy.data.records import ADVICE
from understudy.data.text.documents import DocumentPiece, note_piece
from understudy.data.text.readers.base import FieldChoiceError, MissingLibraryError, ReadOptions, load_library
from understudy.data.text.readers.table import BY_ENDING, PLAIN, TextKind, kind_of_file


def kind_of_path(path: Path) -> TextKind | None:
    """The kind of a file on the disk; that of damaged ones is told by their names."""
    about = path.stat()
    return _kind_of_path(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(1 << 16)
def _kind_of_path(path: Path, size: int, changed: int) -> TextKind | None:
    """See kind_of_path, which is asked several times about each file."""
    try:
        return kind_of_file(InputFile.at(path))
    except ValueError:
        return PLAIN  # reading it will say what is wrong


class TextFiles(FileKinds):
    """Files with text, by their content."""

    def rank(self, path: Path) -> int | None:
        kind = kind_of_path(path)
        return None if kind is None else int(kind.aside)

    def refusal(self, path: Path) -> str:
        ending = InputFile.at(path).ending
        if ending in ADVICE:
            return f"it is a {ending} file; " + ADVICE[ending].replace("FILE", str(path))
        return "it is neither text nor a kind of file that text can be taken from"

    def described(self) -> str:
        return "with text"


TEXT_FILES = TextFiles(tuple(BY_ENDING), ())


def check_libraries(kinds: Mapping[Path, TextKind | None]) -> None:
    """Refuse files whose optional library is missing, before anything is read.

    Raises:
        MissingLibraryError: one is.
    """
    for path, kind in kinds.items():
        for library in kind.libraries if kind else ():
            load_library(library, str(path))


def check_fields(kinds: Mapping[Path, TextKind | None], options: ReadOptions) -> None:
    """Refuse a field or template that a file of records does not have, before a long preparation begins. The beginning of
    each file is read; damage is left to those who read on.

    Raises:
        FieldChoiceError: a file has no record with it.
    """
    for path in (path for path, kind in kinds.items() if kind and kind.records):
        try:
            next((piece for piece in read_file(path, options) if piece.note is None), None)
        except FieldChoiceError:
            raise
        except ValueError:
            continue


def read_file(
    source: Path | InputFile, options: ReadOptions | None = None, keep_going: bool = False
) -> Iterator[DocumentPiece]:
    """The documents of one file, in order, and notes about what was dropped or changed.

    Args:
        keep_going: a file that cannot be read, or not to its end, is a note and no error.

    Raises:
        ValueError: the file is damaged, or has no record that can be used; the sentence names the file and the place.
    """
    chosen = dataclasses.replace(options or ReadOptions(), read_member=lambda member: _read_member(member, chosen))
    file = InputFile.at(source) if isinstance(source, Path) else source
    pieces = _read(file, chosen, keep_going)
    return ended(pieces, file.where, file.stored_bytes) if keep_going else pieces


def _read(file: InputFile, options: ReadOptions, keep_going: bool) -> Iterator[DocumentPiece]:
    kind = kind_of_file(file)
    if kind is None and keep_going:
        yield note_piece("skipped", file.ending, file.where, file.stored_bytes())
        return
    if kind is None:
        raise ValueError(f"cannot read {file.where}: it is neither text nor a kind of file that text can be taken from")
    yield from kind.read(file, options)


def _read_member(member: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    """A member of an archive. One without text is a note, and so is a damaged one."""

    def offset() -> int:
        return member.outer_offset() if member.outer_offset else 0

    def pieces() -> Iterator[DocumentPiece]:
        kind = kind_of_file(member)
        if kind is None:
            yield note_piece("skipped", member.ending, member.where, offset())
        else:
            yield from kind.read(member, options)

    return ended(pieces(), member.where, offset)


def ended(pieces: Iterator[DocumentPiece], where: str, offset: Callable[[], int]) -> Iterator[DocumentPiece]:
    """Pieces, of which an error becomes a note. A document that it cuts off ends with its last piece."""
    last: DocumentPiece | None = None
    try:
        for piece in pieces:
            if piece.note is not None:
                yield piece
                continue
            if last is not None:
                yield last
            last = piece
    except (MissingLibraryError, UnavailableError):
        raise
    except ValueError as error:
        if last is not None:
            yield dataclasses.replace(last, ends=True)
        yield note_piece("failed", str(error), where, offset())
        return
    if last is not None:
        yield last
