"""What the verbs of the command line do, grouped by what they work on.

Each verb is two functions: one names its arguments, one runs it. Heavy imports are inside the second.
"""

from __future__ import annotations

import argparse

Arguments = argparse.Namespace


def check_least(least: int, **options: int | None) -> None:
    """Refuse numbers below the least that makes sense; options that were left out are not numbers."""
    for name, value in options.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; a number from {least} is wanted")
