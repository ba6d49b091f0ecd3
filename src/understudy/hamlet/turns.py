"""A turn of a Hamlet conversation: user message, reference answer and check.

The generators of turns and conversations.py share this class; checker.py scores the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STORY_CATEGORIES = ("who", "where", "what", "how-many", "first", "not-said")
CATEGORIES = (
    "greeting", *STORY_CATEGORIES, "village", "sum", "count-words", "order", "capitals", "list", "repeat", "animals",
    "story", "decline",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn. `check` is plain JSON for `checker.score`; `wrong` has plausible answers that score 0.0."""

    category: str
    user: str
    answer: str
    check: dict[str, Any]
    wrong: tuple[str, ...]
