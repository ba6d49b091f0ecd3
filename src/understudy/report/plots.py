"""Curves of metrics: series, smoothing, thinning, and pictures such as loss.png.

Not here: the page that compares runs (report.py), and reading metrics.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
COLOURS = ("#2f6fb0", "#d9772b", "#3b8f5a", "#8a5fb3", "#c2475a", "#7a6a58", "#2b9aa6", "#a8992a")
LOSS_LABEL = "loss (nats per token)"
INK, FAINT = "#333333", "#9a9a9a"


def series(rows: Rows, name: str, x: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """The finite values of one metric against another, both of shape (N,), in the order they were written."""
    pairs = [(row[x], row[name]) for row in rows if row.get(name) is not None and row.get(x) is not None]
    points = np.array(pairs, dtype=float).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    return points[:, 0], points[:, 1]


def smooth(values: np.ndarray, window: int | None = None) -> np.ndarray:
    """Means over a centred window of at most ``window`` values, (N,) to (N,).

    A centred window does not delay a falling curve. At the start, where losses fall steeply, the window shrinks on both
    sides; at the end only on the right, so that the last value is a mean too. The default is a twentieth of the curve.
    """
    count = len(values)
    if count == 0:
        return values
    index = np.arange(count)
    left = np.minimum(index, max(1, (window or count // 20) // 2))
    right = np.minimum(left, count - 1 - index)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[index + right + 1] - sums[index - left]) / (left + right + 1)


def thin(points: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of N points, (N, C) to (M, C): means over neighbours, and the last point unchanged."""
    if len(points) <= most:
        return points
    edges = np.linspace(0, len(points) - 1, most).astype(int)
    means = np.add.reduceat(points[:-1], edges[:-1]) / np.diff(edges)[:, None]
    return np.concatenate([means, points[-1:]])


def loss_limits(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of an axis of losses that show everything except the first, steep fall."""
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return 0.0, 1.0
    low = min(float(curve.min()) for curve in curves)
    high = max(float(np.quantile(curve, 0.97)) for curve in curves)
    high = max([high, *(float(curve[-1]) for curve in curves)])
    margin = max(0.02, 0.06 * (high - low))
    return low - margin, high + margin


def loss_plot(runs: Mapping[str, Rows], path: Path, label: str = LOSS_LABEL) -> None:
    """Draw losses as :func:`draw_losses` does into a PNG file; a ValueError if it cannot be written."""
    save_figure(draw_losses(runs, label), path)


def draw_losses(runs: Mapping[str, Rows], label: str = LOSS_LABEL) -> Figure:
    """The training and validation losses of runs, by name. ``label`` is that of the y axis.

    The x axis counts steps, with tokens above it, if all runs have the same tokens per step; else it counts tokens.
    """
    from matplotlib.ticker import EngFormatter

    figure = new_figure(8, 4.8)
    axes = figure.add_subplot()
    rates = {_tokens_per_step(rows) for rows in runs.values()} - {None}
    x = "step" if len(rates) <= 1 else "tokens"
    drawn = [
        curve
        for number, (name, rows) in enumerate(runs.items())
        for curve in _draw_run(axes, rows, x, plain_name(name) if len(runs) > 1 else "", COLOURS[number % len(COLOURS)])
    ]
    axes.set_ylim(*loss_limits(drawn))
    axes.set_xlim(left=0)
    axes.set_xlabel("steps" if x == "step" else "tokens")
    axes.set_ylabel(label)
    axes.ticklabel_format(axis="y", useOffset=False)
    _quiet(axes)
    rate = next(iter(rates), None)
    if x == "step" and rate:
        above = axes.secondary_xaxis("top", functions=(partial(mul, rate), partial(mul, 1 / rate)))
        above.set_xlabel("tokens", color=FAINT, fontsize=8, labelpad=2)
        above.xaxis.set_major_formatter(EngFormatter(sep=""))
        above.tick_params(colors=FAINT, length=3, labelsize=8)
        above.spines["top"].set_visible(False)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if len(runs) == 1:
        axes.set_title(plain_name(next(iter(runs))), loc="left", color=INK, fontsize=11, fontweight="bold", pad=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper right")
    return figure


def panels_plot(title: str, panels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw charts with lines and intervals (report/alignment.py) side by side into a PNG file.

    Raises:
        ValueError: the file cannot be written.
    """
    figure = new_figure(5.4 * len(panels), 4.4)
    figure.suptitle(plain_name(title), x=0.02, ha="left", color=INK, fontsize=11, fontweight="bold")
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for line, colour, style, mark in zip(panel["lines"], COLOURS, ("-", "--"), ("o", "s")):
            known = [i for i, bounds in enumerate(zip(line["low"], line["high"])) if None not in bounds]
            axes.vlines(
                [line["x"][i] for i in known], [line["low"][i] for i in known], [line["high"][i] for i in known],
                color=colour, alpha=0.35, linewidth=1.2,
            )  # fmt: skip
            axes.plot(
                line["x"], line["y"], style, marker=mark, markersize=4, color=colour, linewidth=1.6, label=line["label"]
            )
            axes.annotate(
                line["names"][-1], (line["x"][-1], line["y"][-1]), xytext=(5, 5), textcoords="offset points",
                color=colour, fontsize=8,
            )  # fmt: skip
        axes.set_xlim(left=0)
        axes.margins(x=0.1)
        axes.set_xlabel(panel["x"])
        axes.set_title(panel["title"], loc="left", color=INK, fontsize=10)
        axes.ticklabel_format(axis="y", useOffset=False)
        _quiet(axes)
        if not number:
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty picture, in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.12)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ValueError(f"the picture {path} cannot be written ({error.strerror}); make room there") from error


def _draw_run(axes: Axes, rows: Rows, x: str, name: str, colour: str) -> list[np.ndarray]:
    """Draw the curves of one run and return those that determine the axis limits."""
    from matplotlib.patheffects import withStroke

    train_x, train = series(rows, "train/loss", x)
    val_x, val = series(rows, "val/loss", x)
    alone = not name
    train_colour = "#8fb3d6" if alone else colour
    smoothed = smooth(train)
    if len(train):
        axes.plot(train_x, train, color=train_colour, alpha=0.35 if alone else 0.2, linewidth=0.8)
        label = "training" if alone else None if len(val) else name
        axes.plot(train_x, smoothed, color=train_colour, alpha=1 if alone else 0.55, linewidth=1.4, label=label)
    if len(val):
        label = "validation" if alone else name
        axes.plot(
            val_x, val, color=colour, linewidth=1.8, marker="o" if len(val) <= 50 else "", markersize=3.5, label=label
        )
        best = int(val.argmin())
        axes.plot(val_x[best], val[best], "o", markersize=8, markerfacecolor="none", color=colour)
        # Above the point, and to its left near the right edge.
        right = val_x[best] > 0.8 * max(val_x.max(), train_x.max(initial=0))
        axes.annotate(
            f"{val[best]:.4f}", (val_x[best], val[best]), xytext=(0, 10), textcoords="offset points",
            ha="right" if right else "center", color=colour, fontsize=9, fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
    return [smoothed, val]


def _quiet(axes: Axes) -> None:
    """Remove lines that carry no data."""
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c8c8c8")
    axes.tick_params(colors=FAINT, length=3, labelsize=9, labelcolor=INK)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def plain_name(name: str) -> str:
    """A name that matplotlib neither parses as a formula nor omits from the legend because of a first underscore."""
    return "\N{ZERO WIDTH SPACE}" + name.replace("$", r"\$")


def _tokens_per_step(rows: Rows) -> float | None:
    steps, tokens = series(rows, "tokens")
    return round(tokens[-1] / steps[-1], 3) if len(steps) and steps[-1] else None
