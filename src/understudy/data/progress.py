"""Progress of a preparation, and bars on a terminal that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class PreparationProgress:
    """Progress of one stage: `done` of `total`, in bytes of files (in documents, for a generated corpus)."""

    stage: str
    done: int
    total: int | None
    tokens: int = 0


Report = Callable[[PreparationProgress], None]


@contextmanager
def preparation_bars() -> Iterator[Report]:
    """A report for `prepare` that draws one bar a stage on standard error; silent where that is no terminal."""
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[tokens]}"),
        rich_progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with rich_progress.Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, rich_progress.TaskID] = {}

        def report(progress: PreparationProgress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, tokens="")
            tokens = f"{progress.tokens:,} tokens" if progress.tokens else ""
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total, tokens=tokens)

        yield report
