"""Downloads, against a local server that misbehaves in every way a real one does."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from understudy.data.fetch import download as module
from understudy.data.fetch.download import UnavailableError, download

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """Serves `body` at /file. `script` holds a misdeed for each request in turn; after that it is good."""

    def __init__(self) -> None:
        self.body = BODY
        self.etag: str | None = '"one"'
        self.script: list[str] = []
        self.ranges: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        deed = self.script.pop(0) if self.script else ""
        if deed.isdigit():
            request.send_error(int(deed))
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and deed != "ignores range" else 0
        condition = request.headers.get("If-Range")
        if condition is not None and condition != self.etag:
            start = 0
        if asked and start >= len(self.body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.body)}")
            request.end_headers()
            return
        body = self.body[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if deed.startswith("drops") else body)


@pytest.fixture
def server() -> Iterator[Server]:
    fake = Server()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


Get = Callable[..., module.Fetched]


@pytest.fixture
def get(server: Server, tmp_path: Path, waits: list[float]) -> Get:
    def fetch(sha256: str | None = SHA256) -> module.Fetched:
        return download(server.url, tmp_path / "deep" / "file", sha256, wait=waits.append)

    return fetch


def left_over(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "deep").iterdir())


def test_fetches_checks_and_keeps(server: Server, get: Get, tmp_path: Path) -> None:
    got = get()
    assert got.path.read_bytes() == BODY and (got.size_bytes, got.sha256) == (len(BODY), SHA256)
    get()
    assert len(server.ranges) == 1, "a good file is not fetched twice"
    assert left_over(tmp_path) == ["file"]


def test_a_dropped_connection_is_resumed(server: Server, get: Get, waits: list[float]) -> None:
    server.script = ["drops", "drops"]
    assert get().path.read_bytes() == BODY
    half, rest = len(BODY) // 2, len(BODY) - len(BODY) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + rest // 2}-"]
    assert waits == [1, 1], "progress starts the waiting anew"


def test_a_later_call_goes_on_from_the_part(server: Server, get: Get) -> None:
    server.script = ["drops"] + ["503"] * module.ATTEMPTS
    with pytest.raises(UnavailableError, match="run the same command again later"):
        get()
    assert get().path.read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={len(BODY) // 2}-"


def test_a_server_that_ignores_range_sends_the_whole_again(server: Server, get: Get) -> None:
    server.script = ["drops", "ignores range"]
    assert get().path.read_bytes() == BODY


def test_503_twice(server: Server, get: Get, waits: list[float]) -> None:
    server.script = ["503", "503"]
    assert get().path.read_bytes() == BODY
    assert waits == [1, 2]


def test_a_server_that_always_drops_at_the_same_place_is_given_up(server: Server, get: Get) -> None:
    server.etag = None
    server.script = ["drops ignores range"] * 50

    def always_whole(request: BaseHTTPRequestHandler) -> None:
        del request.headers["Range"]
        Server.answer(server, request)

    server.answer = always_whole  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match=rf"after {module.ATTEMPTS} attempts \(the connection closed"):
        get()


def test_a_file_that_changed_between_attempts_is_fetched_anew(server: Server, get: Get) -> None:
    server.script = ["drops"] + ["503"] * module.ATTEMPTS
    with pytest.raises(UnavailableError):
        get(None)
    server.body, server.etag = BODY[::-1], '"two"'
    assert get(None).path.read_bytes() == server.body


def test_a_file_that_changed_without_an_etag_is_noticed_by_its_size(server: Server, get: Get) -> None:
    server.etag = None
    server.script = ["drops"] + ["503"] * module.ATTEMPTS
    with pytest.raises(UnavailableError):
        get(None)
    server.body = b"new" * 5000
    assert get(None).path.read_bytes() == server.body


def test_a_part_that_is_already_whole_or_too_long(server: Server, get: Get, tmp_path: Path) -> None:
    for length in (len(BODY), len(BODY) + 5):
        server.script = ["drops"] + ["503"] * module.ATTEMPTS
        with pytest.raises(UnavailableError):
            get()
        (tmp_path / "deep" / "file.part").write_bytes((BODY + b"extra")[:length])
        assert get().path.read_bytes() == BODY
        (tmp_path / "deep" / "file").unlink()


def test_wrong_content_is_removed_and_both_hashes_named(server: Server, get: Get, tmp_path: Path) -> None:
    server.body = b"something else"
    wrong = hashlib.sha256(server.body).hexdigest()
    with pytest.raises(ValueError, match=f"{wrong}.*published is {SHA256}"):
        get()
    assert left_over(tmp_path) == []


def test_without_a_checksum_the_first_one_seen_is_pinned(server: Server, get: Get, tmp_path: Path) -> None:
    assert get(None).sha256 == SHA256
    assert (tmp_path / "deep" / "file.sha256").read_text().strip() == SHA256
    (tmp_path / "deep" / "file").write_bytes(b"damaged here")
    assert get(None).path.read_bytes() == BODY, "a damaged copy is fetched again"
    (tmp_path / "deep" / "file").unlink()
    server.body = b"changed there"
    with pytest.raises(ValueError, match="seen at the first download"):
        get(None)


def test_404_is_not_retried(server: Server, get: Get, waits: list[float]) -> None:
    server.script = ["404"]
    with pytest.raises(ValueError, match="answered 404 Not Found; fetch the file by other means"):
        get()
    assert waits == []


def test_offline_is_said_at_once(tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(UnavailableError, match=r"no-such-host\.invalid could not be .* seems to be offline"):
        download("http://no-such-host.invalid/x", tmp_path / "x", wait=waits.append)
    with pytest.raises(UnavailableError, match="refused"):
        download("http://127.0.0.1:9/x", tmp_path / "x", wait=waits.append)
    assert waits == [1, 2, 4, 8, 16]


def test_a_full_disk_is_one_sentence(server: Server, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_receive", full)
    with pytest.raises(UnavailableError, match="the disk is full"):
        get()


def test_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(server.url, tmp_path / "file", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(BODY), len(BODY))
