"""The rows of `--filter` beside the steps of datatrove that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.formatters import PIIFormatter


def datatrove_chains() -> dict[str, list[Any]]:
    """The steps of datatrove by the name of a row."""
    gopher = [GopherRepetitionFilter(), GopherQualityFilter()]
    fineweb = [C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]
    return {
        "gopher": gopher, "c4": [C4QualityFilter()], "fineweb": [*gopher, *fineweb],
        "pii": [PIIFormatter(email_replacement="email@example.com", ip_replacement="22.214.171.124")],
    }  # fmt: skip


def filtered_by_both(steps: Mapping[str, Any], chain: Iterable[Any], text: str) -> tuple[str | None, str | None]:
    """What our steps make of a text and what those of datatrove do; None where it is dropped."""
    expected = [Document(text=text, id="0")]
    for step in chain:
        expected = list(step.run(iter(expected)))
    ours: str | None = text
    for our_step in steps.values():
        ours = our_step(ours).text if ours is not None else None
    return ours, expected[0].text if expected else None
