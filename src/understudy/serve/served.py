"""The state of a server as plain values: runs with their engines, feedback store, key and limits.

Not here: loading and starting (server.py), HTTP (api.py, guard.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore
from understudy.inference.batching import BatchEngine
from understudy.inference.generate import Model
from understudy.serve.errors import ApiError
from understudy.tokenizer import Tokenizer

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Limits:
    """Limits on one request, and on all of them together."""

    body_bytes: int = 1 << 20
    prompt_tokens: int | None = None
    """Per prompt; None is limited by the model's context alone."""
    max_tokens: int | None = None
    """Per completion; None is limited by the model's context alone."""
    seconds: float = 120.0
    """From a request's arrival to the end of its completion."""
    head_seconds: float = 15.0
    """From the opening of a connection to the end of the request head."""
    body_seconds: float = 20.0
    """From the request head to the end of the body."""
    choices: int = 32
    """Completions of one request: its prompts times ``n``."""
    open_requests: int = 512
    """Requests at once: being received, waiting, running, or sending to a slow reader."""
    connections: int = 1024
    """Connections at once; fewer where the process may not open as many files (connections.py)."""


@dataclass(frozen=True)
class ServedRun:
    """A run and the engine that generates with it."""

    name: str
    step: int
    weights_sha256: str
    tokenizer: Tokenizer
    context_length: int
    engine: BatchEngine
    model: Model
    """For looking inside. On a CPU the model as trained; on other devices that of the engine, to hold no second copy."""
    created: int = 0
    """Time of the checkpoint in seconds since 1970."""
    suggestions: tuple[str, ...] = ()
    """Questions that the playground suggests."""


@dataclass(frozen=True)
class Served:
    """State shared by all routes."""

    runs: Mapping[str, ServedRun]
    store: FeedbackStore | None = None
    key: str | None = None
    limits: Limits = field(default_factory=Limits)
    hosts: frozenset[str] | None = LOOPBACK_NAMES
    """Host names that requests may use; None allows any, for servers with a key."""

    def find(self, name: str) -> ServedRun:
        """A run by its served name. Names are only looked up here and never used as paths."""
        if (run := self.runs.get(name)) is None:
            message = f"there is no model {name[:100]!r} here; choose one of {', '.join(self.runs)}"
            raise ApiError(404, message, "model", "model_not_found")
        return run

    async def save(self, record: AnswerRecord | Judgement) -> str:
        """Save a record in the feedback store; returns its id, once it is on the disk."""
        if self.store is None:
            raise ApiError(404, "this server stores no feedback", code="no_feedback")
        add = self.store.add_answer if isinstance(record, AnswerRecord) else self.store.add_judgement
        try:
            return await asyncio.to_thread(add, record)  # type: ignore[arg-type]
        except ValueError as error:
            raise ApiError(400, str(error), code="invalid_value") from error
        except SQLAlchemyError as error:
            logging.getLogger("uvicorn.error").exception("feedback could not be stored")
            raise ApiError(
                500, "not saved: the feedback database failed; see the server's log", code="store_failed"
            ) from error
