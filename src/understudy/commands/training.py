"""Verbs that train."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from understudy.commands import Arguments
from understudy.config.stages import DEFAULT_STAGE, IMPORTED, STAGES


def stage_arguments(stage: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET", help="a name `understudy presets` lists, or a YAML file")
    parser.add_argument(
        "--run",
        "--run-name",  # torchrun of some Pythons stumbles over --run, which begins options of its own
        metavar="NAME",
        help="folder under runs/ (default: the name of the preset)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run where its last checkpoint is")
    parser.add_argument("--init-from", metavar="RUN", help=STAGES[stage].init_from)
    parser.add_argument("--data", metavar="PATH", help="what `understudy prepare` made (data.path)")
    parser.add_argument("--seed", metavar="N", help="train.seed")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps (train.device)")
    if STAGES[stage].rollout:
        help = f"the run whose scores are rewards ({stage}.reward_model)"
        parser.add_argument("--reward-model", metavar="RUN", help=help)


def train(stage: str, arguments: Arguments) -> None:
    """Resolve the configuration of a stage and run it."""
    from understudy.config.load import apply_overrides, build_config, read_preset
    from understudy.console import final_table, interval_text
    from understudy.run import RunFolder, load_run, run_path
    from understudy.stages.table import run_stage
    from understudy.train.init_from import config_from_parent, resumed_model
    from understudy.train.runner import Interrupted, check_resume

    name = arguments.run or (Path(arguments.preset).stem if arguments.preset else None)
    if name is None:
        raise ValueError(f"say what to train: `understudy {stage} PRESET`, or --run NAME --resume")
    folder = RunFolder(run_path(name))
    if arguments.resume and not folder.exists():
        raise ValueError(f"there is no run {folder.path} to resume; leave --resume out to start it")
    if arguments.resume and folder.about().get("stage") == IMPORTED:
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
    if getattr(arguments, "reward_model", None) is not None:
        overrides[f"{stage}.reward_model"] = arguments.reward_model
    base = read_preset(arguments.preset) if arguments.preset else read_preset(str(folder.path / "config.yaml"))
    tree = apply_overrides(base, overrides)
    if (meant := tree.get("stage") or DEFAULT_STAGE) != stage:
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
    try:
        result = run_stage(config, folder, arguments.resume, parent)
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
        "validation loss": interval_text(final.loss, final.loss_low, final.loss_high, ".4f"),
        "best validation loss": f"{progress.best_loss:.4f}",
    }
    if final.bits_per_byte is not None:
        rows["bits per byte"] = f"{final.bits_per_byte:.4f}"
    rows["next"] = config.info.next_command.format(result.folder.as_argument())
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
