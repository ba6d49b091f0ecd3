"""How a turn is put in words: tables of phrasings, some of them (`~`) for validation only.

A table has a name at the margin and its phrasings indented below, with {fields}. The richer notation of the stories
is in templates.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from understudy.hamlet.draw import Draw
from understudy.hamlet.stories import Split

# How often a val turn is worded as no train turn is, where nothing else decides.
_NEW_WORDS = 1 / 3


@dataclass(frozen=True, slots=True)
class Phrasings:
    """The ways to say one thing; `held_out` ones are for val only."""

    shared: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, draw: Draw, split: Split, new: bool | None = None) -> str:
        """A phrasing for `split`; `new` says whether a val one has to be a held-out one (None: at times)."""
        if split == "val" and self.held_out and (draw.chance(_NEW_WORDS) if new is None else new):
            return draw.pick(self.held_out)
        return draw.pick(self.shared)


def phrasings(table: str) -> dict[str, Phrasings]:
    """Parse a table."""
    lines: dict[str, list[str]] = {}
    name = ""
    for line in table.splitlines():
        if not line.strip():
            continue
        if line[0] != " ":
            name = line.strip()
            assert name not in lines, f"phrasings of {name} stand twice"
            lines[name] = []
        else:
            lines[name].append(line.strip())
    return {
        name: Phrasings(
            tuple(x for x in all_ if not x.startswith("~")), tuple(x[1:] for x in all_ if x.startswith("~"))
        )
        for name, all_ in lines.items()
    }
