"""The metrics of a run: one flat JSON object a line in metrics.jsonl, shown live, and passed to trackers.

    with TrainingMetrics(folder, config.log, config.train.steps) as metrics:
        metrics.write({"step": 10, "tokens": 7680, "train_seconds": 0.6, "train/loss": 3.2})

Not here: the panel (console_panel.py), the trackers (trackers.py), and measuring (the loop and the stages).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text

from understudy.config.run import LogConfig
from understudy.console import NotebookOutput, printable
from understudy.files import write_bytes, write_text
from understudy.run import RunFolder, read_metrics
from understudy.train.console_panel import ProgressPanel
from understudy.train.trackers import Trackers

ALWAYS = ("step", "tokens", "train_seconds")
FRAME_SECONDS = 0.2  # drawing one takes 2 ms of the core that trains
NOTEBOOK_WIDTH = 90  # characters of the panel in a notebook
PLAIN_LINES = 50  # lines of a whole run, about, so that a log stays readable,
PLAIN_SECONDS = 30.0  # the longest time between two lines


class TrainingMetrics:
    """Writes and shows metrics, and passes them to trackers.

    Args:
        resume_step: the step from which a resumed run continues. Lines and samples of later steps are deleted, since
            they will be written again, and so is a torn last line. None for a new run.
        quiet: of processes other than the main one: nothing is written, shown or passed on.
        config: the resolved configuration as a plain tree, for the trackers and for limits other than
            ``total_steps``.
        console: standard error by default.

    Raises:
        ValueError: a new run's folder already has metrics, or a tracker is missing or cannot start.
    """

    def __init__(
        self, folder: RunFolder, log: LogConfig, total_steps: int, resume_step: int | None = None, quiet: bool = False,
        config: dict[str, Any] | None = None, console: Console | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.quiet, self.console = folder, quiet, console or Console(stderr=True)
        self.panel = ProgressPanel(total_steps, (config or {}).get("train", {}))
        self._live: Live | None = None
        self._notebook = NotebookOutput() if self.console.is_jupyter and not quiet else None
        self._on_terminal = (
            self.console.is_terminal and not self.console.is_dumb_terminal and self.console.file.isatty()
        )
        self._drawn_at = self._printed_at = -math.inf
        self._printed_stride = 0
        if quiet:
            return
        for row in _rewind(folder, resume_step):
            self.panel.update(row, live=False)
        self._trackers = Trackers(folder, log, config or {}, resume_step, self.note)
        self._file: FileIO = folder.metrics.open("ab", buffering=0)

    def write(self, values: dict[str, float | int]) -> None:
        """Write one line: ``step``, ``tokens``, ``train_seconds``, and any other numbers.

        The operating system has the line when this returns, so that killing the process does not lose it. Numbers that
        are not finite become null, since JSON has none.

        Raises:
            ValueError: the disk is full.
        """
        assert not set(ALWAYS) - values.keys(), f"a line of metrics needs {', '.join(ALWAYS)}"
        if self.quiet:
            return
        row = {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        data = (json.dumps(finite, allow_nan=False) + "\n").encode()
        with _writing(self.folder.metrics):
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._trackers.values(row, int(row["step"]))
        self.panel.update(row)
        if self._on_terminal or self._notebook:
            self._draw()
        else:
            self._print_line("val/loss" in row)

    def note(self, text: str) -> None:
        """Print a sentence above the live panel."""
        if not self.quiet:
            self.console.print(Text(printable(text), style="dim"), soft_wrap=not self._on_terminal)

    def samples(self, text: str, step: int) -> None:
        """Show what the model generated, and write it to samples/step_N.txt.

        Raises:
            ValueError: the disk is full.
        """
        if self.quiet:
            return
        path = self.folder.samples / f"step_{step}.txt"
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text.rstrip("\n") + "\n")
        self._trackers.text("samples", text, step)
        self.console.print(Text(f"samples, step {step:,}", style="bold dim"))
        self.console.print(Text(printable(text).strip("\n")), soft_wrap=not self._on_terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Draw the last frame, and close trackers and file."""
        if self._live or self._notebook:
            self._draw(now=True)
        if self._live:
            self._live.stop()
        if not self.quiet:
            self._trackers.close()
            self._file.close()

    def _draw(self, now: bool = False) -> None:
        """Draw the panel, but not too often; not in a thread, which would compete with training."""
        if not now and time.monotonic() - self._drawn_at < FRAME_SECONDS:
            return
        if self._notebook:
            self._notebook.show(self.panel.render(self.folder.name, NOTEBOOK_WIDTH), NOTEBOOK_WIDTH)
            self._drawn_at = time.monotonic()
            return
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
            self._live.start()
        unicode = not self.console.options.ascii_only
        self._live.update(self.panel.render(self.folder.name, self.console.width, unicode), refresh=True)
        self._drawn_at = time.monotonic()

    def _print_line(self, evaluated: bool) -> None:
        """Print a line for each evaluation, and between them only some."""
        now = time.monotonic()
        stride = int(self.panel.fraction * PLAIN_LINES)
        if not evaluated and stride == self._printed_stride and now - self._printed_at < PLAIN_SECONDS:
            return
        self._printed_stride, self._printed_at = stride, now
        self.console.print(Text(self.panel.line(evaluated)), soft_wrap=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of writing a file into one sentence."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({error.strerror}); make room and continue with --resume"
        ) from error


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """Bytes in use now and at their peak: those that PyTorch allocated on a GPU, those of the process on a CPU.

    On Apple's GPUs, which count no peak, it is the memory that the driver holds, and on its CPUs the memory in use.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        now = torch.mps.current_allocated_memory()
        return now, max(now, torch.mps.driver_allocated_memory())
    info = psutil.Process().memory_info()
    if sys.platform == "linux":  # getrusage would count the parent's memory before exec: 890 MB for a child of 9 MB
        status = Path("/proc/self/status").read_text().splitlines()
        peak = next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
    else:
        peak = getattr(info, "peak_wset", 0)  # Windows
    return info.rss, max(info.rss, peak)


def _rewind(folder: RunFolder, resume_step: int | None) -> list[dict[str, Any]]:
    """Delete the lines and samples that a run resumed at ``resume_step`` writes again; returns the lines that stay."""
    if resume_step is None:
        if folder.metrics.exists() and folder.metrics.stat().st_size:
            raise ValueError(
                f"{folder.metrics} is from an earlier run; continue it with --resume, or choose another --run"
            )
        return []
    rows = [row for row in read_metrics(folder.metrics) if row.get("step", 0) <= resume_step]
    write_bytes(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())
    for path in folder.samples.glob("step_*.txt"):
        step = path.stem.removeprefix("step_")
        if step.isdigit() and int(step) > resume_step:
            path.unlink()
    return rows
