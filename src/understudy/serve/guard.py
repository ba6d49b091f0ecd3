"""Checks of every request before any route, including the playground's: origin, key, number, size of the body.

A browser sends requests of any page to this machine. So a request is refused if its Host is not a name of this server (DNS
rebinding), if its Origin is another one (a script or form of another page), or if Fetch Metadata says that it comes from
another site. No response carries CORS headers. Not here: connections before their request (connections.py).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.serve.errors import ApiError
from understudy.serve.metrics import ServerMetrics
from understudy.serve.openai.stream import CLIENT_CLOSED_REQUEST
from understudy.serve.served import Served

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DISCARDED_BODIES = 8
"""A body of up to this many times the limit is read and discarded before it is refused: a client that is still sending would
otherwise see a broken connection instead of the error."""


class Guard:
    """Middleware that refuses requests, reads bodies, and counts requests."""

    def __init__(self, app: ASGIApp, served: Served, metrics: ServerMetrics) -> None:
        self.app, self.served, self.metrics = app, served, metrics
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route is a WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        started, status = time.perf_counter(), 500

        async def send_checked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SAFE_HEADERS)
            await send(message)

        self.open_requests += 1
        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                response = refusal.response()
                response.headers["Connection"] = "close"  # the body is not read; else it would be, without end
                await response(scope, receive, send_checked)
                return
            body = await read_body(scope, receive, self.served.limits.body_bytes, self.served.limits.body_seconds)
            await self.app(scope, _replay(body, receive), send_checked)
        except ApiError as error:
            await error.response()(scope, receive, send_checked)
        except ClientDisconnect:
            status = CLIENT_CLOSED_REQUEST
        finally:
            self.open_requests -= 1
            route = getattr(scope.get("route"), "path", None) or "other"  # a fixed set, for any path
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if (reason := cross_origin(headers, scope["method"], self.served.hosts)) is not None:
            return ApiError(403, reason, code="cross_origin")
        key, (_, given) = self.served.key, credentials(headers.get("authorization", ""))
        if key is not None and scope["path"] != "/health" and not hmac.compare_digest(given, key.encode()):
            scheme = "Bearer" if scope["path"].startswith("/v1/") else 'Basic realm="Understudy", charset="UTF-8"'
            return ApiError(
                401, "this server needs its key, as `Authorization: Bearer KEY`; in a browser, as the password",
                code="invalid_api_key", headers={"WWW-Authenticate": scheme},
            )  # fmt: skip
        if self.open_requests > self.served.limits.open_requests:
            wait = {"Retry-After": "1"}
            return ApiError(429, "too many requests are open; try again in 1 s", code="too_many_requests", headers=wait)
        return None


def cross_origin(headers: Headers, method: str, hosts: frozenset[str] | None) -> str | None:
    """The reason to refuse a request that comes from a page of another site; None for other requests."""
    named = headers.getlist("host")
    if len(named) != 1 or not (name := split_url(f"//{named[0]}").hostname):
        return "the request has no valid Host header, or several; send one"
    if hosts is not None and name not in hosts:
        return f"{name[:100]!r} is no host name of this server; use {', '.join(sorted(hosts))}"
    for origin in headers.getlist("origin"):
        if split_url(origin).netloc.lower() != named[0].lower():
            return "a page of another origin cannot use this server"
    navigating = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigating:
        return "a page of another site cannot use this server"
    return None


def split_url(url: str) -> SplitResult:
    """The parts of a URL, all empty if it is invalid."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def credentials(authorization: str) -> tuple[bytes, bytes]:
    """The user and the key of a request: a bearer token, or from a browser the password of any user; empty without one."""
    scheme, _, given = authorization.partition(" ")
    key = given.strip().encode("latin-1")  # as headers are read
    if scheme.lower() == "bearer":
        return b"", key
    try:
        user, _, password = base64.b64decode(key, validate=True).partition(b":")
    except binascii.Error:
        return b"", b""
    return (user, password) if scheme.lower() == "basic" else (b"", b"")


async def read_body(scope: Scope, receive: Receive, most_bytes: int, seconds: float) -> bytes:
    """The whole body. Its size is counted as it arrives, not taken from Content-Length.

    Raises:
        ApiError: the body is too large or too slow.
        ClientDisconnect: the connection was closed before its end.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    too_large = ApiError(413, f"the body is larger than {most_bytes:,} bytes; send less", code="body_too_large")
    announced = Headers(scope=scope).get("content-length", "0")
    if announced.isdigit() and int(announced) > most_bytes * DISCARDED_BODIES:
        raise too_large
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                size, more = size + len(message.get("body", b"")), message.get("more_body", False)
                if size <= most_bytes:
                    chunks.append(message.get("body", b""))
                elif size > most_bytes * DISCARDED_BODIES:
                    break
    except TimeoutError as error:
        raise ApiError(408, f"the body did not come within {seconds:g} s", code="body_too_slow") from error
    if size > most_bytes:
        raise too_large
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that returns the body, and then the messages after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay
