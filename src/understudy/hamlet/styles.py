"""Answer styles: a phrase instead of a sentence, and the styles of system messages (capitals, one word)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from understudy.hamlet.draw import Draw
from understudy.hamlet.facts import capital
from understudy.hamlet.stories import Split
from understudy.hamlet.turns import Turn
from understudy.hamlet.wording import phrasings
from understudy.hamlet.world import number, required

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


# A noun with its article, and for a place with its preposition; an adjective without a noun.
_ENDS = r"(?=\.| (?:at|by|for|from|in|on|to|together|with)\b)"
_PHRASE = {
    "what": r"\b(?:a|an|one|the) {value}" + _ENDS,
    "where": r"\b(?:(?:above|at|behind|below|beside|by|down|in|into|near|on|over|past|to|under|up) )+(?:the )?{value}"
    + _ENDS,
}


def style_message(draw: Draw, split: Split, style: str) -> str:
    """A system message that requires `style`."""
    return _MESSAGES[style].pick(draw, split)


def _values(check: dict[str, Any]) -> list[str]:
    """The shortest correct answers."""
    if check["kind"] == "number":
        return [str(check["value"]), number(check["value"])]
    return list(check["any"]) if check["kind"] == "says" else []


def _word_in(sentence: str, value: str) -> re.Match[str] | None:
    return re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", sentence, re.IGNORECASE)


def shortened(turn: Turn) -> Turn:
    """`turn` with its answer shortened to a phrase if possible: "At the mill." for "Sam met Nora at the mill."."""
    if turn.answer.startswith("It was ") or turn.answer.endswith(" years old."):
        return turn
    say = "It was {}." if turn.category in ("who", "how-many") else "{}."
    for value in _values(turn.check):
        if not (word := _word_in(turn.answer, value)):
            continue
        pattern = _PHRASE["where" if turn.category == "where" else "what"]
        phrase = re.search(pattern.format(value=re.escape(word.group())), turn.answer) or word
        answer, *wrong = (capital(say.format(said)) for said in (phrase.group(), *_replacements(turn, phrase)))
        return replace(turn, answer=answer, wrong=tuple(wrong) or turn.wrong)
    return turn


def restyled(turn: Turn, style: str) -> Turn | None:
    """`turn` with answer and check adapted to `style`; None if the style does not apply."""
    values = [value for value in _values(turn.check) if " " not in value]
    stated = [value for value in values if _word_in(turn.answer, value)]
    if not stated:
        return None
    if style == "capitals":
        texts = [turn.answer, *values]  # the full sentence or a short answer
        upper_wrong = turn.wrong[0].upper()
        upper_check = {"kind": "capitals", "texts": texts}
        return replace(turn, answer=turn.answer.upper(), check=upper_check, wrong=(turn.answer, upper_wrong))
    match = required(_word_in(turn.answer, stated[0]), f"{stated[0]} in {turn.answer!r}")
    answer = match.group()
    wrong = [turn.answer, *(other for other in _replacements(turn, match) if " " not in other)]
    check = {"kind": "words", "n": 1, "any": values}
    return replace(turn, answer=f"{capital(answer)}.", check=check, wrong=tuple(wrong[:3]))


def _replacements(turn: Turn, right: re.Match[str]) -> list[str]:
    """The parts of the wrong answers that replace `right`."""
    before, after = turn.answer[: right.start()], turn.answer[right.end() :]
    fitting = [s for s in turn.wrong if s.startswith(before) and s.endswith(after)]
    return [other for s in fitting if (other := s[len(before) : len(s) - len(after)])]
