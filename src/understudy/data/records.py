"""Records of a file, one dict after another: JSON, JSON lines, CSV, TSV, parquet and Arrow, some of them compressed.

The one reader of such files, for text documents, chat data and evaluation tasks. A new file format is one function
and one row of READERS. The meaning of a record is left to the caller.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 28
PARQUET_ROWS = 256

COMPRESSIONS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
}
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, OSError)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One record. `where`: its file and line, for messages. `offset`: bytes of the file on disk read so far."""

    where: str
    fields: dict[str, Any]
    offset: int


def read_records(path: Path, column: str | None = None, header: Sequence[str] = ()) -> Iterator[FileRecord]:
    """The records of a file, in order.

    Args:
        column: the only column needed; of a parquet file that has it no other is read.
        header: the column names of a CSV file without a header row.

    Raises:
        ValueError: an unknown kind of file, a damaged file, or a line or element that is no JSON object.
    """
    ending, _ = file_ending(path)
    if ending not in READERS:
        raise ValueError(f"cannot read {path}: {advice(path, tuple(READERS))}")
    try:
        yield from READERS[ending](path, column, header)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply: a record is an object of a few levels") from error


def file_ending(path: Path) -> tuple[str, str]:
    """The ending that names the file's format, and the one of its compression or "": (".jsonl", ".gz")."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes else path.name.lower()), compression


ADVICE = {
    ".zst": "unpack it first: zstd -d FILE",
    ".zip": "unpack it first: unzip FILE",
    **dict.fromkeys((".tar", ".tgz"), "unpack it first: tar -xf FILE"),
    **dict.fromkeys(
        (".html", ".htm", ".epub", ".docx"),
        "convert it to plain text first, for instance with pandoc -t plain FILE -o FILE.txt",
    ),
    ".pdf": "convert it to plain text first, for instance with pdftotext FILE",
    ".srt": "remove numbers and times first: grep -v -E '^[0-9]*[[:space:]]*$| --> ' FILE > FILE.txt",
    ".vtt": "remove the times first: grep -v -E '^WEBVTT| --> ' FILE > FILE.txt",
    ".xlsx": "save the sheet as CSV first",
    **dict.fromkeys(
        (".pkl", ".pickle"), "pickle files can run code and are never opened: save the records as JSON lines"
    ),
}
"""How to make a file of another kind readable, by its ending."""


def advice(path: Path, accepted: Sequence[str]) -> str:
    """The reason why a file cannot be read, and a remedy that works."""
    ending, compression = file_ending(path)
    for suffix in (path.suffix.lower(), ending):
        if suffix in ADVICE:
            return f"it is a {suffix} file; " + ADVICE[suffix].replace("FILE", str(path))
    named = "no ending" if ending == path.name.lower() else f"the ending {ending}{compression}"
    return f"it has {named}, and {', '.join(accepted)} can be read; if it holds plain text, copy it to {path.name}.txt"


class ByteStream(io.RawIOBase):
    """The bytes of a file, decompressed; `offset` counts bytes of the file on disk."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self.path = path
        self.raw = raw
        compression = file_ending(path)[1]
        self.compressed = bool(compression)
        self.bytes: Any = COMPRESSIONS[compression](raw) if compression else raw
        self.offset = 0
        self._since_tell = 0

    def read(self, size: int = -1) -> bytes:
        return self._checked(self.bytes.read, size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._checked(self.bytes.readline, size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _checked(self, read: Callable[[int | None], bytes], size: int | None) -> bytes:
        try:
            data = read(size)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk; damage has no number
                raise
            kind = file_ending(self.path)[1].removeprefix(".").replace("gz", "gzip")
            raise ValueError(f"{self.path} is a damaged or cut-off {kind} file ({error}); fetch it again") from error
        # tell() takes longer than reading a line, so that it is called once a block.
        self._since_tell += len(data)
        if not self.compressed:
            self.offset += len(data)
        elif self._since_tell >= BLOCK_BYTES or not data:
            self.offset, self._since_tell = self.raw.tell(), 0
        return data


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        ValueError: the line holds none.
    """
    value = _parse(line.removeprefix(codecs.BOM_UTF8), where)
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a JSON object but {kind_of(value)}: jsonl has one object a line")
    return value


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 (byte {error.start}); convert it first") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply: a record is an object of a few levels") from error
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Lines, each with the offset in the file on disk."""
    with path.open("rb") as raw:
        stream = ByteStream(path, raw)
        while line := stream.readline(MAX_LINE_BYTES + 1):
            yield line, stream.offset


def _read_json(path: Path, column: str | None, header: Sequence[str]) -> Iterator[FileRecord]:
    """JSON lines, or one JSON document: the content decides, because either is published under either ending."""
    if _is_document(path):
        yield from _read_document(path)
        return
    for number, (line, offset) in enumerate(_lines(path), 1):
        where = f"{path} line {number:,}"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB: jsonl has one object a line")
        if line.strip():
            yield FileRecord(where, parse_object(line, where), offset)


def _is_document(path: Path) -> bool:
    """Whether the file is one JSON document: its first line with text is no JSON value, or the only line."""
    lines = (line for line, _ in _lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return False
    try:
        value = _parse(first.removeprefix(codecs.BOM_UTF8), str(path))
    except ValueError:
        # A broken first line of a .jsonl file is an error of that line, unless a list begins there.
        return file_ending(path)[0] == ".json" or first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    if isinstance(value, dict):
        return False
    return file_ending(path)[0] == ".json" or (isinstance(value, list) and next(lines, None) is None)


def _read_document(path: Path) -> Iterator[FileRecord]:
    """A list of records, or one object; held in memory whole."""
    size = path.stat().st_size
    value = _parse(b"".join(line for line, _ in _lines(path)).removeprefix(codecs.BOM_UTF8), str(path))
    if isinstance(value, dict):
        yield FileRecord(str(path), value, size)
        return
    if not isinstance(value, list):
        raise ValueError(f"{path} holds {kind_of(value)}: a list of objects is expected")
    for number, fields in enumerate(value, 1):
        if not isinstance(fields, dict):
            raise ValueError(f"{path} element {number:,} is not an object but {kind_of(fields)}")
        yield FileRecord(f"{path} element {number:,}", fields, size * number // len(value))


def _read_csv(path: Path, column: str | None, header: Sequence[str]) -> Iterator[FileRecord]:
    """Rows of text cells; the first row names the columns unless `header` does."""
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open("rb") as raw:
        stream = ByteStream(path, raw)
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")
        names = list(header)
        dialect = "excel-tab" if file_ending(path)[0] == ".tsv" else "excel"
        try:
            for number, cells in enumerate(csv.reader(lines, dialect=dialect), 1):
                if not cells:
                    continue
                if not names:
                    names = cells
                    continue
                if len(cells) != len(names):
                    raise ValueError(
                        f"{path} row {number:,} has {len(cells)} cells, not {len(names)}: {_shortened(names)}"
                    )
                yield FileRecord(f"{path} row {number:,}", dict(zip(names, cells)), stream.offset)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is not a readable csv file ({error})") from error


def _read_parquet(path: Path, column: str | None, header: Sequence[str]) -> Iterator[FileRecord]:
    import pyarrow.parquet as pq

    with _arrow_errors(path, "parquet"), pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
        # One row group is read at a time, and of it a few hundred rows, so that memory does not follow the file.
        columns = [column] if column in file.schema_arrow.names else None
        size, rows, number = path.stat().st_size, max(1, file.metadata.num_rows), 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=columns, use_threads=False):
            for fields in batch.to_pylist():
                number += 1
                yield FileRecord(f"{path} row {number:,}", fields, size * number // rows)


def _read_arrow(path: Path, column: str | None, header: Sequence[str]) -> Iterator[FileRecord]:
    """Arrow IPC, as a stream (`datasets.save_to_disk` writes it) or as a file with an index."""
    import pyarrow as pa

    with _arrow_errors(path, "arrow"), pa.memory_map(str(path)) as source:
        batches: Any
        try:
            batches = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        number = 0
        for batch in batches:
            for fields in batch.to_pylist():
                number += 1
                yield FileRecord(f"{path} row {number:,}", fields, source.tell())


@contextmanager
def _arrow_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn the library's errors about a file into one sentence."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; those about a damaged file have none
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is not a readable {kind} file ({reason}); fetch or write it again") from error


Reader = Callable[[Path, str | None, Sequence[str]], Iterator[FileRecord]]
READERS: dict[str, Reader] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".arrow": _read_arrow,
}
"""The reader of each file format, by ending."""


def kind_of(value: Any) -> str:
    """The kind of a JSON value, for a sentence."""
    kinds = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "nothing"}
    return kinds.get(type(value), "a number")


def shown_names(fields: Any) -> str:
    """The names of a record's fields, for a sentence."""
    return _shortened([str(name) for name in fields]) or "none"


def _shortened(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
