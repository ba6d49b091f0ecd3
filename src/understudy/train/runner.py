"""The stages of training that this project has, each a preparation of the one loop: data, model, objective, and
what is evaluated, saved and shown on the way.

Not here: the loop itself, and the command line.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import understudy
from understudy.config.run import SECTIONS, RunConfig
from understudy.evaluate.loss import LossResult
from understudy.files import now
from understudy.model import build_model
from understudy.optim import build_optimizers, lr_factor
from understudy.run import Run, RunFolder
from understudy.runtime import Runtime, start_runtime
from understudy.tokenizer import Tokenizer
from understudy.train.checkpoint import load_checkpoint
from understudy.train.compile import compile_if_it_pays
from understudy.train.ema import ExponentialMovingAverage
from understudy.train.evaluator import Evaluator
from understudy.train.init_from import load_reference, start_from
from understudy.train.loop import Trainer, TrainingProgress
from understudy.train.memory import largest_micro_batch
from understudy.train.metrics import TrainingMetrics, require_trackers
from understudy.train.stage import StageContext, TrainingStage, share_of_batch


class Interrupted(Exception):
    """Training was asked to stop by a signal; its state is saved."""


@dataclass(frozen=True)
class Result:
    """What a finished training has to say for itself."""

    folder: RunFolder
    progress: TrainingProgress
    final: LossResult
    parameters: int
    is_main: bool


def train(
    stage: TrainingStage, config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None
) -> Result:
    """Train a stage: build the model, run the loop, save, and close with an evaluation.

    Raises:
        ValueError: data, folder or settings do not fit together.
        Interrupted: a signal asked to stop; everything is saved.
    """
    require_trackers(config.log)
    if resume and config.init_from and not folder.steps():  # stopped before its first checkpoint, it begins again
        parent = load_reference(folder)
    tokenizer = stage.tokenizer
    config = _with_vocabulary(config, tokenizer)
    with (
        start_runtime(config.train.device, config.train.dtype, config.train.seed) as runtime,
        _signals() as asked,
    ):
        config = _with_micro_batch(config, runtime)
        share_of_batch(config, runtime)
        torch.use_deterministic_algorithms(config.train.deterministic)
        torch.manual_seed(config.train.seed)
        model = build_model(config.model).to(runtime.device)
        if parent:
            stage.notes.extend(start_from(model, parent, tokenizer))
        model.set_activation_checkpointing(config.train.activation_checkpointing)
        with folder.locked() if runtime.is_main else contextlib.nullcontext():
            about = _about(config, stage, parent, model)
            if resume:
                about = _check_lineage(folder, config, about)
            elif runtime.is_main:
                _create(folder, config, tokenizer, about)
            runtime.barrier()
            stage.setup(StageContext(config, folder, runtime, model, parent))
            trainer = Trainer(
                objective=stage.objective,
                optimizers=[*build_optimizers(model, config.optim), *stage.extra_optimizers],
                source=stage.batches,
                lr_factor=lambda step: lr_factor(config.optim, step, config.train.steps),
                runtime=runtime,
                progress=TrainingProgress(),
                total_steps=config.train.steps,
                grad_clip=config.optim.grad_clip,
                scaler=torch.amp.GradScaler(runtime.device.type) if runtime.dtype == torch.float16 else None,
                ema=ExponentialMovingAverage(model, config.optim.ema) if config.optim.ema else None,
            )
            if resume and folder.steps():
                load_checkpoint(folder.checkpoint("latest"), trainer)
            with TrainingMetrics(
                folder, config.log, config.train.steps, trainer.progress.step if resume else None,
                quiet=not runtime.is_main, config=config.model_dump(mode="json"),
            ) as metrics:  # fmt: skip
                compiled = compile_if_it_pays(
                    trainer.objective, config.train.compile, runtime,
                    lambda: trainer.source.batches(trainer.progress.step)[0],
                )  # fmt: skip
                for what, why in (runtime.reasons | {"compile": compiled}).items():
                    metrics.note(f"{what}: {why}")
                for note in stage.notes:
                    metrics.note(note)
                evaluator = Evaluator(config, folder, trainer, stage, metrics, about, asked)
                evaluator.before()
                trainer.due, trainer.after_step = evaluator.due, evaluator.after_step
                trainer.run()
                if evaluator.interrupted:
                    raise Interrupted(f"interrupted at step {trainer.progress.step}; it is saved, go on with --resume")
                final = evaluator.finish()
        parameters = sum(p.numel() for p in model.parameters())
        return Result(folder, trainer.progress, final, parameters, runtime.is_main)


def _with_micro_batch(config: RunConfig, runtime: Runtime) -> RunConfig:
    """The configuration with its micro-batch written down, so that a resumed run adds up in the same order."""
    micro = config.train.micro_batch_size or largest_micro_batch(config, runtime)
    return config.model_copy(update={"train": config.train.model_copy(update={"micro_batch_size": micro})})


def _with_vocabulary(config: RunConfig, tokenizer: Tokenizer) -> RunConfig:
    given = config.model.vocab_size
    if given is not None and given < tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size {given} is smaller than the tokenizer's {tokenizer.vocab_size}; leave it out to take that"
        )
    model = config.model.model_copy(update={"vocab_size": given or tokenizer.vocab_size})
    return config.model_copy(update={"model": model})


def _about(config: RunConfig, stage: TrainingStage, parent: Run | None, model: nn.Module) -> dict[str, Any]:
    """What run.json and every checkpoint say of where a model comes from."""
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


def _create(folder: RunFolder, config: RunConfig, tokenizer: Tokenizer, about: dict[str, Any]) -> None:
    if folder.exists() or folder.steps():
        raise ValueError(
            f"the folder {folder.path} already holds a run; go on with it by --resume, or choose another name with --run"
        )
    folder.create(config, tokenizer, about)


def _check_lineage(folder: RunFolder, config: RunConfig, about: dict[str, Any]) -> dict[str, Any]:
    """What a run was started with, once it is seen to meet the same data and tokenizer again."""
    saved = folder.record()
    for what, before, after in (
        ("tokenizer", saved["tokenizer_sha256"], about["tokenizer_sha256"]),
        ("text", saved["data"]["sha256"], about["data"]["sha256"]),
    ):
        if before != after:
            raise ValueError(
                f"the {what} in {config.data.path} is not what the run {folder.path} was trained on; bring it back, or start "
                f"a new run with --init-from {folder.as_argument()}"
            )
    return saved


def check_resume(saved: RunConfig, asked: RunConfig) -> RunConfig:
    """The configuration to resume with: the saved one, with what does not touch the training itself as asked.

    Raises:
        ValueError: something else differs, since the steps would no longer be those of the uninterrupted run.
    """
    free = {"device", "micro_batch_size", "stop_at_tokens", "stop_at_seconds", "stop_at_loss", "compile"}
    for section in ("model", "data", "tokenizer", "optim", "train", *SECTIONS):
        before, after = getattr(saved, section), getattr(asked, section)
        if before is None:
            continue
        for name in type(before).model_fields:
            old, new = getattr(before, name), getattr(after, name)
            if old != new and not (section == "train" and name in free) and (section, name) != ("model", "vocab_size"):
                raise ValueError(
                    f"{section}.{name} was {old!r} and is now {new!r}; --resume takes up the same training, so start a new run "
                    f"with --init-from to change it"
                )
    micro = asked.train.micro_batch_size or saved.train.micro_batch_size
    train = asked.train.model_copy(update={"micro_batch_size": micro})
    return asked.model_copy(update={"model": saved.model, "train": train})


@contextmanager
def _signals() -> Iterator[dict[str, int]]:
    """Turn the first Ctrl-C or SIGTERM into a note that the loop reads; a second one is obeyed at once."""
    asked: dict[str, int] = {}
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread receives signals
        return

    def note(number: int, frame: Any) -> None:
        asked["signal"] = number
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, note)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
