"""The checks of the exercises of notebooks 1 to 4 accept the solutions, and say what is wrong with usual mistakes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.learn.exercises import check_answers, checks_of, read_answers

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("lesson", [1, 2, 3, 4])
def test_solutions_are_right_and_a_blank_notebook_is_not(lesson: int) -> None:
    solutions = read_answers(NOTEBOOKS / "solutions" / f"{lesson:02}.py")
    assert [answer.problem for answer in check_answers(lesson, solutions)] == [None] * len(checks_of(lesson))
    [notebook] = NOTEBOOKS.glob(f"{lesson:02}_*.ipynb")
    for answer in check_answers(lesson, read_answers(notebook)):
        assert answer.problem is not None and "NotImplementedError" in answer.problem


def zero_counts(ids: list[int], size: int) -> Tensor:
    return torch.zeros(size, size, size)


def smooth_without_empty_rows(counts: Tensor, amount: float) -> Tensor:
    return (counts + amount) / (counts + amount).sum(dim=1, keepdim=True)


def sample_likeliest(probs: Tensor, start: int, length: int, temperature: float, seed: int) -> list[int]:
    ids = [start]
    for _ in range(length):
        ids.append(int(probs[ids[-1]].argmax()))
    return ids[1:]


def heads_without_transpose(x: Tensor, heads: int) -> Tensor:
    return x.view(len(x), heads, x.shape[1], -1)


def causal_weights(scores: Tensor, window: int) -> Tensor:
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    each = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(
        q, k.repeat_interleave(each, dim=1), v.repeat_interleave(each, dim=1), **{"is_causal": True} | options
    )


def attend_to_repeated_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    each = q.shape[1] // k.shape[1]
    return attend(q, k.repeat(1, each, 1, 1), v.repeat(1, each, 1, 1))


def norm_with_unbiased_variance(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt() * weight + bias


def count_with_head(vocab_size: int, context_length: int, n_layers: int, d_model: int) -> int:
    return (2 * vocab_size + context_length + 12 * n_layers * d_model + 13 * n_layers + 2) * d_model


def windows_without_error(ids: Tensor, starts: list[int], length: int) -> tuple[Tensor, Tensor]:
    rows = [ids[start : start + length + 1] for start in starts]
    return torch.stack([row[:length] for row in rows]), torch.stack([row[1:] for row in rows])


def zero_below_top_k(logits: Tensor, k: int) -> Tensor:
    return logits * (logits >= logits.topk(min(k, logits.shape[-1])).values[..., -1:])


def merge_in_order_of_the_dict(ids: list[int], merges: dict[tuple[int, int], int]) -> list[int]:
    for pair, new_id in merges.items():
        merged: list[int] = []
        for token in ids:
            if merged and (merged[-1], token) == pair:
                merged[-1] = new_id
            else:
                merged.append(token)
        ids = merged
    return ids


def decode_each(pieces: list[bytes]) -> list[str]:
    return [*(piece.decode(errors="replace") for piece in pieces), ""]


@pytest.mark.parametrize(("lesson", "name", "wrong", "advice"), [
    (1, "count_triples", zero_counts, "entry"),
    (1, "smooth", smooth_without_empty_rows, "with amount 0"),
    (1, "surprises", lambda p, ids: torch.stack([-p[a, b].log2() for a, b in pairwise(ids)]), "natural logarithm"),
    (1, "sample_at_temperature", sample_likeliest, "another seed"),
    (1, "sample_at_temperature", lambda p, start, n, t, seed: [start, *range(n)], "the start is not one of them"),
    (2, "split_heads", heads_without_transpose, "mixes features"),
    (2, "window_weights", causal_weights, "2 or more places back"),
    (2, "window_weights", lambda scores, window: scores.fill_(0), "changed the scores"),
    (2, "grouped_attention", attend_to_repeated_heads, "neighbouring query heads"),
    (2, "grouped_attention", lambda q, k, v: attend(q, k, v, is_causal=False), "later tokens"),
    (2, "grouped_attention", lambda q, k, v: attend(q, k, v, scale=1.0), "square root of K"),
    (3, "layer_norm", norm_with_unbiased_variance, "D - 1"),
    (3, "count_parameters", count_with_head, "the head has no parameters"),
    (3, "windows", windows_without_error, "must raise a ValueError"),
    (3, "keep_top_k", zero_below_top_k, "must be"),
    (4, "encode_by_rank", merge_in_order_of_the_dict, "learned first"),
    (4, "greedy_encode", lambda text, vocabulary: [vocabulary[bytes([byte])] for byte in text], "longest token"),
    (4, "encode_with_special", lambda text, special, encode: encode(text), "must be"),
    (4, "stream_texts", decode_each, "must give"),
])  # fmt: skip
def test_mistakes_are_named(lesson: int, name: str, wrong: Callable[..., Any], advice: str) -> None:
    [problem] = [answer.problem for answer in check_answers(lesson, {name: wrong}) if answer.name == name]
    assert problem is not None and advice in problem
