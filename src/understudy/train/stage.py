"""The contract of a training stage: its data, its objective, its batches and its evaluation.

Not here: the stages themselves (stages/), the model, the loop.
"""

from __future__ import annotations

import contextlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from understudy.config.run import RunConfig
from understudy.data.loader import Batch
from understudy.data.text.shards import data_folder, prepare_options
from understudy.evaluation.loss import LossResult
from understudy.model import GPT, Bigram
from understudy.run import Run, RunFolder
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, render
from understudy.train.loop import BatchSource
from understudy.train.objective import Objective

FETCH_AHEAD = 8
"""Steps whose rows are fetched before they are needed."""


class Rows(Protocol):
    """An endless sequence of samples, each a pure function of data, seed and index."""

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size``."""
        ...


@runtime_checkable
class FetchedRows(Rows, Protocol):
    """Rows of which some may lie in an object store. ``fetched``: whether some do."""

    @property
    def fetched(self) -> bool: ...

    def prefetch(self, first: int, size: int) -> None:
        """Fetch what samples ``first`` to ``first + size`` need."""
        ...


@dataclass(frozen=True)
class StageContext:
    """The input of a stage's setup. ``model`` has its first weights, those of ``parent`` if there is one."""

    config: RunConfig
    folder: RunFolder
    runtime: Runtime
    model: GPT | Bigram
    parent: Run | None


class TrainingStage(ABC):
    """One stage of training. The constructor opens the data, :meth:`setup` makes the objective and its batches.

    Attributes set by the constructor:
        tokenizer: of the run.
        sample_prompts: prompts of the samples shown at each evaluation, as (text to show, text or token ids).
        end_ids: token ids that end such a sample.
        data_summary: the description of the data in run.json; ``sha256`` identifies it.
        notes: lines to show when training begins.
        tokens_per_sample: most tokens that a forward of one sample reads, for the memory plan.
        epoch_samples: samples of training batches in one pass over the training data.

    Attributes set by :meth:`setup`:
        objective: owns the model and turns a batch into a summed loss.
        batches: the micro-batches of each step.
        extra_optimizers: of parameters that the objective has beside its model.
        start_seconds: of computing first weights from the data, which counts as training.
    """

    evaluate_first: ClassVar[bool] = False
    """Whether to evaluate before the first step, as a baseline."""

    tokenizer: Tokenizer
    sample_prompts: list[tuple[str, str | list[int]]]
    end_ids: frozenset[int]
    data_summary: dict[str, Any]
    notes: list[str]
    tokens_per_sample: int
    epoch_samples: int
    objective: Objective
    batches: BatchSource

    @abstractmethod
    def __init__(self, config: RunConfig, tokenizer: Tokenizer | None) -> None:
        """Open the data of ``config``.

        Args:
            tokenizer: of the parent, with the chat tokens if the stage adds them; None without a parent.

        Raises:
            ValueError: no such data, or no sample that fits.
        """
        self.config = config
        self.sample_prompts, self.end_ids = [], frozenset()
        self.data_summary, self.notes = {}, []
        self.tokens_per_sample = config.model.context_length
        self.extra_optimizers: list[torch.optim.Optimizer] = []
        self.start_seconds = 0.0

    @abstractmethod
    def setup(self, context: StageContext) -> None:
        """Make ``objective`` and ``batches``."""

    @abstractmethod
    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        """The validation loss over all processes, and further metrics by name. All processes call it and take part."""

    def on_best(self, step: int) -> None:  # noqa: B027 - most stages write nothing
        """Called on the main process when the checkpoint of ``step`` becomes the best."""


def shown_prompts(
    config: RunConfig, tokenizer: Tokenizer, questions: Iterable[Sequence[Message]]
) -> list[tuple[str, str | list[int]]]:
    """Prompts for samples: log.prompts, else the first of ``questions``; those that fill the context are left out."""
    conversations = [[{"role": "user", "content": prompt}] for prompt in config.log.prompts] or questions
    prompts = [
        (f"user: {messages[-1]['content']}\nassistant: ", render(tokenizer, list(messages), reply=True).tokens)
        for messages in islice(conversations, config.log.samples)
    ]
    return [(text, tokens) for text, tokens in prompts if len(tokens) < config.model.context_length]


class IndexedBatches(BatchSource):
    """Micro-batches of consecutive samples: step k has samples k * batch_size and following, shared by the processes.

    A thread reads one step ahead. Samples are a pure function of their index, so that this changes none. Of rows that have
    to be fetched, another thread fetches those of the FETCH_AHEAD steps that follow.
    """

    def __init__(self, rows: Rows, context: StageContext) -> None:
        self.rows, self.batch_size = rows, context.config.train.batch_size
        self.per_process = samples_per_process(context.config, context.runtime)
        self.rank, self.micro_batch_size = context.runtime.rank, micro_batch_size(context.config)
        self.thread = ThreadPoolExecutor(1, "batches")
        self.ahead: tuple[int, Future[list[Batch]]] | None = None
        self.fetcher = ThreadPoolExecutor(1, "fetch") if isinstance(rows, FetchedRows) and rows.fetched else None
        self.fetching: Future[None] | None = None

    def batches(self, step: int) -> list[Batch]:
        """The batches of a step. Those of the next one are read meanwhile, so that a step does not wait for the disk."""
        step_ahead, batches_ahead = self.ahead or (-1, None)
        batches = batches_ahead.result() if batches_ahead and step_ahead == step else self._read(step)
        self.ahead = (step + 1, self.thread.submit(self._read, step + 1))
        if self.fetcher is not None and (self.fetching is None or self.fetching.done()):
            self.fetching = self.fetcher.submit(self._fetch, step + 2)
        return batches

    def _fetch(self, step: int) -> None:
        """Fetch what the steps from ``step`` on need. What fails here fails again when it is read, and is told then."""
        assert isinstance(self.rows, FetchedRows)
        with contextlib.suppress(ValueError):
            for following in range(step, step + FETCH_AHEAD):
                self.rows.prefetch(self._first(following), self.per_process)

    def _first(self, step: int) -> int:
        """The first sample of this process in a step."""
        return step * self.batch_size + self.rank * self.per_process

    def _read(self, step: int) -> list[Batch]:
        first = self._first(step)
        starts = range(first, first + self.per_process, self.micro_batch_size)
        return [self.rows.batch(start, self.micro_batch_size) for start in starts]


def samples_per_process(config: RunConfig, runtime: Runtime) -> int:
    """The samples of a step that one process takes.

    Raises:
        ValueError: the batch cannot be divided evenly by the processes, or their share by the micro-batch.
    """
    batch_size, processes, micro = config.train.batch_size, runtime.world_size, config.train.micro_batch_size
    if batch_size % processes:
        raise ValueError(f"train.batch_size {batch_size} cannot be shared by {processes} processes; choose a multiple")
    per_process = batch_size // processes
    if micro and per_process % micro:
        raise ValueError(
            f"each of {processes} processes takes {per_process} samples a step, and train.micro_batch_size {micro} does "
            "not divide that; choose a divisor"
        )
    return per_process


def micro_batch_size(config: RunConfig) -> int:
    """The micro-batch, which the runner fills in before it sets up a stage."""
    if config.train.micro_batch_size is None:
        raise ValueError("train.micro_batch_size is not set; it is chosen by the runner")
    return config.train.micro_batch_size


def existing_data(config: RunConfig) -> list[Path]:
    """The path of the run's data, or the paths of a mixture.

    Raises:
        ValueError: one does not exist; the message gives the command that prepares it.
    """
    given = [part.path for part in config.data.mixture or ()] or [config.data.path]
    # Only text may lie in an object store.
    paths = [data_folder(path) if config.info.data == "text" else Path(path) for path in given]
    path = next((path for path in paths if not path.exists()), None)
    if path is None:
        return paths
    options = prepare_options(config) if config.info.data == "text" else ["--kind", config.info.data]
    command = ["understudy", "prepare", config.data.source or "SOURCE", *options, "--out", str(path)]
    raise ValueError(f"there is no data in {path}; prepare it first: `{shlex.join(command)}`")
