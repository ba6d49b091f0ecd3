"""The cleaning of a preparation: documents are filtered, copies removed, and what stays is read as the sources were.

It is done in passes over shards in .partial/quality/, each of about 16 MB of text:

1. passed/: the documents that pass the filters, with their signatures (.npz) and counts (.json).
2. The signatures of all shards tell the copies.
3. kept/: the shards without copies and repeated sentences. Without --dedup there is no such pass.

A shard with its counts is finished, and a resumed cleaning goes on behind it. Shards are cut by the text alone. The folder
is removed with .partial at the end; the counts and examples stay in quality.json, beside the data.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.layout import Split
from understudy.data.progress import PreparationProgress, Report
from understudy.data.quality.copies import SENTENCE, Signer, first_of_equals, first_of_groups, repeated_spans
from understudy.data.quality.filters import Words, make_index
from understudy.data.quality.settings import QualitySettings
from understudy.data.quality.tally import EXAMPLES, Example, Tally, shortened
from understudy.data.quality.workers import (
    COPIES,
    ROWS,
    CleanerPool,
    Examined,
    Selection,
    read_rows,
    write_rows,
)
from understudy.data.sources import Feed, Part, Pin
from understudy.data.text.documents import DocumentPiece, Note, note_piece, split_document
from understudy.files import read_json, write_bytes, write_json

FOLDER = "quality"
BEGUN = "sources.json"
EXAMINED = "examined.json"
QUALITY = "quality.json"
"""The settings, counts and examples of a cleaning, beside the data."""
PAGE = "quality.html"
SHARD_CHARS = 1 << 24
BATCH_CHARS = 1 << 20
BATCH_DOCUMENTS = 256
MOST_CHARS = 1 << 24
"""The longest document that is cleaned. It is in memory as a whole, several times."""
COMPARED_CHARS = 1 << 20
SMALL_BYTES = 1 << 22
"""Sources of fewer bytes are cleaned in this process: others take some seconds to start."""


@dataclass(frozen=True)
class Shard:
    """A finished shard of the first pass.

    Attributes:
        feed, split: of its documents.
        part, items: the part that its last document is of, and the documents and notes of that part up to there.
        read: the documents of the feed up to there.
        done: bytes of all feeds up to there.
        documents: those that passed.
        bytes: of their text.
    """

    feed: int
    split: Split | None
    part: int
    items: int
    read: int
    done: int
    documents: int
    bytes: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class _Document:
    """A document or a note of a feed; the fields up to `done` are as those of Shard. `text`: its beginning if `too_long`."""

    feed: int
    split: Split | None
    part: int
    items: int
    read: int
    done: int
    where: str
    text: str
    too_long: bool = False
    note: Note | None = None


def begun_request(partial: Path) -> dict[str, Any] | None:
    """The request that an unfinished cleaning is of; None where there is none."""
    path = partial / FOLDER / BEGUN
    return json.loads(path.read_text("utf-8"))["request"] if path.is_file() else None


def cleaned_feeds(
    partial: Path,
    request: dict[str, Any],
    settings: QualitySettings,
    open_feeds: Callable[[Sequence[Pin]], Sequence[Feed]],
    limit: int | None,
    workers: int,
    report: Report,
) -> tuple[Feed, ...]:
    """Clean the text of feeds, and give feeds of what stays. The same call continues after an interruption.

    Validation text of a source with its own is left as it is, and training text that copies it is dropped.

    Args:
        partial: the folder of unfinished work.
        request: the mapping of the request, by which the work is known again.
        open_feeds: opens the sources, with the pins of the first call.
        limit: the most documents of each feed that are read, validation text of its own aside.

    Raises:
        ValueError: nothing stays, or a source has changed since.
    """
    folder = partial / FOLDER
    begun = json.loads((folder / BEGUN).read_text("utf-8")) if (folder / BEGUN).is_file() else None
    saved = begun["feeds"] if begun else []
    feeds = tuple(
        open_feeds([Pin(tuple(Part(*part) for part in parts), revision, tuple(notes)) for parts, revision, notes in saved])
    )
    if begun is None:
        folder.mkdir(parents=True, exist_ok=True)
        decided = [[[astuple(part) for part in feed.parts], feed.revision, list(feed.notes)] for feed in feeds]
        write_json(folder / BEGUN, {"request": request, "feeds": decided})
    if sum(part.size for feed in feeds for part in feed.parts) < SMALL_BYTES and not any(feed.remote for feed in feeds):
        workers = 1
    index = make_index(settings, Words(settings.words)) if settings.benchmarks else None
    with CleanerPool(settings, index, workers) as pool:
        shards = _examine(folder / "passed", feeds, limit, pool, report)
        tally = Tally()
        for shard in shards:
            tally.add(shard.tally)
        if settings.dedup:
            sizes = _select(folder, shards, settings, pool, tally, report)
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
    content = {"settings": settings.mapping(), "versions": settings.versions(), "tally": tally.to_json()}
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
                yield note_piece(*row["note"], offset)
                continue
            offset += len(row["text"].encode())
            yield from split_document(row["text"], offset)

    return dataclasses.replace(feed, parts=parts, read=read, remote=False)


def _documents(feeds: Sequence[Feed], limit: int | None, last: Shard | None) -> Iterator[_Document]:
    """The documents and notes of feeds behind a shard, in order."""
    start = (last.feed, last.part) if last else (0, 0)
    before = 0
    for i, feed in enumerate(feeds):
        read = last.read if last and i == start[0] else 0
        for j, part in enumerate(feed.parts):
            if (i, j) >= start:
                skip = last.items if last and (i, j) == start else 0
                for document in _documents_of(feed, i, j, limit, read, before, skip):
                    read = document.read
                    yield document
            before += part.size


def _documents_of(
    feed: Feed, number: int, part: int, limit: int | None, read: int, before: int, skip: int
) -> Iterator[_Document]:
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
                yield _Document(number, info.split, part, items, read, done, piece.note.where, "", note=piece.note)
            continue
        if chars <= MOST_CHARS:
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
            yield _Document(number, info.split, part, items, read, done, where, text[:1000] if too_long else text, too_long)
            if most is not None and read >= most:
                return


def _batches(documents: Iterator[_Document]) -> Iterator[tuple[list[_Document], tuple[Any, ...]]]:
    """Documents of one feed and split, about a million characters, and the arguments of Cleaner.examine."""
    batch: list[_Document] = []
    chars = 0

    def made() -> tuple[list[_Document], tuple[Any, ...]]:
        return batch, ([each.text for each in batch if _is_examined(each)], batch[0].split != "val")

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


def _is_examined(document: _Document) -> bool:
    return document.note is None and not document.too_long


def _examine(folder: Path, feeds: Sequence[Feed], limit: int | None, pool: CleanerPool, report: Report) -> list[Shard]:
    """The first pass: every shard, those that were finished before included."""
    folder.mkdir(exist_ok=True)
    shards: list[Shard] = []
    while (path := folder / f"{len(shards):05}.json").is_file():
        raw = read_json(path)
        shards.append(Shard(**raw | {"tally": Tally.from_json(raw["tally"])}))
    if (folder / EXAMINED).is_file():
        return shards
    total = sum(part.size for feed in feeds for part in feed.parts)
    writer = _ShardWriter(folder, shards)
    documents = _documents(feeds, limit, shards[-1] if shards else None)
    for batch, results in pool.in_order("examine", _batches(documents)):
        examined = iter(results)
        for document in batch:
            writer.add(document, next(examined) if _is_examined(document) else None)
        report(PreparationProgress("cleaning", batch[-1].done, total))
    writer.end()
    write_json(folder / EXAMINED, {"shards": len(shards)})
    return shards


class _ShardWriter:
    """Writes the shards of the first pass, and appends them to `shards`."""

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        self.folder, self.shards = folder, shards
        self._begin()

    def _begin(self) -> None:
        self.tally, self.rows, self.examined = Tally(), list[dict[str, Any]](), list[Examined]()
        self.chars = self.bytes = 0
        self.last: _Document | None = None

    def add(self, document: _Document, examined: Examined | None) -> None:
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
        example = Example(document.where, shortened(document.text))
        if examined is None:
            self.tally.drop(f"longer than {MOST_CHARS:,} characters", size, example)
        elif examined.text is None:
            self.tally.drop(examined.reason, size, dataclasses.replace(example, detail=examined.detail))
        else:
            for step, removed, before in examined.changes:
                changed = Example(document.where, shortened(examined.text), other=before)
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
            bands=np.array([np.zeros(bands, np.uint64) if each is None else each.bands for each in signatures], np.uint64).reshape(-1, bands),
            sentences=np.concatenate([np.zeros(0, SENTENCE), *spans]),
        )  # fmt: skip
        write_bytes(path, content.getvalue())


def _select(
    folder: Path, shards: Sequence[Shard], settings: QualitySettings, pool: CleanerPool, tally: Tally, report: Report
) -> list[int]:
    """The second and third pass. Returns the bytes of each shard that stay, and adds what was dropped to the tally."""
    report(PreparationProgress("finding copies", 0, None))
    starts = np.cumsum([0, *(shard.documents for shard in shards)])
    validation = np.repeat([shard.split == "val" for shard in shards], np.diff(starts)).astype(bool)
    rank = np.empty(len(validation), np.int64)
    rank[np.argsort(~validation, kind="stable")] = np.arange(len(validation))
    copies, first = _find_copies(folder / "passed", len(shards), settings, rank)
    copies[validation] = 0
    spans = _find_repeated(folder / "passed", starts, copies, validation, rank) if "sentence" in settings.dedup else {}
    (folder / "kept").mkdir(exist_ok=True)

    def tasks() -> Iterator[tuple[int, tuple[Selection]]]:
        for i, shard in enumerate(shards):
            if (folder / "kept" / f"{i:05}.json").is_file():
                continue
            inside = {
                doc - int(starts[i]): spans[doc] for doc in range(int(starts[i]), int(starts[i + 1])) if doc in spans
            }
            source, target = folder / "passed" / f"{i:05}{ROWS}", folder / "kept" / f"{i:05}"
            chosen = Selection(source, target, copies[starts[i] : starts[i + 1]], inside)
            yield i, (chosen,)

    for i, _ in pool.in_order("select", tasks()):
        report(PreparationProgress("removing copies", i + 1, len(shards)))
    counts = [read_json(folder / "kept" / f"{i:05}.json") for i in range(len(shards))]
    for count in counts:
        tally.add(Tally.from_json(count["tally"]))
    for number, reason in enumerate(COPIES):
        if reason in tally.dropped:
            chosen = np.flatnonzero(copies == number)[:EXAMPLES]
            pairs = [(int(doc), int(first[doc])) for doc in chosen]
            tally.dropped[reason].examples = _copy_examples(folder / "passed", starts, pairs, settings, number)
    return [count["bytes"] for count in counts]


def _find_copies(
    folder: Path, shards: int, settings: QualitySettings, rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each document the number of its reason in COPIES, and the document that it is a copy of."""

    def column(name: str, number: int | None = None) -> np.ndarray:
        blocks = []
        for i in range(shards):
            with np.load(folder / f"{i:05}.npz") as arrays:
                array = arrays[name]
                if number is None:
                    blocks.append(array)
                else:
                    blocks.append(array[:, number] if array.shape[1] else np.zeros(len(array), np.uint64))
        return np.concatenate([np.zeros(0, np.uint64), *blocks])

    documents = np.arange(len(rank))
    exact = column("exact")
    first = np.where(exact == 0, documents, first_of_equals(exact, rank))
    copies = (first != documents).astype(np.int8)
    if "minhash" in settings.dedup:
        bands = max((_bands(folder / f"{i:05}.npz") for i in range(shards)), default=0)
        columns = (column("bands", number) for number in range(bands))
        near = first_of_groups((keys for group in ((exact,), columns) for keys in group), rank)
        copies[(copies == 0) & (near != documents)] = 2
        first = np.where(copies == 2, near, first)
    return copies, first


def _bands(path: Path) -> int:
    with np.load(path) as arrays:
        return int(arrays["bands"].shape[1])


def _find_repeated(
    folder: Path, starts: np.ndarray, copies: np.ndarray, validation: np.ndarray, rank: np.ndarray
) -> dict[int, np.ndarray]:
    """Of each training document that stays and has repeated spans of sentences, the first sentence of each span."""
    blocks = []
    for i in range(len(starts) - 1):
        with np.load(folder / f"{i:05}.npz") as arrays:
            rows = arrays["sentences"]
        rows["doc"] += np.uint64(starts[i])
        blocks.append(rows[copies[rows["doc"]] == 0])
    rows = repeated_spans(blocks, rank)
    rows = rows[~validation[rows["doc"]]]
    rows = rows[np.lexsort((rows["sentence"], rows["doc"]))]
    documents, first = np.unique(rows["doc"], return_index=True)
    return {
        int(doc): rows["sentence"][start:stop]
        for doc, start, stop in zip(documents, first, [*first[1:], len(rows)])
    }


def _copy_examples(
    folder: Path, starts: np.ndarray, pairs: Sequence[tuple[int, int]], settings: QualitySettings, kind: int
) -> list[Example]:
    """Copies beside the documents that stay."""
    wanted = {doc for pair in pairs for doc in pair}
    found: dict[int, dict[str, Any]] = {}
    for shard in sorted({int(np.searchsorted(starts, doc, "right")) - 1 for doc in wanted}):
        rows = (row for row in read_rows(folder / f"{shard:05}{ROWS}") if "text" in row)
        for number, row in enumerate(rows, int(starts[shard])):
            if number in wanted:
                found[number] = row
    signer = Signer(("minhash",), Words(settings.words)) if COPIES[kind].startswith("minhash") else None
    examples = []
    for copy, original in pairs:
        a, b = found[copy], found[original]
        detail = ""
        if signer is not None:
            share = signer.similarity(a["text"][:COMPARED_CHARS], b["text"][:COMPARED_CHARS])
            detail = f"similarity {share:.2f}"
        examples.append(Example(a["where"], shortened(a["text"]), detail, shortened(b["text"]), b["where"]))
    return examples


def quality_summary(path: Path) -> dict[str, Any]:
    """The settings and counts of a quality.json without its examples, for the manifest."""
    content = read_json(path)
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


def remove_old(folder: Path, cleaned: bool) -> None:
    """Remove the page of earlier data, and unless the new text was cleaned its counts."""
    (folder / PAGE).unlink(missing_ok=True)
    if not cleaned:
        (folder / QUALITY).unlink(missing_ok=True)
