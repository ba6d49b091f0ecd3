"""PDF files: the text layer of their pages, by pypdf."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator

from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentCutter, DocumentPiece, note_piece
from understudy.data.text.readers.base import ReadOptions, load_library, plain_lines

DAMAGES = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, AssertionError, NotImplementedError,
    OverflowError, EOFError, zlib.error, struct.error,
)  # fmt: skip
"""A damaged file makes the library fail with any of these."""


def read_pdf(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    pypdf = load_library("pypdf", file.where)
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of every oddity of a file
    damages = (pypdf.errors.PyPdfError, *DAMAGES)
    with file.seekable() as raw:
        size = raw.seek(0, 2)
        raw.seek(0)
        try:
            reader = pypdf.PdfReader(raw)
            # Many that only forbid printing open without a password.
            if reader.is_encrypted and not reader.decrypt(""):
                raise pypdf.errors.FileNotDecryptedError
            pages = len(reader.pages)
        except (pypdf.errors.FileNotDecryptedError, pypdf.errors.DependencyError):
            raise ValueError(
                f"{file.where} is encrypted; remove its password first: qpdf --decrypt --password=… IN.pdf OUT.pdf"
            ) from None
        except damages as error:
            raise ValueError(f"{file.where} is a damaged PDF file ({error}); fetch it again") from error
        documents, empty = DocumentCutter(), True
        for number in range(pages):
            outer = file.outer_offset
            offset = outer() if outer else size * (number + 1) // pages
            try:
                text = (
                    plain_lines(reader.pages[number].extract_text())
                    .replace("\0", "")
                    .encode("utf-8", "ignore")
                    .decode()
                )
            except damages:
                yield note_piece("dropped", "a damaged page", f"{file.where} page {number + 1:,}", offset)
                continue
            empty = empty and not text.strip()
            yield from documents.add(text.strip("\n") + "\n" if text.strip() else "", offset)
        if empty:
            raise ValueError(
                f"{file.where} has no text: its pages are pictures, which a text recognition must read first"
            )
        yield from documents.end("", file.outer_offset() if file.outer_offset else size)
