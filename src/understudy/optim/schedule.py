"""Learning rate schedules, as pure functions of the step."""

from __future__ import annotations

import math

from understudy.config.run import OptimConfig


def lr_factor(config: OptimConfig, step: int, total_steps: int) -> float:
    """The share of the peak learning rate used by the step with index ``step`` (from 0) of ``total_steps``.

    Linear warm-up over ``warmup_steps``, then constant, cosine, linear, or stable with a linear decay over the last
    ``decay_fraction`` (wsd), ending at ``min_lr_fraction``.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    floor = config.min_lr_fraction or 0.0
    start = config.warmup_steps
    if config.schedule == "wsd":
        start = max(start, round(total_steps * (1 - (config.decay_fraction or 0.0))))
    if step < start:
        return 1.0
    progress = min(1.0, (step - start) / max(1, total_steps - start))
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return floor + (1 - floor) * shape
