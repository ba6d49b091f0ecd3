"""Counting to a result, as on one's fingers: "13 (1), 14 (2), 15 (3). 12 plus 3 is 15."

Each step is easy to learn and to copy, where the table of sums would have to be known by heart.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

_COUNTING = re.compile(r"\s*(?:[\w-]+ \([\w-]+\)[,:]? *)+[.;:]?\s*")


def counting(start: int, end: int, write: Callable[[int], str]) -> str:
    """The steps from `start` to `end`, upwards or down, each with its number; "" where there is none."""
    step = 1 if end > start else -1
    steps = (f"{write(n)} ({write(abs(n - start))})" for n in range(start + step, end + step, step) if n != start)
    text = ", ".join(steps)
    return f"{text}. " if text else ""


def after_counting(answer: str) -> str:
    """`answer` without the counting that it begins with."""
    match = _COUNTING.match(answer)
    return answer[match.end() :] if match else answer


def counts_to(value: int, numbers: list[int]) -> bool:
    """Whether `numbers`, the counted and their places in turn (13, 1, 14, 2), go in single steps to `value`."""
    counted, places = numbers[::2], numbers[1::2]
    steps = {after - before for before, after in itertools.pairwise(counted)}
    return (
        places == list(range(1, len(counted) + 1))
        and (steps <= {1} or steps <= {-1})
        and value in (counted[-1], places[-1])
    )
