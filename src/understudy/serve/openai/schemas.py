"""Schemas of requests: OpenAI's parameters, and our sampling settings.

Unknown parameters, and known ones that would have no effect here, are refused by name. OpenAI's parameters are accepted at
the values that change nothing, and so are labels and the usual spellings of "off". Responses are plain dictionaries (chat.py,
completions.py). Not here: limits of the model (plan.py).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from understudy.inference.sampling import SamplingSettings

MOST_LOGPROBS = 20
MOST_STOPS, MOST_STOP_CHARACTERS = 16, 200
UNSUPPORTED = {
    "logit_bias": "this server does not change the logits of single tokens; leave it out",
    "tools": "this model calls no tools; leave it out",
    "functions": "this model calls no functions; leave it out",
    "suffix": "this model only continues texts; leave it out",
}
"""Parameters that are refused unless they are empty, and why."""
OFF: dict[str, tuple[Any, ...]] = {
    "max_tokens": (-1,),
    "max_completion_tokens": (-1,),
    "top_k": (-1, 0),
    "seed": (-1,),
    "stop": ("",),
}
"""Other spellings of "not set", as servers of other projects accept them."""
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "function_call": ("none", "auto"),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
"""Parameters of OpenAI's that have no effect at these values, nor at null; any other value is refused."""
TEXT_ONLY = "this model reads text only; leave it out"


def is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether ``value`` equals one of ``values`` of its own type, so that false is not 0."""
    return any(type(value) is type(other) and value == other for other in values)


class Shape(BaseModel):
    """A JSON object with the declared fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Shape):
    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationRequest(Shape):
    """Parameters of both kinds of completions."""

    model: str = Field(max_length=500)
    n: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = None
    # Labels without effect on the completion.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_defaults(cls, body: Any) -> Any:
        """Leave out parameters that are null, off, or at a value that changes nothing."""
        if not isinstance(body, dict):
            return body
        given = {}
        for name, value in body.items():
            allowed = WITHOUT_EFFECT.get(name)
            if value is None or is_one_of(value, allowed or OFF.get(name, ())):
                continue
            if allowed is not None:
                accepted = " or ".join(json.dumps(other) for other in (*allowed, None))
                raise ValueError(f"{name} is {json.dumps(value)[:100]}; this server accepts only {accepted}")
            given[name] = value
        return given

    @field_validator("logit_bias", "tools", "functions", "suffix", check_fields=False)
    @classmethod
    def _unsupported(cls, value: Any, info: Any) -> Any:
        if value:
            raise ValueError(UNSUPPORTED[info.field_name])
        return value

    @field_validator("presence_penalty", "frequency_penalty")
    @classmethod
    def _no_penalty(cls, value: float | None) -> float | None:
        if value:
            raise ValueError("only 0 is accepted; use repetition_penalty here")
        return value

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        stops = [value] if isinstance(value, str) else [stop for stop in value or [] if stop]
        if len(stops) > MOST_STOPS or any(not 0 < len(stop) <= MOST_STOP_CHARACTERS for stop in stops):
            raise ValueError(f"give at most {MOST_STOPS} strings of 1 to {MOST_STOP_CHARACTERS} characters")
        return stops

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.include_usage and not self.stream:
            raise ValueError("stream_options is only accepted with stream=true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def choices(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def settings(self, choice: int = 0) -> SamplingSettings:
        """Sampling settings of one of the ``n`` completions; each adds its number to the seed.

        Raises:
            ValueError: a value out of its range.
        """
        return SamplingSettings(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            seed=None if self.seed is None else self.seed + choice,
        )


class ContentPart(BaseModel):
    """A part of a message; additional keys, such as ``cache_control``, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: str
    text: str

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, part: Any) -> Any:
        if isinstance(part, dict) and isinstance(kind := part.get("type"), str) and kind != "text":
            noun = {"image_url": "an image", "input_audio": "audio", "file": "a file"}.get(kind, f"{kind[:40]!r}")
            raise ValueError(f"the part is {noun}; {TEXT_ONLY}")
        return part


class ChatMessage(BaseModel):
    """One message; additional keys, such as a name, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: str
    content: str | list[ContentPart]

    @model_validator(mode="before")
    @classmethod
    def _null_content(cls, message: Any) -> Any:
        """An assistant's content may be null, as in a call of a tool; it is an empty answer."""
        if isinstance(message, dict) and message.get("role") == "assistant" and message.get("content") is None:
            return message | {"content": ""}
        return message

    @field_validator("content", mode="wrap")
    @classmethod
    def _one_error(cls, value: Any, validate: Any, info: Any) -> Any:
        """Validate by the type given, so that an error is about it and not about the other one."""
        if isinstance(value, list):
            return [ContentPart.model_validate(part) for part in value]
        if isinstance(value, str):
            return value
        raise ValueError("give a text, or a list of parts with a text each")

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Shape):
    type: Literal["text"]


class ChatRequest(GenerationRequest):
    messages: list[ChatMessage]
    max_completion_tokens: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    response_format: TextFormat | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    conversation_id: str | None = Field(default=None, pattern=r"^[!-~]{1,100}$")
    """Our own parameter: the conversation that the feedback store files the answers under."""

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is only accepted with logprobs=true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        return self

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(GenerationRequest):
    prompt: str | list[str] | list[int] | list[list[int]] = ""
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _best_of(self) -> Self:
        if self.best_of not in (None, 1, self.choices):
            raise ValueError("best_of is only accepted as 1 or n; ask for n completions and choose among them")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)  # type: ignore[arg-type]


class FeedbackRequest(Shape):
    kind: str
    answer_id: str
    annotator: str | None = None
    value: int | None = None
    comment: str | None = None
    correction: str | None = None
    other_answer_id: str | None = None
