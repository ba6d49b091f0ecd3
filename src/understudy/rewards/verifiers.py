"""Verifiers: functions that give the true score of a completion, from 0 to 1. A new one is a row in the table.

A prompt names its verifier in ``task``. Without one, a prompt with a ``check`` goes to the corpus that has such checks, and
one with an ``answer`` is compared with it, as a number if the answer is one. The tasks of evaluation/tasks/ score by the same
functions, so that the score of a task is a reward.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from understudy.data.chat.prompts import Prompt
from understudy.data.generated import checker_of

Verifier = Callable[[Prompt, str], float]
"""Given a prompt and a completion, the true score.

Raises:
    ValueError: the prompt lacks the field that the verifier reads.
"""


def corpus_check(prompt: Prompt, completion: str) -> float:
    """The score of the checker of Hamlet, or the share of the instructions that the completion meets."""
    if prompt.check is None:
        raise ValueError(f"a prompt with the task {prompt.task!r} needs a 'check'")
    return checker_of(prompt.check, prompt.task)(prompt.check, completion)


def number_match(prompt: Prompt, completion: str) -> float:
    """1 if the completion comes to the same number as the answer, else 0."""
    expected = final_number(_answer(prompt))
    if expected is None:
        raise ValueError(f"the answer {prompt.answer!r} has no number to compare with")
    return float(final_number(completion) == expected)


def exact_match(prompt: Prompt, completion: str) -> float:
    """1 if the completion equals the answer after normalisation, else 0."""
    return float(normalised(completion) == normalised(_answer(prompt)))


VERIFIERS: dict[str, Verifier] = {
    "hamlet": corpus_check,
    "gsm8k": number_match,
    "number": number_match,
    "exact": exact_match,
    "instructions": corpus_check,
}


def verifier_of(prompt: Prompt) -> Verifier | None:
    """The verifier of a prompt; None if it has neither a task, a check nor an answer.

    Raises:
        ValueError: the prompt names a task that has no verifier.
    """
    if prompt.task:
        if prompt.task not in VERIFIERS:
            raise ValueError(f"no verifier is called {prompt.task!r}; a prompt's task is one of {', '.join(VERIFIERS)}")
        return VERIFIERS[prompt.task]
    if prompt.check is not None:
        return corpus_check
    if prompt.answer is not None:
        return number_match if "####" in prompt.answer or NUMBER.fullmatch(prompt.answer) else exact_match
    return None


def true_score(prompt: Prompt, completion: str) -> float:
    """The true score of a completion, from 0 to 1; NaN for a prompt without a verifier.

    Raises:
        ValueError: the prompt names a task that has no verifier, or lacks a field that its verifier reads.
    """
    verifier = verifier_of(prompt)
    return math.nan if verifier is None else verifier(prompt, completion)


def _answer(prompt: Prompt) -> str:
    if prompt.answer is None:
        raise ValueError(f"a prompt with the task {prompt.task!r} needs an 'answer'")
    return prompt.answer


def normalised(answer: str) -> str:
    """An answer in lower case, with single spaces, without punctuation at either end."""
    return " ".join(answer.casefold().split()).strip(" .,:;!?\"'()[]*")


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def final_number(answer: str) -> float | None:
    """The number that a solution comes to: after `####` if it has that mark, else its last number; None without one.

    >>> final_number("It costs 3 * 400 = $1,200.")
    1200.0
    """
    _, mark, after = answer.rpartition("####")
    if mark and (first := NUMBER.search(after)):
        return float(first[0].replace(",", ""))
    numbers = NUMBER.findall(answer)
    return float(numbers[-1].replace(",", "")) if numbers else None
