"""A look inside a run at a prompt and its greedy continuation: probabilities, logit lens, attention, and their picture.

Not here: the numbers themselves (inference/lookinside.py), printing (commands/looking.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.inference.generate import continue_rows, encode_prompt
from understudy.inference.lookinside import Look, describe, look_inside
from understudy.inference.sampling import SamplingSettings
from understudy.report.plots import FAINT, INK, new_figure, plain_name, save_figure
from understudy.run import Run
from understudy.tokenizer.base import token_texts
from understudy.tokenizer.chat import Message, end_ids, render, speaks_chat

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANSWER_TOKENS = 60
SHOWN_TOKENS = 16
MOST_TOKENS = 24  # columns of the lens, so that words stay readable
MOST_KEYS = 64  # rows and columns of an attention map
LIKELY = "#2f6fb0"


@dataclass(frozen=True)
class PromptLook:
    """The look inside a run at a prompt and its continuation.

    Attributes:
        rows: one description per token, by `describe`.
        texts: the text of each token.
        prompt_tokens: number of tokens of the prompt; the later ones are generated.
    """

    run: Run
    look: Look
    rows: list[dict[str, Any]]
    texts: list[str]
    prompt_tokens: int

    def shown(self, count: int | None) -> range:
        """The tokens of the tables: the first generated ones, or without any the last of the prompt. The first token of
        all has no prediction and is never shown."""
        count, end = count or SHOWN_TOKENS, len(self.rows)
        if self.prompt_tokens < end:
            return range(self.prompt_tokens, min(end, self.prompt_tokens + count))
        return range(max(1, end - count), end)

    def position(self, token: int | None) -> int:
        """The position whose attention is shown: the one that predicts ``token``, by default the first generated token.

        Raises:
            ValueError: there is no such token.
        """
        if token is None:
            return min(self.prompt_tokens, len(self.rows)) - 1
        if not 1 <= token <= len(self.rows):
            raise ValueError(
                f"--at is {token}; the text has the tokens 1 to {len(self.rows) - 1}, and {len(self.rows)} comes next"
            )
        return token - 1

    def as_dict(self, position: int) -> dict[str, Any]:
        attention = [
            [[round(w, 4) for w in head[position].tolist()] for head in layer] for layer in self.look.attention
        ]
        return {
            "run": str(self.run.path), "step": self.run.step, "prompt_tokens": self.prompt_tokens,
            "position": position, "tokens": self.rows, "attention": attention,
        }  # fmt: skip


def look_at_prompt(
    run: Run, prompt: str, plain: bool = False, system: str | None = None, max_new_tokens: int | None = None
) -> PromptLook:
    """Read a prompt as the run would answer or continue it, with its greedy continuation.

    Args:
        plain: continue the prompt as text, also if the run has chat tokens.
        system: a system message before the prompt.
        max_new_tokens: length of the continuation; by default 60 for an answer and 0 for text.

    Raises:
        ValueError: an empty prompt, one that does not fit, or a system message for text.
    """
    chat = speaks_chat(run.tokenizer) and not plain
    if system is not None and not chat:
        raise ValueError(
            "--system is for the prompt of an assistant, and this prompt is continued as text; leave it out"
        )
    if not prompt.strip():
        raise ValueError("the prompt is empty; give a text to look at")
    if chat:
        messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        tokens = render(run.tokenizer, [*messages, {"role": "user", "content": prompt}], reply=True).tokens
        ends = end_ids(run.tokenizer)
    else:
        tokens, ends = encode_prompt(run.tokenizer, prompt), frozenset()
    context = run.config.model.context_length
    if len(tokens) > context:
        raise ValueError(f"the prompt has {len(tokens):,} tokens, and the context has {context:,}; give a shorter one")
    wanted = max_new_tokens if max_new_tokens is not None else ANSWER_TOKENS if chat else 0
    new_tokens = min(wanted, context - len(tokens))
    prompt_tokens, finished = len(tokens), set[int]()
    steps = continue_rows(
        run.model, [tokens], new_tokens, SamplingSettings(temperature=0), finished, vocab_size=run.tokenizer.vocab_size
    )
    for _, token, _ in steps:
        tokens = [*tokens, token]
        if token in ends:
            finished.add(0)
    look = look_inside(run.model, tokens, vocab_size=run.tokenizer.vocab_size)
    return PromptLook(run, look, describe(look, run.tokenizer), token_texts(run.tokenizer, tokens), prompt_tokens)


def look_plot(prompt_look: PromptLook, path: Path, count: int | None = None) -> None:
    """Draw ``count`` tokens: their probabilities, the logit lens of each layer, and the attention of all heads. A line in
    the attention maps separates the prompt from generated tokens.

    Raises:
        ValueError: no token to show, or the file cannot be written.
    """
    look, rows, shown = prompt_look.look, prompt_look.rows, prompt_look.shown(count)
    if not shown:
        raise ValueError(
            "a single token has no prediction to draw; give a longer prompt, or let the model continue it: --tokens N"
        )
    shown = shown[:MOST_TOKENS]
    layers, heads = look.attention.shape[:2]
    lens_rows, side = len(look.lens.tokens), 1.3
    width = max(7.0, 0.62 * len(shown) + 1.6, min(heads, 8) * side + 1)
    heights = [1.5, 0.34 * lens_rows + 0.6] + ([layers * min(side, width / heads) + 0.5] if layers else [])
    figure = new_figure(width, sum(heights) + 0.5)
    figure.set_layout_engine("constrained", w_pad=0.04, h_pad=0.04)
    title = plain_name(f"{prompt_look.run.path.name}, step {prompt_look.run.step}")
    figure.suptitle(title, x=0.02, ha="left", color=INK, fontsize=11, fontweight="bold")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_probabilities(parts[0].subplots(), rows, shown)
    _draw_lens(parts[1].subplots(), rows, shown)
    if layers:
        _draw_attention(parts[2], look, prompt_look.prompt_tokens)
    save_figure(figure, path)


def _name(text: str, most: int = 10) -> str:
    return plain_name(text if len(text) <= most else text[: most - 1] + "…")


def _draw_probabilities(axes: Axes, rows: Sequence[dict[str, Any]], shown: range) -> None:
    """A bar for each token, and above it the most likely alternative."""
    values = [rows[number]["probability"] for number in shown]
    axes.bar(range(len(shown)), values, color=LIKELY, width=0.7)
    for x, number in enumerate(shown):
        best = rows[number]["alternatives"][0][0]
        axes.annotate(
            f"{values[x]:.0%}", (x, values[x]), xytext=(0, 2), textcoords="offset points", ha="center", color=INK,
            fontsize=7,
        )  # fmt: skip
        if best != rows[number]["token"]:
            axes.annotate(
                _name(best), (x, values[x]), xytext=(0, 10), textcoords="offset points", ha="center", color=FAINT,
                fontsize=7, fontstyle="italic",
            )  # fmt: skip
    axes.set_ylim(0, 1.3)
    axes.set_yticks([])
    _title(axes, "probability of each token; in italics a more likely token")
    _token_axis(axes, [rows[number]["token"] for number in shown])


def _draw_lens(axes: Axes, rows: Sequence[dict[str, Any]], shown: range) -> None:
    """A cell for each layer and token: the layer's most likely token, shaded by the probability of the actual one."""
    columns = [rows[number]["layers"] for number in shown]
    actual = [[column[layer][2] for column in columns] for layer in range(len(columns[0]))]
    axes.imshow(actual, cmap="Blues", vmin=0, vmax=1.15, aspect="auto", origin="lower")
    for x, column in enumerate(columns):
        for layer, (name, _, probability) in enumerate(column):
            axes.text(
                x, layer, _name(name), ha="center", va="center", fontsize=7,
                color="white" if probability > 0.6 else INK,
            )  # fmt: skip
    last = len(columns[0]) - 1
    names = [f"layer {n}" if n else "embedding" for n in range(last + 1)] if last else ["table"]
    axes.set_yticks(range(last + 1), names, fontsize=8)
    _title(axes, "logit lens: the most likely token after each layer; shade: probability of the actual token")
    _token_axis(axes, [rows[number]["token"] for number in shown])


def _draw_attention(part: Any, look: Look, prompt_tokens: int) -> None:
    """A map for each layer and head: queries down, keys across."""
    layers, heads, tokens, _ = look.attention.shape
    first = max(0, tokens - MOST_KEYS)
    grid = part.subplots(layers, heads, squeeze=False)
    part.suptitle(
        "attention of each layer and head: queries down, keys across"
        + (f", the last {MOST_KEYS} tokens" if first else "")
        + ("\nbelow the line: predictions of generated tokens" if first < prompt_tokens < tokens else ""),
        x=0.02, ha="left", color=INK, fontsize=9,
    )  # fmt: skip
    for layer in range(layers):
        for head in range(heads):
            axes = grid[layer][head]
            # the square root, since most weights are small
            axes.imshow(look.attention[layer, head, first:, first:].sqrt().numpy(), cmap="Purples", vmin=0, vmax=1)
            if first < prompt_tokens < tokens:
                axes.axhline(prompt_tokens - first - 1.5, color="#d9772b", linewidth=0.7)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color("#d8d8d8")
            if not layer:
                axes.set_title(f"head {head + 1}", fontsize=8, color=INK, pad=3)
            if not head:
                has_attention = bool(look.attention[layer].any())
                axes.set_ylabel(
                    f"layer {layer + 1}" if has_attention else f"layer {layer + 1}:\nconvolution", fontsize=8, color=INK
                )


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=9)


def _token_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(len(names)), [_name(name) for name in names], fontsize=8, rotation=0)
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
