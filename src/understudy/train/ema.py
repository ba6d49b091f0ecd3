"""Exponential moving average of the weights, which often generalises better than the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """``mean = decay * mean + (1 - decay) * weights`` after each step; the decay is smaller at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.means = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after the step with index ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in self.parameters.items():
            self.means[name].lerp_(p, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the model's weights are the means."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self.parameters.items():
            weights: Tensor = p.detach().clone()
            p.copy_(self.means[name])
            self.means[name].copy_(weights)
