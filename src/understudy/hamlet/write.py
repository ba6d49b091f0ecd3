"""Conversations, preferences, judgements and prompts of Hamlet as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from understudy.hamlet.conversations import conversations, prompts
from understudy.hamlet.stories import Split

# Number of rows of each kind in a corpus (docs/internals/hamlet.md has its size).
DEFAULT_COUNTS: dict[str, dict[Split, int]] = {
    "conversations": {"train": 20_000, "val": 500},
    "preferences": {"train": 5_000, "val": 500},
    "judgements": {"train": 5_000, "val": 500},
    "prompts": {"train": 5_000, "val": 500},
}


def write_lines(kind: str, seed: int, split: Split, n: int) -> Iterator[str]:
    """Iterate over the first `n` rows of "conversations", "preferences", "judgements" or "prompts" as lines of JSON.

    Raises:
        ValueError: `kind` is unknown.
    """
    from understudy.hamlet.preferences import judgements, preferences

    rows: Iterator[dict[str, Any]]
    if kind == "conversations":
        rows = (conv.to_json() for conv in conversations(seed, split))
    elif kind == "preferences":
        rows = preferences(seed, split)
    elif kind == "judgements":
        rows = judgements(seed, split)
    elif kind == "prompts":
        rows = prompts(seed, split)
    else:
        raise ValueError(f"kind is {kind!r}; Hamlet writes {', '.join(DEFAULT_COUNTS)}")
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in islice(rows, n))
