"""Checks of the exercises of notebook 2: attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def check_split_heads(answer: Callable[..., Any]) -> None:
    """Features divided among heads, with time after the heads."""
    for batch, length, width, heads in ((1, 2, 4, 2), (2, 3, 12, 3), (3, 5, 8, 1), (2, 4, 6, 6)):
        x = torch.arange(batch * length * width).float().view(batch, length, width)
        given = answer(x.clone(), heads)
        call = f"split_heads(x of shape {tuple(x.shape)}, {heads})"
        expected = torch.stack(x.split(width // heads, dim=-1), dim=1)
        _expect_tensor(given, tuple(expected.shape), call)
        assert not (torch.equal(given, x.view(expected.shape)) and not torch.equal(given, expected)), (
            f"{call} mixes features of different tokens: divide the features first, then move the heads before the time"
        )
        assert torch.equal(given, expected), (
            f"{call}: head 0 of token 0 must hold the features {expected[0, 0, 0].tolist()}, head {heads - 1} of token 0 "
            f"{expected[0, -1, 0].tolist()}; yours are {given[0, 0, 0].tolist()} and {given[0, -1, 0].tolist()}"
        )


def check_window_weights(answer: Callable[..., Any]) -> None:
    """Weights of the last few tokens, for windows from one token to more than there are."""
    generator = torch.Generator().manual_seed(1)
    for shape, window in (((5, 5), 2), ((5, 5), 1), ((2, 3, 6, 6), 3), ((4, 4), 4), ((4, 4), 9), ((1, 1), 1)):
        scores = 5 * torch.randn(shape, generator=generator)
        kept = scores.clone()
        weights = answer(scores, window)
        call = f"window_weights(scores of shape {shape}, {window})"
        assert torch.equal(scores, kept), f"{call} changed the scores; use masked_fill, which makes a new tensor"
        _expect_tensor(weights, shape, call)
        assert not weights.isnan().any(), f"{call} has entries that are not a number: each token must see itself"
        length = shape[-1]
        ages = torch.arange(length)[:, None] - torch.arange(length)  # how far back a column is from a row
        for hidden, name in ((ages < 0, "later tokens"), (ages >= window, f"tokens {window} or more places back")):
            assert not weights[..., hidden].any(), f"{call} gives weight to {name}"
        sums = weights.sum(dim=-1)
        assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5), (
            f"{call}: rows must sum to 1, and one of yours sums to {sums.flatten()[(sums - 1).abs().argmax()].item():.3f}"
        )
        expected = scores.masked_fill((ages < 0) | (ages >= window), -torch.inf).softmax(dim=-1)
        _expect_close(weights, expected, call)


def check_grouped_attention(answer: Callable[..., Any]) -> None:
    """As PyTorch computes it: every ratio of heads, and head widths that are no square."""
    for heads, groups, length, width in ((2, 2, 4, 4), (4, 2, 5, 3), (6, 2, 3, 8), (4, 1, 6, 5), (2, 1, 1, 4)):
        generator = torch.Generator().manual_seed(heads)
        q = torch.randn(2, heads, length, width, generator=generator)
        k, v = torch.randn(2, 2, groups, length, width, generator=generator)
        given = answer(q, k, v)
        call = f"grouped_attention with {heads} query heads and {groups} key heads"
        _expect_tensor(given, tuple(q.shape), call)

        def attend(k: Tensor, v: Tensor, causal: bool = True, scale: float | None = None, q: Tensor = q) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

        each = heads // groups
        k_of_each, v_of_each = k.repeat_interleave(each, dim=1), v.repeat_interleave(each, dim=1)
        expected = attend(k_of_each, v_of_each)
        for mistake, advice in (
            (attend(k.repeat(1, each, 1, 1), v.repeat(1, each, 1, 1)), "neighbouring query heads share a key head"),
            (attend(k_of_each, v_of_each, causal=False), "later tokens must have no weight"),
            (attend(k_of_each, v_of_each, scale=1.0), "divide the scores by the square root of K"),
        ):
            assert not _close(given, mistake) or _close(given, expected), f"{call}: {advice}"
        _expect_close(given, expected, call)


def _expect_tensor(value: Any, shape: tuple[int, ...], call: str) -> None:
    assert isinstance(value, Tensor), f"{call} must return a tensor, not {type(value).__name__}"
    assert value.shape == shape, f"{call} must have shape {shape}, and yours has {tuple(value.shape)}"


def _close(value: Tensor, expected: Tensor) -> bool:
    return torch.allclose(value, expected, atol=1e-5)


def _expect_close(value: Tensor, expected: Tensor, call: str) -> None:
    far = (value - expected).abs().nan_to_num(torch.inf)
    assert far.max() < 1e-4, f"{call}: the largest difference from the right result is {far.max().item():.3f}"
