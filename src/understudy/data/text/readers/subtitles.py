"""Subtitles (SRT, WebVTT) and OPUS: spoken lines without their numbers and times; TMX as records of languages."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from understudy.data.decoding import TextDecoder, text_lines
from understudy.data.inputs import InputFile
from understudy.data.records import MAX_LINE_BYTES, RecordError
from understudy.data.text.documents import DocumentCutter, DocumentPiece, note_piece, split_document
from understudy.data.text.readers.base import FieldChoiceError, ReadOptions
from understudy.data.text.readers.fields import fill_template, text_of
from understudy.data.text.readers.xml import ElementHandler, local_name, parse_xml

TIMES = re.compile(r"^\s*(?:\d+:)?\d+:\d+[,.]\d+\s*-->\s*(?:\d+:)?\d+:\d+[,.]\d+")
MARKUP = re.compile(r"</?[a-zA-Z0-9][^<>]*>|\{\\[^{}]*\}")
VTT_BLOCKS = ("NOTE", "STYLE", "REGION", "WEBVTT")


def read_subtitles(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    """The lines of a film as one document. A line that only repeats the one before, as in automatic captions, is left out."""
    decoder, documents = TextDecoder(file.where), DocumentCutter()
    with file.stream() as stream:
        spoken, times, last = False, False, ""
        for line in text_lines(stream, decoder, MAX_LINE_BYTES):
            line = line.strip().removeprefix("\ufeff")
            if TIMES.match(line):
                spoken, times = True, True
            elif not line:
                spoken = False
            elif spoken:  # before the times stand numbers, names and blocks of style
                text = html.unescape(MARKUP.sub("", line)).strip()
                if text and text != last:
                    yield from documents.add(text + "\n", stream.offset)
                last = text or last
        if not times:
            raise ValueError(f"{file.where} has no times of subtitles (00:01:02,500 --> 00:01:04,000)")
        yield from documents.end("", stream.offset)
        for remark in decoder.remarks():
            yield note_piece("changed", remark, file.where, stream.offset)


class _OpusSentences(ElementHandler):
    """The sentences of an OPUS document: <s>text</s>, or <s><w>word</w> …</s>."""

    def __init__(self) -> None:
        super().__init__()
        self.root = ""
        self.depth = 0
        self.words: list[str] = []
        self.word = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = local_name(name)
        self.root = self.root or name
        self.depth += name == "s"
        if name == "w" and self.depth:
            self.word = True
            self.words.append(" ")

    def end(self, name: str) -> None:
        if local_name(name) == "s" and self.depth:
            self.depth -= 1
            if text := " ".join("".join(self.words).split()):
                self.out.append(text + "\n")
            self.words, self.word = [], False

    def text(self, data: str) -> None:
        if self.depth and (data.strip() or not self.word):
            self.words.append(data)


def is_opus(head: bytes) -> bool:
    """Whether an XML file is a document of OPUS."""
    return b"<document" in head and re.search(rb"<s[ >]", head) is not None


def read_opus(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    documents = DocumentCutter()
    with file.stream() as stream:
        for block in parse_xml(stream, _OpusSentences(), file.where):
            yield from documents.add("".join(block), stream.offset)
        yield from documents.end("", stream.offset)


class _TmxUnits(ElementHandler):
    """Translation units as records of languages."""

    def __init__(self) -> None:
        super().__init__()
        self.unit: dict[str, str] = {}
        self.language = ""
        self.segment = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "tu":
            self.unit = {}
        elif name == "tuv":
            self.language = attributes.get("xml:lang", attributes.get("lang", "")).lower()
        elif name == "seg":
            self.segment = True
            self.unit[self.language] = ""

    def end(self, name: str) -> None:
        if name == "seg":
            self.segment = False
        elif name == "tu":
            self.out.append(self.unit)

    def text(self, data: str) -> None:
        if self.segment:
            self.unit[self.language] += data


def read_tmx(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    """Translation units: each a record with its languages as fields, for --field en or --template."""
    number = used = 0
    with file.stream() as stream:
        for block in parse_xml(stream, _TmxUnits(), file.where):
            for unit in block:
                number += 1
                where = f"{file.where} unit {number:,}"
                try:
                    text = (
                        fill_template(options.template, unit, where)
                        if options.template
                        else text_of(unit, options.field, where)
                    )
                except RecordError as error:
                    if not used:
                        raise FieldChoiceError(str(error)) from error
                    yield note_piece("dropped", error.reason, where, stream.offset)
                    continue
                used += 1
                yield from split_document(text, stream.offset)
