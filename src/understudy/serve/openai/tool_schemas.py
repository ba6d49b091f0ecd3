"""Schemas of the parts of a chat request that constrain its answer: tools, the choice among them, the form of the answer;
and of calls in earlier messages. Not here: grammars (tools.py).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MOST_TOOLS = 128
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


class Shape(BaseModel):
    """A JSON object with the declared fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FunctionSchema(Shape):
    """A function that may be called. Arguments always match the parameters, so ``strict`` changes nothing."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] = NO_PARAMETERS
    strict: bool | None = None

    @field_validator("parameters", mode="before")
    @classmethod
    def _object(cls, value: Any) -> Any:
        value = NO_PARAMETERS if value is None else value
        if isinstance(value, dict) and value.setdefault("type", "object") != "object":
            raise ValueError('the parameters of a function are a schema of the type "object"')
        return value


class ToolSchema(Shape):
    type: Literal["function"]
    function: FunctionSchema

    def listed(self) -> dict[str, Any]:
        """The tool as a chat template lists it."""
        function = self.function.model_dump(exclude={"strict"}, exclude_none=True)
        return {"type": "function", "function": function}


class FunctionName(Shape):
    name: Name


class NamedTool(Shape):
    """The choice of one function."""

    type: Literal["function"]
    function: FunctionName


class AnswerSchema(Shape):
    """A named JSON schema. It is always followed to the letter, so ``strict`` changes nothing."""

    name: str
    description: str | None = None
    json_schema: dict[str, Any] = Field(default={}, alias="schema")
    strict: bool | None = None


class ResponseFormat(Shape):
    """The form of an answer: text, any JSON object, or what a schema accepts."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: AnswerSchema | None = None


class CalledFunction(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    arguments: dict[str, Any] = {}

    @field_validator("arguments", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        """OpenAI sends arguments as the text of a JSON object."""
        if isinstance(value, str):
            try:
                value = json.loads(value or "{}")
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise ValueError("the arguments of a call are not the text of a JSON object")
        return value


class EarlierCall(BaseModel):
    """A call of a tool in an earlier answer."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction
