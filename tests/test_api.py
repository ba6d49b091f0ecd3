"""The small public API: its names, and the examples in its docstrings, which are run."""

from __future__ import annotations

import doctest
import importlib

import pytest

import understudy

MODULES = (
    "config.model", "config.run", "losses", "model.gpt", "inference.generate", "inference.sampling", "run", "tokenizer", "tokenizer.base",
    "tokenizer.char", "tokenizer.bpe",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_give_what_they_show(name: str) -> None:
    failures, _ = doctest.testmod(importlib.import_module(f"understudy.{name}"), optionflags=doctest.ELLIPSIS)
    assert failures == 0


def test_every_public_name_is_there() -> None:
    for name in understudy.__all__:
        assert getattr(understudy, name).__doc__, f"{name} says nothing of itself"
    with pytest.raises(AttributeError):
        understudy.nothing  # noqa: B018
