"""Requests to sample text, and their completions: the text while its tokens are sampled, and the conditions that end it.

Not here: the loop (generate.py), the batch engine (batching.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from understudy.inference.sampling import SamplingSettings
from understudy.tokenizer import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from understudy.inference.constraint import OutputConstraint

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True)
class Completion:
    """The continuation of one prompt.

    Attributes:
        text: the new text without the stop string or end token.
        tokens: every sampled token, including those of the stop string and the end token.
        logprobs: log-probability in nats of each token under the distribution it was sampled from.
        finish_reason: ``stop`` at a stop string or end token, ``length`` after ``max_new_tokens``; the other reasons occur
            in the batch engine only (batching.py).
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    finish_reason: FinishReason


class CompletionText:
    """The text of one sequence, decoded token by token: whole characters only, and no part of a stop string."""

    def __init__(
        self, tokenizer: Tokenizer, stop: str | Sequence[str], end_ids: Collection[int | None], answer: bool = False
    ) -> None:
        """``answer``: the text begins here, and does not continue one; see :class:`StreamDecoder`."""
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self.stop:
            raise ValueError("a stop string is empty, which would end every text at once; leave it out")
        self.end_ids, self.decoder = end_ids, StreamDecoder(tokenizer, begins=answer)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.released = ""
        self.pending = ""  # text that may be the beginning of a stop string
        self.stopped = False

    def push(self, token: int, logprob: float) -> str:
        """Add a token; return the text that no later token can change."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self.end_ids:
            text, self.stopped = self.finish(), True
            return text
        return self._release(self.decoder.push([token]), last=False)

    def finish(self) -> str:
        """The pending text, once no token follows."""
        return "" if self.stopped else self._release(self.decoder.finish(), last=True)

    def end(self) -> str:
        """End the text here, because a constraint lets nothing follow; return the pending text."""
        text, self.stopped = self.finish(), True
        return text

    def completion(self) -> Completion:
        return Completion(self.released, self.tokens, self.logprobs, "stop" if self.stopped else "length")

    def _release(self, new: str, last: bool) -> str:
        text = self.pending + new
        # The stop string that is complete first wins, so that the cut does not depend on how tokens split the text;
        # of those complete at the same character, the longest.
        matches = [(start + len(stop), start) for stop in self.stop if (start := text.find(stop)) >= 0]
        if matches:
            self.stopped, cut = True, min(matches)[1]
        else:
            cut = len(text) - (0 if last else max((_overlap(text, stop) for stop in self.stop), default=0))
        released, self.pending = text[:cut], text[cut:]
        self.released += released
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of ``stop`` that ``text`` ends with."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))


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
        answer: the completion answers a conversation, and does not continue a text.
        constraint: a grammar for the completion, which ends when no token but an end token can follow.
    """

    tokens: Sequence[int]
    max_new_tokens: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    stop: Sequence[str] = ()
    end_ids: Collection[int] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    timeout: float | None = None
    answer: bool = False
    constraint: OutputConstraint | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log-probability in nats under the model's own distribution (temperature 1, no filters), and the likeliest
    tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class CompletionChunk:
    """The output of one step, or of several, for one sequence.

    Attributes:
        text: whole characters, without a possible beginning of a stop string; may be "".
        tokens: the token of each step; () if the completion ends without one.
        logprobs: of ``tokens``, if requested.
        finish_reason: not None in the last chunk only.
        prompt_logprobs: of the prompt, in the first chunk, if requested.
        reused_tokens: prompt tokens found in the cache, in the first chunk; not part of the completion.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    reused_tokens: int = field(default=0, compare=False)

    @property
    def complete(self) -> bool:
        """Whether the completion ended, and was not cut."""
        return self.finish_reason in ("stop", "length")

    def __add__(self, later: CompletionChunk) -> CompletionChunk:
        return CompletionChunk(
            self.text + later.text, self.tokens + later.tokens, self.logprobs + later.logprobs,
            later.finish_reason or self.finish_reason, self.prompt_logprobs + later.prompt_logprobs,
            self.reused_tokens + later.reused_tokens,
        )  # fmt: skip


class QueueFull(Exception):
    """The queue of waiting requests is full; ``retry_after`` estimates the seconds until there is room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting already; try again in {retry_after:.0f} seconds")
        self.retry_after = retry_after


@dataclass(frozen=True)
class EngineStats:
    """State and counters of the engine, as /metrics describes them; ``requests_finished`` by finish reason."""

    running: int
    waiting: int
    slots: int
    cached_tokens: int
    cache_bytes: int
    tokens_generated: int
    prompt_tokens: int
    prompt_tokens_reused: int
    requests_finished: dict[str, int]
