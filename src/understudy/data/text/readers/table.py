"""The table of kinds of text files. A new kind is one module beside this one and one row here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from understudy.data.archives import tar_members, zip_members
from understudy.data.decoding import looks_like_text
from understudy.data.inputs import InputFile
from understudy.data.text.readers.archives import read_archive
from understudy.data.text.readers.base import Reader
from understudy.data.text.readers.fields import read_fields
from understudy.data.text.readers.html import read_html
from understudy.data.text.readers.mail import read_eml, read_mbox
from understudy.data.text.readers.office import read_docx, read_epub
from understudy.data.text.readers.pdf import read_pdf
from understudy.data.text.readers.plain import read_plain
from understudy.data.text.readers.subtitles import is_opus, read_opus, read_subtitles, read_tmx
from understudy.data.text.readers.warc import read_warc


@dataclass(frozen=True)
class TextKind:
    """A kind of file.

    Attributes:
        endings: those of its files, which decide; a compression's ending may follow.
        fits: of the first bytes, whether a file with another ending is of this kind.
        records: whether the text is taken from fields.
        aside: whether such files in a folder are read only if it has no others, because they often lie beside data.
        members: whether it is an archive of other files.
        divided: whether a separator divides it into documents.
        libraries: optional ones that it needs.
    """

    name: str
    read: Reader
    endings: tuple[str, ...] = ()
    fits: Callable[[bytes], bool] | None = None
    records: bool = False
    aside: bool = False
    members: bool = False
    divided: bool = False
    libraries: tuple[str, ...] = ()


def _begins(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(marks)


def _is_mbox(head: bytes) -> bool:
    return re.match(rb"From \S+.*\r?\n[A-Za-z-]+: ", head) is not None


def _is_subtitles(head: bytes) -> bool:
    return re.match(rb"(?:\xef\xbb\xbf)?(?:WEBVTT\b|\d+\r?\n(?:\d+:)?\d+:\d+[,.]\d+ +-->)", head) is not None


TEXT_KINDS: tuple[TextKind, ...] = (
    TextKind("JSON lines", read_fields, (".jsonl", ".ndjson"), records=True),
    TextKind("JSON", read_fields, (".json",), records=True, aside=True),
    TextKind("CSV", read_fields, (".csv",), records=True, aside=True),
    TextKind("TSV", read_fields, (".tsv",), records=True, aside=True),
    TextKind("Parquet", partial(read_fields, ending=".parquet"), (".parquet",), _begins(b"par1"), records=True),
    TextKind("Arrow", partial(read_fields, ending=".arrow"), (".arrow",), _begins(b"arrow1"), records=True, aside=True),
    TextKind("TMX", read_tmx, (".tmx",), records=True),
    TextKind("subtitles", read_subtitles, (".srt", ".vtt"), _is_subtitles),
    TextKind("HTML", read_html, (".html", ".htm", ".xhtml"), _begins(b"<!doctype html", b"<html"), libraries=("trafilatura",)),
    TextKind("PDF", read_pdf, (".pdf",), lambda head: head.startswith(b"%PDF-"), libraries=("pypdf",)),
    TextKind("DOCX", read_docx, (".docx",)),
    TextKind("EPUB", read_epub, (".epub",)),
    TextKind("WARC", read_warc, (".warc", ".wet"), lambda head: head.startswith(b"WARC/"), libraries=("warcio", "trafilatura")),
    TextKind("mailbox", read_mbox, (".mbox",), _is_mbox),
    TextKind("mail", read_eml, (".eml",)),
    TextKind("zip", partial(read_archive, members=zip_members), (".zip",), members=True),
    TextKind("tar", partial(read_archive, members=tar_members), (".tar",), lambda head: head[257:262] == b"ustar", members=True),
    TextKind("OPUS", read_opus, fits=is_opus),
    TextKind("plain text", read_plain, (".txt", ".md"), looks_like_text, divided=True),
)  # fmt: skip
"""In the order in which their `fits` is asked. The last is everything that is text."""

PLAIN = TEXT_KINDS[-1]
BY_ENDING = {ending: kind for kind in TEXT_KINDS for ending in kind.endings}
NO_TEXT = (
    ".svg", ".ps", ".eps", ".rtf", ".pkl", ".pickle", ".ids", ".vcf", ".ipynb", ".lock", ".map",
)  # fmt: skip
"""Endings of files that are made of characters and hold no text to learn from."""


def kind_of_file(file: InputFile) -> TextKind | None:
    """The kind of a file, by its ending or else by its first bytes; None for one without text.

    Raises:
        ValueError: the file is compressed, and damaged.
    """
    if (kind := BY_ENDING.get(file.ending)) is not None:
        return kind
    if file.ending in NO_TEXT:
        return None
    head = file.head()
    return next((kind for kind in TEXT_KINDS if kind.fits and kind.fits(head)), None)
