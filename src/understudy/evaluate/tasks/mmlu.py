"""MMLU: exam questions in 57 subjects (Hendrycks et al. 2021, arXiv:2009.03300)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from understudy.evaluate.task import Example, Split, question, take_turns
from understudy.evaluate.tasks.source import PublicTask, Row, TaskData, read_source, text_of, texts_of

LETTERS = ("A", "B", "C", "D")


class MMLU(PublicTask):
    """The four choices are shown with letters, and the most likely letter is the answer. Categories are the subjects.

    Few-shot examples come from the `dev` split, which has five for each subject, and have the question's subject.
    In the authors' csv files the file's name is the subject.
    """

    name = "mmlu"
    kind = "choice"

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name = "dev" if split == "train" else "test"
        columns = ("question", *LETTERS, "answer")
        source = TaskData("mmlu", "cais/mmlu", f"all/{name}-*.parquet", (name,), columns)
        by_subject: dict[str, list[Example]] = {}
        for where, row in read_source(source, self.path):
            subject = row.get("subject") or Path(where.rsplit(" row ", 1)[0]).stem.removesuffix(f"_{name}")
            examples = by_subject.setdefault(subject, [])
            examples.append(_example(f"mmlu/{name}/{subject}/{len(examples)}", subject, where, row))
        return take_turns(by_subject.values())[:limit]

    def shots(self, example: Example) -> list[Example]:
        if not self.few_shot:
            return []
        return self.enough_shots([shot for shot in self._solved if shot.category == example.category])

    @cached_property
    def _solved(self) -> list[Example]:
        return self.examples("train")


def _example(id: str, subject: str, where: str, row: Row) -> Example:
    """A row of the hub (`choices`, and an answer from 0 to 3) or of the authors' files (A to D)."""
    choices = texts_of(row.get("choices") or [row.get(letter) for letter in LETTERS], "choices", where)
    answer = row.get("answer")
    letter = LETTERS[answer] if isinstance(answer, int) and 0 <= answer < len(LETTERS) else str(answer).strip()
    if letter not in LETTERS or len(choices) != len(LETTERS):
        raise ValueError(
            f"{where} has the answer {answer!r} and {len(choices)} choices; it needs four choices and an answer from 0 to 3 or A to D"
        )
    shown = "\n".join(f"{name}. {choice}" for name, choice in zip(LETTERS, choices))
    text = f"{text_of(row, 'question', where).strip()}\n{shown}"
    return Example(id, letter, question(text), category=subject, choices=LETTERS)
