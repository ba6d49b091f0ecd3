"""The validation loss: every token once, in consecutive windows, with a confidence interval.

One mean over all tokens, never a mean of means. Not here: tasks, tables, training.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from understudy.data.loader import consecutive_batches
from understudy.losses import IGNORE
from understudy.runtime import Runtime


@dataclass(frozen=True)
class LossResult:
    """Mean negative log-likelihood a token in nats, with a 95% interval; the same per byte of text in bits."""

    loss: float
    loss_low: float
    loss_high: float
    tokens: int
    bits_per_byte: float | None = None
    bits_per_byte_low: float | None = None
    bits_per_byte_high: float | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"perplexity": self.perplexity}


@torch.no_grad()
def evaluate_loss(
    model: nn.Module,
    tokens: np.ndarray,
    context_length: int,
    batch_size: int,
    runtime: Runtime,
    text_bytes: int | None = None,
) -> LossResult:
    """The loss of a model on ``tokens`` (N,), each but the first predicted once from at most ``context_length`` before
    it in its window.

    The interval treats windows as the independent pieces of text: the standard error of the ratio of summed loss to
    summed tokens (Cochran 1977, section 6.4), times 1.96.

    Args:
        text_bytes: UTF-8 bytes of the text that ``tokens`` encode, for bits per byte.

    Raises:
        ValueError: fewer than two tokens.
    """
    if len(tokens) < 2:
        raise ValueError(
            f"the split to evaluate has {len(tokens)} tokens, and nothing can be predicted; bring more text"
        )
    was_training = model.training
    model.eval()
    sums = torch.zeros(6, dtype=torch.float64, device="cpu")
    for batch in consecutive_batches(tokens, context_length, batch_size, runtime.rank, runtime.world_size):
        inputs, targets = batch["tokens"].to(runtime.device), batch["targets"].to(runtime.device)
        with runtime.autocast():
            logits = model(inputs)
        each = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none")
        loss = each.view_as(targets).cpu().double().sum(1)  # (B,) summed over each window
        count = (targets != IGNORE).sum(1).cpu().double()
        sums += torch.stack([loss.sum(), count.sum(), (loss * loss).sum(), (loss * count).sum(), (count * count).sum(),
                             torch.tensor(float(len(loss)), dtype=torch.float64)])  # fmt: skip
    model.train(was_training)
    total, count, loss2, cross, count2, windows = runtime.all_sum(sums.to(_sum_device(runtime))).tolist()
    mean = total / count
    spread = max(0.0, loss2 - 2 * mean * cross + mean * mean * count2)
    error = 1.96 * math.sqrt(spread * windows / max(1.0, windows - 1)) / count
    per_byte = count / (text_bytes * math.log(2)) if text_bytes else None
    low, high = mean - error, mean + error
    bits = [value * per_byte if per_byte else None for value in (mean, low, high)]
    return LossResult(mean, low, high, int(count), *bits)


def _sum_device(runtime: Runtime) -> torch.device:
    """NCCL only adds what is on the GPU."""
    return runtime.device if runtime.world_size > 1 else torch.device("cpu")
