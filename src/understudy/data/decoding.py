"""Bytes to text: the encoding found, line ends made plain newlines, and both reported.

A byte order mark decides; else zero bytes that alternate mean UTF-16; else it is UTF-8. A file that is not is decoded
as the encoding that charset-normalizer finds. A file of UTF-8 with a few damaged bytes gets U+FFFD in their place.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

from understudy.data.inputs import BLOCK_BYTES, ByteStream

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SAMPLE_BYTES = 1 << 15
MOST_CONTROLS = 0.02
DAMAGED_SHARE = 0.2
"""The most invalid bytes for each valid character beyond ASCII in a text that is still called UTF-8."""
HIGH = bytes(range(128, 256))
ALONE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
MOSTLY = 0.7
LATIN = ("cp1252", "cp1250", "cp1254", "cp1257", "mac_roman", "cp850")
CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b")) + b"\x7f"


class TextDecoder:
    """The text of one file, block after block.

    Attributes:
        encoding: its encoding, known after the first block.
        replaced: the bytes that are not of the encoding, U+FFFD in the text.
        line_ends: whether line ends other than a newline were replaced.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.encoding = ""
        self.replaced = 0
        self.line_ends = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._newlines = io.IncrementalNewlineDecoder(None, translate=True)
        self._ascii = True
        self._done = 0

    def decode(self, block: bytes, final: bool = False) -> str:
        """The text of the next block.

        Raises:
            ValueError: the file is no text, or in no encoding that can be recognised.
        """
        if self._decoder is None:
            mark, self.encoding = next(((m, e) for m, e in MARKS if block.startswith(m)), (b"", wide_encoding(block)))
            self._decoder = codecs.getincrementaldecoder(self.encoding)(self._errors())
            self._done, block = len(mark), block[len(mark) :]
        if not self.encoding.startswith(("utf-16", "utf-32")) and (position := block.find(b"\0")) >= 0:
            raise ValueError(f"{self.where} is not a text file: it has a NUL byte at byte {self._done + position:,}")
        pending = self._decoder.getstate()[0]
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            if not (final and error.reason == "unexpected end of data"):  # the last character was cut off
                self._choose(pending + block, error.start)
            self._decoder = codecs.getincrementaldecoder(self.encoding)("replace")
            text = self._decoder.decode(pending + block, final)
        self._done += len(block)
        self.replaced += text.count("\ufffd") if self._decoder.errors == "replace" else 0
        self._ascii = self._ascii and text.isascii()
        self.line_ends = self.line_ends or "\r" in text
        return self._newlines.decode(text, final)

    def _errors(self) -> str:
        return "strict" if self.encoding == "utf-8" else "replace"

    def _choose(self, data: bytes, position: int) -> None:
        """Choose the encoding of `data`, whose byte at `position` is not UTF-8, and of all that follows."""
        text = data.decode("utf-8", "replace")
        damaged = text.count("\ufffd")
        good = sum(not character.isascii() for character in text) - damaged
        if self._ascii and damaged > DAMAGED_SHARE * good:
            sample = data[max(0, position - 2000) : position + SAMPLE_BYTES]
            self.encoding = guess_encoding(sample)
            if not self.encoding:
                raise ValueError(
                    f"{self.where} is not UTF-8 (byte {self._done + position:,}) and in no encoding that could be "
                    "recognised; convert it to UTF-8 first"
                )

    def remarks(self) -> Iterator[str]:
        """What was changed, for the summary."""
        yield from self.encoding_remarks()
        if self.line_ends:
            yield "line ends made \\n"

    def encoding_remarks(self) -> Iterator[str]:
        """The encoding and its damage, for the summary."""
        if self.encoding not in ("utf-8", ""):
            yield f"read as {self.encoding}"
        if self.replaced:
            yield f"bytes that are not {self.encoding} replaced by U+FFFD"


def wide_encoding(block: bytes) -> str:
    """UTF-16 without a byte order mark, where every other byte of the beginning is zero; else UTF-8."""
    head = block[:4096]
    even, odd = head[::2], head[1::2]
    if len(head) >= 4 and odd.count(0) > 0.7 * len(odd) and even.count(0) < 0.1 * len(even):
        return "utf-16-le"
    if len(head) >= 4 and even.count(0) > 0.7 * len(even) and odd.count(0) < 0.1 * len(odd):
        return "utf-16-be"
    return "utf-8"


def guess_encoding(sample: bytes) -> str:
    """The encoding that charset-normalizer finds; "" if none.

    Bytes beyond ASCII that stand alone between letters are of a Latin alphabet, which a short sample does not tell the
    library. Where Windows-1252 fits as well as the best, it is taken.
    """
    from charset_normalizer import from_bytes

    high = len(sample) - len(sample.translate(None, HIGH))
    latin = len(ALONE.findall(sample)) > MOSTLY * high
    matches = from_bytes(sample, cp_isolation=list(LATIN)) if latin else from_bytes(sample)
    best = matches.best()
    if best is None:
        return "cp1252" if latin else ""
    for match in matches:
        fits = match.chaos <= best.chaos and match.coherence >= best.coherence
        if fits and "cp1252" in (match.encoding, *match.could_be_from_charset):
            return "cp1252"
    return best.encoding


def looks_like_text(head: bytes) -> bool:
    """Whether a file that begins with these bytes is plain text, in whatever encoding."""
    if any(head.startswith(mark) for mark, _ in MARKS) or wide_encoding(head) != "utf-8":
        encoding = next((e for mark, e in MARKS if head.startswith(mark)), wide_encoding(head))
        text = head[: len(head) // 4 * 4].decode(encoding, "replace")
        return "\0" not in text and text.count("\ufffd") <= MOST_CONTROLS * len(text)
    if b"\0" in head or len(head) - len(head.translate(None, CONTROLS)) > MOST_CONTROLS * len(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return True
    except UnicodeDecodeError:
        high = len(head) - len(head.translate(None, HIGH))
        return high < 0.1 * len(head) or bool(guess_encoding(head))


def text_blocks(stream: ByteStream, decoder: TextDecoder) -> Iterator[str]:
    """The text of a stream, block after block."""
    while block := stream.read(BLOCK_BYTES):
        if text := decoder.decode(block):
            yield text
    if text := decoder.decode(b"", True):
        yield text


def text_lines(stream: ByteStream, decoder: TextDecoder, most: int) -> Iterator[str]:
    """The lines of a stream, with their newlines.

    Raises:
        ValueError: a line is longer than `most` characters.
    """
    parts: list[str] = []
    size = number = 0
    for text in text_blocks(stream, decoder):
        *lines, last = text.split("\n")
        for line in lines:
            number += 1
            yield "".join((*parts, line, "\n"))
            parts, size = [], 0
        parts.append(last)
        if (size := size + len(last)) > most:
            raise ValueError(f"{decoder.where} line {number + 1:,} is longer than {most >> 20} MiB, which is no line")
    if last := "".join(parts):
        yield last
