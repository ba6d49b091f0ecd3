"""Choice of referring expressions: names, introductions, pronouns and articles.

`Reader` tracks the referents that a reader knows. It chooses between a name, an introduction ("Hugo the miller",
"her cousin Otto") and a pronoun, and between "a kite", "the kite" and "it". FORMS lists the forms of template slots.
This module does not depend on the order of events or on the rest of the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from understudy.hamlet.draw import Draw
from understudy.hamlet.events import Event, Item
from understudy.hamlet.world import Animal, Goods, Person, number, required

_PRONOUNS = {"m": ("he", "him", "his", "himself"), "f": ("she", "her", "her", "herself")}


class Reader:
    """State of a reader of one story. `told` collects the fields of the current event that the text states."""

    def __init__(self, draw: Draw, relations: Mapping[tuple[str, str], str]) -> None:
        self.draw, self.relations = draw, relations
        self.people: list[str] = []  # persons and animals mentioned so far, in order
        self.first: Person | Animal | None = None  # the first person or animal mentioned
        self.here: dict[str, list[Any]] = {"m": [], "f": []}  # mentioned in this sentence
        self.salient: dict[str, Any] = {"m": None, "f": None}  # referents of "he" and "she"
        self.silence = 0  # number of sentences since the last mention
        self.last_pair: set[str] = set()
        self.things_here: list[Any] = []
        self.things_before: list[Any] = []
        self.seen_things: set[str] = set()
        self.told: set[str] = set()

    def end_sentence(self) -> None:
        """Update the pronoun referents: a person mentioned as the only one of their sex becomes a referent."""
        here = self.here
        self.last_pair = {p.name for p in here["m"]} | {p.name for p in here["f"]}
        if self.last_pair:
            self.salient = {sex: people[0] if len(people) == 1 else None for sex, people in here.items()}
            self.here = {"m": [], "f": []}
            self.silence = 0
        else:
            self.silence += 1
            if self.silence > 1:
                self.salient = {"m": None, "f": None}
        self.things_before = self.things_here
        self.things_here = []

    # ---- people and animals -----------------------------------------------------------------------

    def _known(self, who: Person | Animal) -> bool:
        """Return whether a pronoun refers to `who` at this point of the text."""
        here = self.here[who.sex]
        if here:
            return len(here) == 1 and here[0] is who
        return self.salient[who.sex] is who

    def _mention(self, who: Person | Animal) -> bool:
        """Record a mention; return True if it is the first one in the story."""
        here = self.here[who.sex]
        if who not in here:
            here.append(who)
        if who.name in self.people:
            return False
        self.people.append(who.name)
        self.first = self.first or who
        return True

    def _whose(self, who: Person | Animal) -> str:
        known = self._known(who)
        self._mention(who)
        return _PRONOUNS[who.sex][2] if known else f"{who.name}'s"

    def _introduce(self, who: Person | Animal, event: Event) -> str:
        """Introduce `who` at the first mention by kinship, trade or kind."""
        if isinstance(who, Animal):
            near = [p for p in (event.actor, event.other, event.third) if p is not None]
            for owner in near:
                if owner.name == who.owner and owner.name in self.people:
                    return f"{self._whose(owner)} {who.kind} {who.name}"
            return f"{who.name} the {who.kind}"
        if event.act == "lasting":
            return who.name
        for kin in (event.other if who is event.actor else event.actor, self.first):
            # Use kinship if the relative is already mentioned, and always for a cousin from outside the village.
            if kin and (kin.name in self.people or not who.resident):
                relation = self.relations.get((kin.name, who.name))
                if relation:
                    return f"{self._whose(kin)} {relation} {who.name}"
        if who.trade is None:
            return who.name
        if not who.resident:
            return f"a {who.trade} named {who.name}"
        return f"{who.name} the {who.trade}" if self.draw.chance(0.8) else who.name

    def _name(self, who: Person | Animal, event: Event) -> str:
        if who.name not in self.people:
            text = self._introduce(who, event)
            self._mention(who)
            return text
        self._mention(who)
        return who.name

    def full(self, who: Person | Animal, event: Event) -> str:
        """The name, with an introduction at the first mention; never a pronoun."""
        return self._name(who, event)

    def subject(self, who: Person | Animal, event: Event) -> str:
        if self._known(who) and (self.here[who.sex] or self.draw.chance(0.72)):
            self._mention(who)
            return _PRONOUNS[who.sex][0]
        return self._name(who, event)

    def object(self, who: Person | Animal, event: Event) -> str:
        if self._known(who):
            self._mention(who)
            return _PRONOUNS[who.sex][1]
        return self._name(who, event)

    def possessive(self, who: Person | Animal, event: Event) -> str:
        if self._known(who):
            self._mention(who)
            return _PRONOUNS[who.sex][2]
        return self.plain_name(who, event) + "'s"

    def plain_name(self, who: Person | Animal, event: Event) -> str:
        self._mention(who)
        return who.name

    def epithet(self, who: Person | Animal, event: Event) -> str:
        self._mention(who)
        kind = who.kind if isinstance(who, Animal) else who.trade
        return f"{who.name} the {kind}" if kind else who.name

    def vocative(self, who: Person | Animal, event: Event) -> str:
        """The form of address for `who`: "Mother", or the name."""
        speaker = event.other if who is event.actor else event.actor
        self._mention(who)
        relation = self.relations.get((speaker.name, who.name)) if speaker else None
        if relation in ("mother", "father", "grandfather", "grandmother"):
            return relation.capitalize()
        return who.name

    def both(self, who: Person, event: Event) -> str:
        """Actor and other as joint subject: "Finn and Lily", or "they"."""
        other = event.partner
        self.told.add("other")
        pair = {who.name, other.name}
        if self.last_pair == pair and self.draw.chance(0.6):
            self._mention(who)
            self._mention(other)
            return "they"
        return f"{self._name(who, event)} and {self._name(other, event)}"

    # ---- things, goods, places ----------------------------------------------------------------------

    def _worded(self, item: Item, chance: float) -> str:
        if item.noun not in self.seen_things or self.draw.chance(chance):
            item.word_told = True
            return f"{item.word} {item.noun}"
        return item.noun

    def _see(self, thing: Any) -> None:
        if thing not in self.things_here:
            self.things_here.append(thing)
        if isinstance(thing, Item):
            self.seen_things.add(thing.noun)

    def thing(self, item: Item, event: Event) -> str:
        """`a red kite` at the first mention; then `the kite`, `the red kite`, or `it` if unambiguous."""
        if item.noun not in self.seen_things:
            return self.thing_indefinite(item, event)
        in_mind = self.things_here or self.things_before
        if in_mind == [item] and (self.things_here or self.draw.chance(0.5)):
            self._see(item)
            return "it"
        return self.thing_definite(item, event)

    def thing_definite(self, item: Item, event: Event) -> str:
        text = "the " + self._worded(item, 0.1)
        self._see(item)
        return text

    def thing_indefinite(self, item: Item, event: Event) -> str:
        text = self._worded(item, 0.5)
        self._see(item)
        return ("an " if text[0] in "aeiou" else "a ") + text

    def thing_worded(self, item: Item, event: Event) -> str:
        text = self._worded(item, 0.2)
        self._see(item)
        return text

    def thing_noun(self, item: Item, event: Event) -> str:
        self._see(item)
        return item.noun

    def goods(self, goods: Goods, event: Event) -> str:
        self._see(goods)
        return goods.many

    def counted(self, n: int, event: Event) -> str:
        goods = required(event.goods, f"{event.telling}: what is counted")
        self.told.add("goods")
        self._see(goods)
        return goods.counted(n)


def _pronoun(index: int) -> Callable[[Reader, Person, Event], str]:
    def form(reader: Reader, who: Person, event: Event) -> str:
        return _PRONOUNS[who.sex][index]

    return form


def _of(attribute: str) -> Callable[[Reader, Any, Event], str]:
    def form(reader: Reader, value: Any, event: Event) -> str:
        return getattr(value, attribute)

    return form


def _by_sex(man: str, woman: str) -> Callable[[Reader, Person, Event], str]:
    def form(reader: Reader, who: Person, event: Event) -> str:
        return man if who.sex == "m" else woman

    return form


# Forms of each slot. The empty string is the default form.
_WHO: dict[str, Callable[..., str]] = {
    "": Reader.subject, "o": Reader.object, "s": Reader.possessive, "n": Reader.plain_name,
    "f": Reader.full, "e": Reader.epithet, "v": Reader.vocative, "both": Reader.both,
    "he": _pronoun(0), "him": _pronoun(1), "his": _pronoun(2), "self": _pronoun(3),
    "hers": _by_sex("his", "hers"), "kid": _by_sex("boy", "girl"),
    "child": _by_sex("son", "daughter"), "parent": _by_sex("father", "mother"),
    "kind": _of("kind"), "noise": _of("noise"), "trade": _of("trade"),
}  # fmt: skip
_THING: dict[str, Callable[..., str]] = {
    "": Reader.thing, "the": Reader.thing_definite, "a": Reader.thing_indefinite,
    "w": Reader.thing_worded, "noun": Reader.thing_noun,
}  # fmt: skip
_PLACE: dict[str, Callable[..., str]] = {
    "": _of("the"), "at": _of("at"), "to": _of("to"), "past": _of("past"), "do": _of("do"), "did": _of("did"),
    "spot": _of("spot"), "stands": _of("stands"),
}  # fmt: skip
_GOODS: dict[str, Callable[..., str]] = {"": Reader.goods}
_COUNT: dict[str, Callable[..., str]] = {
    "": lambda reader, n, event: number(n),
    "g": Reader.counted,
    "were": lambda reader, n, event: f"{number(n)} {'was' if n == 1 else 'were'}",
    "gwere": lambda reader, n, event: f"{reader.counted(n, event)} {'was' if n == 1 else 'were'}",
    "coins": lambda reader, n, event: f"{number(n)} coin{'s' if n != 1 else ''}",
}
_TEXT: dict[str, Callable[..., str]] = {"": lambda reader, text, event: text}
FORMS = {
    **dict.fromkeys("abcz", _WHO),
    **dict.fromkeys("tu", _THING),
    "p": _PLACE,
    **dict.fromkeys("gh", _GOODS),
    **dict.fromkeys("nmk", _COUNT),
    **dict.fromkeys("xwsdo", _TEXT),
}
