"""Preference pairs and judgements of simulated annotators with known error rates.

Each pair has a correct and a wrong answer, by the checker. An annotator prefers the wrong answer, or judges a single answer
wrongly, with a fixed probability, so the label noise is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from understudy.hamlet.conversations import question
from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.stories import Split

# Error rate of each annotator; the mean is 10%.
ANNOTATORS: dict[str, float] = {"careful": 0.05, "usual": 0.10, "hasty": 0.15}


def votes(seed: int, index: int, split: Split) -> dict[str, bool]:
    """The vote of each annotator on one pair: whether they choose the correct answer."""
    draw = Draw(stable_hash("annotators", seed, split, index))
    return {name: not draw.chance(rate) for name, rate in ANNOTATORS.items()}


def choose(seed: int, split: Split, *pair: int) -> tuple[str, bool]:
    """A simulated comparison of two answers with different scores.

    `pair` identifies the answers by numbers. Returns the annotator and whether they choose the better answer.
    """
    draw = Draw(stable_hash("annotator", seed, split, *pair))
    annotator = draw.pick(tuple(ANNOTATORS))
    return annotator, not draw.chance(ANNOTATORS[annotator])


def preference(seed: int, index: int, split: Split) -> dict[str, Any]:
    """The preference pair with number `index` of `seed`.

    Its keys include prompt, chosen, rejected, annotator (who made the choice), votes, and truth (the true scores of
    chosen and rejected).
    """
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
    """Iterate without end over `preference(seed, 0, split)`, `preference(seed, 1, split)`, ..."""
    index = 0
    while True:
        yield preference(seed, index, split)
        index += 1


def judgement(seed: int, index: int, split: Split) -> dict[str, Any]:
    """The judgement with number `index` of `seed`: an answer, correct in half of them, that an annotator finds desirable or
    not. Its keys are prompt, completion, label, annotator and category."""
    messages, turn = question(seed, index, split, "preference")
    draw = Draw(stable_hash("judgement", seed, split, index))
    annotator = draw.pick(tuple(ANNOTATORS))
    correct = draw.chance(0.5)
    answer = turn.answer if correct else draw.pick(turn.wrong)
    return {
        "prompt": messages,
        "completion": [{"role": "assistant", "content": answer}],
        "label": correct != draw.chance(ANNOTATORS[annotator]),
        "annotator": annotator,
        "category": turn.category,
    }


def judgements(seed: int, split: Split) -> Iterator[dict[str, Any]]:
    """Iterate without end over `judgement(seed, 0, split)`, `judgement(seed, 1, split)`, ..."""
    index = 0
    while True:
        yield judgement(seed, index, split)
        index += 1


def agreement(seed: int, split: Split, n: int) -> dict[str, float]:
    """Agreement rates on the first `n` pairs: accuracy of each annotator, agreement of each two and of all three."""
    rows = [votes(seed, index, split) for index in range(n)]
    names = tuple(ANNOTATORS)
    facts = {name: sum(row[name] for row in rows) / n for name in names}
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            facts[f"{one} and {two}"] = sum(row[one] == row[two] for row in rows) / n
    facts["all"] = sum(len(set(row.values())) == 1 for row in rows) / n
    return facts
