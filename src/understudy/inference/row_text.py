"""The text of an answer while its tokens come, and what ends it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from understudy.tokenizer import StreamDecoder, Tokenizer

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True)
class Completion:
    """What a model added to a prompt."""

    text: str
    """The new text, up to a stop string or the end-of-text token, neither of them shown."""
    tokens: list[int]
    """Every token sampled, those that spelled the stop string or ended the text included."""
    logprobs: list[float]
    """Of each token, in nats, under the distribution it was sampled from."""
    finish_reason: FinishReason
    """``stop`` at a stop string or a token that ends the row, ``length`` after ``max_new_tokens``; the others only
    where requests come and go (batching.py)."""


class RowText:
    """The text of one row while its tokens come: whole characters only, and never part of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: str | Sequence[str], ends: Collection[int]) -> None:
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self.stop:
            raise ValueError("a stop string is empty, which would end every text at once; leave it out")
        self.ends, self.decoder = ends, StreamDecoder(tokenizer)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.shown = ""
        self.held = ""  # what may begin a stop string
        self.stopped = False

    def push(self, token: int, logprob: float) -> str:
        """Take the next token; return the text that is now certain to be shown."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self.ends:
            piece, self.stopped = self.finish(), True
            return piece
        return self._release(self.decoder.push([token]), last=False)

    def finish(self) -> str:
        """The text still held back, now that none follows."""
        return "" if self.stopped else self._release(self.decoder.finish(), last=True)

    def completion(self) -> Completion:
        return Completion(self.shown, self.tokens, self.logprobs, "stop" if self.stopped else "length")

    def _release(self, new: str, last: bool) -> str:
        text = self.held + new
        # The stop string that is complete first wins, so that the cut does not depend on how tokens split the
        # text; of those complete at the same character, the longest.
        found = [(at + len(stop), at) for stop in self.stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, cut = True, min(found)[1]
        else:
            cut = len(text) - (0 if last else max((_overlap(text, stop) for stop in self.stop), default=0))
        piece, self.held = text[:cut], text[cut:]
        self.shown += piece
        return piece


def end_tokens(tokenizer: Tokenizer, at_end_of_text: bool, end_ids: Collection[int]) -> frozenset[int]:
    """The tokens that end a row."""
    own = {tokenizer.eot_id} if at_end_of_text and tokenizer.eot_id is not None else set()
    return frozenset(own | set(end_ids))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` with which ``stop`` begins, short of all of it."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
