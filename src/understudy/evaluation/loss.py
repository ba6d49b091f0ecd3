"""Validation loss: every token predicted once, in consecutive windows, with a 95% confidence interval.

One mean over all tokens, never a mean of batch means. Not here: the data of a run (run_evaluation.py), tasks, training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from understudy.data.loader import Batch, TokenArray, consecutive_batches
from understudy.inference.generate import evaluating
from understudy.losses import IGNORE
from understudy.model import GPT, Bigram
from understudy.model.masks import causal, packed
from understudy.runtime import Runtime

LOGITS_AT_ONCE = 1 << 24
"""Logits computed at a time: with a large vocabulary, those of a whole batch would be most of the memory of a training."""


@dataclass(frozen=True)
class LossResult:
    """Mean negative log-likelihood in nats per token, and in bits per byte of text, with 95% intervals.

    A single window has no interval: ``low`` and ``high`` are None.
    """

    loss: float
    loss_low: float | None
    loss_high: float | None
    tokens: int
    bits_per_byte: float | None = None
    bits_per_byte_low: float | None = None
    bits_per_byte_high: float | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"perplexity": self.perplexity}


def evaluate_loss(
    model: GPT | Bigram,
    tokens: TokenArray,
    context_length: int,
    batch_size: int,
    runtime: Runtime,
    text_bytes: int | None = None,
) -> LossResult:
    """Loss of a model on ``tokens`` (N,). Each token but the first is predicted once, from the earlier tokens of its
    window of at most ``context_length``.

    The interval treats windows as independent: 1.96 standard errors of the ratio of summed loss to summed tokens
    (Cochran 1977, section 6.4).

    Args:
        text_bytes: UTF-8 bytes of the text that ``tokens`` encode, for bits per byte.

    Raises:
        ValueError: fewer than two tokens.
    """
    if len(tokens) < 2:
        raise ValueError(
            f"the split to evaluate has {len(tokens)} tokens, and nothing can be predicted; bring more text"
        )
    batches = consecutive_batches(tokens, context_length, batch_size, runtime.rank, runtime.world_size)
    return loss_over(model, batches, runtime, text_bytes)


def pooled(results: Sequence[LossResult]) -> LossResult:
    """The loss over all tokens of several data sets, with the interval of independent ones."""
    tokens = sum(result.tokens for result in results)
    shares = [result.tokens / tokens for result in results]
    loss = sum(share * result.loss for share, result in zip(shares, results))
    low = high = None
    if all(result.loss_high is not None for result in results):
        error = math.hypot(*(s * (r.loss_high - r.loss) for s, r in zip(shares, results) if r.loss_high is not None))
        low, high = loss - error, loss + error
    if any(result.bits_per_byte is None for result in results):
        return LossResult(loss, low, high, tokens)
    text_bytes = sum(r.tokens * r.loss / (math.log(2) * (r.bits_per_byte or math.inf)) for r in results)
    per_byte = tokens / (text_bytes * math.log(2))
    bits = [None if value is None else value * per_byte for value in (loss, low, high)]
    return LossResult(loss, low, high, tokens, *bits)


@torch.no_grad()
def loss_over(
    model: GPT | Bigram, batches: Iterable[Batch], runtime: Runtime, text_bytes: int | None = None
) -> LossResult:
    """Loss over all targets of the batches of all processes. The interval treats rows as independent."""
    sums = torch.zeros(6, dtype=torch.float64, device="cpu")
    with evaluating(model):
        for batch in batches:
            inputs, targets = batch["tokens"].to(runtime.device), batch["targets"].to(runtime.device)  # (B, T)
            learnt = targets != IGNORE
            places = learnt.flatten().nonzero()[:, 0]
            documents = batch.get("documents")
            context = causal(places) if documents is None else packed(documents.to(runtime.device), places)
            chunk, losses_of = max(1, LOGITS_AT_ONCE // model.shape.vocab_size), []
            with runtime.autocast():
                hidden = model.hidden(inputs, context)  # (N, D)
                for part, chosen in zip(hidden.split(chunk), targets[learnt].split(chunk)):
                    logits = model.logits(part[None])[0].float()  # (at most chunk, V)
                    losses_of.append(F.cross_entropy(logits, chosen, reduction="none").cpu().double())
            losses = torch.cat(losses_of)  # (N,)
            rows = learnt.nonzero()[:, 0].cpu()
            loss = torch.zeros(len(targets), dtype=torch.float64).index_add_(0, rows, losses)  # (B,)
            count = learnt.sum(1).cpu().double()
            sums += torch.stack([
                loss.sum(), count.sum(), (loss * loss).sum(), (loss * count).sum(), (count * count).sum(),
                torch.tensor(float(len(loss)), dtype=torch.float64),
            ])  # fmt: skip
    total, count, loss2, cross, count2, windows = runtime.all_sum(sums).tolist()
    mean = total / count
    low = high = None
    if windows > 1:
        spread = max(0.0, loss2 - 2 * mean * cross + mean * mean * count2)
        error = 1.96 * math.sqrt(spread * windows / (windows - 1)) / count
        low, high = mean - error, mean + error
    per_byte = count / (text_bytes * math.log(2)) if text_bytes else None
    bits = [value * per_byte if per_byte and value is not None else None for value in (mean, low, high)]
    return LossResult(mean, low, high, int(count), *bits)
