"""What all data folders share, tokens and messages alike: names, the manifest, and checks of what they hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from understudy import __version__
from understudy.files import sha256_of

FORMAT = 1
Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
MANIFEST = "manifest.json"
PARTIAL = ".partial"
CACHE = Path("data/.cache")
"""Downloads are kept here."""


T = TypeVar("T")


def read_manifest(folder: Path, parse: Callable[[dict[str, Any]], T]) -> T | None:
    """The manifest of a data folder, as `parse` reads it; None where it has none.

    Raises:
        ValueError: see parse_manifest.
    """
    path = folder / MANIFEST
    return parse_manifest(path.read_bytes(), str(path), parse) if path.is_file() else None


def parse_manifest(content: bytes, path: str, parse: Callable[[dict[str, Any]], T]) -> T:
    """The content of a manifest, as `parse` reads it.

    Raises:
        ValueError: the manifest is damaged, of a later format, or refused by `parse`.
    """
    try:
        raw = json.loads(content.decode("utf-8"))
        if raw["format"] != FORMAT:
            raise ValueError(f"{path} has format {raw['format']}, this version reads {FORMAT}: prepare the data again")
        return parse(raw)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): prepare the data again with --force") from error


def check_folder(folder: Path, other_ending: str, contents: str) -> None:
    """Refuse a file, and a folder with data of another kind.

    Raises:
        ValueError: it is one.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give --out a folder")
    if any((folder / f"{split}{other_ending}").exists() for split in SPLITS):
        raise ValueError(f"{folder} holds {contents}: give another --out")


def check_same(folder: Path | str, contents: str, present: dict[str, Any], request: dict[str, Any]) -> None:
    """Compare the request that a folder was made for with the present one.

    Raises:
        ValueError: they differ.
    """
    if differing := [key for key in request if present.get(key) != request[key]]:
        raise ValueError(
            f"{folder} holds {contents} (other {', '.join(differing)}): give another --out, or replace it with --force"
        )


def check_version(folder: Path | str, version: str) -> None:
    """Refuse tasks of a preparation that another version of this package began.

    Raises:
        ValueError: it did.
    """
    if version != __version__:
        raise ValueError(
            f"{folder} was begun by version {version} of Understudy, and this is {__version__}: use one version for all tasks, "
            "or begin anew with --force"
        )


def check_size(file: Path, size_bytes: int) -> None:
    """Compare the size of a file with the one in the manifest.

    Raises:
        ValueError: the file is missing, or was cut short or replaced.
    """
    if not file.is_file():
        raise ValueError(f"{file} is not there any more: prepare it again with --force")
    if (size := file.stat().st_size) != size_bytes:
        raise ValueError(
            f"{file} has {size:,} bytes where its manifest says {size_bytes:,}: it was cut short or replaced; prepare it "
            "again with --force"
        )


def check_hash(file: Path, sha256: str) -> None:
    """Compare a file with the hash of the bytes that were written into it.

    Raises:
        ValueError: they differ.
    """
    if (actual := sha256_of(file)) != sha256:
        raise ValueError(
            f"{file} has the SHA-256 {actual[:12]}… where {sha256[:12]}… was written: it was changed or damaged since; "
            "prepare it again with --force"
        )


def put_in_place(folder: Path, names: Sequence[str]) -> None:
    """Rename finished files out of .partial, the manifest last; a run that was cut off here may do it again."""
    partial = folder / PARTIAL
    # An old manifest never stands beside new data.
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in names:
        if (partial / name).is_file():
            (partial / name).replace(folder / name)
    shutil.rmtree(partial)
