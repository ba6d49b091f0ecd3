"""Tasks of several runs side by side: scores by category with intervals, the paired test, and single answers.

The data comes from files that `evaluate --tasks` writes; the result is texts and positions for the page. Not here:
running tasks (evaluation/runner.py), intervals (evaluation/statistics.py), the page (report.html).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.console import printable
from understudy.evaluation.statistics import compare_paired
from understudy.report.lineage import Evidence, LineageTree
from understudy.report.wording import MISSING, at_most, count, joined, number, percent

SHOWN_ANSWERS = 5
"""Right answers, and wrong answers, per task."""
MOST_ANSWER, MOST_QUESTION = 600, 1200
"""Characters shown."""


def compare_tasks(family: LineageTree) -> list[dict[str, Any]]:
    """The content of the page for each task that a member has a result of."""
    members, order = family.members, family.order()
    names = dict.fromkeys(name for place in order for name in members[place].tasks)
    return [_task(name, [place for place in order if name in members[place].tasks], family) for name in names]


def headlines(run: Evidence) -> list[tuple[str, str]]:
    """Each task of a run with its main number."""
    return [(name, _text(_measure(entry), _is_loss(entry))) for name, entry in run.tasks.items()]


def _task(name: str, places: Sequence[int], family: LineageTree) -> dict[str, Any]:
    results = {place: family.members[place].tasks[name] for place in places}
    loss = any(_is_loss(entry) for entry in results.values())
    low, high = _scale(results) if loss else (0.0, 1.0)
    headline = next(iter(results.values()))["metric"]
    rows = []
    for metric in sorted(_names("metrics", results), key=lambda metric: metric != headline):
        scale = None if loss and metric != headline else (low, high)
        rows.append(_row(metric, _parts("metrics", metric, results), not metric.startswith("accuracy"), scale))
    rows += [
        _row(category or MISSING, _parts("categories", category, results), loss, (low, high))
        for category in _names("categories", results)
    ]
    nearest = {place: [a for a in family.ancestors(place) if a in places][:1] for place in places}
    inner = {ancestor for ancestors in nearest.values() for ancestor in ancestors}
    return {
        "name": name,
        "columns": [_column(place, results[place], family) for place in places],
        "scale": [number(low, 3), number(high, 3)] if loss else ["0%", "100%"],
        "rows": rows,
        "sentences": [_pair(name, first, place, family, loss) for place in places for first in nearest[place]],
        "notes": _notes(results, family),
        "answers": [] if loss else [_answers(name, place, nearest[place], family) for place in places if place not in inner],
    }  # fmt: skip


def _is_loss(result: Mapping[str, Any]) -> bool:
    return result["metric"] == "loss"


def _names(group: str, results: Mapping[int, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for result in results.values() for name in result[group]))


def _parts(group: str, name: str, results: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {place: result[group].get(name, {}) for place, result in results.items()}


def _measure(entry: Mapping[str, Any]) -> float | None:
    """The value of a task, a category or a metric."""
    return next((entry[key] for key in ("value", "accuracy", "loss") if key in entry), None)


def _text(value: float | None, loss: bool) -> str:
    return number(value, 4) if loss else percent(value)


def _scale(results: Mapping[int, Mapping[str, Any]]) -> tuple[float, float]:
    """Limits of an axis of losses."""
    numbers = [value for result in results.values() for value in (_measure(result), result["low"], result["high"])]
    values = [value for value in numbers if value is not None]
    margin = 0.1 * (max(values) - min(values)) or 0.5
    return max(0.0, min(values) - margin), max(values) + margin


def _row(
    name: str, parts: Mapping[int, Mapping[str, Any]], loss: bool, scale: tuple[float, float] | None
) -> dict[str, Any]:
    """A row of the table; ``scale``: limits of its chart, None without a chart."""

    def place(value: float | None) -> float | None:
        if scale is None or value is None:
            return None
        return round(100 * min(1.0, max(0.0, (value - scale[0]) / (scale[1] - scale[0]))), 2)

    cells, marks = [], []
    for member, entry in parts.items():
        value, low, high = _measure(entry), entry.get("low"), entry.get("high")
        bounds = [f"{bound:.4f}" if loss else f"{100 * bound:.1f}" for bound in (low, high) if bound is not None]
        n = count(entry["n"]) if "n" in entry else ""
        cells.append({"value": _text(value, loss), "interval": " to ".join(bounds), "n": n})
        if (at := place(value)) is not None:
            marks.append({"member": member, "at": at, "low": place(low), "high": place(high)})
    return {"name": name, "cells": cells, "marks": marks}


def _column(place: int, result: Mapping[str, Any], family: LineageTree) -> dict[str, Any]:
    shots = f"{result['few_shot']} few-shot examples" if result["few_shot"] else None
    about = joined(f"step {result['checkpoint']}", shots)
    return {"member": place, "label": family.members[place].label, "about": about}


def _notes(results: Mapping[int, Mapping[str, Any]], family: LineageTree) -> list[str]:
    """Warnings about comparing the columns."""
    notes = []
    for place, entry in results.items():
        label = family.members[place].label
        if entry.get("cut"):
            notes.append(
                f"{count(entry['cut'])} prompts were too long for the context of {label} and lost their beginning."
            )
        for chain in family.chains:
            step = next((link.record.get("step") for link in chain[:-1] if link.member == place), None)
            if step is not None and entry.get("checkpoint") not in (None, str(step)):
                notes.append(
                    f"{label} was evaluated at step {entry['checkpoint']}; its child started from step {step}."
                )
    if len({entry.get("few_shot") for entry in results.values()}) > 1:
        notes.append("The runs had different numbers of few-shot examples.")
    return list(dict.fromkeys(notes))


def _pair(name: str, first: int, second: int, family: LineageTree, loss: bool) -> str:
    """A sentence that compares parent and child on the same questions."""
    runs = [family.members[place] for place in (first, second)]
    before, after = (run.label for run in runs)
    scores = [{row["id"]: float(row["score"]) for row in run.answers[name]} for run in runs]
    for run, run_scores in zip(runs, scores):
        if not run_scores:
            return f"The answers of {run.label} were not saved, so there is no paired test."
    if not scores[0].keys() & scores[1].keys():
        return f"{before} and {after} were evaluated on different questions, so there is no paired test."
    pair = compare_paired(*scores)
    size, digits, unit = (1, 4, "nats per token") if loss else (100, 1, "points")
    shown = f"{abs(size * pair.difference):.{digits}f} {unit} {'higher' if pair.difference > 0 else 'lower'} than"
    if not pair.difference:
        sentence = f"{before} and {after} score the same"
    elif loss:
        sentence = f"The loss of {after} is {shown} that of {before}"
    else:
        sentence = f"{after} scores {shown} {before}"
    if pair.low is not None and pair.high is not None:
        sentence += f" (95% interval {size * pair.low:+.{digits}f} to {size * pair.high:+.{digits}f})"
    whole = pair.n == len(scores[0]) == len(scores[1])
    questions = f"the {'same ' if whole else ''}{pair.n:,} {'texts' if loss else 'questions'}"
    questions += "" if whole else " that both had"
    counts = f"higher on {pair.higher:,}, lower on {pair.lower:,}"
    if all(score in (0, 1) for run_scores in scores for score in run_scores.values()):
        counts = f"{after} alone is right on {pair.higher:,}, {before} alone on {pair.lower:,}"
    p_value = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
    return f"{sentence} on {questions}: {counts}, {p_value} (exact paired test)."


def _answers(name: str, place: int, nearest: Sequence[int], family: LineageTree) -> dict[str, Any]:
    """Some right and some wrong answers of a run, with the answers of its parent to the same questions."""
    run = family.members[place]
    before = {row["id"]: row for p in nearest for row in family.members[p].answers[name]}
    right = [row for row in run.answers[name] if row["score"] >= 1]
    wrong = [row for row in run.answers[name] if row["score"] < 1]
    return {
        "member": place, "label": run.label, "parent": family.members[nearest[0]].label if nearest else "",
        "counts": {"right": len(right), "wrong": len(wrong)},
        "right": [_answer(row, before.get(row["id"])) for row in _some(right)],
        "wrong": [_answer(row, before.get(row["id"])) for row in _some(wrong)],
    }  # fmt: skip


def _answer(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, str]:
    def text(key: str, most: int, entry: Mapping[str, Any] | None = row) -> str:
        return at_most(printable((entry or {}).get(key) or ""), most)

    return {
        "category": text("category", MOST_QUESTION),
        "question": text("question", MOST_QUESTION),
        "expected": text("expected", MOST_ANSWER),
        "answer": text("answer", MOST_ANSWER),
        "score": f"score {row['score']:.2g}" if 0 < row["score"] < 1 else "",
        "before": text("answer", MOST_ANSWER, before),
        "before_was": "" if before is None else "right" if before["score"] >= 1 else "wrong",
    }


def _some(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few rows from as many categories as possible, always the same ones."""
    firsts = {row["category"]: row for row in reversed(rows)}
    chosen = [row for row in rows if firsts[row["category"]] is row]
    if len(chosen) > SHOWN_ANSWERS:
        return [chosen[round(i * (len(chosen) - 1) / (SHOWN_ANSWERS - 1))] for i in range(SHOWN_ANSWERS)]
    others = [row for row in rows if not any(row is other for other in chosen)]
    return [*chosen, *others[: SHOWN_ANSWERS - len(chosen)]]
