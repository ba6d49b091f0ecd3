"""Names that all data folders share, tokens and messages alike, and the comparison of two requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPLITS = ("train", "val")
MANIFEST = "manifest.json"
PARTIAL = ".partial"
CACHE = Path("data/.cache")
"""Downloads are kept here."""


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The settings in which two requests differ, for a sentence."""
    return "other " + ", ".join(key for key in other if one.get(key) != other[key])
