"""Judging answers to instructions: so many words, this order, capitals, a list, a tale to order, a greeting.

Each function of KINDS takes a check (plain JSON) and an answer and says 1.0 or 0.0, as a careful person would:
case, punctuation and a lead-in such as "Here it is:" do not matter where the instruction does not concern them,
wrong or further content does. Facts are judged in checker.py, which takes these kinds in.
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
# Words that a list may be wrapped in: "first the cup, then the hat", "the animals are goat and hen".
_FILLERS = frozenset((
    "a", "an", "the", "and", "then", "first", "next", "last", "finally", "after", "that", "is", "are", "was", "it",
    "they", "them", "these", "those", "of", "in", "at", "order", "only", "all", "both", "animal", "animals", "thing",
    "things", "list", "comes", "come",
))  # fmt: skip


def _readings(answer: str) -> Iterator[str]:
    """The answer as it stands, and without a lead-in."""
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
    """The words of `text` that count, numbers as digits; what frames a list is left out unless asked for."""
    digits = _digits()
    asked = {word for item in items for word in _words(item.casefold())}
    words = _words(_MARKER.sub("", text).casefold())
    return [digits.get(word, word) for word in words if word in asked or word not in _FILLERS]


def _same(text: str) -> str:
    return " ".join(_words(text.casefold()))


def words(check: Check, answer: str) -> float:
    """Exactly `n` words; `any`: one of these is among them; `only`: no word but this one."""

    def right(text: str) -> bool:
        found = [word.casefold() for word in _words(text)]
        wanted = [word.casefold() for word in check.get("any", ())]
        only = check.get("only")
        return (
            len(found) == check["n"]
            and (not wanted or any(word in found for word in wanted))
            and (only is None or set(found) == {only.casefold()})
        )

    return float(any(map(right, _readings(answer))))


def order(check: Check, answer: str) -> float:
    """These `items`, in this order, and no others."""
    items = check["items"]
    wanted = _content(" ".join(items), items)
    return float(any(_content(text, items) == wanted for text in _readings(answer)))


def only(check: Check, answer: str) -> float:
    """Exactly these `items`, in any order, each once."""
    items = check["items"]
    wanted = sorted(_content(" ".join(items), items))
    return float(any(sorted(_content(text, items)) == wanted for text in _readings(answer)))


def capitals(check: Check, answer: str) -> float:
    """One of `texts` in capital letters."""
    wanted = [_words(text.upper()) for text in check["texts"]]
    return float(any(_words(text) in wanted for text in _readings(answer)))


def one_a_line(check: Check, answer: str) -> float:
    """These `items` in this order, one on each line; a first line that ends in a colon may introduce them."""
    items = check["items"]
    wanted = [_content(item, items) for item in items]
    lines = [line for line in answer.splitlines() if line.strip()]
    if len(lines) == len(wanted) + 1 and lines[0].rstrip().endswith(":"):
        lines = lines[1:]
    return float([_content(line, items) for line in lines] == wanted)


def repeat(check: Check, answer: str) -> float:
    """This `text`, word for word."""
    return float(any(_same(text) == _same(check["text"]) for text in _readings(answer)))


def _sentences(text: str) -> list[str]:
    return [s.strip() for s in re.split(r"(?<=[.!?])[\"”']?\s+", text.strip()) if s.strip()]


def tale(check: Check, answer: str) -> float:
    """A short story: `least` to `most` sentences that name each of `about`; not the request again, nothing twice."""

    def right(text: str) -> bool:
        sentences = _sentences(text)
        found = set(_words(text.casefold()))
        plain = [_same(s) for s in sentences]
        return (
            check["least"] <= len(sentences) <= check["most"]
            and text.rstrip("\"”'")[-1:] in (".", "!")
            and all(word.casefold() in found for word in check["about"])
            and len(set(plain)) == len(plain)
            and all(len(s.split()) >= 3 for s in plain)
            and not any(re.match(r"(write|tell|make|invent|please)\b", s) for s in plain)
        )

    return float(any(map(right, _readings(answer))))


# What a friendly answer to each kind of small talk has one of, and what would not fit.
_FITTING: dict[str, tuple[str, str]] = {
    "hello": (r"hello|hi|good (?:morning|day|evening|afternoon)|welcome|greetings", r"goodbye|bye|good night"),
    "how": (r"well|fine|good|happy|great", r"goodbye|bye|not|bad|sad"),
    "thanks": (r"welcome|pleasure|gladly|glad|any time|happy to help", r"hello|goodbye|bye"),
    "goodbye": (r"goodbye|bye|see you|good night|farewell|sleep well|come again", r"hello|good morning|thank"),
    "who": (r"understudy|assistant", r"goodbye|bye"),
    "can": (r"questions?|stor(?:y|ies)|sums?|help|lists?", r"goodbye|bye|cannot"),
}  # fmt: skip


# Whom a greeting calls by name: "Good day, Sam!"
_CALLED = re.compile(r"\b(?i:hello|hi|welcome|goodbye|morning|evening|day),? (?:to )?([A-Z][a-z]+)\b")


@functools.cache
def _claims() -> frozenset[str]:
    """Words by which an answer would claim a fact of the village: names, trades, places, numbers from two on."""
    world = village()
    names = {*world.people, *world.animals, *world.visitors, *world.reserved_visitors}
    things = {*world.trades, *world.places, *world.things} - {"well", "green", "ring"}
    return frozenset(w.casefold() for w in names | things) | {number(n) for n in range(2, 100)}


def greeting(check: Check, answer: str) -> float:
    """A friendly answer that fits small talk `of` this kind and claims no facts; `name`: whom it may call by name."""
    fits, jars = _FITTING[check["of"]]
    text = answer.casefold()
    found = _words(text)
    free = {check.get("name", "").casefold()}
    called = {name.casefold() for name in _CALLED.findall(answer)} - {"hamlet"}
    return float(
        0 < len(found) <= 30
        and re.search(rf"\b(?:{fits})\b", text) is not None
        and re.search(rf"\b(?:{jars}|the well|the green)\b", text) is None
        and called <= free
        and not any((word in _claims() and word not in free) or word.isdigit() for word in found)
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
