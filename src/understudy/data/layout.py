"""Names that all data folders share, tokens and messages alike, and the comparison of two requests."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.files import sha256_of

SPLITS = ("train", "val")
MANIFEST = "manifest.json"
PARTIAL = ".partial"
CACHE = Path("data/.cache")
"""Downloads are kept here."""


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The settings in which two requests differ, for a sentence."""
    return "other " + ", ".join(key for key in other if one.get(key) != other[key])


def check_ranges(val_fraction: float | None, limit: int | None) -> None:
    """Refuse a share for validation, or a number of records, that is out of range.

    Raises:
        ValueError: one of them is.
    """
    if val_fraction is not None and not 0 < val_fraction <= 0.5:
        raise ValueError(f"val_fraction must be above 0 and at most 0.5, not {val_fraction}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 of each source, not {limit}")


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
