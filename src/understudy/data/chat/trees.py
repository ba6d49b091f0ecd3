"""Trees of messages, as OpenAssistant publishes them: a prompt with several answers, each with several replies.

A tree is one record, with `replies` in each message, or its messages are records of their own that name their parent.
Of the answers to a prompt the one of the best rank is imitated, or the first where none has a rank; the others make
preferences. Each branch of the user's replies is a conversation, in which answers that an earlier one has are context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from understudy.data.chat.formats import Dropped, ParsedRow
from understudy.data.chat.messages import role_named, text_field
from understudy.data.records import FileRecord
from understudy.tokenizer.chat import Message

TREE_FIELDS = ("rank", "deleted", "review_result", "message_tree_id")
MOST_DEPTH = 100


def is_tree(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("prompt"), dict)


def gather_trees(records: list[FileRecord]) -> Iterator[FileRecord | ParsedRow]:
    """The messages of a file as trees, in the order of their roots. One whose parent is not there is dropped."""
    nodes: dict[str, dict[str, Any]] = {}
    for record in records:
        nodes[str(record.fields["message_id"])] = {**record.fields, "replies": []}
    roots: list[tuple[FileRecord, dict[str, Any]]] = []
    for record in records:
        node, parent = nodes[str(record.fields["message_id"])], record.fields["parent_id"]
        if parent is None or parent == "":
            roots.append((record, node))
        elif (above := nodes.get(str(parent))) is not None:
            above["replies"].append(node)
    reached, left = set[int](), [root for _, root in roots]
    while left:
        node = left.pop()
        reached.add(id(node))
        left += node["replies"]
    for record in records:
        if id(nodes[str(record.fields["message_id"])]) not in reached:
            yield ParsedRow(None, "message whose parent is not in the file", record.offset, where=record.where)
    for record, root in roots:
        fields = {**record.fields, "message_tree_id": root["message_id"], "prompt": root}
        yield dataclasses.replace(record, fields=fields)


def read_threads(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    """The conversations of a tree."""
    seen: set[int] = set()
    yield from _threads(_root(fields), [], seen)


def _root(fields: dict[str, Any]) -> dict[str, Any]:
    root = fields["prompt"]
    if not isinstance(root, dict):
        raise ValueError("the field 'prompt' is not a tree of messages")
    return root


def _threads(node: dict[str, Any], before: list[dict[str, Any]], seen: set[int]) -> Iterator[dict[str, Any] | Dropped]:
    """The conversations from a message on, each as long as its branch."""
    if len(before) > MOST_DEPTH:
        raise ValueError(f"more than {MOST_DEPTH} messages in a branch")
    path = [*before, node]
    replies = _replies(node)
    if _role(node) == "user":
        best, others = _ranked(replies)
        yield from (Dropped("answer of a lower rank", intended=True) for _ in others)
        replies = best
    if replies:
        for reply in replies:
            yield from _threads(reply, path, seen)
        return
    if _role(node) == "user":
        path = path[:-1]
        if not path:
            yield Dropped("no answer")
            return
        if all(id(item) in seen for item in path):
            return  # a reply that nobody answered adds nothing to what an earlier branch has
    messages = []
    for item in path:
        message: Message = {"role": _role(item), "content": text_field(item, "text")}
        if message["role"] == "assistant" and id(item) in seen:
            message["weight"] = 0
        messages.append(message)
    if any(m["role"] == "assistant" and "weight" not in m for m in messages):
        seen.update(id(item) for item in path)
        yield {"messages": messages}


def _replies(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The replies to a message that were not taken back."""
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise ValueError("the field 'replies' is not a list of objects")
    return [r for r in replies if not r.get("deleted") and r.get("review_result") is not False]


def _ranked(answers: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The answer of the best rank, the first if none has a rank, and the others."""
    if not answers:
        return [], []
    best = min(answers, key=lambda answer: (answer.get("rank") is None, answer.get("rank") or 0))
    return [best], [answer for answer in answers if answer is not best]


def _role(node: dict[str, Any]) -> str:
    return role_named(str(node.get("role")))


def read_ranked_answers(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    """Each pair of ranked answers to a prompt, the one of the better rank chosen."""
    yield from _ranked_answers(_root(fields), [])


def _ranked_answers(node: dict[str, Any], before: list[Message]) -> Iterator[dict[str, Any] | Dropped]:
    if len(before) > MOST_DEPTH:
        raise ValueError(f"more than {MOST_DEPTH} messages in a branch")
    messages = [*before, {"role": _role(node), "content": text_field(node, "text")}]
    replies = _replies(node)
    if messages[-1]["role"] == "user":
        ranked = sorted((reply for reply in replies if reply.get("rank") is not None), key=lambda reply: reply["rank"])
        if len(ranked) < 2:
            yield Dropped("fewer than two ranked answers", intended=True)
        for chosen, rejected in combinations(ranked, 2):
            if chosen["rank"] < rejected["rank"]:
                sides = {name: [{"role": _role(item), "content": text_field(item, "text")}]
                         for name, item in (("chosen", chosen), ("rejected", rejected))}  # fmt: skip
                yield {"prompt": messages, **sides}
    for reply in replies:
        yield from _ranked_answers(reply, messages)
