"""Constraints of answers to chat requests (`response_format`, `tools`), and calls of tools read from an answer's text.

With a choice of the model's own ("auto") text is free until a call begins; from there on it is constrained. Not here: the
library (inference/constraint.py), the form of calls of each model (tokenizer/tool_calls.py), JSON of responses.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from understudy.inference.constraint import (
    ANY_OBJECT,
    OutputConstraint,
    check_installed,
    json_constraint,
    naming,
    schema_text,
)
from understudy.serve.openai.schemas import ChatRequest
from understudy.serve.openai.tool_schemas import NamedTool, ToolSchema
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids
from understudy.tokenizer.tool_calls import ToolCallFormat, tool_call_format

MOST_CALLS = 16
"""Calls in one answer."""
Piece = tuple[int | None, str]
"""A piece of an answer: the number of the call whose arguments it belongs to, or None for content."""
TEXT = r"/(.|\n)*/"


def response_constraint(tokenizer: Tokenizer, request: ChatRequest) -> OutputConstraint | None:
    """The constraint of `response_format`; None for text.

    Raises:
        ValueError: a schema that cannot be followed.
    """
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    schema = ANY_OBJECT if wanted.json_schema is None else wanted.json_schema.json_schema
    return json_constraint(tokenizer, schema, end_ids(tokenizer))


def tool_constraint(tokenizer: Tokenizer, request: ChatRequest) -> tuple[ToolCallFormat, OutputConstraint]:
    """The form of calls of a model, and the constraint of the request's tools and choice.

    Raises:
        ValueError: parameters that cannot be followed, or a chat template without tools.
    """
    check_installed()
    form, choice = tool_call_format(tokenizer), request.tool_choice
    tools = request.tools
    if isinstance(choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
    several = request.parallel_tool_calls and not isinstance(choice, NamedTool) and form.separator is not None
    with naming("a schema of the tools"):
        grammar = _tool_grammar(form, tools, choice == "auto", several, tokenizer.special_tokens)
        return form, OutputConstraint(tokenizer, grammar, end_ids(tokenizer))


def _tool_grammar(
    form: ToolCallFormat, tools: Sequence[ToolSchema], text: bool, several: bool, special_tokens: dict[str, int]
) -> str:
    """A grammar of the answers that call tools; with ``text`` of all other texts too."""

    def spelled(literal: str) -> str:
        """A literal in the grammar's syntax, with special tokens by their ids."""
        names = [name for name in special_tokens if name in literal]
        pieces = re.split("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")", literal)
        pieces = pieces if names else [literal]
        return " ".join(
            f"<[{special_tokens[piece]}]>" if piece in names else json.dumps(piece, ensure_ascii=False)
            for piece in pieces
            if piece
        )

    tail = " ".join([spelled(form.tail[0]), *(f"ID {spelled(part)}" for part in form.tail[1:])])
    repeated = f"({spelled(form.separator)} call){{0,{MOST_CALLS - 1}}}" if several and form.separator else ""
    lines = [f"calls: call {repeated} {spelled(form.end)}", "ID: /[a-zA-Z0-9]{9}/"]
    lines.append("call: " + " | ".join(f"call_{number}" for number in range(len(tools))))
    for number, tool in enumerate(tools):
        head = spelled(form.head + tool.function.name + form.middle)
        lines.append(f"call_{number}: {head} arguments_{number} {tail}")
        lines.append(f"arguments_{number}: %json {schema_text(tool.function.parameters)}")
    trigger = form.begin.strip() and form.begin.rstrip()
    if not text:
        start = f"start: {spelled(form.begin)} calls"
    elif not trigger:  # an answer is a call, or a text
        start = "start: OTHER | calls\nOTHER: /([^{](.|\\n)*)?/"
    elif name := next((name for name in special_tokens if trigger.startswith(name)), None):
        start = f"start: TEXT | TEXT {spelled(name)} {spelled(form.begin[len(name) :])} calls\nTEXT: {TEXT}"
    else:  # a lazy lexeme ends at the first trigger; a greedy text would go on past it
        start = (
            f"start: TEXT | triggered {spelled(form.begin[len(trigger) :])} calls\nTEXT: {TEXT}\n"
            f"triggered[lazy]: TEXT {spelled(trigger)}"
        )
    return "\n".join(["%llguidance {}", start, *lines])


@dataclass
class ToolCall:
    """A call that an answer makes, as far as it was read."""

    id: str
    name: str
    arguments: str = ""


class ToolCallReader:
    """Divides the text of an answer, as it comes, into content and calls of tools.

    Attributes:
        content: the text beside the calls so far.
        calls: the calls so far; the arguments of the last one may be incomplete.
    """

    def __init__(self, form: ToolCallFormat) -> None:
        self.form, self.content, self.calls = form, "", list[ToolCall]()
        self._pending = ""
        self._state: Callable[[bool], Iterator[Piece]] = self._read_text
        self._opening = form.begin + form.head
        self._tail = re.compile("[a-zA-Z0-9]{9}".join(map(re.escape, form.tail)))
        self._depth, self._in_string, self._escaped = 0, False, False

    def push(self, text: str, last: bool = False) -> Iterator[Piece]:
        """Read more of the answer.

        Args:
            last: nothing follows.

        Yields:
            (None, content), or (number of a call, a piece of its arguments). A call's first piece is "".
        """
        self._pending += text
        while True:
            before = self._state, self._pending
            yield from self._state(last)
            if (self._state, self._pending) == before:
                return

    def _read_text(self, last: bool) -> Iterator[Piece]:
        opening, pending = self._opening, self._pending
        place = pending.find(opening)
        if not self.form.begin and (place > 0 or self.content):  # a call is a whole answer here
            place = -1
        if place >= 0:
            text, self._pending = pending[:place].rstrip(), pending[place + len(opening) :]
            self._state = self._read_name
        elif last:
            text, self._pending = pending, ""
        else:  # withhold what may begin a call, and the white space before it
            sizes = range(min(len(pending), len(opening) - 1), 0, -1)
            size = next((size for size in sizes if opening.startswith(pending[-size:])), 0)
            text = pending[: len(pending) - size].rstrip()
            self._pending = pending[len(text) :]
        if text:
            self.content += text
            yield None, text

    def _read_name(self, last: bool) -> Iterator[Piece]:
        name, found, rest = self._pending.partition(self.form.middle)
        if found:
            number = f"call_{uuid.uuid4().hex}" if len(self.form.tail) == 1 else uuid.uuid4().hex[:9]
            self.calls.append(ToolCall(number, name))
            self._pending, self._state = rest, self._read_arguments
            yield len(self.calls) - 1, ""

    def _read_arguments(self, last: bool) -> Iterator[Piece]:
        size = len(self._pending)
        for place, character in enumerate(self._pending):
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    size, self._state = place + 1, self._read_tail
                    break
        piece, self._pending = self._pending[:size], self._pending[size:]
        if piece:
            self.calls[-1].arguments += piece
            yield len(self.calls) - 1, piece

    def _read_tail(self, last: bool) -> Iterator[Piece]:
        separator, match = self.form.separator, self._tail.match(self._pending)
        if match and separator and self._pending.startswith(separator + self.form.head, match.end()):
            self._pending = self._pending[match.end() + len(separator) + len(self.form.head) :]
            self._state = self._read_name
        yield from ()
