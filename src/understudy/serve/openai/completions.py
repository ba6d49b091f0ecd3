"""/v1/completions: the continuation of one text or several, whole or as a stream, with the prompt's own probabilities
where it is echoed with them, as `lm_eval` asks.

Not here: how long prompts may be (planning.py).
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
from understudy.serve.openai.stream import DONE, Answers, event, on_leaving
from understudy.serve.openai.tokens import logprob_number, token_text
from understudy.serve.served import Served
from understudy.tokenizer import StreamDecoder, Tokenizer
from understudy.tokenizer.base import clean


class TextCompletion:
    """One request for continuations, to be made on the event loop."""

    def __init__(self, served: Served, metrics: ServerMetrics, asked: CompletionRequest) -> None:
        self.served, self.asked = served, asked
        self.run = served.find(asked.model)
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.answers = Answers(metrics.first_token_seconds.labels(self.run.name).observe)

    async def begin(self) -> None:
        """Plan and submit.

        Raises:
            ApiError: it cannot be answered, or not now.
        """
        self.plan = await asyncio.to_thread(plan_completion, self.run, self.asked, self.served.limits)
        self.answers.submit(self.run.engine, self.plan.requests)
        self.written = [Written(self.run.tokenizer) for _ in self.plan.requests]

    async def whole(self, request: HttpRequest) -> dict[str, Any]:
        async with on_leaving(request, self.answers.leave):
            async for _ in self.answers.deltas():
                pass  # the totals keep it
        self.answers.check_ended(self.served.limits.seconds)
        choices = []
        for choice, total in enumerate(self.answers.totals):
            text, entries = self._echo(choice)
            choices.append(self._choice(choice, text + total.text, [*entries, *total.logprobs], total.finish_reason))
        return self._envelope() | {"choices": choices, "usage": self.answers.usage(self.plan.prompts)}

    async def events(self, request: HttpRequest) -> AsyncGenerator[bytes, None]:
        echoed: set[int] = set()
        async with on_leaving(request, self.answers.leave):
            async for joined in self.answers.deltas():
                for choice, delta in sorted(joined.items()):
                    if self.asked.echo and choice not in echoed:
                        echoed.add(choice)
                        yield self._chunk(choice, *self._echo(choice))
                    ended = delta.finish_reason if delta.finish_reason in ("stop", "length") else None
                    if delta.text or ended or (delta.logprobs and self.asked.logprobs is not None):
                        yield self._chunk(choice, delta.text, delta.logprobs, ended)
        self.answers.check_ended(self.served.limits.seconds)
        if self.asked.include_usage:
            yield event(self._envelope() | {"choices": [], "usage": self.answers.usage(self.plan.prompts)})
        yield DONE

    def _echo(self, choice: int) -> tuple[str, list[Entry]]:
        """What is repeated of a choice's prompt: its text, and its tokens where log-probabilities are asked for."""
        if not self.asked.echo:
            return "", []
        place, number = divmod(choice, self.asked.choices)
        prompt = self.asked.prompts[place]
        text = clean(prompt) if isinstance(prompt, str) else self.run.tokenizer.decode(prompt)
        if self.asked.logprobs is None:
            return text, []
        scored = self.answers.totals[choice - number].prompt_logprobs  # the first of a prompt's choices has them
        return text, [self.plan.prompts[place][0], *scored]

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.run.name,
            "system_fingerprint": self.run.weights_sha256,
        }

    def _choice(self, choice: int, text: str, entries: Sequence[Entry], finish_reason: str | None) -> dict[str, Any]:
        logprobs = None if self.asked.logprobs is None else self.written[choice].add(entries)
        return {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _chunk(self, choice: int, text: str, entries: Sequence[Entry], finish_reason: str | None = None) -> bytes:
        usage = {"usage": None} if self.asked.include_usage else {}
        return event(self._envelope() | {"choices": [self._choice(choice, text, entries, finish_reason)]} | usage)


Entry = TokenLogprob | int
"""A token with its log-probability; a bare token is a first one, which nothing predicts."""


class Written:
    """The tokens of one choice in the old shape of log-probabilities, and where in its text each begins. A token that
    ended the answer is there too: `lm_eval` drops the last one, whatever it is."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.decoder, self.characters = tokenizer, StreamDecoder(tokenizer), 0

    def add(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """The next tokens of the choice."""
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
