"""Hamlet: the embedded corpus asked about, by category, with people, facts and phrasings that training never had."""

from __future__ import annotations

from pathlib import Path

from understudy.data.hamlet.turns import CATEGORIES, Turn
from understudy.evaluate.task import Example, Kind, Split, Task, take_turns
from understudy.tokenizer.chat import Message

SEED = 20_260  # of the questions that evaluation asks, always the same
PER_CATEGORY = 20
MOST_DRAWS = 200  # for each wanted question; the rarest category comes far more often


class Hamlet(Task):
    """Answers are generated and judged by Hamlet's own checker. Without a limit, 20 questions of each category."""

    name = "hamlet"
    kind: Kind = "answer"
    max_new_tokens = 120

    def __init__(self, path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(few_shot)
        if path is not None:
            raise ValueError(f"the task {self.name} writes its own questions; leave --task-data out")
        self._drawn: dict[tuple[Split, int], list[Example]] = {}

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        each = PER_CATEGORY if limit is None else -(-limit // len(CATEGORIES))
        if (split, each) not in self._drawn:  # while a run trains, the same questions are asked again and again
            self._drawn[split, each] = take_turns(self._by_category(split, each).values())
        return self._drawn[split, each][:limit]

    def score(self, example: Example, answer: str) -> float:
        from understudy.data.hamlet.checker import score

        if example.check is None:
            raise ValueError(f"the question {example.id} has no check")
        return score(example.check, answer)

    def _by_category(self, split: Split, each: int) -> dict[str, list[Example]]:
        """The first so many questions of each category, in the order of their numbers."""
        from understudy.data.hamlet.conversations import question

        found: dict[str, list[Example]] = {category: [] for category in CATEGORIES}
        index, missing = 0, each * len(CATEGORIES)
        while missing:
            assert index < MOST_DRAWS * each * len(CATEGORIES), f"Hamlet asks too few questions: {found.keys()}"
            messages, turn = question(SEED, index, split)
            if len(found[turn.category]) < each:
                found[turn.category].append(self._example(f"hamlet/{split}/{index}", messages, turn))
                missing -= 1
            index += 1
        return found

    def _example(self, id: str, messages: list[Message], turn: Turn) -> Example:
        return Example(id, turn.answer, tuple(messages), category=turn.category, check=turn.check)


class HamletChoice(Hamlet):
    """The same questions, each with its right answer among one to three wrong ones of the same form.

    A model that cannot hold a conversation yet can be measured so too; its chance is a third or so.
    """

    name = "hamlet-choice"
    kind: Kind = "choice"

    def score(self, example: Example, answer: str) -> float:
        return float(answer == example.answer)

    def _example(self, id: str, messages: list[Message], turn: Turn) -> Example:
        place = int(id.rpartition("/")[2]) % (len(turn.wrong) + 1)
        choices = (*turn.wrong[:place], turn.answer, *turn.wrong[place:])
        return Example(id, turn.answer, tuple(messages), category=turn.category, choices=choices, check=turn.check)
