"""The code of each stage, looked up from the table of stages, and how a stage is run.

The facts of the stages are in config/stages.py, where everything below can read them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from understudy.config.load import build_config
from understudy.config.run import RunConfig
from understudy.config.stages import STAGES, stage_info
from understudy.report.alignment import draw_overoptimisation
from understudy.report.plots import loss_plot
from understudy.run import Run, RunFolder, load_run, read_metrics
from understudy.tokenizer import load_tokenizer
from understudy.tokenizer.chat import speaks_chat, with_chat_tokens
from understudy.train.init_from import config_from_parent
from understudy.train.runner import Result, train
from understudy.train.stage import TrainingStage

__all__ = ["STAGES", "run_stage", "stage_class", "train_unless_done"]


def stage_class(name: str) -> type[TrainingStage]:
    """The class of a stage: the concrete :class:`TrainingStage` of ``stages/NAME.py``.

    Raises:
        ValueError: there is no such stage.
    """
    stage_info(name)
    module = import_module(f"understudy.stages.{name}")
    classes = [
        value for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, TrainingStage) and value.__module__ == module.__name__
    ]  # fmt: skip
    if len(classes) != 1:
        raise TypeError(f"stages/{name}.py defines {len(classes)} training stages; one is wanted")
    return classes[0]


def run_stage(config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None) -> Result:
    """Train the stage ``config.stage`` into ``folder``: from the run ``parent``, from random weights where the stage
    allows it, or onwards from the last checkpoint (``resume``). At the end the loss is plotted.

    ``config.model.vocab_size`` may be left out; the tokenizer gives it.

    Raises:
        ValueError: data, tokenizer, parent, folder or settings do not fit together.
        Interrupted: a signal asked to stop; everything is saved.
    """
    info = config.info
    tokenizer = parent.tokenizer if parent else None
    if info.parent != "optional":
        if config.model.family == "bigram":
            raise ValueError("a bigram sees one token, so it cannot answer; start from a GPT")
        if tokenizer is None and not resume:
            kind = "assistant" if info.parent == "assistant" else "run"
            raise ValueError(f"say which {kind} to start from: --init-from RUN")
        tokenizer = tokenizer or load_tokenizer(folder.path / "tokenizer.json")
        if info.adds_chat_tokens:
            tokenizer = with_chat_tokens(tokenizer)
        elif info.parent == "assistant" and not speaks_chat(tokenizer):
            path = parent.path if parent else folder.path
            raise ValueError(f"the run {path} has no chat tokens yet; finetune it first: `understudy sft`")
    stage = stage_class(config.stage)(config, tokenizer)
    result = train(stage, config, folder, resume, parent)
    if result.is_main:
        rows = read_metrics(folder.metrics)
        loss_plot({folder.name: rows}, folder.path / "loss.png", info.loss_label)
        draw_overoptimisation(folder.path, rows, config.model_dump())
    return result


def train_unless_done(tree: Mapping[str, Any], folder: RunFolder, start: RunFolder | None) -> bool:
    """One stage of several in a row, from raw settings and, where given, the run to start from. A finished stage is
    left as it is, and an interrupted one is resumed.

    Returns:
        Whether there was anything to do.
    """
    if folder.exists() and folder.steps() and folder.steps()[-1] >= folder.config().train.steps:
        return False
    if folder.exists():
        run_stage(folder.config(), folder, resume=True)
        return True
    parent = load_run(start.path) if start else None
    tree = {**tree, "init_from": str(start.path)} if start else tree
    run_stage(config_from_parent(tree, parent) if parent else build_config(tree), folder, parent=parent)
    return True
