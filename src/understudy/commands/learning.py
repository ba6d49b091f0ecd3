"""The command `learn`: the ladder of short trainings, and the exercises of the notebooks."""

from __future__ import annotations

import argparse
from pathlib import Path

from understudy.commands import Arguments, show_result
from understudy.console import final_table


def learn_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", help="run or check; without it the steps are listed")
    run = actions.add_parser(
        "run", help="run a step of the ladder; exit status 1 if the result is outside the expected band"
    )
    run.add_argument("step", type=int, metavar="N", help="the number of a step, as `understudy learn` lists them")
    run.add_argument("--fresh", action="store_true", help="train it again, and delete its earlier run")
    check = actions.add_parser("check", help="check the exercises of a notebook; exit status 1 if one is not right yet")
    check.add_argument("lesson", type=int, metavar="N", help="the number of the notebook")
    check.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="your notebook, or a Python file (default: in notebooks/)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    for action in (run, check):  # SUPPRESS: otherwise its default would replace the value of `learn --json run`
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    parser.set_defaults(run_learn=learn_list)
    run.set_defaults(run_learn=learn_run)
    check.set_defaults(run_learn=learn_check)


def learn(arguments: Arguments) -> int:
    """Run one action and return its exit status."""
    status: int = arguments.run_learn(arguments)
    return status


def learn_list(arguments: Arguments) -> int:
    from understudy.learn.ladder import measure_speed, plan, render

    speed = measure_speed()
    show_result(arguments, plan(speed), lambda: print(render(speed)))
    return 0


def learn_run(arguments: Arguments) -> int:
    from understudy.learn.ladder import run_step

    result = run_step(arguments.step, arguments.fresh)
    show_result(arguments, result.as_dict(), lambda: final_table(result.rows()))
    return 0 if result.is_inside else 1


def learn_check(arguments: Arguments) -> int:
    from understudy.learn.exercises import check_answers, find_notebook, read_answers

    path = arguments.file or find_notebook(arguments.lesson)
    answers = check_answers(arguments.lesson, read_answers(path))
    document = [{"name": answer.name, "right": answer.problem is None, "problem": answer.problem} for answer in answers]
    show_result(arguments, document, lambda: print(*answers, sep="\n"))
    return 0 if all(answer.problem is None for answer in answers) else 1
