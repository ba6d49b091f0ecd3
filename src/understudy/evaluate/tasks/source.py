"""Where a public task's questions come from: a file or folder given by the user, or else the hub.

What the rows mean is each task's own business.
"""

from __future__ import annotations

import codecs
import csv
import fnmatch
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.fetch.download import UnavailableError
from understudy.data.fetch.hub import HubDataset, fetch_file, list_dataset
from understudy.tokenizer.base import clean

Row = dict[str, Any]
CACHE = Path("data/.cache/hub")  # where `prepare` keeps what it fetches from the hub
ENDINGS = (".jsonl", ".parquet", ".csv")


@dataclass(frozen=True)
class TaskData:
    """Files of one split. ``repo`` and ``files`` (a pattern) find them on the hub, and in a folder that is a copy of the
    hub's; in others ``words`` find them, any of them being a part of the file's path below it, whatever the case.
    ``columns`` name those of a csv without a header."""

    task: str
    repo: str
    files: str
    words: tuple[str, ...]
    columns: tuple[str, ...] = ()
    within: str = ""
    """A further word that the path must have where a folder holds several tasks, such as `easy`."""
    without: str = ""
    """A word that it must not have."""


def read_source(source: TaskData, path: Path | None) -> list[tuple[str, Row]]:
    """Every row with where it stands, for complaints.

    Raises:
        ValueError: no such file, nothing of this split in the folder, a hub that cannot be reached, a damaged file.
    """
    return [found for file in _files(source, path) for found in read_rows(file, source.columns)]


def _files(source: TaskData, path: Path | None) -> list[Path]:
    if path is None:
        return _from_hub(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path} with the questions of {source.task}")
    candidates = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in ENDINGS)
    found = [p for p in candidates if fnmatch.fnmatchcase(p.relative_to(path).as_posix(), source.files)]
    found = found or [p for p in candidates if _belongs(p.relative_to(path), source)]
    if not found:
        held = ", ".join(str(p.relative_to(path)) for p in candidates[:5]) or f"no file ending in {', '.join(ENDINGS)}"
        raise ValueError(
            f"{path} has no file for {source.task} with {' or '.join(source.words)} in its name; it holds {held}"
        )
    return found


def _belongs(path: Path, source: TaskData) -> bool:
    """Whether one of the words stands in the path by itself, as in `test.jsonl` or `data/test-00000-of-00001`."""
    spelled = path.as_posix().lower()
    for mark in "/.-_":
        spelled = spelled.replace(mark, " ")
    words = spelled.split()
    fits = not source.within or source.within in words
    return fits and source.without not in words and any(word in words for word in source.words)


def _from_hub(source: TaskData) -> list[Path]:
    try:
        listing = list_dataset(HubDataset(source.repo, files=source.files))
        return [fetch_file(source.repo, listing.revision, file, CACHE) for file in listing.files]
    except UnavailableError as error:
        raise ValueError(
            f"the questions of {source.task} are not here: {error}; or give their file or folder with --task-data"
        ) from error


def read_rows(path: Path, columns: Iterable[str] = ()) -> list[tuple[str, Row]]:
    """The rows of a jsonl, parquet or csv file, each with its place.

    Raises:
        ValueError: a damaged file, with its name and the line.
    """
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix == ".csv":
        return _read_csv(path, list(columns))
    if path.suffix not in readers:
        raise ValueError(f"cannot read {path}: its ending is none of {', '.join(ENDINGS)}")
    return readers[path.suffix](path)


def _read_jsonl(path: Path) -> list[tuple[str, Row]]:
    rows = []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:  # of JSON or of UTF-8
            raise ValueError(f"{where} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is not a JSON object; a file of questions has one object a line")
        rows.append((where, row))
    return rows


def _read_parquet(path: Path) -> list[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable parquet file ({str(error).splitlines()[0]})") from error
    return [(f"{path} row {number}", row) for number, row in enumerate(rows, 1)]


def _read_csv(path: Path, columns: list[str]) -> list[tuple[str, Row]]:
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, cells in enumerate(csv.reader(file), 1):
                if cells and len(cells) != len(columns):
                    raise ValueError(f"{path} row {number} has {len(cells)} cells, not {', '.join(columns)}")
                rows.append((f"{path} row {number}", dict(zip(columns, cells))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable csv file ({error})") from error
    return [(where, row) for where, row in rows if row]


def text_of(row: Row, field: str, where: str) -> str:
    """A field that must hold text.

    Raises:
        ValueError: it does not.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} has no text in {field!r}; its fields are {', '.join(map(str, row)) or 'none'}")
    return clean(value)


def texts_of(values: Any, what: str, where: str) -> tuple[str, ...]:
    """A list of two texts or more, such as choices.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(values, list | tuple) or len(values) < 2 or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{where} has no list of two texts or more in {what!r}")
    return tuple(clean(value) for value in values)
