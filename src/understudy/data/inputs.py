"""Files as streams of bytes: on the disk or inside an archive, decompressed, with limits that bound the memory.

A new compression is one row of COMPRESSIONS. What the bytes mean is left to records.py and text/readers/.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

BLOCK_BYTES = 1 << 20
HEAD_BYTES = 1 << 14
MOST_GROWTH = 200
FREE_GROWTH_BYTES = 1 << 26
"""Decompressed bytes before MOST_GROWTH is looked at: a small file of one repeated line is no attack."""
CARDS = ("readme", "license", "licence", "copying", "citation", "notice", "authors", "changelog", "contributing")
"""Names, without their endings, of files about a dataset that lie beside its data."""
XZ_MEMORY_BYTES = 1 << 28
SPOOLED_BYTES = 1 << 31


class _XzReader:
    """The streams of an .xz file, one after another. lzma.LZMAFile has no limit of memory."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self.decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)

    def read(self, size: int) -> bytes:
        while True:
            block = b""
            if self.decoder.eof:
                while not (block := (block or self.decoder.unused_data).lstrip(b"\0")):
                    if not (block := self.raw.read(1 << 16)):
                        return b""
                self.decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)
            elif self.decoder.needs_input and not (block := self.raw.read(1 << 16)):
                raise EOFError("it ends before its end mark")
            if data := self.decoder.decompress(block, size):
                return data


def _open_zst(raw: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")


class Compression(NamedTuple):
    """`magic`: the bytes that such a file begins with."""

    name: str
    magic: bytes
    open: Callable[[BinaryIO], Any]


COMPRESSIONS = {
    ".gz": Compression("gzip", b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    ".xz": Compression("xz", b"\xfd7zXZ\0", _XzReader),
    ".bz2": Compression("bz2", b"BZh", bz2.BZ2File),
    ".zst": Compression("zst", b"\x28\xb5\x2f\xfd", _open_zst),
}
TAR_ENDINGS = {".tgz": ".gz", ".txz": ".xz", ".tbz2": ".bz2", ".tbz": ".bz2", ".tzst": ".zst"}
DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError)


def file_ending(path: Path | PurePosixPath | str) -> tuple[str, str]:
    """The ending that names the file's format, and the one of its compression or "": (".jsonl", ".gz").

    A file without an ending gives its name.
    """
    path = PurePosixPath(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in TAR_ENDINGS:
        return ".tar", TAR_ENDINGS[suffixes[-1]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes else path.name.lower()), compression


@dataclass(frozen=True)
class InputFile:
    """A file that can be read several times: of the disk, or a member of an archive.

    Attributes:
        where: its path, for messages; of a member "ARCHIVE: MEMBER".
        name: the name that tells its kind.
        open_raw: opens the bytes as they are stored.
        outer_offset: of a member, the bytes of the archive on disk read so far.
        depth: the number of archives around it.
        path: of a file on the disk.
        size: of a file in an object store, in bytes.
        only: of an archive, the members that are read; None for all.
        remarks: of records, what the decoding of the text changed, once they were read.
    """

    where: str
    name: str
    open_raw: Callable[[], BinaryIO]
    outer_offset: Callable[[], int] | None = None
    depth: int = 0
    path: Path | None = None
    size: int = 0
    only: frozenset[str] | None = None
    remarks: list[str] = field(default_factory=list, compare=False)

    def stored_bytes(self) -> int:
        """The size of a file as it is stored; of a member of an archive 0."""
        return self.path.stat().st_size if self.path else self.size

    @classmethod
    def at(cls, path: Path, only: frozenset[str] | None = None) -> InputFile:
        return cls(str(path), path.name, lambda: path.open("rb"), path=path, only=only)

    @property
    def ending(self) -> str:
        return file_ending(self.name)[0]

    @contextmanager
    def stream(self) -> Iterator[ByteStream]:
        with self.open_raw() as raw:
            yield ByteStream(self, raw)

    @contextmanager
    def seekable(self) -> Iterator[BinaryIO]:
        """The decompressed bytes as a file with random access, in a temporary file if need be.

        Raises:
            ValueError: more than SPOOLED_BYTES would have to be unpacked.
        """
        if (self.path is not None or self.size) and not self.is_compressed():
            with self.open_raw() as raw:
                yield raw
            return
        with tempfile.TemporaryFile() as file:
            with self.stream() as stream:
                copy_limited(stream, file, self.where)
            file.seek(0)
            yield file

    def is_compressed(self) -> bool:
        with self.open_raw() as raw, damage_as_sentence(self.where):
            return bool(compression_of(self.name, raw.read(8)))

    def head(self) -> bytes:
        """The first decompressed bytes, HEAD_BYTES at most."""
        with self.stream() as stream:
            return stream.read(HEAD_BYTES)


def compression_of(name: str, head: bytes) -> str:
    """The ending of the compression that a file's name or else its first bytes tell; "" for none."""
    ending = file_ending(name)[1]
    return ending or next((ending for ending, row in COMPRESSIONS.items() if head.startswith(row.magic)), "")


def copy_limited(source: Any, target: Any, where: str) -> int:
    """Copy a stream to a file, SPOOLED_BYTES at most, and return the number of bytes.

    Raises:
        ValueError: there are more.
    """
    size = 0
    while block := source.read(BLOCK_BYTES):
        if (size := size + len(block)) > SPOOLED_BYTES:
            raise ValueError(
                f"{where} is larger than {SPOOLED_BYTES >> 30} GiB unpacked, and such a file must be unpacked whole to "
                "be read: unpack it first"
            )
        target.write(block)
    return size


@contextmanager
def damage_as_sentence(where: str, kind: str = "archived") -> Iterator[None]:
    """Turn the errors of a damaged file into one sentence. `kind`: the name of its compression."""
    try:
        yield
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; damage has no number
            raise
        raise ValueError(f"{where} is a damaged or cut-off {kind} file ({error}); fetch it again") from error


class StreamView(io.RawIOBase):
    """A view of an open stream that leaves it open when it is closed."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self.stream.tell())


class ByteStream(io.RawIOBase):
    """The bytes of a file, decompressed; `offset` counts bytes of the file on disk.

    Raises:
        ValueError: when read, the file is damaged, or grows to more than MOST_GROWTH times its size.
    """

    def __init__(self, file: InputFile, raw: BinaryIO) -> None:
        self.file = file
        self.raw = raw
        with damage_as_sentence(file.where):
            head = raw.read(8)
            raw.seek(0)
        self.compression = compression_of(file.name, head)
        self.bytes: Any = COMPRESSIONS[self.compression].open(raw) if self.compression else raw
        self.size = self._position = 0

    @property
    def offset(self) -> int:
        return self.file.outer_offset() if self.file.outer_offset else self._position

    def read(self, size: int = -1) -> bytes:
        with damage_as_sentence(
            self.file.where, COMPRESSIONS[self.compression].name if self.compression else "archived"
        ):
            data = self.bytes.read(size)
            self._position = self.raw.tell()  # not at each record: a call of the system that lets go of the interpreter
        self.size += len(data)
        if self.compression and self.size > FREE_GROWTH_BYTES and self.size > MOST_GROWTH * max(1, self._position):
            raise ValueError(
                f"{self.file.where} grows to more than {MOST_GROWTH} times its size when it is unpacked, as a "
                "decompression bomb does; it is not read"
            )
        return data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_limited(self, most: int, what: str) -> bytes:
        """The whole content, held in memory.

        Raises:
            ValueError: it is longer than `most` bytes.
        """
        blocks, size = [], 0
        while block := self.read(BLOCK_BYTES):
            blocks.append(block)
            if (size := size + len(block)) > most:
                raise ValueError(
                    f"{self.file.where} is {what} of more than {most >> 20} MiB, which is too large to read"
                )
        return b"".join(blocks)

    def lines(self, most: int) -> Iterator[bytes]:
        """Lines with their ends. Of a longer line the first `most` + 1 bytes are given, and the rest is passed over."""
        buffered = io.BufferedReader(self, BLOCK_BYTES)
        while line := buffered.readline(most + 1):
            yield line
            rest = line
            while len(rest) > 0 and not rest.endswith(b"\n"):
                rest = buffered.readline(BLOCK_BYTES)
