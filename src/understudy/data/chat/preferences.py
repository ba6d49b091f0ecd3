"""Preferences as a trainer reads them: one prompt after another, each with its answers and which was preferred.

In the file a pair of answers is a line (its fields are in preference_formats.py); here the lines of one prompt come
together as a PreferenceComparison, so that a batch holds all pairs of a prompt, and the model reads each answer once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from understudy.data.chat.preference_formats import tidy_preference
from understudy.data.chat.prepared import open_prepared, record_hash
from understudy.tokenizer.chat import Message


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers of a PreferenceComparison by index: `chosen` was preferred, or neither in a tie. `margin`: how much higher
    the chosen one was rated, at least 0.0; 0.0 without ratings, and in a tie."""

    chosen: int
    rejected: int
    margin: float
    tie: bool


@dataclass(frozen=True, slots=True)
class PreferenceComparison:
    """One prompt, the different answers to it, and the pairs that were compared; two annotators may disagree on one.

    `category`: "" where none is known. `truths`: the true score of each answer, None where it is not known.
    """

    prompt: tuple[Message, ...]
    answers: tuple[tuple[Message, ...], ...]
    pairs: tuple[Pair, ...]
    category: str
    truths: tuple[float | None, ...]


class Preferences:
    """The comparisons of one split, in the order in which their prompts first come, read from the file each time.

    Attributes:
        path: the folder or file that was opened.
        split: "train" or "val".
        sha256: names the text: of the split's file, or of the single file.
        pairs: how many pairs there are, over all prompts.
    """

    def __init__(self, path: Path, split: str) -> None:
        self._lines = open_prepared(path, split, "preferences", tidy_preference)
        groups: dict[int, list[int]] = {}
        for number, record in enumerate(self._lines):
            groups.setdefault(record_hash(record, "preferences"), []).append(number)
        self._groups = list(groups.values())
        self.path, self.split, self.sha256 = path, split, self._lines.sha256
        self.pairs = len(self._lines)

    def __len__(self) -> int:
        """How many prompts there are."""
        return len(self._groups)

    def __getitem__(self, index: int) -> PreferenceComparison:
        return compare(list(self._lines.at(self._groups[index])))

    def __iter__(self) -> Iterator[PreferenceComparison]:
        lines = self._lines.at([number for group in self._groups for number in group])
        for group in self._groups:
            yield compare(list(islice(lines, len(group))))


def open_preferences(path: Path, split: str) -> Preferences:
    """One split of a folder that `understudy prepare --kind preferences` made, or of one .jsonl file in the same schema,
    of which 1 in 20 prompts, and one at least, are for validation.

    Raises:
        ValueError: no such folder, file or split, or one that holds something else; a line that cannot be trained on.
    """
    return Preferences(path, split)


def compare(records: Sequence[dict[str, Any]]) -> PreferenceComparison:
    """The pairs of one prompt as one PreferenceComparison.

    Args:
        records: one or more lines with the same prompt, as `tidy_preference` leaves them.
    """
    numbers: dict[tuple[tuple[str, str], ...], int] = {}
    answers: list[tuple[Message, ...]] = []
    truths: list[float | None] = []
    pairs = []
    for record in records:
        placed = []
        for side, score in zip(("chosen", "rejected"), record.get("truth") or (None, None)):
            number = numbers.setdefault(tuple((m["role"], m["content"]) for m in record[side]), len(answers))
            if number == len(answers):
                answers.append(tuple(record[side]))
                truths.append(None)
            if truths[number] is None and score is not None:
                truths[number] = float(score)
            placed.append(number)
        pairs.append(Pair(placed[0], placed[1], _margin(record), bool(record.get("tie"))))
    category = next((record["category"] for record in records if record.get("category")), "")
    return PreferenceComparison(tuple(records[0]["prompt"]), tuple(answers), tuple(pairs), category, tuple(truths))


def _margin(record: dict[str, Any]) -> float:
    if record.get("rating_chosen") is None or record.get("tie"):
        return 0.0
    return float(record["rating_chosen"] - record["rating_rejected"])
