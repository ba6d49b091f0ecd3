"""The command line: one table of commands. Each command imports its modules when it is called.

Results go to standard output (text, or one JSON document with --json), messages to standard error. Exit status: 0 done,
2 the user's mistake in one sentence, 130 interrupted with the state saved, 1 a check that failed (`learn`) or a defect of
ours.
"""

from __future__ import annotations

import argparse
import errno
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from understudy.commands import (
    Arguments,
    aligning,
    data,
    evaluating,
    feedback,
    inspecting,
    interop,
    learning,
    looking_at_data,
    machine,
    serving,
    tokenizer,
    training,
    using,
)  # fmt: skip
from understudy.config.stages import STAGES
from understudy.environment import set_environment


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    set_environment()
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        return arguments.command(arguments) or 0
    except ValueError as error:
        return _complain(str(error))
    except KeyboardInterrupt as interrupt:  # also of a training, which says where it stopped
        print(f"understudy: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        if (sentence := _disk_sentence(error)) is None:
            raise
        return _complain(sentence)


def parse(argv: list[str]) -> Arguments:
    """The arguments of one command. Some commands take dotted settings beside their own options.

    Raises:
        ValueError: an unknown command, option or argument.
    """
    parser = build_parser()
    takes_settings = any(command.settings for command in COMMANDS if command.name in argv[:1])
    overrides, argv = _settings(argv) if takes_settings else ({}, argv)
    arguments, unknown = parser.parse_known_args(argv)
    if "command" not in arguments:
        parser.print_help(sys.stderr)
        raise ValueError("give one of the commands above")
    while unknown and not unknown[0].startswith("-") and "sources" in arguments:
        arguments.sources.append(unknown.pop(0))  # argparse ends the sources at the first option behind them
    if unknown:
        from understudy.config.load import nearest

        options = re.findall(r"--[\w-]+", arguments.parser.format_usage())
        raise ValueError(
            f"`understudy {arguments.command_name}` does not take {unknown[0]!r}{nearest(unknown[0], options)}; "
            f"`understudy {arguments.command_name} --help` lists its options"
        )
    arguments.overrides = overrides
    return arguments


def build_parser() -> argparse.ArgumentParser:
    description = "Train your own ChatGPT, from raw text to a chat window."
    parser = _Parser(prog="understudy", description=description, allow_abbrev=False)
    from understudy import __version__

    parser.add_argument("--version", action="version", version=f"understudy {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False,
            epilog=SETTINGS_EPILOG if command.settings else None, formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.arguments(subparser)
        subparser.set_defaults(
            command=command.run, command_name=command.name, parser=subparser, settings=command.settings
        )
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse with errors as exceptions."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; `{self.prog} --help` lists its arguments")


def _settings(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split the words of a command into dotted settings (`--optim.lr 3e-4`, `--optim.lr=3e-4`, --depth) and the others."""
    overrides: dict[str, str] = {}
    others: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or ("." not in name and name != "depth"):
            others.append(word)
            continue
        if not equals:
            value = next(words, "--")
            if value.startswith("--"):
                raise ValueError(f"--{name} needs a value")
        overrides[name] = value
    return overrides, others


def _complain(sentence: str) -> int:
    print(f"understudy: {sentence}", file=sys.stderr)
    return 2


DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; make room, and run the command again",
    errno.EDQUOT: "the disk quota is used up; make room, and run the command again",
    errno.EROFS: "the disk is read-only; choose a folder on another disk",
    errno.EIO: "the disk cannot be read or written; check it",
}


def _disk_sentence(error: OSError) -> str | None:
    """A sentence about a failure of the disk or of a named file; None for a defect of ours."""
    reason = DISK_ERRORS.get(error.errno or 0)
    if error.filename is not None:
        return f"{error.filename}: {reason or error.strerror}"
    return reason


@dataclass(frozen=True)
class Command:
    """A row of the table of commands.

    Attributes:
        help: one line for `understudy --help`.
        arguments: adds the options to a parser.
        run: runs the command; it may return an exit status.
        settings: whether it takes dotted settings.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Arguments], int | None]
    settings: bool = False


SETTINGS_EPILOG = """\
Any setting can be given by its dotted name, as --train.steps 500 --optim.lr 3e-4;
`understudy presets --settings` lists them all."""

COMMANDS = (
    Command("demo", "train and align an assistant on the embedded corpus", training.demo_arguments, training.demo),
    Command("learn", "climb from a bigram to PPO in short trainings, and check exercises",
            learning.learn_arguments, learning.learn),
    Command("prepare", "turn text or conversations into training data", data.prepare_arguments, data.prepare),
    Command("data", "look at text before it is trained on",
            looking_at_data.data_arguments, looking_at_data.data),
    Command("tokenizer", "train, inspect or compare tokenizers", tokenizer.tokenizer_arguments, tokenizer.tokenizer),
    *(Command(name, info.summary, partial(training.stage_arguments, name), partial(training.train, name), True)
      for name, info in STAGES.items()),
    Command("evaluate", "measure the loss of a run, or its accuracy on tasks",
            evaluating.evaluate_arguments, evaluating.evaluate),
    Command("score", "score conversations by a reward model", aligning.score_arguments, aligning.score),
    Command("compare", "compare the answers of two runs", aligning.compare_arguments, aligning.compare),
    Command("best-of-n", "measure best-of-n sampling with the reward of a ppo or grpo run",
            aligning.best_of_n_arguments, aligning.best_of_n),
    Command("sample", "continue a prompt", using.sample_arguments, using.sample),
    Command("chat", "chat with an assistant", using.chat_arguments, using.chat),
    Command("serve", "serve an OpenAI-compatible API and the playground", serving.serve_arguments, serving.serve),
    Command("feedback", "export, import or count feedback on answers", feedback.feedback_arguments, feedback.feedback),
    Command("improve", "train a run on the feedback on its answers",
            feedback.improve_arguments, feedback.improve, True),
    Command("inspect", "show the training data of a run, or its attention and predictions",
            inspecting.inspect_arguments, inspecting.inspect),
    Command("report", "write a page on a run and its parents, or on several runs",
            using.report_arguments, using.report),
    Command("import", "make a run from another project's model", interop.import_arguments, interop.import_model),
    Command("export", "write a run in another project's format", interop.export_arguments, interop.export),
    Command("presets", "list presets and settings", machine.presets_arguments, machine.presets),
    Command("doctor", "show the hardware of this machine, and whether a preset fits",
            machine.doctor_arguments, machine.doctor, True),
    Command("bench", "measure how fast this machine trains and samples", machine.bench_arguments, machine.bench, True),
)  # fmt: skip
