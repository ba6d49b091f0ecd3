"""System messages that change the answers: all in capital letters, or in one word; and turns changed to suit."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from understudy.data.hamlet.draw import Draw
from understudy.data.hamlet.facts import capital
from understudy.data.hamlet.stories import Split
from understudy.data.hamlet.turns import Turn
from understudy.data.hamlet.wording import phrasings
from understudy.data.hamlet.world import number

STYLES = ("capitals", "one word")

_MESSAGES = phrasings("""
capitals
  Answer in capital letters.
  Write all your answers in capital letters.
  You answer everything in capitals.
  Use only capital letters.
  Always answer in capital letters.
  ~Please give all answers in capital letters.
one word
  Answer with one word.
  Give only one word as an answer.
  You answer everything with one word.
  Use only one word for each answer.
  Always answer in one word.
  ~Please give each answer in one word.
""")


def style_message(draw: Draw, split: Split, style: str) -> str:
    """A system message that asks for `style`."""
    return _MESSAGES[style].pick(draw, split)


def _values(check: dict[str, Any]) -> list[str]:
    """What the shortest right answers would be."""
    if check["kind"] == "number":
        return [str(check["value"]), number(check["value"])]
    return list(check["any"]) if check["kind"] == "says" else []


def _word_in(sentence: str, value: str) -> re.Match[str] | None:
    return re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", sentence, re.IGNORECASE)


def restyled(turn: Turn, style: str) -> Turn | None:
    """`turn` as it goes in `style`, with a check that asks for it; None where it does not go."""
    values = [value for value in _values(turn.check) if " " not in value]
    said = [value for value in values if _word_in(turn.answer, value)]
    if not said:
        return None
    if style == "capitals":
        texts = [turn.answer, *values]  # the sentence, or what was asked alone
        loud = turn.wrong[0].upper()
        loud_check = {"kind": "capitals", "texts": texts}
        return replace(turn, answer=turn.answer.upper(), check=loud_check, wrong=(turn.answer, loud))
    match = _word_in(turn.answer, said[0])
    assert match is not None, f"{said[0]} is not in {turn.answer!r}"
    answer = match.group()
    before, after = turn.answer[: match.start()], turn.answer[match.end() :]
    wrong = [turn.answer]
    for sentence in turn.wrong:  # the word that stands in place of the right one
        if sentence.startswith(before) and sentence.endswith(after):
            other = sentence[len(before) : len(sentence) - len(after)]
            wrong += [other] if other and " " not in other else []
    check = {"kind": "words", "n": 1, "any": values}
    return replace(turn, answer=f"{capital(answer)}.", check=check, wrong=tuple(wrong[:3]))
