"""The verb `evaluate`: loss of a run, evaluation of a reward model, or tasks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.commands import Arguments, check_least, model_arguments, show_result
from understudy.console import final_table, interval_text, progress_bars, progress_callback

if TYPE_CHECKING:
    from understudy.evaluation.run_evaluation import RunEvaluation


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    model_arguments(parser)
    add("--data", metavar="PATH", help="data to evaluate on (default: the run's training data)")
    add("--split", default="val", choices=("train", "val"), help="split of the data (default: val)")
    add("--context", type=int, metavar="TOKENS", help="length of the windows (default: the model's)")
    add("--batch-size", type=int, default=16, metavar="N", help="rows in one forward (default: 16)")
    group = parser.add_argument_group("tasks instead of the loss")
    group.add_argument("--tasks", metavar="NAMES", help="such as hamlet,gsm8k, or files of questions ending in .jsonl")
    group.add_argument("--limit", type=int, metavar="N", help="the first N questions of each task")
    group.add_argument("--few-shot", type=int, metavar="N", help="solved examples shown before each question")
    group.add_argument(
        "--task-data", type=Path, metavar="PATH", help="file or folder of the questions (default: from the hub)"
    )
    group.add_argument("--against", metavar="RUN", help="compare with the best checkpoint of this run")


def evaluate(arguments: Arguments) -> None:
    if arguments.tasks is not None:
        _evaluate_tasks(arguments)
    else:
        _evaluate_split(arguments)


def _evaluate_tasks(arguments: Arguments) -> None:
    from understudy.evaluation.runner import evaluate_on_tasks, find_tasks
    from understudy.report.tables import print_task_evaluation
    from understudy.run import load_run
    from understudy.runtime import start_runtime

    for name, default in (("data", None), ("split", "val"), ("context", None)):
        if getattr(arguments, name) != default:
            raise ValueError(f"--{name} is for the loss and would be ignored with --tasks; leave one of them out")
    check_least(1, limit=arguments.limit, batch_size=arguments.batch_size)
    names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    tasks = find_tasks(names, arguments.task_data, arguments.few_shot or 0)
    runs = [load_run(arguments.run, arguments.checkpoint)]
    if arguments.against is not None:
        runs.append(load_run(arguments.against))
    with start_runtime(arguments.device) as runtime:
        with progress_bars(quiet=not runtime.is_main) as bars:
            evaluation = evaluate_on_tasks(
                runs, tasks, runtime, arguments.limit, arguments.batch_size, progress_callback(bars)
            )
        if not runtime.is_main:
            return
        show_result(arguments, evaluation.as_dict(), lambda: print_task_evaluation(evaluation))
        evaluation.save()


def _evaluate_split(arguments: Arguments) -> None:
    from understudy.evaluation.run_evaluation import evaluate_split
    from understudy.run import load_run
    from understudy.runtime import start_runtime

    for name in ("limit", "few_shot", "task_data", "against"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for tasks; name them, as in --tasks hamlet")
    check_least(1, batch_size=arguments.batch_size)
    run = load_run(arguments.run, arguments.checkpoint)
    with start_runtime(arguments.device) as runtime:
        evaluation = evaluate_split(
            run, runtime, arguments.data, arguments.split, arguments.context, arguments.batch_size
        )
        if not runtime.is_main:
            return
        show_result(arguments, evaluation.as_dict(), lambda: _print_evaluation(evaluation))
        evaluation.save()


def _print_evaluation(evaluation: RunEvaluation) -> None:
    from understudy.evaluation.loss import LossResult

    rows = {name.replace("_", " "): str(value) for name, value in evaluation.facts().items()}
    result = evaluation.result
    if isinstance(result, LossResult):
        rows["loss"] = interval_text(result.loss, result.loss_low, result.loss_high, ".4f")
        rows["perplexity"] = f"{result.perplexity:.3f}"
        rows["tokens"] = f"{result.tokens:,}"
        if result.bits_per_byte is not None:
            bounds = result.bits_per_byte_low, result.bits_per_byte_high
            rows["bits per byte"] = interval_text(result.bits_per_byte, *bounds, ".4f")
    else:
        rows["loss per pair"] = interval_text(result.loss.loss, result.loss.loss_low, result.loss.loss_high, ".4f")
        labels = {"accuracy": "accuracy (labels)", "true_accuracy": "accuracy (true scores)"}
        for name, accuracy in result.accuracies().items():
            rows[labels[name]] = interval_text(accuracy.value, accuracy.low, accuracy.high, ".1%")
        rows["pairs"] = f"{len(result.rows):,}"
    final_table(rows)
