"""Records of a file, one dict after another: JSON, JSON lines, CSV, TSV, parquet and Arrow, some of them compressed.

The one reader of such files, for text documents, chat data and evaluation tasks. A new file format is one function
and one row of READERS. The meaning of a record is left to the caller.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.decoding import TextDecoder, text_lines
from understudy.data.inputs import BLOCK_BYTES, ByteStream, InputFile, file_ending

MAX_LINE_BYTES = 1 << 27
PARQUET_ROWS = 256
MAX_COLUMN_CHARS = 128
LINE_ENDINGS = (".jsonl", ".ndjson")


class RecordError(ValueError):
    """A record that cannot be used. `reason`: the same for all records of this kind, to count them."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One record. `where`: its file and line, for messages. `offset`: bytes of the file on disk read so far.
    `error`: of a record that is broken and has no fields."""

    where: str
    fields: dict[str, Any]
    offset: int
    error: RecordError | None = None


def read_records(
    source: Path | InputFile, columns: Sequence[str] = (), header: Sequence[str] = (), keep_going: bool = False
) -> Iterator[FileRecord]:
    """The records of a file, in order.

    Args:
        columns: the only columns needed; of a parquet file that has them no others are read.
        header: the column names of a CSV file without a header row.
        keep_going: give a broken record as one with an error, and do not stop at it.

    Raises:
        ValueError: an unknown kind of file, a damaged file, or a line or element that is no JSON object.
    """
    file = InputFile.at(source) if isinstance(source, Path) else source
    if file.ending not in READERS:
        raise ValueError(f"cannot read {file.where}: {advice(Path(file.name), tuple(READERS))}")
    try:
        for record in READERS[file.ending](file, columns, header):
            if record.error is not None and not keep_going:
                raise record.error
            yield record
    except RecursionError as error:
        raise ValueError(f"{file.where} is nested too deeply: a record is an object of a few levels") from error


TEXT_ENDINGS = (".html", ".htm", ".xhtml", ".epub", ".docx", ".pdf", ".srt", ".vtt", ".txt", ".md", ".rst", ".tex", ".org", ".log",
                ".warc", ".wet", ".mbox", ".eml", ".tmx")  # fmt: skip
ADVICE = {
    ".zip": "unpack it first: unzip FILE",
    ".tar": "unpack it first: tar -xf FILE",
    **dict.fromkeys(
        TEXT_ENDINGS, "its text can be prepared without --kind; records are JSON lines, JSON, CSV or Parquet"
    ),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV first"),
    **dict.fromkeys((".pptx", ".odt", ".doc", ".rtf", ".odp"), "save it as PDF or DOCX first"),
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
    return f"it has {named}, and {', '.join(accepted)} can be read"


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        RecordError: the line holds none.
    """
    value = _parse(line.removeprefix(codecs.BOM_UTF8), where)
    if not isinstance(value, dict):
        raise RecordError(
            "not a JSON object", f"{where} is not a JSON object but {kind_of(value)}: jsonl has one object a line"
        )
    return value


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RecordError("not UTF-8", f"{where} is not UTF-8 (byte {error.start}); convert it first") from error
    except RecursionError as error:
        raise RecordError(
            "nested too deeply", f"{where} is nested too deeply: a record is an object of a few levels"
        ) from error
    except ValueError as error:
        raise RecordError("not JSON", f"{where} is not JSON: {error}") from error


def _read_json(file: InputFile, columns: Sequence[str], header: Sequence[str]) -> Iterator[FileRecord]:
    """JSON lines, or one JSON document: the content decides, because either is published under either ending."""
    if _is_document(file):
        yield from _read_document(file)
        return
    with file.stream() as stream:
        for number, line in enumerate(stream.lines(MAX_LINE_BYTES), 1):
            where = f"{file.where} line {number:,}"
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise RecordError(
                        "too long for one record",
                        f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB, which is too long for one record",
                    )
                if line.strip():
                    yield FileRecord(where, parse_object(line, where), stream.offset)
            except RecordError as error:
                yield FileRecord(where, {}, stream.offset, error)


def _is_document(file: InputFile) -> bool:
    """Whether the file is one JSON document: its first line with text is no JSON value, or the only line."""
    with file.stream() as stream:
        lines = (line for line in stream.lines(MAX_LINE_BYTES) if line.strip())
        first = next(lines, None)
        if first is None:
            return False
        first = first.removeprefix(codecs.BOM_UTF8).lstrip()
        if len(first) > BLOCK_BYTES:  # a list is read element by element, however long its line
            return first.startswith(b"[")
        try:
            value = _parse(first, file.where)
        except ValueError:
            # A broken first line of a .jsonl file is an error of that line, unless a list begins there.
            return file.ending not in LINE_ENDINGS or first.startswith(b"[")
        if isinstance(value, dict):
            return False
        return file.ending not in LINE_ENDINGS or (isinstance(value, list) and next(lines, None) is None)


def _read_document(file: InputFile) -> Iterator[FileRecord]:
    """A list of records, one element after another; or one object, held in memory whole."""
    with file.stream() as stream:
        first = stream.read(BLOCK_BYTES)
        if first.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
            yield from _list_elements(file.where, first, stream)
            return
        content = first + stream.read_limited(MAX_LINE_BYTES, "one JSON object")
        value = _parse(content.removeprefix(codecs.BOM_UTF8), file.where)
        if not isinstance(value, dict):
            raise ValueError(f"{file.where} holds {kind_of(value)}: a list of objects is expected")
        yield FileRecord(file.where, value, stream.offset)


def _list_elements(where: str, first: bytes, stream: ByteStream) -> Iterator[FileRecord]:
    """The elements of a JSON list, with about one of them in memory."""
    decoder, text_of, number = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")(), 0
    text, wanted, ended = "", BLOCK_BYTES, False
    try:
        text = text_of.decode(first.removeprefix(codecs.BOM_UTF8)).lstrip().removeprefix("[")
        while True:
            position = _skip(text, 0, " \t\r\n,")
            while position < len(text) and text[position] != "]":
                try:
                    value, end = decoder.raw_decode(text, position)
                except ValueError:
                    if ended:
                        raise
                    break
                if end == len(text) and not ended:  # a number may go on
                    break
                number += 1
                place = f"{where} element {number:,}"
                error = None
                if not isinstance(value, dict):
                    error = RecordError("not an object", f"{place} is not an object but {kind_of(value)}")
                yield FileRecord(place, {} if error else value, stream.offset, error)
                position, wanted = _skip(text, end, " \t\r\n,"), BLOCK_BYTES
            if position < len(text) and text[position] == "]":
                return
            text = text[position:]
            if ended:
                raise ValueError("it ends within the list")
            if len(text) > MAX_LINE_BYTES:
                raise ValueError(f"element {number + 1:,} is longer than {MAX_LINE_BYTES >> 20} MiB")
            # An element that did not fit is parsed again when the text has doubled, so that the work stays linear.
            wanted = max(BLOCK_BYTES, len(text))
            block = stream.read(wanted)
            ended = not block
            text += text_of.decode(block, final=ended)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 (after element {number:,}); convert it first") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply: a record is an object of a few levels") from error
    except ValueError as error:
        if str(error).startswith(where):
            raise
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"{where} is not JSON after element {number:,}: {reason}") from error


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _read_csv(file: InputFile, columns: Sequence[str], header: Sequence[str]) -> Iterator[FileRecord]:
    """Rows of text cells; the first row names the columns unless `header` does."""
    csv.field_size_limit(MAX_LINE_BYTES)
    decoder = TextDecoder(file.where)
    with file.stream() as stream:
        lines = text_lines(stream, decoder, MAX_LINE_BYTES)
        first = next(lines, "")
        names = list(header)
        rows = csv.reader(itertools.chain([first], lines), delimiter=_delimiter(file, first))
        try:
            for number, cells in enumerate(rows, 1):
                where = f"{file.where} row {number:,}"
                if not cells:
                    continue
                if not names:
                    names = cells
                    _check_header(file.where, names)
                    continue
                if len(cells) != len(names):
                    sentence = f"{where} has {len(cells)} cells, not {len(names)}: {_shortened(names)}"
                    error = RecordError("another number of cells than the header", sentence)
                    yield FileRecord(where, {}, stream.offset, error)
                else:
                    yield FileRecord(where, dict(zip(names, cells)), stream.offset)
        except csv.Error as error:
            raise ValueError(f"{file.where} is not a readable csv file ({error})") from error
    file.remarks[:] = decoder.encoding_remarks()


def numbered_header(file: InputFile) -> list[str]:
    """Numbers from 1 as names of the columns of a CSV file without a header."""
    csv.field_size_limit(MAX_LINE_BYTES)
    with file.stream() as stream:
        lines = text_lines(stream, TextDecoder(file.where), MAX_LINE_BYTES)
        first = next(lines, "")
        rows = csv.reader(itertools.chain([first], lines), delimiter=_delimiter(file, first))
        return [str(number) for number in range(1, len(next(rows, [])) + 1)]


def _delimiter(file: InputFile, first: str) -> str:
    """A tab in .tsv files; else a comma, or what the first row has and commas it has not."""
    if file.ending == ".tsv":
        return "\t"
    return "," if "," in first else max(",;\t|", key=first.count) if any(d in first for d in ";\t|") else ","


def _check_header(where: str, names: Sequence[str]) -> None:
    """Refuse a first row that cannot be one of names.

    Raises:
        ValueError: it holds a name twice, numbers alone, or a long text.
    """
    named = [name.strip() for name in names if name.strip()]
    numbers = all(name.lstrip("+-").replace(".", "", 1).isdigit() for name in named)
    if numbers or len(set(named)) < len(named) or any(len(name) > MAX_COLUMN_CHARS for name in named):
        shown = _shortened([name if len(name) <= 40 else name[:40] + "…" for name in names], 5)
        raise ValueError(
            f"{where} has no header: its first row is {shown}; put a row with the names of the columns above it"
        )


def _read_parquet(file: InputFile, columns: Sequence[str], header: Sequence[str]) -> Iterator[FileRecord]:
    import pyarrow.parquet as pq

    with (
        _arrow_errors(file.where, "parquet"), file.seekable() as raw,
        pq.ParquetFile(raw, buffer_size=BLOCK_BYTES, pre_buffer=False) as table,
    ):  # fmt: skip
        # One row group is read at a time, and of it a few hundred rows, so that memory does not follow the file.
        known = bool(columns) and set(columns) <= set(table.schema_arrow.names)
        size, rows, number = _size(file, raw), max(1, table.metadata.num_rows), 0
        for batch in table.iter_batches(PARQUET_ROWS, columns=list(columns) if known else None, use_threads=False):
            for fields in batch.to_pylist():
                number += 1
                yield FileRecord(f"{file.where} row {number:,}", fields, size(number / rows))


def _read_arrow(file: InputFile, columns: Sequence[str], header: Sequence[str]) -> Iterator[FileRecord]:
    """Arrow IPC, as a stream (`datasets.save_to_disk` writes it) or as a file with an index."""
    import pyarrow as pa

    with _arrow_errors(file.where, "arrow"), file.seekable() as raw:
        on_disk = file.path is not None and not file.is_compressed()
        source = pa.memory_map(str(file.path)) if on_disk else pa.PythonFile(raw, "r")
        size, total = _size(file, raw), max(1, source.size())
        batches: Any
        try:
            batches = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            source.seek(0)
            table = pa.ipc.open_file(source)
            batches = (table.get_batch(number) for number in range(table.num_record_batches))
        number = 0
        for batch in batches:
            for fields in batch.to_pylist():
                number += 1
                yield FileRecord(f"{file.where} row {number:,}", fields, size(source.tell() / total))


def _size(file: InputFile, raw: Any) -> Callable[[float], int]:
    """The offset in the file on disk, from the share of a table that was read."""
    outer = file.outer_offset
    if outer is not None:
        return lambda share: outer()
    stored = file.stored_bytes()
    return lambda share: min(stored, int(share * stored))


@contextmanager
def _arrow_errors(where: str, kind: str) -> Iterator[None]:
    """Turn the library's errors about a file into one sentence."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; those about a damaged file have none
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{where} is not a readable {kind} file ({reason}); fetch or write it again") from error


Reader = Callable[[InputFile, Sequence[str], Sequence[str]], Iterator[FileRecord]]
READERS: dict[str, Reader] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
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
