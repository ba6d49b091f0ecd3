"""From what was asked over HTTP to what the engine is given: prompts as tokens, lengths, settings.

What people write is text: conversations are rendered by tokenizer/chat.py, prompts encoded, and neither can spell a
special token. Not here: generating, and how answers go back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from understudy.chat.session import reserved_tokens
from understudy.inference.batching import SequenceRequest
from understudy.inference.generate import check_request, encode_prompt
from understudy.serve.errors import ApiError, subject
from understudy.serve.openai.schemas import ChatRequest, CompletionRequest, GenerationRequest
from understudy.serve.served import Limits, ServedRun
from understudy.tokenizer.chat import Message, check_messages, end_ids, fit, render, speaks_chat

COMPLETION_TOKENS = 16
"""What OpenAI's completions give where nobody says how much."""


@dataclass(frozen=True)
class RequestPlan:
    """What the engine is asked: a request for each choice, in their order."""

    requests: list[SequenceRequest]
    prompts: list[list[int]]
    messages: tuple[Message, ...] = ()
    """Of a conversation, what the model is given of it."""
    left_out: int = 0
    """How many of its oldest messages are not."""


def plan_chat(run: ServedRun, asked: ChatRequest, limits: Limits) -> RequestPlan:
    """The latest turns that fit the context beside room for an answer, as `understudy chat` reads them.

    Raises:
        ApiError: no such conversation, one that cannot be encoded, or whose last message alone is too long; settings
            out of their range.
    """
    if not speaks_chat(run.tokenizer):
        raise ApiError(
            400, f"the model {run.name} continues text and was not taught to answer; ask /v1/completions, or serve a "
            "run that was finetuned by `understudy sft`", "model", "model_not_chat",
        )  # fmt: skip
    _check_choices(asked.choices, limits)
    if asked.most_tokens == 0:
        raise ApiError(400, "max_tokens is 0; an answer has 1 or more", "max_tokens", "invalid_value")
    most = min(n for n in (asked.most_tokens, limits.max_tokens, run.context_length) if n is not None)
    with refusing("messages"):
        roles = {"developer": "system"}  # OpenAI's new name of it
        messages = check_messages(
            [{"role": roles.get(message.role, message.role), "content": message.text} for message in asked.messages]
        )
        render(run.tokenizer, messages, reply=True)  # so that what fit refuses below is only the length
    free = run.context_length - reserved_tokens(run.context_length, most)
    with refusing("messages", "context_length_exceeded"):
        kept, left_out = fit(run.tokenizer, messages, min(free, limits.prompt_tokens or free))
    prompt = render(run.tokenizer, kept, reply=True).tokens
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    requests = _requests(run, asked, [prompt], min(most, run.context_length - len(prompt)), limits, top)
    return RequestPlan(requests, [prompt], tuple(kept), left_out)


def plan_completion(run: ServedRun, asked: CompletionRequest, limits: Limits) -> RequestPlan:
    """Prompts that fit the context whole, beside all that is to be generated.

    Raises:
        ApiError: no prompt, one that cannot be encoded or is too long; settings out of their range.
    """
    _check_choices(len(asked.prompts) * asked.choices, limits)
    with refusing("prompt"):
        if not asked.prompts:
            raise ValueError("the list of prompts is empty; give one or more")
        prompts = [encode_prompt(run.tokenizer, p) if isinstance(p, str) else p for p in asked.prompts]
        check_request(run.model, prompts, 0, run.tokenizer)
    longest = max(map(len, prompts))
    if limits.prompt_tokens is not None and longest > limits.prompt_tokens:
        raise ApiError(
            400, f"a prompt takes {longest:,} tokens, and this server reads {limits.prompt_tokens:,}; send a shorter one",
            "prompt", "context_length_exceeded",
        )  # fmt: skip
    room = run.context_length - longest
    most = asked.max_tokens
    if most is None:
        most = max(0, min(COMPLETION_TOKENS, room, limits.max_tokens or COMPLETION_TOKENS))
    elif limits.max_tokens is not None and most > limits.max_tokens:
        raise ApiError(
            400,
            f"max_tokens is {most:,}; this server gives at most {limits.max_tokens:,}",
            "max_tokens",
            "invalid_value",
        )
    if most > room or (most == 0 and not asked.echo):
        raise ApiError(
            400, f"the longest prompt takes {longest:,} tokens and max_tokens is {most:,}; the model's context holds "
            f"{run.context_length:,}, and an answer has 1 or more", "max_tokens" if room > 0 else "prompt",
            "context_length_exceeded",
        )  # fmt: skip
    of_prompt = asked.logprobs if asked.echo else None
    return RequestPlan(_requests(run, asked, prompts, most, limits, asked.logprobs, of_prompt), prompts)


@contextlib.contextmanager
def refusing(param: str | None = None, code: str = "invalid_value") -> Iterator[None]:
    """Answer a ValueError, which is one sentence to whoever caused it, with status 400."""
    try:
        yield
    except ValueError as error:
        raise ApiError(400, str(error), param, code) from error


def _requests(
    run: ServedRun, asked: GenerationRequest, prompts: list[list[int]], most: int, limits: Limits,
    logprobs: int | None, prompt_logprobs: int | None = None,
) -> list[SequenceRequest]:  # fmt: skip
    try:
        settings = [asked.settings(choice) for choice in range(asked.choices)]
    except ValueError as error:
        raise ApiError(400, str(error), subject(str(error)), "invalid_value") from error
    return [
        SequenceRequest(
            prompt,
            most,
            own,
            asked.stops,
            end_ids(run.tokenizer),
            logprobs,
            timeout=limits.seconds,
            prompt_logprobs=None if number else prompt_logprobs,
        )
        for prompt in prompts
        for number, own in enumerate(settings)
    ]


def _check_choices(choices: int, limits: Limits) -> None:
    if choices > limits.choices:
        raise ApiError(
            400, f"{choices:,} answers are asked for, and one request gets at most {limits.choices:,}; ask several times",
            "n", "invalid_value",
        )  # fmt: skip
