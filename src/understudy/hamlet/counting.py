"""Counting steps before the result of a sum: "13 (1), 14 (2), 15 (3). 12 plus 3 is 15."

A small model learns single steps more easily than the table of all sums.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

_COUNTING = re.compile(r"\s*(?:[\w-]+ \([\w-]+\)[,:]? *)+[.;:]?\s*")


def counting(start: int, end: int, write: Callable[[int], str]) -> str:
    """The numbered steps from `start` to `end`, up or down; "" if there is no step."""
    step = 1 if end > start else -1
    steps = (f"{write(n)} ({write(abs(n - start))})" for n in range(start + step, end + step, step) if n != start)
    text = ", ".join(steps)
    return f"{text}. " if text else ""


def after_counting(answer: str) -> str:
    """`answer` without its leading counting steps."""
    match = _COUNTING.match(answer)
    return answer[match.end() :] if match else answer


def counts_to(value: int, numbers: list[int]) -> bool:
    """Return whether `numbers` count in single steps to `value`.

    `numbers` alternates between counted numbers and step numbers: 13, 1, 14, 2.
    """
    counted, places = numbers[::2], numbers[1::2]
    steps = {after - before for before, after in itertools.pairwise(counted)}
    return (
        places == list(range(1, len(counted) + 1))
        and (steps <= {1} or steps <= {-1})
        and value in (counted[-1], places[-1])
    )
