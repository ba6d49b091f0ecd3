"""What every request passes before any route, the playground's among them: whose it is, its key, its size.

A browser carries requests from any page to this machine. So a request is refused whose Host is not a name of this server
(a page of another site whose name was made to point here), whose Origin is another one (a page that sends requests, or a
form), or that a browser says comes from another site. No response carries CORS headers. Not here: what the
requests ask for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.serve.errors import ApiError
from understudy.serve.metrics import ServerMetrics
from understudy.serve.openai.stream import CLIENT_LEFT
from understudy.serve.served import Served

OPEN_PATHS = ("/health",)
"""What is answered without a key."""
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DISCARDED_BODIES = 8
"""How many times the largest body is read and thrown away before it is refused: a client that is still sending would
otherwise see a broken connection instead of the refusal."""


class ClientLeft(Exception):
    """Nobody is there to be answered."""


class Guard:
    """Lets through what may pass, with its body read, and counts everything."""

    def __init__(self, app: ASGIApp, served: Served, metrics: ServerMetrics) -> None:
        self.app, self.served, self.metrics = app, served, metrics
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        begun, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
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
                await response(scope, receive, noting)
                return
            body = await read_body(scope, receive, self.served.limits.body_bytes, self.served.limits.body_seconds)
            await self.app(scope, _replay(body, receive), noting)
        except ApiError as error:
            await error.response()(scope, receive, noting)
        except ClientLeft:
            status = CLIENT_LEFT
        finally:
            self.open_requests -= 1
            route = getattr(scope.get("route"), "path", None) or "other"  # of a fixed set, whatever is asked for
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - begun)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if (stranger := another_site(headers, scope["method"], self.served.hosts)) is not None:
            return ApiError(403, stranger, code="cross_origin")
        if self.served.key is not None and scope["path"] not in OPEN_PATHS and not has_key(headers, self.served.key):
            scheme = "Bearer" if scope["path"].startswith("/v1/") else 'Basic realm="Understudy", charset="UTF-8"'
            return ApiError(
                401, "this server wants its key, as `Authorization: Bearer KEY`; in a browser, as the password",
                code="invalid_api_key", headers={"WWW-Authenticate": scheme},
            )  # fmt: skip
        if self.open_requests > self.served.limits.open_requests:
            return ApiError(
                429,
                "too many requests are open; try again in 1 s",
                code="too_many_requests",
                headers={"Retry-After": "1"},
            )
        return None


def another_site(headers: Headers, method: str, hosts: frozenset[str] | None) -> str | None:
    """Why a request is not from this server's own pages, nor from a program of someone who knows its name; or None."""
    named = headers.getlist("host")
    if len(named) != 1 or (name := host_name(named[0])) is None:
        return "the request has no Host, or several; send one"
    if hosts is not None and name not in hosts:
        return f"this server is not called {name[:100]!r}; ask it by {', '.join(sorted(hosts))}"
    for origin in headers.getlist("origin"):
        if urlsplit_netloc(origin) != named[0].lower():
            return "a page of another origin cannot use this server"
    navigating = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigating:
        return "a page of another site cannot use this server"
    return None


def host_name(host: str) -> str | None:
    """The name in a Host header, in lower case, without the port; None for what is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def urlsplit_netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def has_key(headers: Headers, key: str) -> bool:
    """Whether the key is given: by a program as a bearer, by a browser as the password of any user."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    password = given.strip().encode("latin-1")  # as headers are read
    if scheme.lower() == "basic":
        try:
            password = base64.b64decode(password, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(password, key.encode())


async def read_body(scope: Scope, receive: Receive, most_bytes: int, seconds: float) -> bytes:
    """The whole body, counted as it comes, whatever length it was said to have.

    Raises:
        ApiError: it is too large, or does not come in time.
        ClientLeft: it ended before its end.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    too_large = ApiError(413, f"the body is larger than {most_bytes:,} bytes; send less", code="body_too_large")
    said = Headers(scope=scope).get("content-length", "0")
    if said.isdigit() and int(said) > most_bytes * DISCARDED_BODIES:
        raise too_large
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
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
    """A ``receive`` that gives the body at once, and then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
