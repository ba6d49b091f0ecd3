"""The table of tasks by name. A new task is a file beside this one and a row in the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from understudy.config.load import nearest
from understudy.evaluation.task import Task
from understudy.evaluation.tasks.hamlet import Hamlet, HamletChoice
from understudy.evaluation.tasks.instructions import Instructions
from understudy.evaluation.tasks.local import LocalTask, TextTask
from understudy.evaluation.tasks.public import GSM8K, MMLU, Arc, HellaSwag

TASKS: dict[str, Callable[[Path | None, int], Task]] = {
    "hamlet": Hamlet,
    "hamlet-choice": HamletChoice,
    "instructions": Instructions,
    "gsm8k": GSM8K,
    "hellaswag": HellaSwag,
    "arc-easy": lambda path, few_shot: Arc("easy", path, few_shot),
    "arc-challenge": lambda path, few_shot: Arc("challenge", path, few_shot),
    "mmlu": MMLU,
}
PUBLIC = ("gsm8k", "hellaswag", "arc-easy", "arc-challenge", "mmlu")
"""Tasks whose questions are read from files; the others generate their own."""
LOCAL: dict[str, Callable[[Path, int], Task]] = {".jsonl": LocalTask, ".txt": TextTask, ".md": TextTask}


def find_task(name: str, path: str | Path | None = None, few_shot: int = 0) -> Task:
    """A task by its name, or by the path of a file of questions (.jsonl) or of text (.txt, .md).

    Args:
        path: file or folder of the questions; by default they come from the hub.
        few_shot: number of solved examples shown before each question.

    Raises:
        ValueError: no such task or file.
    """
    if name in TASKS:
        return TASKS[name](None if path is None else Path(path), few_shot)
    file = Path(name)
    if file.suffix in LOCAL:
        if path is not None:
            raise ValueError(f"{name} is a file of questions and takes no other path; leave {path} out")
        if not file.is_file():
            raise ValueError(f"there is no file {name}; a task is a file of questions, or one of {', '.join(TASKS)}")
        if file.stem in TASKS:
            raise ValueError(f"{name} has the name of the task {file.stem}; rename the file")
        return LOCAL[file.suffix](file, few_shot)
    raise ValueError(
        f"there is no task {name!r}{nearest(name, TASKS)}; there are {', '.join(TASKS)}, and files ending in {', '.join(LOCAL)}"
    )
