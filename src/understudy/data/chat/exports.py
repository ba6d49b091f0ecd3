"""Conversations as chat applications export them: ChatGPT, Open WebUI and Claude.

An export keeps every branch of a conversation; the one that was shown last is read. Text of the user, the assistant and
tools is kept. Of parts that are no conversation, such as thoughts, each kind is counted as not used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator
from typing import Any

from understudy.data.chat.formats import NotUsed, list_field
from understudy.data.chat.messages import is_empty, parsed_json, text_field
from understudy.tokenizer.chat import Message

TEXTS = (
    "text",
    "multimodal_text",
    "code",
    "execution_output",
    "tether_quote",
    "tether_browsing_display",
    "system_error",
)
"""Types of a content of ChatGPT that are read."""
REASONING = re.compile(r'<details\b[^>]*\btype="reasoning"[^>]*>.*?</details>\s*', re.DOTALL)
TOOL_BLOCK = re.compile(r'<details\b[^>]*\btype="(?:tool_calls|code_interpreter)"')


def read_chatgpt(fields: dict[str, Any]) -> Iterator[dict[str, Any] | NotUsed]:
    """The branch of `current_node`, or else of the latest message. Calls of tools and their results are kept; thoughts and
    hidden messages are not."""
    last = fields.get("current_node")
    branch, others = _branch(fields["mapping"], _latest(fields["mapping"]) if last is None else last, "parent")
    if others:
        yield NotUsed("other branches")
    messages: list[Message] = []
    for node in branch:
        message = node.get("message")
        if not isinstance(message, dict):
            continue
        content = _object(message.get("content"))
        kind = str(content.get("content_type"))
        role = _chatgpt_role(message)
        hidden = _object(message.get("metadata")).get("is_visually_hidden_from_conversation")
        if kind not in TEXTS:
            yield NotUsed(f"mapping: {kind}")
            continue
        text = yield from _chatgpt_text(content)
        if hidden and role in ("system", "user") and text.strip():
            yield NotUsed(f"mapping: hidden message of the {role}")
            continue
        if not text.strip() and role != "tool":
            continue
        recipient = message.get("recipient") or "all"
        if role == "assistant" and recipient != "all":
            arguments = parsed_json(text)
            function = {
                "name": str(recipient),
                "arguments": arguments if isinstance(arguments, dict) else {"input": text},
            }
            _append(messages, {"role": role, "content": "", "tool_calls": [{"type": "function", "function": function}]})
            continue
        weight = {"weight": 0} if role == "assistant" and message.get("weight") == 0 else {}
        name = {"name": message["author"]["name"]} if role == "tool" and message["author"].get("name") else {}
        _append(messages, {"role": role, "content": text, **weight, **name})
    yield {"messages": _without_unanswered(messages)}


def _chatgpt_role(message: dict[str, Any]) -> str:
    author = message.get("author")
    role = str(author.get("role")) if isinstance(author, dict) else ""
    if role not in ("system", "user", "assistant", "tool"):
        raise ValueError(f"message from {role[:40]!r}")
    return role


def _chatgpt_text(content: dict[str, Any]) -> Generator[NotUsed, None, str]:
    """The text of a content, as the value of the generator."""
    if "parts" not in content:
        return text_field(content, "text" if "text" in content else "result")
    parts, texts = content["parts"] if isinstance(content["parts"], list) else [], []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])  # speech that was written down
        elif isinstance(part, dict) and "audio" in str(part.get("content_type")):
            yield NotUsed(f"mapping: {part['content_type']}")
        elif part is not None:
            kind = part.get("content_type") if isinstance(part, dict) else "part"
            raise ValueError(f"media ({str(kind)[:40]})")
    return "\n".join(text for text in texts if text)


def read_open_webui(fields: dict[str, Any]) -> Iterator[dict[str, Any] | NotUsed]:
    """The branch of `currentId`. An answer that was disliked is context; thoughts are not used."""
    chat = fields["chat"]
    if not isinstance(chat, dict):
        raise ValueError("the field 'chat' is not an object")
    history = _object(chat.get("history"))
    if isinstance(history.get("messages"), dict) and history.get("currentId"):
        branch, others = _branch(history["messages"], history["currentId"], "parentId")
        if others:
            yield NotUsed("other branches")
    else:
        branch = list_field(chat, "messages")
    system = text_field(_object(chat.get("params")), "system") or text_field(chat, "system")
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for item in branch:
        role, text = str(item.get("role")), text_field(item, "content")
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"message from {role[:40]!r}")
        if not is_empty(item.get("files")):
            kinds = {str(file.get("type")) for file in item["files"] if isinstance(file, dict)}
            if kinds & {"image", "audio", "video"}:
                raise ValueError("media (field 'files')")
            yield NotUsed("chat: files")
        if TOOL_BLOCK.search(text):
            raise ValueError("tool call that is only shown")
        if REASONING.search(text):
            yield NotUsed("chat: reasoning")
            text = REASONING.sub("", text)
        if not is_empty(item.get("error")):
            yield NotUsed("chat: failed answer")
            text = ""
        disliked = _object(item.get("annotation")).get("rating") in (-1, "-1")
        if text.strip():
            _append(messages, {"role": role, "content": text, **({"weight": 0} if disliked else {})})
    yield {"messages": _without_unanswered(messages)}


def read_claude(fields: dict[str, Any]) -> Iterator[dict[str, Any] | NotUsed]:
    """Messages of a human and the assistant; thoughts and calls of tools are not used."""
    messages: list[Message] = []
    for item in list_field(fields, "chat_messages"):
        role = {"human": "user", "assistant": "assistant"}.get(str(item.get("sender")))
        if role is None:
            raise ValueError(f"message from {str(item.get('sender'))[:40]!r}")
        if any(not is_empty(item.get(name)) for name in ("attachments", "files")):
            yield NotUsed("chat_messages: files")
        parts = item.get("content")
        texts = []
        for part in parts if isinstance(parts, list) else []:
            kind = str(_object(part).get("type"))
            if kind == "text":
                texts.append(text_field(part, "text"))
            elif kind in ("tool_use", "tool_result"):
                raise ValueError("tool call that is only shown")
            else:
                yield NotUsed(f"chat_messages: {kind}")
        text = "\n\n".join(texts) if texts else text_field(item, "text")
        if text.strip():
            _append(messages, {"role": role, "content": text})
    yield {"messages": _without_unanswered(messages)}


def _object(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _branch(nodes: Any, last: Any, parent: str) -> tuple[list[dict[str, Any]], bool]:
    """The messages from the first to `last`, and whether others are answers or questions of another branch.

    Raises:
        ValueError: they are no tree, or the last one is not there.
    """
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise ValueError("messages that are no tree")
    branch: list[dict[str, Any]] = []
    seen: set[str] = set()
    while last is not None:
        if str(last) in seen or str(last) not in nodes:
            raise ValueError("messages that are no tree")
        seen.add(str(last))
        branch.append(nodes[str(last)])
        last = branch[-1].get(parent)
    return branch[::-1], any(name not in seen for name in nodes)


def _latest(nodes: Any) -> Any:
    """The name of the node of ChatGPT that was written last, of those with nothing after them; without times the last one
    of the file."""
    if not isinstance(nodes, dict):
        return None
    parents = {str(_object(node).get("parent")) for node in nodes.values()}
    last, latest = None, -math.inf
    for name, node in nodes.items():
        time = _object(_object(node).get("message")).get("create_time")
        number = float(time) if isinstance(time, int | float) else -math.inf
        if str(name) not in parents and number >= latest:
            last, latest = name, number
    return last


def _append(messages: list[Message], message: Message) -> None:
    """Add a message; neighbours of one role that are both text, or calls of tools after text, become one."""
    last = messages[-1] if messages else {}
    joined = message["role"] in ("user", "assistant") and last.get("role") == message["role"]
    if not joined or last.get("weight") != message.get("weight") or ("tool_calls" in last and message["content"]):
        messages.append(message)
        return
    texts = [text for text in (last["content"], message["content"]) if text]
    calls = [*last.get("tool_calls", []), *message.get("tool_calls", [])]
    messages[-1] = {**last, "content": "\n\n".join(texts), **({"tool_calls": calls} if calls else {})}


def _without_unanswered(messages: list[Message]) -> list[Message]:
    """The messages without a last one of the user, which nobody answered."""
    return messages[:-1] if messages and messages[-1]["role"] == "user" else messages
