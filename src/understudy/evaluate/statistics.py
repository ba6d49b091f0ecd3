"""How sure a number from a finite number of examples is, and whether two runs differ on the same examples.

All intervals are 95%. Not here: scoring an answer (task.py), asking a model (runner.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Z = 1.959964  # the 97.5% point of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` examples with its 95% interval; one example that is neither 0 nor 1 has no interval."""

    value: float
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """Two runs on the same ``n`` examples: the mean of second minus first, with its 95% interval.

    ``higher`` and ``lower`` count the examples on which the second run scored higher or lower than the first;
    ``p_value`` is how likely counts at least so uneven are if neither run is better.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    higher: int
    lower: int
    p_value: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(scores: Sequence[float]) -> Estimate:
    """The mean of scores: Wilson's interval where each is 0 or 1, a normal one otherwise."""
    assert scores, "an estimate needs a score"
    if not all(score in (0.0, 1.0) for score in scores):
        return mean_estimate(scores)
    right = math.fsum(scores)
    return Estimate(right / len(scores), *wilson_interval(right, len(scores)), len(scores))


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean of values that are no shares, though all of them may happen to be 0 or 1."""
    assert values, "an estimate needs a value"
    low, high = mean_interval(values)
    return Estimate(math.fsum(values) / len(values), low, high, len(values))


def wilson_interval(right: float, n: float) -> tuple[float, float]:
    """The interval for a proportion of ``right`` out of ``n`` (Wilson 1927, J. Am. Stat. Assoc. 22).

    It stays within 0 and 1 and has a width even where all or none are right, which the normal one has not. Of scores
    between 0 and 1, ``right`` is their sum: they vary less than such of 0 and 1, so that it is wide enough.

    >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
    [0.4902, 0.9433]
    """
    assert 0 <= right <= n and n > 0, f"{right} of {n} is no proportion"
    share, z2 = right / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if right == 0 else centre - half), (1.0 if right == n else centre + half)


def win_rate(points: Sequence[float]) -> Estimate:
    """The share of the points of comparisons: 1 for one won, 0.5 for a tie, 0 for one lost.

    With Wilson's interval for as many comparisons without a tie as would leave the share as uncertain; where there are
    no ties, that is Wilson's for these.

    >>> [round(bound, 4) for bound in (win_rate([1.0, 0.5] * 10).low, wilson_interval(15, 20)[0])]
    [0.6108, 0.5313]
    """
    assert points, "a win rate needs a comparison"
    n = len(points)
    share = math.fsum(points) / n
    variance = (math.fsum((each - share) ** 2 for each in points) + 0.5) / (n + 2)  # with one more won, one more lost
    alike = max(float(n), n * share * (1 - share) / variance)
    return Estimate(share, *wilson_interval(share * alike, alike), n)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Mean plus and minus 1.96 standard errors, the examples being independent; none from a single value."""
    n = len(values)
    if n < 2:
        return None, None
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean - Z * error, mean + Z * error


def ratio_estimate(sums: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Summed ``sums`` over summed ``counts``, one of each for an independent example, such as a document's loss and
    tokens: the standard error of a ratio of sums (Cochran 1977, Sampling Techniques, section 6.4)."""
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
    low, high = mean_interval(differences)
    p_value = sign_test(higher, lower)
    return Paired(len(shared), math.fsum(differences) / len(shared), low, high, higher, lower, p_value)


def sign_test(higher: int, lower: int) -> float:
    """The exact two-sided p-value of so many examples better and so many worse, ties left out.

    For scores of 0 and 1 this is McNemar's test (McNemar 1947, Psychometrika 12) in its exact binomial form; for
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
