"""Downloads, against a local server that misbehaves."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from understudy.data.fetch.download import ATTEMPTS, UnavailableError, download

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """Serves `body` at /file. `script` holds a fault for each request in turn; after that it is good."""

    def __init__(self) -> None:
        self.body = BODY
        self.script: list[str] = []
        self.requests = 0
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
        self.requests += 1
        fault = self.script.pop(0) if self.script else ""
        if fault.isdigit():
            request.send_error(int(fault))
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(self.body)))
        request.end_headers()
        request.wfile.write(self.body[: len(self.body) // 2] if fault == "drops" else self.body)


@pytest.fixture
def server() -> Iterator[Server]:
    fake = Server()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


Get = Callable[..., Path]


@pytest.fixture
def get(server: Server, tmp_path: Path, waits: list[float]) -> Get:
    def fetch(sha256: str | None = SHA256) -> Path:
        assert download(server.url, tmp_path / "deep" / "file", sha256, wait=waits.append) == SHA256
        return tmp_path / "deep" / "file"

    return fetch


def files_in(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "deep").iterdir())


def test_fetches_checks_and_keeps(server: Server, get: Get, tmp_path: Path) -> None:
    assert get().read_bytes() == BODY
    get()
    assert server.requests == 1, "a good file is not fetched twice"
    assert files_in(tmp_path) == ["file"]


@pytest.mark.parametrize("fault", ["drops", "503"])
def test_a_failed_transfer_is_tried_again(server: Server, get: Get, waits: list[float], fault: str) -> None:
    server.script = [fault, fault]
    assert get().read_bytes() == BODY
    assert waits == [1, 2]


@pytest.mark.parametrize("fault", ["drops", "503"])
def test_a_server_that_always_fails_is_given_up(server: Server, get: Get, tmp_path: Path, fault: str) -> None:
    server.script = [fault] * 50
    with pytest.raises(UnavailableError, match=f"in {ATTEMPTS} attempts .*run the same command again later"):
        get()
    assert server.requests == ATTEMPTS and files_in(tmp_path) == []


def test_wrong_content_is_removed_and_the_hash_named(server: Server, get: Get, tmp_path: Path) -> None:
    server.body = b"something else"
    with pytest.raises(ValueError, match=f"does not have the checksum published, {SHA256}"):
        get()
    assert files_in(tmp_path) == []


def test_without_a_checksum_the_first_one_seen_is_pinned(server: Server, get: Get, tmp_path: Path) -> None:
    get(None)
    assert (tmp_path / "deep" / "file.sha256").read_text().strip() == SHA256
    (tmp_path / "deep" / "file").write_bytes(b"damaged here")
    assert get(None).read_bytes() == BODY, "a damaged copy is fetched again"
    (tmp_path / "deep" / "file").unlink()
    server.body = b"changed there"
    with pytest.raises(ValueError, match="seen at the first download"):
        get(None)


def test_404_is_not_retried(server: Server, get: Get, waits: list[float]) -> None:
    server.script = ["404"]
    with pytest.raises(ValueError, match="answered 404 Not Found; fetch the file by other means"):
        get()
    assert waits == []


def test_offline_is_reported_at_once(tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(UnavailableError, match=r"no-such-host\.invalid could not be .* seems to be offline"):
        download("http://no-such-host.invalid/x", tmp_path / "x", wait=waits.append)
    assert waits == []
    with pytest.raises(UnavailableError, match="refused"):
        download("http://127.0.0.1:9/x", tmp_path / "x", wait=waits.append)
    assert waits == [1, 2, 4]


def test_a_full_disk_is_one_sentence(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    with pytest.raises(UnavailableError, match="the disk is full"):
        get()
