"""The questions of tasks and of files, as text to keep out of the training data (`prepare --decontaminate`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from understudy.config.load import nearest
from understudy.data.fetch.download import UnavailableError
from understudy.data.quality.contamination import Benchmark, read_benchmark
from understudy.evaluation.task import Example
from understudy.evaluation.tasks import TASKS, find_task


def find_benchmarks(names: Sequence[str]) -> tuple[Benchmark, ...]:
    """The questions behind names of tasks and paths of files.

    A task gives the questions of its evaluation, from the hub where they are public. Of a file every record counts, or
    every paragraph.

    Raises:
        ValueError: no such task or file, one named twice, or questions that cannot be fetched.
    """
    benchmarks = tuple(_task(name) if name in TASKS else _file(name) for name in names)
    if len({benchmark.name for benchmark in benchmarks}) < len(benchmarks):
        raise ValueError(f"{', '.join(names)} names the same questions twice: name each task or file once")
    return benchmarks


def _task(name: str) -> Benchmark:
    try:
        examples = find_task(name).examples("val")
    except ValueError as error:
        if not isinstance(error.__cause__, UnavailableError):
            raise
        raise ValueError(
            f"the questions of {name} are not here: {error.__cause__}; or give a file with them in place of the name"
        ) from error
    return Benchmark(name, tuple(tuple(_texts(example)) for example in examples))


def _texts(example: Example) -> Iterator[str]:
    """The question, the answer and the choices; a system message is no part of a question."""
    yield from (message["content"] for message in example.messages if message["role"] != "system")
    if example.text:
        yield example.text
    yield from example.choices or (example.answer,)


def _file(name: str) -> Benchmark:
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(
            f"there is neither a task nor a file {name!r}{nearest(name, TASKS)}; tasks are {', '.join(TASKS)}"
        )
    return read_benchmark(path)
