"""The first pass of a cleaning: documents go through the filters, into shards with signatures and counts.

Shards are cut by the text alone. One that has its counts is finished, and a resumed pass goes on behind it.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.layout import Split
from understudy.data.progress import PreparationProgress, Report
from understudy.data.quality.copies import SENTENCE
from understudy.data.quality.tally import DocumentExample, Tally, shortened
from understudy.data.quality.workers import ROWS, CleanerPool, Examined, write_rows
from understudy.data.sources import Feed
from understudy.data.text.documents import Note
from understudy.files import read_json, write_bytes, write_json

EXAMINED = "examined.json"
SHARD_CHARS = 1 << 24
BATCH_CHARS = 1 << 20
BATCH_DOCUMENTS = 256
MOST_CHARS = 1 << 24
"""The longest document that is cleaned. It is in memory as a whole, several times."""


@dataclass(frozen=True)
class _Position:
    """How far the feeds are read.

    Attributes:
        feed, split: of the last document.
        part, items: the part that it is of, and the documents and notes of that part up to there.
        read: the documents of the feed up to there.
        done: bytes of all feeds up to there.
    """

    feed: int
    split: Split | None
    part: int
    items: int
    read: int
    done: int


@dataclass(frozen=True)
class Shard(_Position):
    """A finished shard of the first pass.

    Attributes:
        documents: those that passed.
        bytes: of their text.
    """

    documents: int
    bytes: int
    tally: Tally


@dataclass(frozen=True)
class Document(_Position):
    """A document or a note of a feed.

    `text`: of training text that is `too_long`, its beginning.
    """

    where: str
    text: str
    too_long: bool = False
    note: Note | None = None


def _documents(feeds: Sequence[Feed], limit: int | None, last: Shard | None) -> Iterator[Document]:
    """The documents and notes of feeds behind a shard, in order."""
    start = (last.feed, last.part) if last else (0, 0)
    before = 0
    for i, feed in enumerate(feeds):
        read = last.read if last and i == start[0] else 0
        for j, part in enumerate(feed.parts):
            if (i, j) >= start:
                skip = last.items if last and (i, j) == start else 0
                for document in documents_of(feed, i, j, limit, read, before, skip):
                    read = document.read
                    yield document
            before += part.size


def documents_of(
    feed: Feed, number: int, part: int, limit: int | None, read: int, before: int, skip: int
) -> Iterator[Document]:
    """The documents and notes of a part behind the first `skip`; `read`: the documents of the feed up to there."""
    info = feed.parts[part]
    most = limit if info.split != "val" else None
    items = documents = chars = 0
    texts: list[str] = []
    if most is not None and read >= most:
        return
    for piece in feed.read(part):
        done = before + piece.offset
        if piece.note is not None:
            items += 1
            if items > skip:
                yield Document(number, info.split, part, items, read, done, piece.note.where, "", note=piece.note)
            continue
        if chars <= MOST_CHARS or info.split == "val":
            texts.append(piece.text)
        chars += len(piece.text)
        if not piece.ends:
            continue
        items, documents = items + 1, documents + 1
        text, too_long = "".join(texts), chars > MOST_CHARS
        texts, chars = [], 0
        if items > skip:
            read += 1
            where = f"{info.name}, document {documents:,}"
            beginning = text[:1000] if too_long and info.split != "val" else text
            yield Document(number, info.split, part, items, read, done, where, beginning, too_long)
            if most is not None and read >= most:
                return


def document_batches(documents: Iterator[Document]) -> Iterator[tuple[list[Document], tuple[Any, ...]]]:
    """Documents of one feed and split, about a million characters, and the arguments of Cleaner.examine."""
    batch: list[Document] = []
    chars = 0

    def made() -> tuple[list[Document], tuple[Any, ...]]:
        return batch, ([each.text for each in batch if is_examined(each)], batch[0].split != "val")

    for document in documents:
        if batch and (document.feed, document.split) != (batch[0].feed, batch[0].split):
            yield made()
            batch, chars = [], 0
        batch.append(document)
        chars += len(document.text)
        if chars >= BATCH_CHARS or len(batch) >= BATCH_DOCUMENTS:
            yield made()
            batch, chars = [], 0
    if batch:
        yield made()


def is_examined(document: Document) -> bool:
    return document.note is None and not document.too_long


def examine_feeds(
    folder: Path, feeds: Sequence[Feed], limit: int | None, pool: CleanerPool, report: Report
) -> list[Shard]:
    """The first pass: every shard, those that were finished before included."""
    folder.mkdir(exist_ok=True)
    shards = finished_shards(folder)
    if (folder / EXAMINED).is_file():
        return shards
    total = sum(part.size for feed in feeds for part in feed.parts)
    writer = ShardWriter(folder, shards)
    documents = _documents(feeds, limit, shards[-1] if shards else None)
    for batch, results in pool.in_order("examine", document_batches(documents)):
        examined = iter(results)
        for document in batch:
            writer.add(document, next(examined) if is_examined(document) else None)
        report(PreparationProgress("cleaning", batch[-1].done, total))
    writer.end()
    write_json(folder / EXAMINED, {"shards": len(shards)})
    return shards


def finished_shards(folder: Path) -> list[Shard]:
    shards: list[Shard] = []
    while (path := folder / f"{len(shards):05}.json").is_file():
        raw = read_json(path)
        shards.append(Shard(**raw | {"tally": Tally.from_json(raw["tally"])}))
    return shards


class ShardWriter:
    """Writes the shards of the first pass, and appends them to `shards`."""

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        self.folder, self.shards = folder, shards
        self._begin()

    def _begin(self) -> None:
        self.tally, self.rows, self.examined = Tally(), list[dict[str, Any]](), list[Examined]()
        self.chars = self.bytes = 0
        self.last: Document | None = None

    def add(self, document: Document, examined: Examined | None) -> None:
        """Append a document; `examined` is None for a note and for a document that is too long."""
        if self.last is not None and (document.feed, document.split) != (self.last.feed, self.last.split):
            self.end()
        self.last = document
        if document.note is not None:
            self.rows.append({"note": list(document.note)})
            return
        size = len(document.text.encode())
        training = document.split != "val"
        if training:
            self.tally.documents += 1
            self.tally.bytes += size
        else:
            self.tally.validation_documents += 1
            self.tally.validation_bytes += size
        example = DocumentExample(document.where, shortened(document.text))
        if examined is None and not training:
            examined = Examined(document.text)  # validation text is left as it is
        if examined is None:
            self.tally.drop(f"longer than {MOST_CHARS:,} characters", size, example)
        elif examined.text is None:
            self.tally.drop(examined.reason, size, dataclasses.replace(example, detail=examined.detail))
        else:
            for step, removed, before in examined.changes:
                changed = DocumentExample(document.where, shortened(examined.text), other=before)
                self.tally.change(f"{step}: text changed", removed, changed)
            self.rows.append({"text": examined.text, "where": document.where})
            self.examined.append(examined)
            self.bytes += len(examined.text.encode())
        self.chars += len(document.text)
        if self.chars >= SHARD_CHARS:
            self.end()

    def end(self) -> None:
        """Finish the shard, if it has anything."""
        if self.last is None:
            return
        path = self.folder / f"{len(self.shards):05}"
        write_rows(path.with_suffix(ROWS), self.rows)
        self._write_signatures(path.with_suffix(".npz"))
        last = self.last
        shard = Shard(
            last.feed, last.split, last.part, last.items, last.read, last.done, len(self.examined), self.bytes, self.tally
        )  # fmt: skip
        write_json(path.with_suffix(".json"), asdict(shard))
        self.shards.append(shard)
        self._begin()

    def _write_signatures(self, path: Path) -> None:
        signatures = [examined.signature for examined in self.examined]
        bands = max((len(each.bands) for each in signatures if each is not None), default=0)
        spans = [
            np.array([(value, number, first) for value, first in each.sentences.tolist()], SENTENCE)
            for number, each in enumerate(signatures)
            if each is not None
        ]
        content = io.BytesIO()
        np.savez(
            content,
            exact=np.array([0 if each is None else each.exact for each in signatures], np.uint64),
            bands=np.array([np.zeros(bands, np.uint64) if each is None else each.bands for each in signatures], np.uint64).reshape(len(signatures), bands),
            sentences=np.concatenate([np.zeros(0, SENTENCE), *spans]),
        )  # fmt: skip
        write_bytes(path, content.getvalue())
