"""The stages of training that this project has, each a preparation of the one loop: data, model, objective, and
what is evaluated, saved and shown on the way.

Not here: the loop itself, and the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import understudy
from understudy.config import ModelConfig, RunConfig
from understudy.data.folder import data_tokenizer, text_sha256
from understudy.data.loader import Windows
from understudy.data.shards import TokenData, open_split
from understudy.evaluate.loss import LossResult
from understudy.model import build_model
from understudy.optim import build_optimizers, lr_factor
from understudy.run import Run, RunFolder, now, write_json
from understudy.runtime import Runtime, start_runtime
from understudy.tokenizer import Tokenizer
from understudy.train.checkpoint import load_checkpoint
from understudy.train.compile import compile_if_it_pays
from understudy.train.ema import ExponentialMovingAverage
from understudy.train.loop import Progress, Trainer
from understudy.train.memory import largest_micro_batch
from understudy.train.metrics import Metrics, require_trackers
from understudy.train.objectives import NextToken
from understudy.train.watch import Watcher


class Interrupted(Exception):
    """Training was asked to stop by a signal; its state is saved."""


@dataclass(frozen=True)
class Result:
    """What a finished training has to say for itself."""

    folder: RunFolder
    progress: Progress
    final: LossResult
    parameters: int


def pretrain(config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None) -> Result:
    """Train a base model into ``folder``, continue one there (``resume``), or start from another run's (``parent``).

    ``config.model.vocab_size`` may be left out; the data's tokenizer gives it.

    Raises:
        ValueError: data, tokenizer, folder or settings do not fit together.
        Interrupted: a signal asked to stop; everything is saved.
    """
    require_trackers(config.log)
    path = Path(config.data.path)
    if not path.exists():
        raise ValueError(
            f"there is no data in {path}; prepare it first: `understudy prepare {config.data.source or 'SOURCE'} "
            f"--tokenizer {config.tokenizer.kind or 'bpe'}{_size_option(config)} --out {path}`"
        )
    tokenizer = data_tokenizer(config)
    tokenizer.encode(config.log.prompt)  # a prompt that cannot be sampled from is refused before training
    config = _with_vocabulary(config, tokenizer)
    train_data, val_data = (open_split(path, split, config.model.vocab_size) for split in ("train", "val"))
    windows = Windows(train_data.tokens, config.model.context_length, config.train.seed)
    with (
        start_runtime(config.train.device, config.train.dtype, config.train.seed) as runtime,
        _signals() as asked,
    ):
        config = _with_micro_batch(config, runtime)
        share = _share(config, runtime)
        torch.use_deterministic_algorithms(config.train.deterministic)
        torch.manual_seed(config.train.seed)
        model = build_model(config.model).to(runtime.device)
        if parent:
            _start_from(model, parent, tokenizer)
        model.set_activation_checkpointing(config.train.activation_checkpointing)
        objective = NextToken(model, config.train.loss_chunk_tokens)
        optimizers = build_optimizers(model, config.optim)
        trainer = Trainer(
            objective=objective,
            optimizers=optimizers,
            batches=lambda step: [
                windows.batch(step * config.train.batch_size + runtime.rank * share.samples + start, share.micro)
                for start in range(0, share.samples, share.micro)
            ],
            lr_factor=lambda step: lr_factor(config.optim, step, config.train.steps),
            runtime=runtime,
            progress=Progress(),
            total_steps=config.train.steps,
            grad_clip=config.optim.grad_clip,
            scaler=torch.amp.GradScaler(runtime.device.type) if runtime.dtype == torch.float16 else None,
            ema=ExponentialMovingAverage(model, config.optim.ema) if config.optim.ema else None,
        )
        with folder.locked() if runtime.is_main else contextlib.nullcontext():
            about = _about(config, train_data, val_data, tokenizer, parent, model)
            if resume:
                about = _check_lineage(folder, config, about)
            elif runtime.is_main:
                _create(folder, config, tokenizer, about)
            runtime.barrier()
            if resume and folder.steps():  # a run stopped before its first checkpoint begins again
                load_checkpoint(folder.checkpoint("latest"), trainer)
            with Metrics(
                folder, config.log, config.train.steps, trainer.progress.step if resume else None,
                quiet=not runtime.is_main, config=config.model_dump(mode="json"),
            ) as metrics:  # fmt: skip
                compiled = compile_if_it_pays(objective, config.train.compile, runtime, trainer.batches(0)[0])
                for what, why in (runtime.reasons | {"compile": compiled}).items():
                    metrics.note(f"{what}: {why}")
                watcher = Watcher(config, folder, trainer, val_data, tokenizer, metrics, about, asked)
                trainer.due, trainer.after_step = watcher.due, watcher.after_step
                trainer.run()
                if watcher.interrupted:
                    raise Interrupted(f"interrupted at step {trainer.progress.step}; it is saved, go on with --resume")
                final = watcher.finish()
        return Result(folder, trainer.progress, final, sum(p.numel() for p in model.parameters()))


@dataclass(frozen=True)
class _Share:
    """What one process takes of each step: ``samples``, in forwards of ``micro``."""

    samples: int
    micro: int


def _share(config: RunConfig, runtime: Runtime) -> _Share:
    total, processes = config.train.batch_size, runtime.world_size
    if total % processes:
        raise ValueError(f"train.batch_size {total} cannot be shared by {processes} processes; choose a multiple")
    samples = total // processes
    micro = config.train.micro_batch_size
    assert micro is not None, "decided by _with_micro_batch"
    if samples % micro:
        raise ValueError(
            f"each of {processes} processes takes {samples} samples a step, and train.micro_batch_size {micro} does not "
            "divide that; choose a divisor"
        )
    return _Share(samples, micro)


def _size_option(config: RunConfig) -> str:
    return f" --vocab-size {config.tokenizer.vocab_size}" if config.tokenizer.vocab_size else ""


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


def model_from_parent(raw: dict[str, Any], parent: ModelConfig) -> dict[str, Any]:
    """The model settings of a run that starts from ``parent``: the parent's shape, with what may change changed.

    Raises:
        ValueError: ``raw`` sets the shape to something else.
    """
    free = {"dropout", "ngram_dropout", "context_length"}
    shape = parent.model_dump(mode="json", exclude_none=True)
    for name, value in raw.items():
        value = list(value) if isinstance(value, tuple) else value
        if value is not None and name not in free and shape.get(name) != value:
            raise ValueError(
                f"model.{name} is {value!r}, and the run to start from has {shape.get(name)!r}; leave model settings out, "
                f"or change only {', '.join(sorted(free))}"
            )
    merged = shape | {name: value for name, value in raw.items() if value is not None}
    if merged["context_length"] > parent.context_length and parent.position == "learned":
        raise ValueError(
            f"model.context_length {merged['context_length']} exceeds the {parent.context_length} positions that the run to "
            "start from has learned; choose at most that"
        )
    return merged


def _start_from(model: nn.Module, parent: Run, tokenizer: Tokenizer) -> None:
    if parent.tokenizer.sha256 != tokenizer.sha256:
        raise ValueError(
            f"the data was prepared with another tokenizer than the run {parent.path} has; prepare it with "
            f"`--tokenizer {parent.path / 'tokenizer.json'}`"
        )
    weights = dict(parent.model.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            source = weights[name]
            parameter.copy_(source[: len(parameter)] if name == "position_embedding.weight" else source)


def _about(
    config: RunConfig,
    train: TokenData,
    val: TokenData,
    tokenizer: Tokenizer,
    parent: Run | None,
    model: nn.Module,
) -> dict[str, Any]:
    """What run.json and every checkpoint say of where a model comes from."""
    return {
        "stage": "pretrain",
        "understudy": understudy.__version__,
        "torch": torch.__version__,
        "created": now(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokenizer_sha256": tokenizer.sha256,
        "data": {
            "path": str(train.path), "sha256": text_sha256(train), "train_tokens": len(train.tokens),
            "val_tokens": len(val.tokens), "val_bytes": val.bytes,
        },
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
    saved = folder.about()
    for what, before, after in (
        ("tokenizer", saved["tokenizer_sha256"], about["tokenizer_sha256"]),
        ("text", saved["data"]["sha256"], about["data"]["sha256"]),
    ):
        if before != after:
            raise ValueError(
                f"the {what} in {config.data.path} is not what the run {folder.path} was trained on; bring it back, or start "
                f"a new run with --init-from {folder.name}"
            )
    return saved


def check_resume(saved: RunConfig, asked: RunConfig) -> RunConfig:
    """The configuration to resume with: the saved one, with what does not touch the training itself as asked.

    Raises:
        ValueError: something else differs, since the steps would no longer be those of the uninterrupted run.
    """
    free = {"device", "micro_batch_size", "stop_at_tokens", "stop_at_seconds", "stop_at_loss", "compile"}
    for section in ("model", "data", "tokenizer", "optim", "train"):
        before, after = getattr(saved, section), getattr(asked, section)
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


def save_evaluation(folder: RunFolder, result: LossResult, checkpoint: str) -> None:
    """Keep an evaluation with its run, where the report reads it."""
    write_json(
        folder.path / "evaluation.json",
        dataclasses.asdict(result) | {"perplexity": result.perplexity, "checkpoint": checkpoint},
    )
