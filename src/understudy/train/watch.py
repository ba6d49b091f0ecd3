"""What happens between the steps of the loop: evaluating, sampling, saving, logging, and deciding to stop.

Time spent here is not counted as training. Not here: the loop, and what a stage trains.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch

from understudy.config import RunConfig
from understudy.evaluate.alignment import draw_overoptimisation
from understudy.evaluate.loss import LossResult
from understudy.evaluate.plots import loss_plot
from understudy.evaluate.runner import run_task
from understudy.evaluate.tasks import find_task
from understudy.evaluate.wording import LOSSES
from understudy.inference.engine import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT, Bigram
from understudy.run import RunFolder
from understudy.runtime import Runtime
from understudy.train.checkpoint import save_checkpoint
from understudy.train.loop import Progress, Trainer, lr_of
from understudy.train.material import Course, Material
from understudy.train.metrics import Metrics, memory_bytes, read_metrics


class Watcher:
    """Evaluates, samples, saves and logs between the steps of the loop."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, trainer: Trainer, material: Material, course: Course,
        metrics: Metrics, about: dict[str, Any], asked: dict[str, int],
    ) -> None:  # fmt: skip
        self.config, self.folder, self.trainer, self.material, self.course = config, folder, trainer, material, course
        self.metrics, self.about, self.asked = metrics, about, asked
        self.tasks = [find_task(name) for name in config.eval.tasks]
        self.accuracy: dict[str, float] = {}
        self.beside: dict[str, float] = {}  # what the judge measured beside the loss
        self.evaluated: tuple[int, LossResult] | None = None
        self.interrupted = False

    def before(self) -> None:
        """Evaluate the beginning of a new run, where the stage wants the end held against it."""
        if not self.material.evaluate_first:
            return
        if self.trainer.runtime.any(self.trainer.progress.step > 0 or bool(read_metrics(self.folder.metrics))):
            return
        result = self._evaluate()
        self.metrics.write({
            "step": 0, "tokens": 0, "train_seconds": 0.0, "val/loss": result.loss, **self.beside, **self.accuracy,
        })  # fmt: skip

    def due(self, progress: Progress) -> bool:
        # Decided here once for all processes: a signal that comes later waits for the next step that can be saved.
        at_rest = self.trainer.source.at_rest(progress.step)
        self.interrupted = self.trainer.runtime.any("signal" in self.asked) and at_rest
        if self.interrupted:
            return True
        config, step = self.config, progress.step
        every = (config.log.every_steps, config.eval.every_steps, config.checkpoint.every_steps)
        return any(n and step % n == 0 for n in every) or self._enough(progress)

    def _enough(self, progress: Progress) -> bool:
        tokens = self.config.train.stop_at_tokens
        return tokens is not None and progress.tokens >= tokens

    def after_step(self, progress: Progress, measured: dict[str, float]) -> bool:
        config, trainer, step = self.config, self.trainer, progress.step
        runtime = trainer.runtime
        seconds = config.train.stop_at_seconds
        out_of_time = runtime.any(seconds is not None and progress.train_seconds >= seconds)
        enough = (out_of_time or self._enough(progress)) and trainer.source.at_rest(step)
        stop = self.interrupted or enough or step >= trainer.total_steps
        now_bytes, peak_bytes = memory_bytes(runtime.device)
        if not math.isfinite(loss := measured.get("train/loss", 0.0)):  # there is none where no step was taken
            raise ValueError(
                f"the loss is {loss} at step {step}; start again with a lower "
                "optim.lr or optim.grad_clip; earlier checkpoints are kept"
            )
        row: dict[str, float] = {
            "step": step, "tokens": progress.tokens, "train_seconds": progress.train_seconds,
            "lr": lr_of(trainer.optimizers), **measured, "memory_bytes": now_bytes, "memory_peak_bytes": peak_bytes,
        }  # fmt: skip
        if (peak := peak_flops(runtime)) is not None:
            per_token = trainer.objective.model.flops_per_token()
            row["mfu"] = measured["tokens_per_second"] * per_token / (peak * runtime.world_size)
        is_best = False
        every = config.eval.every_steps
        if not self.interrupted and (stop or (every and step % every == 0)):
            result = self._evaluate()
            row |= {"val/loss": result.loss, **self.beside, **self.accuracy}
            if progress.best_loss is None or result.loss < progress.best_loss:
                progress.best_loss, is_best = result.loss, config.checkpoint.best
            target = config.train.stop_at_loss
            stop = stop or (target is not None and result.loss <= target)
        if runtime.is_main:
            self.metrics.write(row)
            every = config.checkpoint.every_steps
            if is_best or (stop and not config.checkpoint.best and not self.interrupted):
                self.course.keep(step)
            if is_best or stop or (every and step % every == 0):
                save_checkpoint(self.folder, trainer, self.about, config.checkpoint.keep, is_best)
        runtime.barrier()
        return stop

    def _evaluate(self) -> LossResult:
        config, trainer = self.config, self.trainer
        batch_size = config.eval.batch_size or config.train.micro_batch_size or 1
        model, runtime = trainer.objective.model, trainer.runtime
        with trainer.ema.applied() if trainer.ema else contextlib.nullcontext():
            result, self.beside = self.course.judge(trainer.objective, batch_size)
            if runtime.is_main:
                self._sample(model)
                self._run_tasks(model)
        self.evaluated = (trainer.progress.step, result)
        return result

    def _run_tasks(self, model: GPT | Bigram) -> None:
        runtime, limit = self.trainer.runtime, self.config.eval.task_examples
        results = {
            task.name: run_task(task, model, self.material.tokenizer, runtime, limit=limit).accuracy
            for task in self.tasks
        }
        self.accuracy = {f"accuracy/{name}": accuracy for name, accuracy in results.items()}
        if results:
            self.accuracy["accuracy"] = sum(results.values()) / len(results)

    def _sample(self, model: GPT | Bigram) -> None:
        log, step, material = self.config.log, self.trainer.progress.step, self.material
        if not material.prompts:
            return
        answers = self.config.stage != "pretrain"  # the likeliest answer can be compared from step to step
        settings = SamplingSettings(temperature=0.0 if answers else 0.8, seed=self.config.train.seed)
        completions = generate_text(
            model, material.tokenizer, [prompt for _, prompt in material.prompts], log.sample_tokens, settings,
            end_ids=material.ends,
        )  # fmt: skip
        shown = [shown + completion.text for (shown, _), completion in zip(material.prompts, completions)]
        self.metrics.text("samples", "\n---\n".join(shown), step)

    def finish(self) -> LossResult:
        """Write what closes a run, and return the final evaluation."""
        step, result = self.evaluated or (None, None)
        if result is None or step != self.trainer.progress.step:
            result = self._evaluate()  # a resumed run that had nothing left to do
        if self.trainer.runtime.is_main:
            rows = read_metrics(self.folder.metrics)
            stage = self.config.stage
            loss_plot({self.folder.name: rows}, self.folder.path / "loss.png", LOSSES.get(stage, "loss (nats a token)"))
            draw_overoptimisation(self.folder.path, rows, self.config.model_dump())
        return result


PEAK_FLOPS = {  # dense bf16, from the makers' data sheets
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12, "T4": 65e12, "V100": 125e12, "B200": 2250e12,
}  # fmt: skip


def peak_flops(runtime: Runtime) -> float | None:
    """Floating-point operations a second of the device's matrix units, where its maker states them; else None."""
    if runtime.device.type != "cuda" or runtime.dtype == torch.float32:
        return None
    name = torch.cuda.get_device_name(runtime.device)
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)
