"""Evaluation of a run on a split of data: loss per token, or for a reward model loss per pair and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.chat.pair_rows import encode_preferences
from understudy.data.chat.preferences import open_preferences
from understudy.evaluate.loss import LossResult, evaluate_run
from understudy.evaluate.reward_model import RewardEvaluation, evaluate_scores
from understudy.files import write_json
from understudy.rewards.model import RewardModel
from understudy.run import Run
from understudy.runtime import Runtime


@dataclass(frozen=True)
class RunEvaluation:
    """Result of one run on one split.

    Attributes:
        result: a :class:`RewardEvaluation` for a reward model.
        own_validation: whether the data is the run's own validation split, in windows of the model's context.
    """

    run: Run
    split: str
    context_length: int
    result: LossResult | RewardEvaluation
    own_validation: bool

    def facts(self) -> dict[str, Any]:
        """The evaluated run, checkpoint, split and context length, as plain JSON."""
        return {
            "run": str(self.run.path), "step": self.run.step, "split": self.split,
            "context_length": self.context_length,
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """The facts and the results, without the list of single scores."""
        results = {name: value for name, value in self.result.as_dict().items() if name != "scores"}
        return self.facts() | results

    def save(self) -> None:
        """Write the result to the run's folder, where the report reads it, if it is the run's own validation."""
        if self.own_validation and isinstance(self.result, RewardEvaluation):
            self.result.save(self.run.path, self.run.step)
        elif self.own_validation:
            write_json(self.run.path / "evaluation.json", self.result.as_dict() | {"checkpoint": str(self.run.step)})


def evaluate_split(
    run: Run,
    runtime: Runtime,
    path: Path | None = None,
    split: str = "val",
    context_length: int | None = None,
    batch_size: int = 16,
) -> RunEvaluation:
    """Evaluate a run on a split of its data or of the data at ``path``.

    Args:
        context_length: length of the windows; the model's context by default.

    Raises:
        ValueError: a context the model cannot read, no such data, or a result that is not finite.
    """
    limit = run.config.model.context_length
    context = limit if context_length is None else context_length
    if not 1 <= context <= limit:
        raise ValueError(f"--context is {context}; the model reads 1 to {limit} tokens")
    result: LossResult | RewardEvaluation
    if run.config.info.generates:
        result = evaluate_run(run, runtime, path, split, context, batch_size)
    else:
        model = RewardModel(run, runtime).model
        preferences = open_preferences(path or Path(run.config.data.path), split)
        encoded = encode_preferences(preferences, run.tokenizer, context, split)
        result = evaluate_scores(model, encoded, context, batch_size, runtime)
    return RunEvaluation(run, split, context, result, path is None and split == "val" and context == limit)
