"""Losses as pure functions: tensors in, sums out. What a sum is divided by is the caller's, who alone knows
the global count of tokens. Not here: models, batches, averages.

Shapes: B batch, T time, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE = -100
"""A target that is not trained on."""
PADDING = -1
"""The document of tokens that only fill a row."""


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood in nats of ``targets`` (B, T) under ``logits`` (B, T, V), as a scalar in
    fp32. Targets equal to :data:`IGNORE` add nothing.

    >>> cross_entropy_sum(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE]]))  # log 4
    tensor(1.3863)
    """
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def chunked_cross_entropy_sum(
    hidden: Tensor, targets: Tensor, to_logits: Callable[[Tensor], Tensor], chunk_tokens: int
) -> Tensor:
    """The same sum from ``hidden`` (B, T, D), making logits for ``chunk_tokens`` tokens at a time.

    Each chunk's logits are dropped after the forward and made again in the backward pass, so that at most
    (chunk_tokens, V) of them exist.
    """
    flat, flat_targets = hidden.flatten(0, 1), targets.flatten()

    def one(hidden_chunk: Tensor, target_chunk: Tensor) -> Tensor:
        return cross_entropy_sum(to_logits(hidden_chunk[None]), target_chunk[None])

    total = flat.new_zeros((), dtype=torch.float32)
    for start in range(0, len(flat_targets), chunk_tokens):
        part = slice(start, start + chunk_tokens)
        total = total + checkpoint(one, flat[part], flat_targets[part], use_reentrant=False)
    return total


# ---- preferences ------------------------------------------------------------------------------------------
# P pairs of answers to the same prompt.


def pair_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, centring: float = 0.0) -> Tensor:
    """Bradley-Terry loss (P,) of scores (P,): ``-log sigmoid(chosen - rejected - margin)``.

    ``centring`` times the square of the pair's sum is added, which holds the scores near zero (Eisenstein et al. 2023,
    section 4). Source: Ouyang et al. 2022, equation 1.

    >>> pair_loss(torch.zeros(2), torch.zeros(2))  # log 2
    tensor([0.6931, 0.6931])
    """
    chosen, rejected = chosen.float(), rejected.float()
    return -F.logsigmoid(chosen - rejected - margin) + centring * (chosen + rejected).square()


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO loss (P,) of log-ratios (P,), each the log-probability of an answer under the policy less that under the
    reference (Rafailov et al. 2023, equation 7).

    ``label_smoothing`` is the share of pairs taken to be the wrong way round (Mitchell 2023, conservative DPO). With
    means over the tokens instead of sums, the loss is the length-normalised one.

    >>> dpo_loss(torch.zeros(1), torch.zeros(1), beta=0.1)  # log 2
    tensor([0.6931])
    """
    preferred = beta * (chosen.float() - rejected.float())
    return -((1 - label_smoothing) * F.logsigmoid(preferred) + label_smoothing * F.logsigmoid(-preferred))


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """IPO loss (P,) of log-ratios (P,), means over each answer's tokens: the squared distance of their difference
    from 1 / (2 beta) (Azar et al. 2023, equation 17; the mean over tokens as the authors advise)."""
    return (chosen.float() - rejected.float() - 1 / (2 * beta)).square()


# ---- reinforcement ----------------------------------------------------------------------------------------
# B answers of up to T tokens, padded on the right; masks (B, T) are true on an answer's tokens.


def vocabulary_logprobs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (..., V) in nats of every token under ``logits`` (..., V) at a temperature, in fp32."""
    return (logits if temperature == 1 else logits.float() / temperature).log_softmax(-1, dtype=torch.float32)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (...) in nats of ``tokens`` (...) under ``logits`` (..., V) at a temperature, in fp32."""
    return vocabulary_logprobs(logits, temperature).gather(-1, tokens[..., None])[..., 0]


def entropy(logprobs: Tensor) -> Tensor:
    """Entropy (...) in nats of distributions, given as the log-probabilities (..., V) of all that can be."""
    return -(logprobs.exp() * logprobs).sum(-1)


def kl_estimate(logprobs: Tensor, reference: Tensor, kind: str = "k1") -> Tensor:
    """For tokens drawn from the policy, an estimate of each one's KL divergence from the reference (Schulman 2020).

    ``k1`` is unbiased and may be negative; ``k2`` is biased and never negative; ``k3`` is both unbiased and never
    negative.
    """
    ratio = reference.float() - logprobs.float()
    if kind == "k1":
        return -ratio
    if kind == "k2":
        return ratio.square() / 2
    assert kind == "k3", f"kl estimator {kind!r}"
    return ratio.exp() - 1 - ratio


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T) from rewards and values (B, T); zero outside the mask.

    Nothing comes after an answer's last token. Source: Schulman et al. 2016, equations 11 to 16; the return is the
    advantage plus the value.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    after = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(after)
    for t in range(rewards.shape[1] - 1, -1, -1):
        after = (rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * after) * mask[:, t]
        next_value = values[:, t]
        advantages[:, t] = after
    return advantages, advantages + values


def group_advantages(rewards: Tensor, group_size: int, divide: bool = True, leave_one_out: bool = False) -> Tensor:
    """Advantages (N,) of answers whose neighbours, ``group_size`` at a time, answer the same prompt.

    The baseline is the group's mean (Shao et al. 2024, GRPO), or with ``leave_one_out`` that of the others (Ahmadian et
    al. 2024, RLOO); ``divide`` by the group's standard deviation, or not (Liu et al. 2025, Dr. GRPO). A group whose
    rewards are all the same teaches nothing: its advantages are zero.
    """
    groups = rewards.float().view(-1, group_size)
    advantages = groups - groups.mean(1, keepdim=True)
    if leave_one_out:
        advantages = advantages * (group_size / (group_size - 1))
    if divide:
        spread = groups.std(1, keepdim=True)
        advantages = torch.where(spread > 1e-8, advantages / (spread + 1e-4), 0.0)
    return advantages.flatten()


def whiten(values: Tensor, mask: Tensor, all_sum: Callable[[Tensor], Tensor], centre: bool = True) -> Tensor:
    """Values (B, T) scaled to variance 1 over the mask of all processes, and to mean 0 unless ``centre`` is off."""
    mask = mask.to(values.dtype)
    count, total = all_sum(torch.stack((mask.sum(), (values * mask).sum())))
    mean = total / count
    variance = all_sum(((values - mean).square() * mask).sum()) / (count - 1).clamp(min=1)
    scaled = (values - mean) / (variance + 1e-8).sqrt()
    return (scaled if centre else scaled + mean) * mask


def clipped_ratio_sum(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Summed PPO loss of answers (B, T), and of how many tokens the clipping decides.

    The ratio of the policy to the one that sampled is held within 1 - low and 1 + high (Schulman et al. 2017, equation
    7; two bounds as Yu et al. 2025, DAPO).
    """
    ratio = (logprobs.float() - old.float()).exp()
    free, held = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -(torch.minimum(free, held) * mask).sum(), ((held < free) & mask.bool()).sum()


def clipped_value_sum(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Summed loss of values (B, T): half the squared error, or that of the value held within ``clip`` of the ``old``
    one, whichever is larger. 0 clips nothing."""
    error = (values.float() - returns).square()
    if clip:
        held = old + (values.float() - old).clamp(-clip, clip)
        error = torch.maximum(error, (held - returns).square())
    return (error * mask).sum() / 2
