"""Tables of phrasings for turns; lines with `~` are for validation only.

A table has a name at the margin and its phrasings, with {fields}, indented below. templates.py has the notation of
the stories.
"""

from __future__ import annotations

from dataclasses import dataclass

from understudy.hamlet.draw import Draw
from understudy.hamlet.stories import Split

# Default probability of a held-out phrasing in val.
_NEW_WORDS = 1 / 3


@dataclass(frozen=True, slots=True)
class Phrasings:
    """Phrasings of one message; `held_out` phrasings are for val only."""

    shared: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, draw: Draw, split: Split, new: bool | None = None) -> str:
        """Choose a phrasing for `split`; in val, `new` selects a held-out one (None: at random)."""
        if split == "val" and self.held_out and (draw.chance(_NEW_WORDS) if new is None else new):
            return draw.pick(self.held_out)
        return draw.pick(self.shared)


def phrasings(table: str) -> dict[str, Phrasings]:
    """Parse a table of phrasings."""
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
            tuple(x for x in table_lines if not x.startswith("~")),
            tuple(x[1:] for x in table_lines if x.startswith("~")),
        )
        for name, table_lines in lines.items()
    }
