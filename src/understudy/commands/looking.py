"""`inspect --prompt`: how a model reads a text or a conversation, in the terminal, as JSON and as a picture.

Not here: the look itself and its picture (report/look.py), its numbers (inference/lookinside.py).
"""

from __future__ import annotations

import sys
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from understudy.commands import Arguments, check_least, run_that_generates, show_result
from understudy.console import print_line, printable
from understudy.files import check_output_path
from understudy.report.look import PromptLook, look_at_prompt, look_plot

SHADES = ((0.5, "black on green"), (0.1, "black on yellow"), (0.01, "black on dark_orange"), (0.0, "white on red"))


def inspect_prompt(arguments: Arguments) -> None:
    check_least(0, tokens=arguments.tokens)
    if arguments.out is not None:
        check_output_path(arguments.out)
    run = run_that_generates(arguments)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    look = look_at_prompt(run, prompt, arguments.plain, arguments.system, arguments.tokens)
    position = look.position(arguments.at)
    if arguments.out is not None:
        look_plot(look, arguments.out, arguments.num)
    show_result(
        arguments, look.as_dict(position), lambda: _print(look, look.shown(arguments.num), position, arguments.width)
    )
    if arguments.out is not None:
        print_line(f"the picture is {arguments.out}")


def _print(look: PromptLook, shown: range, position: int, width: int | None) -> None:
    console = Console(width=width, highlight=False)
    run = look.run
    console.print(Text(f"{run.path.name}, step {run.step}: {len(look.rows)} tokens", style="bold"))
    console.print(_legend(), soft_wrap=not console.is_terminal and width is None)
    console.print(_coloured(look))
    _heading(console, "Probability of each token, and the most likely alternatives")
    _print_probabilities(console, look, shown)
    if len(look.look.lens.tokens) > 1:
        _heading(console, "Logit lens: the most likely token after each layer, and the probability of the actual token")
        _print_lens(console, look, shown)
    if len(look.look.attention):
        predicted = "the next token" if position + 1 == len(look.rows) else f"token {position + 1}"
        _heading(console, f"Attention of each layer and head at the position that predicts {predicted}")
        _print_attention(console, look, position)


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _legend() -> Text:
    names = ("50% or more", "10% or more", "1% or more", "less likely")
    return Text("  ").join(Text(name, style=style) for name, (_, style) in zip(names, SHADES))


def _shade(probability: float | None) -> str:
    return "dim" if probability is None else next(style for least, style in SHADES if probability >= least)


def _coloured(look: PromptLook) -> Text:
    """The text, each token coloured by its probability. A prompt with a continuation is dimmed instead."""
    text = Text()
    for number, (piece, row) in enumerate(zip(look.texts, look.rows)):
        in_prompt = number < look.prompt_tokens < len(look.rows)
        text.append(printable(piece), style="dim" if in_prompt else _shade(row["probability"]))
    return text


def _table(*columns: str, last: int = 0) -> Table:
    """A table; ``last`` is the highest token number in it. Numbers are never cut short, since `--at` takes them."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in ("#", "probability") else "left"
        least = len(str(last)) if column == "#" else len(column)
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", min_width=least)
    return table


def _print_probabilities(console: Console, look: PromptLook, shown: range) -> None:
    table = _table("#", "token", "probability", "alternatives", last=shown.stop - 1)
    for number in shown:
        row = look.rows[number]
        others = [pair for pair in row["alternatives"] if pair[0] != row["token"]][:4]
        table.add_row(
            str(number), _cell(row["token"]), _cell(percent(row["probability"]), _shade(row["probability"])),
            _cell("  ".join(f"{name} {percent(p)}" for name, p in others)),
        )  # fmt: skip
    console.print(table)


def _print_lens(console: Console, look: PromptLook, shown: range) -> None:
    layers = len(look.look.lens.tokens) - 1
    table = _table("#", "token", "embedding", *(f"layer {n}" for n in range(1, layers + 1)), last=shown.stop - 1)
    for number in shown:
        row = look.rows[number]
        cells = [_cell(f"{name} {percent(real)}", _shade(real)) for name, _, real in row["layers"]]
        table.add_row(str(number), _cell(row["token"]), *cells)
    console.print(table)


def _print_attention(console: Console, look: PromptLook, position: int) -> None:
    """For each head, the tokens with the largest attention weights at a position."""
    attention = look.look.attention[:, :, position]  # (L, H, T)
    table = _table("layer", "head", "attends to")
    for layer, heads in enumerate(attention, 1):
        if not heads.any():
            table.add_row(str(layer), "", "a short convolution, without attention")
            continue
        for head, weights in enumerate(heads, 1):
            top = weights.topk(min(4, position + 1))
            attended = [
                f"{look.rows[key]['token']} ({key}) {percent(weight)}"
                for weight, key in zip(top.values.tolist(), top.indices.tolist())
                if weight >= 0.02
            ]
            table.add_row(str(layer), str(head), _cell("   ".join(attended)))
    console.print(table)


def _cell(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


def percent(probability: float | None) -> str:
    """A probability in at most five characters."""
    if probability is None:
        return ""
    if probability >= 0.9995:
        return "100%"
    return f"{probability:.1%}" if probability >= 0.0005 else "<.1%"
