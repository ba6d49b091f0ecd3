"""Comparison of two sets of answers to the same prompts by a judge that does not know which run gave which.

Judges are a verifier, a reward model or a person. Not here: the answers and their prompts, and saving
(compare_runs.py), printing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.data.chat.prompts import Prompt
from understudy.evaluate.likelihood import Progress
from understudy.evaluate.statistics import sign_test, win_rate
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import true_score, verifier_of
from understudy.run import Run

Judge = Callable[[Prompt, str, str], float]
"""Given a prompt and two answers in random order: 1 if the first is better, 0 if the second is, else 0.5.
StopIteration ends the comparison."""


@dataclass(frozen=True)
class ComparedPair:
    """Two answers to one prompt. ``points`` are those of the second: 1 for a win, 0.5 for a tie, 0 for a loss."""

    prompt: Prompt
    first: str
    second: str
    points: float


@dataclass(frozen=True)
class RunComparison:
    """Result of the second run against the first.

    Attributes:
        prompts: number of prompts to compare on.
        too_long: prompts left out, since they leave no room for an answer of one of the runs.
        trained_on: prompts that a run, or one it started from, was trained on.
    """

    first: Run
    second: Run
    pairs: list[ComparedPair]
    prompts: int
    too_long: int = 0
    trained_on: int = 0

    @property
    def not_judged(self) -> int:
        """Prompts that fit and that the judge did not reach."""
        return self.prompts - self.too_long - len(self.pairs)

    def categories(self) -> dict[str, list[ComparedPair]]:
        """The pairs by category, in order of first appearance; empty if there is only one category."""
        groups: dict[str, list[ComparedPair]] = {}
        for pair in self.pairs:
            groups.setdefault(pair.prompt.category, []).append(pair)
        return groups if len(groups) > 1 else {}

    def as_dict(self, answers: bool = False) -> dict[str, Any]:
        """The result as plain JSON. ``answers`` adds each prompt with both answers as ``rows``."""
        result = {
            "first": {"run": str(self.first.path), "step": self.first.step},
            "second": {"run": str(self.second.path), "step": self.second.step},
            **outcome(self.pairs), "too_long": self.too_long, "trained_on": self.trained_on,
            "categories": {name: outcome(pairs) for name, pairs in self.categories().items()},
        }  # fmt: skip
        if answers:
            result["rows"] = [
                {
                    "prompt": list(pair.prompt.messages), "category": pair.prompt.category, "first": pair.first,
                    "second": pair.second, "points": pair.points,
                }
                for pair in self.pairs
            ]  # fmt: skip
        return result


def outcome(pairs: Sequence[ComparedPair]) -> dict[str, Any]:
    """The second run's ``win_rate`` with ``low`` and ``high``, the counts, and the p-value of the sign test."""
    points = [pair.points for pair in pairs]
    rate = win_rate(points)
    wins, ties, losses = (points.count(value) for value in (1.0, 0.5, 0.0))
    return {
        "win_rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n,
        "wins": wins, "ties": ties, "losses": losses, "p_value": sign_test(wins, losses),
    }  # fmt: skip


def judge_answers(
    prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], judge: Judge, seed: int = 0,
    progress: Progress | None = None,
) -> list[ComparedPair]:  # fmt: skip
    """Judge the answers to each prompt, in an order drawn from the seed.

    Equal answers are ties for every judge. If the judge stops early, or the user interrupts, the judged pairs count.

    Raises:
        ValueError: no pair was judged.
    """
    swapped = np.random.default_rng(seed).random(len(prompts)) < 0.5
    pairs: list[ComparedPair] = []
    try:
        for prompt, a, b, swap in zip(prompts, first, second, swapped):
            if a == b:
                points = 0.5
            else:
                points = float(judge(prompt, b, a) if swap else 1 - judge(prompt, a, b))
            pairs.append(ComparedPair(prompt, a, b, points))
            if progress:
                progress(len(pairs), len(prompts))
    except (StopIteration, KeyboardInterrupt):
        if not pairs:
            raise ValueError("no pair of answers was judged, so there is no result") from None
    return pairs


def has_verifier(prompt: Prompt) -> bool:
    """Whether the true score of an answer to the prompt is known."""
    return verifier_of(prompt) is not None


def by_verifier(prompt: Prompt, first: str, second: str) -> float:
    """Judge by the true score."""
    return float(1 + np.sign(true_score(prompt, first) - true_score(prompt, second))) / 2


def by_reward(model: RewardModel) -> Judge:
    """A judge that prefers the higher score of a reward model."""

    def judge(prompt: Prompt, first: str, second: str) -> float:
        conversations = [[*prompt.messages, {"role": "assistant", "content": text}] for text in (first, second)]
        scores = model.conversations(conversations)
        return float(1 + np.sign(scores[0] - scores[1])) / 2

    return judge


def by_person(ask: Callable[[str], str], show: Callable[[str], None]) -> Judge:
    """A judge that asks a person: 1, 2, t for a tie, q to stop. The end of the input stops too.

    Args:
        ask: shows a question and returns the reply; raises EOFError at the end of the input.
        show: shows a text.
    """
    points = {"1": 1.0, "2": 0.0, "t": 0.5}

    def judge(prompt: Prompt, first: str, second: str) -> float:
        show("\n" + "\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages))
        show(f"\n1: {first or '(nothing)'}\n2: {second or '(nothing)'}\n")
        while True:
            try:
                reply = ask("Which is better? 1, 2, t for a tie, q to stop: ").strip().lower()
            except EOFError:
                raise StopIteration from None
            if reply in points:
                return points[reply]
            if reply == "q":
                raise StopIteration

    return judge
