"""Reward models: a score for each answer, trained so that what people prefer scores higher.

Shapes: N documents (answers) of a batch, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.align.answers import states
from understudy.align.pairs import (
    PairRows,
    RenderedPairs,
    Unit,
    document_of,
    render_pairs,
    unit_batches,
    weighted_pairs,
)
from understudy.config import RewardConfig, RunConfig
from understudy.data.packing import lay_in_rows
from understudy.data.preferences import open_preferences
from understudy.evaluate.alignment import REWARD_EVALUATION
from understudy.evaluate.loss import LossResult
from understudy.evaluate.statistics import estimate, mean_interval
from understudy.inference.engine import evaluating
from understudy.losses import pair_loss
from understudy.model import GPT
from understudy.run import Run, RunFolder, load_run, write_json
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message
from understudy.train.material import Course, Material, Setting, by_sample, present_data
from understudy.train.objectives import Objective

BINS = 10


class PairwiseReward(Objective):
    """Bradley-Terry loss of the pairs in a batch of :func:`understudy.align.pairs.collate_pairs`."""

    model: GPT

    def __init__(self, model: GPT, config: RewardConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        if not model.config.tied:
            model.head.requires_grad_(False)  # nothing reads it

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["weight"].sum()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        scores = document_scores(self.model, batch)
        better, worse = scores[batch["better"]], scores[batch["worse"]]
        margin = batch["margin"] if self.config.margin else 0.0
        loss = pair_loss(better, worse, margin, self.config.centring)
        reverse = pair_loss(worse, better, 0.0, self.config.centring)
        return weighted_pairs(batch, loss, reverse, better - worse)


def document_scores(model: GPT, batch: dict[str, Tensor]) -> Tensor:
    """The scores (N,) of a batch's answers, read where each ends."""
    return model.score(states(model, batch, batch["ends"]))


def reward_material(config: RunConfig, tokenizer: Tokenizer) -> Material:
    """Preferences for a reward model.

    Raises:
        ValueError: no such data, or nothing in it to train on.
    """
    opened, rendered = open_pairs(config, tokenizer)

    def prepare(setting: Setting) -> Course:
        assert isinstance(setting.model, GPT)
        context = config.model.context_length
        rows = PairRows(rendered["train"], context, config.train.seed)
        last: list[Judged] = []

        def judge(objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
            assert isinstance(objective.model, GPT)
            last[:] = [judge_scores(objective.model, rendered["val"], context, size, setting.runtime)]
            return last[0].loss, last[0].measured()

        objective, source = PairwiseReward(setting.model, config.section(RewardConfig)), by_sample(rows, setting)
        return Course(objective, source, judge, keep=lambda step: last[0].save(setting.folder, step))

    return Material(
        tokenizer=tokenizer, prepare=prepare, prompts=[], ends=frozenset(), about=about_pairs(opened, rendered),
        notes=[f"{split}: {each}" for split, each in rendered.items()],
    )  # fmt: skip


def open_pairs(config: RunConfig, tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, RenderedPairs]]:
    """Both splits of the preferences, as they lie there and rendered; validation as far as eval.max_tokens goes."""
    path = present_data(config)
    opened = {split: open_preferences(path, split) for split in ("train", "val")}
    rendered = {split: render_pairs(each, tokenizer, config.model.context_length) for split, each in opened.items()}
    if most := config.eval.max_tokens:
        val, tokens = rendered["val"], 0
        kept: list[Unit] = []
        for unit in val.units:
            tokens += sum(len(document.tokens) for document in unit.documents)
            if kept and tokens > most:
                break
            kept.append(unit)
        rendered["val"] = RenderedPairs(kept, sum(len(unit.documents) for unit in kept), val.cut, val.too_long)
    return opened, rendered


def about_pairs(opened: dict[str, Any], rendered: dict[str, RenderedPairs]) -> dict[str, Any]:
    """What run.json says of preferences."""
    counts = {
        f"{split}_{what}": getattr(each, what) if what != "prompts" else len(each.units)
        for split, each in rendered.items()
        for what in ("prompts", "pairs", "tokens")
    }
    return {"path": str(opened["train"].path), "sha256": opened["train"].sha256, **counts}


@dataclass(frozen=True)
class Judged:
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
def judge_scores(model: GPT, rendered: RenderedPairs, context_length: int, batch_size: int, runtime: Runtime) -> Judged:
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
            given = _finite(scores.tolist())
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
    return Judged(LossResult(mean, mean if low is None else low, mean if high is None else high, pairs), rows, scored)


def judge_run(
    run: Run, runtime: Runtime, path: Path | None = None, split: str = "val", context_length: int | None = None,
    batch_size: int = 16,
) -> Judged:  # fmt: skip
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


def _finite(scores: list[float]) -> list[float]:
    if not all(map(math.isfinite, scores)):
        raise ValueError(
            "the reward model's scores are not finite: its training diverged; train one with a lower optim.lr"
        )
    return scores


class RewardModel:
    """A trained reward model, ready to score.

    Raises:
        ValueError: no such run, or one without a score.
    """

    def __init__(self, run: Run | str, runtime: Runtime) -> None:
        self.run = load_run(run) if isinstance(run, str) else run
        self.runtime = runtime
        if not isinstance(self.run.model, GPT) or not self.run.model.config.score_head:
            raise ValueError(f"the run {self.run.path} gives no scores; train one with `understudy reward`")
        self.model = self.run.model.to(runtime.device).eval()

    def conversations(self, conversations: Sequence[Sequence[Message]], batch_size: int = 16) -> list[float]:
        """The score of each conversation's last answer. The oldest turns of what is too long are left out.

        Raises:
            ValueError: no conversation, one that does not end with the assistant, or one that does not fit.
        """
        rows = []
        for number, messages in enumerate(conversations, 1):
            if not messages or messages[-1].get("role") != "assistant":
                raise ValueError(f"conversation {number} does not end with an answer; there is nothing to score")
            document = document_of(self.run.tokenizer, messages[:-1], messages[-1:])
            rows.append((document.tokens[: document.answer], document.tokens[document.answer :]))
        return self.answers(rows, batch_size)

    @torch.no_grad()
    def answers(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int = 16) -> list[float]:
        """The score read at the last token of each (prompt, answer), of which the last ``context_length`` are seen.

        Raises:
            ValueError: a score is not finite.
        """
        context = self.model.config.context_length
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i][0]), rows[i]))  # one prompt's are read together
        scores = [0.0] * len(rows)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            laid, places = lay_in_rows([_last(*rows[i], context) for i in batch], context)
            laid["ends"] = torch.stack([place[-1] for place in places])
            with self.runtime.autocast():
                found = document_scores(self.model, {k: v.to(self.runtime.device) for k, v in laid.items()})
            for i, score in zip(batch, found.tolist()):
                scores[i] = score
        return _finite(scores)


def _last(prompt: list[int], answer: list[int], most: int) -> tuple[list[int], list[int]]:
    """The last tokens of both, ``most`` together, the first of them counted to the prompt."""
    both = (prompt + answer)[-most:]
    asked = max(1, len(both) - len(answer))
    return both[:asked], both[asked:]
