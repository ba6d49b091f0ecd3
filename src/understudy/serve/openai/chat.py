"""/v1/chat/completions: an answer to a conversation, whole or as a stream of chunks, and its place in the store.

The id of the answer of choice 0 is the completion's without `chatcmpl-`; that of choice 1 ends in `-1`, and so on. It is
in the store before the client is told that the answer has ended. Not here: which messages are read (planning.py).
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
from understudy.serve.openai.stream import DONE, Answers, Delta, event, on_leaving
from understudy.serve.openai.tokens import logprob_number, token_text
from understudy.serve.served import Served, ServedRun
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids

if TYPE_CHECKING:
    from understudy.feedback.store import FeedbackStore

ID_PREFIX = "chatcmpl-"


class ChatCompletion:
    """One request for answers to a conversation; making it on the event loop begins them, once planned."""

    def __init__(self, served: Served, metrics: ServerMetrics, asked: ChatRequest) -> None:
        self.served, self.asked = served, asked
        self.run: ServedRun = served.find(asked.model)
        self.id = uuid.uuid4().hex
        self.conversation_id = asked.conversation_id or uuid.uuid4().hex
        self.created = int(time.time())
        self.answers = Answers(metrics.first_token_seconds.labels(self.run.name).observe)
        self.ends = end_ids(self.run.tokenizer)

    async def begin(self) -> None:
        """RequestPlan and submit.

        Raises:
            ApiError: it cannot be answered, or not now.
        """
        self.plan = await asyncio.to_thread(plan_chat, self.run, self.asked, self.served.limits)
        self.answers.submit(self.run.engine, self.plan.requests)

    async def whole(self, request: HttpRequest) -> dict[str, Any]:
        async with on_leaving(request, self.answers.leave):
            async for _ in self.answers.deltas():
                pass  # the totals keep it
        for choice in range(len(self.answers.totals)):
            await self._keep(choice)
        self.answers.check_ended(self.served.limits.seconds)
        choices = [
            {
                "index": choice,
                "message": {"role": "assistant", "content": total.text, "refusal": None},
                "logprobs": self._logprobs(total),
                "finish_reason": total.finish_reason,
            }
            for choice, total in enumerate(self.answers.totals)
        ]
        return self._envelope("chat.completion") | {"choices": choices, "usage": self.answers.usage(self.plan.prompts)}

    async def events(self, request: HttpRequest) -> AsyncGenerator[bytes, None]:
        async with on_leaving(request, self.answers.leave):
            for choice in range(len(self.answers.totals)):
                yield self._chunk(choice, {"role": "assistant", "content": "", "refusal": None})
            async for joined in self.answers.deltas():
                for choice, delta in joined.items():
                    if delta.text or (self.asked.logprobs and delta.logprobs):
                        yield self._chunk(choice, {"content": delta.text}, self._logprobs(delta))
                    if delta.finish_reason:
                        await self._keep(choice)
                        if delta.finish_reason in ("stop", "length"):
                            yield self._chunk(choice, {}, finish_reason=delta.finish_reason)
        self.answers.check_ended(self.served.limits.seconds)
        if self.asked.include_usage:
            yield event(
                self._envelope("chat.completion.chunk")
                | {"choices": [], "usage": self.answers.usage(self.plan.prompts)}
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
        usage = {"usage": None} if self.asked.include_usage else {}
        return event(self._envelope("chat.completion.chunk") | {"choices": [content]} | usage)

    def _logprobs(self, delta: Delta) -> dict[str, Any] | None:
        if not self.asked.logprobs:
            return None
        shown = [entry for entry in delta.logprobs if entry.token not in self.ends]
        return {"content": [chat_logprob(self.run.tokenizer, entry) for entry in shown], "refusal": None}

    async def _keep(self, choice: int) -> None:
        total, id = self.answers.totals[choice], answer_id(self.id, choice)
        await keep_answer(self.served.store, self.run, self.plan, choice, total, self.conversation_id, id)


async def keep_answer(
    store: FeedbackStore | None,
    run: ServedRun,
    plan: RequestPlan,
    choice: int,
    total: Delta,
    conversation_id: str,
    id: str,
) -> bool:
    """Record an answer, whole or cut short, where there is a store; one of which no word came is none.

    Returns:
        Whether it is kept, under ``id``.

    Raises:
        ApiError: the store failed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from understudy.feedback.records import AnswerRecord

    if total.finish_reason is None:
        raise ValueError(f"the answer {id} has not ended")
    if store is None or not (total.tokens or total.finish_reason in ("stop", "length")):
        return False
    how = plan.requests[choice]
    record = AnswerRecord(
        conversation_id=conversation_id, prompt=list(plan.messages), text=total.text, run=run.name, step=run.step,
        weights_sha256=run.weights_sha256,
        settings=asdict(how.settings) | {"max_new_tokens": how.max_new_tokens, "stop": list(how.stop)},
        finish_reason=total.finish_reason, tokens=len(total.tokens), id=id,
    )  # fmt: skip
    try:
        await asyncio.to_thread(store.add_answer, record)
    except SQLAlchemyError as error:
        logging.getLogger("uvicorn.error").exception("an answer could not be kept")
        message = "the answer could not be kept in the feedback database; the server's log says why"
        raise ApiError(500, message, code="store_failed") from error
    return True


def answer_id(id: str, choice: int) -> str:
    """What an answer is kept under."""
    return id if choice == 0 else f"{id}-{choice}"


def chat_logprob(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, Any]:
    """One token and the likeliest in its place, in the shape of chat completions."""

    def shape(token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": token_text(tokenizer, token),
            "logprob": logprob_number(logprob),
            "bytes": list(tokenizer.token_bytes(token)),
        }

    return shape(entry.token, entry.logprob) | {"top_logprobs": [shape(*other) for other in entry.top]}
