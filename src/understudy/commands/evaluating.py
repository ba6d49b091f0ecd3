"""`evaluate --tasks`: a run's answers to tasks, and two runs compared on the same questions.

What it leaves in the run's folder: evaluation_tasks.json, the last result of each task, and evaluations/TASK.jsonl,
its single examples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.commands import Arguments, check_least, print_json, refuse_reward_model

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from understudy.evaluate.runner import TaskResult
    from understudy.evaluate.statistics import Estimate, Paired
    from understudy.evaluate.task import Task
    from understudy.run import Run
    from understudy.runtime import Runtime


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
        ask_and_tell(runs, tasks, runtime, arguments.limit, arguments.batch_size, arguments.json)


def ask_and_tell(
    runs: Sequence[Run],
    tasks: Sequence[Task],
    runtime: Runtime,
    limit: int | None = None,
    batch_size: int = 16,
    as_json: bool = False,
) -> None:
    """Put the questions of ``tasks`` to one run, or to two that are compared; keep the results, and show them."""
    results = [_run(run, tasks, runtime, limit, batch_size) for run in runs]
    if runtime.is_main:
        for run, result in zip(runs, results):
            save_results(run, result)
        _tell(runs, results, as_json)


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


def _run(run: Run, tasks: Sequence[Task], runtime: Runtime, limit: int | None, batch_size: int) -> list[TaskResult]:
    from understudy.evaluate.runner import run_task

    model = run.model.to(runtime.device)
    results = []
    with progress_bars(quiet=not runtime.is_main) as bars:
        for task in tasks:
            bar = bars.add_task(f"{run.path.name}: {task.name}", total=None)

            def progress(done: int, total: int, bar: Any = bar) -> None:
                bars.update(bar, completed=done, total=total)

            results.append(run_task(task, model, run.tokenizer, runtime, limit, batch_size, progress))
    return results


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Bars]:
    """Progress on standard error; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bars:
        yield bars


def save_results(run: Run, results: Sequence[TaskResult]) -> None:
    """Keep the results with their run, beside those of other tasks.

    Raises:
        ValueError: the folder cannot be written.
    """
    from understudy.run import now, read_json, write_json, write_text

    path, folder = run.path / "evaluation_tasks.json", run.path / "evaluations"
    kept = read_json(path) if path.exists() else {}
    try:
        folder.mkdir(exist_ok=True)
        for result in results:
            kept[result.name] = {"checkpoint": str(run.step), "created": now()} | result.as_dict()
            lines = "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in result.examples)
            write_text(folder / f"{result.name}.jsonl", lines)
        write_json(path, kept)
    except OSError as error:
        raise ValueError(f"the results could not be kept in {run.path} ({error.strerror}); make room there") from error


def _tell(runs: Sequence[Run], results: Sequence[Sequence[TaskResult]], as_json: bool) -> None:
    from understudy.evaluate.statistics import compare_paired

    pairs: dict[str, Paired] = {}
    if len(runs) == 2:
        for ours, theirs in zip(*results):
            pairs[ours.name] = compare_paired(theirs.scores(), ours.scores())
    if as_json:
        documents = [
            {"run": str(run.path), "step": run.step, "tasks": {r.name: r.as_dict() for r in own}}
            for run, own in zip(runs, results)
        ]
        paired = {name: pair.as_dict() for name, pair in pairs.items()}
        print_json(documents[0] | ({"against": documents[1], "paired": paired} if len(runs) == 2 else {}))
        return
    for run, own in zip(runs, results):
        _table(f"{run.path}, step {run.step:,}", own)
    for name, pair in pairs.items():
        _say(_pair_sentence(name, pair, runs))


def _table(title: str, results: Sequence[TaskResult]) -> None:
    """A row for each task, and one for each category of those that have several."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from understudy.train.console_panel import printable

    table = Table("task", "category", "n", "score", "95% interval", title=title, title_justify="left", box=box.SIMPLE)
    notes = []
    for result in results:
        order = [result.metric, *(metric for metric in result.metrics if metric != result.metric)]
        for metric in order:
            table.add_row(Text(printable(result.name)), metric, *_cells(result.metrics[metric], metric), style="bold")
        for category, of in result.categories.items():
            table.add_row("", Text(printable(category or "–")), *_cells(of, result.metric))
        if result.cut:
            notes.append(f"{result.name}: {result.cut} prompts were too long for the context and lost their beginning")
    Console(stderr=True).print(table)
    for note in notes:
        _say(note)


def _cells(of: Estimate, metric: str) -> tuple[str, str, str]:
    percent = metric.startswith("accuracy")

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}" if percent else f"{value:.4f}"

    return f"{of.n:,}", number(of.value), f"{number(of.low)} to {number(of.high)}"


def _pair_sentence(name: str, pair: Paired, runs: Sequence[Run]) -> str:
    ours, theirs = (run.path.name if runs[0].path != runs[1].path else f"step {run.step}" for run in runs)
    interval = "" if pair.low is None or pair.high is None else f" (95% interval {pair.low:+.4f} to {pair.high:+.4f})"
    return (
        f"{name}: {ours} minus {theirs} is {pair.difference:+.4f}{interval} on the same {pair.n:,} questions; "
        f"higher on {pair.higher:,}, lower on {pair.lower:,}, p = {pair.p_value:.3g} (exact paired test)"
    )


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
