"""Archives: each member is a file of its own. Nothing is written into folders, and links are not followed.

ZIP files are opened with their limits checked; DOCX and EPUB are such files too. What a member holds is left to records.py
and text/readers/.
"""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

from understudy.data.inputs import (
    BLOCK_BYTES,
    CARDS,
    FREE_GROWTH_BYTES,
    MOST_GROWTH,
    InputFile,
    StreamView,
    copy_limited,
    file_ending,
)
from understudy.data.records import READERS

ARCHIVE_ENDINGS = (".zip", ".tar")
MOST_MEMBERS = 1_000_000
MOST_DEPTH = 2
IN_MEMORY_BYTES = 1 << 23
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
ALIGNED = re.compile(r"\.[a-z]{2,3}(?:_\w+)?-[a-z]{2,3}(?:_\w+)?\.\w+$")


@dataclass(frozen=True)
class Member:
    """A file in an archive, which can be read until the next one is asked for; or the reason why it cannot be.

    Attributes:
        where: its path, for messages.
        problem: "" for a file that can be read; "skipped": about the data; "failed".
        reason: of a problem.
    """

    where: str
    offset: Callable[[], int]
    file: InputFile | None = None
    problem: Literal["", "skipped", "failed"] = ""
    reason: str = ""


def zip_members(file: InputFile) -> Iterator[Member]:
    """The files in a ZIP file.

    Raises:
        ValueError: it is damaged, or may not be read.
    """
    with open_zip(file) as archive:
        total, done = sum(member.compress_size for member in archive.infolist()) or 1, 0

        def offset() -> int:
            outer = file.outer_offset
            return outer() if outer else file.stored_bytes() * done // total

        members = [member for member in archive.infolist() if not member.is_dir() and not is_hidden(member.filename)]
        about = cards([member.filename for member in members])
        for member in members:
            name = member.filename
            if file.only is not None and name not in file.only:
                continue
            where = f"{file.where}: {name}"
            if name in about:
                yield Member(where, offset, problem="skipped", reason="dataset cards")
            elif member.flag_bits & 1:
                sentence = f"{where} is encrypted; unpack the archive with its password first"
                yield Member(where, offset, problem="failed", reason=sentence)
            else:
                yield _member(file, name, _zip_opener(archive, member, where), offset)
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


def tar_members(file: InputFile) -> Iterator[Member]:
    """The files in a tar file.

    Raises:
        ValueError: it is damaged, or may not be read.
    """
    with file.stream() as stream:

        def offset() -> int:
            return stream.offset

        with _tar_file(stream, file.where) as archive:
            for member in archive:
                check_member_name(member.name, file.where)
                content = None if member.issparse() or not member.isreg() else archive.extractfile(member)
                if content is None or is_hidden(member.name):
                    continue
                if file.only is not None and member.name not in file.only:
                    continue
                # A tar file is read once from its beginning to its end, and a member may be opened twice.
                with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as copy:
                    copy_limited(content, copy, f"{file.where}: {member.name}")
                    yield _member(file, member.name, _copy_opener(copy), offset)


@contextmanager
def _tar_file(stream: Any, where: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES, tarinfo=_CheckedMember) as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{where} is a damaged or cut-off tar file ({error}); fetch it again") from error


def member_names(file: InputFile) -> list[str]:
    """The names of the files in an archive, without hidden ones and those about the data. A tar file is read to its end.

    Raises:
        ValueError: it is damaged, or may not be read.
    """
    if file.ending == ".zip":
        with open_zip(file) as archive:
            names = [member.filename for member in archive.infolist() if not member.is_dir()]
    else:
        names = []
        with file.stream() as stream, _tar_file(stream, file.where) as archive:
            for member in archive:
                check_member_name(member.name, file.where)
                names += [member.name] if member.isreg() else []
    visible = [name for name in names if not is_hidden(name)]
    about = cards(visible)
    return [name for name in visible if name not in about]


def archive_members(file: InputFile) -> Iterator[Member]:
    """The files in an archive whose ending is one of ARCHIVE_ENDINGS."""
    return zip_members(file) if file.ending == ".zip" else tar_members(file)


def _copy_opener(copy: Any) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        copy.seek(0)
        return io.BufferedReader(StreamView(copy), BLOCK_BYTES)

    return opened


def _member(file: InputFile, name: str, opener: Callable[[], BinaryIO], offset: Callable[[], int]) -> Member:
    where = f"{file.where}: {name}"
    if file.depth >= MOST_DEPTH:
        sentence = f"{where} is in an archive in an archive in an archive; unpack it first"
        return Member(where, offset, problem="failed", reason=sentence)
    inner = InputFile(where, PurePosixPath(name).name, opener, outer_offset=offset, depth=file.depth + 1)
    return Member(where, offset, inner)


def cards(names: Sequence[str]) -> set[str]:
    """Files about the data (README, LICENSE) where all others are records, or aligned texts as OPUS packs them."""
    about = {name for name in names if PurePosixPath(name).name.split(".")[0].lower() in CARDS}
    data = [name for name in names if name not in about]
    return about if data and all(file_ending(name)[0] in READERS or ALIGNED.search(name) for name in data) else set()


def is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def check_member_name(name: str, where: str) -> None:
    """Refuse a member whose path leads out of its archive.

    Raises:
        ValueError: it does.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise ValueError(f"{where} holds a file whose path leads out of the archive ({name[:80]!r}); it is not read")


@contextmanager
def open_zip(file: InputFile) -> Iterator[zipfile.ZipFile]:
    """A ZIP file whose directory was checked.

    Raises:
        ValueError: it is damaged, a decompression bomb, or has paths that lead out of it.
    """
    with file.seekable() as raw, zip_errors(file.where), zipfile.ZipFile(raw) as archive:
        size = raw.seek(0, 2)
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"{file.where} has more than {MOST_MEMBERS:,} members, which is too many to read")
        for member in members:
            check_member_name(member.filename, file.where)
        unpacked = sum(member.file_size for member in members)
        overlap = sum(member.compress_size for member in members) > size
        if overlap or (unpacked > FREE_GROWTH_BYTES and unpacked > MOST_GROWTH * size):
            raise ValueError(
                f"{file.where} would grow to {unpacked:,} bytes, {unpacked // max(1, size):,} times its size, as a "
                "decompression bomb does; it is not read"
            )
        yield archive


@contextmanager
def zip_errors(where: str) -> Iterator[None]:
    """Turn the library's errors into one sentence."""
    try:
        yield
    except ZIP_ERRORS as error:
        if "password" in str(error) or "encrypted" in str(error):
            raise ValueError(f"{where} is encrypted; unpack it with its password first") from error
        raise ValueError(f"{where} is a damaged or cut-off zip file ({error}); fetch it again") from error
