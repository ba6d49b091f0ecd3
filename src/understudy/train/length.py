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
LEAST_BATCH_TOKENS = 2048
"""... or until a batch would have fewer tokens than this, which use a processor badly."""
EVALUATION_SHARE = 0.05
"""Validation of a training of some minutes reads no more tokens than take about this share of them."""
FORWARD_SHARE = 1 / 3
"""The time of a forward pass beside that of a training step with as many tokens."""
LEAST_FOR_EPOCHS = 50
"""Steps that epochs come to at least: with little data, fewer would teach nothing."""


@dataclass(frozen=True)
class StepCost:
    """What an optimiser step takes: seconds, and tokens over all processes. ``start``: seconds before the first step."""

    seconds: float
    tokens: float
    start: float = 0.0


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


def fit_batch(config: RunConfig, cost: StepCost, processes: int) -> RunConfig:
    """The configuration, for a short pretraining with a smaller batch, so that it still has some hundred steps.

    Args:
        processes: which share each batch.
    """
    train, batch_size = config.train, config.train.batch_size
    if config.info.data != "text" or train.epochs is not None:
        return config
    samples, sample_tokens = _samples(config, cost, 0), cost.tokens / batch_size
    while (
        samples / batch_size < min(LEAST_STEPS, train.steps)
        and batch_size % (2 * processes) == 0
        and batch_size // 2 * sample_tokens >= LEAST_BATCH_TOKENS
    ):
        batch_size //= 2
    micro = math.gcd(train.micro_batch_size or batch_size, batch_size // processes)
    changed = {"batch_size": batch_size, "micro_batch_size": micro}
    return config.model_copy(update={"train": train.model_copy(update=changed)})


def plan_length(config: RunConfig, cost: StepCost, epoch_samples: float) -> tuple[RunConfig, str]:
    """The configuration with the steps that its minutes, tokens or epochs come to, and a line that says so.

    Args:
        epoch_samples: samples of a step's kind in one pass over the training data.
    """
    batch_size = config.train.batch_size
    planned = with_length(config, max(1, round(_samples(config, cost, epoch_samples) / batch_size)))
    steps = planned.train.steps
    if config.train.minutes is not None and config.info.data in ("text", "conversations"):
        evaluations = math.ceil(steps / (planned.eval.every_steps or steps))
        seconds = EVALUATION_SHARE * 60 * config.train.minutes / evaluations
        limit = max(config.model.context_length, int(seconds * cost.tokens / cost.seconds / FORWARD_SHARE))
        limit = min(limit, config.eval.max_tokens or limit)
        planned = planned.model_copy(update={"eval": planned.eval.model_copy(update={"max_tokens": limit})})
    line = f"{steps:,} steps, {count_text(round(steps * cost.tokens))} tokens, {steps * batch_size / epoch_samples:.2g} epochs"
    line += f", about {duration_text(cost.start + steps * cost.seconds)} at {cost.tokens / cost.seconds:,.0f} tokens/s"
    [(name, value)] = (asked_length(config) or {}).items()
    return planned, f"train.{name} {value:g}: {line}"


def _samples(config: RunConfig, cost: StepCost, epoch_samples: float) -> float:
    """Samples of the asked length."""
    train = config.train
    if train.minutes is not None:
        return max(0.0, 60 * train.minutes - cost.start) / cost.seconds * train.batch_size
    if train.tokens is not None:
        return train.tokens / cost.tokens * train.batch_size
    return max((train.epochs or 0) * epoch_samples, LEAST_FOR_EPOCHS * train.batch_size)


def with_length(config: RunConfig, steps: int) -> RunConfig:
    """The configuration with so many steps, at least one iteration of a rollout stage. The intervals of evaluation and
    checkpoints and the warmup keep their share of the steps."""
    train, optim = config.train, config.optim
    whole = config.steps_per_iteration if config.info.rollout else 1
    steps = max(whole, round(steps / whole) * whole)

    def in_proportion(interval: int) -> int:
        return max(whole, round(interval * steps / train.steps / whole) * whole) if interval else 0

    def weight_in_proportion(weight: Any) -> Any:
        return {in_proportion(step): w for step, w in weight.items()} if isinstance(weight, dict) else weight

    changed = {"steps": steps} | dict.fromkeys(LENGTHS)
    mixture = config.data.mixture and tuple(
        part.model_copy(update={"weight": weight_in_proportion(part.weight)}) for part in config.data.mixture
    )
    return config.model_copy(update={
        "data": config.data.model_copy(update={"mixture": mixture}),
        "train": train.model_copy(update=changed),
        "optim": optim.model_copy(update={"warmup_steps": round(optim.warmup_steps * steps / train.steps)}),
        "eval": config.eval.model_copy(update={"every_steps": in_proportion(config.eval.every_steps)}),
        "checkpoint": config.checkpoint.model_copy(update={"every_steps": in_proportion(config.checkpoint.every_steps)}),
    })  # fmt: skip
