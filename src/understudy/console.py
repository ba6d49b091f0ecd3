"""Printing shared by all commands: tables, numbers with units, progress bars, JSON and safe text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def final_table(rows: Mapping[str, str], console: Console | None = None) -> None:
    """Print a table of names and values to standard error."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name), Text(printable(value)))
    (console or Console(stderr=True)).print(table)


def count_text(number: float) -> str:
    """A count in three digits: 950, 12.3k, 4.56M, 124M, 1.56B."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f}{unit}"
    return f"{number:.0f}"


def bytes_text(number: float) -> str:
    """A number of bytes: 512 MB, 1.25 GB; powers of ten."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size * 0.9995:
            return f"{number / size:.{2 if size >= 1e9 else 0}f} {unit}"
    return f"{number:.0f} B"


def duration_text(seconds: float) -> str:
    """A length of time: 0:07, 12:34, 1:02:03, 2d 3:04:05."""
    whole = max(0, round(seconds))
    days, remainder = divmod(whole, 86400)
    hours, minutes, seconds_ = remainder // 3600, remainder // 60 % 60, remainder % 60
    clock = f"{hours}:{minutes:02}:{seconds_:02}" if hours or days else f"{minutes}:{seconds_:02}"
    return f"{days}d {clock}" if days else clock


def interval_text(value: float, low: float | None, high: float | None, number_format: str) -> str:
    """A value with its 95% interval, if it has one.

    >>> interval_text(0.5, 0.25, None, ".1%"), interval_text(2.0, 1.5, 2.5, ".2f")
    ('50.0%', '2.00 (95% interval 1.50 to 2.50)')
    """
    text = format(value, number_format)
    if low is None or high is None:
        return text
    return f"{text} (95% interval {format(low, number_format)} to {format(high, number_format)})"


def printable(text: str) -> str:
    """Text without the control characters that move a terminal's cursor or change its colours. Models generate them."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def show_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], stderr: bool = True) -> None:
    """Print a table with a title and column heads to standard error, or to standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, title=Text(title), title_justify="left", box=box.SIMPLE)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(stderr=stderr).print(table)


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Bars]:
    """Progress bars on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bars:
        yield bars


def progress_callback(bars: Bars) -> Callable[[str, int, int], None]:
    """A function of (description, done, total) that shows a bar for each description."""
    tasks: dict[str, TaskID] = {}

    def report(description: str, done: int, total: int) -> None:
        if description not in tasks:
            tasks[description] = bars.add_task(description, total=total)
        bars.update(tasks[description], completed=done, total=total)

    return report


def print_line(text: str) -> None:
    """Print one line to standard error, unwrapped and without the markup of rich."""
    from rich.console import Console

    Console(stderr=True).print(printable(text), markup=False, highlight=False, soft_wrap=True)


def print_json(content: Any) -> None:
    """Print the one JSON document of a command with --json to standard output.

    Raises:
        ValueError: a number is not finite. JSON has no such number.
    """
    try:
        document = json.dumps(content, indent=1, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            "a result is not a finite number: the model's weights are damaged or its training diverged; "
            "use another checkpoint with --checkpoint"
        ) from error
    print(document)


class NotebookOutput:
    """One output of a notebook cell, which is replaced as often as it is shown again. It stays when the notebook is saved."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, content: RenderableType, width: int) -> None:
        """Show what rich can print, ``width`` characters wide."""
        from io import StringIO

        from IPython.display import HTML, display
        from rich.console import Console

        console = Console(file=StringIO(), record=True, width=width, force_jupyter=False)
        console.print(content)
        style = "font-family: Menlo, 'DejaVu Sans Mono', Consolas, monospace; line-height: 1.25; white-space: pre"
        page = HTML(console.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>'))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)
