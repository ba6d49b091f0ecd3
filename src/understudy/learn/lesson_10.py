"""Checks of notebook 10, looking inside: entropy of attention, the logit lens, induction scores.

Shapes: L layers, H heads, T time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def check_attention_entropy(answer: Callable[..., Any]) -> None:
    attention = torch.zeros(2, 3, 4, 4)
    attention[..., 0] = 1.0  # every head looks at token 0
    attention[1, 0] = torch.ones(4, 4).tril() / torch.arange(1.0, 5.0)[:, None]  # this one at all tokens so far
    attention[1, 2, 3] = torch.tensor([0.5, 0.0, 0.5, 0.0])
    expected = torch.zeros(2, 3)
    expected[1, 0] = sum(math.log(t) for t in range(1, 5)) / 4
    expected[1, 2] = math.log(2) / 4
    given = _tensor(answer(attention.clone()), (2, 3), "for attention of shape (2, 3, 4, 4)")
    assert not given.isnan().any(), "a weight of 0 gave nan: 0 * log(0) is nan in PyTorch, and should add 0"
    assert (given >= -1e-6).all(), f"an entropy is never negative, and yours is {given.min():.3f}; mind the minus sign"
    _equal(given, expected, "heads that look at one token have 0, and one that looks at all of T tokens has log T")


def check_settled_layer(answer: Callable[..., Any]) -> None:
    cases = [
        ([[1, 2, 3], [1, 5, 3], [1, 5, 4]], [0, 1, 2], "each place settles in its own row"),
        (
            [[7], [3], [7], [7]],
            [2],
            "a guess that is right early, then changes and comes back, settles when it is back",
        ),
        ([[4, 4]], [0, 0], "with the embedding alone, row 0 is the final one"),
        ([[2], [2], [2]], [0], "a guess that never changes has settled in row 0"),
    ]
    for rows, expected, rule in cases:
        shown = f"for the guesses {rows}"
        given = _tensor(answer(torch.tensor(rows)), (len(expected),), shown)
        assert given.tolist() == expected, f"{shown} came {given.tolist()}, and {expected} was expected: {rule}"


def check_induction_score(answer: Callable[..., Any]) -> None:
    tokens = [5, 8, 6, 5, 8]  # place 3 repeats place 0, and place 4 repeats place 1
    attention = torch.ones(5, 5).tril() / torch.arange(1.0, 6.0)[:, None]
    perfect = torch.eye(5)
    perfect[3], perfect[4] = torch.eye(5)[1], torch.eye(5)[2]
    given = _tensor(answer(torch.stack((attention, perfect))[None], tokens), (1, 2), f"for the tokens {tokens}")
    rule = "token 5 at place 3 should look at place 1, and token 8 at place 4 at place 2"
    _equal(given, torch.tensor([[(1 / 4 + 1 / 5) / 2, 1.0]]), rule)

    tokens = [3, 3, 3]
    attention = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])[None, None]
    given = _tensor(answer(attention, tokens), (1, 1), f"for the tokens {tokens}")
    rule = "place 1 follows place 0 itself (weight 0.5), and place 2 counts the places 1 and 2 (0.3 + 0.5)"
    _equal(given, torch.tensor([[0.65]]), f"of the tokens {tokens}, {rule}")

    given = _tensor(
        answer(torch.eye(3)[None, None].repeat(2, 4, 1, 1), [1, 2, 3]), (2, 4), "for tokens without repeats"
    )
    assert not given.isnan().any(), "no token occurs twice in [1, 2, 3]: the score is then 0, and yours is nan"
    _equal(given, torch.zeros(2, 4), "no token occurs twice")


def _tensor(value: Any, shape: tuple[int, ...], given: str) -> Tensor:
    assert isinstance(value, Tensor), f"return a tensor; {given} came {type(value).__name__}"
    assert tuple(value.shape) == shape, f"{given} the shape should be {shape}, and yours is {tuple(value.shape)}"
    return value


def _equal(given: Tensor, expected: Tensor, rule: str) -> None:
    assert torch.allclose(given.float(), expected, atol=1e-4), (
        f"{_rounded(expected)} was expected, and {_rounded(given)} came: {rule}"
    )


def _rounded(values: Tensor) -> list[Any]:
    return torch.round(values.double(), decimals=4).tolist()
