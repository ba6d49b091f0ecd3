"""The verbs of the command line, grouped by subject.

Each verb is two functions: one adds its arguments to a parser, one runs it. Heavy imports are inside the second.
"""

from __future__ import annotations

import argparse

Arguments = argparse.Namespace


def check_least(least: int, **options: int | None) -> None:
    """Refuse options below the least accepted value; None stands for an option that was not given."""
    for name, value in options.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; a number from {least} is wanted")


def run_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    parser.add_argument("run", nargs="+" if several else None, metavar="RUN", help="a name under runs/, or a path")


def model_arguments(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), latest, or a step")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
