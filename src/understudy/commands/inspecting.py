"""`inspect`: its options, and the printing of `--mask`, conversations as finetuning reads them.

Not here: the conversations and their mask (report/training_mask.py), and `--prompt` (looking.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.commands import Arguments, check_least, shared_arguments, show_result
from understudy.console import final_table, print_line, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from understudy.report.training_mask import MaskedConversation, TrainingMask

# Neighbouring tokens alternate between two shades, which shows where each ends.
TRAINED, READ = ("black on green", "black on bright_green"), ("", "dim")
NARROWEST = 20


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    shared_arguments(parser, "run")
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--mask", action="store_true", help="show the first conversations, with trained tokens marked")
    view.add_argument(
        "--prompt", metavar="TEXT",
        help="show probabilities, logit lens and attention of this text; - reads standard input. An assistant also "
        "answers it greedily",
    )  # fmt: skip
    add(
        "--data", type=Path, metavar="PATH",
        help="with --mask: a folder or .jsonl file of conversations (default: the run's training data)",
    )  # fmt: skip
    add(
        "--num", type=int, metavar="N",
        help="number of conversations or tokens to show (default: 3 conversations, 16 tokens)",
    )  # fmt: skip
    add("--width", type=int, metavar="N", help="columns of the text (default: the terminal's)")
    looking = parser.add_argument_group("with --prompt").add_argument
    looking("--plain", action="store_true", help="continue the prompt as text, also with an assistant")
    looking("--system", metavar="TEXT", help="a system message before the prompt")
    looking(
        "--tokens", type=int, metavar="N",
        help="maximum length of the greedy continuation (default: 60 for an assistant, else 0)",
    )  # fmt: skip
    looking("--at", type=int, metavar="N", help="show the attention at the position that predicts token N")
    looking("--out", type=Path, metavar="FILE", help="save a picture (.png)")
    looking("--checkpoint", default="best", metavar="WHICH", help="best (default), latest, or a step")
    looking("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    shared_arguments(parser, "--json")


def inspect(arguments: Arguments) -> None:
    check_least(NARROWEST, width=arguments.width)
    check_least(1, num=arguments.num)
    if arguments.prompt is not None:
        from understudy.commands.looking import inspect_prompt

        if arguments.data is not None:
            raise ValueError("--data is for --mask; with --prompt, leave it out")
        inspect_prompt(arguments)
    elif arguments.mask:
        for name in ("plain", "system", "tokens", "at", "out"):
            if getattr(arguments, name) not in (None, False):
                raise ValueError(f"--{name} is for --prompt; with --mask, leave it out")
        _inspect_mask(arguments)
    else:
        raise ValueError(
            "add --mask to see which tokens of conversations are trained on, or --prompt TEXT to see how the model reads "
            "a text"
        )


def _inspect_mask(arguments: Arguments) -> None:
    from understudy.report.training_mask import training_mask

    mask = training_mask(arguments.run, arguments.data, arguments.num or 3)
    if mask.lacks_chat_tokens:
        print_line(f"{mask.run} is a base run without chat tokens; they are shown as `understudy sft` would add them")
    show_result(arguments, mask.as_dict(), lambda: _print(mask, arguments.width))


def _print(mask: TrainingMask, width: int | None) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width, highlight=False)
    coloured = console.color_system is not None and not console.no_color
    wrapped = width is not None or console.is_terminal
    legend = Text.assemble(("trained on", TRAINED[0]), "  read only  ", ("special token", "bold"))
    _say(console, legend if coloured else Text("«trained on»  read only"), wrapped)
    for number, shown in enumerate(mask.conversations, 1):
        trained = f"{sum(shown.mask):,} of {len(shown.mask):,} tokens trained on"
        _say(console, Text(f"\n── {number}: {shown.fate}, {trained}", style="bold"), wrapped)
        _say(console, _marked(shown, coloured), wrapped)
    counts = mask.counts
    cut, dropped = (counts[a] + counts[b] for a, b in (("cut_at_a_turn", "cut_inside"), ("too_long", "without_answer")))
    share = counts["trained_tokens"] / counts["tokens"]
    _say(console, Text(), wrapped)
    final_table({
        "data": f"{mask.data}, {mask.split}",
        "conversations": f"{counts['conversations']:,}",
        "cut": f"{cut:,} to {mask.context_length:,} tokens",
        "dropped": f"{dropped:,}",
        "tokens": f"{counts['tokens']:,}",
        "trained on": f"{counts['trained_tokens']:,} ({share:.1%})",
    }, console)  # fmt: skip


def _say(console: Console, text: Text, wrapped: bool) -> None:
    console.print(text, soft_wrap=not wrapped)


def _marked(shown: MaskedConversation, coloured: bool) -> Text:
    """Text of a conversation, with the trained tokens in colour or in «brackets» and the numbers of cut tokens."""
    from rich.text import Text

    text, was_trained = Text(), False
    if shown.left_out_before:
        text.append(_left_out(shown.left_out_before) + "\n", style="dim italic")
    for number, (piece, trained) in enumerate(zip(shown.texts, shown.mask)):
        style = (TRAINED if trained else READ)[number % 2] if coloured else ""
        if trained != was_trained and not coloured:
            text.append("«" if trained else "»")
        text.append(printable(piece), style=f"bold {style}" if coloured and shown.special[number] else style)
        was_trained = trained
    if was_trained and not coloured:
        text.append("»")
    if shown.left_out_after:
        text.append("\n" + _left_out(shown.left_out_after), style="dim italic")
    elif text.plain.endswith("\n"):
        text.right_crop(1)
    return text


def _left_out(count: int) -> str:
    return f"[{count:,} token{'s' * (count > 1)} left out]"
