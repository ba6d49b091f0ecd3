"""What the verbs of the command line do, grouped by what they work on.

Each verb is two functions: one names its arguments, one runs it. Heavy imports are inside the second.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.run import Run

Arguments = argparse.Namespace


def print_json(content: Any) -> None:
    """The one JSON document that a command with --json leaves on standard output."""
    print(json.dumps(content, indent=1))


def check_least(least: int, **options: int | None) -> None:
    """Refuse numbers below the least that makes sense; options that were left out are not numbers."""
    for name, value in options.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; a number from {least} is wanted")


def refuse_reward_model(run: Run) -> None:
    """A run that gives scores writes nothing.

    Raises:
        ValueError: it is one.
    """
    if run.config.stage == "reward":
        raise ValueError(f"the run {run.path} gives scores and writes nothing; use it with `understudy score`")
