"""/v1/completions: continuations of one or several texts, whole or as a stream, with the prompt's own log-probabilities if
it is echoed, as `lm_eval` requests. Not here: limits on prompts (plan.py).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest

from understudy.inference.batching import TokenLogprob
from understudy.serve.metrics import ServerMetrics
from understudy.serve.openai.plan import plan_completion
from understudy.serve.openai.schemas import CompletionRequest
from understudy.serve.openai.stream import DONE, ResponseStream, event, on_disconnect
from understudy.serve.openai.tokens import logprob_number, token_text
from understudy.serve.served import Served
from understudy.tokenizer import StreamDecoder, Tokenizer
from understudy.tokenizer.base import clean


class TextCompletion:
    """One request for continuations. Construct it on the event loop."""

    def __init__(self, served: Served, metrics: ServerMetrics, request: CompletionRequest) -> None:
        self.served, self.request = served, request
        self.run = served.find(request.model)
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.stream = ResponseStream(metrics.first_token_seconds.labels(self.run.name).observe)

    async def begin(self) -> None:
        """Plan and submit.

        Raises:
            ApiError: an invalid request, or a full queue.
        """
        self.plan = await asyncio.to_thread(plan_completion, self.run, self.request, self.served.limits)
        self.stream.submit(self.run.engine, self.plan.requests)
        self.logprobs = [CompletionLogprobs(self.run.tokenizer) for _ in self.plan.requests]

    async def whole(self, connection: HttpRequest) -> dict[str, Any]:
        async with on_disconnect(connection, self.stream.disconnect):
            async for _ in self.stream.deltas():
                pass  # the totals collect it
        self.stream.check_ended(self.served.limits.seconds)
        choices = []
        for choice, total in enumerate(self.stream.totals):
            text, entries = self._echo(choice)
            choices.append(self._choice(choice, text + total.text, [*entries, *total.logprobs], total.finish_reason))
        return self._envelope() | {"choices": choices, "usage": self.stream.usage(self.plan.prompts)}

    async def events(self, connection: HttpRequest) -> AsyncGenerator[bytes, None]:
        echoed: set[int] = set()
        async with on_disconnect(connection, self.stream.disconnect):
            async for joined in self.stream.deltas():
                for choice, delta in sorted(joined.items()):
                    if self.request.echo and choice not in echoed:
                        echoed.add(choice)
                        yield self._chunk(choice, *self._echo(choice))
                    ended = delta.finish_reason if delta.finish_reason in ("stop", "length") else None
                    if delta.text or ended or (delta.logprobs and self.request.logprobs is not None):
                        yield self._chunk(choice, delta.text, delta.logprobs, ended)
        self.stream.check_ended(self.served.limits.seconds)
        if self.request.include_usage:
            yield event(self._envelope() | {"choices": [], "usage": self.stream.usage(self.plan.prompts)})
        yield DONE

    def _echo(self, choice: int) -> tuple[str, list[Entry]]:
        """The echoed prompt of a choice: its text, and its tokens if log-probabilities are requested."""
        if not self.request.echo:
            return "", []
        place, number = divmod(choice, self.request.choices)
        prompt = self.request.prompts[place]
        text = clean(prompt) if isinstance(prompt, str) else self.run.tokenizer.decode(prompt)
        if self.request.logprobs is None:
            return text, []
        logprobs = self.stream.totals[choice - number].prompt_logprobs  # the first of a prompt's choices has them
        return text, [self.plan.prompts[place][0], *logprobs]

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.run.name,
            "system_fingerprint": self.run.weights_sha256,
        }

    def _choice(self, choice: int, text: str, entries: Sequence[Entry], finish_reason: str | None) -> dict[str, Any]:
        logprobs = None if self.request.logprobs is None else self.logprobs[choice].add(entries)
        return {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _chunk(self, choice: int, text: str, entries: Sequence[Entry], finish_reason: str | None = None) -> bytes:
        usage = {"usage": None} if self.request.include_usage else {}
        return event(self._envelope() | {"choices": [self._choice(choice, text, entries, finish_reason)]} | usage)


Entry = TokenLogprob | int
"""A token with its log-probability; a bare id is the first token, which nothing predicts."""


class CompletionLogprobs:
    """Log-probabilities of one choice in the schema of completions, with the offset of each token in the text. The end token
    is included: `lm_eval` drops the last token in any case."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.decoder, self.characters = tokenizer, StreamDecoder(tokenizer), 0

    def add(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """Convert the next tokens of the choice."""
        lists: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            token = entry if isinstance(entry, int) else entry.token
            lists["tokens"].append(token_text(self.tokenizer, token))
            lists["text_offset"].append(self.characters)
            self.characters += len(self.decoder.push([token]))
            if isinstance(entry, int):
                lists["token_logprobs"].append(None)
                lists["top_logprobs"].append(None)
                continue
            lists["token_logprobs"].append(logprob_number(entry.logprob))
            likeliest = [*entry.top, (token, entry.logprob)]
            lists["top_logprobs"].append(
                {token_text(self.tokenizer, other): logprob_number(value) for other, value in likeliest}
            )
        return lists
