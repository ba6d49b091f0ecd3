"""From an HTTP request to requests to the engine: prompts as tokens, lengths, settings.

Contents are text: conversations are rendered by tokenizer/chat.py and prompts are encoded, and neither can produce a special
token. Not here: generation, responses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.chat.session import reserved_tokens
from understudy.inference.batching import SequenceRequest
from understudy.inference.constraint import OutputConstraint
from understudy.inference.generate import check_request, encode_prompt
from understudy.serve.errors import ApiError, subject
from understudy.serve.openai.schemas import ChatMessage, ChatRequest, CompletionRequest, GenerationRequest
from understudy.serve.openai.tool_schemas import ToolSchema
from understudy.serve.openai.tools import response_constraint, tool_constraint
from understudy.serve.served import Limits, ServedRun
from understudy.tokenizer.chat import ConversationTooLong, Message, end_ids, fit, speaks_chat
from understudy.tokenizer.tool_calls import ToolCallFormat

COMPLETION_TOKENS = 16
"""Default of ``max_tokens`` in OpenAI's completions."""


@dataclass(frozen=True)
class RequestPlan:
    """Requests to the engine, one for each choice, in order; the messages of a conversation that the model is given, and the
    number of older ones that do not fit the context; the form of calls of tools, if the answer may call some."""

    requests: list[SequenceRequest]
    prompts: list[list[int]]
    messages: tuple[Message, ...] = ()
    left_out: int = 0
    calls: ToolCallFormat | None = None


def conversation(messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()) -> list[Message]:
    """Messages in the order that the chat format has: one system message, then user and assistant in turns.

    System messages are joined and come first; neighbours of one role are joined. A client sends two user messages in a row
    after an answer that was stopped, and some repeat instructions as a system message in the middle. Tools are listed by the
    system message, and their results get the name of the function.
    """
    system: list[str] = []
    turns: list[Message] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.role in ("system", "developer"):
            system.append(message.content)
        elif turns and turns[-1]["role"] == message.role and message.role in ("user", "assistant"):
            turns[-1]["content"] = _joined([turns[-1]["content"], message.content])
        else:
            turns.append({"role": message.role, "content": message.content})
        if message.tool_calls and message.role == "assistant":
            turns[-1].setdefault("tool_calls", []).extend(call.model_dump() for call in message.tool_calls)
            names |= {call.id: call.function.name for call in message.tool_calls}
        if message.role == "tool" and message.tool_call_id is not None:
            name = {"name": names[message.tool_call_id]} if message.tool_call_id in names else {}
            turns[-1] |= {"tool_call_id": message.tool_call_id, **name}
    listed: dict[str, Any] = {"tools": [tool.listed() for tool in tools]} if tools else {}
    return [*([{"role": "system", "content": _joined(system), **listed}] if system or tools else []), *turns]


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(text for text in texts if text.strip())


def plan_chat(run: ServedRun, request: ChatRequest, limits: Limits) -> RequestPlan:
    """The latest turns that fit the context beside room for an answer, as in `understudy chat`."""
    if not speaks_chat(run.tokenizer):
        raise ApiError(
            400, f"the model {run.name} continues text and was not finetuned to answer; use /v1/completions, or serve a "
            "run that was finetuned by `understudy sft`", "model", "model_not_chat",
        )  # fmt: skip
    if request.most_tokens == 0:
        raise ApiError(400, "max_tokens is 0; an answer has 1 or more", "max_tokens", "invalid_value")
    most = min(n for n in (request.most_tokens, limits.max_tokens, run.context_length) if n is not None)
    free = run.context_length - reserved_tokens(run.context_length, most)
    calls, constraint = None, None
    if request.calls_tools:
        with refusing("tools"):
            calls, constraint = tool_constraint(run.tokenizer, request)
    else:
        with refusing("response_format"):
            constraint = response_constraint(run.tokenizer, request)
    listed = request.tools if request.calls_tools else ()
    with refusing("messages"):
        fitted = fit(run.tokenizer, conversation(request.messages, listed), min(free, limits.prompt_tokens or free))
    most = min(most, run.context_length - len(fitted.tokens))
    top = request.top_logprobs if request.logprobs else None
    requests = _requests(run, request, [fitted.tokens], most, limits, top, constraint=constraint)
    return RequestPlan(requests, [fitted.tokens], tuple(fitted.messages), fitted.left_out, calls)


def plan_completion(run: ServedRun, request: CompletionRequest, limits: Limits) -> RequestPlan:
    """Prompts that fit the context beside all tokens to be generated."""
    with refusing("prompt"):
        if not request.prompts:
            raise ValueError("the list of prompts is empty; give one or more")
        prompts = [encode_prompt(run.tokenizer, p) if isinstance(p, str) else p for p in request.prompts]
        check_request(run.model, prompts, 0, run.tokenizer)
        longest, accepted = max(map(len, prompts)), min(run.context_length, limits.prompt_tokens or run.context_length)
        if longest > accepted:
            raise ConversationTooLong(f"a prompt takes {longest:,} tokens of {accepted:,}; send a shorter one")
    room, most = run.context_length - longest, request.max_tokens
    with refusing("max_tokens"):
        if most is None:
            most = min(COMPLETION_TOKENS, room, limits.max_tokens or COMPLETION_TOKENS)
        elif limits.max_tokens is not None and most > limits.max_tokens:
            raise ValueError(f"max_tokens is {most:,}; this server generates at most {limits.max_tokens:,}")
        if most > room or (most == 0 and not request.echo):
            raise ConversationTooLong(
                f"the longest prompt takes {longest:,} tokens and max_tokens is {most:,}; the model's context holds "
                f"{run.context_length:,}, and an answer has 1 or more"
            )
    of_prompt = request.logprobs if request.echo else None
    return RequestPlan(_requests(run, request, prompts, most, limits, request.logprobs, of_prompt), prompts)


@contextlib.contextmanager
def refusing(param: str | None = None) -> Iterator[None]:
    """Turn a ValueError, whose message is one sentence to the user, into status 400."""
    try:
        yield
    except ValueError as error:
        code = "context_length_exceeded" if isinstance(error, ConversationTooLong) else "invalid_value"
        raise ApiError(400, str(error), param or subject(str(error)), code) from error


def _requests(
    run: ServedRun, request: GenerationRequest, prompts: list[list[int]], most: int, limits: Limits,
    logprobs: int | None, prompt_logprobs: int | None = None, constraint: OutputConstraint | None = None,
) -> list[SequenceRequest]:  # fmt: skip
    with refusing("n"):
        if (choices := len(prompts) * request.n) > limits.choices:
            raise ValueError(f"{choices:,} completions are requested; one request gets at most {limits.choices:,}")
    with refusing():
        settings = [request.settings(choice) for choice in range(request.n)]
    return [
        SequenceRequest(
            prompt, most, choice_settings, request.stop, end_ids(run.tokenizer), logprobs, timeout=limits.seconds,
            prompt_logprobs=None if choice else prompt_logprobs, answer=isinstance(request, ChatRequest),
            constraint=constraint,
        )
        for prompt in prompts
        for choice, choice_settings in enumerate(settings)
    ]  # fmt: skip
