"""Schemas of requests: OpenAI's parameters, and our sampling settings.

Unknown parameters, and known ones that would have no effect here, are refused by name. OpenAI's parameters are accepted at
the values that change nothing, and so are labels and the usual spellings of "off". Not here: limits of the model (plan.py).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from understudy.inference.sampling import SamplingSettings
from understudy.serve.openai.tool_schemas import MOST_TOOLS, EarlierCall, NamedTool, ResponseFormat, Shape, ToolSchema

MOST_LOGPROBS = 20
MOST_STOPS, MOST_STOP_CHARACTERS = 16, 200
OFF: dict[str, tuple[Any, ...]] = {
    "max_tokens": (-1,), "max_completion_tokens": (-1,), "top_k": (-1, 0), "seed": (-1,),
}  # fmt: skip
"""Other spellings of "not set", as servers of other projects accept them."""
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "store": (False,), "parallel_tool_calls": (True, False), "service_tier": ("auto", "default"),
    "modalities": (["text"],), "response_format": ({"type": "text"},), "tools": ([],), "tool_choice": ("none", "auto"),
    "functions": ([],), "function_call": ("none", "auto"), "reasoning_effort": ("none",), "verbosity": ("medium",),
    "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},), "suffix": ("",),
    "audio": (), "prediction": (), "web_search_options": (), "moderation": (),
}  # fmt: skip
"""Parameters of OpenAI's that have no effect at these values, nor at null; any other value is refused."""
FOR_CHAT = ("response_format", "tools", "tool_choice", "parallel_tool_calls")
"""Those that have an effect in chat requests."""
TEXT_ONLY = "this model reads text only; leave it out"
Count = Annotated[int, Field(ge=0, lt=2**63)]


def is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether ``value`` equals one of ``values``; false is not 0."""
    return any(isinstance(value, bool) == isinstance(other, bool) and value == other for other in values)


class StreamOptions(Shape):
    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationRequest(Shape):
    """Parameters of both kinds of completions."""

    without_effect: ClassVar[dict[str, tuple[Any, ...]]] = WITHOUT_EFFECT
    model: str = Field(max_length=500)
    n: int = Field(default=1, ge=1, lt=2**63)
    max_tokens: Count | None = None
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: Count | None = None
    stop: list[str] = Field(default=[])
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    # Labels without effect on the completion.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_defaults(cls, body: Any) -> Any:
        """Leave out parameters that are null, off, or at a value that changes nothing."""
        if not isinstance(body, dict):
            return body
        given = {}
        for name, value in body.items():
            allowed = cls.without_effect.get(name)
            if value is None or is_one_of(value, allowed or OFF.get(name, ())):
                continue
            if allowed is not None:
                accepted = " or ".join(json.dumps(other) for other in (*allowed, None))
                raise ValueError(f"{name} is {json.dumps(value)[:100]}; this server accepts only {accepted}")
            given[name] = value
        return given

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        stops = [value] if isinstance(value, str) else value
        if not isinstance(stops, list):
            return stops
        if len(stops) > MOST_STOPS or any(len(str(stop)) > MOST_STOP_CHARACTERS for stop in stops):
            raise ValueError(f"give at most {MOST_STOPS} strings of 1 to {MOST_STOP_CHARACTERS} characters")
        return [stop for stop in stops if stop != ""]

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options.include_usage and not self.stream:
            raise ValueError("stream_options is only accepted with stream=true")
        return self

    def settings(self, choice: int) -> SamplingSettings:
        """Sampling settings of one of the ``n`` completions; each adds its number to the seed.

        Raises:
            ValueError: a value out of its range.
        """
        seed = None if self.seed is None else self.seed + choice
        return SamplingSettings(self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty, seed)


class ChatMessage(BaseModel):
    """One message with its text parts joined; additional keys, such as a name, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: str
    content: str
    tool_calls: list[EarlierCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_content(cls, message: Any) -> Any:
        """An assistant's content may be null, as in a call of a tool; it is an empty answer."""
        if isinstance(message, dict) and message.get("role") == "assistant" and message.get("content") is None:
            return message | {"content": ""}
        return message

    @field_validator("content", mode="before")
    @classmethod
    def _text(cls, content: Any) -> str:
        texts = []
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, None)
            if isinstance(kind, str) and kind != "text":
                noun = {"image_url": "an image", "input_audio": "audio", "file": "a file"}.get(kind, f"{kind[:40]!r}")
                raise ValueError(f"the part is {noun}; {TEXT_ONLY}")
            if kind != "text" or not isinstance(text, str):
                raise ValueError("give a text, or a list of parts with a text each")
            texts.append(text)
        return "".join(texts)


class ChatRequest(GenerationRequest):
    without_effect: ClassVar[dict[str, tuple[Any, ...]]] = {
        name: values for name, values in WITHOUT_EFFECT.items() if name not in FOR_CHAT
    }

    messages: list[ChatMessage]
    response_format: ResponseFormat | None = None
    tools: list[ToolSchema] = Field(default=[], max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=MOST_LOGPROBS)
    conversation_id: str | None = Field(default=None, pattern=r"^[!-~]{1,100}$")
    """Our own parameter: the conversation that the feedback store files the answers under."""

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is only accepted with logprobs=true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        wanted, choice = self.response_format, self.tool_choice
        if wanted is not None and (wanted.type == "json_schema") != (wanted.json_schema is not None):
            raise ValueError("response_format has a json_schema exactly where its type is json_schema")
        names = [tool.function.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError("tools has two functions of the same name")
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise ValueError(f"tool_choice names {choice.function.name}, which is none of the tools")
        if choice == "required" and not names:
            raise ValueError("tool_choice is required; give tools")
        if self.calls_tools and wanted is not None and wanted.type != "text":
            raise ValueError(
                "response_format is not accepted beside tools; leave out one of them, or give tool_choice none"
            )
        return self

    @property
    def calls_tools(self) -> bool:
        """Whether the answer may call tools."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(GenerationRequest):
    prompt: str | list[str] | list[int] | list[list[int]] = ""
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: int | None = None

    @model_validator(mode="after")
    def _best_of(self) -> Self:
        if self.best_of not in (None, 1, self.n):
            raise ValueError("best_of is only accepted as 1 or n; ask for n completions and choose among them")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or token ids."""
        one = isinstance(self.prompt, str) or (self.prompt and isinstance(self.prompt[0], int))
        return [self.prompt] if one else list(self.prompt)  # type: ignore[list-item,arg-type]


class FeedbackRequest(Shape):
    kind: str
    answer_id: str
    annotator: str | None = None
    value: int | None = None
    comment: str | None = None
    correction: str | None = None
    other_answer_id: str | None = None
