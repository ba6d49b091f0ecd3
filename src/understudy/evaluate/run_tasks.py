"""Tasks run on one or more runs, their results saved and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from understudy.console import print_json, progress_bars
from understudy.evaluate.runner import TaskResult
from understudy.evaluate.statistics import Estimate, Paired
from understudy.evaluate.task import Task
from understudy.run import Run
from understudy.runtime import Runtime


def evaluate_on_tasks(
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


def save_results(run: Run, results: Sequence[TaskResult]) -> None:
    """Keep the results with their run, beside those of other tasks.

    Raises:
        ValueError: the folder cannot be written.
    """
    from understudy.files import now, read_json, write_json, write_text

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

    from understudy.console import printable

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
