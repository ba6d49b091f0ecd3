"""From the engine's thread to the event loop: the completions of one HTTP request as a stream of deltas.

A slow reader blocks neither the engine nor other clients: up to MAX_PENDING_CHUNKS unread chunks are queued and joined when it
reads on; beyond that the request is cancelled. A disconnect cancels it too. Not here: the JSON of deltas.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from understudy.inference.batching import BatchEngine, CompletionChunk, QueueFull, RequestHandle, SequenceRequest
from understudy.serve.errors import ApiError

MAX_PENDING_CHUNKS = 4096
CLIENT_CLOSED_REQUEST = 499
"""Status in the metrics of a request whose client disconnected before the response (nginx's)."""
DONE = b"data: [DONE]\n\n"


class ResponseStream:
    """The completions of one HTTP request. Construct it on the event loop; the engine's thread only adds chunks."""

    def __init__(self, observe_first_token: Callable[[float], None]) -> None:
        """``observe_first_token`` is called with the seconds until the first token of any choice."""
        self.totals: list[CompletionChunk] = []
        """All output of each choice so far."""
        self.disconnected = False
        self._begun, self._observe = time.perf_counter(), observe_first_token
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[tuple[int, CompletionChunk]] = deque()
        self._arrived = asyncio.Event()
        self._handles: list[RequestHandle] = []
        self._overrun = False

    def submit(self, engine: BatchEngine, requests: Sequence[SequenceRequest]) -> None:
        """Submit all requests, or none."""
        try:
            for choice, request in enumerate(requests):
                add = functools.partial(self._add, choice)
                on_chunk = functools.partial(self._loop.call_soon_threadsafe, add)
                self._handles.append(engine.submit(request, on_chunk))
        except QueueFull as full:
            self.cancel()
            seconds = str(max(1, round(full.retry_after)))
            raise ApiError(
                429, f"too many requests are waiting; try again in {seconds} s", code="queue_full",
                headers={"Retry-After": seconds},
            ) from full  # fmt: skip
        except ValueError as error:
            self.cancel()
            raise ApiError(400, str(error), code="invalid_value") from error
        except RuntimeError as error:
            self.cancel()
            raise ApiError(503, "the server is shutting down", code="engine_stopped") from error
        self.totals = [CompletionChunk() for _ in requests]

    @contextlib.asynccontextmanager
    async def read_by(self, connection: HttpRequest) -> AsyncIterator[None]:
        """Cancel the request if its client disconnects during the block, or if the block raises."""

        async def watch() -> None:
            while (await connection.receive())["type"] != "http.disconnect":
                pass
            self.disconnected = True
            self.cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        except BaseException:
            self.cancel()
            raise
        finally:
            watching.cancel()

    def cancel(self) -> None:
        for handle in self._handles:
            handle.cancel()

    async def deltas(self) -> AsyncIterator[dict[int, CompletionChunk]]:
        """New output of the choices, until all have ended."""
        while any(total.finish_reason is None for total in self.totals):
            await self._arrived.wait()
            self._arrived.clear()
            if self._overrun:
                raise ApiError(503, "the response was read too slowly", code="slow_reader")
            if self._chunks and not any(total.tokens for total in self.totals):
                self._observe(time.perf_counter() - self._begun)
            joined: dict[int, CompletionChunk] = {}
            while self._chunks:
                choice, chunk = self._chunks.popleft()
                joined[choice] = joined.get(choice, CompletionChunk()) + chunk
                self.totals[choice] += chunk
            yield joined

    def _add(self, choice: int, chunk: CompletionChunk) -> None:
        if len(self._chunks) >= MAX_PENDING_CHUNKS:
            self._overrun = True
            self._chunks.clear()
            self.cancel()
        if not self._overrun:
            self._chunks.append((choice, chunk))
        self._arrived.set()

    def check_ended(self, seconds: float) -> None:
        """Raise an ApiError if a completion was cut: by its timeout, a disconnect, a shutdown or a failure."""
        reasons = {total.finish_reason for total in self.totals}
        if "cancelled" in reasons:
            status = CLIENT_CLOSED_REQUEST if self.disconnected else 503
            raise ApiError(status, "the answer was cancelled", code="cancelled")
        if "timeout" in reasons:
            raise ApiError(504, f"the answer took more than {seconds:g} s; ask for fewer tokens", code="timeout")
        if "error" in reasons:
            raise ApiError(500, "generation failed; see the server's log", code="engine_failed")


class EventStream(Response):
    """Server-sent events, paced by the reader; an ApiError on the way is the last event."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self.events, self.status_code, self.background = events, 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with contextlib.aclosing(self.events) as events:
            try:
                async for data in events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            except ApiError as error:
                await send({"type": "http.response.body", "body": event(error.body()) + DONE, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def event(content: dict[str, Any]) -> bytes:
    """A chunk as a server-sent event, in ASCII so that no reader takes a character of it for a line break."""
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"
