"""The reference pages are those that the code gives, and links of all pages lead somewhere."""

from __future__ import annotations

import json
import re
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


ROOT = Path(__file__).parent.parent
WRITTEN = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        if anchor:
            assert anchor in {heading_id(line) for line in target.read_text(encoding="utf-8").splitlines()}, (
                f"{link}#{anchor}"
            )


def heading_id(line: str) -> str:
    """The anchor that GitHub gives a heading; "" for other lines."""
    if not line.startswith("#"):
        return ""
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


READING_EASE, LONGEST_SENTENCE = 50, 35


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *(ROOT / "docs" / "tutorial").glob("*.md"), *sorted((ROOT / "notebooks").glob("*.ipynb"))],
    ids=lambda page: page.stem,
)
def test_it_reads_easily(page: Path) -> None:
    """Flesch's reading ease of the prose; `pytest -s` prints it."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = re.sub(
            r"\$\$.*?\$\$|\$[^$]*\$", "formula", "\n\n".join("".join(c["source"]) for c in cells), flags=re.DOTALL
        )
    found = sentences(text)
    words = [word for sentence in found for word in sentence]
    ease = 206.835 - 1.015 * len(words) / len(found) - 84.6 * sum(map(syllables, words)) / len(words)
    longest = max(found, key=len)
    print(f"\n{page.name}: reading ease {ease:.0f}, longest sentence {len(longest)} words")
    assert ease >= READING_EASE and len(longest) <= LONGEST_SENTENCE, " ".join(longest)


def sentences(markdown: str) -> list[list[str]]:
    """The words of each sentence of the prose: without code, tables, headings and the targets of links."""
    prose = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    prose = re.sub(r"^(?:\||#|    ).*$", "", prose, flags=re.MULTILINE)
    prose = re.sub(r"`[^`]*`", "code", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose))
    parts = re.split(r"(?<=[.!?:])\s+|\n\s*\n|^\s*(?:[-*]|\d+\.) ", prose, flags=re.MULTILINE)
    return [words for part in parts if (words := re.findall(r"[A-Za-z]+(?:['’-][A-Za-z]+)*", part))]


def syllables(word: str) -> int:
    """Groups of vowels, without a silent e."""
    word = re.sub(r"(?<=[^aeiouy])(?:es|ed|e)$", "", word.lower())
    return max(1, len(re.findall(r"[aeiouy]+", word)))
