"""Divided text to token files: encoded on several threads, written in order, and resumable after a kill.

After every 16 MB of text the token files are flushed to the disk, and a journal of their lengths is replaced. Bytes beyond
these lengths are cut off when the work resumes there, so that the final bytes are those of a run that was never
interrupted. The text, the tokenizer and the folder are chosen elsewhere, and so is the span of the text that is encoded:
the bytes of several spans, one after another, are those of the whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from understudy.data.layout import SPLITS
from understudy.data.sources import Feed
from understudy.data.text.documents import Note
from understudy.data.text.shards import SplitInfo, token_dtype
from understudy.data.text.splits import Rule, SplitItem, divide
from understudy.files import write_text
from understudy.tokenizer import END_OF_TEXT, Tokenizer

BATCH_CHARS = 1 << 20
BATCH_ITEMS = 4096
# More threads would wait for one another: see encode_in_order.
MOST_WORKERS = 8
JOURNAL_BYTES = 1 << 24
JOURNAL = "progress.json"
HASHED_BYTES = 1 << 24
MOST_REASONS = 20
OTHER_REASONS = "other reasons"


@dataclass
class EncodingState:
    """Progress of an encoding: its position in the feeds, and the counts of everything written up to there.

    `feed`, `part`: the position. `items`: those of this part that are done. `read`: the documents of this feed before the
    part. `notes`: of each kind of note the reasons, each with its number and the first place. `end_of_text_spelled`: how
    often the text itself spells the end-of-text token, which is plain text there.
    """

    feed: int = 0
    part: int = 0
    items: int = 0
    read: int = 0
    splits: dict[str, SplitInfo] = field(default_factory=lambda: {split: SplitInfo() for split in SPLITS})
    documents: list[int] = field(default_factory=list)
    empty_documents: int = 0
    text_bytes: int = 0
    end_of_text_spelled: int = 0
    notes: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def count(self, note: Note) -> None:
        self.notes.setdefault(note.kind, {}).setdefault(note.reason, [0, note.where])[0] += 1

    def add(self, following: EncodingState) -> None:
        """Add the counts of the span that follows."""
        for split, counts in following.splits.items():
            mine = self.splits[split]
            mine.tokens += counts.tokens
            mine.bytes += counts.bytes
            mine.documents += counts.documents
        self.documents = [mine + theirs for mine, theirs in zip(self.documents, following.documents)]
        self.empty_documents += following.empty_documents
        self.text_bytes += following.text_bytes
        self.end_of_text_spelled += following.end_of_text_spelled
        for kind, reasons in following.notes.items():
            for reason, (number, where) in reasons.items():
                self.notes.setdefault(kind, {}).setdefault(reason, [0, where])[0] += number

    def listed_notes(self) -> dict[str, dict[str, list[Any]]]:
        """The notes with the first MOST_REASONS reasons of each kind; the others are counted together."""
        listed: dict[str, dict[str, list[Any]]] = {}
        for kind, reasons in self.notes.items():
            named = listed[kind] = {}
            for reason, (number, where) in reasons.items():
                name = reason if len(named) < MOST_REASONS else OTHER_REASONS
                named.setdefault(name, [0, where])[0] += number
        return listed


def state_from_json(raw: dict[str, Any]) -> EncodingState:
    return EncodingState(**raw | {"splits": {split: SplitInfo(**counts) for split, counts in raw["splits"].items()}})


@dataclass(frozen=True)
class TaskSpan:
    """A share of the text: the pieces that end at a position from `start` on and before `stop`, in the units of the sizes
    of the parts (bytes of files, or generated records), over all feeds."""

    start: int = 0
    stop: float = math.inf

    def overlaps(self, first: int, last: int) -> bool:
        """Whether pieces at positions from `first` to `last` can be in it."""
        return first < self.stop and last >= self.start


def share(feeds: Sequence[Feed], task: int, tasks: int) -> TaskSpan:
    """The span of one of several tasks; together they are everything."""
    total = sum(part.size for feed in feeds for part in feed.parts)
    return TaskSpan(total * task // tasks, math.inf if task + 1 == tasks else total * (task + 1) // tasks)


@dataclass(frozen=True)
class Batch:
    """Items of one part of a feed, about a million characters of text.

    `position`: the values of feed, part, items and read in EncodingState once the batch is written. `done`: the position in
    the units of TaskSpan, for progress.
    """

    feed: int
    items: tuple[SplitItem, ...]
    position: tuple[int, int, int, int]
    done: int


Encoded = tuple[Batch, list[np.ndarray], list[int]]
"""A batch, and of every text in it, in order, the token ids and the length in UTF-8 bytes."""

WHOLE = TaskSpan()


def batches(
    feeds: Sequence[Feed],
    rules: Sequence[Rule],
    limit: int | None,
    state: EncodingState,
    span: TaskSpan = WHOLE,
    documents_before: Sequence[Sequence[int]] | None = None,
) -> Iterator[Batch]:
    """All items of a span from the position of `state` on, in order.

    A part is read from its beginning also where the span begins inside it, because its pieces depend on one another.

    Args:
        documents_before: the documents of the feed before each part, which a limit counts; None where it is all read.
    """
    first = 0
    for i, (feed, rule) in enumerate(zip(feeds, rules)):
        documents = state.read if i == state.feed else 0
        for j, part in enumerate(feed.parts):
            last = first + max(part.size, 1) - 1
            if (i, j) >= (state.feed, state.part) and span.overlaps(first, last):
                if documents_before is not None:
                    documents = documents_before[i][j]
                done = state.items if (i, j) == (state.feed, state.part) else 0
                items: list[SplitItem] = []
                chars = ended = 0
                position = first
                for number, item in enumerate(divide(feed, rule, j, limit, documents)):
                    position = max(position, min(first + item.offset, last))
                    if position >= span.stop:
                        break
                    ended += item.ends
                    if number < done or position < span.start:
                        continue
                    items.append(item)
                    chars += sum(len(text.text) for text in item.texts)
                    if chars >= BATCH_CHARS or len(items) >= BATCH_ITEMS:
                        yield Batch(i, tuple(items), (i, j, number + 1, documents), position)
                        items, chars = [], 0
                documents += ended
                yield Batch(i, tuple(items), (i, j + 1, 0, documents), first + part.size)
            first += part.size


def encode_in_order(source: Iterator[Batch], tokenizer: Tokenizer, workers: int) -> Iterator[Encoded]:
    """Encode batches on `workers` threads, in their order, with at most 2 * `workers` + 1 of them in memory.

    Threads and not processes, because the encoder lets go of the interpreter while it works, and a process costs a copy
    of the vocabulary and seconds to start.
    """

    def encode(batch: Batch) -> Encoded:
        texts = [text.text for item in batch.items for text in item.texts]
        return batch, tokenizer.encode_batch(texts, threads=1), [len(text.encode("utf-8")) for text in texts]

    pool = ThreadPoolExecutor(workers, "encode")
    waiting: deque[Future[Encoded]] = deque()
    try:
        for batch in source:
            waiting.append(pool.submit(encode, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class TokenWriter:
    """The two token files of a folder and their journal. Use as a context; `eot_id` ends every document, and `prefix_ids`
    begin it.

    `hashes`: the SHA-256 of each file as it was written.
    """

    def __init__(
        self, folder: Path, vocab_size: int, eot_id: int | None, state: EncodingState, prefix_ids: Sequence[int] = ()
    ) -> None:
        self.folder = folder
        self.vocab_size = vocab_size
        self.dtype = token_dtype(vocab_size)
        self.prefix = np.array(prefix_ids, dtype=np.uint32)
        self.eot = None if eot_id is None else np.array([eot_id], dtype=np.uint32)
        self.state = state
        self.files: dict[str, BinaryIO] = {}
        self.hashes: dict[str, Any] = {split: hashlib.sha256() for split in SPLITS}
        self.journaled_bytes = state.text_bytes

    def __enter__(self) -> TokenWriter:
        for split in SPLITS:
            file = self.files[split] = (self.folder / f"{split}.bin").open("ab+")
            good = self.state.splits[split].tokens * self.dtype.itemsize
            if file.tell() < good:
                raise ValueError(f"{file.name} lost bytes since it was written: run the same command to begin anew")
            file.truncate(good)
            file.seek(0)
            while block := file.read(HASHED_BYTES):
                self.hashes[split].update(block)
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self.files.values():
            file.close()

    def add(self, encoded: Encoded) -> None:
        """Append one batch; it counts once it is journaled."""
        state, (batch, ids_of_texts, sizes) = self.state, encoded
        parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        text = iter(zip(ids_of_texts, sizes))
        for item in batch.items:
            state.empty_documents += item.empty
            if item.note is not None:
                state.count(item.note)
            state.end_of_text_spelled += "".join(text.text for text in item.texts).count(END_OF_TEXT)
            state.documents[batch.feed] += item.ends and not item.empty
            for split, _, begins, ends in item.texts:
                ids, size = next(text)
                counts = state.splits[split]
                parts[split] += [self.prefix, ids] if begins else [ids]
                counts.bytes += size
                state.text_bytes += size
                counts.documents += ends
                if ends and self.eot is not None:
                    parts[split].append(self.eot)
        for split, arrays in parts.items():
            if arrays:
                self._append(split, np.concatenate(arrays))
        state.feed, state.part, state.items, state.read = batch.position
        if state.text_bytes - self.journaled_bytes >= JOURNAL_BYTES:
            self.commit()

    def _append(self, split: str, ids: np.ndarray) -> None:
        if not len(ids):
            return
        assert int(ids.max()) < self.vocab_size, f"token {ids.max()} in a vocabulary of {self.vocab_size}"
        content = ids.astype(self.dtype).tobytes()
        self.files[split].write(content)
        self.hashes[split].update(content)
        self.state.splits[split].tokens += len(ids)

    def commit(self) -> None:
        """Make everything so far last: first the tokens, then the journal that vouches for them."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        write_text(self.folder / JOURNAL, json.dumps(dataclasses.asdict(self.state)))
        self.journaled_bytes = self.state.text_bytes


def read_state(folder: Path, feeds: int) -> EncodingState:
    """The journal of an interrupted run; the beginning where there is none yet."""
    if not (folder / JOURNAL).is_file():
        return EncodingState(documents=[0] * feeds)
    return state_from_json(json.loads((folder / JOURNAL).read_text("utf-8")))
