"""`evaluate --tasks`: a run's answers to tasks, and two runs compared on the same questions.

What it leaves in the run's folder: evaluation_tasks.json, the last result of each task, and evaluations/TASK.jsonl,
its single examples.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.commands import Arguments, check_least
from understudy.evaluate.run_tasks import evaluate_on_tasks
from understudy.run import refuse_reward_model

if TYPE_CHECKING:
    from understudy.evaluate.task import Task


def task_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tasks instead of the loss")
    group.add_argument("--tasks", metavar="NAMES", help="such as hamlet,gsm8k, or files of questions ending in .jsonl")
    group.add_argument("--limit", type=int, metavar="N", help="the first N questions of each task")
    group.add_argument("--few-shot", type=int, metavar="N", help="solved examples shown before each question")
    group.add_argument("--task-data", metavar="PATH", help="file or folder of the questions (default: from the hub)")
    group.add_argument("--against", metavar="RUN", help="another run, its best checkpoint, asked the same questions")


def refuse_task_options(arguments: Arguments) -> None:
    """Options that mean nothing without --tasks."""
    for name in ("limit", "few_shot", "task_data", "against"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for tasks; name them, as in --tasks hamlet")


def evaluate_tasks(arguments: Arguments) -> None:
    from understudy.run import load_run
    from understudy.runtime import start_runtime

    for name, default in (("data", None), ("split", "val"), ("context", None)):
        if getattr(arguments, name) != default:
            raise ValueError(f"--{name} is for the loss and would be ignored with --tasks; leave one of them out")
    check_least(1, limit=arguments.limit, batch_size=arguments.batch_size)
    tasks = _tasks(arguments)
    runs = [load_run(arguments.run, arguments.checkpoint)]
    if arguments.against is not None:
        runs.append(load_run(arguments.against))
    for run in runs:
        refuse_reward_model(run)
    with start_runtime(arguments.device) as runtime:
        evaluate_on_tasks(runs, tasks, runtime, arguments.limit, arguments.batch_size, arguments.json)


def _tasks(arguments: Arguments) -> list[Task]:
    """The tasks asked for. Where --task-data has a folder of a task's name, the task looks there."""
    from understudy.evaluate.tasks import PUBLIC, find_task

    names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    if not names:
        raise ValueError("--tasks names no task; write them as in --tasks hamlet,gsm8k")
    data = None if arguments.task_data is None else Path(arguments.task_data)
    tasks = []
    for name in names:
        path = data if len(names) == 1 or name in PUBLIC else None
        own = path / name if path is not None else None
        tasks.append(find_task(name, own if own is not None and own.is_dir() else path, arguments.few_shot or 0))
    if data is not None and not set(names) & set(PUBLIC):
        raise ValueError(f"--task-data is where {', '.join(PUBLIC)} have their questions, and none is in --tasks")
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"--tasks {arguments.tasks} names a task twice; each leaves its result under its own name")
    return tasks
