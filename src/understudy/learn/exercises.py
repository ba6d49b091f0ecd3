"""The exercises of the notebooks, and their checks.

An exercise is a function that the reader completes, in a cell with the tag `exercise`. Its check is the function
`check_NAME` of lesson_NN.py, which is given the reader's function and raises an AssertionError that says what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

LESSONS = {
    1: "characters and the bigram", 2: "attention", 3: "the whole GPT", 4: "byte-pair encoding", 5: "training",
    6: "from base model to assistant", 7: "reward models", 8: "PPO and GRPO", 9: "DPO", 10: "looking inside",
    11: "a real model",
}  # fmt: skip
NOTEBOOKS = Path("notebooks")


@dataclass(frozen=True)
class Answer:
    """One checked exercise. ``problem``: None if it is right."""

    name: str
    problem: str | None

    def __str__(self) -> str:
        return f"{self.name}: " + ("right" if self.problem is None else f"not yet: {self.problem}")


def checks_of(lesson: int) -> dict[str, Callable[[Any], None]]:
    """The checks of a lesson by the name of the exercise, in their order; a ValueError if there is no such lesson."""
    if lesson not in LESSONS:
        raise ValueError(f"there is no notebook {lesson}; choose one of 1 to {max(LESSONS)}")
    names = vars(import_module(f"understudy.learn.lesson_{lesson:02}"))
    return {name.removeprefix("check_"): check for name, check in names.items() if name.startswith("check_")}


def check_answers(lesson: int, names: Mapping[str, Any]) -> list[Answer]:
    """Check the functions in ``names`` that are exercises of a lesson."""
    return [Answer(name, _problem(test, names.get(name))) for name, test in checks_of(lesson).items()]


def _problem(test: Callable[[Any], None], answer: Any) -> str | None:
    if answer is None:
        return "it is not defined; run its cell first"
    try:
        test(answer)
    except NotImplementedError:
        return "it still raises NotImplementedError; write your answer in its place"
    except AssertionError as error:
        return str(error) or "it is wrong"
    except Exception as error:  # noqa: BLE001  # the reader's code may raise anything
        return f"it raised {type(error).__name__}: {error}"
    return None


def check(lesson: int, names: Mapping[str, Any]) -> None:
    """Check the exercises of a notebook and print the result of each: `check(4, globals())` in a cell."""
    for answer in check_answers(lesson, names):
        print(answer)


def find_notebook(lesson: int) -> Path:
    """The notebook of a lesson in the folder `notebooks` or the current one; a ValueError if there is none."""
    checks_of(lesson)
    for folder in (NOTEBOOKS, Path()):
        if found := sorted(folder.glob(f"{lesson:02}_*.ipynb")):
            return found[0]
    raise ValueError(
        f"notebook {lesson} is neither in {NOTEBOOKS}/ nor here; name your file: learn check {lesson} FILE"
    )


def read_answers(path: Path) -> dict[str, Any]:
    """Run the exercise cells of a notebook, or a Python file, and return what they define.

    Raises:
        ValueError: the file cannot be read, or its code fails.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = [cell for cell in json.loads(text)["cells"] if "exercise" in cell["metadata"].get("tags", ())]
            text = "\n\n".join("".join(cell["source"]) for cell in cells)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a notebook") from error
    names: dict[str, Any] = {}
    try:
        exec(compile(re.sub(r"^[%!].*$", "", text, flags=re.M), str(path), "exec"), names)
    except Exception as error:  # the reader's code may raise anything
        raise ValueError(f"the exercises in {path} do not run: {type(error).__name__}: {error}") from error
    return names
