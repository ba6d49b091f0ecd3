"""The reference pages are those that the code gives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
import build_reference

PAGES = build_reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_reference_pages_are_up_to_date(name: str) -> None:
    if name == "commands.md" and sys.version_info[:2] != (3, 11):
        pytest.skip("argparse words its help otherwise in other versions of Python")
    path = build_reference.REFERENCE / name
    assert path.read_text(encoding="utf-8") == PAGES[name], "run `python docs/build_reference.py`"
