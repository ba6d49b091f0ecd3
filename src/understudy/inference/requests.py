"""What is asked of the engine that serves many requests, and what comes back: plain values.

Not here: how it is done (batching.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from understudy.inference.row_text import FinishReason
from understudy.inference.sampling import SamplingSettings


@dataclass(frozen=True)
class SequenceRequest:
    """One prompt to be continued.

    Attributes:
        tokens: the prompt, with ``max_new_tokens`` within the context.
        stop: strings before which the text ends, whatever tokens spell them.
        end_ids: tokens that end the answer.
        logprobs: None for none; K for the log-probability of each new token, with the K likeliest (0: its own only).
        prompt_logprobs: the same for the prompt's tokens, from the second on. The whole prompt is read then.
        timeout: seconds from submission after which the answer ends where it is.
    """

    tokens: Sequence[int]
    max_new_tokens: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    stop: Sequence[str] = ()
    end_ids: Collection[int] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    timeout: float | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log-probability in nats under the model's own distribution (temperature 1, nothing cut off), and the
    likeliest tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class CompletionChunk:
    """What came of one step.

    Attributes:
        text: whole characters, without what may begin a stop string; may be "".
        tokens: the token of this step; () when the answer ends without one.
        logprobs: of ``tokens``, when asked for.
        finish_reason: not None in the last piece only.
        prompt_logprobs: of the prompt, in the first piece, when asked for.
        reused_tokens: of the prompt, which did not have to be read again, in the first piece; no part of the answer.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    reused_tokens: int = field(default=0, compare=False)


class QueueFull(Exception):
    """As many requests wait as may; ``retry_after`` estimates in how many seconds there will be room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting already; try again in {retry_after:.0f} seconds")
        self.retry_after = retry_after


@dataclass(frozen=True)
class EngineStats:
    """Where the engine stands, and what it has done since it was built.

    Attributes:
        running, waiting: requests.
        slots: rows that can run at once.
        cached_tokens: tokens whose keys and values are held, for requests that run or to be used again.
        cache_bytes: of keys and values, planned at construction; it never grows.
        prompt_tokens: of requests that were started; of these ``prompt_tokens_reused`` did not have to be read.
        requests_finished: by finish reason.
    """

    running: int
    waiting: int
    slots: int
    cached_tokens: int
    cache_bytes: int
    tokens_generated: int
    prompt_tokens: int
    prompt_tokens_reused: int
    requests_finished: dict[str, int]
