"""Scores of a reward model for conversations and preferences read from lines of JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.data.chat.formats import Dropped
from understudy.data.chat.preferences import tidy_preference
from understudy.data.records import parse_object
from understudy.evaluation.statistics import Estimate, estimate, mean_estimate
from understudy.rewards.model import RewardModel
from understudy.run import Run
from understudy.runtime import Runtime
from understudy.tokenizer.chat import Message, check_messages

PROGRESS_EVERY = 256
"""Conversations between two reports of progress."""


@dataclass(frozen=True)
class ScoredLine:
    """One scored line: a conversation, or the chosen and the rejected conversation of a preference."""

    number: int
    conversations: list[list[Message]]
    tie: bool = False
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ScoredText:
    """``dropped``: a sentence for each line that cannot be scored."""

    run: Run
    lines: list[ScoredLine]
    dropped: list[str]

    @property
    def has_pairs(self) -> bool:
        return any(len(line.scores) == 2 for line in self.lines)

    def mean(self) -> Estimate:
        """Mean of all scores."""
        return mean_estimate([score for line in self.lines for score in line.scores])

    def accuracy(self) -> Estimate | None:
        """Share of the preferences, without ties, whose chosen completion scores higher; None without preferences."""
        pairs = [line.scores for line in self.lines if len(line.scores) == 2 and not line.tie]
        right = [float(chosen > rejected) for chosen, rejected in pairs]
        return estimate(right) if right else None

    def as_dict(self) -> dict[str, Any]:
        accuracy = self.accuracy()
        rows = [
            {"line": line.number}
            | dict(zip(("score",) if len(line.scores) == 1 else ("chosen", "rejected"), line.scores))
            for line in self.lines
        ]
        return {
            "run": str(self.run.path), "step": self.run.step, "mean": self.mean().as_dict(),
            "accuracy": accuracy and accuracy.as_dict(), "scores": rows, "dropped": self.dropped,
        }  # fmt: skip


def score_file(
    run: Run, file: str, runtime: Runtime, batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScoredText:  # fmt: skip
    """Score the last answer of each conversation in a file; ``-`` is standard input.

    Lines that cannot be scored are dropped. Conversations that are too long lose their oldest tokens.

    Raises:
        ValueError: the run has no score head, no line can be scored, or a score is not finite.
    """
    model = RewardModel(run, runtime)
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
        lines, dropped = read_lines(stream, "standard input" if file == "-" else file)
    conversations = [conversation for line in lines for conversation in line.conversations]
    scores: list[float] = []
    for start in range(0, len(conversations), PROGRESS_EVERY):
        scores += model.conversations(conversations[start : start + PROGRESS_EVERY], batch_size)
        progress(len(scores), len(conversations))
    remaining = iter(scores)
    for line in lines:
        line.scores.extend(next(remaining) for _ in line.conversations)
    return ScoredText(run, lines, dropped)


def read_lines(lines: Iterable[bytes], name: str) -> tuple[list[ScoredLine], list[str]]:
    """Lines of ``{"messages": [...]}`` or of preferences; empty lines are skipped. ``name`` is that of the file.

    Returns:
        The lines, and a sentence for each line that is neither.

    Raises:
        ValueError: no line can be scored.
    """
    parsed, problems = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{name} line {number:,}"
            try:
                parsed.append(_line(parse_object(line, where), number, where))
            except ValueError as problem:
                problems.append(str(problem))
    if not parsed:
        raise ValueError(problems[0] if problems else f"{name} is empty; give lines of conversations or of preferences")
    return parsed, problems


def _line(record: dict[str, Any], number: int, where: str) -> ScoredLine:
    try:
        if "messages" in record:
            messages = check_messages(record["messages"])
            if messages[-1]["role"] != "assistant":
                raise ValueError("it does not end with an answer")
            return ScoredLine(number, [messages])
        if not {"prompt", "chosen", "rejected"} <= record.keys():
            raise ValueError("it has neither messages nor prompt, chosen and rejected")
        pair = tidy_preference(record)
        if isinstance(pair, Dropped):
            raise ValueError(pair.reason)
    except ValueError as problem:
        raise ValueError(f"{where} cannot be scored: {problem}") from problem
    conversations = [pair["prompt"] + pair[side] for side in ("chosen", "rejected")]
    return ScoredLine(number, conversations, bool(record.get("tie")))
