"""What every reader of a kind of file is given and gives."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentPiece, Note, split_document

MAX_DOCUMENT_BYTES = 1 << 26
"""The most of a file that is held in memory as a whole: a page, a mail, a part of a book."""


class MissingLibraryError(ValueError):
    """The library that reads a kind of file is not installed."""


class FieldChoiceError(ValueError):
    """None of a file's records has the field that its text is to be taken from."""


@dataclass(frozen=True)
class ReadOptions:
    """The choices of the user, and how a reader of archives reads a member.

    Attributes:
        field: of records, with dots into nested objects (`translation.en`).
        template: of records, a text with {fields} in place of one field.
        separator: a string between the documents of a plain text, itself left out.
    """

    field: str = "text"
    template: str | None = None
    separator: str | None = None
    read_member: Callable[[InputFile], Iterator[DocumentPiece]] | None = None


Reader = Callable[[InputFile, ReadOptions], Iterator[DocumentPiece]]


def load_library(module: str, where: str) -> ModuleType:
    """An optional library, imported when the first file that needs it is met.

    Raises:
        MissingLibraryError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingLibraryError(
            f"{where} is read with {module.split('.')[0]}, which is not installed or not whole ({error}): "
            "pip install 'understudy[documents]'"
        ) from error


def whole_document(text: str, where: str, offset: int, missing: str) -> Iterator[DocumentPiece]:
    """A document that is in memory, or, where it has no text, the note that it was dropped because of `missing`."""
    if text.strip():
        yield from split_document(plain_lines(text), offset)
    else:
        yield DocumentPiece("", False, offset, Note("dropped", missing, where))


def plain_lines(text: str) -> str:
    """A text with plain newlines."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
