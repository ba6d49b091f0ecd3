"""The length of a training that is asked for in minutes, tokens or epochs: its steps, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from understudy.config.run import LENGTHS, RunConfig
from understudy.console import count_text, duration_text

PROBE_SHARE, PROBE_SECONDS = 0.02, (2.0, 10.0)
"""Share of the minutes, and the seconds it is kept between, for which steps are timed before the training."""
LEAST_STEPS = 400
"""A shorter pretraining than the settings are made for takes smaller batches, until it has this many steps."""
LEAST_FOR_EPOCHS = 50
"""Steps that epochs come to at least: with little data, fewer would teach nothing."""


@dataclass(frozen=True)
class StepCost:
    """What an optimiser step takes: seconds, and tokens over all processes."""

    seconds: float
    tokens: float


def asked_length(config: RunConfig) -> dict[str, Any] | None:
    """The setting of ``train`` that gives the length otherwise than in steps, by its name; None if there is none."""
    asked = {name: value for name in LENGTHS if (value := getattr(config.train, name)) is not None}
    return asked or None


def probe_seconds(config: RunConfig) -> float:
    """For how long steps are timed. Tokens and epochs need no time, so that one step will do."""
    if config.train.minutes is None:
        return 0.0
    low, high = PROBE_SECONDS
    return min(max(low, PROBE_SHARE * 60 * config.train.minutes), high)


def plan_length(config: RunConfig, cost: StepCost, epoch_samples: float, processes: int) -> tuple[RunConfig, str]:
    """The configuration with the steps that its minutes, tokens or epochs come to, and a line that says so.

    Args:
        epoch_samples: samples of a step's kind in one pass over the training data.
        processes: which share each batch.
    """
    train, batch_size = config.train, config.train.batch_size
    if train.minutes is not None:
        samples = 60 * train.minutes / cost.seconds * batch_size
    elif train.tokens is not None:
        samples = train.tokens / cost.tokens * batch_size
    else:
        samples = max((train.epochs or 0) * epoch_samples, LEAST_FOR_EPOCHS * batch_size)
    if config.info.data == "text":
        while samples / batch_size < min(LEAST_STEPS, train.steps) and batch_size % (2 * processes) == 0:
            batch_size //= 2
    micro = math.gcd(train.micro_batch_size or batch_size, batch_size // processes)
    planned = with_length(config, max(1, round(samples / batch_size)), batch_size, micro)
    steps, share = planned.train.steps, batch_size / train.batch_size
    tokens = steps * cost.tokens * share
    line = f"{steps:,} steps, {count_text(round(tokens))} tokens, {steps * batch_size / epoch_samples:.2g} epochs"
    line += f", about {duration_text(steps * cost.seconds * share)} at {cost.tokens / cost.seconds:,.0f} tokens/s"
    smaller = f"; batches of {batch_size} instead of {train.batch_size}" if batch_size != train.batch_size else ""
    [(name, value)] = (asked_length(config) or {}).items()
    return planned, f"train.{name} {value:g}: {line}{smaller}"


def with_length(config: RunConfig, steps: int, batch_size: int, micro_batch_size: int | None) -> RunConfig:
    """The configuration with so many steps, at least one iteration of a rollout stage. The intervals of evaluation and
    checkpoints and the warmup keep their share of the steps; learning rates go with the square root of the batch."""
    train, optim = config.train, config.optim
    whole = config.steps_per_iteration if config.info.rollout else 1
    steps = max(whole, round(steps / whole) * whole)

    def in_proportion(interval: int) -> int:
        return max(whole, round(interval * steps / train.steps / whole) * whole) if interval else 0

    scale = (batch_size / train.batch_size) ** 0.5
    rates = {
        name: rate * scale
        for name in ("lr", "embedding_lr", "head_lr", "vector_lr")
        if (rate := getattr(optim, name)) is not None and scale != 1
    }
    changed = {"steps": steps, "batch_size": batch_size, "micro_batch_size": micro_batch_size} | dict.fromkeys(LENGTHS)
    return config.model_copy(update={
        "train": train.model_copy(update=changed),
        "optim": optim.model_copy(update=rates | {"warmup_steps": round(optim.warmup_steps * steps / train.steps)}),
        "eval": config.eval.model_copy(update={"every_steps": in_proportion(config.eval.every_steps)}),
        "checkpoint": config.checkpoint.model_copy(update={"every_steps": in_proportion(config.checkpoint.every_steps)}),
    })  # fmt: skip
