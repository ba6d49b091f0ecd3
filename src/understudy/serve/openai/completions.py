"""/v1/chat/completions and /v1/completions: whole or as a stream of chunks, and the records of answers in the feedback store.

The id of the answer of choice 0 is the completion's without `chatcmpl-`; that of choice 1 ends in `-1`, and so on. The record
is written before the client receives the end of the answer. Not here: what fits the context (plan.py).
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from understudy.feedback.records import AnswerRecord
from understudy.inference.requests import CompletionChunk, TokenLogprob
from understudy.serve.openai.plan import RequestPlan, plan_chat, plan_completion
from understudy.serve.openai.schemas import ChatRequest, CompletionRequest, GenerationRequest
from understudy.serve.openai.stream import DONE, EventStream, ResponseStream, event
from understudy.serve.openai.tools import ToolCall, ToolCallReader
from understudy.serve.served import Served
from understudy.tokenizer import StreamDecoder, Tokenizer
from understudy.tokenizer.base import clean
from understudy.tokenizer.chat import end_ids

CHAT_PREFIX = "chatcmpl-"
LEAST_LOGPROB = -9999.0
"""OpenAI's value for log 0, since JSON has no infinity."""
Entry = TokenLogprob | int
"""A token with its log-probability; a bare id is the first token, which nothing predicts."""


class OpenCompletion:
    """One request from its plan to its response, in the form that a subclass gives. Construct it on the event loop.

    ``observe_first_token`` is called with the seconds until the first token of any choice.
    """

    prefix: str
    kind: str
    chunk_kind: str
    planner: Callable[..., RequestPlan]

    def __init__(
        self, served: Served, request: GenerationRequest, observe_first_token: Callable[[str, float], None]
    ) -> None:
        self.served, self.request, self.run = served, request, served.find(request.model)
        self.id, self.created = uuid.uuid4().hex, int(time.time())
        self.stream = ResponseStream(lambda seconds: observe_first_token(self.run.name, seconds))

    async def begin(self) -> None:
        """Plan and submit."""
        self.plan = await asyncio.to_thread(self.planner, self.run, self.request, self.served.limits)
        self.stream.submit(self.run.engine, self.plan.requests)

    async def respond(self, connection: HttpRequest) -> Response:
        await self.begin()
        if self.request.stream:
            return EventStream(self.events(connection))
        async with self.stream.read_by(connection):
            async for _ in self.stream.deltas():
                pass  # the totals collect it
        for choice in range(len(self.stream.totals)):
            await self.record(choice)
        self.stream.check_ended(self.served.limits.seconds)
        choices = [self.choice(choice, total) for choice, total in enumerate(self.stream.totals)]
        return JSONResponse(self.envelope(self.kind) | {"choices": choices, "usage": self.usage()})

    async def events(self, connection: HttpRequest) -> AsyncGenerator[bytes, None]:
        envelope = self.envelope(self.chunk_kind)
        no_usage = {"usage": None} if self.request.stream_options.include_usage else {}
        async with self.stream.read_by(connection):
            async for choice in self.chunks():
                yield event(envelope | {"choices": [choice]} | no_usage)
        self.stream.check_ended(self.served.limits.seconds)
        if self.request.stream_options.include_usage:
            yield event(envelope | {"choices": [], "usage": self.usage()})
        yield DONE

    def envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.prefix + self.id, "object": kind, "created": self.created, "model": self.run.name,
            "system_fingerprint": self.run.weights_sha256,
        }  # fmt: skip

    def usage(self) -> dict[str, Any]:
        """Token counts of the prompts, each counted once, and of all choices, which are ordered by prompt."""
        prompts, totals = self.plan.prompts, self.stream.totals
        of_prompts, of_choices = sum(map(len, prompts)), sum(len(total.tokens) for total in totals)
        cached = sum(total.reused_tokens for total in totals[:: len(totals) // len(prompts)])
        return {
            "prompt_tokens": of_prompts, "completion_tokens": of_choices, "total_tokens": of_prompts + of_choices,
            "prompt_tokens_details": {"cached_tokens": cached},
        }  # fmt: skip

    def choice(self, choice: int, total: CompletionChunk) -> dict[str, Any]:
        """A whole choice."""
        raise NotImplementedError

    def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The choices of a stream's chunks."""
        raise NotImplementedError

    async def record(self, choice: int) -> bool:
        """Keep an answer in the feedback store; a continued text is none. Returns whether it was kept."""
        return False


class ChatCompletion(OpenCompletion):
    """Answers to a conversation."""

    prefix, kind, chunk_kind = CHAT_PREFIX, "chat.completion", "chat.completion.chunk"
    planner = staticmethod(plan_chat)
    request: ChatRequest

    @functools.cached_property
    def conversation_id(self) -> str:
        return self.request.conversation_id or uuid.uuid4().hex

    def envelope(self, kind: str) -> dict[str, Any]:
        ours = {"conversation_id": self.conversation_id, "messages_left_out": self.plan.left_out}
        return super().envelope(kind) | ours

    def choice(self, choice: int, total: CompletionChunk) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": total.text, "refusal": None}
        reader = self._read(total)
        if reader and reader.calls:
            message["content"] = reader.content or None
            message["tool_calls"] = [tool_call(call, call.arguments) for call in reader.calls]
        return {
            "index": choice, "message": message, "logprobs": self._logprobs(total),
            "finish_reason": finish_reason(total, reader),
        }  # fmt: skip

    def _reader(self) -> ToolCallReader | None:
        return None if self.plan.calls is None else ToolCallReader(self.plan.calls)

    def _read(self, total: CompletionChunk) -> ToolCallReader | None:
        """The reader of a whole answer; None if the answer cannot call tools."""
        reader = self._reader()
        for _ in reader.push(total.text, last=True) if reader else ():
            pass  # the reader collects it
        return reader

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        def chunk(
            choice: int, delta: dict[str, Any], logprobs: Any = None, finish_reason: Any = None
        ) -> dict[str, Any]:
            return {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

        readers = [self._reader() for _ in self.stream.totals]
        for choice in range(len(self.stream.totals)):
            yield chunk(choice, {"role": "assistant", "content": "", "refusal": None})
        async for joined in self.stream.deltas():
            for choice, delta in joined.items():
                pieces: list[dict[str, Any]] = [{"content": delta.text}] if delta.text else []
                if reader := readers[choice]:
                    pieces = streamed_pieces(reader, delta)
                if not pieces and self.request.logprobs and delta.logprobs:
                    pieces = [{"content": ""}]
                for number, piece in enumerate(pieces):
                    yield chunk(choice, piece, None if number else self._logprobs(delta))
                if delta.finish_reason:
                    await self.record(choice)
                if delta.complete:
                    yield chunk(choice, {}, finish_reason=finish_reason(delta, reader))

    def _logprobs(self, delta: CompletionChunk) -> dict[str, Any] | None:
        if not self.request.logprobs:
            return None
        tokenizer, ends = self.run.tokenizer, end_ids(self.run.tokenizer)

        def entry(token: int, logprob: float) -> dict[str, Any]:
            return {
                "token": token_text(tokenizer, token), "logprob": max(logprob, LEAST_LOGPROB),
                "bytes": list(tokenizer.token_bytes(token)),
            }  # fmt: skip

        content = [
            entry(each.token, each.logprob) | {"top_logprobs": [entry(*other) for other in each.top]}
            for each in delta.logprobs
            if each.token not in ends
        ]
        return {"content": content, "refusal": None}

    async def record(self, choice: int) -> bool:
        """Write an answer, complete or cut, to the feedback store, if there is one. An answer that was cut before its first
        token is not written, nor one that calls a tool: the store holds texts.
        """
        run, total, request = self.run, self.stream.totals[choice], self.plan.requests[choice]
        if self.served.store is None or not (total.tokens or total.complete):
            return False
        if (reader := self._read(total)) and reader.calls:
            return False
        await self.served.save(AnswerRecord(
            self.conversation_id, list(self.plan.messages), total.text, run.name, run.step, run.weights_sha256,
            asdict(request.settings) | {"max_new_tokens": request.max_new_tokens, "stop": list(request.stop)},
            total.finish_reason or "", len(total.tokens), id=f"{self.id}-{choice}" if choice else self.id,
        ))  # fmt: skip
        return True


class TextCompletion(OpenCompletion):
    """Continuations of texts, with the prompt's own log-probabilities if it is echoed, as `lm_eval` requests."""

    prefix, kind, chunk_kind = "cmpl-", "text_completion", "text_completion"
    planner = staticmethod(plan_completion)
    request: CompletionRequest

    @functools.cached_property
    def logprobs(self) -> list[CompletionLogprobs]:
        return [CompletionLogprobs(self.run.tokenizer) for _ in self.plan.requests]

    def choice(self, choice: int, total: CompletionChunk) -> dict[str, Any]:
        text, entries = self._echo(choice)
        return self._content(choice, text + total.text, [*entries, *total.logprobs], total.finish_reason)

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        echoed: set[int] = set()
        async for joined in self.stream.deltas():
            for choice, delta in sorted(joined.items()):
                if self.request.echo and choice not in echoed:
                    echoed.add(choice)
                    yield self._content(choice, *self._echo(choice))
                if delta.text or delta.complete or (delta.logprobs and self.request.logprobs is not None):
                    reason = delta.finish_reason if delta.complete else None
                    yield self._content(choice, delta.text, delta.logprobs, reason)

    def _echo(self, choice: int) -> tuple[str, list[Entry]]:
        """The echoed prompt of a choice: its text, and its tokens if log-probabilities are requested."""
        if not self.request.echo:
            return "", []
        place, number = divmod(choice, self.request.n)
        prompt = self.request.prompts[place]
        text = clean(prompt) if isinstance(prompt, str) else self.run.tokenizer.decode(prompt)
        if self.request.logprobs is None:
            return text, []
        logprobs = self.stream.totals[choice - number].prompt_logprobs  # the first of a prompt's choices has them
        return text, [self.plan.prompts[place][0], *logprobs]

    def _content(
        self, choice: int, text: str, entries: Sequence[Entry], finish_reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = None if self.request.logprobs is None else self.logprobs[choice].add(entries)
        return {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class CompletionLogprobs:
    """Log-probabilities of one choice in the schema of completions, with the offset of each token in the text. The end token
    is included: `lm_eval` drops the last token in any case."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.decoder, self.characters = tokenizer, StreamDecoder(tokenizer), 0

    def add(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """Convert the next tokens of the choice."""
        lists: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            token, logprob, top = entry if isinstance(entry, int) else entry.token, None, None
            if isinstance(entry, TokenLogprob):
                logprob = max(entry.logprob, LEAST_LOGPROB)
                likeliest = (*entry.top, (token, entry.logprob))
                top = {token_text(self.tokenizer, other): max(value, LEAST_LOGPROB) for other, value in likeliest}
            for name, value in zip(lists, (token_text(self.tokenizer, token), logprob, top, self.characters)):
                lists[name].append(value)
            self.characters += len(self.decoder.push([token]))
        return lists


def tool_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    """A call of a tool as JSON."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def streamed_pieces(reader: ToolCallReader, delta: CompletionChunk) -> list[dict[str, Any]]:
    """The deltas of a stream's chunks for new output: content, the begin of a call, or more of its arguments."""
    pieces: list[dict[str, Any]] = []
    for number, text in reader.push(delta.text, last=delta.finish_reason is not None):
        if number is None:
            pieces.append({"content": text})
        elif not text:
            pieces.append({"tool_calls": [{"index": number, **tool_call(reader.calls[number], "")}]})
        else:
            pieces.append({"tool_calls": [{"index": number, "function": {"arguments": text}}]})
    return pieces


def finish_reason(chunk: CompletionChunk, reader: ToolCallReader | None) -> str | None:
    """OpenAI's finish reason: an answer that ends with a call of a tool has one of its own."""
    return "tool_calls" if reader and reader.calls and chunk.finish_reason == "stop" else chunk.finish_reason


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; in OpenAI's form `bytes:\\xe2\\x82` if it is a part of a character."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
