"""Between the engine's thread and the event loop: the answers to one HTTP request while they come, as deltas.

A slow reader holds neither the engine nor memory: what it has not read waits here, up to MOST_WAITING steps, is joined
when it reads on, and past that its answers are given up. A client that leaves has its answers cancelled. Not here:
the shapes in which deltas are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from understudy.inference.batching import (
    BatchEngine,
    CompletionChunk,
    QueueFull,
    RequestHandle,
    SequenceRequest,
    TokenLogprob,
)
from understudy.serve.errors import ApiError

MOST_WAITING = 4096
CLIENT_LEFT = 499
"""The status under which requests are counted whose client left before the response."""
DONE = b"data: [DONE]\n\n"


@dataclass
class Delta:
    """What came of one choice since the last one: text, tokens, and how it ended where it did."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    reused_tokens: int = 0

    def add(self, piece: CompletionChunk | Delta) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        self.logprobs += piece.logprobs
        self.prompt_logprobs += piece.prompt_logprobs
        self.reused_tokens += piece.reused_tokens
        self.finish_reason = piece.finish_reason or self.finish_reason


class Answers:
    """The answers to one HTTP request. Made on the event loop; the engine's thread only hands over pieces."""

    def __init__(self, observe_first_token: Callable[[float], None]) -> None:
        """``observe_first_token`` is told after how many seconds the first token of any choice came."""
        self.totals: list[Delta] = []
        """All that has come of each choice."""
        self.left = False
        """Whether the client went away."""
        self._begun, self._observe = time.perf_counter(), observe_first_token
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[tuple[int, CompletionChunk]] = deque()
        self._arrived = asyncio.Event()
        self._tickets: list[RequestHandle] = []
        self._unfinished = 0
        self._overrun = False

    def submit(self, engine: BatchEngine, requests: Sequence[SequenceRequest]) -> None:
        """Have the engine answer all of them, or none.

        Raises:
            ApiError: the queue is full, the engine is closing, or it cannot take a request.
        """
        try:
            for choice, request in enumerate(requests):
                self._tickets.append(engine.submit(request, functools.partial(self._from_engine, choice)))
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
            raise ApiError(503, "no answers are given any more: the server ends", code="engine_stopped") from error
        self.totals = [Delta() for _ in requests]
        self._unfinished = len(requests)

    def leave(self) -> None:
        self.left = True
        self.cancel()

    def cancel(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    async def deltas(self) -> AsyncIterator[dict[int, Delta]]:
        """What has come of each choice since the last time, until all have ended.

        Raises:
            ApiError: the reader is too slow.
        """
        while self._unfinished:
            await self._arrived.wait()
            self._arrived.clear()
            if self._overrun:
                raise ApiError(503, "the answer was not read as fast as it came", code="slow_reader")
            if self._pieces and not any(total.tokens for total in self.totals):
                self._observe(time.perf_counter() - self._begun)
            joined: dict[int, Delta] = {}
            while self._pieces:
                choice, piece = self._pieces.popleft()
                joined.setdefault(choice, Delta()).add(piece)
                self.totals[choice].add(piece)
                self._unfinished -= piece.finish_reason is not None
            yield joined

    def usage(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Tokens of the prompts, each counted once, and of all choices; choices stand prompt by prompt."""
        read, answers = sum(map(len, prompts)), sum(len(total.tokens) for total in self.totals)
        cached = sum(total.reused_tokens for total in self.totals[:: len(self.totals) // len(prompts)])
        return {
            "prompt_tokens": read, "completion_tokens": answers, "total_tokens": read + answers,
            "prompt_tokens_details": {"cached_tokens": cached},
        }  # fmt: skip

    def _from_engine(self, choice: int, piece: CompletionChunk) -> None:
        self._loop.call_soon_threadsafe(self._take, choice, piece)

    def _take(self, choice: int, piece: CompletionChunk) -> None:
        if len(self._pieces) >= MOST_WAITING:
            self._overrun = True
            self._pieces.clear()
            self.cancel()
        if not self._overrun:
            self._pieces.append((choice, piece))
        self._arrived.set()

    def check_ended(self, seconds: float) -> None:
        """Nothing, where no answer was cut short.

        Raises:
            ApiError: one was, by the time there is for it, a shutdown, or a failure.
        """
        reasons = {total.finish_reason for total in self.totals}
        if "cancelled" in reasons:
            raise ApiError(CLIENT_LEFT if self.left else 503, "the answer was cancelled", code="cancelled")
        if "timeout" in reasons:
            raise ApiError(504, f"the answer took more than {seconds:g} s; ask for fewer tokens", code="timeout")
        if "error" in reasons:
            raise ApiError(500, "generating failed; the server's log says how", code="engine_failed")


@contextlib.asynccontextmanager
async def on_leaving(request: HttpRequest, act: Callable[[], None]) -> AsyncIterator[None]:
    """Within, ``act`` is called when the client goes away; it is too when what is within fails."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        act()

    watching = asyncio.create_task(watch())
    try:
        yield
    except BaseException:
        act()
        raise
    finally:
        watching.cancel()


class EventStream(Response):
    """Server-sent events, each sent when the reader took those before; an ApiError midway is the last event."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: dict[str, str] | None = None) -> None:
        self.events, self.status_code, self.background = events, 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | (headers or {}))

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
    """A chunk as an event. ASCII only, so that no reader splits it at a character it takes for a line break."""
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"
