"""The contract of a training stage: its data, its objective, its batches and its evaluation.

Not here: the stages themselves (stages/), the model, the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from understudy.config.run import RunConfig
from understudy.data.loader import Batch
from understudy.evaluate.loss import LossResult
from understudy.model import GPT, Bigram
from understudy.run import Run, RunFolder
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, render
from understudy.train.loop import BatchSource, StatelessSource
from understudy.train.objective import Objective


class Rows(Protocol):
    """Samples by number, without end: a pure function of the data, the seed and their number."""

    def batch(self, first: int, size: int) -> Batch: ...


@dataclass(frozen=True)
class StageContext:
    """What a stage is set up with: ``model`` has its first weights, those of the parent where there is one."""

    config: RunConfig
    folder: RunFolder
    runtime: Runtime
    model: GPT | Bigram
    parent: Run | None


class TrainingStage(ABC):
    """One stage of training. The constructor opens the data, :meth:`setup` makes what the loop needs of a model.

    Attributes set by the constructor:
        tokenizer: of the run.
        sample_prompts: what the samples shown at each evaluation continue, as (text to show, text or token ids).
        end_ids: token ids that end such a sample.
        data_summary: what run.json says of the data; ``sha256`` identifies it.
        notes: lines to show when training begins.

    Attributes set by :meth:`setup`:
        objective: owns the model and turns a batch into a summed loss.
        batches: the batches of each step.
        extra_optimizers: of parameters that the objective has beside its model.
    """

    evaluate_first: ClassVar[bool] = False
    """Whether to evaluate before the first step, as a baseline."""

    tokenizer: Tokenizer
    sample_prompts: list[tuple[str, str | list[int]]]
    end_ids: frozenset[int]
    data_summary: dict[str, Any]
    notes: list[str]
    objective: Objective
    batches: BatchSource

    @abstractmethod
    def __init__(self, config: RunConfig, tokenizer: Tokenizer | None) -> None:
        """Open the data of ``config``. ``tokenizer`` is the parent's, with the tokens of the chat format where the stage
        adds them; None where there is no parent.

        Raises:
            ValueError: no such data, or nothing in it to train on.
        """
        self.config = config
        self.sample_prompts, self.end_ids = [], frozenset()
        self.data_summary, self.notes = {}, []
        self.extra_optimizers: list[torch.optim.Optimizer] = []

    @abstractmethod
    def setup(self, context: StageContext) -> None:
        """Make ``objective`` and ``batches``."""

    @abstractmethod
    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        """The validation loss over all processes, and what else was measured, by metric name."""

    def on_best(self, step: int) -> None:  # noqa: B027 - most stages keep nothing
        """Called on the main process when the checkpoint of ``step`` becomes the one to use."""


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


def by_sample(rows: Rows, context: StageContext) -> StatelessSource:
    """The micro-batches of a step: the samples that follow those of the steps before, shared by the processes."""
    config, runtime = context.config, context.runtime
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


def existing_data(config: RunConfig) -> Path:
    """The path of the run's data.

    Raises:
        ValueError: it does not exist; the message gives the command that prepares it.
    """
    path = Path(config.data.path)
    if path.exists():
        return path
    if config.info.data == "text":
        size = f" --vocab-size {config.tokenizer.vocab_size}" if config.tokenizer.vocab_size else ""
        options = f"--tokenizer {config.tokenizer.kind or 'bpe'}{size}"
    else:
        options = f"--kind {config.info.data}"
    raise ValueError(
        f"there is no data in {path}; prepare it first: "
        f"`understudy prepare {config.data.source or 'SOURCE'} {options} --out {path}`"
    )
