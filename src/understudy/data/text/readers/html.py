"""HTML pages: their main text, without menus and notices, by trafilatura."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentPiece, without_book_marks
from understudy.data.text.readers.base import MAX_DOCUMENT_BYTES, ReadOptions, load_library, whole_document

NO_TEXT = "a page without main text"
BLOCKS = {
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "footer", "form",
    "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "td",
    "th", "tr", "ul",
}  # fmt: skip
APART = {"h1", "h2", "h3", "h4", "h5", "h6", "p", "blockquote", "ul", "ol", "dl", "table", "pre"}
SILENT = {"script", "style", "head", "template"}


def read_html(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    with file.stream() as stream:
        content = stream.read_limited(MAX_DOCUMENT_BYTES, "a page")
        yield from whole_document(main_text(content, file.where), file.where, stream.offset, NO_TEXT)


def main_text(page: bytes | str, where: str) -> str:
    """The main text of a page; "" if none was found."""
    trafilatura = load_library("trafilatura", where)
    return without_book_marks(trafilatura.extract(page, include_comments=False) or "")


class PageText(HTMLParser):
    """All text of a page that is known to be nothing but text, as a chapter of a book or a mail: paragraphs on lines of
    their own. It declares no entities of its own and fetches nothing."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.silent = 0
        self.pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag in SILENT
        self.pre += tag == "pre"
        if tag in BLOCKS:
            self.parts.append("\n\n" if tag in APART else "\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in SILENT and self.silent > 0
        self.pre -= tag == "pre" and self.pre > 0
        if tag in BLOCKS:
            self.parts.append("\n\n" if tag in APART else "\n")

    def handle_data(self, data: str) -> None:
        if self.silent:
            return
        if not self.pre:
            data = " ".join(("x" + data + "x").split())[1:-1] if data.strip() else " "
        self.parts.append(data)


def all_text(page: str) -> str:
    """The text of a page with its paragraphs divided by blank lines."""
    parser = PageText()
    parser.feed(page)
    parser.close()
    lines = [line.strip(" ") for line in "".join(parser.parts).split("\n")]
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip("\n") + "\n" if text.strip() else ""
