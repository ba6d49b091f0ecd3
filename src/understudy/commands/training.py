"""Commands that train: one for each stage, and the demo."""

from __future__ import annotations

import argparse

from understudy.commands import Arguments
from understudy.config.stages import STAGES
from understudy.console import final_table, interval_text

RISE = 0.02
"""A final loss that is higher than the best by more than this share of it is pointed out."""


def stage_arguments(stage: str, parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("preset", nargs="?", metavar="PRESET", help="a name `understudy presets` lists, or a YAML file")
    # torchrun of some Pythons mistakes --run for an abbreviation of its own options
    add("--run", "--run-name", metavar="NAME", help="folder under runs/ (default: the name of the preset)")
    add("--resume", action="store_true", help="continue the run from its last checkpoint")
    add("--init-from", metavar="RUN", help=STAGES[stage].init_from)
    add("--data", metavar="PATH", help="a folder that `understudy prepare` wrote (data.path)")
    add(
        "--minutes",
        metavar="N",
        help="train for about N minutes; the steps follow from the measured speed (train.minutes)",
    )
    add("--tokens", metavar="N", help="train on about N tokens (train.tokens)")
    add("--epochs", metavar="N", help="read the training data about N times (train.epochs)")
    add("--seed", metavar="N", help="train.seed")
    add("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps (train.device)")
    if STAGES[stage].adds_chat_tokens:
        add(
            "--chat-template", metavar="TEMPLATE",
            help="replace the chat template of an imported model: a Jinja file, or chatml for our own format",
        )  # fmt: skip
    if STAGES[stage].rollout:
        add("--reward-model", metavar="RUN", help=f"the run whose scores are rewards ({stage}.reward_model)")


def train(stage: str, arguments: Arguments) -> None:
    """Run a stage, and print its final numbers."""
    from understudy.stages.table import train_preset

    overrides, template = _overrides(stage, arguments), getattr(arguments, "chat_template", None)
    result = train_preset(stage, arguments.preset, arguments.run, overrides, arguments.resume, template)
    if not result.is_main:
        return
    progress, final = result.progress, result.final
    rows = {
        "run": str(result.folder.path),
        "parameters": f"{result.parameters:,}",
        "steps": f"{progress.step:,}",
        "tokens": f"{progress.tokens:,}",
        "time training": f"{progress.train_seconds:,.1f} s",
        "validation loss": interval_text(final.loss, final.loss_low, final.loss_high, ".4f"),
        "best validation loss": "–" if progress.best_loss is None else f"{progress.best_loss:.4f}",
    }
    best = progress.best_loss
    if best is not None and final.loss > best + RISE * abs(best):
        rows["note"] = (
            "the validation loss has risen since its best; other commands use that checkpoint, and fewer steps are enough"
        )
    if final.bits_per_byte is not None:
        rows["bits per byte"] = f"{final.bits_per_byte:.4f}"
    rows["next"] = STAGES[stage].next_command.format(result.folder.as_argument())
    final_table(rows)


def _overrides(stage: str, arguments: Arguments) -> dict[str, str]:
    """The dotted settings of the command line, with those of its short options."""
    from understudy.config.run import SHORT_OPTIONS

    overrides = dict(arguments.overrides)
    for option, setting in (SHORT_OPTIONS | {"reward_model": f"{stage}.reward_model"}).items():
        value = getattr(arguments, option, None)
        if value is None:
            continue
        if setting in overrides:
            raise ValueError(f"--{option.replace('_', '-')} and --{setting} are the same setting; give one of them")
        overrides[setting] = value
    return overrides


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", default="demo", metavar="NAME", help="folder under runs/ (default: demo)")
    parser.add_argument("--minutes", type=float, metavar="N", help="train for about N minutes in all (default: 8)")
    parser.add_argument("--fresh", action="store_true", help="start again, and delete the earlier demo of this name")
    parser.add_argument("--no-open", action="store_true", help="do not open the page in a browser at the end")


def demo(arguments: Arguments) -> None:
    from understudy.demo import run_demo

    if arguments.minutes is not None and not 0.1 <= arguments.minutes <= 10_000:
        raise ValueError(f"--minutes is {arguments.minutes:g}; give at least 0.1")
    run_demo(arguments.run, arguments.fresh, arguments.minutes, show=not arguments.no_open)
