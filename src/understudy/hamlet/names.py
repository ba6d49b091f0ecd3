"""Invented names composed of syllables: too many to memorize, so a model must copy them from the prompt.

A hash assigns each name to train or val. Names that end in "a" are female, all others male.
"""

from __future__ import annotations

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.stories import Split

_RESERVED_ONE_IN = 8
_FIRST = (
    "B", "Br", "D", "Dr", "F", "G", "Gr", "H", "J", "K", "L", "M", "N", "P", "R", "S", "St", "T", "Tr", "V", "W", "Z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u")
_MIDDLE = (
    "b", "d", "l", "ld", "ll", "m", "mm", "n", "nd", "nn", "r", "rd", "rl", "rn", "s", "sk", "st", "t", "v", "z",
)  # fmt: skip
_LAST = {"m": ("os", "ek", "ik", "im", "ul"), "f": ("ina", "ena", "ora", "ela", "ila", "ura")}


def invented_name(draw: Draw, split: Split) -> str:
    """An invented name of this split, such as "Belina" or "Dornek"."""
    while True:
        sex = draw.pick(("m", "f"))
        name = draw.pick(_FIRST) + draw.pick(_VOWELS) + draw.pick(_MIDDLE) + draw.pick(_LAST[sex])
        if (stable_hash("name", name) % _RESERVED_ONE_IN == 0) == (split == "val"):
            return name


def sex_of(name: str) -> str:
    """The sex of an invented name: "m" or "f"."""
    return "f" if name.endswith("a") else "m"
