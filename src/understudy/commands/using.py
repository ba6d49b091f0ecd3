"""Verbs that use a trained run: sample, chat, report."""

from __future__ import annotations

import argparse
import io
import json
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.commands import (
    Arguments,
    check_least,
    model_arguments,
    run_that_generates,
    shared_arguments,
    show_result,
)
from understudy.console import print_json, printable

if TYPE_CHECKING:
    from understudy.inference.constraint import OutputConstraint
    from understudy.inference.sampling import SamplingSettings
    from understudy.tokenizer import Tokenizer


def sampling_arguments(parser: argparse.ArgumentParser, temperature: float) -> None:
    add = parser.add_argument
    add(
        "--temperature", type=float, default=temperature, metavar="X",
        help="sampling temperature; 0 is greedy (default: %(default)s)",
    )  # fmt: skip
    add("--top-k", type=int, metavar="N", help="sample among the N most likely tokens")
    add("--top-p", type=float, metavar="X", help="sample among the most likely tokens with total probability X")
    add("--min-p", type=float, metavar="X", help="exclude tokens below X times the largest probability")
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1 discourages repetition")
    add("--seed", type=int, metavar="N", help="seed; the same seed gives the same text")


def sampling_settings(arguments: Arguments) -> SamplingSettings:
    from understudy.inference.sampling import SamplingSettings

    return SamplingSettings(
        temperature=arguments.temperature, top_k=arguments.top_k, top_p=arguments.top_p, min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty, seed=arguments.seed,
    )  # fmt: skip


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    model_arguments(parser)
    add("--prompt", default="\n", metavar="TEXT", help="text to continue; - reads standard input")
    add("--num", type=int, default=1, metavar="N", help="number of continuations (default: 1)")
    add("--tokens", type=int, default=300, metavar="N", help="maximum new tokens (default: 300)")
    add("--stop", action="append", default=[], metavar="TEXT", help="stop before this text; may be repeated")
    add(
        "--json-schema", type=Path, metavar="FILE",
        help="a JSON schema; each continuation is a JSON value that it accepts",
    )  # fmt: skip
    sampling_arguments(parser, temperature=0.8)


def sample(arguments: Arguments) -> None:
    from understudy.inference.generate import generate_text, stream_text
    from understudy.inference.quantize import model_for_generation

    check_least(1, num=arguments.num, tokens=arguments.tokens)
    settings = sampling_settings(arguments)
    run = run_that_generates(arguments)
    model = model_for_generation(run.model)
    constraint = None if arguments.json_schema is None else _constraint(arguments.json_schema, run.tokenizer)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if arguments.num == 1 and not arguments.json:
        pieces = stream_text(
            model, run.tokenizer, prompt, arguments.tokens, settings, arguments.stop, constraint=constraint
        )
        for piece in chain([prompt + next(pieces, "")], pieces):  # an unreadable prompt is refused before it is printed
            sys.stdout.write(_terminal_text(piece))
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = generate_text(
        model,
        run.tokenizer,
        [prompt] * arguments.num,
        arguments.tokens,
        settings,
        arguments.stop,
        constraint=constraint,
    )
    samples = [{"text": t.text, "tokens": len(t.tokens), "finish_reason": t.finish_reason} for t in texts]
    show_result(
        arguments, {"run": str(run.path), "step": run.step, "prompt": prompt, "samples": samples},
        lambda: print(_terminal_text("\n---\n".join(prompt + t.text for t in texts))),
    )  # fmt: skip


def _constraint(path: Path, tokenizer: Tokenizer) -> OutputConstraint:
    """The constraint of a file with a JSON schema."""
    from understudy.inference.constraint import json_constraint
    from understudy.tokenizer.chat import end_ids

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a JSON schema ({error})") from None
    try:
        return json_constraint(tokenizer, schema, end_ids(tokenizer))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _terminal_text(text: str) -> str:
    """The text as generated, but without control characters if standard output is a terminal."""
    return printable(text) if sys.stdout.isatty() else text


CHAT_HELP = """\
Type a message and press Enter; Alt-Enter, or \\ at the end of a line, begins a
new line in it. /help lists the commands; // sends a text that begins with /. Ctrl-C stops an answer, Ctrl-D ends the chat.

The model reads the system message and as many of the latest turns as fit its
context; the oldest turns are dropped first, with a note. Only /save writes to disk.

Through a pipe, each line is a turn or a command. Answers are printed in order on
standard output, with nothing else. The first line that fails ends the chat with
status 2. With --json the conversation is printed at the end."""


def chat_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    model_arguments(parser)
    parser.epilog = CHAT_HELP
    add("--system", metavar="TEXT", help="a system message")
    add("--load", type=Path, metavar="FILE", help="continue a conversation that /save wrote")
    add("--tokens", type=int, default=300, metavar="N", help="maximum tokens of an answer (default: 300)")
    sampling_arguments(parser, temperature=0.7)


def chat(arguments: Arguments) -> None:
    from understudy.chat.session import Chat
    from understudy.chat.terminal import talk_in_terminal, talk_through_pipe, tolerant
    from understudy.inference.quantize import model_for_generation
    from understudy.tokenizer.chat import speaks_chat

    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    check_least(1, tokens=arguments.tokens)
    if arguments.json and at_terminal:
        raise ValueError("--json prints a conversation that came through a pipe; in the terminal, use /save FILE")
    settings = sampling_settings(arguments)
    run = run_that_generates(arguments)
    if not speaks_chat(run.tokenizer):
        raise ValueError(
            f"the run {run.path} continues text and has no chat tokens; finetune it with `understudy sft`, or use "
            "`understudy sample`"
        )
    conversation = Chat(model_for_generation(run.model), run.tokenizer, settings, arguments.tokens)
    if arguments.load is not None:
        conversation.load(arguments.load)
    if arguments.system is not None:
        conversation.set_system(arguments.system)
    if at_terminal:
        talk_in_terminal(
            conversation,
            f"{run.path.name}, step {run.step}, reading {conversation.context} tokens, on {next(run.model.parameters()).device}. "
            "/help lists the commands; Ctrl-D ends.",
        )
        return
    out = io.StringIO() if arguments.json else tolerant(sys.stdout)
    lines = tolerant(sys.stdin, "utf-8-sig")  # PowerShell begins with a byte order mark
    talk_through_pipe(conversation, lines, out, sys.stderr)
    if arguments.json:
        print_json({"run": str(run.path), "step": run.step, "messages": conversation.messages})


def report_arguments(parser: argparse.ArgumentParser) -> None:
    shared_arguments(parser, "run", nargs="+")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="path of the page (default: report.html in the first run)"
    )


def report(arguments: Arguments) -> None:
    from understudy.report.report import write_report
    from understudy.run import find_run

    folders = [find_run(name).path for name in arguments.run]
    print(write_report(folders, arguments.out or folders[0] / "report.html"))
