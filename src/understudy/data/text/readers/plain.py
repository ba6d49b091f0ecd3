"""Plain text of any name: one document, or several where a separator divides it."""

from __future__ import annotations

from collections.abc import Iterator

from understudy.data.decoding import TextDecoder, text_blocks
from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentCutter, DocumentPiece, GutenbergCutter, note_piece
from understudy.data.text.readers.base import ReadOptions


def read_plain(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    decoder, book, documents = TextDecoder(file.where), GutenbergCutter(), DocumentCutter(options.separator)
    with file.stream() as stream:
        for block in text_blocks(stream, decoder):
            yield from documents.add(book.add(block), stream.offset)
        yield from documents.end(book.add("", final=True), stream.offset)
        for remark in decoder.remarks():
            yield note_piece("changed", remark, file.where, stream.offset)
        if book.cut:
            yield note_piece("changed", "header and licence of Project Gutenberg cut", file.where, stream.offset)
