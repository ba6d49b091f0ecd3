"""The stories of Hamlet: `story(seed, index, split)` for one, `stories(seed, split)` for all.

A story is a pure function of (seed, index, split). A fraction of the facts (who did something where, who gave a thing
to whom, pairs of numbers), of the phrases and of the visitors is reserved for val. A train story with a reserved fact
is generated again; a val story is generated again until it has one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.events import Event, Key
from understudy.hamlet.narrator import Narrator
from understudy.hamlet.phrases import all_tellings
from understudy.hamlet.plots import PLOTS
from understudy.hamlet.plots_small import SMALL_PLOTS
from understudy.hamlet.scene import Scene
from understudy.hamlet.templates import Choices
from understudy.hamlet.world import village

Split = Literal["train", "val"]
Plot = Callable[[Scene], None]

# Number of stories in a corpus (docs/internals/hamlet.md has its size).
DEFAULT_STORIES: dict[Split, int] = {"train": 13_000, "val": 280}

# Maximum length of a small story; a longer one is generated again.
SMALL_BYTES = 240

# Maximum number of events, which limits the number of sentences.
_MOST_EVENTS = 16

# One in this many facts is reserved for val, by kind of key.
_RESERVED_ONE_IN = {"where": 12, "whom": 12, "numbers": 8}


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact that holds at the end of a story, or that its text states: ("day", "", "Monday"), ("has", "Nell", "kite")."""

    kind: str
    subject: str
    value: str | int


@dataclass(frozen=True, slots=True)
class Story:
    """A story: its text, and its content as data."""

    text: str
    plot: str
    split: Split
    characters: tuple[str, ...]  # people and animals, in order of first mention
    events: tuple[Event, ...]
    facts: tuple[Fact, ...]
    reserved: tuple[Key, ...]  # keys of its facts that are held out from training; empty in train


def is_reserved(key: Key) -> bool:
    """Return whether a fact is reserved for val. Depends on the words of the key alone."""
    return stable_hash("reserved", *key) % _RESERVED_ONE_IN[key[0]] == 0


@functools.cache
def _tellings(split: Split) -> dict[str, Choices]:
    return {
        name: Choices.of([t for t in templates if split == "val" or not t.held_out])
        for name, templates in all_tellings().items()
    }


def _admits(split: Split, keys: list[Key]) -> bool:
    """Return whether the split allows a story with these keys.

    Train: no reserved fact. Val: at least one; it must be a pair of numbers if the story has any.
    """
    if split == "train":
        return not any(map(is_reserved, keys))
    numbers = [key for key in keys if key[0] == "numbers"]
    return any(map(is_reserved, numbers or keys))


def _generate_scene(draw: Draw, split: Split, plot: Plot, visitors: dict[str, str]) -> Scene:
    """Generate scenes of `plot` until the split allows the facts of one."""
    while True:
        scene = Scene(village(), draw, visitors)
        plot(scene)
        if len(scene.events) <= _MOST_EVENTS and _admits(
            split, [k for e in scene.events for k, _ in e.keys_and_fields()]
        ):
            return scene


def _stated_reserved_keys(event: Event) -> list[Key]:
    return [key for key, fields in event.keys_and_fields() if is_reserved(key) and set(fields) <= set(event.told)]


def _facts(scene: Scene) -> tuple[Fact, ...]:
    setting, state = scene.setting, scene.state
    facts = [Fact(kind, "", getattr(setting, kind)) for kind in sorted(setting.told)]
    items = {item.noun: item for e in scene.events for item in (e.thing, e.second_thing) if item is not None}
    facts += [Fact("word", noun, item.word) for noun, item in items.items() if item.word_told]
    facts += [Fact("has", holder, noun) for noun, holder in state.holder.items() if noun in items]
    facts += [Fact("lies", noun, place) for noun, place in state.lying.items()]
    facts += [Fact(goods, name, n) for (name, goods), n in state.purse.items()]
    return tuple(facts)


def story(seed: int, index: int, split: Split) -> Story:
    """The story with number `index` (from 0) of `seed`."""
    return _generate("story", PLOTS, seed, index, split)


def small_story(seed: int, index: int, split: Split) -> Story:
    """A story of two to five sentences, for questions. The corpus of stories does not contain it."""
    return _generate("small story", SMALL_PLOTS, seed, index, split, SMALL_BYTES)


def _generate(
    stream: str, plots: Mapping[str, Plot], seed: int, index: int, split: Split, most_bytes: float = math.inf
) -> Story:
    if split not in ("train", "val"):
        raise ValueError(f"split is {split!r}; Hamlet has 'train' and 'val'")
    draw = Draw(stable_hash(stream, seed, split, index))
    world, tellings = village(), _tellings(split)
    plot = draw.pick(tuple(plots))
    visitors = world.reserved_visitors if split == "val" and draw.chance(0.7) else world.visitors
    spoken = draw.chance(0.5)
    reserved: list[Key] = []
    while True:
        scene = _generate_scene(draw, split, plots[plot], visitors)
        relations = world.relations | scene.relations if scene.relations else world.relations
        narrator = Narrator(tellings, draw, scene.setting, relations, spoken)
        text = narrator.tell(scene.events)
        if len(text) > most_bytes:
            continue
        if split == "train":
            break
        for event in scene.events:
            keys = _stated_reserved_keys(event)
            event.held_out = bool(keys)
            reserved += keys
        if reserved:
            break
    return Story(
        text=text,
        plot=plot,
        split=split,
        characters=tuple(narrator.reader.people),
        events=tuple(scene.events),
        facts=_facts(scene),
        reserved=tuple(reserved),
    )


def stories(seed: int, split: Split) -> Iterator[str]:
    """Iterate without end over the texts of `story(seed, 0, split)`, `story(seed, 1, split)`, ..."""
    index = 0
    while True:
        yield story(seed, index, split).text
        index += 1
