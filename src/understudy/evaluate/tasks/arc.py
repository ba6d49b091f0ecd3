"""ARC: science questions of school exams, an easy and a challenge set (Clark et al. 2018, arXiv:1803.05457)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from understudy.evaluate.task import Example, Split, question
from understudy.evaluate.tasks.source import PublicTask, Row, TaskData, read_source, texts_of


class Arc(PublicTask):
    """The choices are not shown: the most likely one after the question, normalised by length, is the answer."""

    kind = "choice"
    metric = "accuracy_normalised"

    def __init__(self, subset: Literal["easy", "challenge"], path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(path, few_shot)
        self.name, self.subset = f"arc-{subset}", subset

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name = "train" if split == "train" else "test"
        files = f"ARC-{self.subset.capitalize()}/{name}-*.parquet"
        rows = read_source(TaskData(self.name, "allenai/ai2_arc", files, (name,), within=self.subset), self.path)
        return [self._example(where, row) for where, row in rows[:limit]]

    def _example(self, where: str, row: Row) -> Example:
        """A row as the hub has it, or as the authors' own files do (the choices inside the question)."""
        text: Any = row.get("question")
        choices: Any = row.get("choices")
        if isinstance(text, dict):
            text, choices = text.get("stem"), text.get("choices")
        if isinstance(choices, list):
            listed: list[Row] = [choice for choice in choices if isinstance(choice, dict)]
            choices = {key: [choice.get(key) for choice in listed] for key in ("text", "label")}
        if not isinstance(text, str) or not isinstance(choices, dict):
            raise ValueError(f"{where} is not a question of ARC; it needs question, choices and answerKey")
        texts, labels = texts_of(choices.get("text"), "choices", where), list(choices.get("label") or ())
        if row.get("answerKey") not in labels or len(labels) != len(texts):
            raise ValueError(f"{where} has the answerKey {row.get('answerKey')!r}, and its choices are {labels}")
        return Example(
            f"{self.name}/{row.get('id', where)}", texts[labels.index(row["answerKey"])], question(text),
            category=self.name, choices=texts,
        )  # fmt: skip
