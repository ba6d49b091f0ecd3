"""The table of benchmarks is the one that the results give, and each result records its environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import build_tables
from plain import about

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


def test_the_table_is_up_to_date() -> None:
    assert build_tables.PAGE.read_text(encoding="utf-8") == build_tables.table(), (
        "run `python benchmarks/build_tables.py`"
    )


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_record_their_environment(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["about"].keys() == about().keys()
    assert all(content["about"].values())
    assert path.stem in build_tables.PAGES or path.stem == "decode"  # it holds only the numbers of others


def test_every_page_is_linked_and_every_link_leads_to_a_file() -> None:
    pages = {page for page, _ in build_tables.PAGES.values()}
    assert pages == {path.stem for path in (BENCHMARKS / "pages").glob("*.md")}
    for path in BENCHMARKS.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path}: {link}"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse(path: Path) -> None:
    subprocess.run(["sh", "-n", str(path)], check=True)
