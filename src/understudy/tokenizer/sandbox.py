"""Chat templates, which are Jinja programs of others, executed with what `apply_chat_template` of transformers gives them.

They are executed in Jinja's sandbox, which gives them no access to Python or the machine, and with limits on steps,
seconds and size, since a sandbox alone lets a template loop for ever or fill the memory.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from understudy.tokenizer.huggingface import RefusedConversation

MOST_STEPS, MOST_SECONDS = 200_000, 5.0  # of the processor: on a busy machine a good template can wait
MOST_TEXT = 1 << 22
"""Characters of any text that a template makes, beside eight times those of the messages."""
MOST_NUMBER = 10_000
"""Largest whole number that a template may pass to a function: more is a width or a count that fills the memory."""
UNSAFE_FILTERS = ("center", "format", "indent", "wordwrap", "filesizeformat", "pprint", "urlize", "xmlattr")
ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


class TemplateLimit(Exception):
    """A template does more than it may."""


class ChatTemplate:
    """A compiled chat template.

    Args:
        names: further variables, such as bos_token.

    Raises:
        ValueError: no Jinja.
    """

    def __init__(self, source: str, names: Mapping[str, str]) -> None:
        self._environment = _Environment()
        self._names = dict(names)
        try:
            self._template = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"the chat template is no Jinja, at line {error.lineno}: {_line(error)}") from error
        except (TemplateError, SyntaxError, RecursionError) as error:  # the second of what Jinja compiles to
            raise ValueError(f"the chat template cannot be used: {_line(error)}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], reply: bool, tools: Sequence[Any] | None = None) -> str:
        """The text of a conversation; with ``reply`` it ends where an answer begins. ``tools``: those it may call.

        Raises:
            RefusedConversation: it does not take this conversation.
            ValueError: it exceeds a limit, as one that loops does.
        """
        size = sum(len(message["content"]) + len(json.dumps(message.get("tool_calls"))) for message in messages)
        most = MOST_TEXT + 8 * (size + len(json.dumps(tools)))
        self._environment.start(most)
        try:
            variables = {**self._names, "messages": [dict(message) for message in messages], "tools": tools,
                         "documents": None, "add_generation_prompt": reply}  # fmt: skip
            return self._environment.joined(self._template.generate(variables))
        except TemplateLimit as error:
            raise ValueError(f"the chat template {error}; replace it with --chat-template") from error
        except TemplateError as error:
            raise RefusedConversation(f"the chat template refuses this conversation: {_line(error)}") from error
        except ERRORS as error:
            raise RefusedConversation(f"the chat template fails on this conversation: {_line(error)}") from error


class _Limits(threading.local):
    """What the template that a thread executes has left."""

    steps, deadline, most = 0, 0.0, MOST_TEXT


class _Generator(CodeGenerator):
    """Compiles `a ~ b` to a call that knows the size of the result."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "%"})
    code_generator_class = _Generator

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Steps, _Generation, loopcontrols],
                         finalize=self._finalized)  # fmt: skip
        self.limits = _Limits()
        self.filters["tojson"] = _tojson
        self.filters["indent"], self.filters["replace"] = self._indent, self.replaced
        for name in UNSAFE_FILTERS:
            if name != "indent":
                self.filters.pop(name, None)
        self.filters = {name: self._limited(function) for name, function in self.filters.items()}
        self.globals.pop("lipsum", None)
        self.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}

    def start(self, most: int) -> None:
        self.limits.steps, self.limits.most = MOST_STEPS, most
        self.limits.deadline = time.thread_time() + MOST_SECONDS

    def step(self) -> None:
        """Count one turn of a loop, or one call."""
        self.limits.steps -= 1
        if self.limits.steps < 0 or time.thread_time() > self.limits.deadline:
            raise TemplateLimit(f"loops: it takes more than {MOST_STEPS:,} steps or {MOST_SECONDS:.0f} seconds")

    def check_size(self, size: int) -> None:
        if size > self.limits.most:
            raise TemplateLimit(f"writes without end: more than {self.limits.most:,} characters")

    def check_arguments(self, values: Iterable[Any]) -> None:
        """Refuse arguments that are large numbers, or whose text would be too long."""
        left, size = list(values), 0
        if any(isinstance(value, int) and abs(value) > MOST_NUMBER for value in left):
            raise TemplateLimit(f"passes a number above {MOST_NUMBER:,} to a function")
        while left:
            value = left.pop()
            size += len(value) + 1 if isinstance(value, str) else 1
            self.check_size(size)
            if isinstance(value, dict):
                left += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set):
                left += value

    def _limited(self, function: Any) -> Any:
        """A filter that checks its arguments and its result."""

        @functools.wraps(function)  # keeps the mark by which Jinja passes its environment
        def limited(*args: Any, **kwargs: Any) -> Any:
            self.step()
            self.check_arguments([*args, *kwargs.values()])
            result = function(*args, **kwargs)
            if isinstance(result, str):
                self.check_size(len(result))
            return result

        return limited

    def _finalized(self, value: Any) -> Any:
        """A value before it becomes text."""
        if not isinstance(value, str | int | float):
            self.check_arguments([value])
        return value

    def concat(self, parts: Iterable[str]) -> str:
        """Jinja puts the parts of a template's output together by this."""
        return self.joined(parts)

    def joined(self, parts: Iterable[str]) -> str:
        pieces, size = [], 0
        for part in parts:
            size += len(part)
            self.check_size(size)
            pieces.append(part)
        return "".join(pieces)

    def check_replace(self, text: str, old: str, new: str) -> None:
        self.check_size(len(text) + text.count(old) * len(new))

    def replaced(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = str(text), str(old), str(new)
        self.check_replace(text, old, new)
        return text.replace(old, new, -1 if count is None else count)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.step()
        if __obj is not __self.globals["range"]:  # which has a limit of its own
            __self.check_arguments([*args, *kwargs.values()])
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if name in ("format", "format_map"):
            form = owner if isinstance(owner, str) else getattr(getattr(__obj, "__wrapped__", None), "__self__", "")
            sizes = [len(value) for value in (*args, *kwargs.values()) if isinstance(value, str)]
            __self.check_size(len(form) + form.count("{") * max(sizes, default=0))
            if re.search(r"\d{4}", form):
                raise TemplateLimit("formats to a width that fills the memory")
        if isinstance(owner, str) and name == "replace" and len(args) > 1:
            __self.check_replace(owner, str(args[0]), str(args[1]))
        if isinstance(owner, str) and name == "join" and args:
            return __self.joined(_between(owner, args[0]))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str) and re.search(r"\d{4}|\*", left)):
            raise TemplateLimit(f"uses {operator}, by which a text or number fills the memory")
        if operator == "%" and isinstance(left, str):
            self.check_arguments([right])
            sizes = [len(value) for value in (right if isinstance(right, tuple) else [right]) if isinstance(value, str)]
            self.check_size(len(left) + left.count("%") * max(sizes, default=0))
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self.check_size(len(left) + len(right))
        if operator == "*":
            sizes = [len(value) if isinstance(value, str | list | tuple) else value for value in (left, right)]
            if all(isinstance(size, int) for size in sizes) and any(
                size is not value for size, value in zip(sizes, (left, right))
            ):
                self.check_size(sizes[0] * sizes[1])
        return super().call_binop(context, operator, left, right)

    def _indent(self, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        space, text = width if isinstance(width, str) else " " * min(width, MOST_NUMBER), str(text)
        self.check_size(len(text) + (1 + text.count("\n")) * len(space))
        lines = text.split("\n")
        rest = [space + line if line or blank else line for line in lines[1:]]
        return "\n".join([space + lines[0] if first else lines[0], *rest])


class _Steps(Extension):
    """Puts a tag at the beginning of the body of each loop and macro, at which a step is counted."""

    tags = {"understudy_step"}  # noqa: RUF012

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        tag = ""
        before = ""
        for token in stream:
            if before == "block_begin":
                tag = str(token.value)
            before = token.type
            yield token
            if token.type == "block_end":
                if tag in ("for", "macro", "call"):
                    yield Token(token.lineno, "block_begin", "{%")
                    yield Token(token.lineno, "name", "understudy_step")
                    yield Token(token.lineno, "block_end", "%}")
                tag = ""

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.ExprStmt(self.call_method("count"), lineno=line)

    def count(self) -> None:
        self.environment.step()  # type: ignore[attr-defined]


class _Generation(Extension):
    """`{% generation %}`, by which a template marks answers; the mask is found otherwise."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _between(separator: str, parts: Iterable[str]) -> Iterator[str]:
    for number, part in enumerate(parts):
        if number:
            yield separator
        yield part


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
