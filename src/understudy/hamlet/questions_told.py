"""Questions that a story answers (who, where, what, how many), each with its check.

`Telling` indexes one story. `specs` lists candidate questions cheaply; `ask` converts a candidate to a `Query`, or
returns None if the question is unfair: the text does not state the answer, or another event gives a second answer.
questions_more.py has unanswerable questions and questions about order.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from understudy.hamlet.checker import words_of
from understudy.hamlet.draw import Draw
from understudy.hamlet.events import Event, Item
from understudy.hamlet.questions_frames import TOKEN, Fixed, Frame, fixed, frames
from understudy.hamlet.questions_words import (
    FIELDS,
    UNSAID,
    Query,
    an,
    facts_of,
    fill,
    frame_question,
    key_of,
    put,
    roles_of,
    sentence,
    stays,
)
from understudy.hamlet.stories import Story, is_reserved
from understudy.hamlet.world import Animal, Goods, Person, Place, required, village

_ASKED_BY = {"a": "who", "b": "who", "c": "who", "p": "where", "t": "what", "u": "what", "g": "what", "n": "how-many"}
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "grey", "brown")
_WEATHER = (
    "sunny", "windy", "rainy", "mild", "grey", "cool", "warm", "hot", "bright", "dry", "golden", "misty", "snowy",
    "frosty", "cold", "still", "clear",
)  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SKILLS = ("row the boat", "tie a good knot", "ring the big bell", "roll the dough", "milk a cow")  # for wrong answers
# Plots that last several days.
_LONG_PLOTS = ("rain", "sick", "visit")


@dataclass(frozen=True, slots=True)
class Spec:
    """A candidate question: a slot of an event with its frame or fixed question, or (without event) a setting fact."""

    category: str
    event: Event | None
    row: Frame | Fixed | None
    slot: str
    value: str = ""


class Telling:
    """An index of one story: its people, places, things, numbers and actions."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.events = story.events
        self.words = set(re.findall(r"[A-Za-z]+(?:-[a-z]+)*", story.text))
        self.people = {
            who.name: who
            for e in story.events
            for who in (e.actor, e.other, e.third, e.animal)
            if who is not None and who.name in self.words
        }
        self.places = {e.place.name: e.place for e in story.events if e.place and e.place.name in self.words}
        self.items = {i.noun: i for e in story.events for i in (e.thing, e.second_thing) if i and i.noun in self.words}
        self.numbers = {n for e in story.events for n in (e.count, e.second_count, e.total) if n is not None}
        self.deeds: dict[str, list[tuple[Event, dict[str, str | None]]]] = {}  # verb group -> events with their roles
        for event in story.events:
            for frame in frames().get(event.telling, ()):
                if frame.verb is not None or event.detail is not None:
                    self.deeds.setdefault(frame.group, []).append((event, roles_of(frame, event)))

    # ---- stated facts ------------------------------------------------------------------------------

    def known(self, event: Event, slot: str) -> bool:
        """Return whether the story mentions the value of the slot anywhere."""
        value = getattr(event, FIELDS[slot])
        if value is None:
            return False
        if isinstance(value, Goods):
            return value.many.split()[0] in self.words or value.one.split()[0] in self.words
        if isinstance(value, (Person, Animal, Place)):
            return value.name in self.words
        if isinstance(value, Item):
            return value.noun in self.words
        return True

    def told(self, event: Event, slot: str) -> bool:
        """Return whether the text of this event states the value of the slot."""
        if slot == "g":  # the text often omits repeated goods: "and ate two of them"
            return event.goods is None or self.known(event, slot)
        return FIELDS[slot] in event.told and self.known(event, slot)

    def complete(self, frame: Frame, event: Event) -> bool:
        """Return whether the event states all slots of the frame; only the place is optional."""
        if frame.verb is None and "detail" not in event.told:
            return False
        return all(slot == "p" or self.told(event, slot) for slot in frame.roles)

    def specs(self) -> Iterator[Spec]:
        """Iterate over the candidate questions."""
        for event in self.events:
            for frame in frames().get(event.telling, ()):
                if self.complete(frame, event):
                    for slot in frame.asks:
                        if self.told(event, slot):
                            yield Spec(_ASKED_BY[slot], event, frame, slot)
            for row in fixed().get(event.telling, ()):
                if self.told(event, row.slot) and all(self.known(event, slot) for slot in row.given):
                    yield Spec(row.category, event, row, row.slot)
        for fact in self.story.facts:
            if fact.kind in ("day", "season", "weather"):
                yield Spec("what", None, None, fact.kind, str(fact.value))
            elif fact.kind == "word":
                yield Spec("what", None, None, fact.subject, str(fact.value))

    def could_be(self, frame: Frame, given: dict[str, str | None]) -> bool:
        """Return whether some event matches a question with these roles. An unspecified role matches any value."""
        return any(
            all(event_roles.get(role) in (None, "", value) for role, value in given.items())
            for group in (frame.group, frame.group + "?")
            for _, event_roles in self.deeds.get(group, ())
        )

    def _unique(self, spec: Spec, but: str) -> bool:
        event, row = required(spec.event), spec.row
        if isinstance(row, Fixed):
            tellings = [e for e in self.events if e is not event and row in fixed().get(e.telling, ())]
            return not any(all(key_of(e, s) == key_of(event, s) for s in row.given) for e in tellings)
        if row is None:
            raise AssertionError(f"{event.telling}: nothing asks for it")
        roles = roles_of(row, event)
        asked = row.roles[spec.slot]
        given = {role: value for role, value in roles.items() if role not in (asked, "place", "kind")}
        if spec.slot == "n":
            given["thing"] = roles["thing"]
        if "p" not in but and asked != "place":
            given["place"] = roles.get("place")
        for other, other_roles in self.deeds[row.group]:
            if other is event or (
                asked == "thing" and (other_roles["kind"] == "person") != (roles["kind"] == "person")
            ):
                continue
            matches = all(other_roles.get(role) in (None, "", value) for role, value in given.items() if value)
            same = other_roles.get(asked) == roles[asked] is not None and spec.slot != "n"
            if matches and not (same and asked in ("doer", "other", "place", "third")):
                return False
        return True

    # ---- questions ------------------------------------------------------------------------------------

    def ask(self, spec: Spec, draw: Draw) -> Query | None:
        """Return the question of `spec`, or None if it is unfair."""
        if spec.event is None:
            return self._ask_setting(spec, draw)
        if isinstance(spec.row, Fixed):
            return self._ask_fixed(spec, spec.row, draw)
        return self._ask_frame(spec, required(spec.row), draw)

    def _ask_frame(self, spec: Spec, frame: Frame, draw: Draw) -> Query | None:
        event, slot = required(spec.event), spec.slot
        met = frame.verb is not None and frame.verb[0] == "met"
        placed = slot == "p" or ("p" in frame.slots and self.told(event, "p") and (met or draw.chance(0.3)))
        if met and not placed:  # without a place, the question is ambiguous
            return None
        but = "" if placed else "p"
        if not self._unique(spec, but):
            return None
        direct, indirect = frame_question(frame, event, slot, but)
        answer = sentence(frame, event, slot, but) + "."
        wrong = [sentence(frame, e, slot, but) + "." for e in self.mistaken(event, slot, frame.slots, draw)]
        roles = self._doers(frame, event)
        turned = replace(event, actor=event.other, other=event.actor)
        if roles and draw.chance(0.3) and not self.reserved(turned):
            wrong[1:2] = [sentence(frame, turned, slot, but) + "."]
        return self._query(spec, direct, indirect, answer, wrong, draw, roles)

    def _ask_fixed(self, spec: Spec, row: Fixed, draw: Draw) -> Query | None:
        event = required(spec.event)
        if not self._unique(spec, ""):
            return None
        template = TOKEN.sub(lambda m: put(event, m[1], m[2] or "") if stays(m, row.slot) else m[0], row.answer)
        answer = fill(template, event, row.slot)
        wrong = [fill(template, e, row.slot) for e in self.mistaken(event, row.slot, row.given, draw)]
        return self._query(
            spec, fill(row.direct, event), TOKEN.sub(lambda m: put(event, m[1], m[2] or ""), row.indirect),
            answer, wrong, draw, None,
        )  # fmt: skip

    def _doers(self, frame: Frame, event: Event) -> list[str] | None:
        """Names of agent and patient if an answer could swap them, else None."""
        pair = frame.group in ("give", "follow") or (frame.group == "find" and "b" in frame.roles)
        met = frame.verb is not None and frame.verb[0] == "met"
        if not pair or met or not {"a", "b"} <= set(frame.roles) or event.actor is None or event.other is None:
            return None
        return [event.actor.name, event.other.name]

    def _query(
        self, spec: Spec, direct: str, indirect: str, answer: str, wrong: list[str], draw: Draw,
        roles: list[str] | None,
    ) -> Query:  # fmt: skip
        event = required(spec.event)
        if spec.slot in "nk":
            value = event.count if spec.slot == "n" else event.total
            check: dict[str, Any] = {"kind": "number", "value": value}
            right = {str(value)}
            if event.act == "tally":
                check["parts"] = [event.count, event.second_count]
        else:
            check = {"kind": "says", "any": self.accepted(event, spec.slot, direct)}
            right = {w for phrase in check["any"] for w in words_of(phrase)}
        beside = self._epithets(event)
        if event.place and "place" in event.told and spec.slot != "p":
            beside += [event.place.the, event.place.spot]
        also = [w for w in facts_of(direct, answer, *beside) if w not in right]
        if also:
            check["also"] = also
        if roles:
            check["roles"] = roles
        if draw.chance(0.25):
            wrong[1:] = [UNSAID]
        return Query(spec.category, direct, indirect, answer, check, tuple(wrong[:2]))

    def _epithets(self, event: Event) -> list[str]:
        """Trades and kinds of the persons and animals in the event."""
        who = (event.actor, event.other, event.third, event.animal)
        return [w for w in (x.kind if isinstance(x, Animal) else x.trade if x else None for x in who) if w]

    def accepted(self, event: Event, slot: str, question: str) -> list[str]:
        """Correct answers for a slot."""
        if slot == "y":
            return [required(event.animal).kind]
        value = getattr(event, FIELDS[slot])
        asked = words_of(question)
        if isinstance(value, (Person, Animal)):
            other = value.kind if isinstance(value, Animal) else value.trade
            return [value.name] + ([other] if other and other in self.words and other not in asked else [])
        if isinstance(value, Item):
            return [value.noun]
        if isinstance(value, Place):
            if event.telling == "lasting_stands":
                return [value.landmark]
            spot = value.spot in self.story.text and event.act in ("find", "lose", "take", "hide")
            return [value.name] + ([value.spot] if spot else [])
        if isinstance(value, Goods):
            return [value.many, value.one]
        return [str(value), str(value).split()[-1]] if event.telling != "lesson_ask" else _skill(str(value))

    def mistaken(self, event: Event, slot: str, named: Collection[str], draw: Draw) -> list[Event]:
        """Up to two copies of the event with another value in the slot, for wrong answers.

        Values from the story come first. Values of the slots in `named`, which the question mentions, are excluded.
        """
        field = "animal" if slot == "y" else FIELDS[slot]
        correct = getattr(event, field)
        near: list[Any]
        far: list[Any]
        world = village()
        if isinstance(correct, (Person, Animal)):
            near = [p for p in self.people.values() if type(p) is type(correct)]
            far = list(world.people.values() if isinstance(correct, Person) else world.animals.values())
        elif isinstance(correct, Place):
            near, far = list(self.places.values()), list(world.everywhere)
        elif isinstance(correct, Item):
            near, far = list(self.items.values()), [Item(noun, "") for noun in world.things]
        elif isinstance(correct, Goods):
            near, far = [e.goods for e in self.events if e.goods], list(world.goods.values())
        elif isinstance(correct, int):
            near = sorted(self.numbers - {0})
            far = [n for n in (correct - 2, correct - 1, correct + 1, correct + 2, correct + 10) if 0 < n < 100]
        else:
            near, far = [], list(_SKILLS)
        taken = {key_of(event, s) for s in named if s != slot}
        variants: list[Event] = []
        for pool in (near, far):
            for value in draw.some(pool, min(len(pool), 8)):
                changed = replace(event, **{field: value})
                if self._differs(event, changed, slot, taken) and not self.reserved(changed):
                    taken.add(key_of(changed, slot))
                    variants.append(changed)
                if len(variants) == 2:
                    return variants
        return variants

    def _differs(self, event: Event, changed: Event, slot: str, taken: set[str | None]) -> bool:
        if key_of(changed, slot) in taken or key_of(changed, slot) == key_of(event, slot):
            return False
        if slot == "y" and event.animal and changed.animal:
            return event.animal.kind != changed.animal.kind
        if event.telling == "lasting_stands" and slot == "p" and event.place and changed.place:
            return event.place.landmark != changed.place.landmark
        return True

    def reserved(self, event: Event) -> bool:
        """Return whether the event has a reserved fact that train must not contain, even in a wrong answer."""
        return self.story.split == "train" and any(is_reserved(key) for key, _ in event.keys_and_fields())

    # ---- the setting -------------------------------------------------------------------------------

    def _ask_setting(self, spec: Spec, draw: Draw) -> Query | None:
        kind, value = spec.slot, spec.value
        if kind == "day":
            if self.story.plot in _LONG_PLOTS and self.story.text.find(value) > 150:
                return None
            return self._setting("What day was it?", "what day it was", "It was {}.", value, DAYS, draw)
        if kind == "season":
            return self._setting("What season was it?", "what season it was", "It was {}.", value, SEASONS, draw)
        if kind == "weather":
            part = next((str(f.value) for f in self.story.facts if f.kind == "part"), "day")
            return self._setting(
                f"What kind of {part} was it?", f"what kind of {part} it was", f"It was a {{}} {part}.", value,
                _WEATHER, draw,
            )  # fmt: skip
        if kind not in self.items:
            return None
        if value in COLOURS:
            return self._setting(
                f"What colour was the {kind}?", f"what colour the {kind} was", f"The {kind} was {{}}.", value,
                COLOURS, draw,
            )  # fmt: skip
        return self._setting(
            f"What kind of {kind} was it?", f"what kind of {kind} it was", f"It was {{an}} {kind}.", value,
            village().things[kind], draw,
        )  # fmt: skip

    def _setting(
        self, direct: str, indirect: str, answer: str, value: str, others: tuple[str, ...] | list[str], draw: Draw
    ) -> Query | None:
        def say(word: str) -> str:
            return answer.replace("{an}", an(word)).replace("{}", word)

        accepted = ["small", "little"] if value in ("small", "little") else [value]
        none = [word for word in others if word not in accepted]
        wrong = [say(word) for word in draw.some(none, min(2, len(none)))]
        also = [w for w in facts_of(direct, say(value)) if w not in words_of(value)]
        check = {"kind": "says", "any": accepted, "none": none} | ({"also": also} if also else {})
        return Query("what", direct, indirect, say(value), check, tuple(wrong) or (UNSAID,))


def _skill(skill: str) -> list[str]:
    """Correct answers for a skill: the phrase, or its distinctive word."""
    keywords = {"whistle with two fingers": "whistle", "hold a bee without fear": "bee"}
    return [skill, keywords.get(skill, skill.split()[-1])]
