"""Verbs that use a trained run: evaluate, sample, chat, report."""

from __future__ import annotations

import argparse
import io
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.commands import Arguments, check_least
from understudy.commands.aligning import evaluate_reward
from understudy.commands.evaluating import evaluate_tasks, refuse_task_options, task_arguments
from understudy.console import interval_text, print_json
from understudy.run import refuse_reward_model

if TYPE_CHECKING:
    from understudy.inference.sampling import SamplingSettings


def run_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    parser.add_argument("run", nargs="+" if several else None, metavar="RUN", help="a name under runs/, or a path")


def model_arguments(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), latest, or a step")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument("--data", metavar="PATH", help="another data folder than the one trained on")
    parser.add_argument("--split", default="val", choices=("train", "val"), help="which split (default: val)")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="length of the windows (default: the model's)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="windows or questions in one forward")
    task_arguments(parser)


def evaluate(arguments: Arguments) -> None:
    if arguments.tasks is not None:
        evaluate_tasks(arguments)
    else:
        refuse_task_options(arguments)
        _evaluate_loss(arguments)


def _evaluate_loss(arguments: Arguments) -> None:
    from understudy.evaluate.loss import evaluate_run, save_evaluation
    from understudy.run import RunFolder, load_run
    from understudy.runtime import start_runtime
    from understudy.train.metrics import final_table

    run = load_run(arguments.run, arguments.checkpoint)
    limit = run.config.model.context_length
    context = limit if arguments.context is None else arguments.context
    if not 1 <= context <= limit:
        raise ValueError(f"--context is {context}; the model reads 1 to {limit} tokens")
    check_least(1, batch_size=arguments.batch_size)
    if not run.config.info.generates:
        evaluate_reward(arguments, run, context)
        return
    path = Path(arguments.data) if arguments.data else None
    with start_runtime(arguments.device) as runtime:
        result = evaluate_run(run, runtime, path, arguments.split, context, arguments.batch_size)
    about = {"run": str(run.path), "step": run.step, "split": arguments.split, "context_length": context}
    if arguments.data is None and arguments.split == "val" and context == limit:
        save_evaluation(RunFolder(run.path), result, str(run.step))
    if arguments.json:
        print_json(about | result.as_dict())
        return
    rows = {name.replace("_", " "): str(value) for name, value in about.items()} | {
        "loss": interval_text(result.loss, result.loss_low, result.loss_high, ".4f"),
        "perplexity": f"{result.perplexity:.3f}",
        "tokens": f"{result.tokens:,}",
    }
    if result.bits_per_byte is not None:
        low, high = result.bits_per_byte_low, result.bits_per_byte_high
        rows["bits per byte"] = interval_text(result.bits_per_byte, low, high, ".4f")
    final_table(rows)


def sampling_arguments(parser: argparse.ArgumentParser, temperature: float) -> None:
    parser.add_argument(
        "--temperature",
        type=float,
        default=temperature,
        metavar="X",
        help="0 takes the likeliest (default %(default)s)",
    )
    parser.add_argument("--top-k", type=int, metavar="N", help="choose among the N likeliest")
    parser.add_argument(
        "--top-p", type=float, metavar="X", help="choose among the likeliest that hold X of the probability"
    )
    parser.add_argument(
        "--min-p", type=float, metavar="X", help="leave out tokens under X of the likeliest one's probability"
    )
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="over 1 discourages repetition"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")


def sampling_settings(arguments: Arguments) -> SamplingSettings:
    from understudy.inference.sampling import SamplingSettings

    return SamplingSettings(
        temperature=arguments.temperature, top_k=arguments.top_k, top_p=arguments.top_p, min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty, seed=arguments.seed,
    )  # fmt: skip


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument("--prompt", default="\n", metavar="TEXT", help="what to continue; - reads standard input")
    parser.add_argument("--num", type=int, default=1, metavar="N", help="how many continuations")
    parser.add_argument("--tokens", type=int, default=300, metavar="N", help="at most so many new tokens")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated"
    )
    sampling_arguments(parser, temperature=0.8)


def sample(arguments: Arguments) -> None:
    from understudy.inference.generate import generate_text, stream_text
    from understudy.inference.weights import model_for_generation
    from understudy.run import load_run
    from understudy.runtime import choose_device

    if arguments.num < 1 or arguments.tokens < 1:
        raise ValueError("--num and --tokens want a number from 1")
    settings = sampling_settings(arguments)
    device, _ = choose_device(arguments.device)
    run = load_run(arguments.run, arguments.checkpoint, str(device))
    refuse_reward_model(run)
    model = model_for_generation(run.model)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if arguments.num == 1 and not arguments.json:
        pieces = stream_text(model, run.tokenizer, prompt, arguments.tokens, settings, arguments.stop)
        for piece in chain([prompt + next(pieces, "")], pieces):  # a prompt that cannot be read is refused unsaid
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = generate_text(model, run.tokenizer, [prompt] * arguments.num, arguments.tokens, settings, arguments.stop)
    if arguments.json:
        samples = [{"text": t.text, "tokens": len(t.tokens), "finish_reason": t.finish_reason} for t in texts]
        print_json({"run": str(run.path), "step": run.step, "prompt": prompt, "samples": samples})
        return
    print("\n---\n".join(prompt + t.text for t in texts))


CHAT_HELP = """\
Type a message and press Enter; Alt-Enter, or \\ at the end of a line, begins a
new line within it. /help lists the commands; a text that itself begins with / is
sent with // before it. Ctrl-C stops an answer, Ctrl-D ends the chat.

The model reads the system message and as many of the latest turns as fit its
context; the oldest leave first, and the chat says so. Nothing is kept on disk but
what /save writes.

Through a pipe, each line is a turn or a command, answered in order on standard
output with nothing else on it; the first line that cannot be done ends the chat
with status 2. With --json the conversation is printed at the end."""


def chat_arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.epilog = CHAT_HELP
    parser.add_argument("--system", metavar="TEXT", help="a message that says how to answer")
    parser.add_argument("--load", type=Path, metavar="FILE", help="go on with a conversation that /save wrote")
    parser.add_argument("--tokens", type=int, default=300, metavar="N", help="at most so many tokens an answer")
    sampling_arguments(parser, temperature=0.7)


def chat(arguments: Arguments) -> None:
    from understudy.chat.session import Chat
    from understudy.chat.terminal import talk_in_terminal, talk_through_pipe, tolerant
    from understudy.inference.weights import model_for_generation
    from understudy.run import load_run
    from understudy.runtime import choose_device
    from understudy.tokenizer.chat import speaks_chat

    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if arguments.tokens < 1:
        raise ValueError("--tokens wants a number from 1")
    if arguments.json and at_terminal:
        raise ValueError("--json prints a conversation that came through a pipe; in the terminal, use /save FILE")
    settings = sampling_settings(arguments)
    device, _ = choose_device(arguments.device)
    run = load_run(arguments.run, arguments.checkpoint, str(device))
    refuse_reward_model(run)
    if not speaks_chat(run.tokenizer):
        raise ValueError(
            f"the run {run.path} continues text and was not taught to answer; make one that was from it "
            "with `understudy sft`, or use `understudy sample`"
        )
    conversation = Chat(model_for_generation(run.model), run.tokenizer, settings, arguments.tokens)
    if arguments.load is not None:
        conversation.load(arguments.load)
    if arguments.system is not None:
        conversation.set_system(arguments.system)
    if at_terminal:
        talk_in_terminal(
            conversation,
            f"{run.path.name}, step {run.step}, reading {conversation.context} tokens, on {device}. "
            "/help lists the commands; Ctrl-D ends.",
        )
        return
    out = io.StringIO() if arguments.json else tolerant(sys.stdout)
    lines = tolerant(sys.stdin, "utf-8-sig")  # PowerShell begins with a byte order mark
    talk_through_pipe(conversation, lines, out, sys.stderr)
    if arguments.json:
        print_json({"run": str(run.path), "step": run.step, "messages": conversation.messages})


def report_arguments(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser, several=True)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write the page (default: report.html in the first run)",
    )


def report(arguments: Arguments) -> None:
    from understudy.report.report import write_report
    from understudy.run import find_run

    folders = [find_run(name).path for name in arguments.run]
    out = write_report(folders, arguments.out or folders[0] / "report.html")
    print(out)
