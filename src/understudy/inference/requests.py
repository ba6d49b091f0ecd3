"""Requests to the batch engine and its results, as plain values. Not here: the engine (batching.py)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from understudy.inference.completion import FinishReason
from understudy.inference.sampling import SamplingSettings


@dataclass(frozen=True)
class SequenceRequest:
    """One prompt to continue.

    Attributes:
        tokens: the prompt. With ``max_new_tokens`` it fits the context.
        stop: strings that end the text, however they are tokenized.
        end_ids: tokens that end the completion.
        logprobs: None for none; K for the log-probability of each new token and of the K likeliest tokens.
        prompt_logprobs: the same for the prompt's tokens from the second on. No cached prefix is used then.
        timeout: seconds after submission at which the completion is cut.
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
    """A token's log-probability in nats under the model's own distribution (temperature 1, no filters), and the likeliest
    tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class CompletionChunk:
    """The output of one step for one sequence.

    Attributes:
        text: whole characters, without a possible beginning of a stop string; may be "".
        tokens: the token of this step; () if the completion ends without one.
        logprobs: of ``tokens``, if requested.
        finish_reason: not None in the last chunk only.
        prompt_logprobs: of the prompt, in the first chunk, if requested.
        reused_tokens: prompt tokens found in the cache, in the first chunk; not part of the completion.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    reused_tokens: int = field(default=0, compare=False)


class QueueFull(Exception):
    """The queue of waiting requests is full; ``retry_after`` estimates the seconds until there is room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting already; try again in {retry_after:.0f} seconds")
        self.retry_after = retry_after


@dataclass(frozen=True)
class EngineStats:
    """State and counters of the engine.

    Attributes:
        running, waiting: requests.
        slots: requests that can run at once.
        cached_tokens: tokens whose keys and values are in the cache, of running and of finished requests.
        cache_bytes: size of the KV cache, fixed at construction.
        prompt_tokens: of the started requests; ``prompt_tokens_reused`` of them were found in the cache.
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
