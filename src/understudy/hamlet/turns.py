"""One exchange of a Hamlet conversation: what the user says, a good answer, and how any answer is judged.

Here is only the shape that the writers of questions (`questions_*.py`, …) and `conversations.py` share; judging is
checker.py's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STORY_CATEGORIES = ("who", "where", "what", "how-many", "first", "not-said")
CATEGORIES = (
    "greeting", *STORY_CATEGORIES, "village", "sum", "count-words", "order", "capitals", "list", "repeat", "animals",
    "story",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """``check`` is plain JSON for `checker.score`; each of ``wrong`` is a plausible answer that it judges wrong."""

    category: str
    user: str
    answer: str
    check: dict[str, Any]
    wrong: tuple[str, ...]
