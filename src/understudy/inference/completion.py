"""The text of a completion while its tokens are sampled, and the conditions that end it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from understudy.tokenizer import StreamDecoder, Tokenizer

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

    def __init__(self, tokenizer: Tokenizer, stop: str | Sequence[str], end_ids: Collection[int]) -> None:
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self.stop:
            raise ValueError("a stop string is empty, which would end every text at once; leave it out")
        self.end_ids, self.decoder = end_ids, StreamDecoder(tokenizer, begins=bool(end_ids))  # an answer begins a text
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


def end_tokens(tokenizer: Tokenizer, stop_at_end_of_text: bool, end_ids: Collection[int]) -> frozenset[int]:
    """``end_ids``, with the tokenizer's end-of-text token if ``stop_at_end_of_text``."""
    end_of_text = {tokenizer.eot_id} if stop_at_end_of_text and tokenizer.eot_id is not None else set()
    return frozenset(end_of_text | set(end_ids))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of ``stop`` that ``text`` ends with."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
