"""The cleaning of a preparation: documents are filtered, copies removed, and what stays is read as the sources were.

It is done in passes over shards in .partial/quality/, each of about 16 MB of text:

1. passed/: the documents that pass the filters, with their signatures (.npz) and counts (.json). Several tasks may share
   this pass (tasks.py).
2. The signatures of all shards tell the copies.
3. kept/: the shards without copies and repeated sentences. Without --dedup there is no such pass.

A shard with its counts is finished, and a resumed cleaning goes on behind it. Shards are cut by the text alone. The folder
is removed with .partial at the end; the counts and examples stay in quality.json, beside the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.data.layout import check_version
from understudy.data.progress import Report
from understudy.data.quality.contamination import LEAST_WORDS, ContaminationIndex
from understudy.data.quality.examining import Shard, examine_feeds
from understudy.data.quality.filters import WordSplitter, make_index
from understudy.data.quality.selecting import select_documents
from understudy.data.quality.settings import QualitySettings
from understudy.data.quality.tally import Tally
from understudy.data.quality.tasks import done_cleaning_tasks, examine_share, gather_shares
from understudy.data.quality.workers import ROWS, CleanerPool, read_rows
from understudy.data.sources import Feed, Part, Pin
from understudy.data.text.documents import DocumentPiece, note_piece, split_document
from understudy.data.text.shards import Manifest
from understudy.files import read_json, write_json

FOLDER = "quality"
BEGUN = "sources.json"
QUALITY = "quality.json"
"""The settings, counts and examples of a cleaning, beside the data."""
PAGE = "quality.html"
SMALL_BYTES = 1 << 22
"""Sources of fewer bytes are cleaned in this process: others take some seconds to start."""
BIG_BYTES = 100_000_000
"""Text of which it is worth saying that it was not cleaned."""


def begun_request(partial: Path) -> tuple[dict[str, Any], int] | None:
    """The request that an unfinished cleaning is of, and its number of tasks; None where there is none."""
    path = partial / FOLDER / BEGUN
    if not path.is_file():
        return None
    begun = read_json(path)
    return begun["request"], begun.get("tasks", 1)


def done_cleaning(partial: Path) -> set[int]:
    """The numbers of the tasks of a cleaning that are done."""
    return done_cleaning_tasks(partial / FOLDER)


def check_tasks_done(partial: Path, tasks: int) -> None:
    """Refuse to go on before all tasks of a cleaning are done.

    Raises:
        ValueError: one is not.
    """
    done = done_cleaning(partial) if tasks > 1 else {0}
    if missing := [task for task in range(tasks) if task not in done]:
        listed = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
        raise ValueError(
            f"{len(missing):,} of {tasks:,} tasks that clean text are not done ({listed}): run them with --task"
        )


def _begin(
    folder: Path, request: dict[str, Any], tasks: int, open_feeds: Callable[[Sequence[Pin]], Sequence[Feed]]
) -> tuple[Feed, ...]:
    """The feeds, as they were when the cleaning began.

    Raises:
        ValueError: another version began it, and tasks are to do the same.
    """
    begun = read_json(folder / BEGUN) if (folder / BEGUN).is_file() else None
    if begun is not None and tasks > 1:
        check_version(folder.parent.parent, begun["understudy"])
    saved = begun["feeds"] if begun else []
    feeds = tuple(
        open_feeds(
            [Pin(tuple(Part(*part) for part in parts), revision, tuple(notes)) for parts, revision, notes in saved]
        )
    )
    if begun is None:
        folder.mkdir(parents=True, exist_ok=True)
        decided = [[[astuple(part) for part in feed.parts], feed.revision, list(feed.notes)] for feed in feeds]
        write_json(folder / BEGUN, {"request": request, "tasks": tasks, "understudy": __version__, "feeds": decided})
    return feeds


def _pool(
    settings: QualitySettings, feeds: Sequence[Feed], workers: int
) -> tuple[CleanerPool, ContaminationIndex | None]:
    if sum(part.size for feed in feeds for part in feed.parts) < SMALL_BYTES and not any(feed.remote for feed in feeds):
        workers = 1
    index = make_index(settings, WordSplitter(settings.words)) if settings.benchmarks else None
    return CleanerPool(settings, index, workers), index


def clean_share(
    partial: Path, request: dict[str, Any], settings: QualitySettings,
    open_feeds: Callable[[Sequence[Pin]], Sequence[Feed]], task: int, tasks: int, workers: int, report: Report,
) -> bool:  # fmt: skip
    """Put the share of one task through the filters; `cleaned_feeds` with this number of tasks does the rest.

    The arguments are those of `cleaned_feeds`. Returns whether there was something to do.
    """
    folder = partial / FOLDER
    feeds = _begin(folder, request, tasks, open_feeds)
    pool, _ = _pool(settings, feeds, workers)
    with pool:
        return examine_share(folder, feeds, task, tasks, pool, report)


def cleaned_feeds(
    partial: Path,
    request: dict[str, Any],
    settings: QualitySettings,
    open_feeds: Callable[[Sequence[Pin]], Sequence[Feed]],
    limit: int | None,
    workers: int,
    report: Report,
    tasks: int = 1,
) -> tuple[Feed, ...]:
    """Clean the text of feeds, and give feeds of what stays. The same call continues after an interruption.

    Validation text of a source with its own is left as it is, and training text that copies it is dropped.

    Args:
        partial: the folder of unfinished work.
        request: the mapping of the request, by which the work is known again.
        open_feeds: opens the sources, with the pins of the first call.
        limit: the most documents of each feed that are read, validation text of its own aside.
        tasks: those that have done the first pass; with 1 it is done here.

    Raises:
        ValueError: nothing stays, or a source has changed since.
    """
    folder = partial / FOLDER
    feeds = _begin(folder, request, tasks, open_feeds)
    pool, index = _pool(settings, feeds, workers)
    with pool:
        if tasks > 1:
            shards = gather_shares(folder, tasks, report)
        else:
            shards = examine_feeds(folder / "passed", feeds, limit, pool, report)
        tally = Tally()
        for shard in shards:
            tally.add(shard.tally)
        if settings.dedup:
            sizes = select_documents(folder, shards, settings, pool, tally, report)
        else:
            sizes = [shard.bytes for shard in shards]
    tally.kept_documents = tally.documents - sum(count.documents for count in tally.dropped.values())
    tally.kept_bytes = sum(size for shard, size in zip(shards, sizes) if shard.split != "val")
    if tally.documents and not tally.kept_documents:
        reason, count = max(tally.dropped.items(), key=lambda item: item[1].documents)
        raise ValueError(
            f"nothing is left of {tally.documents:,} documents: {count.documents:,} were dropped by {reason}; leave that "
            "filter out, or give other text"
            + (" (--separator divides a long text into documents)" if tally.documents < 10 else "")
        )
    content: dict[str, Any] = {
        "settings": settings.mapping(),
        "versions": settings.versions(),
        "tally": tally.to_json(),
    }
    content["too_short"] = dict(zip(index.names, index.too_short)) if index else {}
    content["sources"] = [[asdict(part) for part in feed.parts] for feed in feeds]
    write_json(partial / QUALITY, content)
    where = folder / ("kept" if settings.dedup else "passed")
    return tuple(_cleaned(feed, i, where, shards, sizes) for i, feed in enumerate(feeds))


def _cleaned(feed: Feed, number: int, folder: Path, shards: Sequence[Shard], sizes: Sequence[int]) -> Feed:
    """A feed of the shards that stay; each is a part."""
    own = [i for i, shard in enumerate(shards) if shard.feed == number]
    parts = tuple(Part(f"{feed.name}, cleaned {n}", max(1, sizes[i]), None, shards[i].split) for n, i in enumerate(own))

    def read(part: int) -> Iterator[DocumentPiece]:
        offset = 0
        for row in read_rows(folder / f"{own[part]:05}{ROWS}"):
            if "note" in row:
                kind, reason, place = row["note"]
                yield note_piece(kind, reason, place, offset)
                continue
            offset += len(row["text"].encode())
            yield from split_document(row["text"], offset)

    return dataclasses.replace(feed, parts=parts, read=read, remote=False)


def with_quality(manifest: Manifest, path: Path) -> Manifest:
    """The manifest of cleaned text, with the counts of a quality.json, and the parts of the sources in place of shards."""
    content = read_json(path)
    sources = [source | {"parts": parts} for source, parts in zip(manifest.sources, content["sources"])]
    return dataclasses.replace(manifest, sources=sources, quality=_summary(content))


def _summary(content: dict[str, Any]) -> dict[str, Any]:
    """The settings and counts without examples."""
    tally = Tally.from_json(content["tally"])
    return {
        "settings": content["settings"],
        "versions": content["versions"],
        "read": {"documents": tally.documents, "bytes": tally.bytes},
        "kept": {"documents": tally.kept_documents, "bytes": tally.kept_bytes},
        "validation": {"documents": tally.validation_documents, "bytes": tally.validation_bytes},
        "dropped": {reason: [count.documents, count.bytes] for reason, count in tally.dropped.items()},
        "too_short": content["too_short"],
        "changed": {step: [count.documents, count.bytes] for step, count in tally.changed.items()},
    }


def quality_notes(manifest: Manifest) -> list[str]:
    """Remarks about a cleaning, or that there was none."""
    size = sum(info.bytes for info in manifest.splits.values())
    if manifest.quality is None and size > BIG_BYTES:
        return [
            f"{size / 1e6:,.0f} MB of text were not cleaned: --dedup minhash drops copies, and --filter fineweb drops "
            "boilerplate of English web pages"
        ]
    short = (manifest.quality or {}).get("too_short", {})
    return [
        f"questions of {name} with fewer than {LEAST_WORDS} words, which are not looked for: {questions:,}"
        for name, questions in short.items()
        if questions
    ]


def remove_old(folder: Path, cleaned: bool) -> None:
    """Remove the page of earlier data, and unless the new text was cleaned its counts."""
    (folder / PAGE).unlink(missing_ok=True)
    if not cleaned:
        (folder / QUALITY).unlink(missing_ok=True)
