"""What the later stages leave for the page: how far optimising a reward went, and what a reward model's scores are worth.

It reads what training and `understudy best-of-n` left in a run's folder and gives places to draw. Not here: sampling and
scoring (align/), drawing (plots.py, report.html).
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
from understudy.report.wording import measured, number, percent
from understudy.run import BEST_OF_N

PICTURE = "overoptimisation.png"
BINS = 24
TRUE_SCORE = "true score, not trained on"
Panel = dict[str, Any]
"""A chart: ``title``, ``x`` and ``lines``, each with ``label``, ``style`` and the lists ``x``, ``y``, ``low``, ``high`` (None
where unknown) and ``at``, what to call its points."""


def is_rollout(stage: Any) -> bool:
    """Whether a stage, as a file names it, samples completions while it trains."""
    return stage in STAGES and STAGES[stage].rollout if isinstance(stage, str) else False


def overoptimisation(rows: Rows, best_of_n: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Panel]:
    """Reward and true score against the square root of the KL from the reference model (Gao et al. 2022, figure 1): of the
    run's evaluations, and of the best of n completions of the reference. Empty where the run samples no completions.

    Where scores are normalised in training, the reward model's score is drawn.
    """
    stage = str(settings.get("stage"))
    section = settings.get(stage)
    if not is_rollout(stage) or not isinstance(section, Mapping):
        return []
    proxy = "score" if section.get("normalise_scores") and section.get("reward_model") else "reward"
    others = _mappings(best_of_n.get("rows"))
    panels = []
    for name, title in ((proxy, f"{proxy}, which is optimised"), ("true_score", TRUE_SCORE)):
        lines = [
            _line(stage, "val", rows, "val/", name, "step", "step {:,}"),
            _line("best of n of the reference", "dashed", others, "", name, "n", "n = {:,}"),
        ]
        if lines[0]["x"]:
            panels.append({
                "title": title, "x": "square root of the KL from the reference model (nats per completion)",
                "lines": [line for line in lines if line["x"]],
            })  # fmt: skip
    return panels


def _mappings(rows: Any) -> list[Mapping[str, Any]]:
    """Those of a list that are any; a file that a run brings may hold something else."""
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _line(label: str, style: str, rows: Rows, prefix: str, name: str, at: str, called: str) -> dict[str, Any]:
    """The points of the rows that have a KL and a value."""
    found: dict[str, Any] = {"label": label, "style": style, "x": [], "y": [], "low": [], "high": [], "at": []}
    for row in rows:
        kl, value, place = (measured(row.get(key)) for key in (f"{prefix}kl", f"{prefix}{name}", at))
        if kl is None or value is None or place is None:
            continue
        bounds = {end: measured(row.get(f"{prefix}{name}_{end}")) for end in ("low", "high")}
        point = {"x": math.sqrt(max(0.0, kl)), "y": value, **bounds, "at": called.format(int(place))}
        for key, each in point.items():
            found[key].append(each)
    return found


def draw_overoptimisation(folder: Path, rows: Rows, settings: Mapping[str, Any]) -> None:
    """Draw it into the run's folder, where there is something to draw.

    Raises:
        ValueError: best_of_n.json is damaged, or the picture cannot be written.
    """
    path = folder / BEST_OF_N
    if panels := overoptimisation(rows, read_json(path) if path.exists() else {}, settings):
        panels_plot(folder.resolve().name, panels, folder / PICTURE)


def reward_evidence(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page says of a reward model: ``facts``, and the charts ``calibration`` and ``scores``."""
    if not found:
        return None
    facts: dict[str, Any] = {"step": found.get("checkpoint"), "pairs": found.get("pairs")}
    for name, words in (("accuracy", "agrees with the labels on"), ("true_accuracy", "agrees with the truth on")):
        if measured(found.get(name)) is not None:
            bounds = ", ".join(percent(found.get(f"{name}_{end}")) for end in ("low", "high"))
            facts[words] = f"{percent(found[name])} of pairs [{bounds}]"
    facts["loss"] = number(found.get("loss"), 4)
    line: dict[str, Any] = {"label": "pairs", "style": "val", "x": [], "y": [], "low": [], "high": [], "at": []}
    for row in _mappings(found.get("calibration")):
        said, was, pairs = (measured(row.get(key)) for key in ("said", "was", "pairs"))
        if said is not None and was is not None and 0 <= was <= 1 and pairs:
            low, high = wilson_interval(was * pairs, int(pairs))
            point = {"x": said, "y": was, "low": low, "high": high, "at": f"{pairs:,} pairs, sure to {percent(said)}"}
            for key, each in point.items():
                line[key].append(each)
    calibration = {
        "title": "how sure it is, and how often the labels agree", "x": "its probability for the answer it prefers",
        "diagonal": True, "kind": "share", "lines": [line],
    }  # fmt: skip
    return {"facts": {name: str(value) for name, value in facts.items()}, "charts": [calibration, _spread(found)]}


def _spread(found: Mapping[str, Any]) -> Panel:
    """Scores as histograms, of right and of wrong answers where that is known; each sums to 1."""
    scores = found.get("scores")
    scores = [row for row in scores if isinstance(row, list) and len(row) == 2] if isinstance(scores, list) else []
    groups: dict[str, list[float]] = {}
    for score, truth in scores:
        if (value := measured(score)) is not None:
            known = measured(truth)
            name = "answers" if known is None else "right answers" if known >= 1 else "wrong answers"
            groups.setdefault(name, []).append(value)
    every = [value for own in groups.values() for value in own] or [0.0]
    edges = np.linspace(min(every), max(every) if max(every) > min(every) else min(every) + 1, BINS + 1)
    bars = [
        {
            "label": f"{name} ({len(own):,})",
            "y": (np.histogram(own, edges)[0] / len(own)).round(5).tolist(),
            "kind": name,
        }
        for name, own in sorted(groups.items())
    ]
    return {
        "title": "its scores of answers",
        "x": "score",
        "kind": "share",
        "edges": edges.round(5).tolist(),
        "bars": bars,
        "lines": [],
    }
