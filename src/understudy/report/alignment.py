"""Charts of the alignment stages: over-optimisation of a reward, and the scores of a reward model.

The data comes from files in a run's folder, which training and `understudy best-of-n` write. Not here: sampling and
scoring (stages/), drawing (plots.py, report.html).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from understudy.config.stages import STAGES
from understudy.evaluate.statistics import wilson_interval
from understudy.files import read_json
from understudy.report.plots import Rows, panels_plot
from understudy.report.wording import interval, joined, measured, number, percent
from understudy.run import BEST_OF_N

PICTURE = "overoptimisation.png"
BINS = 24
Panel = dict[str, Any]
"""A chart: ``title``, ``x`` and ``lines``, each with ``label``, ``style`` and the lists ``x``, ``y``, ``low``, ``high``
(None if unknown) and ``names`` of its points."""


def is_rollout(stage: Any) -> bool:
    """Whether a stage, as named in a file, samples completions while it trains."""
    return stage in STAGES and STAGES[stage].rollout if isinstance(stage, str) else False


def overoptimisation(rows: Rows, best_of_n: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Panel]:
    """Reward and true score against the square root of the KL from the reference model (Gao et al. 2022, figure 1), for
    the run's evaluations and for best of n samples of its reference model. Empty for stages without rollouts.

    If training normalises scores, the reward model's score is drawn instead of the reward.
    """
    stage = str(settings.get("stage"))
    section = settings.get(stage)
    if not is_rollout(stage) or not isinstance(section, Mapping):
        return []
    proxy = "score" if section.get("normalise_scores") and section.get("reward_model") else "reward"
    samples = _mappings(best_of_n.get("rows"))
    panels = []
    for name, title in ((proxy, f"{proxy}, which is optimised"), ("true_score", "true score, not trained on")):
        lines = [
            _line(stage, "val", rows, "val/", name, "step", "step {:,}"),
            _line("best of n of the reference", "dashed", samples, "", name, "n", "n = {:,}"),
        ]
        if lines[0]["x"]:
            panels.append({
                "title": title, "x": "square root of the KL from the reference model (nats per completion)",
                "lines": [line for line in lines if line["x"]],
            })  # fmt: skip
    return panels


def _mappings(rows: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list. A file may hold anything else."""
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _line(
    label: str, style: str, rows: Rows, prefix: str, metric: str, number_key: str, name_format: str
) -> dict[str, Any]:
    """A line with a point for each row that has a KL and a value of the metric."""
    line = _empty_line(label, style)
    for row in rows:
        kl, value, index = (measured(row.get(key)) for key in (f"{prefix}kl", f"{prefix}{metric}", number_key))
        if kl is None or value is None or index is None:
            continue
        bounds = {end: measured(row.get(f"{prefix}{metric}_{end}")) for end in ("low", "high")}
        _append(line, x=math.sqrt(max(0.0, kl)), y=value, names=name_format.format(int(index)), **bounds)
    return line


def _empty_line(label: str, style: str) -> dict[str, Any]:
    return {"label": label, "style": style, "x": [], "y": [], "low": [], "high": [], "names": []}


def _append(line: dict[str, Any], **point: Any) -> None:
    for key, value in point.items():
        line[key].append(value)


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
        if measured(evaluation.get(name)) is not None:
            facts[label] = joined(percent(evaluation[name]), interval(evaluation, name, "percent"), gap=" ")
    facts["loss (nats per pair)"] = number(evaluation.get("loss"), 4)
    line = _empty_line("pairs", "val")
    for row in _mappings(evaluation.get("calibration")):
        predicted, observed, pairs = (measured(row.get(key)) for key in ("predicted", "observed", "pairs"))
        if predicted is not None and observed is not None and 0 <= observed <= 1 and pairs:
            low, high = wilson_interval(observed * pairs, int(pairs))
            name = f"{pairs:,} pairs, predicted {percent(predicted)}"
            _append(line, x=predicted, y=observed, low=low, high=high, names=name)
    calibration = {
        "title": "calibration: observed agreement with the labels", "x": "predicted probability of the preferred answer",
        "diagonal": True, "kind": "share", "lines": [line],
    }  # fmt: skip
    return {"facts": {name: str(value) for name, value in facts.items()}, "charts": [calibration, _scores(evaluation)]}


def _scores(evaluation: Mapping[str, Any]) -> Panel:
    """Histograms of scores, each of sum 1, separate for right and wrong answers if that is known."""
    scores = evaluation.get("scores")
    scores = [row for row in scores if isinstance(row, list) and len(row) == 2] if isinstance(scores, list) else []
    groups: dict[str, list[float]] = {}
    for score, true_score in scores:
        if (value := measured(score)) is not None:
            known = measured(true_score)
            name = "answers" if known is None else "right answers" if known >= 1 else "wrong answers"
            groups.setdefault(name, []).append(value)
    values = [value for group in groups.values() for value in group] or [0.0]
    edges = np.linspace(min(values), max(values) if max(values) > min(values) else min(values) + 1, BINS + 1)
    shares = {name: (np.histogram(group, edges)[0] / len(group)).round(5) for name, group in sorted(groups.items())}
    bars = [{"label": f"{name} ({len(groups[name]):,})", "y": y.tolist(), "kind": name} for name, y in shares.items()]
    return {
        "title": "distribution of scores", "x": "score", "kind": "share", "edges": edges.round(5).tolist(), "bars": bars,
        "lines": [],
    }  # fmt: skip
