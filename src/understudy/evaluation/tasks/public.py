"""Public tasks: GSM8K, HellaSwag, ARC and MMLU, from a file or folder given by the user, or else from the hub."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any, Literal

from understudy.data.fetch.download import UnavailableError
from understudy.data.fetch.hub import HubDataset, fetch_file, list_dataset
from understudy.data.find import LIBRARY_FILES
from understudy.data.inputs import file_ending
from understudy.data.layout import CACHE
from understudy.data.records import READERS
from understudy.evaluation.task import Example, Split, Task, question, take_turns
from understudy.evaluation.tasks.local import Row, read_rows, text_of, texts_of
from understudy.rewards.verifiers import final_number

CALCULATOR = re.compile(r"<<.*?>>")
MARKUP = re.compile(r"\[[^\]]*\]")
LETTERS = ("A", "B", "C", "D")


class PublicTask(Task):
    """A task whose questions are read from ``path``, or by default from the dataset ``repo`` on the hub.

    In a folder that is no copy of the dataset, the path of a file must have one of the words of its split; also the
    word ``within``, if several tasks share a folder, and not the word ``without``.
    """

    repo: str
    within = without = ""
    columns: tuple[str, ...] = ()
    """The columns of a CSV file without a header row."""

    def __init__(self, path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(few_shot)
        self.path = path

    def rows(self, files: str, *words: str) -> list[tuple[str, Row]]:
        """Every row of a split with its place, for error messages. ``files``: a pattern for its files in the dataset.

        Raises:
            ValueError: no such file, nothing of this split in the folder, a hub that cannot be reached, a damaged file.
        """
        found = self._on_hub(files) if self.path is None else self._in(self.path, files, words)
        return [row for file in found for row in read_rows(file, self.columns)]

    def _on_hub(self, files: str) -> list[Path]:
        try:
            listing = list_dataset(HubDataset(self.repo, files=files))
            return [fetch_file(self.repo, listing.revision, file, CACHE / "hub") for file in listing.files]
        except UnavailableError as error:
            raise ValueError(
                f"the questions of {self.name} are not here: {error}; or give their file or folder with --task-data"
            ) from error

    def _in(self, path: Path, files: str, words: tuple[str, ...]) -> list[Path]:
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise ValueError(f"there is no file or folder {path} with the questions of {self.name}")
        readable = [p for p in sorted(path.rglob("*")) if p.is_file() and file_ending(p)[0] in READERS]
        names = {p.relative_to(path).as_posix(): p for p in readable if p.name not in LIBRARY_FILES}
        found = [p for name, p in names.items() if fnmatch.fnmatchcase(name, files)]
        found = found or [p for name, p in names.items() if self._belongs(name, words)]
        if not found:
            listed = ", ".join(list(names)[:5]) or f"no file ending in {', '.join(READERS)}"
            raise ValueError(
                f"{path} has no file for {self.name} with {' or '.join(words)} in its name; it holds {listed}"
            )
        return found

    def _belongs(self, name: str, words: tuple[str, ...]) -> bool:
        parts = re.split(r"[/._-]+", name.lower())
        return (not self.within or self.within in parts) and self.without not in parts and bool({*words} & {*parts})


class GSM8K(PublicTask):
    """Grade-school word problems (Cobbe et al. 2021, arXiv:2110.14168). The model's last number is its answer.

    Compares final numbers: `$1,200.00.` is 1200. The final number follows `####`, or else is the last one.
    """

    name = verifier = "gsm8k"
    repo = "openai/gsm8k"
    without = "socratic"
    max_new_tokens = 256

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name = "train" if split == "train" else "test"
        examples = []
        for number, (where, row) in enumerate(self.rows(f"main/{name}-*.parquet", name)[:limit]):
            solution = CALCULATOR.sub("", text_of(row, "answer", where))
            if final_number(solution) is None:
                raise ValueError(f"{where} has no number in its answer; GSM8K's end with #### and a number")
            messages = question(text_of(row, "question", where))
            examples.append(Example(f"gsm8k/{name}/{number}", solution, messages, category="gsm8k"))
        return examples


class HellaSwag(PublicTask):
    """The right one of four endings of a text (Zellers et al. 2019, arXiv:1905.07830), never a conversation.

    The labels of the test split are not public, so `val` is the validation split.
    """

    name = "hellaswag"
    kind = "choice"
    metric = "accuracy_normalised"
    repo = "Rowan/hellaswag"

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name, *others = ("train",) if split == "train" else ("validation", "val")
        rows = self.rows(f"data/{name}-*.parquet", name, *others)[:limit]
        return [self._example(f"hellaswag/{name}/{i}", where, row) for i, (where, row) in enumerate(rows)]

    def _example(self, id: str, where: str, row: Row) -> Example:
        endings = tuple(_without_markup(ending) for ending in texts_of(row.get("endings"), "endings", where))
        label = str(row.get("label", ""))
        if not label.isdigit() or int(label) >= len(endings):
            raise ValueError(f"{where} has the label {label!r}; it must be a number from 0 to {len(endings) - 1}")
        if "ctx_a" in row:  # ctx_b is the beginning of a second sentence
            second = str(row.get("ctx_b") or "")
            context = f"{row['ctx_a']} {second[:1].upper() + second[1:].lower()}"
        else:
            context = text_of(row, "ctx", where)
        activity = text_of(row, "activity_label", where)
        text = _without_markup(f"{activity}: {context}")
        return Example(id, endings[int(label)], text=text, category=activity, choices=endings)


def _without_markup(text: str) -> str:
    """The text without WikiHow's markup: `[title]` begins a new sentence, other marks are removed."""
    return " ".join(MARKUP.sub("", text.strip().replace(" [title]", ". ")).split())


class Arc(PublicTask):
    """Science questions of school exams, an easy and a challenge set (Clark et al. 2018, arXiv:1803.05457).

    The choices are not shown: the most likely one after the question, normalised by length, is the answer.
    """

    kind = "choice"
    metric = "accuracy_normalised"
    repo = "allenai/ai2_arc"

    def __init__(self, subset: Literal["easy", "challenge"], path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(path, few_shot)
        self.name, self.within = f"arc-{subset}", subset

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name = "train" if split == "train" else "test"
        rows = self.rows(f"ARC-{self.within.capitalize()}/{name}-*.parquet", name)
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
        answer = texts[labels.index(row["answerKey"])]
        return Example(f"{self.name}/{row.get('id', where)}", answer, question(text), category=self.name, choices=texts)


class MMLU(PublicTask):
    """Exam questions in 57 subjects (Hendrycks et al. 2021, arXiv:2009.03300).

    The four choices are shown with letters, and the most likely letter is the answer. Categories are the subjects.
    Few-shot examples come from the `dev` split, which has five for each subject, and have the question's subject.
    In the authors' csv files the file's name is the subject.
    """

    name = "mmlu"
    kind = "choice"
    repo = "cais/mmlu"
    columns = ("question", *LETTERS, "answer")
    shots_by_category = True

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name = "dev" if split == "train" else "test"
        by_subject: dict[str, list[Example]] = {}
        for where, row in self.rows(f"all/{name}-*.parquet", name):
            subject = row.get("subject") or Path(where.rsplit(" row ", 1)[0]).stem.removesuffix(f"_{name}")
            examples = by_subject.setdefault(subject, [])
            examples.append(self._example(f"mmlu/{name}/{subject}/{len(examples)}", subject, where, row))
        return take_turns(by_subject.values())[:limit]

    def _example(self, id: str, subject: str, where: str, row: Row) -> Example:
        """A row of the hub (`choices`, and an answer from 0 to 3) or of the authors' files (A to D)."""
        choices = texts_of(row.get("choices") or [row.get(letter) for letter in LETTERS], "choices", where)
        answer = row.get("answer")
        letter = LETTERS[answer] if isinstance(answer, int) and 0 <= answer < len(LETTERS) else str(answer).strip()
        if letter not in LETTERS or len(choices) != len(LETTERS):
            raise ValueError(f"{where} needs four choices and an answer from 0 to 3 or A to D, not {answer!r}")
        shown = "\n".join(f"{name}. {choice}" for name, choice in zip(LETTERS, choices))
        text = f"{text_of(row, 'question', where).strip()}\n{shown}"
        return Example(id, letter, question(text), category=subject, choices=LETTERS)
