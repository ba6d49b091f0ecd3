"""The first pass of a cleaning as tasks: each puts a share of the documents through the filters.

Task i writes .partial/quality/task-i/, rows of documents and what the steps made of them, and then done.json. The tasks may
run in any order, on any machine that reaches the folder; a killed one begins anew. When all are done, one process puts
their rows together into the shards that a cleaning without tasks writes, finds the copies, and goes on with the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.progress import PreparationProgress, Report
from understudy.data.quality import examining
from understudy.data.quality.copies import Signature
from understudy.data.quality.examining import Document, Shard, ShardWriter, document_batches, documents_of, is_examined
from understudy.data.quality.workers import ROWS, CleanerPool, Examined, read_rows, write_rows
from understudy.data.sources import Feed
from understudy.data.text.documents import Note
from understudy.data.text.encoding import TaskSpan, share
from understudy.files import locked, read_json, write_json

DONE = "done.json"


def task_path(folder: Path, task: int) -> Path:
    return folder / f"task-{task:05d}"


def done_cleaning_tasks(folder: Path) -> set[int]:
    """The numbers of the tasks that are done."""
    return {int(path.parent.name.removeprefix("task-")) for path in folder.glob(f"task-*/{DONE}")}


def examine_share(
    folder: Path, feeds: Sequence[Feed], task: int, tasks: int, pool: CleanerPool, report: Report
) -> bool:
    """Do one task, unless it is done. Returns whether there was something to do."""
    target = task_path(folder, task)
    if (target / DONE).is_file():
        return False
    with locked(target, "--out", wait=True):  # a process that was given up, and not killed, may still be at it
        if (target / DONE).is_file():
            return False
        for file in target.glob(f"*{ROWS}"):  # of a task that was killed
            file.unlink()
        span = share(feeds, task, tasks)
        total = sum(part.size for feed in feeds for part in feed.parts)
        first, last = min(span.start, total), int(min(span.stop, total))
        rows: list[dict[str, Any]] = []
        files = chars = 0
        for batch, results in pool.in_order("examine", document_batches(_documents_in(feeds, span))):
            examined = iter(results)
            for document in batch:
                rows.append(_row(document, next(examined) if is_examined(document) else None))
                chars += len(document.text)
            if chars >= examining.SHARD_CHARS:
                write_rows(target / f"{files:05}{ROWS}", rows)
                rows, files, chars = [], files + 1, 0
            report(PreparationProgress("cleaning", min(max(batch[-1].done, first), last) - first, last - first))
        write_rows(target / f"{files:05}{ROWS}", rows)
        write_json(target / DONE, {"files": files + 1})
    return True


def gather_shares(folder: Path, tasks: int, report: Report) -> list[Shard]:
    """The shards of the first pass, of the rows of all tasks, which are done."""
    passed = folder / "passed"
    if (passed / examining.EXAMINED).is_file():
        return examining.finished_shards(passed)
    shutil.rmtree(passed, ignore_errors=True)
    passed.mkdir()
    shards: list[Shard] = []
    writer = ShardWriter(passed, shards)
    for task in range(tasks):
        for number in range(read_json(task_path(folder, task) / DONE)["files"]):
            for row in read_rows(task_path(folder, task) / f"{number:05}{ROWS}"):
                writer.add(*_read_row(row))
        report(PreparationProgress("gathering tasks", task + 1, tasks))
    writer.end()
    write_json(passed / examining.EXAMINED, {"shards": len(shards)})
    return shards


def _documents_in(feeds: Sequence[Feed], span: TaskSpan) -> Iterator[Document]:
    """The documents and notes whose end is in a span, in order. A part is read from its beginning."""
    first = 0
    for number, feed in enumerate(feeds):
        for part, info in enumerate(feed.parts):
            last = first + max(info.size, 1) - 1
            if span.overlaps(first, last):
                position = first
                for document in documents_of(feed, number, part, None, 0, first, 0):
                    position = max(position, min(document.done, last))
                    if position >= span.stop:
                        break
                    if position >= span.start:
                        yield document
            first += info.size


def _row(document: Document, examined: Examined | None) -> dict[str, Any]:
    place = [document.feed, document.split, document.part, document.items, document.read, document.done]
    row: dict[str, Any] = {"place": place, "where": document.where, "text": document.text}
    row |= {"too_long": document.too_long, "note": document.note and list(document.note)}
    if examined is not None:
        signature = examined.signature
        row["examined"] = {
            "text": True if examined.text == document.text else examined.text,
            "reason": examined.reason, "detail": examined.detail, "changes": examined.changes,
            "signature": signature and [signature.exact, signature.bands.tolist(), signature.sentences.tolist()],
        }  # fmt: skip
    return row


def _read_row(row: dict[str, Any]) -> tuple[Document, Examined | None]:
    note = Note(*row["note"]) if row["note"] else None
    document = Document(*[*row["place"], row["where"], row["text"], row["too_long"], note])
    raw = row.get("examined")
    if raw is None:
        return document, None
    signature = None
    if raw["signature"]:
        exact, bands, sentences = raw["signature"]
        signature = Signature(exact, np.array(bands, np.uint64), np.array(sentences, np.uint64).reshape(-1, 2))
    text = document.text if raw["text"] is True else raw["text"]
    changes = tuple((name, size, before) for name, size, before in raw["changes"])
    return document, Examined(text, raw["reason"], raw["detail"], changes, signature)
