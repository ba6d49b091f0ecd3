"""Commands about this machine and the presets: presets, doctor, bench."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from understudy.commands import Arguments, shared_arguments, show_result


def presets_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("preset", nargs="?", metavar="PRESET", help="show this preset with every default filled in")
    add("--settings", action="store_true", help="list every setting: type, default, description")
    shared_arguments(parser, "--json")


def presets(arguments: Arguments) -> None:
    """List the presets or the settings, or show one preset."""
    from understudy.config.load import dump_config, load_config, preset_summaries, setting_rows

    if arguments.preset:
        if arguments.settings:
            raise ValueError("--settings lists the settings of every preset; leave it out to see one preset")
        config = load_config(arguments.preset)
        document: Any = config.model_dump(mode="json", exclude_none=True)
        lines = [dump_config(config).rstrip("\n")]
    elif arguments.settings:
        rows = setting_rows()
        document = [asdict(row) for row in rows]
        lines = [f"{row.name}  ({row.type}; default {row.default})\n    {row.description}" for row in rows]
    else:
        document = preset_summaries()
        width = max(map(len, document))
        lines = [f"{name:<{width}}  {summary}" for name, summary in document.items()]
    show_result(arguments, document, lambda: print(*lines, sep="\n"))


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("preset", nargs="?", metavar="PRESET", help="also plan the memory of this preset with the given settings")
    add("--init-from", metavar="RUN", help="plan for a run that starts from this one, with its shape")
    shared_arguments(parser, "--device", "--json")


def doctor(arguments: Arguments) -> None:
    """Print the facts about this machine."""
    from understudy.config.load import apply_overrides, build_config, read_preset
    from understudy.doctor import examine, render
    from understudy.run import load_run
    from understudy.runtime import start_runtime
    from understudy.train.init_from import config_from_parent

    config = None
    if arguments.preset:
        tree = apply_overrides(read_preset(arguments.preset), arguments.overrides)
        parent = arguments.init_from or tree.get("init_from")
        config = config_from_parent(tree, load_run(str(parent))) if parent else build_config(tree)
    elif arguments.overrides:
        raise ValueError("settings belong to a preset; say `understudy doctor PRESET --train.batch_size 8`")
    dtype = config.train.dtype if config else "auto"
    with start_runtime(arguments.device, dtype) as runtime:
        facts = examine(runtime, config)
    show_result(arguments, facts, lambda: print(render(facts)))


def bench_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "preset", nargs="?", default="shakespeare-char-cpu", metavar="PRESET",
        help="the model and batch to measure (default: %(default)s)",
    )  # fmt: skip
    add("--seconds", type=float, default=5.0, metavar="X", help="duration of each measurement (default: 5)")
    shared_arguments(parser, "--device", "--json")


def bench(arguments: Arguments) -> None:
    """Measure and print the speed of training and sampling."""
    from understudy.bench import measure, render
    from understudy.config.load import load_config
    from understudy.runtime import start_runtime

    if not arguments.seconds > 0:
        raise ValueError(f"--seconds is {arguments.seconds}; a number above 0 is expected")
    config = load_config(arguments.preset, arguments.overrides)
    with start_runtime(arguments.device, config.train.dtype) as runtime:
        result = measure(config, runtime, arguments.seconds)
    show_result(arguments, result, lambda: print(render(result)))
