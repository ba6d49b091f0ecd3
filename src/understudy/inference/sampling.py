"""From logits to a token: the distribution that is sampled from, and the drawing itself, as pure functions.

The order is that of Hugging Face transformers' `generate`: repetition penalty, temperature, top-k, top-p,
min-p, each working on what the one before left. What comes out are log-probabilities of the distribution
really sampled from, for reinforcement learning and for users to see. Not here: models, caches, stopping.

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
"""Smaller ones would overflow fp32; at this one the distribution is greedy already, ties aside."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen; as it is, from the model's own distribution.

    Attributes:
        temperature: what logits are divided by; 0 always takes the likeliest token (the first of equals).
        top_k: only the so many likeliest tokens (Fan et al. 2018); tokens equal to the last of them stay.
        top_p: only the fewest likeliest tokens that together have this probability (Holtzman et al. 2020).
        min_p: only tokens at least this share as likely as the likeliest (Nguyen et al. 2024).
        repetition_penalty: logits of tokens already in the row are divided by this where positive, multiplied
            where negative (Keskar et al. 2019, CTRL, section 4.1, in transformers' form); 1 is off.
        seed: two calls with one seed draw alike; without one, every call draws anew.

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
        if not (0 < self.repetition_penalty < math.inf):
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}; give a number above 0, 1 being off")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give 0 or more, or leave it out to draw anew each time")


def draw(
    logits: Tensor, settings: SamplingSettings, generators: Sequence[np.random.Generator], seen: Tensor | None = None
) -> tuple[Tensor, list[float]]:
    """A token (B,) for each row of ``logits`` (B, V), and the log-probabilities they were drawn with; arguments as for
    :func:`next_token_logprobs`."""
    if settings.temperature == 0:
        top, tokens = _penalised(logits, settings, seen).max(dim=-1)
        return tokens, (top - top).tolist()  # 0, or NaN where logits are not finite, so that broken weights are noticed
    logprobs = next_token_logprobs(logits, settings, seen)  # (B, V)
    tokens = sample(logprobs, draw_uniforms(generators))
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0].tolist()


def next_token_logprobs(logits: Tensor, settings: SamplingSettings, seen: Tensor | None = None) -> Tensor:
    """Log-probabilities (B, V) in nats, fp32, of the distribution that is sampled from.

    Tokens cut off are -inf. At temperature 0 one token has log-probability 0, whatever else is set.

    Args:
        logits: (B, V), of any precision.
        settings: temperature, truncations and penalty; the seed is not read.
        seen: (B, V), true for the tokens already in each row; only read with a repetition penalty.

    >>> probabilities = torch.tensor([[0.5, 0.3, 0.2]])
    >>> next_token_logprobs(probabilities.log(), SamplingSettings(top_k=2)).exp()
    tensor([[0.6250, 0.3750, 0.0000]])
    """
    scores = _penalised(logits, settings, seen)
    if settings.temperature == 0:
        top, at = scores.max(dim=-1, keepdim=True)
        return torch.full_like(scores, -math.inf).scatter(-1, at, top - top)
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
    scores = logits.float()
    if settings.repetition_penalty == 1:
        return scores
    if seen is None:
        raise ValueError("a repetition penalty needs the tokens seen so far")
    return torch.where(seen, penalise(scores, settings.repetition_penalty), scores)


def penalise(logits: Tensor, penalty: float) -> Tensor:
    """``logits`` made smaller by the factor ``penalty``: divided where positive, else multiplied."""
    return torch.where(logits < 0, logits * penalty, logits / penalty)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """``logits`` (B, V) with all but the ``k`` largest, and what equals the last of them, at -inf."""
    if k >= logits.shape[-1]:
        return logits
    smallest = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """``logits`` (B, V) with all but the nucleus at -inf: a token stays when those likelier have less than ``p``.

    Equally likely tokens stay or go together; transformers may split them.
    """
    probabilities = logits.softmax(dim=-1)
    # Tokens below (1 - p) / V have less than 1 - p together, so the nucleus is among the others, and only those
    # are sorted: at p 0.9, with logits like a language model's, in 0.4 of the time of sorting 50 thousand.
    few = int((probabilities >= (1 - p) / logits.shape[-1]).sum(dim=-1).max())
    ordered = probabilities.topk(max(1, few), dim=-1).values
    likelier = cumulate(ordered) - ordered
    smallest = ordered.masked_fill(likelier >= p, math.inf).amin(dim=-1, keepdim=True)
    return logits.masked_fill(probabilities < smallest, -math.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """``logits`` (B, V) with tokens less than ``p`` times as likely as the likeliest at -inf."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


def sample(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token (B,) from each row of ``logprobs`` (B, V), by inverting its distribution function.

    The token is the first whose cumulative probability exceeds the uniform, so the draw is a function of its
    row and its number alone. A token of probability 0 is never drawn, whatever is rounded.

    Args:
        logprobs: (B, V) in nats; they need not sum to one exactly.
        uniforms: (B,) numbers in [0, 1).

    >>> sample(torch.tensor([[0.5, 0.0, 0.5]]).log().expand(3, 3), torch.tensor([0.0, 0.4, 0.9]))
    tensor([0, 0, 2])
    """
    probabilities = logprobs.exp()
    cumulative = cumulate(probabilities).masked_fill_(probabilities == 0, -1)
    total = cumulative.amax(dim=-1)
    uniforms = uniforms.to(total.dtype).to(total.device).clamp(max=1 - torch.finfo(total.dtype).eps)
    targets = uniforms * total  # and less than it, so that a token is found
    # argmax gives the first true one. A GPU sums in parallel, so that `cumulative` may dip by a rounding and
    # cannot be searched as if it were sorted.
    return (cumulative > targets[:, None]).view(torch.uint8).argmax(dim=-1)


def cumulate(probabilities: Tensor) -> Tensor:
    """Sums (B, V) of ``probabilities`` (B, V) up to and with each, in fp64 where there is any (Metal has none):
    in fp32 fifty thousand roundings would starve rare tokens."""
    device = probabilities.device
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        probabilities = probabilities.cpu()  # CUDA's sums vary from run to run, so PyTorch would refuse
    precise = torch.float32 if device.type == "mps" else torch.float64
    return probabilities.cumsum(dim=-1, dtype=precise).to(device)


def seen_tokens(rows: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """(B, V) true for the tokens in each of B rows, beside ``logits`` (B, V)."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for place, row in enumerate(rows):
        seen[place, list(row)] = True
    return seen


def row_generators(seed: int | None, rows: Sequence[int]) -> list[np.random.Generator]:
    """A generator for each row, from the seed and the row's number alone, whatever other rows there are.

    Without a seed they come from the system's entropy. PyTorch's own generator is left alone.
    """
    entropy = np.random.SeedSequence(seed).entropy
    sequences = (np.random.SeedSequence(entropy, spawn_key=(row,)) for row in rows)
    return [np.random.Generator(np.random.PCG64(sequence)) for sequence in sequences]


def draw_uniforms(generators: Sequence[np.random.Generator]) -> Tensor:
    """The next number (B,) in [0, 1) of each generator, in fp64."""
    return torch.tensor([generator.random() for generator in generators], dtype=torch.float64)
