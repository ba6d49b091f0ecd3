"""Charts of the demo's page as positions in percent of their area, which story.html draws as SVG, without a script.

Not here: the page's texts (story.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.console import printable
from understudy.evaluation.statistics import Estimate, Paired
from understudy.report.look import PromptLook
from understudy.report.plots import Rows, loss_limits, series, smooth, thin
from understudy.report.wording import percent

CURVE_POINTS = 200
MOST_KEYS, MOST_QUERIES = 28, 16
"""Columns and rows of the attention map, so that the tokens stay readable on a phone."""
Chart = dict[str, Any]


def loss_chart(title: str, unit: str, rows: Rows) -> Chart | None:
    """Training and validation losses against steps; None without a finite loss.

    ``lines`` have a ``style``, a ``path`` in units of a tenth of a percent, and ``dots`` in the same; ``x`` and ``y`` are
    ticks of position and text.
    """
    train_x, train = series(rows, "train/loss")
    val_x, val = series(rows, "val/loss")
    if not len(train) and not len(val):
        return None
    smoothed = smooth(train)
    low, high = loss_limits([smoothed, val])
    right = 1.02 * max(train_x.max(initial=0), val_x.max(initial=0)) or 1.0

    def places(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
        points = thin(np.column_stack([x, y]), CURVE_POINTS)
        return [
            (round(1000 * px / right, 1), round(1000 * (high - py) / (high - low), 1)) for px, py in points.tolist()
        ]

    def line(style: str, x: np.ndarray, y: np.ndarray, dots: bool = False) -> Chart:
        points = places(x, y)
        return {"style": style, "path": _path(points), "dots": points if dots else []}

    lines = [line("raw", train_x, train), line("train", train_x, smoothed)] if len(train) else []
    if len(val):
        lines.append(line("val", val_x, val, dots=True))
    parts = [f"{title}, {unit}, over {right / 1.02:,.0f} steps."]
    if len(train):
        parts.append(f"The training loss goes from {train[0]:.2f} to {smoothed[-1]:.2f}.")
    if len(val):
        parts.append(f"The validation loss ends at {val[-1]:.2f}.")
    return {
        "title": title, "unit": unit, "lines": lines, "summary": " ".join(parts),
        "x": [(100 * tick / right, f"{tick:,.0f}") for tick in ticks(0, right, 5)],
        "y": [(100 * (high - tick) / (high - low), f"{tick:.6g}") for tick in ticks(low, high, 5)],
        "train": f"{smoothed[-1]:.2f}" if len(train) else "", "val": f"{val[-1]:.2f}" if len(val) else "",
    }  # fmt: skip


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` + 1 round numbers from ``low`` to ``high``.

    >>> ticks(0, 850, 5)
    [0.0, 200.0, 400.0, 600.0, 800.0]
    """
    rough = (high - low) / most or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def accuracy_bar(name: str, value: Estimate) -> Chart:
    """A bar from 0 to 100% with its interval."""
    bounds = [None if bound is None else 100 * bound for bound in (value.low, value.high)]
    text = "" if value.low is None or value.high is None else f"{100 * value.low:.1f} to {percent(value.high)}"
    return {"name": name, "at": 100 * value.value, "bounds": bounds, "value": percent(value.value), "interval": text}


def difference_chart(pair: Paired) -> Chart:
    """The difference of two accuracies in points, with its interval, on an axis with zero in the middle."""
    ends = [100 * value for value in (pair.difference, pair.low, pair.high) if value is not None]
    limit = 5 * max(1, math.ceil(max(map(abs, ends)) / 5))

    def place(value: float) -> float:
        return 50 + 50 * 100 * value / limit

    known = pair.low is not None and pair.high is not None
    return {
        "at": place(pair.difference), "value": f"{signed(pair.difference)} points",
        "bounds": [place(pair.low or 0), place(pair.high or 0)] if known else [None, None],
        "interval": f"{signed(pair.low or 0)} to {signed(pair.high or 0)}" if known else "",
        "ends": [f"−{limit}", "0", f"+{limit}"],
    }  # fmt: skip


def signed(share: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def token_rows(look: PromptLook) -> list[Chart]:
    """Each token that the model wrote: its probability, and the likeliest other tokens at its place."""
    rows = []
    for number in look.shown(MOST_QUERIES):
        row = look.rows[number]
        others = [(name, p) for name, p in row["alternatives"] if name != row["token"]][:2]
        rows.append({
            "token": printable(row["token"]), "percent": 100 * row["probability"], "text": f"{row['probability']:.0%}",
            "others": [(printable(name), f"{p:.0%}") for name, p in others if p >= 0.005],
        })  # fmt: skip
    return rows


def _format_places(look: PromptLook, question: str, end: int) -> list[int]:
    """The places of the prompt, before ``end``, that hold neither the question nor the answer."""
    ids, asked = look.look.tokens.tolist()[: look.prompt_tokens], look.run.tokenizer.encode(question.strip())
    starts = [start for start in range(len(ids)) if ids[start : start + len(asked)] == asked]
    if not starts:  # the tokens before and after it changed its own
        return [0]
    return [place for place in range(min(len(ids), end)) if not starts[-1] <= place < starts[-1] + len(asked)]


def attention_map(look: PromptLook, question: str) -> Chart | None:
    """The attention of one head at the places that write the shown tokens; None for a model without attention.

    It is the head that puts most weight on single tokens of the question and of the answer, other than the one it stands
    on. Many heads rest on the tokens of the chat format when they have nothing to look at.
    """
    layers, heads = look.look.attention.shape[:2]
    places = [number - 1 for number in look.shown(MOST_QUERIES)]  # the place before a token predicts it
    if not layers or not places:
        return None
    first = max(0, places[-1] + 1 - MOST_KEYS)
    weights = look.look.attention[:, :, places, : places[-1] + 1].clone()  # (L, H, Q, S)
    others = weights.clone()
    others[..., _format_places(look, question, places[-1] + 1)] = 0
    for row, place in enumerate(places):
        others[:, :, row, place] = 0
    layer, head = divmod(int(others.amax(-1).mean(-1).argmax()), heads)
    chosen, rest = weights[layer, head], others[layer, head]
    rows = []
    for row, place in enumerate(places):
        shown = [round(value, 3) for value in chosen[row, first:].tolist()]
        best = int(rest[row].argmax())
        rows.append({
            "token": printable(look.rows[place + 1]["token"]),
            # the square root, since most weights are small
            "weights": [None if first + key > place else round(value**0.5, 2) for key, value in enumerate(shown)],
            "best": printable(look.rows[best]["token"]), "text": f"{chosen[row, best]:.0%}",
        })  # fmt: skip
    keys = [printable(look.rows[key]["token"]) for key in range(first, places[-1] + 1)]
    strongest = max(range(len(places)), key=lambda row: float(rest[row].max()))
    return {
        "layer": layer + 1, "head": head + 1, "layers": layers, "heads": heads, "columns": keys, "rows": rows,
        "cut": first > 0, "strongest": rows[strongest],
    }  # fmt: skip
