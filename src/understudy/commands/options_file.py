"""Options of a command from a YAML file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.commands import Arguments

NOT_IN_FILES = ("json", "list", "merge", "options", "task", "force")
"""Options of one call, which a file that is used again must not have."""


def fill_from_file(arguments: Arguments, path: Path) -> None:
    """Fill the options that were not given with those of a file: their names with the values, and a list of ``sources``.

    Raises:
        ValueError: there is no such file, it is no YAML mapping, or has an unknown option or value.
    """
    from understudy.config.load import nearest, parse_yaml

    if not path.is_file():
        raise ValueError(f"there is no file {path} with options of prepare")
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(tree, Mapping) or not tree:
        raise ValueError(f"{path} has no options: write one a line, such as `dedup: minhash`")
    parser: argparse.ArgumentParser = arguments.parser
    known = [name for name in vars(parser.parse_args([])) if name not in NOT_IN_FILES]
    words: list[str] = []
    for name, value in tree.items():
        attribute = str(name).replace("-", "_")
        if attribute not in known:
            raise ValueError(f"{path} has the option {name!r}, which is none of prepare's{nearest(attribute, known)}")
        values = list(_words(name, value, path))
        words += values if attribute == "sources" else _option(attribute, value, values)
    try:
        given = vars(parser.parse_args(words))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name in known:
        if getattr(arguments, name) in (None, False, []):
            setattr(arguments, name, given[name])


def _option(attribute: str, value: Any, values: list[str]) -> list[str]:
    """The words of an option on a command line."""
    option = f"--{attribute.replace('_', '-')}"
    if isinstance(value, bool):
        return [option] if value else []
    if attribute in ("val", "executor_option"):  # given once for each value
        return [f"{option}={each}" for each in values]
    return [f"{option}={','.join(values)}"]


def _words(name: str, value: Any, path: Path) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (f"{key}={inner}" for key, inner in value.items())
    elif isinstance(value, list):
        yield from (str(each) for each in value)
    elif value is None:
        raise ValueError(f"{path} has no value for {name}: write one, or leave the line out")
    else:
        yield str(value)
