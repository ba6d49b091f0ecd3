"""Atomic file writes, JSON files, hashes and the time for records."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"the file {path} is missing or damaged ({error}); restore it from a copy") from error
    if not isinstance(content, dict):
        raise ValueError(f"the file {path} does not hold a JSON object; restore it from a copy")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole: under a unique name, flushed, then renamed.

    Several processes may write the same file at once; the last one to finish remains.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        partial.write_bytes(content)
        flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_output_path(path: Path) -> None:
    """Refuse to replace anything but a regular file, such as a symbolic link, a folder or a pipe, by a ValueError."""
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise ValueError(f"{path} is no regular file; choose the name of a new or regular file for the output")


def check_new_lines_file(path: Path, option: str) -> None:
    """Refuse a path, given by a command-line ``option``, that is not the name of a new .jsonl file in a folder that
    exists, by a ValueError."""
    if path.suffix != ".jsonl" or os.path.lexists(path) or not path.absolute().parent.is_dir():
        raise ValueError(f"{option} {path} must be the name of a new .jsonl file in a folder that exists")


def now() -> str:
    """The present time for records, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def flush(path: Path) -> None:
    """Flush a file or folder to the disk. Windows cannot open folders and flushes renames by itself."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_text(text: str) -> str:
    """The SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path, option: str, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing into a folder, which is made if need be and removed again if it stays empty.

    The operating system frees the lock of a killed process.

    Args:
        option: the command-line option that names another folder, for the message.
        wait: until the others are done. All who lock this folder wait then, and the file of the lock stays.

    Raises:
        ValueError: another process holds the lock.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        holder = "another process"
        with contextlib.suppress(OSError):  # just released, or on Windows, where nobody reads a locked file
            holder = path.read_text(encoding="utf-8") or holder
        raise ValueError(f"{folder} is being written by {holder}; wait for it, or choose another {option}") from None
    with contextlib.suppress(OSError):  # Windows lets nobody write a locked file
        path.write_text(f"process {os.getpid()} on {platform.node()} since {now()}", encoding="utf-8")
    try:
        yield
    finally:
        if not wait:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # of a folder that is not empty
            folder.rmdir()
