"""Confidence intervals of means, proportions and win rates, and paired tests of two runs.

All intervals are 95%. A single example has none. Not here: scoring an answer (task.py), running a model (runner.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Z = 1.959964  # the 97.5% point of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """Mean over ``n`` examples with its 95% interval. For a single example ``low`` and ``high`` are None."""

    value: float
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def named(self, name: str) -> dict[str, float | None]:
        """The value as ``name``, the bounds as ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def metrics(self, name: str) -> dict[str, float]:
        """As :meth:`named`, without bounds that are None."""
        return {key: value for key, value in self.named(name).items() if value is not None}


@dataclass(frozen=True)
class Paired:
    """Difference of two runs on the same ``n`` examples: mean of second minus first, with its 95% interval.

    ``higher`` and ``lower`` count the examples on which the second run scored higher or lower than the first;
    ``p_value`` is that of the exact two-sided sign test.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    higher: int
    lower: int
    p_value: float


def estimate(scores: Sequence[float]) -> Estimate:
    """Mean of scores, with Wilson's interval if all are 0 or 1, else with a normal one."""
    if len(scores) < 2 or not all(score in (0.0, 1.0) for score in scores):
        return mean_estimate(scores)
    right = math.fsum(scores)
    return Estimate(right / len(scores), *wilson_interval(right, len(scores)), len(scores))


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values plus and minus 1.96 standard errors, also if all happen to be 0 or 1."""
    assert values, "an estimate needs a value"
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Estimate(mean, None, None, n)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return Estimate(mean, mean - Z * error, mean + Z * error, n)


def wilson_interval(right: float, n: float) -> tuple[float, float]:
    """Interval of a proportion of ``right`` out of ``n`` (Wilson 1927, J. Am. Stat. Assoc. 22).

    It stays within 0 and 1, and has a width if all or none are right. For scores between 0 and 1, ``right`` is their
    sum; the interval is then conservative, since such scores vary less than zeros and ones.

    >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
    [0.4902, 0.9433]
    """
    assert 0 <= right <= n and n > 0, f"{right} of {n} is no proportion"
    share, z2 = right / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if right == 0 else centre - half), (1.0 if right == n else centre + half)


def win_rate(points: Sequence[float]) -> Estimate:
    """Mean points of comparisons: 1 for a win, 0.5 for a tie, 0 for a loss.

    The interval is Wilson's for the number of comparisons without ties that has the same variance (an effective
    sample size). Without ties it is Wilson's interval of the wins.

    >>> [round(bound, 4) for bound in (win_rate([1.0, 0.5] * 10).low, wilson_interval(15, 20)[0])]
    [0.6108, 0.5313]
    """
    assert points, "a win rate needs a comparison"
    n = len(points)
    share = math.fsum(points) / n
    if n < 2:
        return Estimate(share, None, None, n)
    variance = (math.fsum((point - share) ** 2 for point in points) + 0.5) / (n + 2)  # one win and one loss added
    effective = max(float(n), n * share * (1 - share) / variance)
    return Estimate(share, *wilson_interval(share * effective, effective), n)


def ratio_estimate(sums: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Ratio of summed ``sums`` to summed ``counts``, one pair for each independent example, such as the loss and the
    tokens of a document, with the standard error of a ratio (Cochran 1977, Sampling Techniques, section 6.4)."""
    n, total = len(sums), sum(counts)
    assert total > 0, "a ratio needs something to divide by"
    value = math.fsum(sums) / total
    if n < 2:
        return Estimate(value, None, None, n)
    spread = math.fsum((part - value * count) ** 2 for part, count in zip(sums, counts))
    error = math.sqrt(spread * n / (n - 1)) / total
    return Estimate(value, value - Z * error, value + Z * error, n)


def compare_paired(first: Mapping[str, float], second: Mapping[str, float]) -> Paired:
    """Compare the scores of two runs, by example id, on the examples that both have.

    Raises:
        ValueError: they share none.
    """
    shared = [id for id in first if id in second]
    if not shared:
        raise ValueError("the two results share no example; evaluate both runs on the same questions")
    differences = [second[id] - first[id] for id in shared]
    higher, lower = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    mean = mean_estimate(differences)
    return Paired(mean.n, mean.value, mean.low, mean.high, higher, lower, sign_test(higher, lower))


def sign_test(higher: int, lower: int) -> float:
    """Exact two-sided p-value of the counts of examples on which one run is better or worse, without ties.

    For scores of 0 and 1 this is McNemar's test (McNemar 1947, Psychometrika 12) in its exact binomial form, for
    others the sign test (Dixon and Mood 1946, J. Am. Stat. Assoc. 41).

    >>> sign_test(1, 5)
    0.21875
    """
    n = higher + lower
    ways, tail = 1, 0
    for k in range(min(higher, lower) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * tail / 2**n)
