"""Messages as people type them: in lower case, without punctuation, with short forms."""

from __future__ import annotations

import re
from dataclasses import replace

from understudy.hamlet.draw import Draw
from understudy.hamlet.turns import Turn

# Categories whose messages may be typed so. Other instructions depend on case, and stories have a text to read.
TYPED = ("greeting", "village", "sum", "story", "decline")

_CONTRACTIONS = (
    (r"\b(what|who|where|how) is\b", r"\1's"), (r"\b(I) am\b", r"\1'm"), (r"\b(do|does|is|are) not\b", r"\1n't"),
    (r"\b(ca)nnot\b", r"\1n't"),
)  # fmt: skip
_SPELLINGS = ((r"\bare you\b", "r u"), (r"\byou\b", "u"), (r"\bplease\b", "pls"))
_BEFORE = ("hey, ", "hi, ", "please ", "ok ", "so ", "hello, ", "um ")


def typed(draw: Draw, turn: Turn) -> Turn:
    """`turn` with its message as people type it; its answer and check stay the same."""
    if turn.category not in TYPED:
        return turn
    text = turn.user
    apostrophe = draw.pick(("'", "'", ""))
    for pattern, short in _CONTRACTIONS:
        if draw.chance(0.6):
            text = re.sub(pattern, short.replace("'", apostrophe), text, flags=re.IGNORECASE)
    for pattern, short in _SPELLINGS:
        if draw.chance(0.15):
            text = re.sub(pattern, short, text, flags=re.IGNORECASE)
    if draw.chance(0.65):
        text = text.rstrip(".?!") or text
    elif draw.chance(0.15):
        text = re.sub(r"[?!]$", lambda end: 2 * end[0], text)
    text = text.lower() if draw.chance(0.75) else text[:1].lower() + text[1:]
    if turn.category != "greeting" and draw.chance(0.06):
        text = draw.pick(_BEFORE) + text
    return replace(turn, user=text)
