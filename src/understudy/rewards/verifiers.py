"""Verifiers: the true score of a completion, by the check or the answer of its prompt."""

from __future__ import annotations

import re

from understudy.data.chat.prompts import Prompt


def true_score(prompt: Prompt, text: str) -> float:
    """The true score of a completion from 0 to 1; NaN where the prompt has neither a check nor an answer."""
    if prompt.check is not None:
        from understudy.hamlet.checker import score

        return score(prompt.check, text)
    if prompt.answer is not None:
        if "####" in prompt.answer or NUMBER.fullmatch(prompt.answer):  # only the final number counts
            return float(final_number(text) == final_number(prompt.answer))
        return float(bare(text) == bare(prompt.answer))
    return float("nan")


def bare(answer: str) -> str:
    """The answer in lower case, with single spaces and without punctuation at either end."""
    return " ".join(answer.casefold().split()).strip(" .,:;!?\"'()[]*")


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def final_number(answer: str) -> float | None:
    """The final number of a solution: the one after ``####``, else the last one; None without any.

    >>> final_number("It costs 3 * 400 = $1,200.")
    1200.0
    """
    _, mark, after = answer.rpartition("####")
    if mark and (first := NUMBER.search(after)):
        return float(first[0].replace(",", ""))
    numbers = NUMBER.findall(answer)
    return float(numbers[-1].replace(",", "")) if numbers else None
