"""The losses of preferences and reinforcement, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from understudy.losses import (
    clipped_ratio_sum,
    clipped_value_sum,
    dpo_loss,
    entropy,
    generalised_advantages,
    group_advantages,
    ipo_loss,
    kl_estimate,
    pair_loss,
    token_logprobs,
    vocabulary_logprobs,
    whiten,
)

LOG2 = math.log(2)


def test_pair_losses_are_log_2_at_equal_scores_and_less_in_the_right_order() -> None:
    assert pair_loss(torch.zeros(3), torch.zeros(3)).sum().item() == pytest.approx(3 * LOG2)
    # -log sigmoid(1) = log(1 + e^-1)
    assert pair_loss(torch.tensor([2.0]), torch.tensor([1.0])).item() == pytest.approx(math.log1p(math.exp(-1)))
    # the margin takes the lead away again, and centring adds 0.1 (2 + 1)^2
    with_margin = pair_loss(torch.tensor([2.0]), torch.tensor([1.0]), margin=torch.tensor([1.0]), centring=0.1)
    assert with_margin.item() == pytest.approx(LOG2 + 0.9)


def test_dpo_by_hand() -> None:
    assert dpo_loss(torch.zeros(2), torch.zeros(2), beta=0.3).sum().item() == pytest.approx(2 * LOG2)
    chosen, rejected = torch.tensor([1.5]), torch.tensor([-0.5])  # beta times the difference is 1
    good, bad = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert dpo_loss(chosen, rejected, beta=0.5).item() == pytest.approx(good)
    assert dpo_loss(chosen, rejected, beta=0.5, label_smoothing=0.1).item() == pytest.approx(0.9 * good + 0.1 * bad)


def test_ipo_wants_a_difference_of_its_own_size() -> None:
    assert ipo_loss(torch.tensor([3.0]), torch.tensor([-2.0]), beta=0.1).item() == 0
    assert ipo_loss(torch.tensor([3.0]), torch.tensor([0.0]), beta=0.1).item() == pytest.approx(4)


def test_log_probabilities_and_entropy_are_those_of_the_distribution_sampled_from() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])  # 1/4 and 3/4; at temperature 1/2, 1/10 and 9/10
    assert token_logprobs(logits, torch.tensor([1])).item() == pytest.approx(math.log(3 / 4))
    assert token_logprobs(logits, torch.tensor([1]), temperature=0.5).item() == pytest.approx(math.log(9 / 10))
    assert entropy(vocabulary_logprobs(logits)).item() == pytest.approx(-(math.log(1 / 4) + 3 * math.log(3 / 4)) / 4)


def test_kl_estimators_by_hand_and_in_the_mean() -> None:
    policy, reference = torch.tensor([0.2, 0.8]).log(), torch.tensor([0.5, 0.5]).log()
    exact = (policy.exp() * (policy - reference)).sum()
    means = {kind: (policy.exp() * kl_estimate(policy, reference, kind)).sum() for kind in ("k1", "k2", "k3")}
    assert means["k1"].item() == pytest.approx(exact.item()) and means["k3"].item() == pytest.approx(exact.item())
    assert means["k2"].item() != pytest.approx(exact.item()) and (kl_estimate(policy, reference, "k2") > 0).all()
    # 0.5 / 0.2 - 1 - log(0.5 / 0.2)
    assert kl_estimate(policy, reference, "k3")[0].item() == pytest.approx(1.5 - math.log(2.5))
    assert kl_estimate(policy, reference)[0].item() == pytest.approx(math.log(0.2 / 0.5))


def test_advantages_by_hand() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.6]])
    advantages, returns = generalised_advantages(rewards, values, torch.ones(1, 3), gamma=0.9, lam=0.5)
    # deltas: 0.9 0.4 - 0.5 = -0.14; 0.9 0.6 - 0.4 = 0.14; 1 - 0.6 = 0.4; each takes 0.45 of the next advantage
    last = 0.4
    middle = 0.14 + 0.45 * last
    first = -0.14 + 0.45 * middle
    torch.testing.assert_close(advantages, torch.tensor([[first, middle, last]]))
    torch.testing.assert_close(returns, advantages + values)


def test_padding_changes_no_advantage() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 1, 4, generator=generator)
    alone = generalised_advantages(rewards, values, torch.ones(1, 4), 0.95, 0.9)
    noise = torch.full((1, 3), 99.0)
    mask = torch.cat((torch.ones(1, 4), torch.zeros(1, 3)), 1)
    padded = generalised_advantages(torch.cat((rewards, noise), 1), torch.cat((values, noise), 1), mask, 0.95, 0.9)
    for one, two in zip(alone, padded):
        torch.testing.assert_close(one, two[:, :4])
        assert (two[:, 4:] == 0).all()


def test_with_lambda_1_the_return_is_the_sum_of_later_rewards() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    _, returns = generalised_advantages(rewards, torch.randn(1, 3), torch.ones(1, 3), gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[6.0, 5.0, 3.0]]))


def test_groups_by_hand() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    plain = group_advantages(rewards, 4, divide=False)
    torch.testing.assert_close(plain, torch.tensor([0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0]))
    divided = group_advantages(rewards, 4)  # the standard deviation of 1, 0, 0, 0 is 0.5
    torch.testing.assert_close(divided, plain / 0.5001, atol=1e-5, rtol=1e-4)
    others = group_advantages(rewards, 4, divide=False, leave_one_out=True)  # 1 against 0, and 0 against a third
    torch.testing.assert_close(others[:4], torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 99))
@example(1, 2, 56)
def test_whitened_values_have_mean_0_and_variance_1_over_the_mask(rows: int, length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, length, generator=generator) * 3 + 5
    mask = torch.rand(rows, length, generator=generator) < 0.7
    mask[0, :2] = True
    white = whiten(values, mask, lambda total: total)
    torch.testing.assert_close(white[mask].mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    variance = values[mask].double().var()
    expected = variance / (variance + 1e-8)  # values that are all but equal are not blown up
    torch.testing.assert_close(white[mask].double().var(), expected, atol=1e-3, rtol=0)
    assert (white[~mask] == 0).all()


def test_two_processes_whiten_as_one() -> None:
    values, mask = torch.randn(4, 5), torch.ones(4, 5)
    halves = (values[:2], values[2:])
    sums = [
        torch.stack((torch.tensor(20.0), values.sum())),
        (values - values.mean()).square().sum(),
    ]

    def all_sum_of_both() -> object:
        answers = iter(sums)
        return lambda part: next(answers)

    parts = [whiten(half, mask[:2], all_sum_of_both()) for half in halves]  # type: ignore[arg-type]
    torch.testing.assert_close(torch.cat(parts), whiten(values, mask, lambda total: total))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, 0),
        (1.5, 2.0, -2.6, 1),  # held at 1.3
        (0.5, 2.0, -1.0, 0),  # a good token made less likely is never let off
        (0.5, -2.0, 1.6, 1),  # held at 0.8
        (1.5, -2.0, 3.0, 0),
    ],
)
def test_the_clipped_ratio_by_hand(ratio: float, advantage: float, loss: float, clipped: int) -> None:
    old = torch.tensor([-1.0])
    got, count = clipped_ratio_sum(old + math.log(ratio), old, torch.tensor([advantage]), 0.2, 0.3)
    assert got.item() == pytest.approx(loss) and count.item() == clipped


def test_clipped_values_by_hand() -> None:
    values, old, returns = torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([2.5])
    assert clipped_value_sum(values, old, returns, clip=0).item() == pytest.approx(0.125)
    assert clipped_value_sum(values, old, returns, clip=0.2).item() == pytest.approx(1.3**2 / 2)
