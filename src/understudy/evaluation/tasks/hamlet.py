"""Hamlet: questions about the embedded corpus, by category, with people, facts and phrasings held out of training."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import count, islice
from pathlib import Path

from understudy.evaluation.task import Example, Kind, Split, Task, take_turns
from understudy.hamlet.turns import CATEGORIES, Turn
from understudy.tokenizer.chat import Message

SEED = 20_260
"""Seed of the questions of `evaluate`. `prepare hamlet` has seed 0 by default."""
COMPARISON_SEED = 20_261
"""Seed of the questions of `compare`."""
PER_CATEGORY = 20


class Hamlet(Task):
    """Generated answers, scored by Hamlet's checker. Without a limit, 20 questions of each category."""

    name = "hamlet"
    kind: Kind = "answer"
    verifier = "hamlet"
    max_new_tokens = 120
    suggestions = (
        "Who are you?", "Who lives in Hamlet?", "How many people live in Hamlet?", "What animals live in Hamlet?",
        "What is the capital of France?",
    )  # fmt: skip
    """A trained assistant answers the first four and declines the last."""

    def __init__(self, path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(few_shot)
        if path is not None:
            raise ValueError(f"the task {self.name} generates its own questions; leave --task-data out")
        self._drawn: dict[tuple[Split, int], list[Example]] = {}

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        per_category = PER_CATEGORY if limit is None else -(-limit // len(CATEGORIES))
        if (split, per_category) not in self._drawn:  # a training run asks the same questions again and again
            self._drawn[split, per_category] = self._draw(SEED, split, per_category)
        return self._drawn[split, per_category][:limit]

    def comparison_examples(self, limit: int) -> list[Example]:
        """Held-out questions, without those by which ppo and grpo choose a checkpoint.

        The latter are the validation prompts of `prepare hamlet --kind prompts`. Different seeds share a few greetings.
        """
        validation = _validation_prompts()
        drawn = self._draw(COMPARISON_SEED, "val", -(-limit // len(CATEGORIES)) + 1)
        return [example for example in drawn if _said(example.messages) not in validation][:limit]

    def _draw(self, seed: int, split: Split, per_category: int) -> list[Example]:
        """The first questions of each category, alternating between categories."""
        from understudy.hamlet.conversations import question

        drawn: dict[str, list[Example]] = {category: [] for category in CATEGORIES}
        for index in count():
            messages, turn = question(seed, index, split)
            if len(drawn[turn.category]) < per_category:
                drawn[turn.category].append(self._example(f"hamlet/{split}/{index}", messages, turn))
            if all(len(examples) == per_category for examples in drawn.values()):
                break
        return take_turns(drawn.values())

    def _example(self, id: str, messages: list[Message], turn: Turn) -> Example:
        return Example(id, turn.answer, tuple(messages), category=turn.category, check=turn.check)


@cache
def _validation_prompts() -> frozenset[tuple[tuple[str, str], ...]]:
    """The validation prompts of `prepare hamlet --kind prompts`; making them takes about a second."""
    from understudy.hamlet.conversations import prompts
    from understudy.hamlet.write import DEFAULT_COUNTS

    return frozenset(_said(row["prompt"]) for row in islice(prompts(0, "val"), DEFAULT_COUNTS["prompts"]["val"]))


def _said(messages: Iterable[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)


class HamletChoice(Hamlet):
    """The same questions, each with its right answer among one to three wrong answers of the same form.

    It measures models that cannot hold a conversation yet. Chance is about a third.
    """

    name = "hamlet-choice"
    kind: Kind = "choice"

    def score(self, example: Example, answer: str) -> float:
        return float(answer == example.answer)

    def _example(self, id: str, messages: list[Message], turn: Turn) -> Example:
        position = int(id.rpartition("/")[2]) % (len(turn.wrong) + 1)
        choices = (*turn.wrong[:position], turn.answer, *turn.wrong[position:])
        return Example(id, turn.answer, tuple(messages), category=turn.category, choices=choices, check=turn.check)
