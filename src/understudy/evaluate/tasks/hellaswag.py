"""HellaSwag: the right one of four endings of a text (Zellers et al. 2019, arXiv:1905.07830)."""

from __future__ import annotations

import re

from understudy.evaluate.task import Example, Split
from understudy.evaluate.tasks.source import PublicTask, Row, TaskData, read_source, text_of, texts_of

MARKUP = re.compile(r"\[[^\]]*\]")


class HellaSwag(PublicTask):
    """A text to continue, never a conversation. Its main metric is normalised by length, as is usual.

    The labels of the test split are not public, so `val` is the validation split.
    """

    name = "hellaswag"
    kind = "choice"
    metric = "accuracy_normalised"

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name, words = ("train", ("train",)) if split == "train" else ("validation", ("validation", "val"))
        source = TaskData("hellaswag", "Rowan/hellaswag", f"data/{name}-*.parquet", words)
        rows = read_source(source, self.path)[:limit]
        return [_example(f"hellaswag/{name}/{i}", where, row) for i, (where, row) in enumerate(rows)]


def _example(id: str, where: str, row: Row) -> Example:
    endings = tuple(_clean(ending) for ending in texts_of(row.get("endings"), "endings", where))
    label = str(row.get("label", ""))
    if not label.isdigit() or int(label) >= len(endings):
        raise ValueError(
            f"{where} has the label {label!r}; it must be the number of one of the {len(endings)} endings, from 0"
        )
    if "ctx_a" in row:  # ctx_b is the beginning of a second sentence
        second = str(row.get("ctx_b") or "")
        context = f"{row['ctx_a']} {second[:1].upper() + second[1:].lower()}"
    else:
        context = text_of(row, "ctx", where)
    activity = text_of(row, "activity_label", where)
    return Example(id, endings[int(label)], text=_clean(f"{activity}: {context}"), category=activity, choices=endings)


def _clean(text: str) -> str:
    """The text without WikiHow's markup: `[title]` begins a new sentence, other marks are removed."""
    text = MARKUP.sub("", text.strip().replace(" [title]", ". "))
    return " ".join(text.split())
