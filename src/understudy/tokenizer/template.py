"""Conversations rendered by a tokenizer's own chat template: ids, the mask of what is trained on, where contents stand.

The ids are those of `apply_chat_template` of transformers, but that the name of a special token in a message stays text.
The mask is found from renderings, as a template says nothing about it. An answer is trained from where the prompt for it
ends, or else from where its content begins, through the token that ends it. Contents are found by marks: a conversation
is rendered again with a pair of reserved characters at both edges of each content, inside the white space around it,
which some templates strip. If these marks change the rendering, the contents are searched for instead. Calls of tools are
trained as part of the answer. A conversation with tools is refused where the template leaves out the tools, the calls or the
results.

All positions are in characters of the sealed text, see `HuggingFaceTokenizer.seal`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

from understudy.tokenizer.huggingface import FIRST, MARK, HuggingFaceTokenizer, RefusedConversation
from understudy.tokenizer.sandbox import ChatTemplate

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None
Span = tuple[int, int]
TokensAndMask = tuple[list[int], list[bool], list[range]]
_MARK = re.compile(f"{MARK}(.)")
PROBE = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"}]


class TemplateRenderer:
    """Renders conversations by the template of one tokenizer.

    Raises:
        ValueError: the template is no Jinja.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer.chat_template or "", tokenizer.token_names)

    @cached_property
    def end_id(self) -> int | None:
        """The id of the token that the template writes after an answer; None if it writes none."""
        try:
            text, [_, answer] = self._text_and_spans(*self._quoted(PROBE))
        except RefusedConversation:
            return None
        if answer is None:
            return None
        [encoding] = self._tokenizer.encode_sealed([text])
        ends = {*self._tokenizer.special_tokens.values(), *self._tokenizer.end_tokens}
        for id, (start, _) in zip(encoding.ids, encoding.offsets):
            if start >= answer[1]:
                if id in ends:
                    return int(id)
                if text[answer[1] : start].strip():
                    break
        return None

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """The ids of conversations up to where an answer begins.

        Raises:
            RefusedConversation: the template does not take one of them.
        """
        texts = []
        for messages in conversations:
            quoted, tools = self._quoted(messages)
            texts.append(self._text(quoted, tools, reply=True))
            self._check_tools(quoted, tools)
        return [list(encoding.ids) for encoding in self._tokenizer.encode_sealed(texts)]

    def with_masks(self, conversations: Sequence[Sequence[Message]]) -> list[TokensAndMask | RefusedConversation]:
        """For each conversation its ids, the mask, and the positions of its contents; or why it is refused.

        Raises:
            ValueError: the template writes no token that ends an answer, or exceeds a limit.
        """
        if self.end_id is None and any(m["role"] == "assistant" for messages in conversations for m in messages):
            raise ValueError(
                "the chat template writes no end token after an answer, so that a model trained with it would never stop; "
                "replace it with --chat-template"
            )
        ends = {self.end_id, *self._tokenizer.end_tokens}
        planned: list[tuple[str, list[Span], dict[int, int]] | RefusedConversation] = []
        for messages in conversations:
            try:
                quoted, tools = self._quoted(messages)
                hidden = len(messages) - len(quoted)  # 1 for a system message that only lists tools
                text, spans = self._text_and_spans(quoted, tools)
                self._check_tools(quoted, tools, spans)
                turns = messages[hidden:]
                trained = [n for n, m in enumerate(turns) if m["role"] == "assistant" and m.get("weight") != 0]
                starts = {}
                for number in trained:
                    prompt = self._prompt_length(quoted[:number], tools, text)
                    if spans[number] is None and prompt is not None:  # an empty answer, or one that only calls a tool
                        spans[number] = prompt, prompt
                    if (span := spans[number]) is not None:
                        starts[hidden + number] = prompt if prompt is not None and prompt <= span[1] else span[0]
                    elif quoted[number].get("tool_calls"):
                        raise RefusedConversation("the chat template does not tell where the call of a tool begins")
                planned.append((text, [(0, 0)] * hidden + _filled(spans), starts))
            except RefusedConversation as error:
                planned.append(error)
        encodings = iter(self._tokenizer.encode_sealed([plan[0] for plan in planned if isinstance(plan, tuple)]))
        return [_masked(next(encodings), *plan, ends) if isinstance(plan, tuple) else plan for plan in planned]

    def _quoted(self, messages: Sequence[Message]) -> tuple[list[Message], Tools]:
        """Messages and tools as a template gets them. A system message that only lists tools is left out."""
        kept = ("role", "content", "tool_calls", "name", "tool_call_id")
        quoted = [{key: self._quote(m[key]) for key in kept if key in m} for m in messages]
        tools = self._quote(messages[0]["tools"]) if messages and messages[0].get("tools") else None
        return quoted[1:] if tools and not quoted[0]["content"].strip() else quoted, tools

    def _quote(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._tokenizer.quote(key): self._quote(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._quote(item) for item in value]
        return self._tokenizer.quote(value) if isinstance(value, str) else value

    def _text(self, quoted: Sequence[Message], tools: Tools = None, reply: bool = False) -> str:
        return self._tokenizer.seal(self._template.render(quoted, reply, tools))

    def _check_tools(self, quoted: Sequence[Message], tools: Tools, spans: Sequence[Span | None] = ()) -> None:
        """Refuse a conversation of which the template leaves something out.

        Raises:
            RefusedConversation: it does.
        """
        calling = any(message.get("tool_calls") for message in quoted)
        if tools and self._same(quoted, tools, quoted, None):
            raise RefusedConversation("the chat template writes no list of tools")
        without = [{key: value for key, value in message.items() if key != "tool_calls"} for message in quoted]
        if calling and self._same(quoted, tools, without, tools):
            raise RefusedConversation("the chat template writes no calls of a tool")
        if any(m["role"] == "tool" and m["content"].strip() and not span for m, span in zip(quoted, spans)):
            raise RefusedConversation("the chat template leaves out the result of a tool")

    def _same(self, quoted: Sequence[Message], tools: Tools, others: Sequence[Message], other_tools: Tools) -> bool:
        try:
            return self._text(quoted, tools) == self._text(others, other_tools)
        except RefusedConversation:
            return False

    def _prompt_length(self, before: Sequence[Message], tools: Tools, text: str) -> int | None:
        """Where the prompt for an answer ends in a text, or None if the text does not begin with it."""
        try:
            prompt = self._text(before, tools, reply=True)
        except RefusedConversation:  # such as an answer that nothing precedes
            return None
        return len(prompt) if text.startswith(prompt) else None

    def _text_and_spans(self, quoted: Sequence[Message], tools: Tools = None) -> tuple[str, list[Span | None]]:
        """A rendered conversation, and where each content begins and ends in it; None for one that is not there."""
        text = self._text(quoted, tools)
        marked: list[Message] = []
        found: dict[int, int] = {}
        for number, message in enumerate(quoted):
            content = message["content"]
            core = content.strip()
            if core:
                first, last = (MARK + chr(FIRST + 2 * number + edge) for edge in (0, 1))
                lead, trail = content[: content.index(core[0])], content[len(content.rstrip()) :]
                content = f"{lead}{first}{core}{last}{trail}"
            marked.append({**message, "content": content})
        try:
            pieces = _MARK.split(self._text(marked, tools))
        except RefusedConversation:
            pieces = []
        if "".join(pieces[::2]) == text:
            place = 0
            for piece, mark in zip(pieces[::2], pieces[1::2]):
                place += len(piece)
                found.setdefault(ord(mark) - FIRST, place)
        spans: list[Span | None] = []
        cursor = 0
        for number, message in enumerate(quoted):
            content = self._tokenizer.seal(message["content"])
            span = _locate(text, content, found.get(2 * number), found.get(2 * number + 1), cursor)
            spans.append(span)
            cursor = max(cursor, span[1] if span else 0)
        return text, spans


def _locate(text: str, content: str, first: int | None, last: int | None, cursor: int) -> Span | None:
    """Where a content stands in a text, by the marks at its edges that are left, or else by searching from a place on.
    None for an empty content and one that is missing."""
    core = content.strip()
    if first is None and last is None:
        first = text.find(core, cursor)
        if not core or first < 0:
            return None
        last = first + len(core)
    if last is None:
        assert first is not None
        last = first + next(n for n in range(len(core), -1, -1) if text.startswith(core[:n], first))
    if first is None:
        first = last - next(
            n for n in range(min(len(core), last), -1, -1) if text.endswith(core[len(core) - n :], 0, last)
        )
    lead, trail = content[: len(content) - len(content.lstrip())], content[len(content.rstrip()) :]
    if text.endswith(lead, 0, first):
        first -= len(lead)
    if text.startswith(trail, last):
        last += len(trail)
    return first, last


def _filled(spans: Sequence[Span | None]) -> list[Span]:
    """The spans, with an empty one after the span before in the place of each that is missing."""
    filled: list[Span] = []
    for span in spans:
        end = filled[-1][1] if filled else 0
        filled.append(span or (end, end))
    return filled


def _masked(
    encoding: Any, text: str, spans: Sequence[Span], starts: dict[int, int], ends: Collection[int | None]
) -> TokensAndMask:
    """Ids, mask, and the positions of contents among the ids, from positions in the text."""
    ids, begins, stops = list(encoding.ids), *zip(*encoding.offsets)
    mask = [False] * len(ids)
    # A token that begins before a content and reaches into it is part of it.
    contents = [range(bisect_right(stops, first), bisect_left(begins, last)) for first, last in spans]
    for number, start in starts.items():
        first, stop = bisect_right(stops, start), contents[number].stop
        later = [content.start for content in contents[number + 1 :] if content.start > stop]
        limit = min(later, default=len(ids))
        end = next((index for index in range(stop, limit) if ids[index] in ends), stop - 1)
        mask[first : end + 1] = [True] * (end + 1 - first)
    return ids, mask, contents
