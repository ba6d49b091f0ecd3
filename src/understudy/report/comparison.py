"""Tasks of several runs side by side: scores by category with intervals, the paired test, and single answers.

The data comes from files that `evaluate --tasks` writes; the result is texts and positions for the page. Not here:
running tasks (evaluate/runner.py), intervals (evaluate/statistics.py), the page (report.html).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.console import printable
from understudy.evaluate.statistics import Paired, compare_paired
from understudy.report.lineage import Evidence, LineageTree
from understudy.report.wording import MISSING, at_most, count, measured, number, percent, plain

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
    return [(name, _value(entry, _is_loss(entry))) for name, entry in run.tasks.items()]


def _task(name: str, places: Sequence[int], family: LineageTree) -> dict[str, Any]:
    results = {place: family.members[place].tasks[name] for place in places}
    loss = any(_is_loss(entry) for entry in results.values())
    low, high = _scale(results) if loss else (0.0, 1.0)
    headline = plain(next(iter(results.values())).get("metric"))
    rows = [_row(headline, results, loss, (low, high), strong=True)]
    others = _names("metrics", results, without=headline)
    for other in others:
        parts = {member: _renamed(_part(result, "metrics", other)) for member, result in results.items()}
        rows.append(_row(other, parts, not other.startswith("accuracy"), None if loss else (low, high)))
    for category in _names("categories", results):
        parts = {member: _part(result, "categories", category) for member, result in results.items()}
        rows.append(_row(category or MISSING, parts, loss, (low, high)))
    nearest = {place: [a for a in family.ancestors(place) if a in places][:1] for place in places}
    inner = {ancestor for ancestors in nearest.values() for ancestor in ancestors}
    pairs = [(ancestor, member) for member, ancestors in nearest.items() for ancestor in ancestors]
    return {
        "name": name,
        "columns": [_column(place, results[place], family) for place in places],
        "scale": [number(low, 3), number(high, 3)] if loss else ["0%", "100%"],
        "rows": rows,
        "sentences": [_pair(name, first, second, family, loss) for first, second in pairs],
        "notes": _notes(results, family),
        "answers": [] if loss else [
            shown for place in places if place not in inner for shown in [_answers(name, place, nearest[place], family)]
            if shown["right"] or shown["wrong"]
        ],
    }  # fmt: skip


def _is_loss(result: Mapping[str, Any]) -> bool:
    return result.get("metric") == "loss"


def _part(result: Mapping[str, Any], group: str, name: str) -> Mapping[str, Any]:
    entry = result.get(group)
    part = entry.get(name) if isinstance(entry, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _names(group: str, results: Mapping[int, Mapping[str, Any]], without: str | None = None) -> list[str]:
    groups = [result.get(group) for result in results.values()]
    names = dict.fromkeys(name for values in groups if isinstance(values, Mapping) for name in values)
    return [name for name in names if name != without]


def _renamed(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A metric with its value under the names that categories use."""
    return dict(entry) | {"accuracy": entry.get("value"), "loss": entry.get("value")}


def _value(entry: Mapping[str, Any], loss: bool) -> str:
    return number(entry.get("loss"), 4) if loss else percent(entry.get("accuracy"))


def _scale(results: Mapping[int, Mapping[str, Any]]) -> tuple[float, float]:
    """Limits of an axis of losses."""
    numbers = [measured(result.get(key)) for result in results.values() for key in ("loss", "low", "high")]
    values = [value for value in numbers if value is not None] or [0.0]
    margin = 0.1 * (max(values) - min(values)) or 0.5
    return max(0.0, min(values) - margin), max(values) + margin


def _row(
    name: str, parts: Mapping[int, Mapping[str, Any]], loss: bool, scale: tuple[float, float] | None,
    strong: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A row of the table; ``scale``: limits of its chart, None without a chart."""

    def place(value: Any) -> float | None:
        if scale is None or measured(value) is None:
            return None
        share = (value - scale[0]) / (scale[1] - scale[0])
        return round(100 * min(1.0, max(0.0, share)), 2)

    cells, marks = [], []
    for member, entry in parts.items():
        value, low, high = (measured(entry.get(key)) for key in ("loss" if loss else "accuracy", "low", "high"))
        bounds = [f"{v:.4f}" if loss else f"{100 * v:.1f}" for v in (low, high) if v is not None]
        cells.append({
            "value": _value(entry, loss),
            "interval": " to ".join(bounds) if len(bounds) == 2 else "",
            "n": "" if entry.get("n") is None else count(entry["n"]),
        })  # fmt: skip
        if (at := place(value)) is not None:
            marks.append({"member": member, "at": at, "low": place(low), "high": place(high)})
    chances = {place(entry.get("chance")) for entry in parts.values()} - {None}
    chance = chances.pop() if len(chances) == 1 else None  # drawn only if all results agree on it
    return {"name": name, "strong": strong, "cells": cells, "marks": marks, "chance": chance}


def _column(place: int, result: Mapping[str, Any], family: LineageTree) -> dict[str, Any]:
    shots = result.get("few_shot")
    facts = [f"step {plain(result.get('checkpoint'))}"] if result.get("checkpoint") is not None else []
    facts += [f"{count(shots)} few-shot examples"] if shots else []
    facts += [f"chance {percent(result['chance'])}"] if measured(result.get("chance")) is not None else []
    return {"member": place, "label": family.members[place].label, "about": " · ".join(facts)}


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
    before, after = family.members[first], family.members[second]
    scores = [{row["id"]: float(row["score"]) for row in run.answers[name]} for run in (before, after)]
    for run, run_scores in zip((before, after), scores):
        if not run_scores:
            return f"The answers of {run.label} were not saved, so there is no paired test."
    if not scores[0].keys() & scores[1].keys():
        return f"{before.label} and {after.label} were evaluated on different questions, so there is no paired test."
    pair = compare_paired(*scores)
    whole = pair.n == len(scores[0]) == len(scores[1])
    questions = f"the {'same ' if whole else ''}{pair.n:,} {'texts' if loss else 'questions'}"
    questions += "" if whole else " that both had"
    graded = any(score not in (0, 1) for run_scores in scores for score in run_scores.values())
    return _pair_sentence(
        before.label, after.label, pair, questions, "loss" if loss else "score" if graded else "right"
    )


def _pair_sentence(before: str, after: str, pair: Paired, questions: str, kind: str) -> str:
    size, digits, unit = (1, 4, "nats per token") if kind == "loss" else (100, 1, "points")
    direction = "higher" if pair.difference > 0 else "lower"
    shown = f"{abs(size * pair.difference):.{digits}f} {unit} {direction} than"
    if not pair.difference:
        sentence = f"{before} and {after} score the same"
    elif kind == "loss":
        sentence = f"The loss of {after} is {shown} that of {before}"
    else:
        sentence = f"{after} scores {shown} {before}"
    if pair.low is not None and pair.high is not None:
        sentence += f" (95% interval {size * pair.low:+.{digits}f} to {size * pair.high:+.{digits}f})"
    if kind == "right":
        counts = f"{after} alone is right on {pair.higher:,}, {before} alone on {pair.lower:,}"
    else:
        counts = f"higher on {pair.higher:,}, lower on {pair.lower:,}"
    p_value = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
    return f"{sentence} on {questions}: {counts}, {p_value} (exact paired test)."


def _answers(name: str, place: int, nearest: Sequence[int], family: LineageTree) -> dict[str, Any]:
    """Some right and some wrong answers of a run, with the answers of its parent to the same questions."""
    run = family.members[place]
    before = {row["id"]: row for p in nearest for row in family.members[p].answers[name]}
    rows = [row for row in run.answers[name] if isinstance(row.get("answer"), str)]
    groups = {
        "right": [row for row in rows if row["score"] >= 1],
        "wrong": [row for row in rows if row["score"] < 1],
    }
    shown = {which: [_answer(row, before.get(row["id"])) for row in _some(group)] for which, group in groups.items()}
    counts = {which: len(group) for which, group in groups.items()}
    parent = family.members[nearest[0]].label if nearest else ""
    return {"member": place, "label": run.label, "parent": parent, "counts": counts, **shown}


def _answer(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, str]:
    def text(entry: Mapping[str, Any] | None, key: str, most: int) -> str:
        value = entry.get(key) if entry else None
        return at_most(printable(value), most) if isinstance(value, str) else ""

    between = 0 < row["score"] < 1
    return {
        "category": text(row, "category", MOST_QUESTION),
        "question": text(row, "question", MOST_QUESTION),
        "expected": text(row, "expected", MOST_ANSWER),
        "answer": text(row, "answer", MOST_ANSWER),
        "score": f"score {row['score']:.2g}" if between else "",
        "before": text(before, "answer", MOST_ANSWER),
        "before_was": "" if before is None else "right" if before["score"] >= 1 else "wrong",
    }


def _some(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few rows from as many categories as possible, always the same ones."""
    firsts = {str(row.get("category")): row for row in reversed(rows)}
    chosen = [row for row in rows if firsts[str(row.get("category"))] is row]
    if len(chosen) > SHOWN_ANSWERS:
        return [chosen[round(i * (len(chosen) - 1) / (SHOWN_ANSWERS - 1))] for i in range(SHOWN_ANSWERS)]
    others = [row for row in rows if not any(row is other for other in chosen)]
    return [*chosen, *others[: SHOWN_ANSWERS - len(chosen)]]
