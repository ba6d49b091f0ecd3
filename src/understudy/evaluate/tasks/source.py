"""The questions of a public task: a file or folder given by the user, or else the hub.

data/records.py reads the files; the meaning of a row is up to each task.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.fetch.download import UnavailableError
from understudy.data.fetch.hub import HubDataset, fetch_file, list_dataset
from understudy.data.find import LIBRARY_FILES
from understudy.data.layout import CACHE
from understudy.data.records import READERS, file_ending, read_records
from understudy.evaluate.task import Task
from understudy.tokenizer.base import clean

Row = dict[str, Any]


@dataclass(frozen=True)
class TaskData:
    """Files of one split.

    Attributes:
        repo, files: the dataset on the hub, and a pattern for its files, also in a folder that is a copy of it.
        words: in other folders, words of which a file's path has one.
        columns: the columns of a CSV file without a header row.
        within: a further word that the path must have where a folder holds several tasks, such as `easy`.
        without: a word that it must not have.
    """

    task: str
    repo: str
    files: str
    words: tuple[str, ...]
    columns: tuple[str, ...] = ()
    within: str = ""
    without: str = ""


class PublicTask(Task):
    """A task whose questions are read from ``path``, or by default from the hub."""

    def __init__(self, path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(few_shot)
        self.path = path


def read_source(source: TaskData, path: Path | None) -> list[tuple[str, Row]]:
    """Every row with its place, for error messages.

    Raises:
        ValueError: no such file, nothing of this split in the folder, a hub that cannot be reached, a damaged file.
    """
    return [row for file in _files(source, path) for row in read_rows(file, source.columns)]


def _files(source: TaskData, path: Path | None) -> list[Path]:
    if path is None:
        return _from_hub(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path} with the questions of {source.task}")
    candidates = [p for p in sorted(path.rglob("*")) if p.is_file() and file_ending(p)[0] in READERS]
    candidates = [p for p in candidates if p.name not in LIBRARY_FILES]
    files = [p for p in candidates if fnmatch.fnmatchcase(p.relative_to(path).as_posix(), source.files)]
    files = files or [p for p in candidates if _belongs(p.relative_to(path), source)]
    if not files:
        listed = (
            ", ".join(str(p.relative_to(path)) for p in candidates[:5]) or f"no file ending in {', '.join(READERS)}"
        )
        raise ValueError(
            f"{path} has no file for {source.task} with {' or '.join(source.words)} in its name; it holds {listed}"
        )
    return files


def _belongs(path: Path, source: TaskData) -> bool:
    """Whether one of the words stands in the path by itself, as in `test.jsonl` or `data/test-00000-of-00001`."""
    words = re.split(r"[/._-]+", path.as_posix().lower())
    fits = not source.within or source.within in words
    return fits and source.without not in words and any(word in words for word in source.words)


def _from_hub(source: TaskData) -> list[Path]:
    try:
        listing = list_dataset(HubDataset(source.repo, files=source.files))
        return [fetch_file(source.repo, listing.revision, file, CACHE / "hub") for file in listing.files]
    except UnavailableError as error:
        raise ValueError(
            f"the questions of {source.task} are not here: {error}; or give their file or folder with --task-data"
        ) from error


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[tuple[str, Row]]:
    """The rows of a file of records, each with its place.

    Args:
        columns: the names of the columns of a CSV file without a header row.

    Raises:
        ValueError: a damaged file, with its name and the line.
    """
    return [(record.where, record.fields) for record in read_records(path, header=columns)]


def text_of(row: Row, field: str, where: str) -> str:
    """A field that must hold text.

    Raises:
        ValueError: it does not.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} has no text in {field!r}; its fields are {', '.join(map(str, row)) or 'none'}")
    return clean(value)


def texts_of(values: Any, field: str, where: str) -> tuple[str, ...]:
    """A field that must hold a list of two texts or more, such as choices.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(values, list | tuple) or len(values) < 2 or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{where} has no list of two texts or more in {field!r}")
    return tuple(clean(value) for value in values)
