"""A reward model evaluated on preferences that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.data.chat.pair_rows import RenderedPairs, Unit, render_pairs, unit_batches
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
def judge_scores(
    model: GPT, rendered: RenderedPairs, context_length: int, batch_size: int, runtime: Runtime
) -> RewardEvaluation:
    """Score every unit. One process's share only, and its loss: the processes of a run judge the same units.

    Raises:
        ValueError: a score is not finite.
    """
    losses: list[float] = []
    rows: list[dict[str, Any]] = []
    scored: list[tuple[float, float | None]] = []
    with evaluating(model):
        for units, batch in unit_batches(rendered, context_length, batch_size):
            batch = {name: tensor.to(runtime.device) for name, tensor in batch.items()}
            with runtime.autocast():
                scores = document_scores(model, batch).float()
            losses += _unit_losses(units, batch, scores)
            given = check_finite(scores.tolist())
            begin = 0
            for unit in units:
                own = given[begin : begin + len(unit.documents)]
                begin += len(unit.documents)
                scored += list(zip(own, unit.truths))
                rows += [
                    {
                        "difference": own[p.better] - own[p.worse], "category": unit.category,
                        "clean": _clean(unit.truths[p.better], unit.truths[p.worse]),
                    }
                    for p in unit.pairs if not p.tie
                ]  # fmt: skip
    mean = sum(losses) / len(losses)
    low, high = mean_interval(losses)
    pairs = sum(len(unit.pairs) for unit in rendered.units)
    return RewardEvaluation(
        LossResult(mean, mean if low is None else low, mean if high is None else high, pairs), rows, scored
    )


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
    return judge_scores(model, render_pairs(comparisons, run.tokenizer, context), context, batch_size, runtime)


def _unit_losses(units: Sequence[Unit], batch: dict[str, Tensor], scores: Tensor) -> list[float]:
    """The loss of each prompt, a mean over its pairs."""
    better, worse = scores[batch["better"]], scores[batch["worse"]]
    loss = torch.where(
        batch["tie"], (pair_loss(better, worse) + pair_loss(worse, better)) / 2, pair_loss(better, worse)
    )
    each = iter((loss * batch["weight"]).tolist())
    return [sum(next(each) for _ in unit.pairs) for unit in units]


def _clean(better: float | None, worse: float | None) -> bool | None:
    """Whether the labels tell the truth; None where it is not known, or there is no difference."""
    return None if better is None or worse is None or better == worse else better > worse
