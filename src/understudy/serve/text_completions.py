"""/v1/completions: the continuation of one text or several, whole or as a stream, with the prompt's own probabilities
where it is echoed with them, as `lm_eval` asks.

Not here: how long prompts may be (planning.py), the probabilities themselves (inference/scoring.py).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest

from understudy.inference.batching import TokenLogprob
from understudy.inference.scoring import score_tokens
from understudy.serve.errors import ApiError
from understudy.serve.metrics import Metrics
from understudy.serve.planning import plan_completion
from understudy.serve.protocol import CompletionRequest
from understudy.serve.served import Served
from understudy.serve.streams import CLIENT_LEFT, DONE, Answers, event, on_leaving
from understudy.serve.tokens import logprob_number, token_text
from understudy.tokenizer import StreamDecoder, Tokenizer
from understudy.tokenizer.base import clean


class TextCompletion:
    """One request for continuations, to be made on the event loop. ``scoring``: held while a prompt is scored, since
    one at a time keeps the cores for the engine."""

    def __init__(self, served: Served, metrics: Metrics, asked: CompletionRequest, scoring: asyncio.Lock) -> None:
        self.served, self.asked, self.scoring = served, asked, scoring
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
        self.choices = len(self.plan.prompts) * self.asked.choices
        self.written = [Written(self.run.tokenizer) for _ in range(self.choices)]

    async def whole(self, request: HttpRequest) -> dict[str, Any]:
        async with on_leaving(request, self.answers.leave):
            echoes = await self._echoes()
            async for _ in self.answers.deltas():
                pass  # the totals keep it
        self.answers.check_ended(self.served.limits.seconds)
        totals = self.answers.totals
        choices = []
        for choice in range(self.choices):
            text, entries = echoes[choice // self.asked.choices]
            total = totals[choice] if totals else None
            choices.append({
                "index": choice,
                "text": text + (total.text if total else ""),
                "logprobs": self._logprobs(choice, [*entries, *(total.logprobs if total else ())]),
                "finish_reason": total.finish_reason if total else "length",
            })  # fmt: skip
        return self._envelope() | {"choices": choices, "usage": self._usage()}

    async def events(self, request: HttpRequest) -> AsyncGenerator[bytes, None]:
        async with on_leaving(request, self.answers.leave):
            if self.asked.echo:
                echoes = await self._echoes()
                for choice in range(self.choices):
                    text, entries = echoes[choice // self.asked.choices]
                    yield self._chunk(choice, text, entries, None if self.answers.totals else "length")
            async for joined in self.answers.deltas():
                for choice, delta in joined.items():
                    ended = delta.finish_reason if delta.finish_reason in ("stop", "length") else None
                    if delta.text or ended or (delta.logprobs and self.asked.logprobs is not None):
                        yield self._chunk(choice, delta.text, delta.logprobs, ended)
        self.answers.check_ended(self.served.limits.seconds)
        if self.asked.include_usage:
            yield event(self._envelope() | {"choices": [], "usage": self._usage()})
        yield DONE

    async def _echoes(self) -> list[tuple[str, list[Entry]]]:
        """What is repeated of each prompt: its text, and its tokens where log-probabilities are asked for.

        Raises:
            ApiError: the client left, or the time is over, before all was scored.
        """
        if not self.asked.echo:
            return [("", [])] * len(self.plan.prompts)
        texts = [clean(p) if isinstance(p, str) else self.run.tokenizer.decode(p) for p in self.asked.prompts]
        if self.asked.logprobs is None:
            return [(text, []) for text in texts]
        echoes = []
        try:
            async with asyncio.timeout(self.served.limits.seconds):
                for text, tokens in zip(texts, self.plan.prompts):
                    async with self.scoring:
                        if self.answers.left:
                            raise ApiError(CLIENT_LEFT, "the answer was cancelled", code="cancelled")
                        scored = await asyncio.to_thread(
                            score_tokens, self.run.model, tokens, self.asked.logprobs, self.run.autocast
                        )
                    echoes.append((text, [tokens[0], *scored]))
        except TimeoutError as error:
            seconds = self.served.limits.seconds
            raise ApiError(504, f"the prompts took more than {seconds:g} s; send fewer", code="timeout") from error
        return echoes

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.run.name,
            "system_fingerprint": self.run.weights_sha256,
        }

    def _chunk(self, choice: int, text: str, entries: Sequence[Entry], finish_reason: str | None) -> bytes:
        content = {
            "index": choice, "text": text, "logprobs": self._logprobs(choice, entries), "finish_reason": finish_reason
        }  # fmt: skip
        usage = {"usage": None} if self.asked.include_usage else {}
        return event(self._envelope() | {"choices": [content]} | usage)

    def _usage(self) -> dict[str, Any]:
        prompt = sum(map(len, self.plan.prompts))
        answers = sum(len(total.tokens) for total in self.answers.totals)
        return {"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers}

    def _logprobs(self, choice: int, entries: Sequence[Entry]) -> dict[str, Any] | None:
        if self.asked.logprobs is None:
            return None
        return self.written[choice].add(entries)


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
