"""What a run measures: one flat JSON object a line in metrics.jsonl, shown live, and passed to trackers.

    with Metrics(folder, config.log, config.train.steps) as metrics:
        metrics.write({"step": 10, "tokens": 7680, "train_seconds": 0.6, "train/loss": 3.2})

Not here: how it looks (panel.py), the trackers (trackers.py), and what is measured (the loop and the stages).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from understudy.config import LogConfig
from understudy.run import RunFolder, write_bytes, write_text
from understudy.train.panel import Watch, final_table, printable
from understudy.train.trackers import Trackers, require_trackers, start_trackers

if TYPE_CHECKING:
    import torch

__all__ = ["Metrics", "final_table", "memory_bytes", "read_metrics", "require_trackers"]

ALWAYS = ("step", "tokens", "train_seconds")
FRAME_SECONDS = 0.2  # drawing one takes 2 ms of the core that trains
PLAIN_LINES = 50  # about so many in a whole run, so that a log stays readable,
PLAIN_SECONDS = 30.0  # but one at least so often


class Metrics:
    """Writes, shows and passes on what is measured.

    Args:
        resume_step: the step that a resumed run goes on from. Lines and samples of later steps are dropped,
            since they will come again, and so is a torn last line. None for a new run.
        quiet: for the processes other than the main one: nothing is written, shown or passed on.
        config: the resolved configuration as a plain tree, for the trackers and for ends other than
            ``total_steps``.
        console: where to show; standard error when left out.

    Raises:
        ValueError: a new run's folder already has metrics, or a tracker is missing or cannot start.
    """

    def __init__(
        self,
        folder: RunFolder,
        log: LogConfig,
        total_steps: int,
        resume_step: int | None = None,
        quiet: bool = False,
        config: dict[str, Any] | None = None,
        console: Console | None = None,
    ) -> None:
        self.folder = folder
        self.quiet = quiet
        self.console = console or Console(stderr=True)
        train = (config or {}).get("train", {})
        self.watch = Watch(total_steps, {name: value for name, value in train.items() if name.startswith("stop_at_")})
        self._live: Live | None = None
        self._on_terminal = (
            self.console.is_terminal and not self.console.is_dumb_terminal and self.console.file.isatty()
        )
        self._drawn_at = self._printed_at = -math.inf
        self._printed_stride = 0
        self._texts: tuple[int, list[str]] = (-1, [])
        self._file: FileIO | None = None
        self._trackers: Trackers | None = None
        if quiet:
            return
        for row in _rewind(folder, resume_step):
            self.watch.update(row, live=False)
        self._trackers = start_trackers(folder, log, config, resume_step, self.note)
        self._file = folder.metrics.open("ab", buffering=0)

    def write(self, values: dict[str, float | int]) -> None:
        """Keep one line of what was measured: ``step``, ``tokens``, ``train_seconds``, and any other numbers.

        The operating system has the line when this returns, so that killing the process does not lose it.
        What is not finite becomes null, since JSON knows no other word for it.

        Raises:
            ValueError: the disk is full.
        """
        assert not set(ALWAYS) - values.keys(), f"a line of metrics needs {', '.join(ALWAYS)}"
        if self.quiet:
            return
        if self._file is None or self._trackers is None:
            raise ValueError("metrics were written after close()")
        row = {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        data = (json.dumps(finite, allow_nan=False) + "\n").encode()
        with _writing(self.folder.metrics):
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._trackers.values(row, int(row["step"]))
        self.watch.update(row)
        if self._on_terminal:
            self._draw()
        else:
            self._print_line("val/loss" in row)

    def show(self, values: Mapping[str, float | int]) -> None:
        """Update only what a person sees."""
        if self.quiet:
            return
        self.watch.update(values)
        if self._on_terminal:
            self._draw()

    def note(self, text: str) -> None:
        """Say a sentence to the person watching, above the live panel, and keep it nowhere."""
        if not self.quiet:
            self.console.print(Text(printable(text), style="dim"), soft_wrap=not self._on_terminal)

    def text(self, title: str, text: str, step: int) -> None:
        """Show a text that the model wrote, and keep it in samples/step_N.txt with the others of that step.

        Raises:
            ValueError: the disk is full.
        """
        if self.quiet:
            return
        if self._trackers is None:
            raise ValueError("a text was written after close()")
        so_far = self._texts[1] if self._texts[0] == step else []
        self._texts = (step, [*so_far, text])
        path = self.folder.samples / f"step_{step}.txt"
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "\n---\n".join(self._texts[1]).rstrip("\n") + "\n")
        self._trackers.text(title, text, step)
        self.console.print(Text(f"{title}, step {step:,}", style="bold dim"))
        self.console.print(Text(printable(text).strip("\n")), soft_wrap=not self._on_terminal)

    def close(self) -> None:
        """Draw the last frame, and end trackers and file. More calls do nothing."""
        if self._live:
            self._draw(now=True)
            self._live.stop()
            self._live = None
        if self._trackers:
            self._trackers.close()
            self._trackers = None
        if self._file:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _draw(self, now: bool = False) -> None:
        """Draw the panel, but not too often; here and not in a thread, which would compete with training."""
        if not now and time.monotonic() - self._drawn_at < FRAME_SECONDS:
            return
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
            self._live.start()
        unicode = not self.console.options.ascii_only
        self._live.update(self.watch.panel(self.folder.name, self.console.width, unicode), refresh=True)
        self._drawn_at = time.monotonic()

    def _print_line(self, evaluated: bool) -> None:
        """Print a line for an evaluation, and else only now and then."""
        watch, now = self.watch, time.monotonic()
        stride = int(watch.fraction * PLAIN_LINES)
        if not evaluated and stride == self._printed_stride and now - self._printed_at < PLAIN_SECONDS:
            return
        self._printed_stride, self._printed_at = stride, now
        self.console.print(Text(watch.line(evaluated)), soft_wrap=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, oldest first; none where nothing was logged yet.

    A last line that was cut short by the end of a process is left out. What was not finite is None.

    Raises:
        ValueError: a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:  # of JSON or of UTF-8
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {path} is damaged ({error}); remove it") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one sentence that a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); make room and go on with --resume") from error


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """Bytes in use now and at their peak: what PyTorch gave out on a GPU, the whole process on a CPU.

    Apple's GPUs count no peak; what their driver holds, which hardly shrinks, stands for it.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        now = torch.mps.current_allocated_memory()
        return now, max(now, torch.mps.driver_allocated_memory())
    import psutil

    info = psutil.Process().memory_info()
    return info.rss, max(info.rss, _process_peak_bytes(info))


def _process_peak_bytes(info: Any) -> int:
    """The largest resident size that this process ever had."""
    if os.name == "nt":
        return int(info.peak_wset)
    try:
        # Linux: getrusage would count what the parent had before exec (measured: 890 MB for a child of 9 MB).
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rewind(folder: RunFolder, resume_step: int | None) -> list[dict[str, Any]]:
    """Drop what a run that goes on from ``resume_step`` will write again, and give the lines that stay."""
    if resume_step is None:
        if folder.metrics.exists() and folder.metrics.stat().st_size:
            raise ValueError(
                f"{folder.metrics} is there from an earlier run; go on with --resume, or choose another --run"
            )
        return []
    kept = [row for row in read_metrics(folder.metrics) if row.get("step", 0) <= resume_step]
    write_bytes(folder.metrics, "".join(json.dumps(row) + "\n" for row in kept).encode())
    for path in folder.samples.glob("step_*.txt"):
        step = path.stem.removeprefix("step_")
        if step.isdigit() and int(step) > resume_step:
            path.unlink()
    return kept
