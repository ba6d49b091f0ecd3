"""A run from its first weights to its last evaluation, the same for all stages.

Not here: the loop (loop.py), the work between its steps (evaluator.py), and the stages.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import understudy
from understudy.config.run import SECTIONS, RunConfig
from understudy.evaluation.loss import LossResult
from understudy.files import now
from understudy.model import GPT, Bigram, build_model
from understudy.model.lora import hold_frozen_weights
from understudy.optim import build_optimizers, lr_factor
from understudy.run import Run, RunFolder, load_run, read_metrics
from understudy.runtime import Runtime, start_runtime
from understudy.tokenizer import Tokenizer
from understudy.train.checkpoint import load_checkpoint
from understudy.train.evaluator import Evaluator, StopSignals
from understudy.train.init_from import load_reference, start_from
from understudy.train.length import StepCost, asked_length, fit_batch, plan_length, probe_seconds, with_length
from understudy.train.loop import ExponentialMovingAverage, Trainer, TrainingProgress, new_scaler
from understudy.train.memory import free_bytes, largest_micro_batch
from understudy.train.metrics import TrainingMetrics
from understudy.train.objective import Objective
from understudy.train.stage import StageContext, TrainingStage, samples_per_process
from understudy.train.trackers import require_trackers


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal; its state is saved."""


@dataclass(frozen=True, repr=False)
class Result:
    """A finished training. ``final``: its last validation loss."""

    folder: RunFolder
    progress: TrainingProgress
    final: LossResult
    parameters: int
    is_main: bool

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl: ``step``, ``train/loss`` and so on, and ``val/loss`` where it was evaluated."""
        return read_metrics(self.folder.metrics)

    def load(self, checkpoint: str = "best") -> Run:
        """The trained model with its tokenizer; see :func:`understudy.run.load_run`."""
        return load_run(self.folder.path, checkpoint)

    def __repr__(self) -> str:
        steps, loss = f"{self.progress.step:,} steps", f"validation loss {self.final.loss:.4f}"
        return f"<{self.folder.path}: {self.parameters:,} parameters, {steps}, {loss}>"


def train(
    stage: TrainingStage, config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None,
    measure_free_bytes: Callable[[Runtime], int] = free_bytes,
) -> Result:  # fmt: skip
    """Train a stage: build the model, run the loop, save, and evaluate at the end.

    Args:
        measure_free_bytes: of this process; the least of all processes decides the micro-batch.

    Raises:
        ValueError: data, folder or settings do not fit together.
        Interrupted: stopped by a signal; everything is saved.
    """
    require_trackers(config.log)
    if resume and config.init_from and not folder.steps():  # stopped before its first checkpoint
        parent = load_reference(folder)
    config = _with_vocabulary(config, stage.tokenizer)
    settings = config.train
    with (
        start_runtime(settings.device, settings.dtype, settings.seed, settings.deterministic) as runtime,
        StopSignals().caught() as signals,
    ):
        config = _with_micro_batch(config, runtime, stage, measure_free_bytes)
        model = _first_model(config, stage, runtime, parent)
        with folder.locked() if runtime.is_main else contextlib.nullcontext():
            record = _open_folder(folder, config, stage, runtime, _record(config, stage, parent, model), resume)
            context = StageContext(config, folder, runtime, model, parent)
            stage.setup(context)
            optim = config.optim
            trainer = Trainer(
                stage.objective, [*build_optimizers(model, optim), *stage.extra_optimizers], stage.batches,
                lambda step: lr_factor(config.optim, step, config.train.steps), runtime,
                TrainingProgress(train_seconds=stage.start_seconds),
                config.train.steps, optim.grad_clip,
                new_scaler(runtime),
                ExponentialMovingAverage(model, optim.ema) if optim.ema else None,
            )  # fmt: skip
            if resume and folder.steps():
                load_checkpoint(folder.checkpoint("latest"), trainer)
            trainer.compiled, decision = compile_objective(
                trainer.objective, settings.compile, runtime,
                lambda: trainer.source.batches(trainer.progress.step)[0], config.info.fixed_shapes,
            )  # fmt: skip
            if length := asked_length(config):
                config = _plan(context, trainer, stage)
                record = {**record, "length": length}
                if runtime.is_main:
                    folder.set_length(config, record)
            with TrainingMetrics(
                folder, config.log, config.train.steps, trainer.progress.step if resume else None,
                quiet=not runtime.is_main, config=config.model_dump(mode="json"),
            ) as metrics:  # fmt: skip
                reasons = runtime.reasons | {"compile": decision}
                for note in (*(f"{name}: {reason}" for name, reason in reasons.items()), *stage.notes):
                    metrics.note(note)
                evaluator = Evaluator(config, folder, trainer, stage, metrics, record, signals)
                evaluator.evaluate_baseline()
                trainer.run(evaluator)
                if evaluator.interrupted:
                    raise Interrupted(
                        f"interrupted at step {trainer.progress.step}; it is saved; continue with --resume, or start the demo again"
                    )
                final = evaluator.final_result()
    return Result(folder, trainer.progress, final, record["parameters"], runtime.is_main)


def _with_vocabulary(config: RunConfig, tokenizer: Tokenizer) -> RunConfig:
    """The configuration with the vocabulary of the tokenizer, unless it sets a larger one."""
    vocab_size = config.model.vocab_size
    if vocab_size is not None and vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size {vocab_size} is smaller than the tokenizer's {tokenizer.vocab_size}; leave it out to take "
            "that"
        )
    model = config.model.model_copy(update={"vocab_size": vocab_size or tokenizer.vocab_size})
    return config.model_copy(update={"model": model})


def _with_micro_batch(
    config: RunConfig, runtime: Runtime, stage: TrainingStage, measure_free_bytes: Callable[[Runtime], int]
) -> RunConfig:
    """The configuration with its micro-batch, which is saved so that a resumed run adds up in the same order."""
    micro = config.train.micro_batch_size
    if micro is None:
        micro = largest_micro_batch(config, runtime, measure_free_bytes(runtime), stage.tokens_per_sample)
    config = config.model_copy(update={"train": config.train.model_copy(update={"micro_batch_size": micro})})
    samples_per_process(config, runtime)  # refuses a batch that cannot be divided
    return config


def _plan(context: StageContext, trainer: Trainer, stage: TrainingStage) -> RunConfig:
    """The configuration with the steps that the asked length comes to; the trainer and the stage take it over."""
    config, seconds = context.config, probe_seconds(context.config)
    cost = StepCost(*trainer.time_steps(seconds), stage.start_seconds)
    smaller = fit_batch(config, cost, context.runtime.world_size)
    if smaller.train.batch_size != config.train.batch_size:
        stage.setup(replace(context, config=smaller))
        trainer.source = stage.batches
        cost = StepCost(*trainer.time_steps(seconds), stage.start_seconds)
        stage.notes.append(
            f"batches of {smaller.train.batch_size} instead of {config.train.batch_size}, since the training is short"
        )
    config, line = plan_length(smaller, cost, stage.epoch_samples)
    stage.notes.append(line)
    stage.config, trainer.total_steps = config, config.train.steps
    if config.data.mixture is not None:  # whose weights may change at steps
        stage.setup(replace(context, config=config))
        trainer.source = stage.batches
    return config


def _first_model(config: RunConfig, stage: TrainingStage, runtime: Runtime, parent: Run | None) -> GPT | Bigram:
    """The model with its first weights, random or the parent's."""
    torch.manual_seed(config.train.seed)
    model = build_model(config.model).to(runtime.device)
    if parent:
        stage.notes.extend(start_from(model, parent, stage.tokenizer))
        parent.model.to("meta")  # the parent's weights are not needed again, and their memory is
    if config.model.lora and runtime.dtype == torch.bfloat16:
        hold_frozen_weights(model, runtime.dtype)
    model.set_activation_checkpointing(config.train.activation_checkpointing)
    return model


def _record(config: RunConfig, stage: TrainingStage, parent: Run | None, model: GPT | Bigram) -> dict[str, Any]:
    """The content of run.json, which every checkpoint repeats: versions, data and parent."""
    return {
        "stage": config.stage,
        "understudy": understudy.__version__,
        "torch": torch.__version__,
        "created": now(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "tokenizer_sha256": stage.tokenizer.sha256,
        "data": stage.data_summary,
        "parent": None if parent is None else {
            "run": str(parent.path), "step": parent.step, "sha256": parent.state["weights_sha256"],
        },
    }  # fmt: skip


def _open_folder(
    folder: RunFolder, config: RunConfig, stage: TrainingStage, runtime: Runtime, record: dict[str, Any], resume: bool
) -> dict[str, Any]:
    """Create the folder of a new run, or check that of a resumed one; returns its record.

    Raises:
        ValueError: a folder that is taken, or a run that was trained on other data.
    """
    if resume:
        saved = folder.record()
        for name, before, after in (
            ("tokenizer", saved["tokenizer_sha256"], record["tokenizer_sha256"]),
            ("text", saved["data"]["sha256"], record["data"]["sha256"]),
        ):
            if before != after:
                raise ValueError(
                    f"the {name} in {config.data.path} is not what the run {folder.path} was trained on; restore it, or "
                    f"start a new run with --init-from {folder.as_argument()}"
                )
        record = saved
    elif runtime.is_main:
        if folder.exists() or folder.steps():
            raise ValueError(
                f"the folder {folder.path} already holds a run; continue it with --resume, or choose another --run"
            )
        folder.create(config, stage.tokenizer, record)
    runtime.barrier()
    return record


CHANGING_SHAPES = "off, since batches of this stage change their shape and each shape would be compiled anew"


MOST_COMPILED_DIFFERENCE = 0.1
"""Largest difference of a compiled model's gradients from the plain one's, relative to their norm; bf16 gives up to 0.03."""


def _gradients(module: nn.Module, batch: dict[str, Tensor], runtime: Runtime) -> Tensor:
    """All gradients of the mean loss of a batch as one vector."""
    with runtime.autocast():
        loss, _ = module(batch)
    trained = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss / len(batch["tokens"]), trained, allow_unused=True)
    return torch.cat([g.float().flatten() for g in gradients if g is not None])


@contextlib.contextmanager
def _no_zero_weights(module: nn.Module) -> Iterator[None]:
    """A context in which matrices of zeros are random, since behind them all gradients are zero, right or wrong."""
    zeros = [p for p in module.parameters() if p.ndim > 1 and not p.any()]
    with torch.no_grad():
        for parameter in zeros:
            nn.init.normal_(parameter, std=0.02)
        try:
            with torch.enable_grad():
                yield
        finally:
            for parameter in zeros:
                parameter.zero_()


def compile_objective(
    objective: Objective, mode: str, runtime: Runtime, first_batch: Callable[[], dict[str, Tensor]],
    fixed_shapes: bool = True,
) -> tuple[nn.Module | None, str]:  # fmt: skip
    """Compile an objective, and compare its gradients of the first batch with those without compiling.

    ``auto`` compiles on CUDA only: on a CPU the small models that a CPU can train gained less than the minute that
    compiling takes (benchmarks/README.md). ``on`` compiles anywhere. Only stages with ``fixed_shapes`` are compiled.

    Returns:
        The compiled module, which shares the parameters of the objective, or None; and the decision with its reason.

    Raises:
        ValueError: ``on``, and it cannot be compiled here.
    """
    if mode == "off":
        return None, "off, as asked"
    if not fixed_shapes:
        return None, CHANGING_SHAPES
    if mode == "auto" and runtime.device.type != "cuda":
        return None, f"off, since on {runtime.device.type} it rarely pays; --train.compile on tries it"
    dropout = any(isinstance(module, nn.Dropout) and module.p for module in objective.modules())
    compiled: nn.Module = torch.compile(objective)  # type: ignore[assignment]  # a module for a module
    error: Exception | None = None
    try:
        batch = {name: tensor.to(runtime.device) for name, tensor in first_batch().items()}
        with _no_zero_weights(objective):
            plain, fast = (_gradients(module, batch, runtime) for module in (objective, compiled))
        difference = float((plain - fast).norm() / plain.norm())
        if not difference < MOST_COMPILED_DIFFERENCE and not (dropout and math.isfinite(difference)):
            raise RuntimeError("the compiled model's gradients are wrong")
    except RuntimeError as failure:  # the base of all errors of the compiler
        error = failure
    if not runtime.any(error is not None):  # all processes train the same code
        return compiled, "on"
    reason = str(error).strip().splitlines()[0] if error else "another process could not compile"
    if mode == "on":
        raise ValueError(f"train.compile is on, and the model cannot be compiled here ({reason}); use auto") from error
    return None, f"off, since it failed here: {reason}"


RESUMABLE_CHANGES = ("device", "micro_batch_size", "stop_at_tokens", "stop_at_seconds", "stop_at_loss", "compile")
"""Settings of ``train`` that a resumed run may change, since they do not change its steps but for rounding."""


def check_resume(saved: RunConfig, requested: RunConfig, length: dict[str, Any] | None = None) -> RunConfig:
    """The configuration to resume with: the saved one, with the requested settings that do not change its steps.

    Args:
        length: the minutes, tokens or epochs, by name, from which the steps of the saved one were planned.

    Raises:
        ValueError: another setting differs.
    """
    asked = asked_length(requested)
    if asked is not None and asked != length:
        given, before = (
            " ".join(f"train.{n} {v:g}" for n, v in each.items())
            for each in (asked, length or {"steps": saved.train.steps})
        )
        raise ValueError(
            f"the run's length was {before} and is now {given}; --resume keeps it, so leave it and a preset that sets it out"
        )
    if asked is not None:
        changed = {name: getattr(saved.train, name) for name in ("batch_size", "micro_batch_size")}
        requested = with_length(requested, saved.train.steps)
        requested = requested.model_copy(update={
            "train": requested.train.model_copy(update=changed),
            "eval": requested.eval.model_copy(update={"max_tokens": saved.eval.max_tokens}),
        })  # fmt: skip
    for section in ("model", "data", "tokenizer", "optim", "train", *SECTIONS):
        before, after = getattr(saved, section), getattr(requested, section)
        if before is None:
            continue
        for name in type(before).model_fields:
            old, new = getattr(before, name), getattr(after, name)
            free = (section == "train" and name in RESUMABLE_CHANGES) or (section, name) == ("model", "vocab_size")
            if old != new and not free:
                raise ValueError(
                    f"{section}.{name} was {old!r} and is now {new!r}; --resume continues the same training, so start a new "
                    "run with --init-from to change it"
                )
    micro = requested.train.micro_batch_size or saved.train.micro_batch_size
    train = requested.train.model_copy(update={"micro_batch_size": micro})
    return requested.model_copy(update={"model": saved.model, "train": train})
