"""`inspect --prompt`: how a model reads a text or a conversation, in the terminal, as JSON and as a picture.

Not here: the numbers themselves (inference/lookinside.py) and the picture's drawing (report/look_plot.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from understudy.commands import Arguments, check_least
from understudy.console import print_json
from understudy.run import refuse_reward_model

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from understudy.inference.lookinside import Look
    from understudy.run import Run

ANSWER_TOKENS = 60
SHOWN = 16
SHADES = ((0.5, "black on green"), (0.1, "black on yellow"), (0.01, "black on dark_orange"), (0.0, "white on red"))


@dataclass(frozen=True)
class Reading:
    """A text that was looked at: ``rows`` describe its tokens, of which those from ``own`` on are the model's."""

    run: Run
    look: Look
    rows: list[dict[str, Any]]
    texts: list[str]
    own: int
    chat: bool

    def shown(self, number: int | None) -> range:
        """The tokens that tables are about: the model's own, or else the last ones; the first has nothing before."""
        count, end = number or SHOWN, len(self.rows)
        return range(self.own, min(end, self.own + count)) if self.own < end else range(max(1, end - count), end)

    def place(self, at: int | None) -> int:
        """The place from which attention is looked at: before token ``at``, by default the first of the model's own
        (or after all there is)."""
        if at is None:
            return min(self.own, len(self.rows)) - 1
        if not 1 <= at <= len(self.rows):
            raise ValueError(
                f"--at is {at}; the text has the tokens 1 to {len(self.rows) - 1}, and {len(self.rows)} next"
            )
        return at - 1


def look_at_prompt(arguments: Arguments) -> None:
    reading = read_prompt(arguments)
    place = reading.place(arguments.at)
    run = reading.run
    if arguments.out is not None:
        from understudy.report.look_plot import look_plot

        about = f"{run.path.name}, step {run.step}"
        look_plot(reading.look, reading.rows, reading.shown(arguments.num), arguments.out, about, reading.own)
    if arguments.json:
        about_run = {"run": str(run.path), "step": run.step, "prompt_tokens": reading.own, "place": place}
        attention = [
            [[round(w, 4) for w in head[place].tolist()] for head in layer] for layer in reading.look.attention
        ]
        print_json(about_run | {"tokens": reading.rows, "attention": attention})
        return
    _print(reading, reading.shown(arguments.num), place, arguments.width)
    if arguments.out is not None:
        print(f"the picture is {arguments.out}", file=sys.stderr)


def read_prompt(arguments: Arguments) -> Reading:
    """Load the run, read the prompt as it would be answered or continued, and look at all of it.

    Raises:
        ValueError: no such run, a prompt that is empty or does not fit, options that do not go together.
    """
    from understudy.inference.generate import continue_rows, encode_prompt
    from understudy.inference.lookinside import describe, look_inside
    from understudy.inference.sampling import SamplingSettings
    from understudy.run import load_run
    from understudy.runtime import choose_device
    from understudy.tokenizer.base import token_texts
    from understudy.tokenizer.chat import end_ids, render, speaks_chat

    check_least(0, tokens=arguments.tokens)
    device, _ = choose_device(arguments.device)
    run = load_run(arguments.run, arguments.checkpoint, str(device))
    refuse_reward_model(run)
    chat = speaks_chat(run.tokenizer) and not arguments.plain
    if arguments.system is not None and not chat:
        raise ValueError("--system is for a prompt said to an assistant; this one is text to go on from")
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if not prompt.strip():
        raise ValueError("the prompt is empty; give a text to look at")
    if chat:
        system = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
        tokens = render(run.tokenizer, [*system, {"role": "user", "content": prompt}], reply=True).tokens
        ends = end_ids(run.tokenizer)
    else:
        tokens, ends = encode_prompt(run.tokenizer, prompt), frozenset()
    room = run.config.model.context_length - len(tokens)
    if room < 0:
        raise ValueError(
            f"the prompt takes {len(tokens):,} tokens, and the model reads {run.config.model.context_length:,}; "
            "give a shorter one"
        )
    wanted = arguments.tokens if arguments.tokens is not None else ANSWER_TOKENS if chat else 0
    own, finished = len(tokens), set[int]()
    steps = continue_rows(
        run.model, [tokens], min(wanted, room), SamplingSettings(temperature=0), finished,
        vocab_size=run.tokenizer.vocab_size,
    )  # fmt: skip
    for _, token, _ in steps:
        tokens = [*tokens, token]
        if token in ends:
            finished.add(0)
    look = look_inside(run.model, tokens)
    return Reading(run, look, describe(look, run.tokenizer), token_texts(run.tokenizer, tokens), own, chat)


def _print(reading: Reading, shown: range, place: int, width: int | None) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width, highlight=False)
    run = reading.run
    console.print(Text(f"{run.path.name}, step {run.step}: {len(reading.rows)} tokens", style="bold"))
    console.print(_legend(), soft_wrap=not console.is_terminal and width is None)
    console.print(_coloured(reading))
    _say(console, "How likely each token was, and what else was expected there")
    _print_probabilities(console, reading, shown)
    if len(reading.look.lens.tokens) > 1:
        _say(console, "Logit lens: the likeliest token after each layer, and how likely the real one was")
        _print_lens(console, reading, shown)
    if len(reading.look.attention):
        following = "what comes next" if place + 1 == len(reading.rows) else f"token {place + 1}"
        _say(console, f"Attention, of each layer and head, at the place that says {following}")
        _print_attention(console, reading, place)


def _say(console: Console, title: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text(title, style="bold"))


def _legend() -> Text:
    from rich.text import Text

    names = ("50% or more", "10% or more", "1% or more", "less likely")
    return Text("  ").join(Text(name, style=style) for name, (_, style) in zip(names, SHADES))


def _shade(probability: float | None) -> str:
    return "dim" if probability is None else next(style for least, style in SHADES if probability >= least)


def _coloured(reading: Reading) -> Text:
    """The text, each token on a colour that says how likely it was; the prompt only where nothing was added to it."""
    from rich.text import Text

    from understudy.console import printable

    text = Text()
    for number, (piece, row) in enumerate(zip(reading.texts, reading.rows)):
        asked = reading.own < len(reading.rows) and number < reading.own
        text.append(printable(piece), style="dim" if asked else _shade(row["probability"]))
    return text


def _table(*columns: str, last: int = 0) -> Any:
    """``last`` is the highest number of a token in it: numbers are never cut short, as `--at` takes them."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in ("#", "probability") else "left"
        least = len(str(last)) if column == "#" else len(column)
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", min_width=least)
    return table


def _print_probabilities(console: Console, reading: Reading, shown: range) -> None:
    table = _table("#", "token", "probability", "alternatives", last=shown.stop - 1)
    for number in shown:
        row = reading.rows[number]
        others = [pair for pair in row["alternatives"] if pair[0] != row["token"]][:4]
        table.add_row(
            str(number), _cell(row["token"]), _cell(percent(row["probability"]), _shade(row["probability"])),
            _cell("  ".join(f"{name} {percent(p)}" for name, p in others)),
        )  # fmt: skip
    console.print(table)


def _print_lens(console: Console, reading: Reading, shown: range) -> None:
    layers = len(reading.look.lens.tokens) - 1
    table = _table("#", "token", "embedding", *(f"layer {n}" for n in range(1, layers + 1)), last=shown.stop - 1)
    for number in shown:
        row = reading.rows[number]
        cells = [_cell(f"{name} {percent(real)}", _shade(real)) for name, _, real in row["layers"]]
        table.add_row(str(number), _cell(row["token"]), *cells)
    console.print(table)


def _print_attention(console: Console, reading: Reading, place: int) -> None:
    """For each head, the tokens that got most of the attention of a place."""
    attention = reading.look.attention[:, :, place]  # (L, H, T)
    table = _table("layer", "head", "looks at")
    for layer, heads in enumerate(attention, 1):
        for head, weights in enumerate(heads, 1):
            top = weights.topk(min(4, place + 1))
            seen = [
                f"{reading.rows[at]['token']} ({at}) {percent(weight)}"
                for weight, at in zip(top.values.tolist(), top.indices.tolist())
                if weight >= 0.02
            ]
            table.add_row(str(layer), str(head), _cell("   ".join(seen)))
    console.print(table)


def _cell(text: str, style: str = "") -> Text:
    from rich.text import Text

    from understudy.console import printable

    return Text(printable(text), style=style)


def percent(probability: float | None) -> str:
    """A probability in at most five characters."""
    if probability is None:
        return ""
    if probability >= 0.9995:
        return "100%"
    return f"{probability:.1%}" if probability >= 0.0005 else "<.1%"
