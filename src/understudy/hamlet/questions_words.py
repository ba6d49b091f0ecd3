"""Text of questions and answers: the frames of questions_frames.py filled with the arguments of an event.

`put` renders a slot, `sentence` a frame, and `frame_question` a question for one slot. questions_told.py decides
which questions are fair.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from understudy.hamlet.checker import fact_words, words_of
from understudy.hamlet.events import Event, Item
from understudy.hamlet.questions_frames import TOKEN, Frame, Part
from understudy.hamlet.world import Animal, Goods, Person, Place, number, required, village

UNSAID = "The story does not say."

# Event field of each slot.
FIELDS = {
    "a": "actor", "b": "other", "c": "third", "z": "animal", "y": "animal", "t": "thing", "u": "second_thing",
    "p": "place", "g": "goods", "h": "second_goods", "n": "count", "k": "total", "x": "detail",
}  # fmt: skip
# Base forms of past tenses in `Event.detail` that are not in the table of trades.
_BASES = {"caught": "catch", "found": "find", "picked": "pick", "counted": "count", "pulled up": "pull up"}


@dataclass(frozen=True, slots=True)
class Query:
    """A question with answer and check; `indirect` is its indirect form: "where Sam found the purse"."""

    category: str
    direct: str
    indirect: str
    answer: str
    check: dict[str, Any]
    wrong: tuple[str, ...]


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


@functools.cache
def _bases() -> dict[str, str]:
    return _BASES | {t.task_did: t.task for t in village().trades.values()}


def an(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _counted(event: Event, n: int, form: str) -> str:
    if form not in ("g", "gwere", "there", "c"):
        return number(n) + (f" {form if n != 1 else form[:-1]}" if form else "")  # "days", "times"
    goods = village().goods["coin"] if form == "c" else required(event.goods, f"{event.telling}: what is counted")
    counted, were = goods.counted(n), "was" if n == 1 else "were"
    return {"gwere": f"{counted} {were}", "there": f"there {were} {counted}"}.get(form, counted)


def put(event: Event, slot: str, form: str, asked: bool = False) -> str:
    """The text of one slot."""
    if slot == "y":
        return required(event.animal).kind
    value = getattr(event, FIELDS[slot])
    if isinstance(value, Person):
        if form == "parent":
            return "father" if value.sex == "m" else "mother"
        return getattr(value, form) if form else value.name
    if isinstance(value, Animal):
        return getattr(value, form) if form else value.name
    if isinstance(value, Item):
        return an(value.noun) if form == "a" and asked else f"the {value.noun}"
    if isinstance(value, Place):
        return value.stands.split(" ", 1)[1] if form == "stood" else getattr(value, form or "the")
    if isinstance(value, Goods):
        return value.many
    if isinstance(value, int):
        return _counted(event, value, form)
    return str(value)


def render(parts: tuple[Part, ...], event: Event, asked: str, but: str = "") -> str:
    """The text of `parts`, without the slots in `but`."""
    words = []
    for part in parts:
        if isinstance(part, str):
            words.append(part)
        elif part[0] not in but:
            words.append(put(event, *part, asked=part[0] == asked))
    return " ".join(words)


def verb(frame: Frame, event: Event) -> tuple[str, str]:
    """Past and base form of the verb."""
    if frame.verb is not None:
        return frame.verb
    detail = required(event.detail)
    return detail, _bases()[detail]


def sentence(frame: Frame, event: Event, asked: str = "", but: str = "") -> str:
    """A frame as a sentence without full stop: `Sam found the purse at the school`."""
    subject, complement = render(frame.subject, event, asked), render(frame.rest, event, asked, but)
    return f"{subject} {verb(frame, event)[0]} {complement}".strip()


def stays(slot: re.Match[str], asked: str) -> bool:
    """Return whether a slot of an answer keeps its value in wrong answers."""
    return slot[2] in ("parent", "kind", "trade") or (slot[1] == "p" and not slot[2]) or (slot[1], asked) == ("z", "y")


def fill(template: str, event: Event, asked: str = "") -> str:
    """The text of a fixed question or answer."""
    return capital(TOKEN.sub(lambda m: put(event, m[1], m[2] or "", m[1] == asked), template))


def facts_of(*texts: str) -> list[str]:
    """The fact words and numbers in `texts`, sorted, without duplicates."""
    known = fact_words()
    return sorted({w for w in words_of(" ; ".join(texts)) if w in known or w.isdigit()})


def frame_question(frame: Frame, event: Event, slot: str, but: str) -> tuple[str, str]:
    """The direct and indirect question for `slot`, without the slots in `but`."""
    past, base = verb(frame, event)
    complement = render(frame.rest, event, "", but + slot)
    if any(part[0] == slot for part in frame.subject if isinstance(part, tuple)):
        words = f"who {past} {complement}".strip()
        return capital(words) + "?", words
    asked = {"p": "where", "n": "how many", "a": "who", "b": "who", "c": "who"}.get(slot, "what")
    if slot == "g":  # the slot "n" includes the goods
        complement = render(frame.rest, event, "", but + "n")
    if slot == "n":
        goods = event.goods or village().goods["coin"]
        asked = f"how many {goods.many}"
    subject = render(frame.subject, event, "")
    direct = f"{capital(asked)} did {subject} {base} {complement}".strip() + "?"
    return direct, f"{asked} {subject} {past} {complement}".strip()


def key_of(event: Event, slot: str) -> str | None:
    """A comparable key of the value in a slot."""
    value = getattr(event, FIELDS[slot])
    if value is None:
        return None
    if isinstance(value, Item):
        return value.noun
    if isinstance(value, Goods):
        return value.one
    return str(value) if isinstance(value, (int, str)) else value.name


def _thing_of(frame: Frame, event: Event) -> tuple[str, str | None]:
    """Kind and key of the patient of the action; the kind of goods for an amount."""
    for slot, role in frame.roles.items():
        if role == "thing":
            if slot in "ng":
                return "goods", event.goods.one if event.goods else "coin"
            return "person" if slot == "b" else "thing", key_of(event, slot)
    return "", None


def roles_of(frame: Frame, event: Event) -> dict[str, str | None]:
    roles = {role: key_of(event, slot) for slot, role in frame.roles.items() if role != "thing"}
    return roles | {"kind": _thing_of(frame, event)[0], "thing": _thing_of(frame, event)[1], "mark": frame.mark}
