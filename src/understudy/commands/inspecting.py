"""`inspect`: its options, and `--mask`, conversations as a finetuning reads them, with what is trained on.

For the mask nothing of a model is loaded: a run's configuration and tokenizer say it all. Not here: the mask itself
(tokenizer/chat.py), how too long conversations are cut (data/chat/packing.py), and `--prompt` (looking.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.commands import Arguments, check_least
from understudy.commands.using import run_arguments
from understudy.console import print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from understudy.config.run import RunConfig
    from understudy.data.chat.packing import RenderedSet
    from understudy.run import RunFolder
    from understudy.tokenizer import Tokenizer

# Neighbouring tokens take turns between two shades, so that one sees where each ends.
TRAINED, READ = ("black on green", "black on bright_green"), ("", "dim")
NARROWEST = 20


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--mask", action="store_true", help="the first conversations, coloured by what is trained on")
    what.add_argument(
        "--prompt",
        metavar="TEXT",
        help="how the model reads this: probabilities, logit lens, attention; - reads standard input. Said to an "
        "assistant, with its likeliest answer",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="with --mask, other conversations than those trained on: a folder, or a .jsonl file",
    )
    parser.add_argument(
        "--num", type=int, metavar="N", help="how many conversations, or tokens of a prompt, are shown (3, or 16)"
    )
    parser.add_argument("--width", type=int, metavar="N", help="columns of the text (default: the terminal's)")
    looking = parser.add_argument_group("with --prompt")
    looking.add_argument("--plain", action="store_true", help="text to go on from, also where the run is an assistant")
    looking.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    looking.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="have the model go on for at most so many tokens, the likeliest ones (default: 60 to answer, else 0)",
    )
    looking.add_argument(
        "--at", type=int, metavar="N", help="the token whose attention is shown, by its number in the table"
    )
    looking.add_argument("--out", type=Path, metavar="FILE", help="save it all as a picture (.png)")
    looking.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), latest, or a step")
    looking.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def inspect(arguments: Arguments) -> None:
    check_least(NARROWEST, width=arguments.width)
    check_least(1, num=arguments.num)
    if arguments.prompt is not None:
        from understudy.commands.looking import look_at_prompt

        if arguments.data is not None:
            raise ValueError("--data is for --mask; with --prompt, leave it out")
        look_at_prompt(arguments)
    elif arguments.mask:
        for name in ("plain", "system", "tokens", "at", "out"):
            if getattr(arguments, name) not in (None, False):
                raise ValueError(f"--{name} is for --prompt; with --mask, leave it out")
        _show_mask(arguments)
    else:
        raise ValueError(
            "say what to look at: --mask shows which tokens of conversations are trained on, --prompt TEXT how the "
            "model reads a text"
        )


def _show_mask(arguments: Arguments) -> None:
    from understudy.data.chat.conversations import open_conversations
    from understudy.data.chat.packing import render_set
    from understudy.run import find_run
    from understudy.tokenizer import load_tokenizer
    from understudy.tokenizer.chat import speaks_chat, with_chat_tokens

    folder = find_run(arguments.run)
    config, own = folder.config(), load_tokenizer(folder.path / "tokenizer.json")
    tokenizer = with_chat_tokens(own)
    conversations = open_conversations(arguments.data or _trained_on(folder, config), "train")
    context, too_long = config.model.context_length, config.data.too_long or "cut"
    messages = (record["messages"] for record in conversations)
    every = render_set(messages, tokenizer, context, too_long)
    first = [
        _shown(tokenizer, record["messages"], context, too_long) for record in islice(conversations, arguments.num or 3)
    ]
    if not speaks_chat(own):
        print(
            f"{folder.path} is a base run without chat tokens; it is shown with those that `understudy sft` would add",
            file=sys.stderr,
        )
    about = {
        "run": str(folder.path), "data": str(conversations.path), "split": conversations.split,
        "context_length": context, "too_long": too_long,
    }  # fmt: skip
    if arguments.json:
        shown = [dataclasses.asdict(each) for each in first]
        print_json(about | {"counts": _counts(every), "conversations": shown})
    else:
        _print(first, every, about, arguments.width)


def _trained_on(folder: RunFolder, config: RunConfig) -> Path:
    if config.info.data != "conversations":
        raise ValueError(
            f"the run {folder.path} was trained on text; say which conversations to show: --data PATH, a folder that "
            "`understudy prepare SOURCE --kind conversations` made or a .jsonl file"
        )
    return Path(config.data.path)


@dataclass(frozen=True)
class Shown:
    """One conversation as a row has it: ids, texts and mask are equally long. Of what was cut, only how many tokens."""

    fate: str
    left_out_before: int
    left_out_after: int
    ids: list[int]
    texts: list[str]
    mask: list[bool]
    special: list[bool]


def _shown(tokenizer: Tokenizer, messages: Any, context_length: int, too_long: str) -> Shown:
    from understudy.data.chat.packing import PackingCounts, fit_to_row
    from understudy.tokenizer.base import token_texts
    from understudy.tokenizer.chat import render

    rendered, counts = render(tokenizer, messages), PackingCounts()
    fitted = fit_to_row(rendered, context_length + 1, too_long, counts)
    fate = next(name for name, count in vars(counts).items() if count).replace("_", " ")
    if fitted is None:  # shown whole, with nothing trained on
        fate, tokens, mask, before = f"dropped, {fate}", rendered.tokens, [False] * len(rendered.tokens), 0
    else:
        tokens, mask = fitted.tokens, fitted.mask
        before = rendered.mask.index(True) - mask.index(True)  # a cut keeps the beginning of the first answer
    special = set(tokenizer.special_tokens.values())
    return Shown(
        fate, before, len(rendered.tokens) - before - len(tokens), tokens, token_texts(tokenizer, tokens), mask,
        [token in special for token in tokens],
    )  # fmt: skip


def _counts(every: RenderedSet) -> dict[str, int]:
    """What became of all conversations, and of their tokens."""
    return dataclasses.asdict(every.counts) | {"tokens": len(every.tokens), "trained_tokens": int(every.mask.sum())}


def _print(first: list[Shown], every: RenderedSet, about: dict[str, Any], width: int | None) -> None:
    from rich.console import Console
    from rich.text import Text

    from understudy.console import final_table

    console = Console(width=width, highlight=False)
    coloured = console.color_system is not None and not console.no_color
    wrapped = width is not None or console.is_terminal
    legend = Text.assemble(("trained on", TRAINED[0]), "  read only  ", ("special token", "bold"))
    _say(console, legend if coloured else Text("«trained on»  read only"), wrapped)
    for number, shown in enumerate(first, 1):
        trained = f"{sum(shown.mask):,} of {len(shown.mask):,} tokens trained on"
        _say(console, Text(f"\n── {number}: {shown.fate}, {trained}", style="bold"), wrapped)
        _say(console, _marked(shown, coloured), wrapped)
    counts = _counts(every)
    cut, dropped = (counts[a] + counts[b] for a, b in (("cut_at_a_turn", "cut_inside"), ("too_long", "without_answer")))
    share = counts["trained_tokens"] / counts["tokens"]
    _say(console, Text(), wrapped)
    final_table({
        "data": f"{about['data']}, {about['split']}",
        "conversations": f"{counts['conversations']:,}",
        "cut": f"{cut:,} to {about['context_length']:,} tokens",
        "dropped": f"{dropped:,}",
        "tokens": f"{counts['tokens']:,}",
        "trained on": f"{counts['trained_tokens']:,} ({share:.1%})",
    }, console)  # fmt: skip


def _say(console: Console, text: Text, wrapped: bool) -> None:
    console.print(text, soft_wrap=not wrapped)


def _marked(shown: Shown, coloured: bool) -> Text:
    """The text of a conversation, trained tokens in colour or in «brackets», and what was cut as a number."""
    from rich.text import Text

    from understudy.console import printable

    text, before = Text(), False
    if shown.left_out_before:
        text.append(_left_out(shown.left_out_before) + "\n", style="dim italic")
    for place, (piece, trained) in enumerate(zip(shown.texts, shown.mask)):
        style = (TRAINED if trained else READ)[place % 2] if coloured else ""
        if trained != before and not coloured:
            text.append("«" if trained else "»")
        text.append(printable(piece), style=f"bold {style}" if coloured and shown.special[place] else style)
        before = trained
    if before and not coloured:
        text.append("»")
    if shown.left_out_after:
        text.append("\n" + _left_out(shown.left_out_after), style="dim italic")
    elif text.plain.endswith("\n"):
        text.right_crop(1)
    return text


def _left_out(count: int) -> str:
    return f"[{count:,} token{'s' * (count > 1)} left out]"
