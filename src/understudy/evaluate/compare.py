"""Two runs side by side: the same prompts answered by both, each pair of answers judged without knowing whose is whose.

Judges are a checker, a reward model, or a person at the terminal. Not here: the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from understudy.data.chat.formats import Dropped
from understudy.data.chat.preference_formats import tidy_preference
from understudy.data.chat.prompts import Prompt
from understudy.evaluate.runner import answer_all
from understudy.evaluate.statistics import sign_test, win_rate
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import true_score
from understudy.run import Run
from understudy.runtime import Runtime
from understudy.tokenizer.chat import render, speaks_chat

AT_ONCE = 64
"""Prompts answered at a time."""
Judge = Callable[[Prompt, str, str], float]
"""Given a prompt and two answers in an order of chance: 1 when the first is better, 0 when the second is, else 0.5.
StopIteration ends the judging."""
Report = Callable[[str, int, int], None]
"""Told what is done, how many of it, and of how many."""


@dataclass(frozen=True)
class ComparedPair:
    """One prompt answered by both; ``points`` are the second's: 1 for better, 0 for worse, else 0.5."""

    prompt: Prompt
    first: str
    second: str
    points: float


@dataclass(frozen=True)
class RunComparison:
    """How the second run fared against the first. ``too_long``: prompts left out, since they leave one of the two no room
    for an answer."""

    rows: list[ComparedPair]
    too_long: int = 0

    def categories(self) -> dict[str, list[ComparedPair]]:
        """The rows by category, in the order in which they first come; none where there is but one."""
        found: dict[str, list[ComparedPair]] = {}
        for row in self.rows:
            found.setdefault(row.prompt.category, []).append(row)
        return found if len(found) > 1 else {}

    def as_dict(self) -> dict[str, Any]:
        categories = {name: outcome(rows) for name, rows in self.categories().items()}
        return outcome(self.rows) | {"too_long": self.too_long, "categories": categories}


def outcome(rows: Sequence[ComparedPair]) -> dict[str, Any]:
    """The second run's ``win_rate``, its ``low`` and ``high``, the counts, and the p-value of the sign test."""
    points = [row.points for row in rows]
    rate = win_rate(points)
    wins, ties, losses = (points.count(each) for each in (1.0, 0.5, 0.0))
    return {
        "win_rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n,
        "wins": wins, "ties": ties, "losses": losses, "p_value": sign_test(wins, losses),
    }  # fmt: skip


def duel(
    first: Run, second: Run, prompts: Sequence[Prompt], judge: Judge, runtime: Runtime, temperature: float = 0.0,
    max_new_tokens: int = 120, seed: int = 0, report: Report = lambda what, done, total: None,
) -> RunComparison:  # fmt: skip
    """Have both runs answer every prompt, and each pair judged in an order drawn from the seed.

    Equal answers are ties, whoever judges. When the judge ends it early, or someone at the keyboard does, what was
    judged counts.

    Raises:
        ValueError: a run that cannot answer, no prompt that leaves room for an answer, or nothing judged.
    """
    for run in (first, second):
        if not isinstance(run.model, GPT) or not speaks_chat(run.tokenizer) or not run.config.info.generates:
            raise ValueError(f"the run {run.path} does not answer; name one of sft, dpo, ppo or grpo")
    rendered = [
        [render(run.tokenizer, list(prompt.messages), reply=True).tokens for prompt in prompts]
        for run in (first, second)
    ]
    room = [run.config.model.context_length - max_new_tokens for run in (first, second)]
    fits = [i for i, rows in enumerate(zip(*rendered)) if all(len(row) <= most for row, most in zip(rows, room))]
    if not fits:
        raise ValueError(
            f"no prompt leaves room for {max_new_tokens} tokens of an answer in contexts of "
            f"{room[0] + max_new_tokens} and {room[1] + max_new_tokens}; ask for shorter answers or choose shorter prompts"
        )
    answers = [
        answer_all(
            run.model.to(runtime.device), run.tokenizer, [rows[i] for i in fits], max_new_tokens,
            partial(_settings, temperature, 2 * seed + place), runtime, AT_ONCE,
            progress=partial(report, f"{run.path.name} answers"),
        )
        for place, (run, rows) in enumerate(zip((first, second), rendered))
    ]  # fmt: skip
    turned = np.random.default_rng(seed).random(len(fits)) < 0.5
    judged: list[ComparedPair] = []
    try:
        for number, (i, a, b) in enumerate(zip(fits, *answers)):
            if a == b:
                points = 0.5
            else:
                points = float(judge(prompts[i], b, a) if turned[number] else 1 - judge(prompts[i], a, b))
            judged.append(ComparedPair(prompts[i], a, b, points))
            report("judging", number + 1, len(fits))
    except (StopIteration, KeyboardInterrupt):
        if not judged:
            raise ValueError("nothing was judged, so there is nothing to tell") from None
    return RunComparison(judged, len(prompts) - len(fits))


def _settings(temperature: float, seed: int, start: int) -> SamplingSettings:
    return SamplingSettings(temperature, seed=seed * 1_000_003 + start)


def preferences_of(found: RunComparison, annotator: str) -> Iterator[dict[str, Any]]:
    """What was judged, as lines of preferences to train on (data/chat/preference_formats.py); empty and equal answers teach
    nothing and are left out."""
    for row in found.rows:
        better, worse = (row.second, row.first) if row.points >= 0.5 else (row.first, row.second)
        record = {
            "prompt": list(row.prompt.messages),
            **{
                name: [{"role": "assistant", "content": text}]
                for name, text in (("chosen", better), ("rejected", worse))
            },
            **({"tie": True} if row.points == 0.5 else {}),
            "annotator": annotator,
            **({"category": row.prompt.category} if row.prompt.category else {}),
            **({"truth": [true_score(row.prompt, text) for text in (better, worse)]} if has_truth(row.prompt) else {}),
        }
        if not isinstance(tidy_preference(record), Dropped):
            yield record


def has_truth(prompt: Prompt) -> bool:
    """Whether the checker can judge answers to it."""
    return prompt.check is not None or prompt.answer is not None


def by_checker(prompt: Prompt, one: str, other: str) -> float:
    """The one that the prompt's checker scores higher; a tie where it scores them alike."""
    return float(1 + np.sign(true_score(prompt, one) - true_score(prompt, other))) / 2


def by_reward(model: RewardModel) -> Judge:
    """The one with the higher score."""

    def judge(prompt: Prompt, one: str, other: str) -> float:
        conversations = [[*prompt.messages, {"role": "assistant", "content": text}] for text in (one, other)]
        scores = model.conversations(conversations)
        return float(1 + np.sign(scores[0] - scores[1])) / 2

    return judge


def by_person(ask: Callable[[str], str], show: Callable[[str], None]) -> Judge:
    """Whichever someone at the terminal prefers: 1, 2, t for a tie, q to stop; so does the end of the input."""

    def judge(prompt: Prompt, one: str, other: str) -> float:
        show("\n" + "\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages))
        show(f"\n1: {one or '(nothing)'}\n2: {other or '(nothing)'}\n")
        while True:
            try:
                said = ask("Which is better? 1, 2, t for a tie, q to stop: ").strip().lower()
            except EOFError:
                raise StopIteration from None
            if said in ("1", "2", "t"):
                return {"1": 1.0, "2": 0.0, "t": 0.5}[said]
            if said == "q":
                raise StopIteration

    return judge
