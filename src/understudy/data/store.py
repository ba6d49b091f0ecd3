"""A folder on a disk or in an object store, by path or by URL (s3://, gs://, hf://, memory://, … all that `fsspec` knows).

Files in it appear whole: on a disk by renaming, and an object store shows an object only once it was uploaded.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from understudy.data.fetch.download import UnavailableError
from understudy.files import locked, sha256_of, write_bytes

BLOCK_BYTES = 1 << 24
READ_AHEAD_BYTES = 1 << 23


def is_url(name: object) -> bool:
    return "://" in str(name)


def open_filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL, and the path there.

    Raises:
        ValueError: an unknown kind of store, or a library or credentials are missing.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ValueError(
            f"{url} needs a library that is not installed ({error}): pip install 'understudy[remote]'"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{url} is in no store that can be used ({error}): give a path, or a URL of s3, gs or hf"
        ) from error
    return filesystem, path


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Turn the errors of an object store into one sentence."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"{url} could not be used ({error}): check the address and the access, and try again"
        ) from error


class Store:
    """Files by their names, with slashes, below a folder. `path`: of the folder, if it is on the disk."""

    def __init__(self, folder: Path | str) -> None:
        self.url = str(folder).rstrip("/")
        self.path = None if is_url(folder) else Path(folder)
        if self.path is None:
            self.fs, self.root = open_filesystem(self.url)

    def __str__(self) -> str:
        return self.url

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            if self.path is not None:
                return (self.path / name).read_bytes()
            self.fs.invalidate_cache()  # others write here too
            with store_errors(self.url):
                return bytes(self.fs.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnavailableError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def write(self, name: str, content: bytes) -> None:
        if self.path is not None:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path / name, content)
            return
        with store_errors(self.url):
            self.fs.pipe_file(f"{self.root}/{name}", content)

    def names(self, folder: str) -> set[str]:
        """The names of all files below a folder, relative to it."""
        if self.path is not None:
            top = self.path / folder
            return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}
        self.fs.invalidate_cache()
        with store_errors(self.url):
            prefix = f"{self.root}/{folder}".rstrip("/") + "/"
            return {found.lstrip("/").removeprefix(prefix.lstrip("/")) for found in self.fs.find(prefix)}

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        if self.path is not None:
            with (self.path / name).open("rb") as file:
                yield file
            return
        with store_errors(f"{self.url}/{name}"), self.fs.open(f"{self.root}/{name}", "rb") as file:
            yield file

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        if self.path is not None:
            with (self.path / name).open("wb") as file:
                yield file
            return
        with store_errors(f"{self.url}/{name}"), self.fs.open(f"{self.root}/{name}", "wb") as file:
            yield file

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file to its name in an object store."""
        assert self.path is None, "only an object store needs uploads"
        with store_errors(self.url):
            self.fs.put_file(str(file), f"{self.root}/{name}")

    def download(self, name: str, file: Path) -> None:
        """Copy a file to the disk, where it appears whole."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        with self.reader(name) as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
        partial.replace(file)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        if self.path is not None:
            path = self.path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return
        self.fs.invalidate_cache()
        with store_errors(self.url):
            if self.fs.exists(f"{self.root}/{name}"):
                self.fs.rm(f"{self.root}/{name}", recursive=True)

    def workplace(self, cache: Path) -> Path:
        """A folder on the disk for work on the files of this store: the store itself, if it is on the disk."""
        return self.path or cache / "stores" / hashlib.sha256(self.url.encode()).hexdigest()[:16]


def fetched_folder(url: str, cache: Path, names: dict[str, str | None], kept: Sequence[str] = ()) -> Path:
    """A copy, on the disk, of files in an object store, fetched once. Other files of the copy, of earlier data, are
    removed.

    Several processes of a machine fetch once together: the first does, and the others wait.

    Args:
        names: of the files, each with its SHA-256, or None where nobody knows it.
        kept: names of the caller's own files and folders in the copy.

    Raises:
        UnavailableError: the store cannot be reached.
        ValueError: a file is not there, or has another checksum.
    """
    store = Store(url)
    folder = store.workplace(cache) / "data"
    with locked(folder, "cache", wait=True):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.removesuffix(".sha256") not in (*names, *kept) and not path.name.startswith("."):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, sha256 in names.items():
            file, pin = folder / name, folder / f"{name}.sha256"
            if sha256 is not None and file.is_file() and pin.is_file() and pin.read_text("ascii") == sha256:
                continue
            pin.unlink(missing_ok=True)
            store.download(name, file)
            if sha256 is None:
                continue
            if (actual := sha256_of(file)) != sha256:
                file.unlink()
                raise ValueError(
                    f"{url}/{name} has the SHA-256 {actual[:12]}… where its manifest says {sha256[:12]}…: it was changed or "
                    "damaged; prepare the data again"
                )
            write_bytes(pin, sha256.encode())
    return folder
