"""Plots of the results as SVG: small enough for a phone, with labels at the marks, and colours for light and dark pages.

benchmarks/build_tables.py writes them to plots/*.svg. The colours follow the scheme of the page that shows the picture.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDTH, LEFT, RIGHT = 380, 16, 364
"""Of the picture, and of the axis, in pixels. At this width text of 12 pixels can be read on a phone."""

STYLE = """
  svg { --page: #fff; --ink: #1d2129; --soft: #565b66; --grid: #d9dce3; --first: #1a5fb4; --second: #b5470b; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #1f222b; --ink: #eceef3; --soft: #b4b8c4; --grid: #3b404d; --first: #82b4ff; --second: #ffab70; }
  }
  text { stroke: var(--page); stroke-width: 4px; paint-order: stroke; font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
  .title { font-size: 14px; font-weight: 700; } .soft { fill: var(--soft); font-size: 11px; }
  .page { fill: var(--page); } .grid { stroke: var(--grid); } .rule { stroke: var(--ink); stroke-dasharray: 4 3; }
  .first { fill: var(--first); stroke: var(--first); } .second { fill: var(--second); stroke: var(--second); }
  .ink { fill: var(--ink); stroke: var(--ink); } text.first, text.second { stroke: var(--page); font-weight: 700; }
  .line { fill: none; stroke-width: 2; } .band { stroke: none; opacity: 0.25; }
"""


@dataclass(frozen=True)
class Plot:
    """One picture. ``page``: the page of details, by name, whose section shows it. ``alternative``: its text for readers
    who do not see it."""

    name: str
    page: str
    alternative: str
    svg: str

    @property
    def path(self) -> Path:
        return HERE / "plots" / f"{self.name}.svg"


@dataclass(frozen=True)
class Mark:
    """A value with its range, in a row of its own or in that of other marks."""

    value: float
    low: float
    high: float
    label: str
    kind: str = "first"


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    ticks: Sequence[float]
    title: str
    unit: str = ""

    def at(self, value: float, start: float = LEFT, end: float = RIGHT) -> float:
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def all_plots(load: Callable[[str], dict[str, Any]]) -> list[Plot]:
    """The plots, in the order of the page. ``load`` reads results/NAME.json."""
    return [shakespeare(load), answers(load), speed(load)]


def speed(load: Callable[[str], dict[str, Any]]) -> Plot:
    """Ratios of speed by stage, fp32 and bf16, with the lowest and highest round."""
    names = {"reward": "Reward model", "dpo": "DPO", "grpo, a step a sampling": "GRPO, one step per sampling",
             "grpo, four steps a sampling": "GRPO, four steps per sampling", "ppo": "PPO, critic of full size",
             "ppo, critic as a head": "PPO, critic as a head"}  # fmt: skip
    results = [(load(name), kind) for name, kind in (("align_vs_trl", "first"), ("align_vs_trl_bf16", "second"))]
    rows = []
    for name, row in results[0][0].items():
        if isinstance(row, dict) and "stage" in row:
            marks = [trl_mark(data[name], kind, data["dtype"]) for data, kind in results if name in data]
            rows.append((names.get(name, name), marks))
    axis = Axis(0, 3.5, (0, 1, 2, 3), "multiple of TRL's speed; lines: all rounds", "×")
    return Plot(
        "align_vs_trl", "align_vs_trl",
        "Plot: speed of each alignment stage as a multiple of TRL 1.9.2. "
        + "; ".join(f"{label} {' and '.join(mark.label for mark in marks)}" for label, marks in rows),
        intervals("Speed of training beside TRL 1.9.2", axis, rows, rule=(1, "equal speed")),
    )  # fmt: skip


def trl_mark(row: dict[str, Any], kind: str, dtype: str) -> Mark:
    rates = row.get("pairs_per_second") or row["prompts_per_second"]
    peer = max((side for side in rates if side in ("trl", "trl, by length")), key=lambda side: rates[side])
    ratios = [ours / trl for ours, trl in zip(row["rounds"]["ours"], row["rounds"][peer])]
    ratio = rates["ours"] / rates[peer]
    return Mark(ratio, min(ratios), max(ratios), f"{dtype} {ratio:.2f}", kind)


def answers(load: Callable[[str], dict[str, Any]]) -> Plot:
    """Right answers to Hamlet's held-out questions before finetuning, in the demo, and with the longer recipe."""
    data = load("hamlet_questions")
    names = {"demo-base": "Base model of the demo", "demo-chat": "Assistant of the demo",
             "hamlet-chat-long": "Assistant of the longer recipe"}  # fmt: skip
    rows = []
    for name, label in names.items():
        run = data["runs"][name]
        if "train_seconds" in run:
            label += f", {sum(run['train_seconds']) / 60:.1f} minutes of training"
        accuracy, low, high = (100 * run[key] for key in ("accuracy", "low", "high"))
        rows.append((label, [Mark(accuracy, low, high, f"{accuracy:.1f}%")]))
    axis = Axis(0, 100, (0, 25, 50, 75, 100), f"right of {data['n']} questions; a line is the 95% interval", "%")
    return Plot(
        "hamlet_questions", "hamlet_questions",
        "Plot: right answers to held-out questions. " + "; ".join(f"{label}: {marks[0].label}" for label, marks in rows),
        intervals("Right answers to held-out questions", axis, rows),
    )  # fmt: skip


def shakespeare(load: Callable[[str], dict[str, Any]]) -> Plot:
    """Validation loss against minutes of training on characters, with the numbers that others published."""
    data = load("shakespeare_char")
    lines = (HERE / data["metrics"]).read_text(encoding="utf-8").splitlines()
    points = [(row["train_seconds"] / 60, row["val/loss"]) for row in map(json.loads, lines) if "val/loss" in row]
    best = data["published"]["nanoGPT on an A100"]
    slow = data["published"]["27 minutes on a T4"]
    x_axis = Axis(0, 30, (0, 5, 10, 15, 20, 25, 30), "minutes of training")
    y_axis = Axis(1.4, 1.7, (1.4, 1.5, 1.6, 1.7), "")
    top, bottom, left = 62, 222, 40

    def place(x: float, y: float) -> tuple[float, float]:
        return x_axis.at(x, left, RIGHT), y_axis.at(y, bottom, top)

    parts = [text(LEFT, 46, "validation loss, nats per character (lower is better)", "soft")]
    for tick in y_axis.ticks:
        parts += [
            line(place(0, tick), place(30, tick), "grid"),
            text(left - 6, place(0, tick)[1] + 4, f"{tick:.1f}", "soft", "end"),
        ]
    for tick in x_axis.ticks:
        parts.append(text(place(tick, 0)[0], bottom + 16, f"{tick:g}", "soft", "middle"))
    parts.append(text((left + RIGHT) / 2, bottom + 33, x_axis.title, "soft", "middle"))
    parts.append(line(place(0, best), place(30, best), "rule"))
    parts.append(text(RIGHT, place(0, best)[1] + 14, f"nanoGPT, A100, as published: {best:.4f}", "", "end"))
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    parts.append(f'<polyline class="first line" style="fill: none" points="{joined}"/>')
    end = points[-1]
    parts.append(line(place(end[0], data["low"]), place(end[0], data["high"]), "first"))
    parts += [dot(px, py, "first") for px, py in (place(*point) for point in points)]
    beside = place(*points[1])
    parts.append(text(beside[0] + 8, beside[1] - 20, "ours, two CPU cores:", "first"))
    parts.append(text(beside[0] + 8, beside[1] - 5, f"{end[1]:.4f} after {end[0]:.1f} minutes", "first"))
    x, y = place(27, slow)
    parts += [dot(x, y, "second"), text(x + 6, y - 9, f"T4, as published: {slow:.4f}", "second", "end")]
    return Plot(
        "shakespeare_char", "shakespeare",
        f"Plot: loss against minutes of training. Ours on two CPU cores ends at {end[1]:.4f} after {end[0]:.1f} minutes; "
        f"published: {slow:.4f} after 27 minutes on a T4, and {best:.4f} as nanoGPT's best on an A100",
        picture("Tiny Shakespeare by characters", 268, parts),
    )  # fmt: skip


def intervals(
    title: str, axis: Axis, rows: Sequence[tuple[str, list[Mark]]], rule: tuple[float, str] | None = None
) -> str:
    """A row of text for each label, and under it a line of marks for each of its values."""
    parts, y = [], 48.0
    body: list[str] = []
    for label, marks in rows:
        body.append(text(LEFT, y + 4, label))
        for mark in marks:
            y += 19
            low, value, high = (axis.at(number) for number in (mark.low, mark.value, mark.high))
            body += [line((low, y), (high, y), mark.kind, 4 if mark.kind == "first" else 2), dot(value, y, mark.kind)]
            left = high + 130 > WIDTH  # no room on the right
            body.append(text(low - 8 if left else high + 8, y + 4, mark.label, mark.kind, "end" if left else "start"))
        y += 27
    bottom = y - 10
    for tick in axis.ticks:
        x = axis.at(tick)
        parts += [line((x, 36), (x, bottom), "grid"), text(x, bottom + 16, f"{tick:g}{axis.unit}", "soft", "middle")]
    if rule:
        x = axis.at(rule[0])
        parts.append(line((x, 36), (x, bottom), "rule"))
    note = f"{axis.title}{f'; dashes: {rule[1]}' if rule else ''}"
    parts.append(text((LEFT + RIGHT) / 2, bottom + 33, note, "soft", "middle"))
    return picture(title, bottom + 44, parts + body)


def picture(title: str, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{height:g}" rx="6"/>\n'
        f"{text(LEFT, 24, title, 'title')}\n{body}\n</svg>\n"
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(content)}</text>'


def line(start: tuple[float, float], end: tuple[float, float], kind: str, width: float = 1) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{width:g}"/>'


def dot(x: float, y: float, kind: str) -> str:
    """A circle, or a square for the second kind, so that colour is not the only difference."""
    if kind == "second":
        return f'<rect class="{kind}" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>'
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
