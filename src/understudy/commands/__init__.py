"""The verbs of the command line, grouped by subject.

Each verb is two functions: one adds its arguments to a parser, one runs it. Heavy imports are inside the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from understudy.console import print_json

if TYPE_CHECKING:
    from understudy.run import Run

Arguments = argparse.Namespace


def check_least(least: int, **options: int | None) -> None:
    """Refuse options below the least accepted value; None stands for an option that was not given."""
    for name, value in options.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; a number from {least} is wanted")


def show_result(arguments: Arguments, document: Any, show: Callable[[], object]) -> None:
    """Print the result of a command: as one JSON document with --json, else by ``show``."""
    if arguments.json:
        print_json(document)
    else:
        show()


def run_that_generates(arguments: Arguments) -> Run:
    """The run, checkpoint and device that the arguments name.

    Raises:
        ValueError: it is a reward model.
    """
    from understudy.run import load_run, refuse_reward_model
    from understudy.runtime import choose_device

    run = load_run(arguments.run, arguments.checkpoint, str(choose_device(arguments.device)[0]))
    refuse_reward_model(run)
    return run


SHARED: dict[str, dict[str, Any]] = {
    "run": {"metavar": "RUN", "help": "a name under runs/, or a path"},
    "--checkpoint": {"default": "best", "metavar": "WHICH", "help": "best (default), latest, or a step"},
    "--device": {"default": "auto", "metavar": "NAME", "help": "auto, cpu, cuda, cuda:N or mps"},
    "--json": {"action": "store_true", "help": "print one JSON document"},
}
"""Arguments of several commands."""


def shared_arguments(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Add rows of SHARED. ``changes``: other properties of the last of them, such as its help."""
    for name in names:
        parser.add_argument(name, **SHARED[name] | (changes if name == names[-1] else {}))


def model_arguments(parser: argparse.ArgumentParser) -> None:
    shared_arguments(parser, "run", "--checkpoint", "--device", "--json")
