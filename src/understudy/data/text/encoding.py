"""Divided text to token files: encoded on several threads, written in order, and resumable after a kill.

Everything is written under a folder named .partial. At the end of a source file, every 16 MB of text at most, the token
files are flushed to the disk, and a journal of their lengths is replaced. Bytes beyond these lengths are cut off when the
work resumes at the next source file, so that the final bytes are those of a run that was never interrupted. The text and
the tokenizer are chosen elsewhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
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
JOURNAL_BYTES = 1 << 24
JOURNAL = "progress.json"
HASHED_BYTES = 1 << 24
MOST_REASONS = 20
OTHER_REASONS = "other reasons"


@dataclass
class EncodingState:
    """Progress of an encoding: the next part of the feeds, and the counts of everything written up to there.

    `read`: the documents of this feed before that part. `notes`: of each kind of note the reasons, each with its number and
    the first place (for "failed" the first MOST_REASONS). `end_of_text_spelled`: how often the text itself spells the
    end-of-text token, which is plain text there.
    """

    feed: int = 0
    part: int = 0
    read: int = 0
    splits: dict[str, SplitInfo] = field(default_factory=lambda: {split: SplitInfo() for split in SPLITS})
    documents: list[int] = field(default_factory=list)
    empty_documents: int = 0
    text_bytes: int = 0
    end_of_text_spelled: int = 0
    notes: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def count(self, note: Note) -> None:
        reasons = self.notes.setdefault(note.kind, {})
        reason = note.reason if note.reason in reasons or len(reasons) < MOST_REASONS else OTHER_REASONS
        counted = reasons.setdefault(reason, [0, note.where])
        counted[0] += 1


@dataclass(frozen=True)
class Batch:
    """Items of one part of a feed, about a million characters of text.

    `done`: bytes of all feeds read so far. `read`: at the end of the part, the documents of the feed up to there.
    """

    feed: int
    part: int
    items: tuple[SplitItem, ...]
    done: int
    read: int | None = None


Encoded = tuple[Batch, list[np.ndarray], list[int]]
"""A batch, and of every text in it, in order, the token ids and the length in UTF-8 bytes."""


def batches(feeds: Sequence[Feed], rules: Sequence[Rule], limit: int | None, state: EncodingState) -> Iterator[Batch]:
    """All items from the next part on, in order."""
    start, documents, done = (state.feed, state.part), state.read, 0
    for i, (feed, rule) in enumerate(zip(feeds, rules)):
        for j, part in enumerate(feed.parts):
            if (i, j) >= start:
                items: list[SplitItem] = []
                chars = ended = 0
                for item in divide(feed, rule, j, limit, documents):
                    items.append(item)
                    chars += sum(len(text) for _, text, _ in item.texts)
                    ended += item.ends
                    if chars >= BATCH_CHARS or len(items) >= BATCH_ITEMS:
                        yield Batch(i, j, tuple(items), done + item.offset)
                        items, chars = [], 0
                documents += ended
                yield Batch(i, j, tuple(items), done + part.size, documents)
            done += part.size
        if i >= start[0]:
            documents = 0


def encode_in_order(source: Iterator[Batch], tokenizer: Tokenizer, workers: int) -> Iterator[Encoded]:
    """Encode batches on `workers` threads, in their order, with at most `workers` + 1 of them in memory.

    Threads and not processes, because the encoder lets go of the interpreter: of 185 ms for a million bytes with
    GPT-2's vocabulary about 20 hold it (two-core virtual machine), and processes cost as much time for each byte,
    a copy of the vocabulary each and seconds to start.
    """

    def encode(batch: Batch) -> Encoded:
        texts = [text for item in batch.items for _, text, _ in item.texts]
        return batch, tokenizer.encode_batch(texts, threads=1), [len(text.encode("utf-8")) for text in texts]

    pool = ThreadPoolExecutor(workers, "encode")
    waiting: deque[Future[Encoded]] = deque()
    try:
        for batch in source:
            waiting.append(pool.submit(encode, batch))
            if len(waiting) > workers:
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
        self.begins: set[str] = set(SPLITS)  # a document never goes on in the next part
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
            state.end_of_text_spelled += "".join(text for _, text, _ in item.texts).count(END_OF_TEXT)
            state.documents[batch.feed] += item.ends and not item.empty
            for split, _, ends in item.texts:
                ids, size = next(text)
                counts = state.splits[split]
                parts[split] += [self.prefix, ids] if split in self.begins else [ids]
                self.begins = self.begins | {split} if ends else self.begins - {split}
                counts.bytes += size
                state.text_bytes += size
                counts.documents += ends
                if ends and self.eot is not None:
                    parts[split].append(self.eot)
        for split, arrays in parts.items():
            if arrays:
                self._append(split, np.concatenate(arrays))
        if batch.read is not None:
            state.feed, state.part, state.read = batch.feed, batch.part + 1, batch.read
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
    raw = json.loads((folder / JOURNAL).read_text("utf-8"))
    return EncodingState(splits={split: SplitInfo(**counts) for split, counts in raw.pop("splits").items()}, **raw)
