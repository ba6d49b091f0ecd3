"""The chat format, and the special tokens it is made of. No other file knows either.

A conversation is written as ChatML, one block for each message:

    <|im_start|>user
    Who found the purse?<|im_end|>
    <|im_start|>assistant
    Sam found the purse.<|im_end|>

The two markers are special tokens: single ids that no text encodes to, so what a user types stays text. Not here:
choosing what to answer, packing conversations into rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.tokenizer.base import Tokenizer, clean

Message = dict[str, Any]
"""``{"role": "system", "user" or "assistant", "content": text}``; ``"weight": 0`` keeps an answer from training."""

ROLES = ("system", "user", "assistant")
START, END = "<|im_start|>", "<|im_end|>"
CHAT_TOKENS = (START, END)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The same format as a Jinja template, for `apply_chat_template` of transformers; the ids are equal for every
conversation whose contents do not spell a special token (there it reads control, here text)."""


@dataclass(frozen=True)
class Rendered:
    """Token ids of a conversation, and the mask of those trained on: the assistant's contents, and the token that ends
    its turn. ``contents``: the positions of each message's content."""

    tokens: list[int]
    mask: list[bool]
    contents: list[range]


def with_chat_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the two markers after its own tokens; itself where it has them."""
    return tokenizer if speaks_chat(tokenizer) else tokenizer.with_special_tokens(CHAT_TOKENS)


def speaks_chat(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has the markers of the chat format."""
    return all(name in tokenizer.special_tokens for name in CHAT_TOKENS)


def end_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end an answer: the end of a message, or of a text."""
    ends = (tokenizer.special_tokens.get(END), tokenizer.eot_id)
    return frozenset(id for id in ends if id is not None)


def check_messages(messages: Any) -> list[Message]:
    """A conversation as it may be rendered: an optional system message, then user and assistant by turns.

    Contents lose the white space around them, and what no UTF-8 text can hold becomes U+FFFD.

    Raises:
        ValueError: anything else, with the place.
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
        if (role == "assistant" and before != "user") or (role == "user" and before == "user"):
            raise ValueError(
                f"message {number} is from the {role} and follows {f'one from the {before}' if before else 'nothing'}; "
                "user and assistant take turns, and the user begins"
            )
        if message.get("weight", 1) not in (0, 1):
            raise ValueError(f"message {number} has the weight {message['weight']!r}; a weight is 0 or 1")
        weight = {"weight": 0} if role == "assistant" and message.get("weight", 1) == 0 else {}
        checked.append({"role": role, "content": clean(message["content"]).strip(), **weight})
    return checked


def render(tokenizer: Tokenizer, messages: Any, reply: bool = False) -> Rendered:
    """A conversation as token ids and the mask of what is trained on.

    Args:
        reply: end with the beginning of an assistant message, for a model to go on from; the conversation must end
            with the user's turn then.

    Raises:
        ValueError: no conversation (see :func:`check_messages`), a tokenizer without the markers, or with characters
            it lacks.
    """
    [rendered] = render_all(tokenizer, [messages], reply)
    return rendered


def render_all(tokenizer: Tokenizer, conversations: Sequence[Any], reply: bool = False) -> list[Rendered]:
    """Many conversations as :func:`render` renders one; their texts are encoded together, on all cores."""
    if not speaks_chat(tokenizer):
        raise ValueError("this tokenizer has no chat tokens; finetune the run on conversations first: `understudy sft`")
    checked = [check_messages(messages) for messages in conversations]
    if reply and (wrong := next((m for m in checked if m[-1]["role"] != "user"), None)):
        raise ValueError(f"the last message is from the {wrong[-1]['role']}; an answer follows one from the user")
    start, end = (tokenizer.special_tokens[name] for name in CHAT_TOKENS)
    # Headers are encoded by themselves, so that what the model is given to continue is a beginning of what it was
    # trained on. Contents begin with no white space, so that no tokenizer would join the two.
    headers = {role: [start, *tokenizer.encode(role + "\n")] for role in ROLES}
    line = tokenizer.encode("\n")
    contents = iter(tokenizer.encode_batch([message["content"] for messages in checked for message in messages]))
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


def fit(tokenizer: Tokenizer, messages: Any, max_tokens: int) -> tuple[list[Message], int]:
    """The conversation, cut so that it and the beginning of an answer take at most ``max_tokens``.

    The system message always stays. The oldest turns leave first, each with its answer.

    Returns:
        What is left, and how many messages were left out.

    Raises:
        ValueError: even the system message and the last turn are too long.
    """
    messages = check_messages(messages)
    system = [m for m in messages if m["role"] == "system"]
    turns = messages[len(system) :]
    if not turns or turns[-1]["role"] != "user":
        raise ValueError("the conversation does not end with a message from the user; there is nothing to answer")
    rendered = render(tokenizer, messages, reply=True)
    # Blocks stand one after the other, so that leaving some out saves what they take.
    ends = [span.stop + len(tokenizer.encode("\n")) + 1 for span in rendered.contents[len(system) :]]
    begin = rendered.contents[0].stop + len(tokenizer.encode("\n")) + 1 if system else 0
    for first in range(0, len(turns), 2):
        needed = len(rendered.tokens) - (ends[first - 1] - begin if first else 0)
        if needed <= max_tokens:
            return system + turns[first:], first
    raise ValueError(
        f"the message takes {needed:,} tokens, and {max_tokens:,} are free in the model's context; send a shorter one"
    )
