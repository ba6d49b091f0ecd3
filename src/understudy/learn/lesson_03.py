"""Checks of the exercises of notebook 3: the whole GPT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.config.model import ModelConfig
from understudy.model import GPT


def check_layer_norm(answer: Callable[..., Any]) -> None:
    """As PyTorch computes it, with weights, biases and an eps that matters."""
    generator = torch.Generator().manual_seed(1)
    for shape, scale, eps in (((3, 8), 1.0, 1e-5), ((2, 4, 5), 10.0, 1e-5), ((6,), 1.0, 1e-5), ((2, 4), 0.01, 0.1)):
        x = 2 + scale * torch.randn(shape, generator=generator)
        width = shape[-1]
        weight, bias = torch.randn(2, width, generator=generator)
        call = f"layer_norm(x of shape {shape}, weight, bias, eps={eps})"
        given = answer(x.clone(), weight, bias, eps)
        _expect_tensor(given, shape, call)
        expected = F.layer_norm(x, (width,), weight, bias, eps)
        mean, far = x.mean(dim=-1, keepdim=True), (given - expected).abs().nan_to_num(torch.inf).max().item()
        unbiased = (x - mean) / (x.var(dim=-1, keepdim=True) + eps).sqrt() * weight + bias
        outside = (x - mean) / (x.std(dim=-1, keepdim=True, unbiased=False) + eps) * weight + bias
        for mistake, advice in (
            (unbiased, "divide the sum of squares by D, not D - 1: var has the argument unbiased=False"),
            (outside, "add eps to the variance, before the square root"),
        ):
            assert far < 1e-4 or not torch.allclose(given, mistake, atol=1e-4), f"{call}: {advice}"
        assert far < 1e-4, f"{call}: the largest difference from the right result is {far:.3f}"


def check_count_parameters(answer: Callable[..., Any]) -> None:
    """The number of the library's GPT, in sizes from one feature to GPT-2."""
    for vocab_size, context_length, n_layers, d_model in (
        (60, 64, 2, 64), (10, 3, 1, 1), (7, 5, 3, 2), (100, 16, 0, 8), (50257, 1024, 12, 768),
    ):  # fmt: skip
        call = f"count_parameters({vocab_size}, {context_length}, {n_layers}, {d_model})"
        given = answer(vocab_size, context_length, n_layers, d_model)
        assert isinstance(given, int), f"{call} must return a whole number, not {type(given).__name__}"
        config = ModelConfig(
            family="gpt2", vocab_size=vocab_size, embedding_rows=vocab_size, context_length=context_length,
            n_layers=max(n_layers, 1), n_heads=1, d_model=d_model,
        )  # fmt: skip
        with torch.device("meta"):  # shapes without numbers
            model = GPT(config)
        expected = sum(parameter.numel() for parameter in model.parameters())
        if not n_layers:
            expected -= sum(parameter.numel() for parameter in model.blocks.parameters())
        assert given != expected + vocab_size * d_model, f"{call}: the head has no parameters of its own"
        assert given == expected, f"{call} must be {expected:,}, and yours is {given:,}, which is {given - expected:+,}"


def check_windows(answer: Callable[..., Any]) -> None:
    """Windows and targets, with the last valid start and the first invalid one."""
    ids = torch.arange(100, 112)
    for starts, length in (([0, 3, 5], 4), ([7], 4), ([0], 11), ([2, 2], 1), ([10], 1)):
        call = f"windows(ids, {starts}, {length})"
        pair = answer(ids.clone(), list(starts), length)
        assert isinstance(pair, tuple) and len(pair) == 2, f"{call} must return a pair (tokens, targets)"
        for name, given, later in (("tokens", pair[0], 0), ("targets", pair[1], 1)):
            _expect_tensor(given, (len(starts), length), f"{name} of {call}")
            expected = torch.stack([ids[start + later : start + later + length] for start in starts])
            assert torch.equal(given, expected), (
                f"with the ids 100, 101, …, 111, the {name} of {call} must be {expected.tolist()}, and yours are "
                f"{given.tolist()}"
            )
    for starts, length, why in (
        ([8], 4, "its last target would be at place 12, and the last place is 11"),
        ([0, 12], 1, "place 12 does not exist"),
        ([-1], 2, "a start below 0 would count from the end"),
    ):
        try:
            answer(ids.clone(), starts, length)
        except ValueError:
            continue
        except NotImplementedError:
            raise
        except Exception as error:  # the reader's code may raise anything
            raise AssertionError(
                f"windows(ids, {starts}, {length}) must raise a ValueError, and yours raised {type(error).__name__}"
            ) from error
        raise AssertionError(f"windows(ids, {starts}, {length}) must raise a ValueError: {why}")


def check_keep_top_k(answer: Callable[..., Any]) -> None:
    """The k largest of each row, for rows of any number of axes and k up to more than there are."""
    generator = torch.Generator().manual_seed(1)
    for shape, k in (((6,), 2), ((3, 5), 1), ((2, 3, 7), 4), ((2, 4), 4), ((2, 4), 9)):
        logits = torch.randn(shape, generator=generator) - 2
        kept = logits.clone()
        call = f"keep_top_k(logits of shape {shape}, {k})"
        given = answer(logits, k)
        assert torch.equal(logits, kept), f"{call} changed the logits it was given; make a new tensor"
        _expect_tensor(given, shape, call)
        top = logits.topk(min(k, shape[-1]), dim=-1)
        expected = torch.full(shape, -torch.inf).scatter(-1, top.indices, top.values)
        count = int((given != -torch.inf).flatten(0, -2).sum(dim=-1)[0]) if given.ndim > 1 else 0
        assert torch.equal(given, expected), (
            f"{call}: of the row {_row(logits)} yours makes {_row(given)}, and it must be {_row(expected)}"
            + (f"; {count} are kept in place of {min(k, shape[-1])}" if count and count != min(k, shape[-1]) else "")
        )


def _row(x: Tensor) -> list[float]:
    """The first row, rounded."""
    return [round(value, 2) for value in x.view(-1, x.shape[-1])[0].tolist()]


def _expect_tensor(value: Any, shape: tuple[int, ...], call: str) -> None:
    assert isinstance(value, Tensor), f"{call} must return a tensor, not {type(value).__name__}"
    assert value.shape == shape, f"{call} must have shape {shape}, and yours has {tuple(value.shape)}"
