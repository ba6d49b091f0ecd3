"""Conversations as finetuning reads them: tokens, loss mask, cut and dropped parts.

No model is loaded: the configuration and the tokenizer of a run are enough. Not here: the mask itself
(tokenizer/chat.py), how long conversations are cut (data/chat/packing.py), printing (commands/inspecting.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.packing import PackingCounts, fit_to_row, render_set
from understudy.run import RunFolder, find_run
from understudy.tokenizer import Tokenizer, load_tokenizer
from understudy.tokenizer.base import token_texts
from understudy.tokenizer.chat import Message, RefusedConversation, render_each, speaks_chat, with_chat_tokens


@dataclass(frozen=True)
class MaskedConversation:
    """One conversation as a row has it; ``ids``, ``texts``, ``mask`` and ``special`` have the same length.

    Attributes:
        fate: whole, cut or dropped.
        left_out_before, left_out_after: numbers of tokens that were cut.
        mask: whether a token is trained on.
        special: whether it is a special token.
    """

    fate: str
    left_out_before: int
    left_out_after: int
    ids: list[int]
    texts: list[str]
    mask: list[bool]
    special: list[bool]


@dataclass(frozen=True)
class TrainingMask:
    """The first conversations of a run's training data, with counts over all of them.

    Attributes:
        counts: numbers of conversations by fate, of ``tokens`` and of ``trained_tokens``.
        lacks_chat_tokens: whether the run's own tokenizer has no chat tokens yet.
    """

    run: str
    data: str
    split: str
    context_length: int
    too_long: str
    counts: dict[str, int]
    conversations: list[MaskedConversation]
    lacks_chat_tokens: bool

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "lacks_chat_tokens"}


def training_mask(run: str, data: Path | None = None, count: int = 3) -> TrainingMask:
    """The first ``count`` training conversations of a run, or those at ``data``, as finetuning reads them.

    Raises:
        ValueError: no such run or data, or a run of text without ``data``.
    """
    folder = find_run(run)
    config, own_tokenizer = folder.config(), load_tokenizer(folder.path / "tokenizer.json")
    tokenizer = with_chat_tokens(own_tokenizer)
    conversations = open_conversations(data or _training_data(folder), "train")
    context, too_long = config.model.context_length, config.data.too_long or "cut"
    rendered = render_set((record["messages"] for record in conversations), tokenizer, context, too_long)
    counts = asdict(rendered.counts) | {
        "tokens": len(rendered.tokens), "trained_tokens": int(rendered.mask.sum()),
    }  # fmt: skip
    shown = [_masked(tokenizer, record["messages"], context, too_long) for record in islice(conversations, count)]
    return TrainingMask(
        str(folder.path), str(conversations.path), conversations.split, context, too_long, counts, shown,
        not speaks_chat(own_tokenizer),
    )  # fmt: skip


def _training_data(folder: RunFolder) -> Path:
    config = folder.config()
    if config.info.data != "conversations":
        raise ValueError(
            f"the run {folder.path} was trained on {config.info.data}; name conversations to show with --data PATH, a "
            "folder of `understudy prepare SOURCE --kind conversations` or a .jsonl file"
        )
    return Path(config.data.path)


def _masked(
    tokenizer: Tokenizer, messages: Sequence[Message], context_length: int, too_long: str
) -> MaskedConversation:
    [rendered], counts = render_each(tokenizer, [list(messages)]), PackingCounts()
    if isinstance(rendered, RefusedConversation):
        return MaskedConversation(f"dropped, {rendered}", 0, 0, [], [], [], [])
    fitted = fit_to_row(rendered, context_length + 1, too_long, counts)
    fate = next(name for name, count in vars(counts).items() if count).replace("_", " ")
    if fitted is None:  # shown whole, with nothing trained on
        fate, tokens, mask, before = f"dropped, {fate}", rendered.tokens, [False] * len(rendered.tokens), 0
    else:
        tokens, mask = fitted.tokens, fitted.mask
        before = rendered.mask.index(True) - mask.index(True)  # a cut keeps the beginning of the first answer
    special = set(tokenizer.special_tokens.values())
    return MaskedConversation(
        fate, before, len(rendered.tokens) - before - len(tokens), tokens, token_texts(tokenizer, tokens), mask,
        [token in special for token in tokens],
    )  # fmt: skip
