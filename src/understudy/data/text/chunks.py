"""Token files that stay in an object store and are read in chunks while training.

A chunk has 64 KiB. Beside a large token file lies SPLIT.chunks with an 8-byte digest of each of its chunks, so that a part
of the file can be checked without the rest. Fetched chunks are kept as files of a folder on the disk, up to a limit. They
appear there by renaming, so that any number of processes may share the folder: the worst that two of them can do is to
fetch a chunk twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.fetch.download import UnavailableError
from understudy.data.store import BLOCK_BYTES, open_filesystem, store_errors

CHUNK_BYTES = 1 << 16
WHOLE_BYTES = 1 << 26
"""A token file of at most so many bytes has no digests, and is fetched whole."""
DIGEST_BYTES = 8
MOST_CACHE_BYTES = 1 << 36
FREE_SHARE = 0.5
"""The most of the free disk that fetched chunks may take."""
SEQUENTIAL_CHUNKS = 16
"""Chunks that are fetched at once where a text is read from its beginning to its end."""
MOST_RANGE_CHUNKS = 128
REQUESTS_AT_ONCE = 16
PAUSES_SECONDS = (1.0, 5.0, 20.0)
"""Before a failed request is tried again."""


def chunks_name(split: str) -> str:
    """The name of the file with the digests of a split."""
    return f"{split}.chunks"


class ChunkDigests:
    """The digests of a file that is written or read block after block."""

    def __init__(self) -> None:
        self._done: list[bytes] = []
        self._pending = b""
        self._size = 0

    def update(self, block: bytes) -> None:
        self._size += len(block)
        data = self._pending + block if self._pending else block
        end = len(data) // CHUNK_BYTES * CHUNK_BYTES
        self._done += [_digest(data[start : start + CHUNK_BYTES]) for start in range(0, end, CHUNK_BYTES)]
        self._pending = data[end:]

    def digests(self) -> bytes:
        """The digests of all chunks, DIGEST_BYTES each; nothing for a file of at most WHOLE_BYTES."""
        if self._size <= WHOLE_BYTES:
            return b""
        return b"".join([*self._done, *([_digest(self._pending)] if self._pending else [])])


def _digest(chunk: bytes) -> bytes:
    return hashlib.blake2b(chunk, digest_size=DIGEST_BYTES).digest()


def file_digests(file: Path) -> bytes:
    """The digests of a file on the disk."""
    if file.stat().st_size <= WHOLE_BYTES:
        return b""
    digests = ChunkDigests()
    with file.open("rb") as source:
        while block := source.read(BLOCK_BYTES):
            digests.update(block)
    return digests.digests()


class ChunkedTokens:
    """A token file in an object store, read like a memory map of shape (N,).

    A slice of all of it is this object, which costs nothing; another slice, without a step, is an array.

    Args:
        url: of the token file.
        dtype: of a token.
        count: tokens in it.
        digests: of its chunks, as ChunkDigests gives them.
        folder: where fetched chunks are kept.
        most_bytes: that they may take; by default MOST_CACHE_BYTES, and at most half of the free disk.

    Attributes:
        fetched_bytes: bytes that this object has fetched.

    Raises:
        UnavailableError: when read, the store cannot be reached.
        ValueError: when read, a chunk has another digest.
    """

    def __init__(
        self, url: str, dtype: np.dtype, count: int, digests: bytes, folder: Path, most_bytes: int | None = None
    ) -> None:
        self.url, self.dtype, self.count, self.digests, self.folder = url, dtype, count, digests, folder
        self.fetched_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        free = int(shutil.disk_usage(folder).free * FREE_SHARE)
        self._stored = sum(size for _, size, _ in _stored_chunks(folder))
        self._most = most_bytes if most_bytes is not None else min(MOST_CACHE_BYTES, free + self._stored)
        self._filesystem, self._path = open_filesystem(url)
        self._fetching = threading.Lock()

    @property
    def shape(self) -> tuple[int]:
        return (self.count,)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice, /) -> Any:
        start, stop, step = part.indices(self.count)
        assert step == 1, "tokens are read one after another"
        return self if (start, stop) == (0, self.count) else self._load(start, stop)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All tokens, in memory."""
        return self._load(0, self.count).astype(dtype or self.dtype)

    def _load(self, start: int, stop: int) -> np.ndarray:
        first, last = self._chunks_of(start, stop)
        chunks: dict[int, bytes] = {}
        for number in range(first, last):
            content = self._read(number)
            if content is None:
                if number not in chunks:
                    chunks |= self._fetch(range(number, max(last, number + SEQUENTIAL_CHUNKS)))
                content = chunks[number]
            chunks[number] = content
        joined = b"".join(chunks[number] for number in range(first, last))
        offset = start * self.dtype.itemsize - first * CHUNK_BYTES
        return np.frombuffer(joined, self.dtype, max(0, stop - start), offset)

    def prefetch(self, starts: np.ndarray, length: int) -> None:
        """Fetch what the rows of `length` tokens from `starts` (N,) on need and is not there yet."""
        needed: set[int] = set()
        for start in starts.tolist():
            needed.update(range(*self._chunks_of(start, min(start + length, self.count))))
        missing = [number for number in sorted(needed) if not self._file(number).exists()]
        if missing:
            self._fetch(missing)

    def _chunks_of(self, start: int, stop: int) -> tuple[int, int]:
        """The first chunk of a part, and the one after its last."""
        size = self.dtype.itemsize
        return start * size // CHUNK_BYTES, -(-stop * size // CHUNK_BYTES)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number >> 10:05x}" / f"{number:08x}"

    def _digest_of(self, number: int) -> bytes:
        return self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]

    def _read(self, number: int) -> bytes | None:
        """A chunk that is on the disk and whole."""
        try:
            content = self._file(number).read_bytes()
        except FileNotFoundError:
            return None
        return content if _digest(content) == self._digest_of(number) else None

    def _fetch(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Chunks from the store, which are then on the disk too."""
        total = -(-self.count * self.dtype.itemsize // CHUNK_BYTES)
        with self._fetching:
            chunks: dict[int, bytes] = {}
            for number in numbers:
                if number < total and (content := self._read(number)) is not None:  # another thread was faster
                    chunks[number] = content
            ranges = list(_ranges([number for number in numbers if number < total and number not in chunks]))
            for (first, last), content in zip(ranges, self._download(ranges)):
                view = memoryview(content)
                for number in range(first, last):
                    chunk = bytes(view[(number - first) * CHUNK_BYTES : (number - first + 1) * CHUNK_BYTES])
                    if _digest(chunk) != self._digest_of(number):
                        raise ValueError(
                            f"{self.url} is damaged or was replaced since training began (chunk {number:,} has another "
                            "digest than its folder says): prepare the data again, and begin a new run"
                        )
                    self._keep(number, chunk)
                    chunks[number] = chunk
            if self._stored > self._most:
                self._evict()
        return chunks

    def _download(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of ranges of chunks. A request that fails is tried again."""
        size = self.count * self.dtype.itemsize
        starts = [first * CHUNK_BYTES for first, _ in ranges]
        stops = [min(last * CHUNK_BYTES, size) for _, last in ranges]
        for pause in (*PAUSES_SECONDS, None):
            try:
                with store_errors(self.url):
                    contents = self._request(starts, stops)
                break
            except UnavailableError:
                if pause is None:
                    raise
                time.sleep(pause)
        self.fetched_bytes += sum(map(len, contents))
        return contents

    def _request(self, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
        if self._filesystem.async_impl:
            return list(self._filesystem.cat_ranges([self._path] * len(starts), starts, stops, on_error="raise"))
        if len(starts) == 1:
            return [self._filesystem.cat_file(self._path, starts[0], stops[0])]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE, "fetch") as pool:
            return list(pool.map(lambda start, stop: self._filesystem.cat_file(self._path, start, stop), starts, stops))

    def _keep(self, number: int, chunk: bytes) -> None:
        """Write a chunk to the disk. A full disk is none of training's business: the chunk is fetched again."""
        file = self._file(number)
        partial = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            file.parent.mkdir(exist_ok=True)
            partial.write_bytes(chunk)
            partial.replace(file)
            self._stored += len(chunk)
        except OSError:
            partial.unlink(missing_ok=True)

    def _evict(self) -> None:
        """Remove the chunks that were fetched first, until a tenth of the room is free."""
        stored = sorted(_stored_chunks(self.folder))
        self._stored = sum(size for _, size, _ in stored)
        for _, size, path in stored:
            if self._stored <= 0.9 * self._most:
                break
            Path(path).unlink(missing_ok=True)
            self._stored -= size


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring chunks as ranges: the first, and the one after the last."""
    first = last = -1
    for number in numbers:
        if number == last and last - first < MOST_RANGE_CHUNKS:
            last += 1
            continue
        if last > first:
            yield first, last
        first, last = number, number + 1
    if last > first:
        yield first, last


def _stored_chunks(folder: Path) -> Iterator[tuple[float, int, str]]:
    """The time, size and path of every chunk on the disk."""
    for group in os.scandir(folder):
        for entry in os.scandir(group.path) if group.is_dir() else ():
            try:
                about = entry.stat()
            except FileNotFoundError:  # another process removed it
                continue
            yield about.st_mtime, about.st_size, entry.path
