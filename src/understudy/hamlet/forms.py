"""Scoring of answers to instructions: word counts, order, capitals, lists, short stories, greetings.

Each function in KINDS maps a check (plain JSON) and an answer to 1.0 or 0.0. Case, punctuation and a lead-in such as
"Here it is:" are ignored unless the instruction concerns them. Wrong or additional content scores 0.0. checker.py
scores facts and includes these kinds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from understudy.hamlet.world import number, village

Check = dict[str, Any]

_LEAD_IN = re.compile(
    r"\s*(?:(?:here|sure|of course|gladly|certainly|yes|okay|with pleasure)\b[^:\n]{0,40}:"
    r"|(?:sure|of course|gladly|certainly|yes|okay|with pleasure)[,.!])\s*",
    re.IGNORECASE,
)
_MARKER = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+(?=\S)", re.MULTILINE)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
# Words that may surround the items of a list: "first the cup, then the hat", "the animals are goat and hen".
_FILLERS = frozenset((
    "a", "an", "the", "and", "then", "first", "next", "last", "finally", "after", "that", "is", "are", "was", "it",
    "they", "them", "these", "those", "of", "in", "at", "order", "only", "all", "both", "animal", "animals", "thing",
    "things", "list", "comes", "come",
))  # fmt: skip


def _readings(answer: str) -> Iterator[str]:
    """The answer unchanged, and without its lead-in if it has one."""
    yield answer.strip()
    match = _LEAD_IN.match(answer)
    if match:
        yield answer[match.end() :].strip()


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


@functools.cache
def _digits() -> dict[str, str]:
    return {number(n): str(n) for n in range(100)}


def _content(text: str, items: list[str]) -> list[str]:
    """Content words of `text`, numbers as digits, without filler words that are not in `items`."""
    digits = _digits()
    asked = {word for item in items for word in _words(item.casefold())}
    words = _words(_MARKER.sub("", text).casefold())
    return [digits.get(word, word) for word in words if word in asked or word not in _FILLERS]


def _same(text: str) -> str:
    return " ".join(_words(text.casefold()))


def words(check: Check, answer: str) -> float:
    """Exactly `n` words; with `any`, at least one of these; with `only`, no other word."""

    def right(text: str) -> bool:
        tokens = [word.casefold() for word in _words(text)]
        wanted = [word.casefold() for word in check.get("any", ())]
        only = check.get("only")
        return (
            len(tokens) == check["n"]
            and (not wanted or any(word in tokens for word in wanted))
            and (only is None or set(tokens) == {only.casefold()})
        )

    return float(any(map(right, _readings(answer))))


def order(check: Check, answer: str) -> float:
    """Exactly these `items`, in this order."""
    items = check["items"]
    wanted = _content(" ".join(items), items)
    return float(any(_content(text, items) == wanted for text in _readings(answer)))


def only(check: Check, answer: str) -> float:
    """Exactly these `items`, in any order, each once."""
    items = check["items"]
    wanted = sorted(_content(" ".join(items), items))
    return float(any(sorted(_content(text, items)) == wanted for text in _readings(answer)))


def capitals(check: Check, answer: str) -> float:
    """Exactly one of `texts`, in capital letters."""
    wanted = [_words(text.upper()) for text in check["texts"]]
    return float(any(_words(text) in wanted for text in _readings(answer)))


def one_a_line(check: Check, answer: str) -> float:
    """These `items` in this order, one on each line; a first line that ends in a colon is ignored."""
    items = check["items"]
    wanted = [_content(item, items) for item in items]
    lines = [line for line in answer.splitlines() if line.strip()]
    if len(lines) == len(wanted) + 1 and lines[0].rstrip().endswith(":"):
        lines = lines[1:]
    return float([_content(line, items) for line in lines] == wanted)


def repeat(check: Check, answer: str) -> float:
    """The same words as `text`."""
    return float(any(_same(text) == _same(check["text"]) for text in _readings(answer)))


def _sentences(text: str) -> list[str]:
    return [s.strip() for s in re.split(r"(?<=[.!?])[\"”']?\s+", text.strip()) if s.strip()]


def tale(check: Check, answer: str) -> float:
    """A short story of `least` to `most` sentences that names all of `about`.

    It does not repeat a sentence or the request.
    """

    def right(text: str) -> bool:
        sentences = _sentences(text)
        tokens = set(_words(text.casefold()))
        plain = [_same(s) for s in sentences]
        return (
            check["least"] <= len(sentences) <= check["most"]
            and text.rstrip("\"”'")[-1:] in (".", "!")
            and all(word.casefold() in tokens for word in check["about"])
            and len(set(plain)) == len(plain)
            and all(len(s.split()) >= 3 for s in plain)
            and not any(re.match(r"(write|tell|make|invent|please)\b", s) for s in plain)
        )

    return float(any(map(right, _readings(answer))))


# For each kind of small talk: a pattern that the answer must contain, and one that it must not contain.
_FITTING: dict[str, tuple[str, str]] = {
    "hello": (r"hello|hi|good (?:morning|day|evening|afternoon)|welcome|greetings", r"goodbye|bye|good night"),
    "how": (r"well|fine|good|happy|great", r"goodbye|bye|not|bad|sad"),
    "thanks": (r"welcome|pleasure|gladly|glad|any time|happy to help", r"hello|goodbye|bye"),
    "goodbye": (r"goodbye|bye|see you|good night|farewell|sleep well|come again", r"hello|good morning|thank"),
    "who": (r"understudy|assistant", r"goodbye|bye"),
    "can": (r"questions?|stor(?:y|ies)|sums?|help|lists?", r"goodbye|bye|cannot|not understand"),
    "nice": (r"all right|glad|happy|good|nice|welcome|great|fine|pleasure", r"goodbye|bye|hello|cannot|not understand"),
    "self": (r"understudy|assistant|program|model|machine|computer", r"goodbye|bye"),
}  # fmt: skip


# The name that a greeting addresses: "Good day, Sam!"
_CALLED = re.compile(r"\b(?i:hello|hi|welcome|goodbye|morning|evening|day),? (?:to )?([A-Z][a-z]+)\b")


@functools.cache
def _claims() -> frozenset[str]:
    """Words that state a fact of the village: names, trades, places, and numbers from two."""
    world = village()
    names = {*world.people, *world.animals, *world.visitors, *world.reserved_visitors}
    things = {*world.trades, *world.places, *world.things} - {"well", "green", "ring"}
    return frozenset(w.casefold() for w in names | things) | {number(n) for n in range(2, 100)}


def greeting(check: Check, answer: str) -> float:
    """A friendly answer to small talk of the kind `of` that states no facts.

    It may address `name` and contain the words in `also`.
    """
    required_pattern, forbidden_pattern = _FITTING[check["of"]]
    text = answer.casefold()
    tokens = _words(text)
    allowed = {check.get("name", "").casefold(), *check.get("also", ())}
    called = {name.casefold() for name in _CALLED.findall(answer)} - {"hamlet"}
    return float(
        0 < len(tokens) <= 30
        and re.search(rf"\b(?:{required_pattern})\b", text) is not None
        and re.search(rf"\b(?:{forbidden_pattern}|the well|the green)\b", text) is None
        and called <= allowed
        and not any((word in _claims() and word not in allowed) or word.isdigit() for word in tokens)
    )


KINDS: dict[str, Callable[[Check, str], float]] = {
    "words": words,
    "order": order,
    "only": only,
    "capitals": capitals,
    "list": one_a_line,
    "repeat": repeat,
    "tale": tale,
    "greeting": greeting,
}
