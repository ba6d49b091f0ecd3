"""`inspect --mask`: conversations as finetuning reads them: tokens, loss mask, cut and dropped parts.

No model is loaded: the configuration and the tokenizer of a run are enough. Not here: the mask itself
(tokenizer/chat.py), how long conversations are cut (data/chat/packing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from understudy.commands import Arguments, show_result
from understudy.config.stages import IMPORTED
from understudy.console import final_table, print_line, printable
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.packing import PackingCounts, fit_to_row, render_set
from understudy.run import find_run
from understudy.tokenizer import Tokenizer, load_tokenizer
from understudy.tokenizer.base import token_texts
from understudy.tokenizer.chat import Message, RefusedConversation, render_each, speaks_chat, with_chat_tokens

# Neighbouring tokens alternate between two shades, which shows where each ends.
TRAINED, READ = ("black on green", "black on bright_green"), ("", "dim")


@dataclass(frozen=True)
class MaskedConversation:
    """One conversation as a row has it; ``ids``, ``texts``, ``mask`` and ``special`` have the same length.

    Attributes:
        fate: whole, cut or dropped.
        left_out_before, left_out_after: numbers of tokens that were cut.
        mask: whether a token is trained on.
        special: whether it is a special token.
    """

    fate: str
    left_out_before: int
    left_out_after: int
    ids: list[int]
    texts: list[str]
    mask: list[bool]
    special: list[bool]


def inspect_mask(arguments: Arguments) -> None:
    """Show the first training conversations of a run, or those of --data, as finetuning reads them."""
    folder = find_run(arguments.run)
    config, own_tokenizer = folder.config(), load_tokenizer(folder.path / "tokenizer.json")
    if arguments.data is None and config.info.data != "conversations":
        imported = folder.record()["stage"] == IMPORTED
        raise ValueError(
            f"the run {folder.path} was {'imported' if imported else f'trained on {config.info.data}'}; name conversations to show with --data PATH, a "
            "folder of `understudy prepare SOURCE --kind conversations` or a .jsonl file"
        )
    tokenizer = with_chat_tokens(own_tokenizer)
    conversations = open_conversations(arguments.data or Path(config.data.path), "train")
    context, too_long = config.model.context_length, config.data.too_long or "cut"
    rendered = render_set((record["messages"] for record in conversations), tokenizer, context, too_long)
    shown = [
        _masked(tokenizer, record["messages"], context, too_long)
        for record in islice(conversations, arguments.num or 3)
    ]
    counts = {"tokens": len(rendered.tokens), "trained_tokens": int(rendered.mask.sum())}
    document = {
        "run": str(folder.path), "data": str(conversations.path), "split": conversations.split,
        "context_length": context, "too_long": too_long, "counts": asdict(rendered.counts) | counts,
        "conversations": [asdict(each) for each in shown],
    }  # fmt: skip
    if not speaks_chat(own_tokenizer):
        print_line(
            f"{folder.path} is a base run without chat tokens; they are shown as `understudy sft` would add them"
        )
    show_result(arguments, document, lambda: _print(document, shown, arguments.width))


def _masked(
    tokenizer: Tokenizer, messages: Sequence[Message], context_length: int, too_long: str
) -> MaskedConversation:
    [rendered], counts = render_each(tokenizer, [list(messages)]), PackingCounts()
    if isinstance(rendered, RefusedConversation):
        return MaskedConversation(f"dropped, {rendered}", 0, 0, [], [], [], [])
    fitted = fit_to_row(rendered, context_length + 1, too_long, counts)
    fate = next(name for name, count in vars(counts).items() if count).replace("_", " ")
    if fitted is None:  # shown whole, with nothing trained on
        fate, tokens, mask, before = f"dropped, {fate}", rendered.tokens, [False] * len(rendered.tokens), 0
    else:
        tokens, mask = fitted.tokens, fitted.mask
        before = rendered.mask.index(True) - mask.index(True)  # a cut keeps the beginning of the first answer
    special = set(tokenizer.special_tokens.values())
    return MaskedConversation(
        fate, before, len(rendered.tokens) - before - len(tokens), tokens, token_texts(tokenizer, tokens), mask,
        [token in special for token in tokens],
    )  # fmt: skip


def _print(document: dict[str, Any], shown: Sequence[MaskedConversation], width: int | None) -> None:
    console = Console(width=width, highlight=False)
    coloured = console.color_system is not None and not console.no_color
    say = partial(console.print, soft_wrap=width is None and not console.is_terminal)
    legend = Text.assemble(("trained on", TRAINED[0]), "  read only  ", ("special token", "bold"))
    say(legend if coloured else Text("«trained on»  read only"))
    for number, each in enumerate(shown, 1):
        trained = f"{sum(each.mask):,} of {len(each.mask):,} tokens trained on"
        say(Text(f"\n── {number}: {each.fate}, {trained}", style="bold"))
        say(_marked(each, coloured))
    counts = document["counts"]
    cut = counts["cut_at_a_turn"] + counts["cut_inside"]
    dropped = counts["too_long"] + counts["without_answer"] + counts["refused_by_the_chat_template"]
    share = counts["trained_tokens"] / counts["tokens"]
    say(Text())
    final_table({
        "data": f"{document['data']}, {document['split']}",
        "conversations": f"{counts['conversations']:,}",
        "cut": f"{cut:,} to {document['context_length']:,} tokens",
        "dropped": f"{dropped:,}",
        "tokens": f"{counts['tokens']:,}",
        "trained on": f"{counts['trained_tokens']:,} ({share:.1%})",
    }, console)  # fmt: skip


def _marked(shown: MaskedConversation, coloured: bool) -> Text:
    """Text of a conversation, with the trained tokens in colour or in «brackets» and the numbers of cut tokens."""
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
