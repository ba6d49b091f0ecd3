"""Losses as pure functions from tensors to sums. The caller divides a sum, since only it knows the global count of
tokens. Not here: models, batches, averages.

Shapes: B batch, T time, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE = -100
"""The target of a token that is not trained on."""
PADDING = -1
"""The document id of padding tokens."""


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood in nats of ``targets`` (B, T) under ``logits`` (B, T, V), as a scalar in
    fp32. Targets equal to :data:`IGNORE` add nothing.

    >>> cross_entropy_sum(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE]]))  # log 4
    tensor(1.3863)
    """
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def chunked_cross_entropy_sum(
    hidden: Tensor, targets: Tensor, to_logits: Callable[[Tensor], Tensor], chunk_tokens: int,
    weights: Iterable[Tensor],
) -> Tensor:  # fmt: skip
    """The same sum from ``hidden`` (B, T, D), with logits computed for ``chunk_tokens`` tokens at a time.

    Each chunk's gradient is computed with its loss, so that its logits (chunk_tokens, V) are neither kept nor computed
    again (Hsu et al. 2024). A compiled graph cannot do that: there the backward pass computes the logits again.

    Args:
        weights: the parameters that ``to_logits`` reads.
    """
    flat, flat_targets = hidden.flatten(0, 1), targets.flatten()
    chunks = [slice(start, start + chunk_tokens) for start in range(0, len(flat_targets), chunk_tokens)]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        trained = [weight for weight in weights if weight.requires_grad]
        result: Tensor = _ChunkedSum.apply(flat, flat_targets, to_logits, chunks, *trained)
        return result

    def chunk_sum(hidden_chunk: Tensor, target_chunk: Tensor) -> Tensor:
        return cross_entropy_sum(to_logits(hidden_chunk[None]), target_chunk[None])

    total = flat.new_zeros((), dtype=torch.float32)
    for part in chunks:
        total = total + checkpoint(chunk_sum, flat[part], flat_targets[part], use_reentrant=False)
    return total


def _cross_entropy_with_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`cross_entropy_sum` of logits (N, V), and its gradient (N, V) in their precision, by fewer passes over them."""
    gradient = logits.softmax(-1, dtype=torch.float32)
    # The largest probability is exp(largest logit) / sum, and at least 1 / V, so its logarithm is exact.
    log_sum = logits.amax(-1).float() - gradient.amax(-1).log()
    has_target, places = targets != IGNORE, targets.clamp(min=0)[:, None]
    losses = (log_sum - logits.gather(-1, places)[:, 0].float()) * has_target
    gradient.scatter_add_(-1, places, -torch.ones_like(places, dtype=torch.float32))
    if targets.is_cuda or not has_target.all():  # on a GPU asking would wait
        gradient.mul_(has_target[:, None])
    return losses.sum(), gradient.to(logits.dtype)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, targets: Tensor, to_logits: Callable[[Tensor], Tensor], chunks: Sequence[slice],
        *weights: Tensor,
    ) -> Tensor:  # fmt: skip
        total, gradients = flat.new_zeros((), dtype=torch.float32), [torch.zeros_like(x) for x in (flat, *weights)]
        for part in chunks:
            hidden = flat[part].detach().requires_grad_()
            with torch.enable_grad():
                logits = to_logits(hidden)
            loss, of_logits = _cross_entropy_with_gradient(logits.detach(), targets[part])
            of_hidden, *of_weights = torch.autograd.grad(logits, (hidden, *weights), of_logits)
            gradients[0][part] = of_hidden
            for sum_, gradient in zip(gradients[1:], of_weights):
                sum_.add_(gradient)
            total += loss
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, *of_weights = (gradient * scale for gradient in ctx.saved_tensors)
        return of_hidden, None, None, None, *of_weights


# ---- preferences ------------------------------------------------------------------------------------------
# P pairs of completions of the same prompt.


def pair_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, centring: float = 0.0) -> Tensor:
    """Bradley-Terry loss (P,) of scores (P,): ``-log sigmoid(chosen - rejected - margin)``.

    ``centring`` times the square of the pair's sum is added, which keeps the scores near zero (Eisenstein et al. 2023,
    section 4). Source: Ouyang et al. 2022, equation 1.

    >>> pair_loss(torch.zeros(2), torch.zeros(2))  # log 2
    tensor([0.6931, 0.6931])
    """
    chosen, rejected = chosen.float(), rejected.float()
    return -F.logsigmoid(chosen - rejected - margin) + centring * (chosen + rejected).square()


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO loss (P,) of log-ratios (P,), each the log-probability of a completion under the policy minus that under the
    reference model (Rafailov et al. 2023, equation 7).

    ``label_smoothing`` is the assumed share of flipped labels (Mitchell 2023, conservative DPO). Log-ratios that are means
    over tokens instead of sums give the length-normalised loss.

    >>> dpo_loss(torch.zeros(1), torch.zeros(1), beta=0.1)  # log 2
    tensor([0.6931])
    """
    logits = beta * (chosen.float() - rejected.float())
    return -((1 - label_smoothing) * F.logsigmoid(logits) + label_smoothing * F.logsigmoid(-logits))


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """IPO loss (P,) of log-ratios (P,), each a mean over a completion's tokens: the squared distance of their difference
    from 1 / (2 beta) (Azar et al. 2023, equation 17; the authors advise the mean over tokens)."""
    return (chosen.float() - rejected.float() - 1 / (2 * beta)).square()


def kto_loss(
    logratios: Tensor, desirable: Tensor, kl: Tensor | float, beta: float, desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:  # fmt: skip
    """KTO loss (N,) of log-ratios (N,), each the log-probability of a completion in nats under the policy minus that under
    the reference model (Ethayarajh et al. 2024, section 4).

    It is ``weight * (1 - sigmoid(beta (logratio - kl)))`` of a desirable completion, and of an undesirable one
    ``weight * (1 - sigmoid(beta (kl - logratio)))``. So it lies between 0 and the weight.

    Args:
        desirable: (N,) booleans, the label of each completion.
        kl: the reference point, a scalar in nats, at least 0. No gradient passes through it.

    >>> kto_loss(torch.zeros(2), torch.tensor([True, False]), kl=0.0, beta=0.1)
    tensor([0.5000, 0.5000])
    """
    margins = beta * (logratios.float() - torch.as_tensor(kl).detach())
    gains = desirable_weight * torch.sigmoid(-margins)
    return torch.where(desirable, gains, undesirable_weight * torch.sigmoid(margins))


# ---- reinforcement ----------------------------------------------------------------------------------------
# B completions of up to T tokens, padded on the right; masks (B, T) are true on a completion's tokens.


def vocabulary_logprobs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (..., V) in nats of every token under ``logits`` (..., V) at a temperature, in fp32."""
    return (logits if temperature == 1 else logits.float() / temperature).log_softmax(-1, dtype=torch.float32)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (...) in nats of ``tokens`` (...) under ``logits`` (..., V) at a temperature, in fp32."""
    return vocabulary_logprobs(logits, temperature).gather(-1, tokens[..., None])[..., 0]


def entropy(logprobs: Tensor) -> Tensor:
    """Entropy (...) in nats of distributions, given as log-probabilities (..., V)."""
    return -(logprobs.exp() * logprobs).sum(-1)


def kl_estimate(logprobs: Tensor, reference: Tensor, kind: str = "k1") -> Tensor:
    """Estimate of the KL of the policy from the reference at each token that the policy sampled (Schulman 2020).

    ``k1`` is unbiased and may be negative; ``k2`` is biased and never negative; ``k3`` is unbiased and never negative.

    Raises:
        ValueError: an unknown kind.
    """
    log_ratio = reference.float() - logprobs.float()
    if kind == "k1":
        return -log_ratio
    if kind == "k2":
        return log_ratio.square() / 2
    if kind == "k3":
        return log_ratio.exp() - 1 - log_ratio
    raise ValueError(f"there is no KL estimator {kind!r}; choose k1, k2 or k3")


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T) from rewards and values (B, T); zero outside the mask.

    A completion's last token has no successor. Source: Schulman et al. 2016, equations 11 to 16; the return is the
    advantage plus the value.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    advantage = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(advantage)
    for t in range(rewards.shape[1] - 1, -1, -1):
        advantage = (rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * advantage) * mask[:, t]
        next_value = values[:, t]
        advantages[:, t] = advantage
    return advantages, advantages + values


def group_advantages(rewards: Tensor, group_size: int, divide: bool = True, leave_one_out: bool = False) -> Tensor:
    """Advantages (N,) of completions, of which every ``group_size`` in a row have the same prompt.

    The baseline is the group's mean (Shao et al. 2024, GRPO), or with ``leave_one_out`` that of the others (Ahmadian et
    al. 2024, RLOO); ``divide`` by the group's standard deviation, or not (Liu et al. 2025, Dr. GRPO). The advantages of a
    group with equal rewards are zero.
    """
    groups = rewards.float().view(-1, group_size)
    advantages = groups - groups.mean(1, keepdim=True)
    if leave_one_out:
        advantages = advantages * (group_size / (group_size - 1))
    if divide:
        spread = groups.std(1, keepdim=True)
        advantages = torch.where(spread > 1e-8, advantages / (spread + 1e-4), 0.0)
    return advantages.flatten()


def whiten(values: Tensor, mask: Tensor, all_sum: Callable[[Tensor], Tensor]) -> Tensor:
    """Values (B, T) shifted to mean 0 and scaled to variance 1 over the masks of all processes."""
    mask = mask.to(values.dtype)
    count, total = all_sum(torch.stack((mask.sum(), (values * mask).sum())))
    mean = total / count
    variance = all_sum(((values - mean).square() * mask).sum()) / (count - 1).clamp(min=1)
    return (values - mean) / (variance + 1e-8).sqrt() * mask


def clipped_ratio_sum(
    logprobs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Summed PPO loss of tokens (M,), and the number of clipped ones.

    The ratio to the behaviour policy is clipped to [1 - low, 1 + high] (Schulman et al. 2017, equation 7; two bounds as
    in DAPO, Yu et al. 2025).
    """
    ratio = (logprobs.float() - old.float()).exp()
    unclipped, clipped = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(unclipped, clipped).sum(), (clipped < unclipped).sum()


def clipped_value_sum(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Summed loss of values (M,): half the squared error, or that of the value clipped to within ``clip`` of the ``old``
    one, whichever is larger. A ``clip`` of 0 is off."""
    error = (values.float() - returns).square()
    if clip:
        clipped = old + (values.float() - old).clamp(-clip, clip)
        error = torch.maximum(error, (clipped - returns).square())
    return error.sum() / 2
