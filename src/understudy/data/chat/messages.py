"""Records of chat data in one form, whoever published them, before a format reads them.

Messages get the keys role, content, weight, and those of tools; the record's own tools, system message and history go
before them. A record whose meaning cannot be kept, such as one with an image, is a ValueError with the reason, by which
it is counted. Fields that nothing reads are named, so that they can be counted too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from understudy.data.records import kind_of
from understudy.tokenizer.chat import Message

ROLE_NAMES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant",
    "model": "assistant", "bot": "assistant", "ai": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool", "function_response": "tool",
    "tool_response": "tool",
}  # fmt: skip
"""The role of a message by the names that published data gives it."""
CALL_ROLES = ("function_call", "tool_call")
"""Names for an assistant's message whose text is a call of a tool, as JSON."""
SYSTEM_FIELDS = ("system", "system_prompt", "system_message")
TOOLS_FIELDS = ("tools", "functions")
TEMPLATE_ARGUMENTS = "chat_template_kwargs"
"""An object with the system message and the tools, in SmolTalk 2."""
CONTEXT_FIELDS = (*SYSTEM_FIELDS, *TOOLS_FIELDS, TEMPLATE_ARGUMENTS, "history")
"""Fields of a record that go before its messages."""
RECORD_FIELDS = (*CONTEXT_FIELDS, "label", "weight", "source")
"""Fields that are read in every format."""
STRAY_FIELDS = ("tool_calls", "function_call", "tool_call_id")
"""Keys of a message that mean nothing beside messages."""
MEDIA_FIELDS = ("images", "image", "videos", "video", "audios", "audio")
TRAINED_KEYS = ("train", "training")
"""Booleans of a message that mean the same as its weight."""
MESSAGE_KEYS = ("role", "from", "content", "value", "weight", "tools", "tool_calls", "function_call", "tool_call_id",
                *TRAINED_KEYS)  # fmt: skip
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that are text."""


class LeftOut(ValueError):
    """The reason why a record is left out on purpose: its data says that it is not to be trained on."""


def normalize_record(fields: dict[str, Any], labelled: bool = False) -> dict[str, Any]:
    """The record with each of its lists of messages in one form.

    Args:
        labelled: whether completions with the label false are trained on too, as undesirable ones.

    Raises:
        LeftOut: it is not to be trained on.
        ValueError: the reason why it cannot be.
    """
    _refuse_media(fields)
    for name in STRAY_FIELDS:
        if not is_empty(fields.get(name)):
            raise ValueError(f"tool call outside of a message (field {name!r})")
    label = fields.get("label")
    undesirable = str(label).lower() == "false" or ("completion" in fields and str(label) in ("0", "0.0"))
    if undesirable and not labelled:
        raise LeftOut("label false, an undesirable answer")
    weight = fields.get("weight")
    if isinstance(weight, int | float) and weight != 1:
        if weight == 0:
            raise LeftOut("weight 0")
        raise ValueError("weight of a record other than 0 and 1 (SOURCE@2 weighs a source)")
    spelled = {name: _spelled_list(value) for name, value in fields.items()}
    return {
        name: [_message(item) for item in value] if is_message_list(value) else value for name, value in spelled.items()
    }


def _spelled_list(value: Any) -> Any:
    """A list of messages that is JSON in a text, as cells of CSV files are; anything else as it is."""
    parsed = parsed_json(value) if isinstance(value, str) and value.lstrip().startswith("[") else None
    return parsed if is_message_list(parsed) else value


def is_message_list(value: Any) -> bool:
    """Whether this is a list of objects that say who speaks."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) for item in value)
        and any("role" in item or ("from" in item and "value" in item) for item in value)
    )


def unused_fields(fields: dict[str, Any], used: Iterable[str]) -> tuple[str, ...]:
    """The names of fields, and of keys of messages (`messages.name`), that hold something and that nothing reads."""
    known = {*used, *RECORD_FIELDS}
    names = [name for name, value in fields.items() if name not in known and not is_empty(value)]
    arguments = fields.get(TEMPLATE_ARGUMENTS)
    if isinstance(arguments, dict):
        read = {"custom_instructions", "xml_tools", *TOOLS_FIELDS}
        names += [
            f"{TEMPLATE_ARGUMENTS}.{key}" for key, held in arguments.items() if key not in read and not is_empty(held)
        ]
    for field, value in fields.items():
        if field in known and is_message_list(value):
            keys = {
                key for item in value for key, held in item.items() if not is_empty(held) and not _is_name(item, key)
            }
            names += [f"{field}.{key}" for key in sorted(keys.difference(MESSAGE_KEYS))]
    return tuple(names)


def _is_name(item: dict[str, Any], key: str) -> bool:
    """Whether this is the name of the tool that gave a result."""
    return key == "name" and ROLE_NAMES.get(str(item.get("role", item.get("from"))).lower()) == "tool"


def with_context(messages: Any, fields: dict[str, Any]) -> Any:
    """The messages after the record's own tools, system message and history.

    Raises:
        ValueError: the reason why the record is left out.
    """
    if not isinstance(messages, list):
        return messages  # refused by its format
    arguments = fields.get(TEMPLATE_ARGUMENTS)
    arguments = arguments if isinstance(arguments, dict) else {}
    system = {text.strip(): text for name in SYSTEM_FIELDS if (text := text_field(fields, name)).strip()}
    if (text := text_field(arguments, "custom_instructions")).strip():
        system[text.strip()] = text
    tools = [
        tool
        for place, names in ((fields, TOOLS_FIELDS), (arguments, (*TOOLS_FIELDS, "xml_tools")))
        for name in names
        for tool in _tools(place.get(name))
    ]
    history = _history(fields.get("history"))
    if not system and not history and not tools:
        return messages
    turns = [*history, *messages]
    system_turns = [m for m in turns if m.get("role") == "system"]
    if len(system) > 1 or (system and any(m["content"].strip() not in system for m in system_turns)):
        raise ValueError("two different system messages")
    if system and not system_turns:
        turns.insert(0, {"role": "system", "content": next(iter(system.values()))})
    return with_tools(turns, tools)


def with_tools(messages: list[Message], tools: list[dict[str, Any]]) -> list[Message]:
    """Messages whose first is a system message that lists the tools.

    Raises:
        ValueError: it lists others.
    """
    if not tools:
        return messages
    first, *others = messages if messages and messages[0].get("role") == "system" else [
        {"role": "system", "content": ""}, *messages
    ]  # fmt: skip
    if first.get("tools", tools) != tools:
        raise ValueError("two different lists of tools")
    return [{**first, "tools": tools}, *others]


def without_weights(messages: Sequence[Message]) -> list[Message]:
    """The messages without their weights, where nothing is trained on them."""
    return [{key: value for key, value in message.items() if key != "weight"} for message in messages]


def contents_of(messages: Sequence[Message]) -> list[list[Any]]:
    """All that a model reads of messages, to compare them and to hash them: role and content, and tools where there are
    any."""
    return [
        [m["role"], m["content"].strip(), *(m[key] for key in ("tools", "tool_calls") if m.get(key))] for m in messages
    ]


def _refuse_media(fields: dict[str, Any]) -> None:
    for name in MEDIA_FIELDS:
        if not is_empty(fields.get(name)):
            raise ValueError(f"media (field {name!r})")


def is_empty(value: Any) -> bool:
    return value in (None, [], {}) or (isinstance(value, str) and value.strip() in ("", "[]", "{}", "null"))


def _message(item: dict[str, Any]) -> Message:
    """One message with the keys of the schema, and {"weight": 0} for an answer that is not to be trained on."""
    name = str(item.get("role", item.get("from")))
    _refuse_media(item)
    if name.lower() in CALL_ROLES:
        text = item["content"] if "content" in item else item.get("value")
        message: Message = {"role": "assistant", "content": "", "tool_calls": tool_calls(text)}
        if not message["tool_calls"]:
            raise ValueError("tool call without a name")
    else:
        role = role_named(name)
        message = {"role": role, "content": _content(item, objects=role == "tool")}
    calls = [call for key in ("tool_calls", "function_call") for call in tool_calls(item.get(key))]
    if calls and message["role"] != "assistant":
        raise ValueError(f"tool call in a message of the {message['role']}")
    if calls:
        message["tool_calls"] = calls
    if message["role"] == "tool":
        message |= {key: str(item[key]) for key in ("name", "tool_call_id") if item.get(key) is not None}
    if not is_empty(item.get("tools")):
        if message["role"] != "system":
            raise ValueError(f"list of tools in a message of the {message['role']}")
        message["tools"] = _tools(item["tools"])
    weight = item.get("weight")
    if weight is not None and weight not in (0, 1):
        raise ValueError("weight of a message other than 0 and 1")
    if message["role"] == "assistant" and (weight == 0 or any(item.get(key) is False for key in TRAINED_KEYS)):
        message["weight"] = 0
    return message


def role_named(name: str) -> str:
    """The role of the schema behind a name of it that is in use.

    Raises:
        ValueError: it is none.
    """
    if name.lower() not in ROLE_NAMES:
        raise ValueError(f"message from {name[:40]!r}")
    return ROLE_NAMES[name.lower()]


def _content(item: dict[str, Any], objects: bool) -> str:
    """The text of a message. `objects`: whether an object becomes JSON, as the result of a tool."""
    content = item["content"] if "content" in item else item.get("value")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") in TEXT_PARTS else part for part in content
        ]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise ValueError("message with parts that are no text")
        return "".join(texts)
    if objects and isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    return text_field({"content": content}, "content")


def tool_calls(value: Any) -> list[dict[str, Any]]:
    """Calls of tools in the form of the schema, from any that is in use: one or a list, as objects or as JSON; the
    arguments as an object or as JSON.

    Raises:
        ValueError: they are no calls.
    """
    value = parsed_json(value)
    if is_empty(value):
        return []
    calls = []
    for call in value if isinstance(value, list) else [value]:
        call = parsed_json(call)
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise ValueError("tool call without a name")
        arguments = parsed_json(function.get("arguments", function.get("parameters")))
        if not is_empty(arguments) and not isinstance(arguments, dict):
            raise ValueError("tool call whose arguments are no JSON object")
        identity = {"id": str(call["id"])} if call.get("id") is not None else {}
        function = {"name": function["name"], "arguments": without_none(arguments or {})}
        calls.append({**identity, "type": "function", "function": function})
    return calls


def _tools(value: Any) -> list[dict[str, Any]]:
    """A list of tools in the form of the schema.

    Raises:
        ValueError: it is no list of tools.
    """
    value = parsed_json(value)
    if is_empty(value):
        return []
    tools = []
    for item in value if isinstance(value, list) else [value]:
        tool = parsed_json(item)
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError("list of tools that cannot be read")
        tools.append({"type": "function", "function": without_none(function)})
    return tools


def parsed_json(value: Any) -> Any:
    """A value that may be written as JSON; a text that is none as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def without_none(value: Any) -> Any:
    """A value without the fields that are None: parquet gives every object the fields of all of them."""
    if isinstance(value, dict):
        return {name: without_none(item) for name, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


def text_field(fields: dict[str, Any], name: str) -> str:
    """A field that holds text, or a number as text; one that is missing or null is empty."""
    value = fields.get(name)
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"the field {name!r} is not text but {kind_of(value)}")
    return value


def _history(history: Any) -> list[Message]:
    """Earlier turns, as messages or as pairs of a question and its answer."""
    if is_empty(history):
        return []
    if is_message_list(history):
        return [_message(item) for item in history]
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise ValueError("the field 'history' is not a list of pairs of a question and its answer")
    if not all(isinstance(text, str) for pair in history for text in pair):
        raise ValueError("the field 'history' holds turns that are no text")
    turns = zip(("user", "assistant") * len(history), (text for pair in history for text in pair))
    return [{"role": role, "content": text} for role, text in turns]
