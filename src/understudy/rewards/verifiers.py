"""Verifiers: what an answer truly scores, by the check its prompt names."""

from __future__ import annotations

import re

from understudy.data.chat.prompts import Prompt


def true_score(prompt: Prompt, text: str) -> float:
    """What the checker of a prompt says of an answer, from 0 to 1; NaN where there is none."""
    if prompt.check is not None:
        from understudy.hamlet.checker import score

        return score(prompt.check, text)
    if prompt.answer is not None:
        if "####" in prompt.answer or NUMBER.fullmatch(prompt.answer):  # what an answer comes to counts
            return float(final_number(text) == final_number(prompt.answer))
        return float(bare(text) == bare(prompt.answer))
    return float("nan")


def bare(answer: str) -> str:
    """An answer without what a strict reader would still overlook: case, spacing, punctuation at either end."""
    return " ".join(answer.casefold().split()).strip(" .,:;!?\"'()[]*")


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def final_number(answer: str) -> float | None:
    """The number that a solution comes to, or None.

    >>> final_number("It costs 3 * 400 = $1,200.")
    1200.0
    """
    _, mark, after = answer.rpartition("####")
    if mark and (first := NUMBER.search(after)):
        return float(first[0].replace(",", ""))
    numbers = NUMBER.findall(answer)
    return float(numbers[-1].replace(",", "")) if numbers else None
