"""A reward model evaluated on preferences that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.data.chat.pair_rows import EncodedComparison, EncodedPreferences, comparison_batches, encode_preferences
from understudy.data.chat.preferences import open_preferences
from understudy.evaluate.loss import LossResult
from understudy.evaluate.statistics import estimate, mean_interval
from understudy.files import write_json
from understudy.inference.generate import evaluating
from understudy.losses import pair_loss
from understudy.model import GPT
from understudy.rewards.model import RewardModel, check_finite, document_scores
from understudy.run import REWARD_EVALUATION, Run, RunFolder
from understudy.runtime import Runtime

BINS = 10


@dataclass(frozen=True)
class RewardEvaluation:
    """What scores are worth on pairs that were not trained on.

    Attributes:
        rows: for each pair that is no tie: ``difference`` of scores (better less worse), ``category``, and whether the
            better one is truly better (``clean``; None where the truth is not known).
        scores: of every answer, with its true score where known: (score, truth).
    """

    loss: LossResult
    rows: list[dict[str, Any]]
    scores: list[tuple[float, float | None]]

    def measured(self) -> dict[str, float]:
        """Accuracies with their intervals: against the labels, and against the truth where it is known."""
        found: dict[str, float] = {}
        kinds = {"accuracy": [row["difference"] > 0 for row in self.rows]}
        known = [row for row in self.rows if row["clean"] is not None]
        if known:
            kinds["true_accuracy"] = [(row["difference"] > 0) == row["clean"] for row in known]
        for name, right in kinds.items():
            if right:
                told = estimate([float(each) for each in right])
                found |= {f"val/{name}": told.value}
                found |= {
                    f"val/{name}_{end}": x for end, x in (("low", told.low), ("high", told.high)) if x is not None
                }
        return found

    def as_dict(self) -> dict[str, Any]:
        """What is kept with the run: accuracies, calibration and the distribution of scores."""
        return {
            "loss": self.loss.loss, "loss_low": self.loss.loss_low, "loss_high": self.loss.loss_high,
            **{name.removeprefix("val/"): value for name, value in self.measured().items()}, "pairs": len(self.rows),
            "calibration": calibration([row["difference"] for row in self.rows]),
            "scores": self.scores,
        }  # fmt: skip

    def save(self, folder: RunFolder, step: int) -> None:
        """Keep it with the run, where the report reads it."""
        write_json(folder.path / REWARD_EVALUATION, self.as_dict() | {"checkpoint": str(step)})


def calibration(differences: Sequence[float]) -> list[dict[str, float]]:
    """How often the labels agree, for pairs of which the model says so with about the same probability.

    The model's probability that its higher one is preferred is the sigmoid of the difference; the pairs are sorted by
    it into bins of equal size.
    """
    sure = sorted((1 / (1 + math.exp(-min(abs(d), 50.0))), float(d > 0)) for d in differences)
    bins = [sure[len(sure) * k // BINS : len(sure) * (k + 1) // BINS] for k in range(BINS)]
    return [
        {"said": sum(p for p, _ in own) / len(own), "was": sum(w for _, w in own) / len(own), "pairs": len(own)}
        for own in bins
        if own
    ]


@torch.no_grad()
def evaluate_scores(
    model: GPT, preferences: EncodedPreferences, context_length: int, batch_size: int, runtime: Runtime
) -> RewardEvaluation:
    """Score all completions of ``preferences``. The processes share the batches, and each returns all scores.

    Raises:
        ValueError: a score is not finite.
    """
    batches = comparison_batches(preferences, context_length, batch_size, runtime.rank, runtime.world_size)
    shard: list[tuple[list[float], list[float]]] = []
    with evaluating(model):
        for comparisons, batch in batches:
            batch = {name: tensor.to(runtime.device) for name, tensor in batch.items()}
            with runtime.autocast():
                scores = document_scores(model, batch).float()
            shard.append((_losses(comparisons, batch, scores), scores.tolist()))
    gathered = runtime.gather_shards(shard)
    losses = [loss for batch_losses, _ in gathered for loss in batch_losses]
    scores_in_order = check_finite([score for _, batch_scores in gathered for score in batch_scores])
    rows: list[dict[str, Any]] = []
    scored: list[tuple[float, float | None]] = []
    for comparison in preferences.comparisons:
        score = scores_in_order[comparison.first : comparison.first + len(comparison.completions)]
        scored += list(zip(score, comparison.true_scores))
        rows += [
            {
                "difference": score[p.chosen] - score[p.rejected], "category": comparison.category,
                "clean": _clean(comparison.true_scores[p.chosen], comparison.true_scores[p.rejected]),
            }
            for p in comparison.pairs if not p.tie
        ]  # fmt: skip
    mean = sum(losses) / len(losses)
    low, high = mean_interval(losses)
    return RewardEvaluation(LossResult(mean, low, high, preferences.pairs), rows, scored)


def judge_run(
    run: Run, runtime: Runtime, path: Path | None = None, split: str = "val", context_length: int | None = None,
    batch_size: int = 16,
) -> RewardEvaluation:  # fmt: skip
    """What a run's scores are worth on a split of its preferences, or of those at ``path``.

    Raises:
        ValueError: a run without a score, or no such data.
    """
    model, context = RewardModel(run, runtime).model, context_length or run.config.model.context_length
    comparisons = open_preferences(path or Path(run.config.data.path), split)
    return evaluate_scores(
        model, encode_preferences(comparisons, run.tokenizer, context, split), context, batch_size, runtime
    )


def _losses(comparisons: Sequence[EncodedComparison], batch: dict[str, Tensor], scores: Tensor) -> list[float]:
    """The loss of each prompt, a mean over its pairs."""
    chosen, rejected = scores[batch["chosen"]], scores[batch["rejected"]]
    loss = torch.where(
        batch["tie"], (pair_loss(chosen, rejected) + pair_loss(rejected, chosen)) / 2, pair_loss(chosen, rejected)
    )
    values = iter((loss * batch["weight"]).tolist())
    return [sum(next(values) for _ in comparison.pairs) for comparison in comparisons]


def _clean(chosen: float | None, rejected: float | None) -> bool | None:
    """Whether the labels tell the truth; None where it is not known, or there is no difference."""
    return None if chosen is None or rejected is None or chosen == rejected else chosen > rejected
