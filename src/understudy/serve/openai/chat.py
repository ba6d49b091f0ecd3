"""/v1/chat/completions: answers to a conversation, whole or as a stream of chunks, and their records in the feedback store.

The id of the answer of choice 0 is the completion's without `chatcmpl-`; that of choice 1 ends in `-1`, and so on. The record
is written before the client receives the end of the answer. Not here: the messages that fit the context (plan.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest

from understudy.inference.batching import TokenLogprob
from understudy.serve.errors import ApiError
from understudy.serve.metrics import ServerMetrics
from understudy.serve.openai.plan import RequestPlan, plan_chat
from understudy.serve.openai.schemas import ChatRequest
from understudy.serve.openai.stream import DONE, ChoiceDelta, ResponseStream, event, on_disconnect
from understudy.serve.openai.tokens import logprob_number, token_text
from understudy.serve.served import Served, ServedRun
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids

if TYPE_CHECKING:
    from understudy.feedback.store import FeedbackStore

ID_PREFIX = "chatcmpl-"


class ChatCompletion:
    """One request for answers to a conversation. Construct it on the event loop."""

    def __init__(self, served: Served, metrics: ServerMetrics, request: ChatRequest) -> None:
        self.served, self.request = served, request
        self.run: ServedRun = served.find(request.model)
        self.id = uuid.uuid4().hex
        self.conversation_id = request.conversation_id or uuid.uuid4().hex
        self.created = int(time.time())
        self.stream = ResponseStream(metrics.first_token_seconds.labels(self.run.name).observe)
        self.end_ids = end_ids(self.run.tokenizer)

    async def begin(self) -> None:
        """Plan and submit.

        Raises:
            ApiError: an invalid request, or a full queue.
        """
        self.plan = await asyncio.to_thread(plan_chat, self.run, self.request, self.served.limits)
        self.stream.submit(self.run.engine, self.plan.requests)

    async def whole(self, connection: HttpRequest) -> dict[str, Any]:
        async with on_disconnect(connection, self.stream.disconnect):
            async for _ in self.stream.deltas():
                pass  # the totals collect it
        for choice in range(len(self.stream.totals)):
            await self._record(choice)
        self.stream.check_ended(self.served.limits.seconds)
        choices = [
            {
                "index": choice,
                "message": {"role": "assistant", "content": total.text, "refusal": None},
                "logprobs": self._logprobs(total),
                "finish_reason": total.finish_reason,
            }
            for choice, total in enumerate(self.stream.totals)
        ]
        return self._envelope("chat.completion") | {"choices": choices, "usage": self.stream.usage(self.plan.prompts)}

    async def events(self, connection: HttpRequest) -> AsyncGenerator[bytes, None]:
        async with on_disconnect(connection, self.stream.disconnect):
            for choice in range(len(self.stream.totals)):
                yield self._chunk(choice, {"role": "assistant", "content": "", "refusal": None})
            async for joined in self.stream.deltas():
                for choice, delta in joined.items():
                    if delta.text or (self.request.logprobs and delta.logprobs):
                        yield self._chunk(choice, {"content": delta.text}, self._logprobs(delta))
                    if delta.finish_reason:
                        await self._record(choice)
                        if delta.finish_reason in ("stop", "length"):
                            yield self._chunk(choice, {}, finish_reason=delta.finish_reason)
        self.stream.check_ended(self.served.limits.seconds)
        if self.request.include_usage:
            yield event(
                self._envelope("chat.completion.chunk") | {"choices": [], "usage": self.stream.usage(self.plan.prompts)}
            )
        yield DONE

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": ID_PREFIX + self.id,
            "object": kind,
            "created": self.created,
            "model": self.run.name,
            "system_fingerprint": self.run.weights_sha256,
            "conversation_id": self.conversation_id,
            "messages_left_out": self.plan.left_out,
        }

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        content = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self.request.include_usage else {}
        return event(self._envelope("chat.completion.chunk") | {"choices": [content]} | usage)

    def _logprobs(self, delta: ChoiceDelta) -> dict[str, Any] | None:
        if not self.request.logprobs:
            return None
        visible = [entry for entry in delta.logprobs if entry.token not in self.end_ids]
        return {"content": [chat_logprob(self.run.tokenizer, entry) for entry in visible], "refusal": None}

    async def _record(self, choice: int) -> None:
        total, id = self.stream.totals[choice], answer_id(self.id, choice)
        await record_answer(self.served.store, self.run, self.plan, choice, total, self.conversation_id, id)


async def record_answer(
    store: FeedbackStore | None,
    run: ServedRun,
    plan: RequestPlan,
    choice: int,
    total: ChoiceDelta,
    conversation_id: str,
    id: str,
) -> bool:
    """Write an answer, complete or cut, to the feedback store, if there is one. An answer that was cut before its first
    token is not written.

    Returns:
        Whether it was written under ``id``.

    Raises:
        ApiError: the store failed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from understudy.feedback.records import AnswerRecord

    if total.finish_reason is None:
        raise RuntimeError("an answer can only be recorded after its end")
    if store is None or not (total.tokens or total.finish_reason in ("stop", "length")):
        return False
    request = plan.requests[choice]
    record = AnswerRecord(
        conversation_id=conversation_id, prompt=list(plan.messages), text=total.text, run=run.name, step=run.step,
        weights_sha256=run.weights_sha256,
        settings=asdict(request.settings) | {"max_new_tokens": request.max_new_tokens, "stop": list(request.stop)},
        finish_reason=total.finish_reason, tokens=len(total.tokens), id=id,
    )  # fmt: skip
    try:
        await asyncio.to_thread(store.add_answer, record)
    except SQLAlchemyError as error:
        logging.getLogger("uvicorn.error").exception("an answer could not be stored")
        message = "the answer could not be stored in the feedback database; see the server's log"
        raise ApiError(500, message, code="store_failed") from error
    return True


def answer_id(id: str, choice: int) -> str:
    """The id of an answer in the feedback store."""
    return id if choice == 0 else f"{id}-{choice}"


def chat_logprob(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, Any]:
    """A token and the likeliest alternatives, in the schema of chat completions."""

    def entry_of(token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": token_text(tokenizer, token),
            "logprob": logprob_number(logprob),
            "bytes": list(tokenizer.token_bytes(token)),
        }

    return entry_of(entry.token, entry.logprob) | {"top_logprobs": [entry_of(*other) for other in entry.top]}
