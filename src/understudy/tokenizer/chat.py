"""The chat format, and the special tokens it is made of; template.py renders by templates of other projects.

A tokenizer with a chat template of its own uses that. With all others a conversation is written as ChatML, one block for each message:

    <|im_start|>user
    Who found the purse?<|im_end|>
    <|im_start|>assistant
    Sam found the purse.<|im_end|>

The two markers are special tokens: single ids that no text encodes to, so that a user's input stays text. The list of
tools stands at the end of the system message, and a call of a tool is text in the assistant's message:

    <|im_start|>system
    Tools:
    {"type": "function", "function": {"name": "find", "parameters": {}}}<|im_end|>
    <|im_start|>user
    Where is the purse?<|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name": "find", "arguments": {"thing": "purse"}}
    </tool_call><|im_end|>
    <|im_start|>tool
    under the bridge<|im_end|>

data/chat/packing.py packs conversations into rows. Callers need not know which of the two formats a tokenizer has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from understudy.tokenizer.base import Tokenizer, clean
from understudy.tokenizer.huggingface import HuggingFaceTokenizer, RefusedConversation

if TYPE_CHECKING:
    from understudy.tokenizer.template import TemplateRenderer

Message = dict[str, Any]
"""``{"role": one of ROLES, "content": text}``; ``"weight": 0`` keeps an answer from training.

Tools are as in OpenAI's API: ``tools`` of the system message lists them (with an empty content where there is no other
system message), ``tool_calls`` of an assistant's message calls them, with arguments as an object, and a message of the
role "tool" is the result."""

ROLES = ("system", "user", "assistant", "tool")
ANSWERED = ("user", "tool")
"""Roles of messages that an answer follows."""
START, END = "<|im_start|>", "<|im_end|>"
CHAT_TOKENS = (START, END)

TOOLS_HEAD = "Tools:"
CHAT_TEMPLATE = (
    "{% set listed %}Tools:{% for tool in tools or [] %}{{ '\n' + (tool | tojson) }}{% endfor %}{% endset %}"
    "{% if tools and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n' + listed + '<|im_end|>' + '\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% set content = message['content'] | default('', true) | trim %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + content }}"
    "{% if tools and loop.first and message['role'] == 'system' %}{{ ('\n\n' if content else '') + listed }}{% endif %}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ ('\n' if content or not loop.first else '') + '<tool_call>\n' }}"
    "{{ {'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson }}"
    "{{ '\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The same format as a Jinja template, for `apply_chat_template` of transformers; the ids are equal for every
conversation whose contents do not spell a special token (there it reads control, here text)."""

NAMED_TEMPLATES = {"chatml": CHAT_TEMPLATE}


@dataclass(frozen=True)
class Rendered:
    """Token ids of a conversation, and the mask of those trained on: the assistant's contents, and the token that ends
    its turn. ``contents``: the positions of each message's content; none for a prompt by a template."""

    tokens: list[int]
    mask: list[bool]
    contents: list[range]


def with_chat_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the two markers after its own tokens; itself where it speaks chat."""
    return tokenizer if speaks_chat(tokenizer) else tokenizer.with_special_tokens(CHAT_TOKENS)


def speaks_chat(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a chat template, or the markers of our format."""
    return tokenizer.chat_template is not None or all(name in tokenizer.special_tokens for name in CHAT_TOKENS)


def chat_template(tokenizer: Tokenizer) -> str:
    """The Jinja template by which a tokenizer that speaks chat renders."""
    return CHAT_TEMPLATE if tokenizer.chat_template is None else tokenizer.chat_template


def with_chat_template(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """The tokenizer with another chat template: Jinja source, or our own format.

    Raises:
        ValueError: the template cannot be used with this tokenizer: it is no Jinja, writes a special token that the
            tokenizer lacks, or none that ends an answer.
    """
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        if template == CHAT_TEMPLATE:
            return tokenizer
        raise ValueError("this run has our own chat format, and only an imported model can have another template")
    changed = tokenizer.with_chat_template(template)
    if _renderer(changed).end_id is None:
        missing = sorted({*re.findall(r"<\|\w+\|>", template)}.difference(tokenizer.added_names))
        reason = f"; the tokenizer of this run lacks {', '.join(missing)}" if missing else ""
        raise ValueError(f"the chat template writes no end token after an answer{reason}; choose another template")
    return changed


def read_template(source: str) -> str:
    """The Jinja source of a chat template: of a file, or by a name of NAMED_TEMPLATES.

    Raises:
        ValueError: neither.
    """
    if source in NAMED_TEMPLATES:
        return NAMED_TEMPLATES[source]
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(NAMED_TEMPLATES)
        raise ValueError(f"{source} is no chat template: name a Jinja file, or one of {names}") from error


def end_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end an answer: the end of a message, or of a text, or what the model's own settings name."""
    ends = {tokenizer.eot_id, *tokenizer.end_tokens}
    if tokenizer.chat_template is None:
        ends.add(tokenizer.special_tokens.get(END))
    else:
        ends.add(_renderer(tokenizer).end_id)
    return frozenset(id for id in ends if id is not None)


def check_messages(messages: Any, greeting: bool = False, strip: bool = True) -> list[Message]:
    """A valid conversation: an optional system message, then user and assistant in turns. Results of tools follow the
    assistant's message that calls them, and the assistant goes on after them.

    Characters that UTF-8 cannot encode become U+FFFD.

    Args:
        greeting: the assistant may begin, as in chat applications that greet their user.
        strip: remove white space around contents.

    Raises:
        ValueError: any other conversation, with the number of the message.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(
            'a conversation is a list such as [{"role": "user", "content": "Hello"}], with a message or more'
        )
    checked: list[Message] = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f'message {number} is not of the form {{"role": "user", "content": "text"}}')
        role = message.get("role")
        before = checked[-1]["role"] if checked else None
        if role not in ROLES:
            raise ValueError(f"message {number} has the role {role!r}; choose one of {', '.join(ROLES)}")
        if role == "system" and before is not None:
            raise ValueError(f"message {number} is a system message; only the first may be one")
        begins = greeting and before in (None, "system")
        if role == "tool" and not (before == "tool" or (checked and "tool_calls" in checked[-1])):
            raise ValueError(
                f"message {number} is the result of a tool and follows {f'one from the {before}' if before else 'nothing'}; "
                "it follows a message with tool_calls"
            )
        if (role == "assistant" and before not in ANSWERED and not begins) or (role == "user" and before in ANSWERED):
            raise ValueError(
                f"message {number} is from the {role} and follows {f'one from the {before}' if before else 'nothing'}; "
                "user and assistant take turns, and the user begins"
            )
        if message.get("weight", 1) not in (0, 1):
            raise ValueError(f"message {number} has the weight {message['weight']!r}; a weight is 0 or 1")
        weight = {"weight": 0} if role == "assistant" and message.get("weight", 1) == 0 else {}
        content = clean(message["content"])
        more = _tool_keys(message, number)
        checked.append({"role": role, "content": content.strip() if strip else content, **weight, **more})
    return checked


def _tool_keys(message: Message, number: int) -> dict[str, Any]:
    """The keys of a message that concern tools, checked."""
    role = message["role"]
    if role == "tool":
        return {key: clean(str(message[key])) for key in ("name", "tool_call_id") if message.get(key) is not None}
    key = {"system": "tools", "assistant": "tool_calls"}.get(role, "")
    if not message.get(key):
        return {}
    items = message[key]
    if not isinstance(items, list) or not all(_is_call(item, key == "tool_calls") for item in items):
        raise ValueError(
            f"message {number} has {key} that are no list of objects with a function, its name and its "
            f"{'arguments as an object' if role == 'assistant' else 'parameters'}"
        )
    return {key: clean_value(items)}


def _is_call(item: Any, call: bool) -> bool:
    function = item.get("function") if isinstance(item, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    return not call or isinstance(function.get("arguments"), dict)


def clean_value(value: Any) -> Any:
    """A JSON value in whose texts characters that UTF-8 cannot encode became U+FFFD."""
    if isinstance(value, dict):
        return {clean(str(key)): clean_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_value(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def written_content(message: Message) -> str:
    """The content of a message in our own format, with its tools and its calls of tools."""
    parts = [message["content"]] if message["content"] else []
    if tools := message.get("tools"):
        parts.append("\n".join([TOOLS_HEAD, *(_json(tool) for tool in tools)]))
        return "\n\n".join(parts)
    for call in message.get("tool_calls", ()):
        function = {key: call["function"][key] for key in ("name", "arguments")}
        parts.append(f"<tool_call>\n{_json(function)}\n</tool_call>")
    return "\n".join(parts)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def render(tokenizer: Tokenizer, messages: Any, reply: bool = False) -> Rendered:
    """A conversation as token ids and the mask of those trained on.

    Args:
        reply: end with the beginning of an assistant message, for a model to continue; the conversation must end
            with the user's turn or the result of a tool then.

    Raises:
        ValueError: no conversation (see :func:`check_messages`), a tokenizer without the markers, or with characters
            it lacks.
    """
    [rendered] = render_all(tokenizer, [messages], reply)
    return rendered


def render_all(tokenizer: Tokenizer, conversations: Sequence[Any], reply: bool = False) -> list[Rendered]:
    """Many conversations as :func:`render` renders one; their texts are encoded together, on all cores."""
    rendered = render_each(tokenizer, conversations, reply)
    if refused := next((each for each in rendered if isinstance(each, RefusedConversation)), None):
        raise refused
    return [each for each in rendered if isinstance(each, Rendered)]


def render_each(
    tokenizer: Tokenizer, conversations: Sequence[Any], reply: bool = False
) -> list[Rendered | RefusedConversation]:
    """As :func:`render_all`, with the reason in the place of a conversation that the chat template refuses."""
    if not speaks_chat(tokenizer):
        raise ValueError("this tokenizer has no chat tokens; finetune the run on conversations first: `understudy sft`")
    ours = tokenizer.chat_template is None
    checked = [check_messages(messages, greeting=True, strip=ours) for messages in conversations]
    if reply and (wrong := next((m for m in checked if m[-1]["role"] not in ANSWERED), None)):
        raise ValueError(f"the last message is from the {wrong[-1]['role']}; an answer follows one from the user")
    return [*_render_chatml(tokenizer, checked, reply)] if ours else _render_template(tokenizer, checked, reply)


_renderers: WeakKeyDictionary[Tokenizer, TemplateRenderer] = WeakKeyDictionary()
"""The compiled template of each tokenizer in use."""


def _renderer(tokenizer: Tokenizer) -> TemplateRenderer:
    if tokenizer not in _renderers:
        from understudy.tokenizer.template import TemplateRenderer

        assert isinstance(tokenizer, HuggingFaceTokenizer)
        _renderers[tokenizer] = TemplateRenderer(tokenizer)
    return _renderers[tokenizer]


def _render_template(
    tokenizer: Tokenizer, conversations: Sequence[list[Message]], reply: bool
) -> list[Rendered | RefusedConversation]:
    renderer = _renderer(tokenizer)
    if reply:
        return [Rendered(tokens, [False] * len(tokens), []) for tokens in renderer.prompts(conversations)]
    masked = renderer.with_masks(conversations)
    return [Rendered(*each) if isinstance(each, tuple) else each for each in masked]


def _render_chatml(tokenizer: Tokenizer, checked: Sequence[list[Message]], reply: bool) -> list[Rendered]:
    start, end = (tokenizer.special_tokens[name] for name in CHAT_TOKENS)
    # Headers are encoded by themselves, so that the prompt of a completion is a beginning of the sequence it was
    # trained on. Contents begin with no white space, so that no tokenizer would join the two.
    roles = {"assistant", *(message["role"] for messages in checked for message in messages)}
    headers = {role: [start, *tokenizer.encode(role + "\n")] for role in roles}
    line = tokenizer.encode("\n")
    contents = iter(tokenizer.encode_batch([written_content(m) for messages in checked for m in messages]))
    rendered = []
    for messages in checked:
        tokens: list[int] = []
        mask: list[bool] = []
        spans: list[range] = []
        for message in messages:
            header, content = headers[message["role"]], [*next(contents).tolist(), end]
            spans.append(range(len(tokens) + len(header), len(tokens) + len(header) + len(content) - 1))
            tokens += header + content + line
            is_target = message["role"] == "assistant" and message.get("weight") != 0
            mask += [False] * len(header) + [is_target] * len(content) + [False] * len(line)
        if reply:
            tokens += headers["assistant"]
            mask += [False] * len(headers["assistant"])
        rendered.append(Rendered(tokens, mask, spans))
    return rendered


@dataclass(frozen=True)
class FittedConversation:
    """A conversation cut to a context: the messages left, how many were left out, and the prompt for an answer."""

    messages: list[Message]
    left_out: int
    tokens: list[int]


class ConversationTooLong(ValueError):
    """The system message and the last turn exceed the context."""


def fit(tokenizer: Tokenizer, messages: Any, max_tokens: int) -> FittedConversation:
    """Cut a conversation so that it and the header of an answer take at most ``max_tokens``.

    The system message always stays. The oldest turns are left out first, each with its answer; a greeting before them.

    Raises:
        ConversationTooLong: the system message and the last turn take more.
        ValueError: no conversation that a user's message, or the result of a tool, ends.
    """
    messages = check_messages(messages, greeting=True, strip=tokenizer.chat_template is None)
    system = [message for message in messages if message["role"] == "system"]
    turns = messages[len(system) :]
    if not turns or turns[-1]["role"] not in ANSWERED:
        raise ValueError("the conversation does not end with a message from the user; there is nothing to answer")
    for first, tokens in _shortened(tokenizer, system, turns):
        if len(tokens) <= max_tokens:
            return FittedConversation(system + turns[first:], first, tokens)
    raise ConversationTooLong(
        f"the message takes {len(tokens):,} tokens, and {max_tokens:,} are free in the model's context; send a shorter one"
    )


def _shortened(tokenizer: Tokenizer, system: list[Message], turns: list[Message]) -> Iterator[tuple[int, list[int]]]:
    """The prompt without the oldest turns, in order: how many are left out, and the tokens."""
    cuts = [0, *(number for number, turn in enumerate(turns) if number and turn["role"] == "user")]
    if tokenizer.chat_template is not None:
        for first in cuts:
            yield first, render(tokenizer, system + turns[first:], reply=True).tokens
        return
    rendered = render(tokenizer, system + turns, reply=True)
    after_content = len(tokenizer.encode("\n")) + 1
    ends = [span.stop + after_content for span in rendered.contents]  # of each message's block
    begin = ends[0] if system else 0
    for first in cuts:
        yield first, rendered.tokens[:begin] + rendered.tokens[ends[len(system) + first - 1] if first else begin :]
