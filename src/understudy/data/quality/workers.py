"""The work on single documents and on shards of documents, in this process or in several.

Processes and not threads, because dividing text into words holds the interpreter. The results come in the order of the
work, so that the number of processes changes no byte.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from understudy.data.quality.contamination import ContaminationIndex
from understudy.data.quality.copies import SentenceRemover, Signature, Signer
from understudy.data.quality.filters import WordSplitter, make_steps
from understudy.data.quality.settings import QualitySettings
from understudy.data.quality.tally import DocumentExample, Tally, shortened
from understudy.files import write_bytes, write_json

Task = TypeVar("Task")
TOO_LITTLE_LEFT = "sentence: too little is left without repeated sentences"
REPEATED = "sentence: repeated sentences removed"
COPIES = ("", "exact: copy of another document", "minhash: near copy of another document")
"""The reasons of Selection.copies."""


@dataclass(frozen=True, slots=True)
class Examined:
    """Result of the steps on a document.

    Attributes:
        text: None for a document that is dropped, for `reason`; `detail` is about this one.
        changes: of each step that changed the text, its name, the bytes removed, and the text before.
    """

    text: str | None
    reason: str = ""
    detail: str = ""
    changes: tuple[tuple[str, int, str], ...] = ()
    signature: Signature | None = None


@dataclass(frozen=True)
class Selection:
    """A shard, and what is left out of it.

    Attributes:
        source: the rows that passed the filters.
        target: the rows to write, without the ending.
        copies: of each document the number of its reason in COPIES.
        spans: of a document, by its number, the first sentences of the spans to remove.
    """

    source: Path
    target: Path
    copies: np.ndarray
    spans: dict[int, np.ndarray] = field(default_factory=dict)


class Cleaner:
    """Does the work of one process."""

    def __init__(self, settings: QualitySettings, index: ContaminationIndex | None) -> None:
        words = WordSplitter(settings.words) if "datatrove" in settings.modules() else None
        self._steps = make_steps(settings, words, index)
        self._signer = Signer(settings.dedup, words) if settings.dedup else None
        self._remover = SentenceRemover(words) if "sentence" in settings.dedup and words else None

    def examine(self, texts: Sequence[str], training: bool) -> list[Examined]:
        """Training text goes through all steps; validation text only gets its signatures."""
        return [self._examine(text, training) for text in texts]

    def _examine(self, text: str, training: bool) -> Examined:
        changes: list[tuple[str, int, str]] = []
        if training and not text.strip():
            return Examined(None, "empty")
        for name, step in self._steps.items() if training else ():
            verdict = step(text)
            if verdict.text is None:
                return Examined(None, f"{name}: {verdict.reason}", verdict.detail, tuple(changes))
            if verdict.text != text:
                changes.append((name, len(text.encode()) - len(verdict.text.encode()), shortened(text)))
                text = verdict.text
        signature = self._signer.sign(text) if self._signer and text.strip() else None
        return Examined(text, changes=tuple(changes), signature=signature)

    def select(self, selection: Selection) -> dict[str, Any]:
        """Write the shard that stays, and beside it its counts, which are returned."""
        tally, rows, size, number = Tally(), [], 0, 0
        for row in read_rows(selection.source):
            if "note" in row:
                rows.append(row)
                continue
            text, where, bytes_ = row["text"], row["where"], len(row["text"].encode())
            copy, spans = COPIES[selection.copies[number]], selection.spans.get(number)
            number += 1
            if copy:
                tally.drop(copy, bytes_)
                continue
            if spans is not None:
                assert self._remover is not None
                left = self._remover.remove(text, spans)
                example = DocumentExample(
                    where, shortened(text if left is None else left), other="" if left is None else shortened(text)
                )
                if left is None:
                    tally.drop(TOO_LITTLE_LEFT, bytes_, example)
                    continue
                tally.change(REPEATED, bytes_ - len(left.encode()), example)
                text, bytes_ = left, len(left.encode())
            rows.append({"text": text, "where": where})
            size += bytes_
        write_rows(selection.target.with_suffix(ROWS), rows)
        counts = {"bytes": size, "documents": sum("text" in row for row in rows), "tally": tally.to_json()}
        write_json(selection.target.with_suffix(".json"), counts)
        return counts


ROWS = ".jsonl.zst"


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as compressed JSON lines; the file appears whole."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for row in rows:
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    write_bytes(path, sink.getvalue().to_pybytes())


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    with pa.input_stream(str(path), compression="zstd") as stream:
        content = stream.read()
    for line in content.split(b"\n"):
        if line:
            yield json.loads(line)


class CleanerPool:
    """Cleaners in `workers` processes, or in this one if there is one worker. Use as a context."""

    def __init__(self, settings: QualitySettings, index: ContaminationIndex | None, workers: int) -> None:
        self._arguments, self.workers = (settings.without_questions(), index), workers
        self._pool: ProcessPoolExecutor | None = None
        self._cleaner: Cleaner | None = None

    def __enter__(self) -> CleanerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def in_order(self, method: str, tasks: Iterator[tuple[Task, tuple[Any, ...]]]) -> Iterator[tuple[Task, Any]]:
        """Call a method of Cleaner with the arguments of each task. Results come in the order of the tasks.

        Raises:
            ValueError: a process was killed.
        """
        if self.workers == 1:
            self._cleaner = self._cleaner or Cleaner(*self._arguments)
            for task, arguments in tasks:
                yield task, getattr(self._cleaner, method)(*arguments)
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, _start, self._arguments)
        waiting: deque[tuple[Task, Future[Any]]] = deque()
        try:
            for task, arguments in tasks:
                waiting.append((task, self._pool.submit(_call, method, *arguments)))
                if len(waiting) > 2 * self.workers:
                    task, future = waiting.popleft()
                    yield task, future.result()
            while waiting:
                task, future = waiting.popleft()
                yield task, future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a process that cleans text ended by itself, often for want of memory: run the same command again with "
                "fewer --workers (in a script of yours, call prepare below `if __name__ == '__main__':`)"
            ) from error


_cleaners: list[Cleaner] = []
"""The cleaner of a process of the pool."""


def _start(settings: QualitySettings, index: ContaminationIndex | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says that it was interrupted
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _cleaners.append(Cleaner(settings, index))


def _end_with_parent() -> None:
    """End this process when its parent was killed: the pool's queue would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _call(method: str, *arguments: Any) -> Any:
    return getattr(_cleaners[0], method)(*arguments)
