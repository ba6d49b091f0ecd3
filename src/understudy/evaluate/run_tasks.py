"""Tasks run on one or two runs, and the files that the results leave in the folder of a run.

evaluation_tasks.json has the last result of each task, evaluations/TASK.jsonl its examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from understudy.evaluate.runner import TaskResult, run_task
from understudy.evaluate.statistics import Paired, compare_paired
from understudy.evaluate.task import Task
from understudy.evaluate.tasks import PUBLIC, find_task
from understudy.files import now, read_json, write_json, write_text
from understudy.run import Run, refuse_reward_model
from understudy.runtime import Runtime


@dataclass(frozen=True)
class TaskEvaluation:
    """Results of tasks on one run, or on two that are compared.

    Attributes:
        results: for each run, one result per task.
        paired: with two runs, for each task the first run minus the second on the same questions.
    """

    runs: Sequence[Run]
    results: list[list[TaskResult]]
    paired: dict[str, Paired] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        documents = [
            {"run": str(run.path), "step": run.step, "tasks": {result.name: result.as_dict() for result in results}}
            for run, results in zip(self.runs, self.results)
        ]
        if len(documents) == 1:
            return documents[0]
        paired = {name: pair.as_dict() for name, pair in self.paired.items()}
        return documents[0] | {"against": documents[1], "paired": paired}

    def save(self) -> None:
        """Write the results to the folders of the runs, beside those of other tasks.

        Raises:
            ValueError: a folder cannot be written.
        """
        for run, results in zip(self.runs, self.results):
            path, folder = run.path / "evaluation_tasks.json", run.path / "evaluations"
            saved = read_json(path) if path.exists() else {}
            try:
                folder.mkdir(exist_ok=True)
                for result in results:
                    saved[result.name] = {"checkpoint": str(run.step), "created": now()} | result.as_dict()
                    lines = "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in result.examples)
                    write_text(folder / f"{result.name}.jsonl", lines)
                write_json(path, saved)
            except OSError as error:
                raise ValueError(
                    f"the results cannot be written to {run.path} ({error.strerror}); make it writable"
                ) from error


def evaluate_on_tasks(
    runs: Sequence[Run],
    tasks: Sequence[Task],
    runtime: Runtime,
    limit: int | None = None,
    batch_size: int = 16,
    progress: Callable[[str, int, int], None] = lambda description, done, total: None,
) -> TaskEvaluation:
    """Run tasks on one run or on two.

    Args:
        progress: called with a description, the number of finished examples and the number of all.

    Raises:
        ValueError: a task's data is missing, or a run is a reward model.
    """
    for run in runs:
        refuse_reward_model(run)
    results = [
        [
            run_task(
                task, run.model.to(runtime.device), run.tokenizer, runtime, limit, batch_size,
                partial(progress, f"{run.path.name}: {task.name}"),
            )
            for task in tasks
        ]
        for run in runs
    ]  # fmt: skip
    paired = {}
    if len(runs) == 2:
        paired = {a.name: compare_paired(b.scores(), a.scores()) for a, b in zip(*results)}
    return TaskEvaluation(runs, results, paired)


def find_tasks(names: Sequence[str], data: Path | None = None, few_shot: int = 0) -> list[Task]:
    """Tasks by name or file.

    Args:
        data: file or folder of the questions of the public tasks; a subfolder with the name of a task is preferred.

    Raises:
        ValueError: no such task, one that is named twice, or ``data`` for tasks that do not read it.
    """
    if not names:
        raise ValueError("--tasks names no task; write them as in --tasks hamlet,gsm8k")
    tasks = []
    for name in names:
        path = data if len(names) == 1 or name in PUBLIC else None
        if path is not None and (path / name).is_dir():
            path = path / name
        tasks.append(find_task(name, path, few_shot))
    if data is not None and not set(names) & set(PUBLIC):
        raise ValueError(f"--task-data is for {', '.join(PUBLIC)}, and none of them is in --tasks; leave it out")
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"--tasks {','.join(names)} names a task twice, and results are saved by name; name each once")
    return tasks
