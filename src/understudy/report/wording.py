"""Texts of numbers and hashes on the report's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

MISSING = "–"


def number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}%"


def count(value: float | None, unit: str = "") -> str:
    return MISSING if value is None else f"{value:,} {unit}".rstrip()


def interval(values: Mapping[str, Any], name: str, digits: int | Literal["percent"]) -> str:
    """The interval of a value in brackets; empty if it has none."""
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    if low is None or high is None:
        return ""
    if digits == "percent":
        return f"[{percent(low)}, {percent(high)}]"
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def plain(value: Any) -> str:
    return MISSING if value is None or value == "" else str(value)


def joined(*parts: Any, gap: str = " · ") -> str:
    return gap.join(str(part) for part in parts if part not in (None, "", MISSING)) or MISSING


def short_hash(sha256: Any) -> str | None:
    return f"sha256 {str(sha256)[:12]}…" if sha256 else None


def at_most(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters].rstrip() + " …"
