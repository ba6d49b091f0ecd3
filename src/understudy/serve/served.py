"""What a server serves, as data: its runs with their engines, the store of feedback, its key and its limits.

Not here: loading and starting (server.py), HTTP (api.py, guard.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from understudy.serve.errors import ApiError

if TYPE_CHECKING:
    import torch

    from understudy.feedback.store import FeedbackStore
    from understudy.inference.batching import BatchEngine
    from understudy.inference.generate import Model
    from understudy.tokenizer import Tokenizer

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all of them together."""

    body_bytes: int = 1 << 20
    prompt_tokens: int | None = None
    """Of one prompt; what the model's context leaves where it is None."""
    max_tokens: int | None = None
    """Of one answer; what the context leaves where it is None."""
    seconds: float = 120.0
    """From a request's arrival to its last word."""
    body_seconds: float = 20.0
    """For its body to arrive."""
    choices: int = 32
    """Answers to one request: its prompts times ``n``."""
    open_requests: int = 512
    """Requests being read, answered or waiting at once, those of slow readers among them."""


@dataclass(frozen=True)
class ServedRun:
    """A run that answers: what it is, and the engine that generates with it."""

    name: str
    step: int
    weights_sha256: str
    tokenizer: Tokenizer
    context_length: int
    engine: BatchEngine
    model: Model
    """As it was trained, to look inside; the engine may hold its weights otherwise."""
    autocast: torch.dtype | None = None
    """Precision of matrix products; the weights' own where it is None."""
    created: int = 0
    """When the checkpoint was written, in seconds since 1970."""


@dataclass(frozen=True)
class Served:
    """All that the routes know."""

    runs: Mapping[str, ServedRun]
    store: FeedbackStore | None = None
    key: str | None = None
    limits: Limits = field(default_factory=Limits)
    hosts: frozenset[str] | None = LOOPBACK_NAMES
    """Names that a request's Host may have; any where it is None, for servers that a key protects."""

    def find(self, name: str) -> ServedRun:
        """A run by the name it is served under; names are looked up here and never become paths.

        Raises:
            ApiError: it is not served here.
        """
        if (run := self.runs.get(name)) is None:
            raise ApiError(
                404, f"the model {name[:100]!r} is not served here; there is {', '.join(self.runs)}", param="model",
                code="model_not_found",
            )  # fmt: skip
        return run
