"""WARC and WET files of web crawls, by warcio: each page one document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from understudy.data.decoding import TextDecoder
from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentPiece, note_piece
from understudy.data.text.readers.base import MAX_DOCUMENT_BYTES, ReadOptions, load_library, whole_document
from understudy.data.text.readers.html import NO_TEXT, main_text

PAGES = ("text/html", "application/xhtml+xml")


def read_warc(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    """The pages of `response` records, and the texts of `conversion` records. Other records are no documents."""
    archive = load_library("warcio.archiveiterator", file.where)
    errors = load_library("warcio.exceptions", file.where)
    number = 0
    with file.stream() as stream:
        try:
            for record in archive.ArchiveIterator(stream):
                number += 1
                if record.rec_type not in ("response", "conversion", "resource"):
                    continue
                where = f"{file.where} record {number:,}"
                yield from _document(record, where, stream.offset)
        except (errors.ArchiveLoadFailed, UnicodeDecodeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"{file.where} is a damaged WARC file after record {number:,} ({error}); fetch it again"
            ) from error
        if not number:
            raise ValueError(f"{file.where} has no WARC records")


def _document(record: Any, where: str, offset: int) -> Iterator[DocumentPiece]:
    headers = record.http_headers or record.rec_headers
    media = (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower()
    status = record.http_headers.get_statuscode() if record.http_headers else "200"
    if status != "200" or media not in (*PAGES, "text/plain"):
        reason = f"status {status}" if status != "200" else f"a record of {media or 'no media type'}"
        yield note_piece("dropped", reason, where, offset)
        return
    content = record.content_stream().read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        yield note_piece("dropped", f"a page of more than {MAX_DOCUMENT_BYTES >> 20} MiB", where, offset)
        return
    try:
        text = main_text(content, where) if media in PAGES else TextDecoder(where).decode(content, final=True)
    except UnicodeDecodeError:
        text = ""
    yield from whole_document(text, where, offset, NO_TEXT)
