"""Tables and sentences that show results in the terminal: tasks on runs, a comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence

from understudy.console import interval_text, print_line, show_table
from understudy.evaluation.compare import RunComparison, outcome
from understudy.evaluation.runner import TaskEvaluation, TaskResult
from understudy.evaluation.statistics import Estimate, Paired
from understudy.report.wording import MISSING
from understudy.run import Run


def print_task_evaluation(evaluation: TaskEvaluation, categories: bool = True) -> None:
    """Print a table for each run, with or without a row for each category, and for two runs a sentence for each task."""
    for run, results in zip(evaluation.runs, evaluation.results):
        _print_tasks(f"{run.path}, step {run.step:,}", results, categories)
    for name, pair in evaluation.paired.items():
        print_line(_paired_sentence(name, pair, evaluation.runs))


def _print_tasks(title: str, results: Sequence[TaskResult], categories: bool) -> None:
    """A row for each metric of a task, and one for each category."""
    rows = []
    for result in results:
        metrics = [result.metric, *(metric for metric in result.metrics if metric != result.metric)]
        rows += [[result.name, metric, *_cells(result.metrics[metric], metric)] for metric in metrics]
        if categories:
            rows += [["", name or MISSING, *_cells(value, result.metric)] for name, value in result.categories.items()]
    show_table(title, ("task", "category", "n", "score", "95% interval"), rows)
    for result in results:
        if result.cut:
            print_line(f"{result.name}: {result.cut:,} prompts were too long for the context and lost their beginning")


def _cells(estimate: Estimate, metric: str) -> list[str]:
    style = ".1%" if metric.startswith("accuracy") else ".4f"
    return [f"{estimate.n:,}", format(estimate.value, style), _interval(estimate.low, estimate.high, style)]


def _interval(low: float | None, high: float | None, number_format: str) -> str:
    if low is None or high is None:
        return MISSING
    return f"{format(low, number_format)} to {format(high, number_format)}"


def _paired_sentence(name: str, pair: Paired, runs: Sequence[Run]) -> str:
    first, second = (run.path.name if runs[0].path != runs[1].path else f"step {run.step}" for run in runs)
    return (
        f"{name}: {first} minus {second} is {interval_text(pair.difference, pair.low, pair.high, '+.4f')} on the same "
        f"{pair.n:,} questions; higher on {pair.higher:,}, lower on {pair.lower:,}, p = {pair.p_value:.3g} "
        "(exact paired test)"
    )


def print_comparison(comparison: RunComparison, categories: bool = True) -> None:
    """Print the second run's win rate against the first, in total and by category."""
    groups = {"all": comparison.pairs, **(comparison.categories() if categories else {})}
    rows = []
    for name, pairs in groups.items():
        result = outcome(pairs)
        rows.append([
            name or MISSING, f"{result['n']:,}", f"{result['win_rate']:.1%}",
            _interval(result["low"], result["high"], ".1%"),
            " / ".join(f"{result[count]:,}" for count in ("wins", "ties", "losses")), f"{result['p_value']:.3g}",
        ])  # fmt: skip
    second, first = (f"{run.path.name} (step {run.step:,})" for run in (comparison.second, comparison.first))
    show_table(
        f"{second} against {first}", ("category", "n", "win rate", "95% interval", "wins / ties / losses", "p"), rows
    )
    if comparison.too_long:
        print_line(f"{comparison.too_long:,} prompts leave no room for an answer and were left out")
    if comparison.not_judged:
        print_line(f"{comparison.not_judged:,} prompts were not judged")
    if comparison.trained_on:
        print_line(
            f"warning: the runs were trained on {comparison.trained_on:,} of these {comparison.prompts:,} prompts; "
            "--data with other prompts gives a fair comparison"
        )
