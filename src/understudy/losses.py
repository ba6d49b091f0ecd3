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
