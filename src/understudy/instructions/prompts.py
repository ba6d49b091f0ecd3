"""Prompts with one or two checkable instructions, about everyday topics. Each is a function of (seed, split, index).

Training and validation have other topics, wordings and phrases, so that a validation score is one of new prompts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from understudy.hamlet.draw import Draw, stable_hash
from understudy.instructions.checks import KINDS
from understudy.instructions.wording import (
    AMOUNTS,
    CLOSINGS,
    KEYS,
    LANGUAGES,
    LAYOUTS,
    NUMBERS,
    OPENINGS,
    PHRASINGS,
    UNITS,
    Split,
)

COUNTS: dict[Split, int] = {"train": 4_000, "val": 400}
PAIR = "two instructions"
"""Category of a prompt with two instructions; that of any other is the kind of its only one."""
PAIR_EVERY = 3
"""After every kind was asked for alone twice, each is once with another."""

SECOND: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("words", "sentences", "lines", "paragraphs", "bullets", "numbered"),
                    ("lower", "upper", "starts", "ends", "no_commas", "keywords", "avoid")),
    "title": ("lower", "upper", "ends", "no_commas", "keywords", "words"),
    "quoted": ("lower", "upper", "no_commas", "keywords", "words", "sentences"),
    "lower": ("words", "sentences", "bullets", "starts", "ends", "keywords"),
    "upper": ("words", "sentences", "bullets", "starts", "ends", "keywords"),
    "starts": ("words", "sentences", "lower", "ends", "keywords", "no_commas"),
    "ends": ("words", "sentences", "upper", "starts", "avoid", "no_commas"),
    "no_commas": ("words", "sentences", "lower", "starts", "keywords"),
    "keywords": ("words", "sentences", "bullets", "lower", "no_commas"),
    "avoid": ("words", "sentences", "numbered", "upper", "ends"),
    "language": ("words", "sentences", "lower", "upper", "no_commas"),
    "json": ("keywords", "avoid"),
}  # fmt: skip
"""Kinds that can be asked for together with a kind."""


class Topic(NamedTuple):
    """`words`: three that an answer may use."""

    question: str
    words: tuple[str, ...]


@functools.cache
def topics() -> dict[Split, tuple[Topic, ...]]:
    """The topics of each split, from topics.txt."""
    text = Path(__file__).with_name("topics.txt").read_text(encoding="utf-8")
    train, _, val = text.partition("[train]\n")[2].partition("[val]\n")
    return {"train": tuple(map(_topic, train.splitlines())), "val": tuple(map(_topic, val.splitlines()))}


def _topic(line: str) -> Topic:
    question, _, words = line.partition(" | ")
    return Topic(question, tuple(words.split(", ")))


def prompts(seed: int, split: Split) -> Iterator[dict[str, Any]]:
    """Prompts without end, in the schema of `prepare --kind prompts`. Their kinds take turns."""
    names, index = list(KINDS), 0
    while True:
        draw = Draw(stable_hash("instructions", seed, split, index))
        kinds = [names[index % len(names)]]
        if index // len(names) % PAIR_EVERY == PAIR_EVERY - 1:
            kinds.append(draw.pick(SECOND[kinds[0]]))
        yield _prompt(draw, split, kinds)
        index += 1


def _prompt(draw: Draw, split: Split, kinds: list[str]) -> dict[str, Any]:
    topic = draw.pick(topics()[split])
    instructions = [{"kind": kind, **_arguments(draw, split, kind, topic)} for kind in kinds]
    asks = " ".join(_ask(draw, split, instruction) for instruction in instructions)
    content = draw.pick(LAYOUTS).format(question=topic.question, asks=asks)
    return {
        "prompt": [{"role": "user", "content": content}],
        "check": {"instructions": instructions},
        "category": kinds[0] if len(kinds) == 1 else PAIR,
        "task": "instructions",
    }


def _arguments(draw: Draw, split: Split, kind: str, topic: Topic) -> dict[str, Any]:
    """Arguments that an answer of 40 words can meet."""
    if kind == "words":
        low = draw.between(6, 20)
        return draw.pick(({"at_least": low, "at_most": low + 8}, {"at_least": low}, {"at_most": low + 4}))
    if kind == "sentences":
        n = draw.between(1, 3)
        return draw.pick(({"at_least": n, "at_most": n}, {"at_most": n}))
    if kind in UNITS:
        n = 2 if kind == "paragraphs" else draw.between(2, 4)
        return {"at_least": n, "at_most": n}
    if kind in ("keywords", "avoid"):
        return {"words": draw.some(topic.words, draw.between(1, 2))}
    if kind == "json":
        return {"keys": list(draw.pick(KEYS[split]))}
    if kind == "starts":
        return {"phrase": draw.pick(OPENINGS[split])}
    if kind == "ends":
        return {"phrase": draw.pick(CLOSINGS[split])}
    return {"language": draw.pick(list(LANGUAGES))} if kind == "language" else {}


def _ask(draw: Draw, split: Split, instruction: dict[str, Any]) -> str:
    kind = instruction["kind"]
    fields = {name: _listed(name, value) for name, value in instruction.items()}
    if kind in UNITS:
        fields["amount"] = _amount(draw, split, instruction)
    ask = draw.pick(PHRASINGS[kind][split]).format(**fields)
    return re.sub(r'([.!?]")\.', r"\1", ask)  # a quoted sentence brings its own full stop


def _listed(name: str, value: Any) -> Any:
    if isinstance(value, list):
        noun = {"words": "word", "keys": "key"}[name]
        return f"the {noun}{'s' * (len(value) > 1)} " + " and ".join(f'"{item}"' for item in value)
    return LANGUAGES[value] if name == "language" else value


def _amount(draw: Draw, split: Split, instruction: dict[str, Any]) -> str:
    least, most = instruction.get("at_least"), instruction.get("at_most")
    form = "exact" if least == most else "most" if least is None else "least" if most is None else "range"
    numbers = {name: n for name, n in instruction.items() if name != "kind"}
    if max(numbers.values()) < len(NUMBERS) and draw.chance(0.5):
        numbers = {name: NUMBERS[n] for name, n in numbers.items()}
    unit = UNITS[instruction["kind"]]
    return f"{AMOUNTS[split][form].format(**numbers)} {unit}{'s' * ((most or least) != 1)}"
