"""Greetings and small talk, with friendly answers that state no facts. greetings_words.py has the phrasings."""

from __future__ import annotations

from typing import Any

from understudy.hamlet.draw import Draw
from understudy.hamlet.greetings_words import TALK
from understudy.hamlet.instructions import visitor_for
from understudy.hamlet.stories import Split
from understudy.hamlet.turns import Turn
from understudy.hamlet.world import village

_TALK_ANSWERS: dict[str, tuple[str, ...]] = {
    "hello": ("Hello! How can I help you?", "Good day! What can I do for you?", "Hello, and welcome to Hamlet!"),
    "name": ("Hello, {name}! How can I help you?", "Good day, {name}! What can I do for you?"),
    "how": ("I am very well, thank you.", "I am well, thank you. How can I help you?"),
    "who": ("I am the understudy of Hamlet.",),
    "thanks": ("You are welcome.", "You are very welcome."),
    "goodbye": ("Goodbye! Come again soon.", "Goodbye, and come again soon!"),
    "can": (
        "I can answer questions about the people of Hamlet, do small sums and tell short stories. "
        "Ask me who the baker is.",
    ),
    "nice": ("All right! What else can I do for you?",),
    "self": ("I am only a small program that knows the village of Hamlet.",),
}  # fmt: skip
_TALK_WRONG: dict[str, tuple[str, ...]] = {
    "hello": ("Goodbye! Come again soon.", "{a} is at the {p}.", "The {p} is old."),
    "name": ("Hello, {a}! How can I help you?", "{a} is at the {p}.", "Goodbye, {name}."),
    "how": ("{a} is very well, thank you.", "You are welcome.", "I am at the {p}."),
    "who": ("I am {a} the {t}.", "I am very well, thank you.", "{a} is the {t}."),
    "thanks": ("Hello! How can I help you?", "{a} said thank you.", "I am the understudy of Hamlet."),
    "goodbye": ("Hello! How can I help you?", "{a} went to the {p}.", "I am very well, thank you."),
    "can": ("I am the {t} of Hamlet.", "{a} can help you at the {p}.", "You are welcome."),
    "nice": ("{a} is glad.", "I am at the {p}.", "The {p} is old."),
    "self": ("I am {a} the {t}.", "{a} is the {t}.", "You are welcome."),
}  # fmt: skip


def talk_turn(draw: Draw, split: Split, *kinds: str) -> Turn:
    """A turn of small talk; `kinds` restricts its kind. In val, the phrasing or the name is held out."""
    kind = draw.pick(kinds or tuple(TALK))
    world = village()
    someone = draw.pick([p for p in world.people.values() if p.trade])
    fields = {
        "name": visitor_for(draw, split),
        "a": someone.name,
        "t": str(someone.trade),
        "p": draw.pick(tuple(world.places)),
    }
    user = TALK[kind].pick(draw, split, new=None if kind == "name" else True).format(**fields)
    check: dict[str, Any] = {"kind": "greeting", "of": "hello" if kind == "name" else kind}
    if kind == "can":
        check["also"] = ["baker"]
    if kind == "name":
        check["name"] = fields["name"]
    answer = draw.pick(_TALK_ANSWERS[kind]).format(**fields)
    return Turn("greeting", user, answer, check, tuple(w.format(**fields) for w in draw.some(_TALK_WRONG[kind], 2)))
