"""One URL to one file: checked, retried, resumed. It fetches and knows nothing of what the file holds.

While it runs, the bytes lie in NAME.part and what the server said of them in NAME.part.json; both go when the
file is whole. A file without a published checksum is pinned by the one first seen, kept in NAME.sha256.
"""

from __future__ import annotations

import errno
import http.client
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from understudy.files import sha256_of

BLOCK_BYTES = 1 << 20
ATTEMPTS = 6
TIMEOUT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 30.0
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


class UnavailableError(ValueError):
    """What cannot be done now but may be later, such as a network away or a disk full: nothing done is
    lost."""


class _TransientError(Exception):
    """A transfer that broke off and is worth another attempt."""


@dataclass(frozen=True)
class Fetched:
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Known:
    """What an earlier attempt learned of the file that NAME.part is the beginning of."""

    url: str
    validator: str | None
    total: int | None


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    attempts: int = ATTEMPTS,
    timeout_seconds: float = TIMEOUT_SECONDS,
    wait: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Fetch `url` into `target`, which appears only whole and checked; a good file already there is kept.

    A transfer that breaks off goes on where it stopped, `attempts` times in a row without progress, waiting
    1, 2, 4, ... seconds between. `progress(done_bytes, total_bytes or None)` is called after every block.

    Raises:
        UnavailableError: the server cannot be reached or keeps failing, or the disk is full.
        ValueError: the server refuses the file, or its checksum is wrong (the file is then removed).
    """
    pin = target.with_name(target.name + ".sha256")
    expected = sha256 or (pin.read_text("ascii").strip() if pin.is_file() else None)
    if target.is_file():
        seen = sha256_of(target)
        if expected in (None, seen):
            return Fetched(target, target.stat().st_size, seen)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _with_retries(url, part, progress or (lambda done, total: None), attempts, timeout_seconds, wait)
        seen = sha256_of(part)
        if expected not in (None, seen):
            part.unlink()
            since = "published" if sha256 else "seen at the first download"
            raise ValueError(
                f"{url} is not the file it should be: its sha256 is {seen}, the one {since} is {expected}; "
                "it was removed: try again, and if it repeats the file has changed at its source"
            )
        if sha256 is None:
            pin.write_text(seen + "\n", "ascii")
        part.replace(target)
    except OSError as problem:
        raise disk_problem(problem, target.parent) from problem
    return Fetched(target, target.stat().st_size, seen)


def disk_problem(problem: OSError, folder: Path) -> ValueError:
    """What to tell the user when reading or writing in `folder` failed."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnavailableError(
            f"the disk is full: {folder} could not be written; free some space and run the same command "
            "again, it goes on from where it stopped"
        )
    return ValueError(f"{problem.filename or folder} could not be used: {problem.strerror or problem}")


def _with_retries(
    url: str,
    part: Path,
    progress: Callable[[int, int | None], None],
    attempts: int,
    timeout_seconds: float,
    wait: Callable[[float], None],
) -> None:
    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(url, part, progress, timeout_seconds)
            _state(part).unlink(missing_ok=True)
            return
        except _TransientError as problem:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= attempts:
                raise UnavailableError(
                    f"{url} could not be fetched after {attempts} attempts ({problem}); run the same command "
                    "again later, or fetch the file by other means and give its path instead"
                ) from problem
            wait(min(2.0 ** (failures - 1), LONGEST_WAIT_SECONDS))


def _transfer(url: str, part: Path, progress: Callable[[int, int | None], None], timeout_seconds: float) -> None:
    """One attempt: leaves `part` whole, or raises with as much of it as came."""
    known = _read_state(part, url)
    have = _size(part) if known is not None else 0
    headers = {"User-Agent": "understudy", "Accept-Encoding": "identity"}
    if known is not None and have:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_seconds) as response:
            have, total = _starting_point(response, part, known, have)
            _write_state(part, _Known(url, _validator(response), total))
            _receive(response, part, have, total, progress)
    except urllib.error.HTTPError as problem:
        _explain_status(problem, url, part, have)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as problem:
        _explain_network(problem, url)


def _starting_point(
    response: http.client.HTTPResponse, part: Path, known: _Known | None, have: int
) -> tuple[int, int | None]:
    """How many bytes of `part` this answer continues (none, where the server sends the whole), and the
    total."""
    if response.status == 206 and known is not None:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        total = int(match[3]) if match and match[3] != "*" else known.total
        if not match or int(match[1]) != have or (known.total is not None and total != known.total):
            _discard(part)
            raise _TransientError("the file changed on the server while it was being fetched")
        return have, total
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None else None


def _receive(
    response: http.client.HTTPResponse,
    part: Path,
    have: int,
    total: int | None,
    progress: Callable[[int, int | None], None],
) -> None:
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            have += len(block)
            progress(have, total)
    if total is not None and have < total:
        raise _TransientError(f"the connection closed after {have:,} of {total:,} bytes")
    if total is not None and have > total:
        _discard(part)
        raise _TransientError(f"the server sent {have:,} bytes where it announced {total:,}")


def _explain_status(problem: urllib.error.HTTPError, url: str, part: Path, have: int) -> None:
    with problem:
        if problem.code == 416:
            # Asked for what follows the last byte: either nothing is missing, or the file is another now.
            if problem.headers.get("Content-Range", "").strip() == f"bytes */{have}" and have:
                return
            _discard(part)
            raise _TransientError("the server holds a shorter file than before") from problem
        if problem.code in RETRIED_STATUS:
            raise _TransientError(f"the server answered {problem.code} {problem.reason}") from problem
        raise ValueError(
            f"{url} could not be fetched: the server answered {problem.code} {problem.reason}; fetch the "
            "file by other means and give its path instead"
        ) from problem


def _explain_network(problem: Exception, url: str) -> None:
    reason = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    if isinstance(reason, socket.gaierror):
        # No name server answers: waiting half a minute would not make a machine that is offline be online.
        raise UnavailableError(
            f"{urlsplit(url).hostname} could not be reached for {url} ({reason.strerror}): this machine "
            "seems to be offline; fetch the file on another machine and give its path instead"
        ) from problem
    raise _TransientError(str(reason) or type(reason).__name__) from problem


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What proves later that the file is still the same one; weak tags do not (RFC 9110, section 13.1.5)."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_state(part: Path, known: _Known) -> None:
    _state(part).write_text(json.dumps(known.__dict__), "utf-8")


def _read_state(part: Path, url: str) -> _Known | None:
    """None when there is nothing to continue: no state, one of another file, or one cut off in the
    writing."""
    try:
        known = _Known(**json.loads(_state(part).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return known if known.url == url else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)
