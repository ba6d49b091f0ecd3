"""Archives: each member is read as a file of its own. Nothing is written into folders, and links are not followed."""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from understudy.data.inputs import BLOCK_BYTES, CARDS, InputFile, copy_limited, file_ending
from understudy.data.records import READERS
from understudy.data.text.documents import DocumentPiece, note_piece
from understudy.data.text.readers.base import ReadOptions
from understudy.data.text.readers.packages import check_member_name, open_zip, zip_errors

MOST_DEPTH = 2
IN_MEMORY_BYTES = 1 << 23
ALIGNED = re.compile(r"\.[a-z]{2,3}(?:_\w+)?-[a-z]{2,3}(?:_\w+)?\.\w+$")


def read_zip(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    with open_zip(file) as archive:
        total, done = sum(member.compress_size for member in archive.infolist()) or 1, 0

        def offset() -> int:
            outer = file.outer_offset
            return outer() if outer else file.stored_bytes() * done // total

        members = [member for member in archive.infolist() if not member.is_dir() and not is_hidden(member.filename)]
        about = cards([member.filename for member in members])
        for member in members:
            name = member.filename
            if name in about:
                yield note_piece("skipped", "dataset cards", f"{file.where}: {name}", offset())
            else:
                where = f"{file.where}: {name}"
                if member.flag_bits & 1:
                    sentence = f"{where} is encrypted; unpack the archive with its password first"
                    yield note_piece("failed", sentence, where, offset())
                else:
                    yield from _read(file, name, _zip_opener(archive, member, where), offset, options)
            done += member.compress_size


def _zip_opener(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> Callable[[], BinaryIO]:
    def opened() -> Any:
        with zip_errors(where):
            return archive.open(member)

    return opened


class _CheckedMember(tarfile.TarInfo):
    """A member whose damaged header is an error. The library takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _CheckedMember:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def read_tar(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    with file.stream() as stream:

        def offset() -> int:
            return stream.offset

        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES, tarinfo=_CheckedMember) as archive:
                for member in archive:
                    check_member_name(member.name, file.where)
                    content = None if member.issparse() or not member.isreg() else archive.extractfile(member)
                    if content is None or is_hidden(member.name):
                        continue
                    # A tar file is read once from its beginning to its end, and a member may be opened twice.
                    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as copy:
                        copy_limited(content, copy, f"{file.where}: {member.name}")
                        yield from _read(file, member.name, _copy_opener(copy), offset, options)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{file.where} is a damaged or cut-off tar file ({error}); fetch it again") from error


class _Shared(io.RawIOBase):
    """A view of an open file that leaves it open when it is closed."""

    def __init__(self, file: Any) -> None:
        self.file = file
        file.seek(0)

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _copy_opener(copy: Any) -> Callable[[], BinaryIO]:
    return lambda: io.BufferedReader(_Shared(copy), BLOCK_BYTES)


def _read(
    file: InputFile, name: str, opener: Callable[[], BinaryIO], offset: Callable[[], int], options: ReadOptions
) -> Iterator[DocumentPiece]:
    where = f"{file.where}: {name}"
    if file.depth >= MOST_DEPTH:
        yield note_piece(
            "failed", f"{where} is in an archive in an archive in an archive; unpack it first", where, offset()
        )
        return
    assert options.read_member is not None, "archives are read through reading.read_file"
    yield from options.read_member(
        InputFile(where, PurePosixPath(name).name, opener, outer_offset=offset, depth=file.depth + 1)
    )


def cards(names: Sequence[str]) -> set[str]:
    """Files about the data (README, LICENSE) where all others are records, or aligned texts as OPUS packs them."""
    about = {name for name in names if PurePosixPath(name).name.split(".")[0].lower() in CARDS}
    data = [name for name in names if name not in about]
    return about if data and all(file_ending(name)[0] in READERS or ALIGNED.search(name) for name in data) else set()


def is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
