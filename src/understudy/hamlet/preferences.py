"""Pairs of answers, the better and the worse, as simulated annotators chose them: they err at a stated rate.

The truth comes from the checker; an annotator takes the better answer for the worse with a chance of their own. So
pairs carry noise of a known size, as those of people do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from understudy.hamlet.conversations import question
from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.stories import Split

# How often each annotator errs; 10% on the whole.
ANNOTATORS: dict[str, float] = {"careful": 0.05, "usual": 0.10, "hasty": 0.15}


def votes(seed: int, index: int, split: Split) -> dict[str, bool]:
    """What each annotator says of a pair: whether they choose the better answer."""
    draw = Draw(stable_hash("annotators", seed, split, index))
    return {name: not draw.chance(rate) for name, rate in ANNOTATORS.items()}


def choose(seed: int, split: Split, *pair: int) -> tuple[str, bool]:
    """Of any two answers of different worth: who compares them, and whether they choose the better one. `pair`: numbers
    that stand for the two."""
    draw = Draw(stable_hash("annotator", seed, split, *pair))
    annotator = draw.pick(tuple(ANNOTATORS))
    return annotator, not draw.chance(ANNOTATORS[annotator])


def preference(seed: int, index: int, split: Split) -> dict[str, Any]:
    """The pair of `seed` with number `index`: prompt, chosen, rejected, the annotator whose choice it is, and `truth`,
    the scores of chosen and rejected."""
    messages, turn = question(seed, index, split, "preference")
    draw = Draw(stable_hash("pair", seed, split, index))
    annotator = draw.pick(tuple(ANNOTATORS))
    pair = [turn.answer, draw.pick(turn.wrong)]
    all_votes = votes(seed, index, split)
    chosen, rejected = pair if all_votes[annotator] else pair[::-1]
    return {
        "prompt": messages,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "annotator": annotator,
        "category": turn.category,
        "votes": all_votes,
        "truth": [1.0, 0.0] if all_votes[annotator] else [0.0, 1.0],
    }


def preferences(seed: int, split: Split) -> Iterator[dict[str, Any]]:
    """`preference(seed, 0, split)`, `preference(seed, 1, split)`, ... without end."""
    index = 0
    while True:
        yield preference(seed, index, split)
        index += 1


def agreement(seed: int, split: Split, n: int) -> dict[str, float]:
    """Of the first `n` pairs: how often each annotator is right, how often each two agree, and all three."""
    rows = [votes(seed, index, split) for index in range(n)]
    names = tuple(ANNOTATORS)
    facts = {name: sum(row[name] for row in rows) / n for name in names}
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            facts[f"{one} and {two}"] = sum(row[one] == row[two] for row in rows) / n
    facts["all"] = sum(len(set(row.values())) == 1 for row in rows) / n
    return facts
