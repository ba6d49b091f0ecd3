"""The shapes of requests: OpenAI's, with sampling settings of our own beside theirs.

What is not known, or would have no effect on the answer though someone may count on it, is refused by its name; what
only labels a request is let through. Shapes of responses are plain dictionaries where they are made
(chat_completions.py, text_completions.py). Not here: what a model can take (planning.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from understudy.inference.sampling import SamplingSettings

MOST_LOGPROBS = 20
MOST_STOPS, MOST_STOP_CHARACTERS = 16, 200
NOT_HERE = {
    "logit_bias": "tokens cannot be favoured here; leave it out",
    "tools": "this model calls no tools; leave it out",
    "functions": "this model calls no functions; leave it out",
    "suffix": "this model only continues texts; leave it out",
}
"""What is refused where it holds something, and why."""


class Shape(BaseModel):
    """A JSON object whose fields are as they are declared, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Shape):
    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationRequest(Shape):
    """What both kinds of completions take."""

    model: str = Field(max_length=500)
    n: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
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
    # These only label a request.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @field_validator("logit_bias", "tools", "functions", "suffix", check_fields=False)
    @classmethod
    def _not_here(cls, value: Any, info: Any) -> Any:
        if value:
            raise ValueError(NOT_HERE[info.field_name])
        return value

    @field_validator("presence_penalty", "frequency_penalty")
    @classmethod
    def _no_penalty(cls, value: float | None) -> float | None:
        if value:
            raise ValueError("only 0 is taken; repetition_penalty discourages repetition here")
        return value

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > MOST_STOPS or any(not 0 < len(stop) <= MOST_STOP_CHARACTERS for stop in stops):
            raise ValueError(f"give at most {MOST_STOPS} strings of 1 to {MOST_STOP_CHARACTERS} characters")
        return value

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only taken with stream=true")
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
        """How one of the ``n`` answers is sampled: with a seed, each draws by the next number.

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


class ContentPart(Shape):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message; what clients add to it, such as a name, is not shown to the model."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: str
    content: str | list[ContentPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Shape):
    type: Literal["text"]


class ChatRequest(GenerationRequest):
    messages: list[ChatMessage]
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    response_format: TextFormat | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    conversation_id: str | None = Field(default=None, pattern=r"^[!-~]{1,100}$")
    """Of ours: what the answers of one conversation are kept under."""

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is only taken with logprobs=true")
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

    @field_validator("best_of")
    @classmethod
    def _best_of(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise ValueError("only 1 is taken; ask for n answers and choose among them")
        return value

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
