"""Checks of the exercises in notebook 6, from base model to assistant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from understudy.losses import IGNORE


def check_chat_text(answer: Callable[..., Any]) -> None:
    """One turn, a system message, several turns, white space at the ends, and the beginning of a reply."""
    question = {"role": "user", "content": "Who found the purse?"}
    reply = {"role": "assistant", "content": "Sam found the purse."}
    system = {"role": "system", "content": "Answer briefly."}
    padded = {"role": "user", "content": "  Who is\nSam? \n"}
    for messages, begin in (
        ([question], False),
        ([question, reply], False),
        ([system, question, reply, padded], False),
        ([question], True),
        ([system, question, reply, padded], True),
    ):
        given, expected = answer([dict(message) for message in messages], begin), _chatml(messages, begin)
        assert isinstance(given, str), f"it returned {given!r}; return a string"
        assert given == expected, (
            f"for {messages} with reply={begin} it returned\n{given!r}\nand should return\n{expected!r}"
        )


def check_targets(answer: Callable[..., Any]) -> None:
    """The shift by one, nothing trained, and everything trained."""
    for tokens, mask in (
        ([5, 7, 8, 9, 6], [False, False, True, True, False]),
        ([5, 7, 8], [False, False, False]),
        ([5, 7, 8], [True, True, True]),
        ([4, 4, 4, 4, 2, 4], [False, True, False, False, True, True]),
    ):
        expected = [token if trained else IGNORE for token, trained in zip(tokens[1:], mask[1:], strict=True)]
        given = answer(list(tokens), list(mask))
        given = given.tolist() if hasattr(given, "tolist") else list(given)
        call = f"targets({tokens}, {mask})"
        assert len(given) == len(tokens) - 1, (
            f"{call} has {len(given)} targets and should have {len(tokens) - 1}: nothing comes after the last token"
        )
        assert given == expected, (
            f"{call} is {given} and should be {expected}: position i predicts token i + 1, if mask[i + 1] is true"
        )


def check_until_end(answer: Callable[..., Any]) -> None:
    """An end in the middle, none, one at the start, two kinds of ends, and tokens after the end."""
    for tokens, ends in (
        ([5, 7, 2, 9], {2}),
        ([5, 7, 9], {2}),
        ([2, 5, 7], {2}),
        ([5, 3, 7, 2], {2, 3}),
        ([5, 5, 2, 5, 2], {2}),
        ([], {2}),
    ):
        stop = next((i for i, token in enumerate(tokens) if token in ends), None)
        expected = tokens if stop is None else tokens[:stop], stop is not None
        given = answer(list(tokens), set(ends))
        call = f"until_end({tokens}, {ends})"
        assert isinstance(given, tuple) and len(given) == 2, f"{call} is {given!r}; return a pair (tokens, ended)"
        assert list(given[0]) == expected[0], f"{call} keeps {given[0]} and should keep {expected[0]}"
        assert bool(given[1]) == expected[1], f"{call} says ended={given[1]} and should say {expected[1]}"


def _chatml(messages: list[dict[str, str]], reply: bool) -> str:
    blocks = [f"<|im_start|>{m['role']}\n{m['content'].strip()}<|im_end|>\n" for m in messages]
    return "".join(blocks) + ("<|im_start|>assistant\n" if reply else "")
