"""DOCX documents and EPUB books: ZIP files of XML and XHTML, read with the standard library."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from understudy.data.archives import open_zip
from understudy.data.decoding import TextDecoder
from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentCutter, DocumentPiece, GutenbergCutter, note_piece
from understudy.data.text.readers.base import MAX_DOCUMENT_BYTES, ReadOptions
from understudy.data.text.readers.html import all_text
from understudy.data.text.readers.xml import ElementHandler, local_name, parse_xml

DOCX_TEXT = "word/document.xml"
EPUB_CONTAINER = "META-INF/container.xml"
EPUB_RIGHTS = "META-INF/encryption.xml"
EPUB_PAGES = ("application/xhtml+xml", "text/html")


class _DocxText(ElementHandler):
    """Paragraphs as lines, cells of a row between tabs. Deleted text has another element and is left out; of two forms of a
    drawing the first is read."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.fallback = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = local_name(name)
        self.inside = name == "t"
        self.fallback += name == "Fallback"
        if not self.fallback and name in ("tab", "br", "cr"):
            self.out.append("\t" if name == "tab" else "\n")

    def end(self, name: str) -> None:
        name = local_name(name)
        self.inside = False
        self.fallback -= name == "Fallback"
        if name == "p":
            self.out.append("\n")

    def text(self, data: str) -> None:
        if self.inside and not self.fallback:
            self.out.append(data)


def read_docx(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    with open_zip(file) as archive:
        if DOCX_TEXT not in archive.namelist():
            raise ValueError(f"{file.where} is no DOCX document: it has no {DOCX_TEXT}")
        offset = _offset(file)
        documents = DocumentCutter()
        with archive.open(DOCX_TEXT) as part:
            for block in parse_xml(part, _DocxText(), file.where):
                yield from documents.add("".join(block), offset)
        yield from documents.end("", offset)


class _EpubPackage(ElementHandler):
    """The files of a book by their ids, and the ids in the order of reading."""

    def __init__(self) -> None:
        super().__init__()
        self.root = ""
        self.files: dict[str, tuple[str, str, str]] = {}
        self.spine: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = local_name(name)
        if name == "rootfile" and not self.root:
            self.root = attributes.get("full-path", "")
        elif name == "item":
            about = [attributes.get(key, "") for key in ("href", "media-type", "properties")]
            self.files[attributes.get("id", "")] = (about[0], about[1], about[2])
        elif name == "itemref" and attributes.get("linear", "yes") != "no":
            self.spine.append(attributes.get("idref", ""))


def read_epub(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    """A book as one document, its chapters in the order of reading."""
    with open_zip(file) as archive:
        names = set(archive.namelist())
        if EPUB_CONTAINER not in names:
            raise ValueError(f"{file.where} is no EPUB book: it has no {EPUB_CONTAINER}")
        root = _package(archive, EPUB_CONTAINER, file.where).root
        if root not in names:
            raise ValueError(f"{file.where} is no EPUB book: its list of chapters {root!r} is missing")
        package = _package(archive, root, file.where)
        pages = [
            posixpath.normpath(posixpath.join(posixpath.dirname(root), unquote(href)))
            for href, media, properties in (package.files[id] for id in package.spine if id in package.files)
            if media in EPUB_PAGES and "nav" not in properties.split()
        ]
        protected = _protected(archive, file.where) if EPUB_RIGHTS in names else set()
        if protected & set(pages):
            raise ValueError(f"{file.where} is encrypted (protected against copying), so that it cannot be read")
        offset = _offset(file)
        documents, book, missing, before = DocumentCutter(), GutenbergCutter(), 0, ""
        for page in pages:
            if page not in names:
                missing += 1
                continue
            if text := all_text(_page(archive, page, file.where)):
                yield from documents.add(book.add(before + text), offset)
                before = "\n"
        yield from documents.end(book.add("", final=True), offset)
        if missing:
            yield note_piece("dropped", "a chapter that is not in its book", file.where, offset)
        if book.cut:
            yield note_piece("changed", "header and licence of Project Gutenberg cut", file.where, offset)


def _package(archive: zipfile.ZipFile, name: str, where: str) -> _EpubPackage:
    handler = _EpubPackage()
    with archive.open(name) as part:
        for _ in parse_xml(part, handler, where):
            pass
    return handler


class _Protected(ElementHandler):
    def start(self, name: str, attributes: dict[str, str]) -> None:
        if local_name(name) == "CipherReference":
            self.out.append(unquote(attributes.get("URI", "")))


def _protected(archive: zipfile.ZipFile, where: str) -> set[Any]:
    with archive.open(EPUB_RIGHTS) as part:
        return {name for names in parse_xml(part, _Protected(), where) for name in names}


def _page(archive: zipfile.ZipFile, name: str, where: str) -> str:
    with archive.open(name) as part:
        content = part.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ValueError(
            f"{where} has a chapter of more than {MAX_DOCUMENT_BYTES >> 20} MiB, which is too large to read"
        )
    if b"<!ENTITY" in content[:4096]:
        raise ValueError(
            f"{where} declares XML entities, which can grow without end or name other files; it is not read"
        )
    return TextDecoder(where).decode(content, final=True)


def _offset(file: InputFile) -> int:
    """The whole of a file on disk, which is read with random access."""
    if file.outer_offset is not None:
        return file.outer_offset()
    return file.stored_bytes()
