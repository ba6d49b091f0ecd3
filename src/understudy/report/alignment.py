"""Charts of the alignment stages: over-optimisation of a reward, and the scores of a reward model.

The data comes from files in a run's folder, which training and `understudy best-of-n` write. Not here: sampling and
scoring (stages/), drawing (plots.py, report.html).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.config.stages import STAGES
from understudy.evaluation.statistics import wilson_interval
from understudy.files import read_json
from understudy.report.plots import Rows, panels_plot
from understudy.report.wording import interval, joined, number, percent
from understudy.run import BEST_OF_N

PICTURE = "overoptimisation.png"
BINS = 24
Point = tuple[float, float, float | None, float | None, str]
"""Of a chart: x, y, the bounds of y and a name."""
Panel = dict[str, Any]
"""A chart: ``title``, ``x`` and ``lines``, each with ``label``, ``style`` and the lists ``x``, ``y``, ``low``, ``high``
(None if unknown) and ``names`` of its points."""


def overoptimisation(rows: Rows, best_of_n: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Panel]:
    """Reward and true score against the square root of the KL from the reference model (Gao et al. 2022, figure 1), for
    the run's evaluations and for best of n samples of its reference model. Empty for stages without rollouts.

    If training normalises scores, the reward model's score is drawn instead of the reward.
    """
    stage = settings.get("stage")
    if stage not in STAGES or not STAGES[stage].rollout:
        return []
    section = settings.get(stage, {})
    proxy = "score" if section.get("normalise_scores") and section.get("reward_model") else "reward"
    panels = []
    for name, title in ((proxy, f"{proxy}, which is optimised"), ("true_score", "true score, not trained on")):
        lines = [
            _line(stage, "val", _points(rows, "val/", name, "step", "step {:,}")),
            _line(
                "best of n of the reference", "dashed", _points(best_of_n.get("rows", ()), "", name, "n", "n = {:,}")
            ),
        ]
        if lines[0]["x"]:
            panels.append({
                "title": title, "x": "square root of the KL from the reference model (nats per completion)",
                "lines": [line for line in lines if line["x"]],
            })  # fmt: skip
    return panels


def _points(rows: Rows, prefix: str, metric: str, number_key: str, name_format: str) -> list[Point]:
    """A point for each row that has a KL and a value of the metric."""
    return [
        (math.sqrt(max(0.0, row[f"{prefix}kl"])), row[f"{prefix}{metric}"], row.get(f"{prefix}{metric}_low"),
         row.get(f"{prefix}{metric}_high"), name_format.format(row[number_key]))
        for row in rows if row.get(f"{prefix}kl") is not None and row.get(f"{prefix}{metric}") is not None
    ]  # fmt: skip


def _line(label: str, style: str, points: Sequence[Point]) -> dict[str, Any]:
    columns = zip(*points) if points else [()] * 5
    return {"label": label, "style": style} | {
        key: list(column) for key, column in zip(("x", "y", "low", "high", "names"), columns)
    }


def draw_overoptimisation(folder: Path, rows: Rows, settings: Mapping[str, Any]) -> None:
    """Draw the over-optimisation charts into the run's folder, if there are any.

    Raises:
        ValueError: best_of_n.json is damaged, or the picture cannot be written.
    """
    path = folder / BEST_OF_N
    if panels := overoptimisation(rows, read_json(path) if path.exists() else {}, settings):
        panels_plot(folder.resolve().name, panels, folder / PICTURE)


def reward_evidence(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """``facts`` of a reward model and the ``charts`` of its calibration and its scores."""
    if not evaluation:
        return None
    facts: dict[str, Any] = {"step": evaluation.get("checkpoint"), "pairs": evaluation.get("pairs")}
    for name, label in (("accuracy", "accuracy (labels)"), ("true_accuracy", "accuracy (true scores)")):
        if name in evaluation:
            facts[label] = joined(percent(evaluation[name]), interval(evaluation, name, "percent"), gap=" ")
    facts["loss (nats per pair)"] = number(evaluation.get("loss"), 4)
    points = []
    for row in evaluation["calibration"]:
        predicted, observed, pairs = row["predicted"], row["observed"], row["pairs"]
        name = f"{pairs:,} pairs, predicted {percent(predicted)}"
        points.append((predicted, observed, *wilson_interval(observed * pairs, pairs), name))
    calibration = {
        "title": "calibration: observed agreement with the labels", "x": "predicted probability of the preferred answer",
        "diagonal": True, "kind": "share", "lines": [_line("pairs", "val", points)],
    }  # fmt: skip
    return {"facts": {name: str(value) for name, value in facts.items()}, "charts": [calibration, _scores(evaluation)]}


def _scores(evaluation: Mapping[str, Any]) -> Panel:
    """Histograms of scores, each of sum 1, separate for right and wrong answers if that is known."""
    groups: dict[str, list[float]] = {}
    for score, true_score in evaluation["scores"]:
        name = "answers" if true_score is None else "right answers" if true_score >= 1 else "wrong answers"
        groups.setdefault(name, []).append(score)
    values = [score for score, _ in evaluation["scores"]]
    edges = np.linspace(min(values), max(values) if max(values) > min(values) else min(values) + 1, BINS + 1)
    shares = {name: (np.histogram(group, edges)[0] / len(group)).round(5) for name, group in sorted(groups.items())}
    bars = [{"label": f"{name} ({len(groups[name]):,})", "y": y.tolist(), "kind": name} for name, y in shares.items()]
    return {
        "title": "distribution of scores", "x": "score", "kind": "share", "edges": edges.round(5).tolist(), "bars": bars,
        "lines": [],
    }  # fmt: skip
