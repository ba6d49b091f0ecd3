"""From logits to a token: the sampling distribution and the draw, as pure functions.

Filters apply in the order of Hugging Face transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p.
The returned log-probabilities are those of the final distribution, which reinforcement learning needs. Not here: models,
caches, stopping.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SMALLEST_TEMPERATURE = 1e-30
"""Smaller temperatures would overflow fp32; at this one sampling is greedy already, except for ties."""
SMALLEST_PENALTY, LARGEST_PENALTY = 0.01, 100.0
"""Range of the repetition penalty: beyond it scaled logits could overflow fp32."""


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of the sampling distribution; the defaults sample from the model's own distribution.

    Attributes:
        temperature: divisor of the logits; 0 selects the likeliest token (the first of equals).
        top_k: number of likeliest tokens to keep, with ties (Fan et al. 2018).
        top_p: probability mass of the smallest set of likeliest tokens to keep (Holtzman et al. 2020).
        min_p: least probability to keep, relative to the likeliest token (Nguyen et al. 2024).
        repetition_penalty: logits of tokens already in the sequence are divided by it if positive, multiplied if negative
            (Keskar et al. 2019, CTRL, section 4.1, in transformers' form); 1 is off.
        seed: equal seeds give equal draws; None takes a new seed for every call.

    Raises:
        ValueError: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.temperature < math.inf):
            raise ValueError(f"temperature is {self.temperature}; give 0 (always the likeliest token) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; give 1 or more, or leave it out to keep every token")
        if self.top_p is not None and not (0 < self.top_p <= 1):
            raise ValueError(f"top_p is {self.top_p}; give a share above 0 and up to 1")
        if self.min_p is not None and not (0 <= self.min_p < 1):
            raise ValueError(f"min_p is {self.min_p}; give a share from 0 and below 1")
        if not (SMALLEST_PENALTY <= self.repetition_penalty <= LARGEST_PENALTY):
            allowed = f"{SMALLEST_PENALTY} to {LARGEST_PENALTY:g}"
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}; give 1 for none, or from {allowed}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give 0 or more, or leave it out to draw anew each time")


def draw(
    logits: Tensor,
    settings: SamplingSettings,
    generators: Sequence[np.random.Generator],
    seen: Tensor | None = None,
    vocab_size: int | None = None,
) -> tuple[Tensor, list[float]]:
    """Draw a token for each sequence, with a generator each; arguments as for :func:`next_token_logprobs`.

    Args:
        vocab_size: the tokenizer's. Ids from it on, with which models pad their vocabulary, are never drawn.

    Returns:
        The tokens (B,), and the log-probability of each under the distribution it was drawn from.
    """
    logits = logits[:, :vocab_size]
    seen = None if seen is None else seen[:, :vocab_size]
    if settings.temperature == 0:
        top, tokens = _penalised(logits, settings, seen).max(dim=-1)
        return tokens, (top - top).tolist()  # 0, or NaN for logits that are not finite
    logprobs = next_token_logprobs(logits, settings, seen)  # (B, V)
    tokens = sample(logprobs, draw_uniforms(generators))
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0].tolist()


def next_token_logprobs(logits: Tensor, settings: SamplingSettings, seen: Tensor | None = None) -> Tensor:
    """Log-probabilities (B, V) in nats, fp32, of the sampling distribution.

    Filtered tokens are -inf. At temperature 0 one token has log-probability 0, regardless of the other settings.

    Args:
        logits: (B, V), of any precision.
        settings: temperature, filters and penalty; the seed is not used.
        seen: (B, V), true for the tokens already in each sequence; required for a repetition penalty only.

    >>> probabilities = torch.tensor([[0.5, 0.3, 0.2]])
    >>> next_token_logprobs(probabilities.log(), SamplingSettings(top_k=2)).exp()
    tensor([[0.6250, 0.3750, 0.0000]])
    """
    scores = _penalised(logits, settings, seen)
    if settings.temperature == 0:
        top, token = scores.max(dim=-1, keepdim=True)
        return torch.full_like(scores, -math.inf).scatter(-1, token, top - top)
    if settings.temperature != 1:
        scores = scores / max(settings.temperature, SMALLEST_TEMPERATURE)
    if settings.top_k is not None:
        scores = keep_top_k(scores, settings.top_k)
    if settings.top_p is not None and settings.top_p < 1:
        scores = keep_top_p(scores, settings.top_p)
    if settings.min_p:
        scores = keep_min_p(scores, settings.min_p)
    return scores.log_softmax(dim=-1)


def _penalised(logits: Tensor, settings: SamplingSettings, seen: Tensor | None) -> Tensor:
    scores, penalty = logits.float(), settings.repetition_penalty
    if penalty == 1:
        return scores
    if seen is None:
        raise ValueError("a repetition penalty needs the tokens seen so far")
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """``logits`` (B, V) with all but the ``k`` largest and their ties set to -inf."""
    if k >= logits.shape[-1]:
        return logits
    smallest = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """``logits`` (B, V) with all but the nucleus set to -inf: tokens such that all likelier ones sum to less than ``p``.

    Equally likely tokens are treated alike; transformers may keep some of them.
    """
    probabilities = logits.softmax(dim=-1)
    # Tokens below (1 - p) / V sum to less than 1 - p, so the nucleus is among the others and only those are sorted.
    few = int((probabilities >= (1 - p) / logits.shape[-1]).sum(dim=-1).max())
    ordered = probabilities.topk(max(1, few), dim=-1).values
    likelier = cumulate(ordered) - ordered
    smallest = ordered.masked_fill(likelier >= p, math.inf).amin(dim=-1, keepdim=True)
    return logits.masked_fill(probabilities < smallest, -math.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """``logits`` (B, V) with tokens less than ``p`` times as likely as the likeliest set to -inf."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


def sample(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token (B,) from each distribution in ``logprobs`` (B, V), by inverse transform sampling.

    The token is the first whose cumulative probability exceeds the uniform number, so a draw does not depend on the other
    sequences. A token of probability 0 is never drawn, despite rounding.

    Args:
        logprobs: (B, V) in nats; probabilities need not sum to one exactly.
        uniforms: (B,) numbers in [0, 1).

    >>> sample(torch.tensor([[0.5, 0.0, 0.5]]).log().expand(3, 3), torch.tensor([0.0, 0.4, 0.9]))
    tensor([0, 0, 2])
    """
    probabilities = logprobs.exp()
    cumulative = cumulate(probabilities).masked_fill_(probabilities == 0, -1)
    total = cumulative.amax(dim=-1)
    uniforms = uniforms.to(total.dtype).to(total.device).clamp(max=1 - torch.finfo(total.dtype).eps)
    targets = uniforms * total  # below total, so that some token exceeds it
    # argmax gives the first true entry. A GPU sums in parallel, so `cumulative` may decrease by rounding errors and
    # searchsorted cannot be used.
    return (cumulative > targets[:, None]).view(torch.uint8).argmax(dim=-1)


def cumulate(probabilities: Tensor) -> Tensor:
    """Cumulative sums (B, V) of ``probabilities`` (B, V), in fp64 except on Metal, which has none: in fp32 the rounding
    errors of a large vocabulary would exceed the probability of rare tokens."""
    device = probabilities.device
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        probabilities = probabilities.cpu()  # CUDA's cumsum is not deterministic, so PyTorch would refuse it
    precise = torch.float32 if device.type == "mps" else torch.float64
    return probabilities.cumsum(dim=-1, dtype=precise).to(device)


def seen_tokens(sequences: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """(B, V), true for the tokens in each of B sequences, beside ``logits`` (B, V)."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for number, sequence in enumerate(sequences):
        seen[number, list(sequence)] = True
    return seen


def row_generators(seed: int | None, numbers: Sequence[int]) -> list[np.random.Generator]:
    """A generator for each sequence, a function of the seed and the sequence's number alone.

    Without a seed they use the system's entropy. PyTorch's own generator is not used.
    """
    entropy = np.random.SeedSequence(seed).entropy
    sequences = (np.random.SeedSequence(entropy, spawn_key=(number,)) for number in numbers)
    return [np.random.Generator(np.random.PCG64(sequence)) for sequence in sequences]


def draw_uniforms(generators: Sequence[np.random.Generator]) -> Tensor:
    """The next uniform number (B,) in [0, 1) of each generator, in fp64."""
    return torch.tensor([generator.random() for generator in generators], dtype=torch.float64)
