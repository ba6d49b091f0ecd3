"""Verbs that train."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy.commands import Arguments


def pretrain_arguments(parser: argparse.ArgumentParser) -> None:
    _stage_arguments(parser, "start from the weights, shape and tokenizer of a run")


def sft_arguments(parser: argparse.ArgumentParser) -> None:
    _stage_arguments(parser, "the run to finetune")


def reward_arguments(parser: argparse.ArgumentParser) -> None:
    _stage_arguments(parser, "the assistant whose weights to start from")


def dpo_arguments(parser: argparse.ArgumentParser) -> None:
    _stage_arguments(parser, "the assistant to improve")


def ppo_arguments(parser: argparse.ArgumentParser) -> None:
    _stage_arguments(parser, "the assistant to improve")
    _rewards_arguments(parser, "ppo")


def grpo_arguments(parser: argparse.ArgumentParser) -> None:
    _stage_arguments(parser, "the assistant to improve")
    _rewards_arguments(parser, "grpo")


def _rewards_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    parser.add_argument("--reward-model", metavar="RUN", help=f"what judges its answers ({stage}.reward_model)")


def _stage_arguments(parser: argparse.ArgumentParser, init_from: str) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET", help="a name `understudy presets` lists, or a YAML file")
    parser.add_argument(
        "--run",
        "--run-name",  # torchrun of some Pythons stumbles over --run, which begins options of its own
        metavar="NAME",
        help="folder under runs/ (default: the name of the preset)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run where its last checkpoint is")
    parser.add_argument("--init-from", metavar="RUN", help=init_from)
    parser.add_argument("--data", metavar="PATH", help="what `understudy prepare` made (data.path)")
    parser.add_argument("--seed", metavar="N", help="train.seed")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps (train.device)")


def pretrain(arguments: Arguments) -> None:
    from understudy.stages import table as stages

    _run(arguments, "pretrain", stages.pretrain)


def sft(arguments: Arguments) -> None:
    from understudy.stages import table as stages

    _run(arguments, "sft", stages.sft)


def reward(arguments: Arguments) -> None:
    _align(arguments, "reward")


def dpo(arguments: Arguments) -> None:
    _align(arguments, "dpo")


def ppo(arguments: Arguments) -> None:
    _align(arguments, "ppo")


def grpo(arguments: Arguments) -> None:
    _align(arguments, "grpo")


def _align(arguments: Arguments, stage: str) -> None:
    from understudy.stages import table as stages

    if getattr(arguments, "reward_model", None) is not None:
        arguments.overrides = {**arguments.overrides, f"{stage}.reward_model": arguments.reward_model}
    _run(arguments, stage, stages.align)


def _run(arguments: Arguments, stage: str, train: Callable[..., Any]) -> None:
    """Resolve the configuration of a stage and run it."""
    from understudy.config.load import apply_overrides, build_config, read_preset
    from understudy.run import RunFolder, load_run, run_path
    from understudy.train.init_from import config_from_parent, resumed_model
    from understudy.train.runner import check_resume

    name = arguments.run or (Path(arguments.preset).stem if arguments.preset else None)
    if name is None:
        raise ValueError(f"say what to train: `understudy {stage} PRESET`, or --run NAME --resume")
    folder = RunFolder(run_path(name))
    if arguments.resume and not folder.exists():
        raise ValueError(f"there is no run {folder.path} to resume; leave --resume out to start it")
    if arguments.resume and folder.about().get("stage") == "import":
        raise ValueError(
            f"{folder.path} was imported, and not trained here; start a new run with --init-from {folder.name}"
        )
    overrides = dict(arguments.overrides)
    for option, setting in (
        ("data", "data.path"),
        ("seed", "train.seed"),
        ("device", "train.device"),
        ("init_from", "init_from"),
    ):
        if getattr(arguments, option) is not None:
            overrides[setting] = getattr(arguments, option)
    base = read_preset(arguments.preset) if arguments.preset else read_preset(str(folder.path / "config.yaml"))
    tree = apply_overrides(base, overrides)
    if (meant := tree.get("stage") or "pretrain") != stage:
        raise ValueError(f"{arguments.preset or folder.path} is for another stage; use it with `understudy {meant}`")
    parent = None
    if arguments.resume:  # a resumed run has its own weights, and needs its parent no more
        saved = folder.config()
        given, started_from = (path and run_path(str(path)) for path in (tree.get("init_from"), saved.init_from))
        if given and given != started_from:
            raise ValueError(f"{folder.path} did not start from {given}, so --resume cannot; leave --init-from out")
        if started_from:
            tree |= {"init_from": saved.init_from, "model": resumed_model(tree.get("model") or {}, saved.model)}
        config = check_resume(saved, build_config(tree))
    elif tree.get("init_from"):
        parent = load_run(str(tree["init_from"]))
        config = config_from_parent(tree, parent)
    else:
        config = build_config(tree)
    run_stage(arguments, lambda: train(config, folder, arguments.resume, parent))


def run_stage(arguments: Arguments, stage: Callable[[], Any]) -> None:
    """Run a stage and close with a table."""
    from understudy.train.metrics import final_table
    from understudy.train.runner import Interrupted

    try:
        result = stage()
    except Interrupted as note:
        print(f"understudy: {note}", file=sys.stderr)
        arguments.status = 130
        return
    if os.environ.get("RANK", "0") != "0":
        return
    progress, final = result.progress, result.final
    rows = {
        "run": str(result.folder.path),
        "parameters": f"{result.parameters:,}",
        "steps": f"{progress.step:,}",
        "tokens": f"{progress.tokens:,}",
        "time training": f"{progress.train_seconds:,.1f} s",
        "validation loss": f"{final.loss:.4f} (95% interval {final.loss_low:.4f} to {final.loss_high:.4f})",
        "best validation loss": f"{progress.best_loss:.4f}",
    }
    if final.bits_per_byte is not None:
        rows["bits per byte"] = f"{final.bits_per_byte:.4f}"
    advice = {"pretrain": "understudy sample {}", "reward": "understudy score {} FILE"}
    rows["next"] = advice.get(result.folder.config().stage, "understudy chat {}").format(result.folder.name)
    final_table(rows)


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", default="demo", metavar="NAME", help="folder under runs/ (default: demo)")
    parser.add_argument("--fresh", action="store_true", help="begin anew, deleting an earlier demo of this name")


def demo(arguments: Arguments) -> None:
    from understudy.demo import run_demo
    from understudy.train.runner import Interrupted

    try:
        run_demo(arguments.run, arguments.fresh)
    except Interrupted as note:
        print(f"understudy: {note}; `understudy demo` goes on where it stopped", file=sys.stderr)
        arguments.status = 130
