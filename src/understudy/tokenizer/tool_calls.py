"""How a model writes calls of tools, found by rendering one and two calls with its chat template.

Read are templates that write a call as a JSON object with the name before the arguments: our own format and Hermes's
(Qwen, SmolLM3), Llama 3's, Mistral's. Not here: rendering (template.py), reading what a model wrote (serve/).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from understudy.tokenizer.base import Tokenizer
from understudy.tokenizer.chat import end_ids, render

NAME, ID, ARGUMENTS = "probed_function", "probedId1", {"x": 1}
"""Of the calls that are rendered. Mistral's templates take ids of nine letters and digits only."""
PARAMETERS = {"type": "object", "properties": {"x": {"type": "integer"}}}


@dataclass(frozen=True)
class ToolCallFormat:
    """An answer with calls: an optional text, ``begin``, calls with ``separator`` between them, ``end``. A call is ``head``,
    the name, ``middle``, the arguments as a JSON object, ``tail``.

    Attributes:
        begin: may be empty, for a template whose answer is the call alone.
        separator: None if an answer holds one call only.
        tail: the texts before and after the call's id; one text if the call has no id.
    """

    begin: str
    head: str
    middle: str
    tail: tuple[str, ...]
    separator: str | None
    end: str


def tool_call_format(tokenizer: Tokenizer) -> ToolCallFormat:
    """The form of calls in the answers of a model.

    Raises:
        ValueError: the chat template writes no tools or no calls, or calls of another form.
    """
    answer = _written(tokenizer, 1)
    place = answer.find("{")
    try:
        call, size = json.JSONDecoder().raw_decode(answer[place:]) if place >= 0 else (None, 0)
        spelled = answer[place : place + size]
        after_name = spelled.index(f'"{NAME}"') + len(NAME) + 2
        opened = spelled.index("{", after_name)
        arguments, length = json.JSONDecoder().raw_decode(spelled[opened:])
    except ValueError:
        call = None
    if not isinstance(call, dict) or call.get("name") != NAME or arguments != ARGUMENTS:
        raise ValueError("the chat template writes calls of tools in a form that this server does not read")
    begin, end = answer[:place], answer[place + size :]
    thought = begin.rfind("</think>")  # an empty thought that templates write before an answer
    visible = begin if thought < 0 else begin[thought + len("</think>") :].lstrip()
    try:
        two = _written(tokenizer, 2)
    except ValueError:
        two = ""
    first, last = begin + spelled, spelled + end
    repeated = two.startswith(first) and two.endswith(last) and len(two) >= len(first) + len(last)
    return ToolCallFormat(
        visible, spelled[: after_name - len(NAME) - 1], spelled[after_name - 1 : opened],
        tuple(spelled[opened + length :].split(ID)), two[len(first) : len(two) - len(last)] if repeated else None, end,
    )  # fmt: skip


def _written(tokenizer: Tokenizer, calls: int) -> str:
    """An answer of so many equal calls, without the token that ends it."""
    function = {"name": NAME, "description": "A function.", "parameters": PARAMETERS}
    call: dict[str, Any] = {"id": ID, "type": "function", "function": {"name": NAME, "arguments": ARGUMENTS}}
    rendered = render(tokenizer, [
        {"role": "system", "content": "", "tools": [{"type": "function", "function": function}]},
        {"role": "user", "content": "Question"},
        {"role": "assistant", "content": "", "tool_calls": [call] * calls},
    ])  # fmt: skip
    ends = end_ids(tokenizer)
    return tokenizer.decode([id for id, trained in zip(rendered.tokens, rendered.mask) if trained and id not in ends])
