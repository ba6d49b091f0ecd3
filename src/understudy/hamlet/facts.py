"""Turns about lasting facts of the village, such as "Who is the baker?" and "Where does Finn live?".

world.py has the facts and facts_wording.py the phrasings. `_held_out` selects the questions that are in val only.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.facts_wording import QUESTIONS, QUESTIONS_AGAIN, QUESTIONS_OF_ALL
from understudy.hamlet.stories import Split
from understudy.hamlet.turns import Turn
from understudy.hamlet.world import Person, number, required, village

# `_held_out` reserves one in this many of the eligible questions for val.
_RESERVED_ONE_IN = 5

_ANSWERS = {
    "trade": "{name} is the {trade}.",
    "trade back": "The {trade} is {name}.",
    "home": "{name} lives {at}.",
    "home back": "{name} lives {at}.",
    "age": "{name} is {n} years old.",
    "owner": "{pet} belongs to {owner}.",
    "owner back": "{owner}'s {kind} is called {pet}.",
    "kind": "{pet} is a {kind}.",
    "likes": "{name} likes {goods} best.",
    "likes back": "{name} likes {goods} best.",
    "stands": "{the} {stands}.",
    "stands back": "{the} {stands}.",
    "work": "{name} works {at}.",
    "kin": "{name}'s {kin} is {other}.",
}
# Answers about Hamlet as a whole.
_PLACES = "Hamlet is a small village with a mill, a school, a market and an inn."
_PEOPLE = "Marta the baker, Hugo the miller, Nora the shopkeeper and Finn live in Hamlet, for example."
_TRADES = "In Hamlet there is a baker, a miller, a smith, a teacher and a doctor, for example."
_ANIMALS = "Bramble the dog, Soot the cat and Clover the rabbit live in Hamlet, for example."
_NOW = {"stood": "stands", "lay": "lies", "ran": "runs", "went": "goes", "grew": "grows", "rose": "rises"}
_YOUNG = {"kitten": "cat", "puppy": "dog", "sheepdog": "dog"}  # a more general kind that is also correct

Fields = dict[str, Any]
Known = tuple[str, str]  # key of a fact that a question teaches: ("home", "Finn")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the village, independent of its wording."""

    kind: str  # key in QUESTIONS
    of: str  # name of the subject
    facts: frozenset[Known]
    fields: Fields
    check: dict[str, Any]
    wrong: tuple[Fields, ...]  # alternative fields, each of which gives a wrong answer
    about: Person | None = None  # referent of "he" or "she" after the answer

    def answer(self, wrong: Fields | None = None) -> str:
        return capital(_ANSWERS[self.kind].format(**self.fields | (wrong or {})))


def capital(sentence: str) -> str:
    """`sentence` with a capital first letter."""
    return sentence[:1].upper() + sentence[1:]


def _says(right: Sequence[str], *also: str) -> dict[str, Any]:
    """A check that requires one of `right` and allows the facts in `also`."""
    return {"kind": "says", "any": list(right), "also": list(also)}


def _others(field: str, values: Sequence[str], *right: str) -> tuple[Fields, ...]:
    return tuple({field: value} for value in dict.fromkeys(values) if value not in right)


def _of_people() -> Iterator[Question]:
    """Questions about one person."""
    world = village()
    names = list(world.people)
    homes = [world.places[p.home].at for p in world.people.values() if p.home]
    foods = [world.goods[p.likes].many for p in world.people.values() if p.likes]
    for p in world.people.values():
        name = p.name
        home = world.places[required(p.home, f"the home of {name}")]
        goods = world.goods[required(p.likes, f"what {name} likes")]
        who = {"name": name, "trade": p.trade}
        if p.trade:
            place, trades = world.places[world.trades[p.trade].place], list(world.trades)
            fact = frozenset({("trade", name)})
            yield Question("trade", name, fact, who, _says([p.trade], name), _others("trade", trades, p.trade), p)
            yield Question(
                "trade back", p.trade, fact, who, _says([name], p.trade), _others("name", names, name), p
            )  # fmt: skip
            yield Question(
                "work", name, frozenset({("work", name)}), who | {"at": place.at},
                _says([place.name], name, p.trade), _others("at", [x.at for x in world.everywhere], place.at), p,
            )  # fmt: skip
        else:
            yield Question(
                "age", name, frozenset({("age", name)}), who | {"n": number(p.age)},
                {"kind": "number", "value": p.age, "also": [name]},
                _others("n", [number(n) for n in range(4, 14)], number(p.age)), p,
            )  # fmt: skip
        yield Question(
            "home", name, frozenset({("home", name)}), who | {"at": home.at}, _says([home.name], name),
            _others("at", homes, home.at), p,
        )  # fmt: skip
        yield Question(
            "likes", name, frozenset({("likes", name)}), who | {"goods": goods.many},
            _says([goods.one, goods.many], name), _others("goods", foods, goods.many), p,
        )  # fmt: skip
        for kin in dict.fromkeys(kin for kin, _ in world.kin[name]):
            right = [other for k, other in world.kin[name] if k == kin]
            alike = [n for n in names if world.people[n].sex == world.people[right[0]].sex]
            yield Question(
                "kin", f"{name} {kin}", frozenset(("kin", " ".join(sorted((name, r)))) for r in right),
                who | {"kin": kin, "other": right[0]}, _says(right, name, *right),
                _others("other", alike, name, *right), world.people[right[0]],
            )  # fmt: skip


def _of_all_people() -> Iterator[Question]:
    """Questions with several correct answers, such as who lives at the mill."""
    world = village()
    names, people = list(world.people), world.people.values()
    for home in dict.fromkeys(p.home for p in people if p.home):
        place, right = world.places[home], [p.name for p in people if p.home == home]
        yield Question(
            "home back", home, frozenset(("home", r) for r in right),
            {"name": right[0], "at": place.at, "the": place.the}, _says(right, home, *right),
            _others("name", names, *right), world.people[right[0]],
        )  # fmt: skip
    for food in dict.fromkeys(p.likes for p in people if p.likes):
        goods, right = world.goods[food], [p.name for p in people if p.likes == food]
        yield Question(
            "likes back", food, frozenset(("likes", r) for r in right), {"name": right[0], "goods": goods.many},
            _says(right, goods.one, goods.many, *right), _others("name", names, *right), world.people[right[0]],
        )  # fmt: skip


def _of_animals() -> Iterator[Question]:
    world = village()
    pets = world.animals.values()
    for pet in pets:
        fact = frozenset({("pet", pet.name)})
        fields = {"pet": pet.name, "kind": pet.kind, "owner": pet.owner}
        alike = list(dict.fromkeys((pet.kind, _YOUNG.get(pet.kind, pet.kind))))
        owner = world.people[pet.owner]
        yield Question(
            "owner", pet.name, fact, fields, _says([pet.owner], pet.name, *alike),
            _others("owner", [a.owner for a in pets], pet.owner), owner,
        )  # fmt: skip
        yield Question(
            "owner back", pet.owner, fact, fields, _says([pet.name], pet.owner, *alike),
            _others("pet", list(world.animals), pet.name),
        )  # fmt: skip
        yield Question(
            "kind", pet.name, fact, fields, _says(alike, pet.name), _others("kind", [a.kind for a in pets], *alike)
        )  # fmt: skip


def _of_places() -> Iterator[Question]:
    """Questions about the location of a place, and about the place at a location."""
    world = village()
    standing: dict[str, list[str]] = {}
    for place in world.everywhere:
        verb, where = place.stands.split(" ", 1)
        standing.setdefault(where, []).append(place.name)
        # Several places have the village as landmark; the preposition distinguishes them.
        by_village = place.landmark == "village"
        landmark = where.removesuffix(" of the village") if by_village else place.landmark
        elsewhere = [
            f"{_NOW[verb]} {x.stands.split(' ', 1)[1]}" for x in world.everywhere
            if x.landmark not in ("village", place.landmark, place.name)
        ]  # fmt: skip
        yield Question(
            "stands", place.name, frozenset({("stands", place.name)}),
            {"the": place.the, "stands": f"{_NOW[verb]} {where}"}, _says([landmark], place.name, place.landmark),
            _others("stands", elsewhere),
        )  # fmt: skip
    for where, right in standing.items():
        first = world.places[right[0]]
        others = [p.the for p in world.everywhere if p.name != first.landmark and p.landmark != first.landmark]
        yield Question(
            "stands back", where, frozenset(("stands", r) for r in right),
            {"the": first.the, "where": where, "stands": f"{_NOW[first.stands.split()[0]]} {where}"},
            _says(right, first.landmark, *right), _others("the", others),
        )  # fmt: skip


def _held_out(questions: Sequence[Question]) -> set[tuple[str, str]]:
    """Keys of the questions that are in val only, selected by a hash.

    Training teaches each of their facts by another question: "Who is the baker?" can be held out because training
    asks for Marta's trade. Ages and workplaces have one question each, so these are never held out.
    """
    ways = Counter(fact for q in questions for fact in q.facts)
    touched: set[Known] = set()
    out = set()
    for q in questions:
        free = all(ways[fact] > 1 for fact in q.facts) and not touched & q.facts
        if free and stable_hash("village", q.kind, q.of) % _RESERVED_ONE_IN == 0:
            touched |= q.facts
            out.add((q.kind, q.of))
    return out


@functools.cache
def village_questions() -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """All questions about the village: the shared ones, and those in val only."""
    questions = [*_of_people(), *_of_all_people(), *_of_animals(), *_of_places()]
    out = _held_out(questions)
    shared = tuple(q for q in questions if (q.kind, q.of) not in out)
    return shared, tuple(q for q in questions if (q.kind, q.of) in out)


def _turn(draw: Draw, question: Question, user: str) -> Turn:
    wrong = tuple(question.answer(fields) for fields in draw.some(question.wrong, 2))
    return Turn("village", user, question.answer(), question.check, wrong)


def village_turn(draw: Draw, split: Split, *kinds: str) -> tuple[Turn, Person | None]:
    """A question about the village, and the person to whom a later pronoun refers.

    `kinds` restricts the kinds of question. In val, either the question or its phrasing is held out.
    """
    shared, held_out = village_questions()
    new_question = split == "val" and draw.chance(0.5)
    candidates = [q for q in (held_out if new_question else shared) if not kinds or q.kind in kinds]
    if not candidates:
        return village_turn(draw, split, *kinds)
    question = draw.pick(candidates)
    user = QUESTIONS[question.kind].pick(draw, split, new=None if new_question else True)
    return _turn(draw, question, user.format(**question.fields)), question.about


def village_as_a_whole(draw: Draw, split: Split) -> Turn:
    """A question about Hamlet as a whole, such as "Who lives in the village?". In val its phrasing is held out."""
    world = village()
    kind = draw.pick(("about", "about", "people", "people", "count", "places", "trades", "animals"))
    people, places, trades = tuple(world.people), tuple(world.places), tuple(world.trades)
    visitor, other = draw.some(tuple(world.visitors), 2)
    strange: tuple[str, ...] = (
        f"{visitor} and {other} live in Hamlet.",
        f"{visitor} is at the inn.",
        "It is a big town.",
    )
    check: dict[str, Any]
    if kind == "count":
        n = len(people)
        answer = f"{capital(number(n))} people live in Hamlet."
        check = {"kind": "number", "value": n, "also": ["village"]}
        strange = tuple(f"{capital(number(m))} people live in Hamlet." for m in (n - 9, n + 2, 12))
    elif kind == "people":
        answer, check = _PEOPLE, _says(people, *trades, "village")
    elif kind == "trades":
        answer, check = _TRADES, _says(trades, *people, "village")
    elif kind == "animals":
        kinds = {word for a in world.animals.values() for word in (a.kind, _YOUNG.get(a.kind, a.kind))}
        answer, check = _ANIMALS, _says(tuple(world.animals), *sorted(kinds), *people, "village")
    else:
        answer, check = _PLACES, _says(places, *places, "village")
    user = QUESTIONS_OF_ALL[kind].pick(draw, split, new=True)
    return Turn("village", user, answer, check, tuple(draw.some(strange, 2)))


def again_turn(draw: Draw, split: Split, person: Person, told: Sequence[str]) -> Turn | None:
    """A follow-up question that refers to `person` by a pronoun; None if there is none.

    Its answer is not in `told`, the earlier answers.
    """
    shared, held_out = village_questions()
    candidates = [
        q for q in (shared + held_out if split == "val" else shared)
        if q.kind in QUESTIONS_AGAIN and q.fields["name"] == person.name and q.answer() not in told
    ]  # fmt: skip
    if not candidates:
        return None
    question = draw.pick(candidates)
    he, his = ("he", "his") if person.sex == "m" else ("she", "her")
    user = QUESTIONS_AGAIN[question.kind].pick(draw, split)
    return _turn(draw, question, user.format(**question.fields, he=he, his=his))
