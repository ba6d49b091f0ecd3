"""What a stage trains on and is judged by: its data opened, its objective, its source of batches and its judge.

Here are the stages that predict the next token; those that learn from preferences and rewards are in align/.
Not here: the model, the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from understudy.config import RunConfig
from understudy.data.loader import Batch
from understudy.evaluate.loss import LossResult
from understudy.model import GPT, Bigram
from understudy.run import Run, RunFolder
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, render
from understudy.train.loop import BatchSource, StatelessSource
from understudy.train.objective import NextToken, Objective

EvaluateFn = Callable[[Objective, int], tuple[LossResult, dict[str, float]]]
"""Given an objective and the size of a batch: the validation loss, and what else was measured on the way, by name."""


class Rows(Protocol):
    """Samples by number, without end: a pure function of what they were made from and their number."""

    def batch(self, first: int, size: int) -> Batch: ...


@dataclass(frozen=True)
class StageContext:
    """Where a course is prepared: ``model`` has its first weights, those of the parent where there is one."""

    config: RunConfig
    folder: RunFolder
    runtime: Runtime
    model: GPT | Bigram
    parent: Run | None


@dataclass(frozen=True)
class TrainingSetup:
    """What the loop is handed.

    Attributes:
        optimizers: those of parameters that the objective has beside its model.
        keep: writes into the run's folder what the last evaluation found beside its numbers; it is called with the step
            whenever that is the checkpoint that others will use.
    """

    objective: Objective
    source: BatchSource
    judge: EvaluateFn
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    keep: Callable[[int], None] = lambda step: None


@dataclass(frozen=True)
class StageData:
    """One stage's data, opened.

    Attributes:
        prepare: makes of a model, and of where it runs, what the loop needs: a :class:`TrainingSetup`.
        prompts: what the samples shown at each evaluation continue, as (what is shown of it, text or token ids).
        ends: ids that end such a sample.
        about: what run.json says of the data.
        notes: what to tell whoever watches.
        evaluate_first: evaluate before the first step too, since the end is to be held against the beginning.
    """

    tokenizer: Tokenizer
    prepare: Callable[[StageContext], TrainingSetup]
    prompts: list[tuple[str, str | list[int]]]
    ends: frozenset[int]
    about: dict[str, Any]
    notes: list[str]
    evaluate_first: bool = False


def shown_prompts(
    config: RunConfig, tokenizer: Tokenizer, questions: Iterable[Sequence[Message]]
) -> list[tuple[str, str | list[int]]]:
    """What the samples answer: log.prompts, else the first of ``questions``, but for those that fill the context."""
    asked = [[{"role": "user", "content": prompt}] for prompt in config.log.prompts] or questions
    shown = [
        (f"user: {messages[-1]['content']}\nassistant: ", render(tokenizer, list(messages), reply=True).tokens)
        for messages in islice(asked, config.log.samples)
    ]
    return [(text, tokens) for text, tokens in shown if len(tokens) < config.model.context_length]


def _next_token(setting: StageContext) -> NextToken:
    return NextToken(setting.model, setting.config.train.loss_chunk_tokens)


def by_sample(rows: Rows, setting: StageContext) -> StatelessSource:
    """The micro-batches of a step: the samples that follow those of the steps before, shared by the processes."""
    config, runtime = setting.config, setting.runtime
    total, micro = config.train.batch_size, config.train.micro_batch_size
    share = share_of_batch(config, runtime)
    assert micro is not None, "decided before a course is prepared"

    def batches(step: int) -> list[Batch]:
        first = step * total + runtime.rank * share
        return [rows.batch(first + start, micro) for start in range(0, share, micro)]

    return StatelessSource(batches)


def share_of_batch(config: RunConfig, runtime: Runtime) -> int:
    """The samples of a step that one process takes.

    Raises:
        ValueError: the processes, or their micro-batches, cannot share a batch evenly.
    """
    total, processes, micro = config.train.batch_size, runtime.world_size, config.train.micro_batch_size
    if total % processes:
        raise ValueError(f"train.batch_size {total} cannot be shared by {processes} processes; choose a multiple")
    share = total // processes
    if micro and share % micro:
        raise ValueError(
            f"each of {processes} processes takes {share} samples a step, and train.micro_batch_size {micro} does not "
            "divide that; choose a divisor"
        )
    return share


def present_data(config: RunConfig) -> Path:
    """The path of the data, which must be there."""
    path = Path(config.data.path)
    if path.exists():
        return path
    source = config.data.source or "SOURCE"
    if config.stage != "pretrain":
        kinds = {"sft": "conversations", "ppo": "prompts", "grpo": "prompts"}
        options = f"--kind {kinds.get(config.stage, 'preferences')}"
    else:
        size = f" --vocab-size {config.tokenizer.vocab_size}" if config.tokenizer.vocab_size else ""
        options = f"--tokenizer {config.tokenizer.kind or 'bpe'}{size}"
    raise ValueError(
        f"there is no data in {path}; prepare it first: `understudy prepare {source} {options} --out {path}`"
    )
