"""Records of chat data in one form, whoever published them, before a format reads them.

Messages get the keys role, content and weight; the record's own system message and history go before them. A record
whose meaning cannot be kept, such as one with a tool call, an image or the label false, is a ValueError with the
reason, by which it is counted. Fields that nothing reads are named, so that they can be counted too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from understudy.data.records import kind_of
from understudy.tokenizer.chat import Message

ROLE_NAMES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant",
    "model": "assistant", "bot": "assistant",
}  # fmt: skip
"""The role of a message by the names that published data gives it."""
TOOL_ROLES = (
    "tool",
    "function",
    "observation",
    "ipython",
    "function_call",
    "function_response",
    "tool_call",
    "tool_response",
)
SYSTEM_FIELDS = ("system", "system_prompt", "system_message")
CONTEXT_FIELDS = (*SYSTEM_FIELDS, "history")
"""Fields of a record that go before its messages."""
RECORD_FIELDS = (*CONTEXT_FIELDS, "label", "weight", "source")
"""Fields that are read in every format."""
TOOL_FIELDS = ("tools", "functions", "tool_calls", "function_call", "tool_call_id")
MEDIA_FIELDS = ("images", "image", "videos", "video", "audios", "audio")
TRAINED_KEYS = ("train", "training")
"""Booleans of a message that mean the same as its weight."""
MESSAGE_KEYS = ("role", "from", "content", "value", "weight", *TRAINED_KEYS)


def normalize_record(fields: dict[str, Any]) -> dict[str, Any]:
    """The record with each of its lists of messages in one form.

    Raises:
        ValueError: the reason why the record is left out.
    """
    _refuse_unsupported(fields)
    label = fields.get("label")
    if label is False or str(label).lower() == "false" or ("completion" in fields and str(label) in ("0", "0.0")):
        raise ValueError("label false, an undesirable answer")
    weight = fields.get("weight")
    if isinstance(weight, int | float) and weight != 1:
        raise ValueError(
            "weight 0" if weight == 0 else "weight of a record other than 0 and 1 (SOURCE@2 weighs a source)"
        )
    return {
        name: [_message(item) for item in value] if is_message_list(value) else value for name, value in fields.items()
    }


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
    names = [name for name, value in fields.items() if name not in known and not _is_empty(value)]
    for field, value in fields.items():
        if field in known and is_message_list(value):
            keys = {key for item in value for key, held in item.items() if not _is_empty(held)}
            names += [f"{field}.{key}" for key in sorted(keys.difference(MESSAGE_KEYS))]
    return tuple(names)


def with_context(messages: Any, fields: dict[str, Any]) -> Any:
    """The messages after the record's own system message and history.

    Raises:
        ValueError: the reason why the record is left out.
    """
    if not isinstance(messages, list):
        return messages  # refused by its format
    system = {text.strip(): text for name in SYSTEM_FIELDS if (text := text_field(fields, name)).strip()}
    history = _history(fields.get("history"))
    if not system and not history:
        return messages
    turns = [*history, *messages]
    system_turns = [m for m in turns if m.get("role") == "system"]
    if len(system) > 1 or (system and any(m["content"].strip() not in system for m in system_turns)):
        raise ValueError("two different system messages")
    if system and not system_turns:
        turns.insert(0, {"role": "system", "content": next(iter(system.values()))})
    return turns


def without_weights(messages: Sequence[Message]) -> list[Message]:
    """The messages without their weights, where nothing is trained on them."""
    return [{key: value for key, value in message.items() if key != "weight"} for message in messages]


def _refuse_unsupported(fields: dict[str, Any]) -> None:
    for name in TOOL_FIELDS:
        if not _is_empty(fields.get(name)):
            raise ValueError("tool call" if name != "tools" and name != "functions" else f"tools (field {name!r})")
    for name in MEDIA_FIELDS:
        if not _is_empty(fields.get(name)):
            raise ValueError(f"media (field {name!r})")


def _is_empty(value: Any) -> bool:
    return value in (None, [], {}) or (isinstance(value, str) and value.strip() in ("", "[]", "{}", "null"))


def _message(item: dict[str, Any]) -> Message:
    """One message as {"role", "content"}, with {"weight": 0} for an answer that is not to be trained on."""
    role = str(item.get("role", item.get("from")))
    if role.lower() in TOOL_ROLES:
        raise ValueError("tool call")
    if role.lower() not in ROLE_NAMES:
        raise ValueError(f"message from {role[:40]!r}")
    _refuse_unsupported(item)
    message: Message = {"role": ROLE_NAMES[role.lower()], "content": _content(item)}
    weight = item.get("weight")
    if weight is not None and weight not in (0, 1):
        raise ValueError("weight of a message other than 0 and 1")
    if message["role"] == "assistant" and (weight == 0 or any(item.get(key) is False for key in TRAINED_KEYS)):
        message["weight"] = 0
    return message


def _content(item: dict[str, Any]) -> str:
    content = item["content"] if "content" in item else item.get("value")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part for part in content
        ]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise ValueError("message with parts that are no text")
        return "".join(texts)
    return text_field({"content": content}, "content")


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
    if _is_empty(history):
        return []
    if is_message_list(history):
        return [_message(item) for item in history]
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise ValueError("the field 'history' is not a list of pairs of a question and its answer")
    if not all(isinstance(text, str) for pair in history for text in pair):
        raise ValueError("the field 'history' holds turns that are no text")
    turns = zip(("user", "assistant") * len(history), (text for pair in history for text in pair))
    return [{"role": role, "content": text} for role, text in turns]
