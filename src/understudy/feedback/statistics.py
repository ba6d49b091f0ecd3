"""Statistics of a store's judgements: results of runs, and agreement of annotators.

Agreement of two annotators is the share of equal judgements among those of the same answers. Agreement of all is
Krippendorff's alpha (Krippendorff 2019, Content Analysis, chapter 12): 1 for full agreement, 0 for that of chance; nominal for
thumbs and comparisons, with squared differences for ratings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

from understudy.evaluation.statistics import Estimate, mean_estimate, wilson_interval, win_rate
from understudy.feedback.exchange import preferences, single_judgements
from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore

DISTANCES: dict[str, Callable[[int, int], float]] = {
    "thumb": lambda a, b: float(a != b),
    "rating": lambda a, b: float((a - b) ** 2),
    "comparison": lambda a, b: float(a != b),
}
"""The distance of two values of each kind of judgement on which annotators can agree."""


def statistics(store: FeedbackStore) -> dict[str, Any]:
    """`store.stats()` with the preferences and the judgements of single answers that exports give, and results by run, pair
    of runs and annotator; estimates have 95% intervals."""
    answers = {record.id: record for record in store.answers(judged=True)}
    judgements = store.judgements()
    exported = preferences(store)
    return store.stats() | {
        "preferences": len(exported.lines),
        "single_judgements": len(single_judgements(store).lines),
        "left_out": dict(exported.left_out),
        "runs": _runs(answers, judgements),
        "win_rates": _win_rates(answers, judgements),
        "annotators": _annotators(judgements),
        "alpha": {kind: krippendorff_alpha(_units(judgements, kind), DISTANCES[kind]) for kind in DISTANCES},
    }


def _runs(answers: dict[str, AnswerRecord], judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """For each run: judgements, share of thumbs up, mean rating, corrections."""
    by_run: dict[str, dict[str, list[Judgement]]] = defaultdict(lambda: defaultdict(list))
    for judgement in judgements:
        by_run[answers[judgement.answer_id].run][judgement.kind].append(judgement)
    rows = {}
    for run, kinds in sorted(by_run.items()):
        thumbs, ratings = ([float(judgement.value or 0) for judgement in kinds[kind]] for kind in ("thumb", "rating"))
        rows[run] = {
            "judgements": sum(map(len, kinds.values())),
            "thumbs_up": _share(thumbs.count(1.0), len(thumbs)),
            "rating": mean_estimate(ratings).as_dict() if ratings else None,
            "corrections": len(kinds["correction"]),
        }
    return rows


def _win_rates(answers: dict[str, AnswerRecord], judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """For each pair of compared runs: the win rate of the second, a tie counting half."""
    points: dict[tuple[str, str], list[float]] = defaultdict(list)
    for judgement in judgements:
        if judgement.other_answer_id is None:
            continue
        sides = [answers[judgement.answer_id].run, answers[judgement.other_answer_id].run]
        if sides[0] != sides[1]:
            for_second = (1 - (judgement.value or 0)) / 2
            points[min(sides), max(sides)].append(for_second if sides[1] == max(sides) else 1 - for_second)
    return [
        {"first": first, "second": second, **win_rate(wins).as_dict()}
        for (first, second), wins in sorted(points.items())
    ]


def _annotators(judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """For each annotator: judgements, and the share that agrees with each other annotator's of the same answer."""
    counts = Counter(judgement.annotator for judgement in judgements)
    alike: dict[str, list[bool]] = defaultdict(list)
    for kind in DISTANCES:
        for unit in _units(judgements, kind):
            for (one, value), (other, value_of_other) in combinations(unit.items(), 2):
                for name in (one, other):
                    alike[name].append(value == value_of_other)
    return {
        name: {"judgements": n, "agreement": _share(sum(alike[name]), len(alike[name]))}
        for name, n in counts.most_common()
    }


def _units(judgements: Iterable[Judgement], kind: str) -> list[dict[str, int]]:
    """Values by annotator, for each answer or pair of answers that several judged."""
    units: dict[frozenset[str], dict[str, int]] = defaultdict(dict)
    for judgement in judgements:
        if judgement.kind == kind and judgement.value is not None:
            turned = judgement.other_answer_id is not None and judgement.other_answer_id < judgement.answer_id
            units[judgement.subject[2]][judgement.annotator] = -judgement.value if turned else judgement.value
    return [unit for unit in units.values() if len(unit) > 1]


def krippendorff_alpha(units: Sequence[dict[str, int]], distance: Callable[[int, int], float]) -> float | None:
    """1 - observed / expected disagreement; None without an answer that two judged, or if all values are equal.

    >>> krippendorff_alpha([{"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 1, "b": 2}], DISTANCES["thumb"])
    0.4444444444444444
    """
    values = Counter(value for unit in units for value in unit.values())
    n = values.total()
    observed = sum(
        2 * distance(a, b) / (len(unit) - 1) for unit in units for a, b in combinations(unit.values(), 2)
    )  # fmt: skip
    expected = sum(2 * values[a] * values[b] * distance(a, b) for a, b in combinations(values, 2)) / max(1, n - 1)
    return 1 - observed / expected if expected else None


def _share(right: int, n: int) -> dict[str, Any] | None:
    return Estimate(right / n, *wilson_interval(right, n), n).as_dict() if n else None
