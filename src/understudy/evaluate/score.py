"""Conversations and preferences from lines of JSON, scored by a reward model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.data.chat.formats import Dropped
from understudy.data.chat.preference_formats import tidy_preference
from understudy.data.records import parse_object
from understudy.evaluate.statistics import Estimate, estimate, mean_estimate
from understudy.rewards.model import RewardModel
from understudy.tokenizer.chat import Message, check_messages

AT_ONCE = 256
"""Conversations between two reports of progress."""


@dataclass(frozen=True)
class Line:
    """What one line holds: a conversation, or of a preference the better one and the worse."""

    number: int
    conversations: list[list[Message]]
    tie: bool = False


@dataclass(frozen=True)
class ScoredText:
    """Lines with the scores of their conversations."""

    lines: list[Line]
    scores: list[list[float]]

    def mean(self) -> Estimate:
        """Of all scores."""
        return mean_estimate([score for own in self.scores for score in own])

    def accuracy(self) -> Estimate | None:
        """How often the better one of a preference scores higher, ties left out; None where there is none."""
        right = [float(own[0] > own[1]) for line, own in zip(self.lines, self.scores) if len(own) == 2 and not line.tie]
        return estimate(right) if right else None

    def as_dict(self) -> dict[str, Any]:
        accuracy = self.accuracy()
        rows = [
            {"line": line.number, **dict(zip(("score",) if len(own) == 1 else ("chosen", "rejected"), own))}
            for line, own in zip(self.lines, self.scores)
        ]
        return {"mean": self.mean().as_dict(), "accuracy": accuracy and accuracy.as_dict(), "scores": rows}


def read_lines(lines: Iterable[bytes], name: str) -> list[Line]:
    """Lines of ``{"messages": [...]}`` or of preferences; empty ones are passed over. ``name`` is of the file.

    Raises:
        ValueError: a line that holds neither, or nothing to score.
    """
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{name} line {number:,}"
            found.append(_line(parse_object(line, where), number, where))
    if not found:
        raise ValueError(f"{name} holds nothing to score; it wants lines of conversations or of preferences")
    return found


def _line(record: dict[str, Any], number: int, where: str) -> Line:
    try:
        if "messages" in record:
            messages = check_messages(record["messages"])
            if messages[-1]["role"] != "assistant":
                raise ValueError("it does not end with an answer")
            return Line(number, [messages])
        if not {"prompt", "chosen", "rejected"} <= record.keys():
            raise ValueError("it has neither messages nor prompt, chosen and rejected")
        pair = tidy_preference(record)
        if isinstance(pair, Dropped):
            raise ValueError(pair.reason)
    except ValueError as problem:
        raise ValueError(f"{where} cannot be scored: {problem}") from problem
    return Line(number, [pair["prompt"] + pair[side] for side in ("chosen", "rejected")], bool(record.get("tie")))


def score_lines(
    model: RewardModel, lines: Sequence[Line], batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScoredText:  # fmt: skip
    """The score of each conversation's last answer. The oldest tokens of what is too long are left out."""
    every = [conversation for line in lines for conversation in line.conversations]
    scores: list[float] = []
    for start in range(0, len(every), AT_ONCE):
        scores += model.conversations(every[start : start + AT_ONCE], batch_size)
        progress(len(scores), len(every))
    rest = iter(scores)
    return ScoredText(list(lines), [[next(rest) for _ in line.conversations] for line in lines])
