"""ZIP files as containers: opened with their limits checked. DOCX and EPUB are such files too."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from understudy.data.inputs import FREE_GROWTH_BYTES, MOST_GROWTH, InputFile

MOST_MEMBERS = 1_000_000
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


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
