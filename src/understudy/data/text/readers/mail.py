"""Mailboxes (mbox) and single mails (.eml): each mail one document, its subject and its text."""

from __future__ import annotations

import email
import email.errors
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage

from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentPiece, note_piece
from understudy.data.text.readers.base import MAX_DOCUMENT_BYTES, ReadOptions, whole_document
from understudy.data.text.readers.html import all_text

MAX_LINE = 1 << 20
NO_TEXT = "a mail without text"


def read_mbox(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    """A line that begins with "From " after an empty one, or at the beginning of the file, begins a mail."""
    lines: list[bytes] = []
    size, number, blank = 0, 0, True
    with file.stream() as stream:
        for line in stream.lines(MAX_LINE):
            if blank and line.startswith(b"From "):
                if number:
                    yield from _mail(lines, size, f"{file.where} mail {number:,}", stream.offset)
                lines, size, number = [], 0, number + 1
            elif number:
                size += len(line)
                if size <= MAX_DOCUMENT_BYTES:
                    lines.append(line[1:] if line.startswith(b">From ") else line)
            blank = not line.strip()
        if not number:
            raise ValueError(f"{file.where} is no mailbox: it has no line that begins with 'From '")
        yield from _mail(lines, size, f"{file.where} mail {number:,}", stream.offset)


def read_eml(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    with file.stream() as stream:
        content = stream.read_limited(MAX_DOCUMENT_BYTES, "a mail")
        yield from _mail([content], len(content), file.where, stream.offset)


def _mail(lines: list[bytes], size: int, where: str, offset: int) -> Iterator[DocumentPiece]:
    if len(lines) > 1 and not lines[-1].strip():  # the empty line that ends a mail in a mailbox
        lines = lines[:-1]
    if size > MAX_DOCUMENT_BYTES:
        yield note_piece("dropped", f"a mail of more than {MAX_DOCUMENT_BYTES >> 20} MiB", where, offset)
        return
    try:
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        subject = " ".join(str(message.get("subject", "")).split())
        body = message.get_body(("plain", "html"))
        text = str(body.get_content()) if body is not None else ""
        if body is not None and body.get_content_type() == "text/html":
            text = all_text(text)
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError, email.errors.MessageError):
        yield note_piece("dropped", "a mail that cannot be decoded", where, offset)
        return
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
    yield from whole_document(f"{subject}\n\n{text}" if subject and text.strip() else text, where, offset, NO_TEXT)
