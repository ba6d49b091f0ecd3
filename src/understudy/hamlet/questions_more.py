"""Questions about the order of two events, and questions that the story does not answer.

An unanswerable question has the form of an answerable one. It names another person or thing, or asks for a detail
that the story omits. questions_told.py has the answerable questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from understudy.hamlet.checker import fact_words, words_of
from understudy.hamlet.draw import Draw
from understudy.hamlet.events import Event, Item
from understudy.hamlet.questions_frames import OUT_OF_ORDER, frames
from understudy.hamlet.questions_told import COLOURS, DAYS, SEASONS, Telling
from understudy.hamlet.questions_words import (
    FIELDS,
    UNSAID,
    Query,
    facts_of,
    frame_question,
    key_of,
    roles_of,
    sentence,
)
from understudy.hamlet.world import Animal, Person, number, required, village

_MEETINGS = ("arrive_to", "rounds_next", "swap_meet", "hide_first", "hide_second")
# Verb groups for which the text is complete: it states every person who performs the action.
_EXHAUSTIVE_GROUPS = frozenset(("give", "eat", "gain", "mend", "buy", "leave"))
# Weather words that imply the season.
_SEASONAL_WEATHER = frozenset(["snowy", "frosty", "hot", "cold", "warm", "golden", "misty", "snow", "frost", "mist"])
_HAIR = ("brown", "black", "red", "grey", "long")


# ---- order of events ------------------------------------------------------------------------------------


def _in_order(telling: Telling) -> list[tuple[Event, str]]:
    """Events in chronological order, each with a sentence that the text supports."""
    ordered: list[tuple[Event, str]] = []
    for event in telling.events:
        if event.telling in OUT_OF_ORDER:
            continue
        for frame in frames().get(event.telling, ()):
            if (frame.asks or frame.group == "order") and telling.complete(frame, event):
                ordered.append((event, sentence(frame, event, but="" if telling.told(event, "p") else "p")))
                break
    return ordered


def _ask_events(telling: Telling, draw: Draw) -> Query | None:
    """Ask which of two events happened first."""
    ordered = _in_order(telling)
    if len(ordered) < 2:
        return None
    i = draw.between(0, len(ordered) - 2)
    j = draw.between(i + 1, len(ordered) - 1)
    one, two = ordered[i][1], ordered[j][1]
    if sum(s in (one, two) for _, s in ordered) > 2 or not _are_distinct(one, two):
        return None
    a, b = (one, two) if draw.chance(0.5) else (two, one)
    return _order_query(f"{a}, or {b}", one, two, f"First {one}.", f"First {two}.")


def _are_distinct(one: str, two: str) -> bool:
    """Return whether each sentence has a fact word that the other one lacks."""
    first, second = set(words_of(one)), set(words_of(two))
    known = fact_words()
    return bool((first - second) & known) and bool((second - first) & known)


def _order_query(direct: str, right: str, other: str, answer: str, wrong: str) -> Query:
    also = facts_of(direct, answer)
    check: dict[str, Any] = {"kind": "which", "right": right, "other": other, "also": also}
    return Query("first", direct, "", answer, check, (wrong, UNSAID))


def _ask_meetings(telling: Telling, draw: Draw) -> Query | None:
    """Ask whom a person met first."""
    meetings = [e for e in telling.events if e.telling in _MEETINGS and telling.told(e, "b") and e.actor and e.other]
    if len(meetings) < 2:
        return None
    first, second = meetings[0], meetings[1]
    if first.actor is not second.actor:
        return None
    did = ("find", "found") if first.telling.startswith("hide") else ("meet", "met")
    who, one, two = first.doer.name, first.partner.name, second.partner.name
    a, b = (one, two) if draw.chance(0.5) else (two, one)
    query = _order_query(
        f"Who did {who} {did[0]} first, {a} or {b}?", one, two,
        f"First {who} {did[1]} {one}.", f"First {who} {did[1]} {two}.",
    )  # fmt: skip
    return replace(query, indirect=f"who {who} {did[1]} first, {a} or {b}")


def _ask_visits(telling: Telling, draw: Draw) -> Query | None:
    """Ask where a person was first."""
    visits: dict[str, list[Event]] = {}
    for event in telling.events:
        if (
            event.act in ("go", "find", "hide", "look")
            and event.telling
            and event.telling not in (*OUT_OF_ORDER, "wind_go")
        ):
            for who in (event.actor, event.other if event.act == "go" else None):
                if isinstance(who, Person) and event.place is not None:
                    visits.setdefault(who.name, []).append(event)
    name = draw.pick(list(visits)) if visits else ""
    visited: list[Event] = []
    for event in visits.get(name, ()):
        if event.place not in [e.place for e in visited]:
            visited.append(event)
    visited = [e for e in visited if e.actor and e.actor.name == name and telling.told(e, "a") and telling.told(e, "p")]
    if len(visited) < 2:
        return None
    i = draw.between(0, len(visited) - 2)
    one, two = required(visited[i].place), required(visited[draw.between(i + 1, len(visited) - 1)].place)
    a, b = (one, two) if draw.chance(0.5) else (two, one)
    query = _order_query(
        f"Where was {name} first, {a.at} or {b.at}?", one.name, two.name,
        f"First {name} was {one.at}.", f"First {name} was {two.at}.",
    )  # fmt: skip
    return replace(query, indirect=f"where {name} was first, {a.at} or {b.at}")


def ask_first(telling: Telling, draw: Draw) -> Query | None:
    """A question about the order of two events; None if six attempts fail."""
    for _ in range(6):
        query = draw.pick((_ask_events, _ask_events, _ask_meetings, _ask_visits))(telling, draw)
        if query is not None:
            return query
    return None


# ---- unanswerable questions -------------------------------------------------------------------------------------


def _unsaid_query(direct: str, indirect: str, *wrong: str) -> Query:
    check: dict[str, Any] = {"kind": "unsaid"}
    if also := facts_of(direct):
        check["also"] = also
    return Query("not-said", direct, indirect, UNSAID, check, tuple(dict.fromkeys(wrong))[:2])


def _replacement(telling: Telling, event: Event, slot: str, from_story: bool, draw: Draw) -> Any:
    """Another person or thing for a slot: absent from the story, or with `from_story` sometimes from it."""
    world = village()
    value = getattr(event, FIELDS[slot])
    near: list[Any]
    far: list[Any]
    if isinstance(value, (Person, Animal)):
        named = {key_of(event, s) for s in "abc"}
        near = [p for p in telling.people.values() if p.name not in named and type(p) is type(value)]
        far = [p for p in world.people.values() if p.name not in telling.words]
    else:
        near = [i for i in telling.items.values() if i.noun != value.noun]
        far = [Item(noun, "") for noun in world.things if noun not in telling.words]
    return draw.pick(near) if near and from_story and draw.chance(0.4) else draw.pick(far)


def _ask_other_action(telling: Telling, draw: Draw) -> Query | None:
    """A question with one argument replaced, about an action that the story does not tell."""
    rows = [
        (event, frame)
        for event in telling.events
        for frame in frames().get(event.telling, ())
        if frame.asks and frame.group != "live" and telling.complete(frame, event)
    ]
    if not rows:
        return None
    event, frame = draw.pick(rows)
    asks = [s for s in frame.asks if telling.told(event, s)]
    if not asks:
        return None
    slot = draw.pick(asks)
    given = [s for s in frame.roles if s in "abtuc" and s != slot]
    if not given:
        return None
    other = draw.pick(given)
    near = frame.group in _EXHAUSTIVE_GROUPS and event.telling != "share_gain"  # "Molly had found no cherries at all"
    changed = replace(event, **{FIELDS[other]: _replacement(telling, event, other, near, draw)})
    if telling.reserved(changed):
        return None
    roles = roles_of(frame, changed)
    asked = frame.roles[slot]
    if telling.could_be(frame, {r: v for r, v in roles.items() if r not in (asked, "place", "kind", "mark")}):
        return None
    but = "" if slot == "p" else "p"
    direct, indirect = frame_question(frame, changed, slot, but)
    guesses = [changed, *telling.mistaken(changed, slot, frame.slots, draw)[:1]]
    return _unsaid_query(direct, indirect, *(sentence(frame, guess, slot, but) + "." for guess in guesses))


def _ask_time(telling: Telling, draw: Draw) -> Query | None:
    if not telling.words & set(DAYS):
        wrong = [f"It was {day}." for day in draw.some(DAYS, 2)]
        return _unsaid_query("What day was it?", "what day it was", *wrong)
    if not telling.words & {*SEASONS, *map(str.capitalize, SEASONS), *_SEASONAL_WEATHER}:
        wrong = [f"It was {season}." for season in draw.some(SEASONS, 2)]
        return _unsaid_query("What season was it?", "what season it was", *wrong)
    return None


def _ask_colour(telling: Telling, draw: Draw) -> Query | None:
    adjectives = {f.subject: str(f.value) for f in telling.story.facts if f.kind == "word"}
    plain = [
        noun for noun in telling.items if adjectives.get(noun) not in (*COLOURS, "brass", "copper", "silver", "gold")
    ]
    if not plain:
        return None
    noun = draw.pick(plain)
    wrong = [f"The {noun} was {c}." for c in draw.some(COLOURS, 2)]
    return _unsaid_query(f"What colour was the {noun}?", f"what colour the {noun} was", *wrong)


def _ask_age(telling: Telling, draw: Draw) -> Query | None:
    """Ask for the age of a visitor; the ages of residents are lasting facts."""
    guests = [p for p in telling.people.values() if isinstance(p, Person) and not p.resident]
    if not guests:
        return None
    who = draw.pick(guests).name
    wrong = [f"{who} was {number(n)} years old." for n in draw.some(range(6, 40), 2)]
    return _unsaid_query(f"How old was {who}?", f"how old {who} was", *wrong)


def _ask_untold_detail(telling: Telling, draw: Draw) -> Query | None:
    """Ask for a detail that no telling states."""
    people = [p.name for p in telling.people.values() if isinstance(p, Person)]
    who = draw.pick(people)
    other = draw.pick(list(village().people))
    goods = draw.pick([g.many for n, g in village().goods.items() if n in ("bun", "egg", "pie", "apple", "pear")])
    place = draw.pick(list(village().places))
    n = number(draw.between(3, 9))
    rows = [
        (f"What did {who} eat that evening?", f"what {who} ate that evening", f"That evening {who} ate {goods}."),
        (f"What did {who} dream of that night?", f"what {who} dreamed of that night", f"{who} dreamed of the {place}."),
        (f"What colour was {who}'s hair?", f"what colour {who}'s hair was", f"{who}'s hair was {draw.pick(_HAIR)}."),
        (f"How long did {who} sleep?", f"how long {who} slept", f"{who} slept for {n} hours."),
    ]
    if telling.items:
        noun = draw.pick(list(telling.items))
        rows += [
            (f"Who made the {noun}?", f"who made the {noun}", f"{other} made the {noun}."),
            (f"How much did the {noun} cost?", f"how much the {noun} cost", f"The {noun} cost {n} coins."),
        ]
    return _unsaid_query(*draw.pick(rows))


def ask_unsaid(telling: Telling, draw: Draw) -> Query | None:
    """A question that the story does not answer; None if eight attempts fail."""
    kinds: tuple[Callable[[Telling, Draw], Query | None], ...] = (
        _ask_other_action, _ask_other_action, _ask_other_action, _ask_other_action, _ask_time, _ask_colour, _ask_age,
        _ask_untold_detail,
    )  # fmt: skip
    for _ in range(8):
        query = draw.pick(kinds)(telling, draw)
        if query is not None:
            return query
    return None
