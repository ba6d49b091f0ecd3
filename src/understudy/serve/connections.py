"""Limits on connections, below HTTP: their number, the time for a request to arrive, and repeated log lines.

uvicorn waits for the rest of a request without a limit, and asyncio logs every failed accept once no file descriptor is free.
So a client without a key could stop a server by opening connections. Not here: limits on requests (guard.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from understudy.serve.served import Limits

try:
    import resource
except ModuleNotFoundError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

RESERVED_DESCRIPTORS = 64
"""File descriptors reserved for files, the database and outgoing connections."""
LOG_LINES, LOG_SECONDS = 10, 60.0
"""Lines of one kind that are logged in a period."""


def connection_limits(wanted: int) -> tuple[int, int]:
    """Number of connections, and the backlog, that the process's limit of open files allows.

    The backlog is the number of connections that the kernel queues. asyncio accepts as many in one go, before any of them
    can be refused.
    """
    if resource is None:
        return wanted, 128
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted, 128
    backlog = max(1, min(128, soft // 8))
    return min(wanted, max(8, soft - RESERVED_DESCRIPTORS - 3 * backlog)), backlog


def limited_protocol(limits: Limits, connections_limit: int) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1 protocol with limits.

    A connection is closed if it sends no complete request head in time. At the limit of connections, a new one takes the
    place of the one that has waited longest for a request; if none waits, the new one is closed.
    """

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.opened = time.monotonic()
            self.deadline = self.loop.call_later(limits.head_seconds, self.close_if_idle, None)
            if len(self.connections) > connections_limit:
                others = (connection for connection in self.connections if isinstance(connection, LimitedProtocol))
                idle = [connection for connection in others if connection.waits_for_request]
                oldest = min(idle, key=lambda connection: (connection.cycle is not None, connection.opened))
                oldest.connections.discard(oldest)  # now, since the transport is closed later
                oldest.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self.deadline.cancel()
            super().connection_lost(exc)

        @property
        def waits_for_request(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def close_if_idle(self, last_cycle: object) -> None:
            """Close the connection unless a request arrived since the last check."""
            if self.waits_for_request and self.cycle is last_cycle:
                self.transport.abort()
            else:
                self.deadline = self.loop.call_later(limits.head_seconds, self.close_if_idle, self.cycle)

    return LimitedProtocol


class LimitRepeats(logging.Filter):
    """Drops log records of one kind beyond LOG_LINES in LOG_SECONDS; a client can cause any number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.period, self.counts = 0, Counter[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        if (period := int(record.created / LOG_SECONDS)) != self.period:
            self.period, self.counts = period, Counter()
        self.counts[f"{record.msg}"[:200]] += 1
        count = self.counts[f"{record.msg}"[:200]]
        if count == LOG_LINES:
            record.msg = f"{record.msg} (more lines of this kind are dropped for up to {LOG_SECONDS:.0f} s)"
        return count <= LOG_LINES


REPEATS = LimitRepeats()


def server_config(app: object, limits: Limits) -> uvicorn.Config:
    """The configuration of uvicorn, and filters on the loggers that clients can fill."""
    connections, backlog = connection_limits(limits.connections)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=limited_protocol(limits, connections), ws="none", lifespan="on", backlog=backlog, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=30,
        timeout_graceful_shutdown=int(limits.seconds) + 5,
    )  # fmt: skip
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(REPEATS)
    return config
