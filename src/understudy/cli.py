"""The command line: one table of verbs. Each verb imports what it needs when it is called.

Standard output holds what was asked for (text, or one JSON document with --json); everything said to people goes to
standard error. Exit status: 0 done, 2 the user's mistake in one sentence, 130 interrupted with the state saved,
1 a defect of ours.
"""

from __future__ import annotations

import argparse
import difflib
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
    machine,
    serving,
    training,
    using,
)
from understudy.config.stages import STAGES
from understudy.environment import set_environment


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    set_environment()
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        arguments.command(arguments)
    except ValueError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("understudy: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}")
    return int(arguments.status)


def parse(argv: list[str]) -> Arguments:
    """The arguments of one command; some verbs take dotted settings beside their own options.

    Raises:
        ValueError: anything that no command understands.
    """
    parser = build_parser()
    takes_settings = any(verb.settings for verb in VERBS if verb.name in argv[:1])
    overrides, argv = _settings(argv) if takes_settings else ({}, argv)
    arguments, unknown = parser.parse_known_args(argv)
    if "command" not in arguments:
        parser.print_help(sys.stderr)
        raise ValueError("say what to do: one of the commands above")
    if unknown:
        close = difflib.get_close_matches(unknown[0], arguments.options, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(
            f"{unknown[0]!r} means nothing to `understudy {arguments.verb}`{hint}; "
            f"`understudy {arguments.verb} --help` shows what it takes"
        )
    arguments.overrides, arguments.status = overrides, 0
    return arguments


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="understudy",
        description="Train your own ChatGPT, from raw text to a chat window.",
        allow_abbrev=False,
    )
    from understudy import __version__

    parser.add_argument("--version", action="version", version=f"understudy {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    for verb in VERBS:
        sub = verbs.add_parser(
            verb.name,
            help=verb.help,
            description=verb.help,
            epilog=SETTINGS_EPILOG if verb.settings else None,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.arguments(sub)
        options = [option for action in sub._actions for option in action.option_strings]
        sub.set_defaults(command=verb.run, verb=verb.name, options=options, settings=verb.settings)
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse, complaining the way everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; `{self.prog} --help` shows what is accepted")


def _settings(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take dotted settings, `--optim.lr 3e-4` or `--optim.lr=3e-4`, and --depth out of the words of a command."""
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


@dataclass(frozen=True)
class Verb:
    """A row of the table: ``arguments`` names what it takes, ``run`` does it. ``settings``: takes dotted settings."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Arguments], None]
    settings: bool = False


SETTINGS_EPILOG = """\
Any setting can be given by its dotted name, as --train.steps 500 --optim.lr 3e-4;
`understudy presets --settings` lists them all."""

VERBS = (
    Verb("demo", "the whole path on the embedded corpus", training.demo_arguments, training.demo),
    Verb("prepare", "turn text into token files", data.prepare_arguments, data.prepare),
    Verb("tokenizer", "train, inspect or compare tokenizers", data.tokenizer_arguments, data.tokenizer),
    *(
        Verb(name, info.summary, partial(training.stage_arguments, name), partial(training.train, name), True)
        for name, info in STAGES.items()
    ),
    Verb("evaluate", "loss of a run, or its scores on tasks", evaluating.evaluate_arguments, evaluating.evaluate),
    Verb("score", "score conversations with a reward model", aligning.score_arguments, aligning.score),
    Verb("compare", "win rate of one run's answers against another's", aligning.compare_arguments, aligning.compare),
    Verb(
        "best-of-n",
        "reward of the best of n samples, to compare ppo or grpo with",
        aligning.best_of_n_arguments,
        aligning.best_of_n,
    ),
    Verb("sample", "continue a prompt", using.sample_arguments, using.sample),
    Verb("chat", "talk with an assistant", using.chat_arguments, using.chat),
    Verb("serve", "an OpenAI-compatible API and the playground", serving.serve_arguments, serving.serve),
    Verb(
        "feedback",
        "what people thought of answers: stats, export, import",
        feedback.feedback_arguments,
        feedback.feedback,
    ),
    Verb(
        "improve",
        "train a better run from what people thought of one's answers",
        feedback.improve_arguments,
        feedback.improve,
        True,
    ),
    Verb(
        "inspect",
        "trained tokens of conversations, or a look inside the model",
        inspecting.inspect_arguments,
        inspecting.inspect,
    ),
    Verb("report", "one page on a run and its parents, or several runs compared", using.report_arguments, using.report),
    Verb("import", "make a run of another project's model", interop.import_arguments, interop.import_model),
    Verb("export", "write a run in another project's format", interop.export_arguments, interop.export),
    Verb("presets", "list presets and settings", machine.presets_arguments, machine.presets),
    Verb(
        "doctor",
        "what this machine can do, and whether a preset fits",
        machine.doctor_arguments,
        machine.doctor,
        True,
    ),
    Verb("bench", "how fast this machine trains and samples", machine.bench_arguments, machine.bench, True),
)
