"""Files of records, json, jsonl (each also gzipped) and parquet, as one object after the other, each with its place.

What cannot be read is an error that names the file and the line. What the records mean is the formats' work.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.text.documents import BLOCK_BYTES, MAX_LINE_BYTES, PARQUET_ROWS

ENDINGS = (".json", ".jsonl", ".parquet", ".json.gz", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Located:
    """A record, and what to call its place in a sentence. `offset`: how many bytes of the file, as it lies on the disk,
    had been read."""

    where: str
    fields: dict[str, Any]
    offset: int


def is_readable(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def read_records(path: Path) -> Iterator[Located]:
    """The records of a file, whatever they hold.

    Raises:
        ValueError: a damaged file, or a line or element that is no JSON object.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from _parquet_records(path)
    elif name.endswith((".json", ".json.gz")) and not _has_a_record_a_line(path):
        yield from _json_records(path)
    else:
        yield from _jsonl_records(path)


def _jsonl_records(path: Path) -> Iterator[Located]:
    for number, (line, offset) in enumerate(_lines(path), 1):
        where = f"{path} line {number:,}"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB: jsonl has one object a line")
        if line.strip():
            yield Located(where, parse_object(line, where), offset)


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        ValueError: it holds none.
    """
    value = _parse(line.removeprefix(codecs.BOM_UTF8), where)
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a JSON object but {kind_of(value)}: jsonl has one object a line")
    return value


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as problem:
        raise ValueError(f"{where} is not UTF-8 (byte {problem.start}); convert it first") from problem
    except RecursionError as problem:
        raise ValueError(f"{where} is nested too deeply to be a conversation") from problem
    except ValueError as problem:
        raise ValueError(f"{where} is not JSON: {problem}") from problem


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Lines with the offset in the file as it lies on the disk."""
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw as stream:
        try:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                yield line, raw.tell()
        except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
            raise ValueError(f"{path} is a damaged or cut-off gzip file ({problem}); fetch it again") from problem


def _has_a_record_a_line(path: Path) -> bool:
    """Much that is called .json is jsonl: its first line is an object by itself."""
    first = next((line for line, _ in _lines(path) if line.strip()), b"")
    if not first.lstrip(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return False
    try:
        parse_object(first, str(path))
    except ValueError:
        return False
    return True


def _json_records(path: Path) -> Iterator[Located]:
    """A list of records, or one object; it is held in memory whole, as JSON must be."""
    size = path.stat().st_size
    value = _parse(b"".join(line for line, _ in _lines(path)).removeprefix(codecs.BOM_UTF8), str(path))
    if isinstance(value, dict):
        yield Located(str(path), value, size)
        return
    if not isinstance(value, list):
        raise ValueError(f"{path} holds {kind_of(value)}: a list of objects is expected")
    for number, fields in enumerate(value, 1):
        if not isinstance(fields, dict):
            raise ValueError(f"{path} element {number:,} is not an object but {kind_of(fields)}")
        yield Located(f"{path} element {number:,}", fields, size * number // len(value))


def _parquet_records(path: Path) -> Iterator[Located]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
            size, rows, number = path.stat().st_size, max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(PARQUET_ROWS, use_threads=False):
                for fields in batch.to_pylist():
                    number += 1
                    yield Located(f"{path} row {number:,}", fields, size * number // rows)
    except (pa.ArrowException, UnicodeDecodeError) as problem:
        reason = str(problem).splitlines()[0]
        raise ValueError(f"{path} is not a readable parquet file ({reason}); fetch or write it again") from problem


def kind_of(value: Any) -> str:
    """What a JSON value is, for a sentence."""
    kinds = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "nothing"}
    return kinds.get(type(value), "a number")
