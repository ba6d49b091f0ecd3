"""Checks of the exercises of notebook 4: byte-pair encoding."""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Pair = tuple[int, int]


def check_encode_by_rank(answer: Callable[..., Any]) -> None:
    """The merge that was learned first goes first, all its places at once, as long as there is one."""
    for ids, merges, about in (
        ([1, 2, 3], {(1, 2): 256, (2, 3): 257}, "the pair that was learned first is merged first"),
        ([1, 2, 3], {(1, 2): 257, (2, 3): 256}, "the pair that was learned first may stand further right"),
        ([1, 2, 3], {(2, 3): 257, (1, 2): 256}, "merges may come in any order; the smaller new id was learned first"),
        ([7, 7, 7], {(7, 7): 256}, "pairs that overlap are merged from the left"),
        ([7, 7, 7, 7, 7], {(7, 7): 256, (256, 256): 257}, "a new token can be merged again"),
        ([1, 2, 1, 2, 1, 3], {(1, 2): 256, (256, 256): 257}, "all places are merged"),
        ([4, 5], {(1, 2): 256}, "no pair of the word is in merges"),
        ([9], {(1, 2): 256}, "one token has no pair"), ([], {(1, 2): 256}, "an empty word"),
    ):  # fmt: skip
        _check_merged(answer, ids, merges, about)
    draw = random.Random(1)
    for _ in range(40):
        merges = {}
        for new_id in range(256, 262):
            known = [0, 1, 2, *range(256, new_id)]
            merges.setdefault((draw.choice(known), draw.choice(known)), new_id)
        _check_merged(answer, [draw.randrange(3) for _ in range(draw.randrange(2, 12))], merges, "a random word")


def check_greedy_encode(answer: Callable[..., Any]) -> None:
    """The longest token at each place, or a ValueError where none fits."""
    vocabulary = {b"t": 0, b"the": 1, b"th": 2, b"h": 3, b"e": 4, b"hen": 5, b"n": 6, "é".encode(): 7}
    for text, expected in (
        (b"then", [1, 6]), (b"then the", None), (b"hent", [5, 0]), (b"", []), (b"tthth", [0, 2, 2]),
        ("hé".encode(), [3, 7]), ("é".encode()[:1], None), (b"hex", None),
    ):  # fmt: skip
        call = f"greedy_encode({text!r}, vocabulary)"
        try:
            given = answer(text, dict(vocabulary))
        except ValueError as error:
            assert expected is None, f"{call} must be {expected}, and yours raised a ValueError: {error}"
            continue
        assert expected is not None, f"{call} must raise a ValueError, since no token fits; yours returned {given}"
        assert given == expected, f"{call} must be {expected}, with the longest token at each place; yours is {given}"


def check_encode_with_special(answer: Callable[..., Any]) -> None:
    """Names at the start, at the end, side by side, inside one another, and with signs of regular expressions."""
    special = {"<|end|>": 300, "<|user|>": 301, "<|end|>!": 302, "(.*)": 303}

    def encode(text: str) -> list[int]:
        return [ord(character) for character in text]

    for text, expected in (
        ("ab", [97, 98]), ("a<|end|>b", [97, 300, 98]), ("<|user|>a<|end|>", [301, 97, 300]),
        ("<|end|><|user|>", [300, 301]), ("", []), ("a<|end|>!", [97, 302]), ("<|end|", encode("<|end|")),
        ("a(.*)b", [97, 303, 98]), ("(..)", encode("(..)")),
    ):  # fmt: skip
        given = answer(text, dict(special), encode)
        assert given == expected, (
            f"with the special tokens {special}, {text!r} must be {expected}, and yours is {given}"
        )
    given = answer("<|end|>", {}, encode)
    assert given == encode("<|end|>"), f"without special tokens '<|end|>' is plain text, and yours is {given}"
    called: list[str] = []

    def recorded(text: str) -> list[int]:
        called.append(text)
        return encode(text)

    answer("to be<|end|>or not", special, recorded)
    stretches = [text for text in called if text]
    assert stretches == ["to be", "or not"], (
        f"encode must get each stretch of text whole, ['to be', 'or not'], and yours gave it {stretches}"
    )


def check_stream_texts(answer: Callable[..., Any]) -> None:
    """Characters of two to four bytes, cut at every place; bytes that are no text; an end inside a character."""
    smile = "🙂".encode()
    for pieces in (
        [b"to", b" be"], ["é".encode()[:1], "é".encode()[1:]], [b"a" + smile[:1], smile[1:3], smile[3:] + b"!"],
        [smile[:2]], [], [b"", b"x"], [b"a" + smile[:2], b"b"], ["né".encode(), smile], [b"\xff", b"a"],
    ):  # fmt: skip
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        expected = [*(decoder.decode(piece) for piece in pieces), decoder.decode(b"", final=True)]
        given = answer(list(pieces))
        assert isinstance(given, list) and len(given) == len(pieces) + 1, (
            f"{len(pieces)} pieces must give a list of {len(pieces) + 1} strings, and yours is {given!r}"
        )
        assert given == expected, f"the pieces {pieces} must give {expected}, and yours are {given}"


def _check_merged(answer: Callable[..., Any], ids: list[int], merges: Mapping[Pair, int], about: str) -> None:
    kept = list(ids)
    given = answer(ids, dict(merges))
    assert ids == kept, "encode_by_rank changed the list it was given; make a new one"
    expected = _merged(ids, merges)
    assert given == expected, f"{about}: {kept} with the merges {dict(merges)} must be {expected}, and yours is {given}"


def _merged(ids: Sequence[int], merges: Mapping[Pair, int]) -> list[int]:
    """All merges in the order of their ids, each at all of its places."""
    word = list(ids)
    while found := [merges[pair] for pair in pairwise(word) if pair in merges]:
        new_id, merged = min(found), list[int]()
        for token in word:  # the pair can end only at this token
            if merged and merges.get((merged[-1], token)) == new_id:
                merged[-1] = new_id
            else:
                merged.append(token)
        word = merged
    return word
