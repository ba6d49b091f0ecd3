"""Between the steps of the loop: evaluation, samples, checkpoints, logging, and the decision to stop.

This time is not counted as training. Not here: the loop, and the objective of a stage.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

import torch

from understudy.config.run import RunConfig
from understudy.evaluation.loss import LossResult
from understudy.evaluation.runner import run_task
from understudy.evaluation.tasks import find_task
from understudy.inference.generate import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT, Bigram
from understudy.run import RunFolder, read_metrics
from understudy.runtime import Runtime, autocast_of
from understudy.train.checkpoint import save_checkpoint
from understudy.train.loop import StepCallback, Trainer, TrainingProgress
from understudy.train.metrics import TrainingMetrics, memory_bytes
from understudy.train.stage import TrainingStage

SIGNAL_STEPS = 10
"""Steps between two exchanges of signals among several processes; each exchange waits for the device."""


class StopSignals:
    """Whether Ctrl-C or SIGTERM was ``received`` inside :meth:`caught`; the second one acts at once."""

    received = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[Self]:
        handlers: dict[int, Any] = {}

        def receive(number: int, frame: FrameType | None) -> None:
            self.received = True
            signal.signal(number, handlers[number])

        if threading.current_thread() is threading.main_thread():  # only the main thread receives signals
            for number in (signal.SIGINT, signal.SIGTERM):
                handlers[number] = signal.signal(number, receive)
        try:
            yield self
        finally:
            for caught, handler in handlers.items():
                signal.signal(caught, handler)


class Evaluator(StepCallback):
    """Evaluates, samples, saves and logs between the steps of the loop.

    Attributes:
        interrupted: whether the run stops because of a signal.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, trainer: Trainer, stage: TrainingStage,
        metrics: TrainingMetrics, record: dict[str, Any], signals: StopSignals,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.trainer, self.stage = config, folder, trainer, stage
        self.metrics, self.record, self.signals = metrics, record, signals
        self.runtime = trainer.runtime
        self.tasks = [find_task(name) for name in config.eval.tasks]
        self.interrupted = False
        self._evaluated: tuple[int, LossResult] | None = None  # a step and its validation loss
        self._signals_read = trainer.progress.step

    def is_due(self, progress: TrainingProgress) -> bool:
        config, step = self.config, progress.step
        every = (config.log.every_steps, config.eval.every_steps, config.checkpoint.every_steps)
        due = any(n and step % n == 0 for n in every) or self._reached_tokens()
        if self.trainer.source.can_checkpoint(step):
            self.interrupted = self._any_signal(step, due)
        return due or self.interrupted

    def _any_signal(self, step: int, due: bool) -> bool:
        """Whether a process received a signal. Decided here once for all processes."""
        if self.runtime.world_size == 1:
            return self.signals.received
        if not due and step - self._signals_read < SIGNAL_STEPS:
            return False
        self._signals_read = step
        return self.runtime.any(self.signals.received)

    def _reached_tokens(self) -> bool:
        limit = self.config.train.stop_at_tokens
        if limit is None:
            return False
        self.trainer.read_tokens()
        return self.trainer.progress.tokens >= limit

    def after_step(self, progress: TrainingProgress, metrics: dict[str, float]) -> bool:
        config, trainer, step = self.config, self.trainer, progress.step
        seconds = config.train.stop_at_seconds
        reached_limit = seconds is not None and self.runtime.any(progress.train_seconds >= seconds)
        reached_limit = reached_limit or self._reached_tokens()
        last = step >= trainer.total_steps or (reached_limit and trainer.source.can_checkpoint(step))
        stop = last or self.interrupted
        if "train/loss" in metrics:  # a skipped step has none
            check_loss("loss", metrics["train/loss"], step)
        row = self._row(metrics)
        is_best = False
        if not self.interrupted and (last or _every(config.eval.every_steps, step)):
            result, evaluation = self.evaluate()
            row |= evaluation
            if progress.best_loss is None or result.loss < progress.best_loss:
                progress.best_loss, is_best = result.loss, config.checkpoint.best
            target = config.train.stop_at_loss
            stop = stop or (target is not None and result.loss <= target)
        if self.runtime.is_main:
            self.metrics.write(row)
            if is_best or (stop and not config.checkpoint.best and not self.interrupted):
                self.stage.on_best(step)
            if is_best or stop or _every(config.checkpoint.every_steps, step):
                save_checkpoint(self.folder, trainer, self.record, config.checkpoint.keep, is_best)
        self.runtime.barrier()
        return stop

    def _row(self, metrics: dict[str, float]) -> dict[str, float]:
        """The line of metrics.jsonl for the current step, without an evaluation."""
        trainer, progress = self.trainer, self.trainer.progress
        used, peak = memory_bytes(self.runtime.device)
        row: dict[str, float] = {
            "step": progress.step, "tokens": progress.tokens, "train_seconds": progress.train_seconds,
            "lr": trainer.optimizers[0].param_groups[0]["lr"], **metrics, "memory_bytes": used, "memory_peak_bytes": peak,
        }  # fmt: skip
        if (flops := peak_flops(self.runtime)) is not None:
            per_token = trainer.objective.model.flops_per_token()
            row["mfu"] = metrics["tokens_per_second"] * per_token / (flops * self.runtime.world_size)
        return row

    def evaluate_baseline(self) -> None:
        """Evaluate before the first step of a new run, if the stage asks for it."""
        begun = self.trainer.progress.step > 0 or bool(read_metrics(self.folder.metrics))
        if self.stage.evaluate_first and not self.runtime.any(begun):
            _, evaluation = self.evaluate()
            self.metrics.write({"step": 0, "tokens": 0, "train_seconds": 0.0, **evaluation})

    def evaluate(self) -> tuple[LossResult, dict[str, float]]:
        """The validation loss, and all metrics of the evaluation by name. Also shows samples.

        Raises:
            ValueError: a loss that is not finite.
        """
        config, trainer = self.config, self.trainer
        batch_size = config.eval.batch_size or config.train.micro_batch_size or 1
        with trainer.ema.applied() if trainer.ema else contextlib.nullcontext():
            result, further = self.stage.evaluate(batch_size)
            check_loss("validation loss", result.loss, trainer.progress.step)
            self._sample(trainer.objective.model)
            accuracies = self._run_tasks(trainer.objective.model)
        self._evaluated = trainer.progress.step, result
        return result, {"val/loss": result.loss, **further, **accuracies}

    def _run_tasks(self, model: GPT | Bigram) -> dict[str, float]:
        """The accuracy of each task, and their mean."""
        tokenizer, limit = self.stage.tokenizer, self.config.eval.task_examples
        metrics = {
            f"accuracy/{task.name}": run_task(task, model, tokenizer, self.runtime, limit).headline.value
            for task in self.tasks
        }
        return metrics | ({"accuracy": sum(metrics.values()) / len(metrics)} if metrics else {})

    def _sample(self, model: GPT | Bigram) -> None:
        """Show the continuations of the stage's prompts, divided over the processes."""
        runtime, prompts = self.runtime, self.stage.sample_prompts
        # Text is sampled. Of an answer the likeliest is shown, which can be compared from step to step.
        temperature = 0.8 if self.config.info.data == "text" else 0.0
        numbers = list(range(runtime.rank, len(prompts), runtime.world_size))
        texts: list[str] = []
        if numbers:
            completions = generate_text(
                model, self.stage.tokenizer, [prompts[number][1] for number in numbers], self.config.log.sample_tokens,
                SamplingSettings(temperature=temperature, seed=self.config.train.seed), end_ids=self.stage.end_ids,
                numbers=numbers, autocast=autocast_of(runtime),
            )  # fmt: skip
            texts = [prompts[number][0] + completion.text for number, completion in zip(numbers, completions)]
        if texts := runtime.gather_shards(texts):
            self.metrics.samples("\n---\n".join(texts), self.trainer.progress.step)

    def final_result(self) -> LossResult:
        """The validation loss at the end of the run."""
        if self._evaluated is None or self._evaluated[0] != self.trainer.progress.step:
            return self.evaluate()[0]  # a resumed run that had no step left
        return self._evaluated[1]


def check_loss(name: str, loss: float, step: int) -> None:
    """Refuse a loss that is not finite, by a ValueError."""
    if not math.isfinite(loss):
        raise ValueError(
            f"the {name} is {loss} at step {step}; start again with a lower optim.lr or optim.grad_clip; earlier "
            "checkpoints are kept"
        )


def _every(steps: int, step: int) -> bool:
    return bool(steps) and step % steps == 0


PEAK_FLOPS = {  # dense bf16, from the makers' data sheets
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12, "T4": 65e12, "V100": 125e12, "B200": 2250e12,
}  # fmt: skip


def peak_flops(runtime: Runtime) -> float | None:
    """Floating-point operations per second of the device's matrix units, if its maker states them."""
    if runtime.device.type != "cuda" or runtime.dtype == torch.float32:
        return None
    name = torch.cuda.get_device_name(runtime.device)
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)
