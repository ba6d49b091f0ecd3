"""Verbs about this machine and the presets: presets, doctor, bench."""

from __future__ import annotations

import argparse

from understudy.commands import Arguments
from understudy.console import print_json


def presets_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET", help="show this one, every default filled in")
    parser.add_argument("--settings", action="store_true", help="list every setting with its type and default")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def presets(arguments: Arguments) -> None:
    from understudy.config.load import build_config, dump_config, preset_summaries, read_preset, setting_rows

    if arguments.preset:
        config = build_config(read_preset(arguments.preset) | arguments.overrides)
        if arguments.json:
            print_json(config.model_dump(mode="json", exclude_none=True))
        else:
            print(dump_config(config), end="")
        return
    rows = setting_rows() if arguments.settings else preset_summaries()
    if arguments.json:
        print_json(rows)
        return
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET", help="plan the memory of this preset, settings and all")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def doctor(arguments: Arguments) -> None:
    from understudy.config.load import apply_overrides, build_config, read_preset
    from understudy.doctor import examine, render
    from understudy.runtime import start_runtime

    config = None
    if arguments.preset:
        config = build_config(apply_overrides(read_preset(arguments.preset), arguments.overrides))
    elif arguments.overrides:
        raise ValueError("settings belong to a preset; say `understudy doctor PRESET --train.batch_size 8`")
    dtype = config.train.dtype if config else "auto"
    with start_runtime(arguments.device, dtype) as runtime:
        facts = examine(runtime, config)
    if arguments.json:
        print_json(facts)
    else:
        print(render(facts))


def bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "preset",
        nargs="?",
        default="shakespeare-char-cpu",
        metavar="PRESET",
        help="whose model and batch (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=5.0, metavar="X", help="how long each measurement runs")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def bench(arguments: Arguments) -> None:
    from understudy.bench import measure, render
    from understudy.config.load import apply_overrides, build_config, read_preset
    from understudy.runtime import start_runtime

    if not arguments.seconds > 0:
        raise ValueError(f"--seconds is {arguments.seconds}; a number above 0 is wanted")
    config = build_config(apply_overrides(read_preset(arguments.preset), arguments.overrides))
    with start_runtime(arguments.device, config.train.dtype) as runtime:
        result = measure(config, runtime, arguments.seconds)
    if arguments.json:
        print_json(result)
    else:
        print(render(result))
