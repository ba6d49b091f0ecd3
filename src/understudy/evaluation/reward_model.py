"""Evaluation of a reward model on held-out preferences: loss, accuracy and calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from understudy.data.chat.pair_rows import EncodedComparison, EncodedPreferences, comparison_batches
from understudy.data.loader import Batch
from understudy.evaluation.loss import LossResult
from understudy.evaluation.statistics import Estimate, estimate, mean_estimate
from understudy.files import write_json
from understudy.inference.generate import evaluating
from understudy.losses import pair_loss
from understudy.model import GPT
from understudy.rewards.model import check_finite, document_scores
from understudy.run import REWARD_EVALUATION
from understudy.runtime import Runtime

BINS = 10
T = TypeVar("T")


@dataclass(frozen=True)
class RewardEvaluation:
    """Scores of a reward model on held-out pairs.

    Attributes:
        loss: per pair, with the interval over prompts.
        rows: for each pair that is no tie: ``difference`` of scores (chosen minus rejected), ``category``, and
            ``clean``: whether the label agrees with the true scores; None if they are not known.
        scores: (score, true score) of every completion; the latter None if not known.
    """

    loss: LossResult
    rows: list[dict[str, Any]]
    scores: list[tuple[float, float | None]]

    def accuracies(self) -> dict[str, Estimate]:
        """Agreement with the labels (``accuracy``) and, where known, with the true scores (``true_accuracy``)."""
        agreement = {"accuracy": [row["difference"] > 0 for row in self.rows]}
        known = [row for row in self.rows if row["clean"] is not None]
        agreement["true_accuracy"] = [(row["difference"] > 0) == row["clean"] for row in known]
        return {name: estimate([float(value) for value in values]) for name, values in agreement.items() if values}

    def measured(self) -> dict[str, float]:
        """The accuracies with their intervals, as metrics of the validation split."""
        accuracies = self.accuracies().items()
        return {key: value for name, each in accuracies for key, value in each.metrics(f"val/{name}").items()}

    def as_dict(self) -> dict[str, Any]:
        """The contents of evaluation_reward.json: accuracies, calibration and the distribution of scores."""
        accuracies = self.accuracies().items()
        return {
            "loss": self.loss.loss, "loss_low": self.loss.loss_low, "loss_high": self.loss.loss_high,
            **{key: value for name, each in accuracies for key, value in each.named(name).items()},
            "pairs": len(self.rows),
            "calibration": calibration([row["difference"] for row in self.rows]),
            "scores": self.scores,
        }  # fmt: skip

    def save(self, folder: Path, step: int) -> None:
        """Write it to the run's folder, where the report reads it."""
        write_json(folder / REWARD_EVALUATION, self.as_dict() | {"checkpoint": str(step)})


def calibration(differences: Sequence[float]) -> list[dict[str, float]]:
    """Calibration curve: predicted probability and observed agreement with the labels, in bins of equal size.

    The model's probability for the completion it prefers is the sigmoid of the difference of scores.

    Returns:
        For each bin ``predicted`` and ``observed`` (means over its pairs) and ``pairs``.
    """
    points = sorted((1 / (1 + math.exp(-min(abs(d), 50.0))), float(d > 0)) for d in differences)
    bins = [points[len(points) * k // BINS : len(points) * (k + 1) // BINS] for k in range(BINS)]
    return [
        {
            "predicted": sum(p for p, _ in pairs) / len(pairs), "observed": sum(o for _, o in pairs) / len(pairs),
            "pairs": len(pairs),
        }
        for pairs in bins
        if pairs
    ]  # fmt: skip


@torch.no_grad()
def over_comparisons(
    model: GPT, preferences: EncodedPreferences, context_length: int, batch_size: int, runtime: Runtime,
    compute: Callable[[list[EncodedComparison], Batch], T], reference_logprobs: Tensor | None = None,
) -> list[T]:  # fmt: skip
    """``compute`` of each batch of comparisons, in order. The processes share the batches, and each returns all results."""
    batches = comparison_batches(
        preferences, context_length, batch_size, runtime.rank, runtime.world_size, reference_logprobs
    )
    shard = []
    with evaluating(model):
        for comparisons, batch in batches:
            with runtime.autocast():
                shard.append(compute(comparisons, {k: tensor.to(runtime.device) for k, tensor in batch.items()}))
    return runtime.gather_shards(shard)


def evaluate_scores(
    model: GPT, preferences: EncodedPreferences, context_length: int, batch_size: int, runtime: Runtime
) -> RewardEvaluation:
    """Score all completions of ``preferences``. The processes share the batches, and each returns all scores.

    Raises:
        ValueError: a score is not finite.
    """

    def compute(comparisons: list[EncodedComparison], batch: Batch) -> tuple[list[float], list[float]]:
        scores = document_scores(model, batch).float()
        return _losses(comparisons, batch, scores), scores.tolist()

    gathered = over_comparisons(model, preferences, context_length, batch_size, runtime, compute)
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
    mean = mean_estimate(losses)
    return RewardEvaluation(LossResult(mean.value, mean.low, mean.high, preferences.pairs), rows, scored)


def _losses(comparisons: Sequence[EncodedComparison], batch: dict[str, Tensor], scores: Tensor) -> list[float]:
    """Mean loss over the pairs of each prompt."""
    chosen, rejected = scores[batch["chosen"]], scores[batch["rejected"]]
    loss = torch.where(
        batch["tie"], (pair_loss(chosen, rejected) + pair_loss(rejected, chosen)) / 2, pair_loss(chosen, rejected)
    )
    values = iter((loss * batch["weight"]).tolist())
    return [sum(next(values) for _ in comparison.pairs) for comparison in comparisons]


def _clean(chosen: float | None, rejected: float | None) -> bool | None:
    """Whether the label agrees with the true scores; None if they are not known or equal."""
    return None if chosen is None or rejected is None or chosen == rejected else chosen > rejected
