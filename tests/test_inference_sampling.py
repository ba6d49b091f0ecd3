"""The distribution that is sampled from, by hand and by its properties, and the drawing from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.inference import sampling
from understudy.inference.sampling import (
    SamplingSettings,
    draw_uniforms,
    next_token_logprobs,
    row_generators,
    sample,
    seen_tokens,
)

ALMOST_ONE = math.nextafter(1.0, 0.0)


def distribution(probabilities: list[float], **how: Any) -> list[float]:
    """The distribution sampled from, given the model's ``probabilities``."""
    logits = torch.tensor([probabilities]).log() + 3.0  # logits are log-probabilities plus any constant
    return next_token_logprobs(logits, SamplingSettings(**how)).exp()[0].tolist()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),  # squares
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"temperature": 0, "top_k": 3, "top_p": 0.9, "min_p": 0.1}, [1, 0, 0, 0]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 9}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_p": 0.39}, [1, 0, 0, 0]),
        ({"top_p": 0.41}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.71}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_p": 1.0}, [0.4, 0.3, 0.2, 0.1]),
        ({"min_p": 0.49}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"min_p": 0.51}, [4 / 7, 3 / 7, 0, 0]),
        ({"min_p": 0.0}, [0.4, 0.3, 0.2, 0.1]),
        # top-p looks at what temperature and top-k left: 16/30 and 4/7 are more than half, 4/10 is not
        ({"temperature": 0.5, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_p": 0.5}, [4 / 7, 3 / 7, 0, 0]),
        # min-p looks at what temperature made of it: 9/16 is less than 0.6, 3/4 is not
        ({"temperature": 0.5, "min_p": 0.6}, [1, 0, 0, 0]),
        ({"min_p": 0.6}, [4 / 7, 3 / 7, 0, 0]),
    ],
)
def test_distribution_by_hand(how: dict[str, Any], expected: list[float]) -> None:
    assert distribution([0.4, 0.3, 0.2, 0.1], **how) == pytest.approx(expected, abs=1e-6)


def test_equal_tokens() -> None:
    all_are_second = [0.2, 0.4, 0.2, 0.2]
    assert distribution(all_are_second, top_k=2) == pytest.approx(all_are_second)
    assert distribution([0.2, 0.3, 0.3, 0.2], temperature=0) == [0, 1, 0, 0]
    assert distribution([0.25, 0.25, 0.25, 0.25], top_p=0.1) == pytest.approx([0.25] * 4)
    assert distribution([0.2, 0.4, 0.2, 0.2], top_p=0.3) == pytest.approx([0, 1, 0, 0])


def test_repetition_penalty_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 1.0, 0.5]])
    seen = seen_tokens([[0, 1, 1]], logits)
    assert seen.tolist() == [[True, True, False, False]]
    how = SamplingSettings(repetition_penalty=4.0, temperature=0.5)
    expected = (torch.tensor([[0.5, -4.0, 1.0, 0.5]]) / 0.5).log_softmax(-1)
    torch.testing.assert_close(next_token_logprobs(logits, how, seen), expected)
    greedy = SamplingSettings(repetition_penalty=4.0, temperature=0)
    assert next_token_logprobs(logits, greedy, seen).argmax() == 2


@pytest.mark.parametrize("temperature", [1e-300, 1e-12, 1e12])
def test_extreme_temperatures(temperature: float) -> None:
    logprobs = next_token_logprobs(torch.tensor([[1e4, -1e4, 3.0]]), SamplingSettings(temperature))
    expected = [1, 0, 0] if temperature < 1 else [1 / 3] * 3
    assert logprobs.exp()[0].tolist() == pytest.approx(expected)


def test_broken_logits_stay_visible() -> None:
    for bad in (math.nan, math.inf):
        for temperature in (0.0, 0.7, 1.0):
            logprobs = next_token_logprobs(torch.tensor([[0.0, bad, 1.0]]), SamplingSettings(temperature))
            chosen = sample(logprobs, torch.tensor([0.5]))
            assert not math.isfinite(logprobs[0, chosen].item())


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": 1.0}, "min_p is 1.0"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range(how: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SamplingSettings(**how)


logit_lists = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12)
how_to_sample = st.builds(
    SamplingSettings,
    temperature=st.floats(0.05, 5),
    top_k=st.none() | st.integers(1, 15),
    top_p=st.none() | st.floats(0.01, 1),
    min_p=st.none() | st.floats(0, 0.99),
)
uniforms = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, ALMOST_ONE])


@settings(max_examples=200, deadline=None)
@given(logit_lists, how_to_sample, uniforms)
def test_a_truncated_distribution(row: list[float], how: SamplingSettings, uniform: float) -> None:
    logits = torch.tensor([row])
    logprobs = next_token_logprobs(logits, how)[0]
    possible = logprobs > -math.inf
    untruncated = (logits[0] / how.temperature).log_softmax(-1)
    assert logprobs.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert possible[logits[0].argmax()]
    # possible tokens keep their proportions, and nothing cut is likelier than anything kept
    gained = (logprobs - untruncated)[possible]
    assert (gained.max() - gained.min()).item() < 1e-3
    if not possible.all():
        assert untruncated[~possible].max() <= untruncated[possible].min()
    assert possible[sample(logprobs[None], torch.tensor([uniform], dtype=torch.float64))[0]]


@settings(max_examples=100, deadline=None)
@given(logit_lists, st.floats(0.01, 0.99))
def test_a_nucleus_is_the_smallest_that_suffices(row: list[float], p: float) -> None:
    logits = torch.tensor([row])
    possible = next_token_logprobs(logits, SamplingSettings(top_p=p))[0] > -math.inf
    probabilities = logits[0].softmax(-1)[possible]
    assert probabilities.sum().item() >= p - 1e-5
    assert probabilities[probabilities > probabilities.min()].sum().item() < p + 1e-5


def test_draws_follow_the_distribution() -> None:
    """Evenly spaced numbers draw each token in exact proportion, in the order of ids."""
    probabilities = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.125, 0.125, 0.0])
    numbers = (torch.arange(800, dtype=torch.float64) + 0.5) / 800
    drawn = sample(probabilities.log().expand(800, 7), numbers)
    assert torch.bincount(drawn, minlength=7).tolist() == [0, 200, 0, 400, 100, 100, 0]
    assert (drawn.diff() >= 0).all()


def test_the_token_exceeds_the_number() -> None:
    half_and_half = torch.zeros(2, 2)  # weights of 1 each, which are shares of a half
    assert sample(half_and_half, torch.tensor([math.nextafter(0.5, 0), 0.5], dtype=torch.float64)).tolist() == [0, 1]


def test_sums_that_dip_by_a_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's may: an impossible token whose sum lies above its neighbours' is passed over."""
    monkeypatch.setattr(sampling, "cumulate", lambda probabilities: torch.tensor([[0.5, 0.52, 0.5, 0.99, 0.98]]))
    logprobs = torch.tensor([[0.5, 0.0, 0.0, 0.5, 0.0]]).log()
    assert [int(sample(logprobs, torch.tensor([u]))) for u in (0.1, 0.51, 0.6, 0.999)] == [0, 3, 3, 3]


def test_impossible_tokens_are_never_drawn() -> None:
    """Not at the ends of a large vocabulary either, where cumulative sums round."""
    size = 50_257
    logits = torch.randn(4, size, generator=torch.Generator().manual_seed(0))
    logits[:, :100] = logits[:, -100:] = -math.inf
    logprobs = logits.log_softmax(-1)
    for uniform in (0.0, 5e-324, 0.5, ALMOST_ONE, 1.0):
        drawn = sample(logprobs, torch.full((4,), uniform, dtype=torch.float64))
        assert ((drawn >= 100) & (drawn < size - 100)).all()


def test_rare_tokens_are_drawn() -> None:
    """A tail that fp32 sums would swallow: its share of [0, 1) is found where it lies."""
    logprobs = torch.full((1, 50_001), math.log(1e-9))
    logprobs[0, 0] = math.log(1 - 5e-5)
    drawn = sample(logprobs, torch.tensor([1 - 2.5e-5], dtype=torch.float64))
    assert drawn.item() == pytest.approx(25_000, abs=100)


def test_a_row_draws_for_itself() -> None:
    logprobs = torch.randn(5, 9, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    numbers = draw_uniforms(row_generators(7, range(5)))
    together = sample(logprobs, numbers)
    for row in range(5):
        assert sample(logprobs[row : row + 1], numbers[row : row + 1]).item() == together[row]


def test_generators_depend_on_seed_and_row_only() -> None:
    few, many = row_generators(3, range(2)), row_generators(3, range(10))
    np.testing.assert_array_equal([g.random(5) for g in few], [g.random(5) for g in many[:2]])
    first = [draw_uniforms(row_generators(seed, range(3))).tolist() for seed in (3, 4, None, None)]
    assert len({number for numbers in first for number in numbers}) == 12
