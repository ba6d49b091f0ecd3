"""Files, folders and globs of text, read as a stream of documents with flat memory.

txt and md: a file is one document. jsonl and parquet: a line or row is one, its text in a chosen field. Each
of txt, md and jsonl may be gzipped. A long document comes in pieces of about a million characters, so a text
of any size is read without ever being held whole. This file neither downloads nor splits nor encodes.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

ENDINGS = (".txt", ".md", ".jsonl", ".parquet", ".txt.gz", ".md.gz", ".jsonl.gz")
PIECE_CHARS = 1 << 20
CUT_WINDOW_CHARS = 1 << 16
BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 28
PARQUET_ROWS = 256


@dataclass(frozen=True, slots=True)
class DocumentPiece:
    """A document, or one piece of a long one. `ends`: it is the last of its document. `offset`: how many
    bytes of the file, as it lies on the disk, had been read when it was made (what progress is counted
    in)."""

    text: str
    ends: bool
    offset: int


@dataclass(frozen=True)
class Found:
    """Files in the order in which they are read, and how many were passed over, by their ending."""

    files: tuple[Path, ...]
    skipped: dict[str, int] = field(default_factory=dict)


def ending_of(path: Path) -> str:
    """The ending that decides how a file is read: ".txt", ".jsonl.gz"; of others the last suffix or the
    name."""
    name = path.name.lower()
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return ending
    return path.suffix.lower() or name


def uses_field(path: Path) -> bool:
    """Whether this file's text is taken from a named field."""
    return ending_of(path).startswith((".jsonl", ".parquet"))


def find_files(arguments: Sequence[str]) -> Found:
    """The readable files behind paths, folders (searched to the bottom) and globs.

    Order: the arguments as given, and within a folder or glob by path. A file met twice is read once. Files
    that a folder or a glob holds with other endings are counted in `skipped`; one that is named itself is an
    error.

    Raises:
        ValueError: nothing at that path, a glob or folder without readable files, an unknown ending.
    """
    files: dict[Path, None] = {}
    seen: set[Path] = set()
    skipped: Counter[str] = Counter()
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_file():
            if ending_of(path) not in ENDINGS:
                raise ValueError(f"cannot read {argument}: its ending is none of {', '.join(ENDINGS)}; rename it")
            found = [path]
        else:
            candidates = _candidates(argument, path)
            found = [p for p in candidates if ending_of(p) in ENDINGS]
            others = Counter(ending_of(p) for p in candidates if ending_of(p) not in ENDINGS)
            skipped.update(others)
            if not found:
                held = f"; it holds {_tally(others)}" if others else ""
                raise ValueError(f"{argument} has no file ending in {', '.join(ENDINGS)}{held}")
        for p in found:
            if p.resolve() not in seen:
                seen.add(p.resolve())
                files[p] = None
    return Found(tuple(files), dict(sorted(skipped.items())))


def _candidates(argument: str, path: Path) -> list[Path]:
    """Every file in a folder or behind a glob, sorted; what is hidden is left out, as a shell does."""
    if path.is_dir():
        inside = [p for p in path.rglob("*") if not _hidden(p.relative_to(path))]
    elif any(mark in argument for mark in "*?["):
        inside = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - takes absolute patterns
        if not inside:
            raise ValueError(f"the glob {argument} matches nothing; check the path, and quote it for the shell")
    else:
        raise ValueError(f"no such file or folder: {argument}")
    return sorted((p for p in inside if p.is_file()), key=lambda p: p.as_posix())


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {ending}" for ending, n in counts.most_common(5))


def read_file(path: Path, text_field: str = "text", piece_chars: int = PIECE_CHARS) -> Iterator[DocumentPiece]:
    """The documents of one file, in order; `text_field` is the field of jsonl and the column of parquet.

    Raises:
        ValueError: not text (a NUL byte, not UTF-8), a broken line, a missing field, a damaged archive; the
            sentence names the file and the byte or line.
    """
    ending = ending_of(path)
    if ending == ".parquet":
        yield from _read_parquet(path, text_field, piece_chars)
    elif ending.startswith(".jsonl"):
        yield from _read_jsonl(path, text_field, piece_chars)
    else:
        yield from _read_text(path, piece_chars)


def split_document(text: str, offset: int, piece_chars: int = PIECE_CHARS) -> Iterator[DocumentPiece]:
    """A document that is already in memory, in pieces."""
    start = 0
    while len(text) - start > piece_chars:
        end = start + cut_position(text[start : start + piece_chars + 1], piece_chars)
        yield DocumentPiece(text[start:end], False, offset)
        start = end
    yield DocumentPiece(text[start:] if start else text, True, offset)


def cut_position(text: str, limit: int) -> int:
    """Where to cut `text` so that the first part has at most `limit` characters; needs len(text) > limit.

    The cut is one that the splitting patterns of GPT-2 and GPT-4 make in any case, so that the tokens of the
    pieces, put together, are the tokens of the whole: after a single newline between two words, or else
    before a single space between two words. Where the last 65,536 characters have neither (a script without
    spaces), it is after a newline, and failing that at the limit; a token or two may then differ from the
    whole's.
    """
    assert len(text) > limit, f"a text of {len(text)} characters needs no cut at {limit}"
    lowest = max(1, limit - CUT_WINDOW_CHARS)
    at = text.rfind("\n", lowest, limit)
    while at >= lowest:
        if not text[at - 1].isspace() and text[at + 1].isalnum():
            return at + 1
        at = text.rfind("\n", lowest, at)
    at = text.rfind(" ", lowest, limit)
    while at >= lowest:
        if not text[at - 1].isspace() and text[at + 1].isalnum():
            return at
        at = text.rfind(" ", lowest, at)
    at = text.rfind("\n", lowest, limit)
    return at + 1 if at >= lowest else limit


class _Stream:
    """A file's bytes, unpacked where they are packed; `offset` is how far the file itself has been read."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self.path = path
        self.raw = raw
        self.packed = path.name.lower().endswith(".gz")
        self.bytes: Any = gzip.GzipFile(fileobj=raw, mode="rb") if self.packed else raw
        self.offset = 0
        self.unasked_bytes = 0

    def read(self, size: int) -> bytes:
        return self._checked(self.bytes.read, size)

    def readline(self, size: int) -> bytes:
        return self._checked(self.bytes.readline, size)

    def _checked(self, read: Any, size: int) -> bytes:
        try:
            data: bytes = read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
            raise ValueError(f"{self.path} is a damaged or cut-off gzip file ({problem}); fetch it again") from problem
        # Asking a file where it is takes longer than reading a line of it.
        self.unasked_bytes += len(data)
        if not self.packed:
            self.offset += len(data)
        elif self.unasked_bytes >= BLOCK_BYTES or not data:
            self.offset, self.unasked_bytes = self.raw.tell(), 0
        return data


def _read_text(path: Path, piece_chars: int) -> Iterator[DocumentPiece]:
    with path.open("rb") as raw:
        stream = _Stream(path, raw)
        decoder = codecs.getincrementaldecoder("utf-8")()
        held, done = "", 0
        while block := stream.read(BLOCK_BYTES):
            _refuse_nul(path, block, done)
            held += _decode(path, decoder, block, done, final=False)
            done += len(block)
            held = held.removeprefix("\ufeff") if done == len(block) else held
            while len(held) > piece_chars:
                cut = cut_position(held, piece_chars)
                yield DocumentPiece(held[:cut], False, stream.offset)
                held = held[cut:]
        held += _decode(path, decoder, b"", done, final=True)
        yield DocumentPiece(held, True, stream.offset)


def _refuse_nul(path: Path, block: bytes, done: int) -> None:
    at = block.find(b"\0")
    if at >= 0:
        raise ValueError(f"{path} is not a text file: it has a NUL byte at byte {done + at:,}")


def _decode(path: Path, decoder: codecs.IncrementalDecoder, block: bytes, done: int, final: bool) -> str:
    pending = len(decoder.getstate()[0])
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as problem:
        at = done - pending + problem.start
        raise ValueError(
            f"{path} is not UTF-8: byte {at:,} is {problem.object[problem.start]:#04x}; convert it first"
        ) from problem


def _read_jsonl(path: Path, text_field: str, piece_chars: int) -> Iterator[DocumentPiece]:
    with path.open("rb") as raw:
        stream = _Stream(path, raw)
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path} line {number:,}"
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB: jsonl has one object a line")
            if not line.strip():
                continue
            text = _text_of_line(line, text_field, where)
            yield from split_document(text, stream.offset, piece_chars)


def _text_of_line(line: bytes, text_field: str, where: str) -> str:
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError as problem:
        raise ValueError(f"{where} is not UTF-8 (byte {problem.start} of the line); convert it first") from problem
    except ValueError as problem:
        raise ValueError(f"{where} is not JSON: {problem}") from problem
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a JSON object but {_kind(row)}: jsonl has one object a line")
    if text_field not in row:
        raise ValueError(f"{where} has no field {text_field!r}; its fields are {_names(row)}: choose one with --field")
    return _checked_text(row[text_field], text_field, where)


def _checked_text(value: Any, text_field: str, where: str) -> str:
    """The text of a field; none is an empty document. Lone surrogates, which JSON can spell, are no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"field {text_field!r} of {where} is not text but {_kind(value)}: choose another with --field")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise ValueError(f"field {text_field!r} of {where} has half a surrogate pair and is not UTF-8") from problem
    return value


def _names(row: Any) -> str:
    names = [str(name) for name in row]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "") or "none"


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", str: "a string", bool: "true or false", int: "a number"}
    return kinds.get(type(value), "a number" if isinstance(value, float) else "nothing")


def _read_parquet(path: Path, text_field: str, piece_chars: int) -> Iterator[DocumentPiece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One row group is read at a time, and of it a few hundred rows: memory does not follow the file.
        with pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
            _check_column(path, file.schema_arrow, text_field)
            size, rows, done = path.stat().st_size, max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(PARQUET_ROWS, columns=[text_field], use_threads=False):
                for value in batch.column(0).to_pylist():
                    done += 1
                    text = _checked_text(value, text_field, f"{path} row {done:,}")
                    yield from split_document(text, size * done // rows, piece_chars)
    except (pa.ArrowException, UnicodeDecodeError) as problem:
        reason = str(problem).splitlines()[0]
        raise ValueError(f"{path} is not a readable parquet file ({reason}); fetch or write it again") from problem


def _check_column(path: Path, schema: Any, text_field: str) -> None:
    import pyarrow.types as types

    if text_field not in schema.names:
        raise ValueError(
            f"{path} has no column {text_field!r}; its columns are {_names(schema.names)}: choose one with --field"
        )
    kind = schema.field(text_field).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(f"column {text_field!r} of {path} is not text but {kind}: choose another with --field")
