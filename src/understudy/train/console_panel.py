"""The progress of a run as text: a panel on a terminal, plain lines in a log, and the time left.

Not here: files, trackers, and when anything is shown (metrics.py).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from understudy.console import bytes_text, count_text, duration_text

# Metrics that the panel shows in a special form, or not at all.
NOT_LISTED = {
    "step", "tokens", "train_seconds", "train/loss", "val/loss", "lr", "tokens_per_second", "mfu",
    "memory_bytes", "memory_peak_bytes", "grad_norm",
}  # fmt: skip
# Metrics of the stages that are shown live, and their short names. Others whose names have no train/ or val/ are shown by
# their own names. metrics.jsonl and the report have all.
LIVE = {
    "train/reward": "reward", "train/true_score": "true score", "train/accuracy": "accuracy", "train/margin": "margin",
    "train/kl": "kl", "train/entropy": "entropy", "train/clip_fraction": "clipped", "train/length": "length",
    "train/eos_rate": "eos rate", "val/true_score": "val true score", "val/accuracy": "val accuracy", "val/kl": "val kl",
}  # fmt: skip
BARS = "▁▂▃▄▅▆▇█"
Pair = tuple[str, str, str]  # name, value, style
GAP = 4  # spaces between columns
SMOOTHING = 0.9  # of the running mean over logged losses


class ProgressPanel:
    """Progress, speed and loss of a run.

    Args:
        stops: further limits by their names in TrainConfig: ``stop_at_tokens``, ``stop_at_seconds``, ``stop_at_loss``; other
            settings are ignored.
        clock: a monotonic clock in seconds. Unlike ``train_seconds`` it includes evaluation.
    """

    def __init__(
        self, total_steps: int, stops: Mapping[str, Any] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total_steps, self.clock = total_steps, clock
        limits = {name: value for name, value in (stops or {}).items() if name.startswith("stop_at_")}
        self.stops = {name: float(value) for name, value in limits.items() if value is not None}
        self.latest: dict[str, float] = {}
        self.losses: list[tuple[float, float]] = []
        self.best: tuple[float, int] | None = None
        self._mean, self._weight = 0.0, 0.0
        self._seen, self._every, self._last_step = 0, 1, -math.inf
        self._pace: deque[tuple[float, float]] = deque(maxlen=30)  # seconds of training, share of the run
        self._since: tuple[float, float] | None = None

    def update(self, values: Mapping[str, Any], live: bool = True) -> None:
        """Take in metrics. ``live`` is False for those that an earlier process of this run wrote."""
        known = {name: math.nan if value is None else float(value) for name, value in values.items()}
        self.latest.update(known)
        step, loss, validation = self.latest.get("step", 0.0), known.get("train/loss"), known.get("val/loss")
        if loss is not None and math.isfinite(loss) and step > self._last_step:
            self._last_step = step
            self._keep_loss(step, loss)
            self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
            self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        if validation is not None and math.isfinite(validation) and (self.best is None or validation < self.best[0]):
            self.best = (validation, int(step))
        if live and "train_seconds" in known:
            trained = known["train_seconds"]
            self._since = self._since or (self.clock(), trained)
            self._pace.append((trained, self.fraction))

    def _keep_loss(self, step: float, loss: float) -> None:
        """Keep every loss, then every second, every fourth, so that the history stays small."""
        if self._seen % self._every == 0:
            self.losses.append((step, loss))
        self._seen += 1
        if len(self.losses) > 2000:
            self.losses = self.losses[::2]
            self._every *= 2

    @property
    def smoothed_loss(self) -> float | None:
        """The running mean of the training loss; NaN as soon as the loss is."""
        last = self.latest.get("train/loss")
        if last is None or not math.isfinite(last):
            return last
        return self._mean / self._weight

    @property
    def fraction(self) -> float:
        """The share of the run that is done, by the limit it is nearest to."""
        shares = [self.latest.get("step", 0.0) / self.total_steps]
        for stop, name in (("stop_at_tokens", "tokens"), ("stop_at_seconds", "train_seconds")):
            if stop in self.stops:
                shares.append(self.latest.get(name, 0.0) / self.stops[stop])
        return min(1.0, max(shares))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the first limit at the recent pace; None before there is a pace.

        A run that also stops at a loss may end sooner.
        """
        if self.fraction >= 1:
            return 0.0
        if len(self._pace) < 2 or self._since is None:
            return None
        (before, share_before), (trained, share) = self._pace[0], self._pace[-1]
        if trained <= before or share <= share_before:
            return None
        left = (1 - share) * (trained - before) / (share - share_before)
        # Evaluations and checkpoints take time too: scale by their time so far.
        return left * max(1.0, (self.clock() - self._since[0]) / (trained - self._since[1]))

    @property
    def left_text(self) -> str:
        seconds = self.seconds_left
        if seconds is None:
            return "–"
        return f"{'at most ' if 'stop_at_loss' in self.stops and seconds else ''}{duration_text(seconds)}"

    def line(self, evaluated: bool) -> str:
        """One plain aligned line, with the validation loss if it was just evaluated."""
        values, width = self.latest, len(f"{self.total_steps:,}")
        validation = f"val {values['val/loss']:.4f}" if evaluated else ""
        parts = [
            f"step {int(values.get('step', 0)):>{width},}/{self.total_steps:,}",
            f"loss {values['train/loss']:>7.4f}" if "train/loss" in values else "",
            f"{validation:<10}",
            f"lr {values['lr']:.1e}" if "lr" in values else "",
            f"{count_text(values['tokens_per_second']):>6} tokens/s" if "tokens_per_second" in values else "",
            f"mfu {values['mfu']:6.1%}" if "mfu" in values else "",
            f"{bytes_text(values['memory_bytes']):>7}" if "memory_bytes" in values else "",
            f"{duration_text(values.get('train_seconds', 0.0)):>7} trained, {self.left_text} left",
            *(f"{name} {value:.4g}" for name, value in self._others(evaluated)),
        ]
        return "  ".join(part for part in parts if part)

    def render(self, title: str, width: int, unicode: bool = True) -> RenderableType:
        """The panel, in as many columns as fit ``width`` characters.

        Laid out line by line, since nested tables of rich took 12 ms a frame and this takes 2.
        """
        width = min(width, 90)
        inner = width - 4
        columns = _columns(self._groups(), inner)
        gap = "\n\n" if len(columns) > 1 else "\n"
        text = self._bar(inner, unicode).append(gap)
        for row in range(max(len(column) for column in columns)):
            line = Text()
            for column in columns:
                line.append_text(column[row] if row < len(column) else Text(" " * len(column[0])))
            line.rstrip()
            text.append_text(line).append("\n")
        if unicode and len(self.losses) > 2:
            text.append(gap[1:] + sparkline(self.losses, inner), style="cyan")
        text.rstrip()
        text.no_wrap, text.overflow = True, "ellipsis"
        shape = box.ROUNDED if unicode else box.ASCII
        heading = Text(title, style="bold")
        return Panel(text, title=heading, title_align="left", box=shape, border_style="dim", width=width)

    def _bar(self, width: int, unicode: bool) -> Text:
        steps = f"  {int(self.latest.get('step', 0)):,} / {self.total_steps:,} steps"
        room = max(0, width - len(steps))
        full = round(self.fraction * room)
        mark = "━" if unicode else "-"
        return Text.assemble(
            (mark * full, "cyan" if unicode else "reverse"), (mark * (room - full), "bright_black"), steps
        )

    def _groups(self) -> list[list[Pair]]:
        """Names and values in groups: loss, speed, resources, and further metrics of the stage."""
        values, loss = self.latest, self.smoothed_loss

        def known(key: str, name: str, text: Callable[[float], str], style: str = "") -> list[Pair]:
            return [(name, text(values[key]), style)] if key in values else []

        losses = known("val/loss", "validation", "{:.4f}".format, "bold")
        if loss is not None:
            losses.insert(0, ("loss", f"{loss:.4f}", "bold cyan" if math.isfinite(loss) else "bold red"))
        if self.best:
            losses.append(("best", f"{self.best[0]:.4f} at {self.best[1]:,}", ""))
        speed = [
            *known("tokens_per_second", "tokens/s", count_text),
            ("trained", duration_text(values.get("train_seconds", 0.0)), ""),
            ("left", self.left_text, ""),
        ]
        resources = [
            *known("lr", "learning rate", "{:.2e}".format), *known("memory_bytes", "memory", bytes_text),
            *known("memory_peak_bytes", "at peak", bytes_text), *known("mfu", "MFU", "{:.1%}".format),
        ]  # fmt: skip
        others = [(name, f"{value:.4g}", "") for name, value in self._others()]
        return [losses, speed, resources, *(others[start : start + 3] for start in range(0, len(others), 3))]

    def _others(self, evaluated: bool = True) -> list[tuple[str, float]]:
        """Names and values of further metrics, those of an evaluation if it was just made."""
        known = {
            LIVE[name]: self.latest[name] for name in LIVE if name in self.latest and (evaluated or name[:4] != "val/")
        }
        unprefixed = {name: value for name, value in self.latest.items() if not name.startswith(("train/", "val/"))}
        return [*known.items(), *((name, value) for name, value in unprefixed.items() if name not in NOT_LISTED)]


def sparkline(points: Sequence[tuple[float, float]], width: int) -> str:
    """Points (x, y), sorted by x, as one row of at most ``width`` bars.

    The top is the 98th percentile, since the first losses would otherwise flatten all that follow.
    """
    first, last = points[0][0], points[-1][0]
    cells = max(1, min(width, len(points)))
    sums = [[0.0, 0.0] for _ in range(cells)]
    for x, y in points:
        cell = sums[min(cells - 1, int((x - first) / ((last - first) or 1.0) * cells))]
        cell[0] += y
        cell[1] += 1
    means = [total / count for total, count in sums if count]
    ordered = sorted(means)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(0.98 * len(ordered)))]
    scale = (len(BARS) - 1) / ((high - low) or 1.0)
    return "".join(BARS[min(len(BARS) - 1, round((mean - low) * scale))] for mean in means)


def _columns(groups: Sequence[list[Pair]], width: int) -> list[list[Text]]:
    """Groups of names and values as lines, in as many columns as ``width`` takes, at most three."""
    for count in (3, 2, 1):
        columns = [[pair for group in groups[start::count] for pair in group] for start in range(count)]
        lines = [_lines(column) for column in columns if column]
        if sum(len(column[0]) for column in lines) <= width + GAP:
            break
    return lines


def _lines(pairs: Sequence[Pair]) -> list[Text]:
    """Names and values below each other, each line of the same width."""
    names, values = max(len(name) for name, _, _ in pairs), max(len(value) for _, value, _ in pairs)
    return [
        Text.assemble((f"{name:<{names}}  ", "dim"), (f"{value:<{values}}", style), " " * GAP)
        for name, value, style in pairs
    ]
