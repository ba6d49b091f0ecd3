"""Prompts as a trainer reads them, each with the check or the correct answer that its completions are scored by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.chat.prepared import open_prepared
from understudy.data.chat.prompt_formats import tidy_prompt
from understudy.tokenizer.chat import Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """`messages` end with the user's. `check`: for Hamlet's checker. `answer`: the right one. `category`: "" if none.
    `task`: the name of its verifier in rewards/verifiers.py; "" if none."""

    messages: tuple[Message, ...]
    check: dict[str, Any] | None
    answer: str | None
    category: str
    task: str = ""


class Prompts:
    """The prompts of one split, in the file's order, read from it each time.

    Attributes:
        path: the folder or file that was opened.
        split: "train" or "val".
        sha256: names the text: of the split's file, or of the single file.
    """

    def __init__(self, path: Path, split: str) -> None:
        self._lines = open_prepared(path, split, "prompts", tidy_prompt)
        self.path, self.split, self.sha256 = path, split, self._lines.sha256

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Prompt:
        return prompt_of(self._lines[index])

    def __iter__(self) -> Iterator[Prompt]:
        return map(prompt_of, self._lines)


def open_prompts(path: Path, split: str) -> Prompts:
    """One split of a folder that `understudy prepare --kind prompts` made, or of one .jsonl file in the same schema, of
    which 1 in 20 prompts, and one at least, are for validation.

    Raises:
        ValueError: no such folder, file or split, or one that holds something else; a line that cannot be used.
    """
    return Prompts(path, split)


def prompt_of(record: dict[str, Any]) -> Prompt:
    """A line of the schema, as `tidy_prompt` leaves it."""
    return Prompt(
        tuple(record["prompt"]), record.get("check") or None, record.get("answer") or None, record.get("category") or "",
        record.get("task") or "",
    )  # fmt: skip
