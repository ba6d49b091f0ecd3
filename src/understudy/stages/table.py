"""The code of each stage, looked up from the table of stages, and how a stage is run.

The facts of the stages are in config/stages.py, where everything below can read them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from understudy.config.load import apply_overrides, build_config, read_preset
from understudy.config.run import RunConfig
from understudy.config.stages import DEFAULT_STAGE, IMPORTED, STAGES, stage_info
from understudy.report.alignment import draw_overoptimisation
from understudy.report.plots import loss_plot
from understudy.run import Run, RunFolder, load_run, read_metrics, run_path
from understudy.tokenizer import load_tokenizer
from understudy.tokenizer.chat import read_template, speaks_chat, with_chat_template, with_chat_tokens
from understudy.train.init_from import config_from_parent, resumed_model
from understudy.train.runner import Result, check_resume, train
from understudy.train.stage import TrainingStage

__all__ = ["STAGES", "resolve_run", "run_stage", "stage_class", "train_preset", "train_unless_done"]


def stage_class(name: str) -> type[TrainingStage]:
    """The class of a stage: the one :class:`TrainingStage` of ``stages/NAME.py``; a ValueError if there is no such stage."""
    stage_info(name)
    module = import_module(f"understudy.stages.{name}")
    classes = [value for _, value in inspect.getmembers(module, inspect.isclass) if issubclass(value, TrainingStage)]
    [own] = [value for value in classes if value.__module__ == module.__name__]
    return own


def run_stage(config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None) -> Result:
    """Train the stage ``config.stage`` into ``folder``: from the run ``parent``, from random weights where the stage
    allows it, or onwards from the last checkpoint (``resume``). At the end the loss is plotted, if ``log.plot`` says so.

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
    if result.is_main and config.log.plot:
        rows = read_metrics(folder.metrics)
        loss_plot({folder.name: rows}, folder.path / "loss.png", info.loss_label)
        draw_overoptimisation(folder.path, rows, config.model_dump())
    return result


def resolve_run(
    tree: Mapping[str, Any], folder: RunFolder, resume: bool = False, chat_template: str | None = None
) -> tuple[RunConfig, Run | None]:
    """The configuration of a run from raw settings, and the run it starts from. A resumed run has its own weights, so it
    needs no parent.

    Args:
        chat_template: a file or name, which replaces the chat template of the parent's tokenizer.

    Raises:
        ValueError: settings that do not fit each other, the parent, or the run to resume.
    """
    tree = dict(tree)
    if not resume:
        if not tree.get("init_from"):
            return build_config(tree), None
        parent = load_run(str(tree["init_from"]))
        if chat_template is not None:
            parent = replace(parent, tokenizer=with_chat_template(parent.tokenizer, read_template(chat_template)))
        return config_from_parent(tree, parent), parent
    if chat_template is not None:
        raise ValueError("a run keeps the chat template that it began with; leave --chat-template out to resume it")
    if not folder.exists():
        raise ValueError(f"there is no run {folder.path} to resume; leave --resume out to start it")
    saved = folder.config()
    if folder.record().get("stage") == IMPORTED:
        raise ValueError(
            f"{folder.path} was imported, and not trained here; start a new run with --init-from {folder.as_argument()}"
        )
    given, start = (path and run_path(str(path)) for path in (tree.get("init_from"), saved.init_from))
    if given and given != start:
        raise ValueError(f"{folder.path} did not start from {given}, so --resume cannot; leave --init-from out")
    if start:
        tree |= {"init_from": saved.init_from, "model": resumed_model(tree.get("model") or {}, saved.model)}
    return check_resume(saved, build_config(tree), folder.record().get("length")), None


def train_preset(
    stage: str, preset: str | None, name: str | None, overrides: Mapping[str, str], resume: bool = False,
    chat_template: str | None = None, fresh: bool = False,
) -> Result:  # fmt: skip
    """Train a stage by a preset or YAML file, as `understudy STAGE PRESET` does.

    Args:
        preset: None takes the saved settings of the run to resume.
        name: of the run or its path; None takes the name of the preset.
        overrides: values by dotted name.
        chat_template: see :func:`resolve_run`.
        fresh: delete an earlier run of this name first, once the settings and the parent are known to be usable.

    Raises:
        ValueError: settings, data, parent or folder do not fit together.
        Interrupted: a signal asked to stop; everything is saved.
    """
    if resume and fresh:
        raise ValueError("resume continues a run and fresh deletes it; give one of them")
    name = name or (Path(preset).stem if preset else None)
    if name is None:
        raise ValueError(f"say what to train: `understudy {stage} PRESET`, or --run NAME --resume")
    folder = RunFolder(run_path(name))
    if resume and not folder.exists():
        raise ValueError(f"there is no run {folder.path} to resume; leave --resume out to start it")
    source = preset or str(folder.path / "config.yaml")
    tree = apply_overrides(read_preset(source), overrides)
    if (other := tree.get("stage") or DEFAULT_STAGE) != stage:
        raise ValueError(f"{source} is for another stage; use it with `understudy {other}`")
    config, parent = resolve_run(tree, folder, resume, chat_template)
    if fresh and folder.path.exists():
        if parent and parent.path.resolve() == folder.path.resolve():
            raise ValueError(
                f"init_from names {folder.path}, which fresh would delete; choose another name for the new run"
            )
        folder.delete()
    return run_stage(config, folder, resume, parent)


def train_unless_done(tree: Mapping[str, Any], folder: RunFolder, start: RunFolder | None) -> bool:
    """Train one of several stages in a row, from raw settings and, where given, the run to start from. A finished stage
    is left as it is, and an interrupted one is resumed.

    Returns:
        Whether anything was trained.
    """
    if folder.exists():
        if folder.is_finished():
            return False
        run_stage(folder.config(), folder, resume=True)
        return True
    config, parent = resolve_run({**tree, "init_from": str(start.path)} if start else tree, folder)
    run_stage(config, folder, parent=parent)
    return True
