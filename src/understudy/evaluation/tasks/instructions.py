"""Instructions that code can check, such as "Use exactly three sentences.", about topics and in words held out of training."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from understudy.evaluation.task import Example, Kind, Split, Task

SEED = 20_260
"""Seed of the prompts of `evaluate` and `compare`. `prepare instructions` has seed 0 by default."""
QUESTIONS = 306
"""By default: each kind alone 12 times, and 102 times two together."""


class Instructions(Task):
    """Generated answers. Accuracy is the mean share of the instructions that an answer meets; `all_met` is the share of the
    answers that meet all of theirs. A category is a kind, or two instructions together."""

    name = "instructions"
    kind: Kind = "answer"
    verifier = "instructions"
    max_new_tokens = 64

    def __init__(self, path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(few_shot)
        if path is not None:
            raise ValueError(f"the task {self.name} generates its own questions; leave --task-data out")
        if few_shot:
            raise ValueError(f"the task {self.name} has no solved examples to show; leave --few-shot out")

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        """Prompts that are not among the validation prompts of `prepare`, by which ppo and grpo choose a checkpoint."""
        from understudy.instructions.prompts import COUNTS, prompts

        chosen_by = [row["prompt"] for row in islice(prompts(0, "val"), COUNTS["val"])] if split == "val" else []
        rows = ((index, row) for index, row in enumerate(prompts(SEED, split)) if row["prompt"] not in chosen_by)
        return [
            Example(
                f"{self.name}/{split}/{index}", "", tuple(row["prompt"]), category=row["category"], check=row["check"]
            )
            for index, row in islice(rows, QUESTIONS if limit is None else limit)
        ]

    def scores(self, example: Example, answer: str) -> dict[str, float]:
        scores = super().scores(example, answer)
        return scores | {"all_met": float(scores[self.metric] == 1)}
