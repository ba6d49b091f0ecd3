"""Events of a story as data, and the state of the world that they change.

An `Event` is an action, a statement or a lasting fact, with its arguments in named fields. `State.apply` executes
an event and rejects an impossible one: a person gives a thing that they do not hold, finds a thing where it does
not lie, or pays more than they have. This module does not depend on the wording.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from understudy.hamlet.world import Animal, Goods, Person, Place, required

# All acts. `Event.act` is the meaning of an event; `Event.telling` selects its phrases.
ACTS = {
    "lasting": "a lasting fact of the village: nothing changes",
    "talk": "words are spoken: ask, answer, promise, thank; nothing changes",
    "mood": "a feeling, the weather or a remark: nothing changes",
    "look": "someone looks for `thing` or for someone at `place` in vain",
    "go": "actor (with other, where given) comes to `place`",
    "leave": "actor leaves the village or goes out of the story",
    "have": "actor has `thing` with them, or owns `count` of `goods`",
    "take": "actor picks up `thing`, which lies at `place` and belongs to no hand",
    "put": "actor puts `thing` down at `place`",
    "lose": "actor leaves `thing` behind at `place`, without wanting it",
    "find": "actor finds `thing` (or meets `other`, where no thing is given) at `place`",
    "give": "actor gives `thing` to other",
    "swap": "actor gives `thing` to other and gets `second_thing`",
    "use": "actor does something with `thing`, which stays with the actor",
    "break": "`thing`, held by actor, breaks",
    "mend": "actor makes `thing`, held by actor, whole again",
    "gain": "actor makes, picks, catches or counts `count` of `goods`, and has them",
    "pay": "actor gives `count` coins to other",
    "hand": "actor gives `count` of `goods` to other",
    "eat": "actor eats `count` of `goods`",
    "tally": "a sum is stated: `count` and `second_count` make, or leave, `total`",
    "hide": "actor hides at `place`",
    "win": "actor wins over other",
}


Key = tuple[str, ...]
# A walk home gives no key, because the home of a person is a lasting fact.
_HOMEWARD = ("go_home", "run_home")


@dataclass(slots=True)
class Item:
    """A thing in one story: its noun and the adjective that distinguishes it."""

    noun: str
    word: str
    word_told: bool = False


@dataclass(slots=True)
class Setting:
    """Time and weather of a story. `told` collects the fields that the text states."""

    weather: str
    season: str
    day: str
    part: str
    told: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Event:
    """An event of a story. Fields that do not apply are None; `told` lists the fields that the text states."""

    act: str
    telling: str
    actor: Person | Animal | None = None
    other: Person | Animal | None = None
    third: Person | Animal | None = None
    animal: Animal | None = None
    thing: Item | None = None
    second_thing: Item | None = None
    place: Place | None = None
    goods: Goods | None = None
    second_goods: Goods | None = None
    count: int | None = None
    second_count: int | None = None
    total: int | None = None
    detail: str | None = None
    told: tuple[str, ...] = ()
    held_out: bool = False

    @property
    def doer(self) -> Person | Animal:
        """The actor. Raises AssertionError: there is none."""
        if self.actor is None:
            raise AssertionError(f"{self.telling}: nobody acts")
        return self.actor

    @property
    def partner(self) -> Person | Animal:
        """The other. Raises AssertionError: there is none."""
        if self.other is None:
            raise AssertionError(f"{self.telling}: there is nobody else")
        return self.other

    def keys_and_fields(self) -> list[tuple[Key, tuple[str, ...]]]:
        """Keys of the facts that can be reserved, each with the event fields that state it.

        Kinds: "where" (person, thing or act, place), "whom" (person, thing, person), "numbers" (two terms of a sum).
        """
        keys: list[tuple[Key, tuple[str, ...]]] = []
        if self.second_count is not None:
            keys.append((("numbers", str(self.count), str(self.second_count)), ("total",)))
        if self.actor is None or self.act == "lasting" or self.telling in _HOMEWARD:
            return keys
        name = self.actor.name
        field = "thing" if self.thing else "goods"
        what = self.thing.noun if self.thing else self.goods.one if self.goods else None
        if self.place and what:
            keys.append((("where", name, what, self.place.name), ("actor", field, "place")))
        elif self.place and self.act in ("go", "hide", "look", "find"):
            keys.append((("where", name, self.act, self.place.name), ("actor", "place")))
        if self.other and what:
            keys.append((("whom", name, what, self.other.name), ("actor", field, "other")))
        return keys


class State:
    """State of the world in a story: locations, holders of things, and amounts of goods."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}  # person or animal -> place
        self.holder: dict[str, str] = {}  # noun of a thing -> holder
        self.lying: dict[str, str] = {}  # noun of a thing -> place
        self.broken: set[str] = set()
        self.purse: dict[tuple[str, str], int] = {}  # (person, singular goods) -> amount

    def owned(self, name: str, goods: str) -> int:
        return self.purse.get((name, goods), 0)

    def _add(self, name: str, goods: str, n: int) -> None:
        have = self.owned(name, goods) + n
        assert have >= 0, f"{name} has too few of {goods} to give {-n}"
        self.purse[name, goods] = have

    def _together(self, one: str, two: str) -> None:
        places = self.where.get(one), self.where.get(two)
        assert None in places or places[0] == places[1], f"{one} and {two} are not together: {places}"

    def _release(self, name: str, noun: str) -> None:
        assert self.holder.get(noun) == name, f"{name} does not hold the {noun}"
        del self.holder[noun]

    def _acquire(self, name: str, noun: str) -> None:
        assert noun not in self.holder, f"the {noun} is already with {self.holder.get(noun)}"
        self.lying.pop(noun, None)
        self.holder[noun] = name

    def apply(self, event: Event) -> None:
        """Execute `event`.

        Raises:
            AssertionError: the event is impossible in this state, so the plot has a defect.
        """
        assert event.act in ACTS, f"unknown act {event.act}"
        change = getattr(self, f"_{event.act}", None)
        if change is not None:
            change(event)

    def _at(self, name: str, place: Place | None) -> None:
        if place is not None and name in self.where:
            assert self.where[name] == place.name, f"{name} is not at {place.name} but at {self.where[name]}"

    def _go(self, e: Event) -> None:
        place = required(e.place)
        self.where[e.doer.name] = place.name
        if e.other:
            self.where[e.other.name] = place.name

    _hide = _go

    def _leave(self, e: Event) -> None:
        self.where.pop(e.doer.name, None)

    def _look(self, e: Event) -> None:
        place = required(e.place)
        self.where[e.doer.name] = place.name
        if e.thing:
            assert self.lying.get(e.thing.noun) != place.name, f"the {e.thing.noun} is there after all"

    def _have(self, e: Event) -> None:
        actor = e.doer
        if e.thing:
            self._acquire(actor.name, e.thing.noun)
        else:
            self._add(actor.name, required(e.goods).one, required(e.count))

    def _take(self, e: Event) -> None:
        actor, thing = e.doer, required(e.thing)
        self._at(actor.name, e.place)
        if e.place:
            assert self.lying.get(thing.noun) == e.place.name, f"the {thing.noun} is not at {e.place.name}"
        self._acquire(actor.name, thing.noun)

    def _find(self, e: Event) -> None:
        actor = e.doer
        if e.thing:
            self._take(e)
        elif e.place and e.other:
            where = self.where.get(e.other.name)
            assert where == e.place.name, f"{e.other.name} is at {where}, not at {e.place.name}"
            self.where[actor.name] = e.place.name

    def _put(self, e: Event) -> None:
        self._at(e.doer.name, e.place)
        self._lose(e)

    def _lose(self, e: Event) -> None:
        actor, thing, place = e.doer, required(e.thing), required(e.place)
        self._release(actor.name, thing.noun)
        self.lying[thing.noun] = place.name

    def _give(self, e: Event) -> None:
        actor, other, thing = e.doer, e.partner, required(e.thing)
        self._together(actor.name, other.name)
        self._release(actor.name, thing.noun)
        self._acquire(other.name, thing.noun)

    def _swap(self, e: Event) -> None:
        actor, other = e.doer, e.partner
        thing, second_thing = required(e.thing), required(e.second_thing)
        self._together(actor.name, other.name)
        self._release(actor.name, thing.noun)
        self._release(other.name, second_thing.noun)
        self._acquire(other.name, thing.noun)
        self._acquire(actor.name, second_thing.noun)

    def _use(self, e: Event) -> None:
        actor, thing = e.doer, required(e.thing)
        assert self.holder.get(thing.noun) == actor.name, f"{actor.name} has no {thing.noun}"
        assert thing.noun not in self.broken, f"the {thing.noun} is broken"

    def _break(self, e: Event) -> None:
        self._use(e)
        self.broken.add(required(e.thing).noun)

    def _mend(self, e: Event) -> None:
        actor, thing = e.doer, required(e.thing)
        assert self.holder.get(thing.noun) == actor.name, f"{actor.name} has no {thing.noun}"
        self.broken.remove(thing.noun)

    def _gain(self, e: Event) -> None:
        actor = e.doer
        self._at(actor.name, e.place)
        self._add(actor.name, required(e.goods).one, required(e.count))

    def _pay(self, e: Event) -> None:
        actor, other, count = e.doer, e.partner, required(e.count)
        self._together(actor.name, other.name)
        self._add(actor.name, "coin", -count)
        self._add(other.name, "coin", count)

    def _hand(self, e: Event) -> None:
        actor, other, goods, count = e.doer, e.partner, required(e.goods), required(e.count)
        self._together(actor.name, other.name)
        self._add(actor.name, goods.one, -count)
        self._add(other.name, goods.one, count)

    def _eat(self, e: Event) -> None:
        self._add(e.doer.name, required(e.goods).one, -required(e.count))

    def _tally(self, e: Event) -> None:
        count, second, total = required(e.count), required(e.second_count), required(e.total)
        assert total in (count + second, count - second), f"{count} and {second} do not give {total}"
