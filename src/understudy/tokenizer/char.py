"""Character tokenizer: one token for each character, in the order of Unicode. An unknown character is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from understudy.tokenizer.base import Tokenizer, clean, numbered

if TYPE_CHECKING:
    from understudy.tokenizer.base import Ids

UNKNOWN = 0xFFFFFFFF


class CharTokenizer(Tokenizer):
    """Ids are places in the sorted set of characters; special tokens come after.

    Raises ValueError for an alphabet that is empty, or not sorted and free of repeats.
    """

    kind = "char"
    # Anywhere but between the two halves of a character that came as a pair of surrogates.
    safe_cut = re.compile(r"[^\ud800-\udbff]")

    def __init__(self, characters: str, special_tokens: Mapping[str, int]) -> None:
        if not characters:
            raise ValueError("a character tokenizer needs at least one character, and there is none")
        if list(characters) != sorted(set(characters)) or clean(characters) != characters:
            raise ValueError("the characters of a tokenizer must be sorted and without repeats")
        super().__init__(numbered([char.encode() for char in characters], special_tokens), special_tokens)
        self.characters = characters

    def to_document(self) -> dict[str, Any]:
        return {"characters": self.characters, "special_tokens": self.special_tokens}

    def _with_special_table(self, special_tokens: dict[str, int]) -> Self:
        return type(self)(self.characters, special_tokens)

    def _encode_part(self, text: str) -> Ids:
        import numpy as np

        code_points = np.frombuffer(clean(text).encode("utf-32-le"), dtype="<u4")
        # The last row of the table is UNKNOWN, and "clip" sends everything above the table there.
        ids: Ids = self._id_of_code_point.take(code_points, mode="clip")
        if (unknown := ids == UNKNOWN).any():
            char = chr(code_points[int(unknown.argmax())])
            raise ValueError(
                f"the character {char!r} (U+{ord(char):04X}) is not among the {len(self.characters)} of this "
                "character tokenizer: take it out of the text, or train a tokenizer on text that has it"
            )
        return ids

    @cached_property
    def _id_of_code_point(self) -> Ids:
        import numpy as np

        code_points = np.array([ord(char) for char in self.characters])
        table = np.full(code_points.max() + 2, UNKNOWN, dtype=np.uint32)
        table[code_points] = np.arange(len(code_points))
        return table


def train_char(texts: Iterable[str], special_tokens: Iterable[str]) -> CharTokenizer:
    """The tokenizer of the characters of these texts, which are read once, one at a time.

    Raises ValueError when the texts are empty.
    """
    characters: set[str] = set()
    for text in texts:
        characters.update(clean(text))
    if not characters:
        raise ValueError("there is no text to take characters from: give at least one character of text")
    return CharTokenizer("".join(sorted(characters)), {}).with_special_tokens(special_tokens)
