"""What a stage trains on and is judged by: rows, validation batches, prompts to show, and what is said of the data.

Not here: the model, the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from understudy.config import RunConfig
from understudy.data.conversations import Conversations, open_conversations
from understudy.data.folder import data_tokenizer, text_sha256
from understudy.data.loader import Batch, Windows, consecutive_batches
from understudy.data.packing import PackedRows, RenderedSet, all_rows, render_set
from understudy.data.shards import open_split
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import check_messages, end_ids, render


class Rows(Protocol):
    """Samples by number, without end: a pure function of what they were made from and their number."""

    def batch(self, first: int, size: int) -> Batch: ...


@dataclass(frozen=True)
class Material:
    """One stage's data, opened.

    Attributes:
        validation: the validation batches of this process, given the size of a batch.
        val_bytes: UTF-8 bytes of the text they hold, where that is known.
        prompts: what the samples shown at each evaluation continue, as (what is shown of it, text or token ids).
        ends: ids that end such a sample.
        about: what run.json says of the data.
        notes: what to tell whoever watches.
    """

    tokenizer: Tokenizer
    rows: Rows
    validation: Callable[[int, Runtime], Iterator[Batch]]
    val_bytes: int | None
    prompts: list[tuple[str, str | list[int]]]
    ends: frozenset[int]
    about: dict[str, Any]
    notes: list[str]


def text_material(config: RunConfig) -> Material:
    """Token files, in windows.

    Raises:
        ValueError: no such data, or another tokenizer than the configuration expects.
    """
    path = _present(config)
    tokenizer = data_tokenizer(config)
    tokenizer.encode(config.log.prompt)  # a prompt that cannot be sampled from is refused before training
    vocab_size = config.model.vocab_size or tokenizer.vocab_size
    train, val = (open_split(path, split, vocab_size) for split in ("train", "val"))
    context, most = config.model.context_length, config.eval.max_tokens
    short = most is not None and most < len(val.tokens)
    val_tokens = val.tokens[:most] if short else val.tokens
    if len(val_tokens) < 2:
        raise ValueError(f"the validation split in {path} has {len(val_tokens)} tokens, and nothing can be predicted")
    prompt = config.log.prompt
    if not prompt and tokenizer.eot_id is None:  # characters have no sign for a beginning
        prompt = tokenizer.decode(val.tokens[:1])
    return Material(
        tokenizer=tokenizer,
        rows=Windows(train.tokens, context, config.train.seed),
        validation=lambda size, runtime: consecutive_batches(val_tokens, context, size, runtime.rank, runtime.world_size),
        val_bytes=None if short else val.bytes,
        prompts=[(prompt.lstrip("\n"), prompt)] * config.log.samples,
        ends=frozenset(),
        about={
            "path": str(train.path), "sha256": text_sha256(train), "train_tokens": len(train.tokens),
            "val_tokens": len(val.tokens), "val_bytes": val.bytes,
        },
        notes=[],
    )  # fmt: skip


def conversation_material(config: RunConfig, tokenizer: Tokenizer) -> Material:
    """Conversations, rendered and packed. ``tokenizer`` speaks chat.

    Raises:
        ValueError: no such data, or nothing in it to train on.
    """
    path = _present(config)
    context = config.model.context_length
    opened = {split: open_conversations(path, split) for split in ("train", "val")}
    sets = {split: _rendered(conversations, config, tokenizer) for split, conversations in opened.items()}
    prompts = config.log.prompts or tuple(
        messages[0]["content"] for messages in islice(_questions(opened["val"]), config.log.samples)
    )
    shown = [
        (f"user: {prompt}\nassistant: ", render(tokenizer, [{"role": "user", "content": prompt}], reply=True).tokens)
        for prompt in prompts[: config.log.samples]
    ]
    train, val = sets["train"], sets["val"].first(config.eval.max_tokens)
    return Material(
        tokenizer=tokenizer,
        rows=PackedRows(train, context, config.train.seed, bool(config.data.pack)),
        validation=lambda size, runtime: all_rows(val, context, size, runtime.rank, runtime.world_size),
        val_bytes=None,
        prompts=[(text, tokens) for text, tokens in shown if len(tokens) < context],
        ends=end_ids(tokenizer),
        about={
            "path": str(path), "sha256": opened["train"].sha256,
            **{f"{split}_{what}": number for split, each in sets.items() for what, number in (
                ("conversations", len(each)), ("tokens", len(each.tokens)), ("trained_tokens", int(each.mask.sum())))},
            "counts": {split: vars(each.counts) for split, each in sets.items()},
        },
        notes=[f"{split}: {each.counts}" for split, each in sets.items()],
    )  # fmt: skip


def _present(config: RunConfig) -> Path:
    """The path of the data, which must be there."""
    path = Path(config.data.path)
    if path.exists():
        return path
    source = config.data.source or "SOURCE"
    if config.stage == "sft":
        options = "--kind conversations"
    else:
        size = f" --vocab-size {config.tokenizer.vocab_size}" if config.tokenizer.vocab_size else ""
        options = f"--tokenizer {config.tokenizer.kind or 'bpe'}{size}"
    raise ValueError(
        f"there is no data in {path}; prepare it first: `understudy prepare {source} {options} --out {path}`"
    )


def _rendered(conversations: Conversations, config: RunConfig, tokenizer: Tokenizer) -> RenderedSet:
    messages = (record["messages"] for record in conversations)
    too_long = config.data.too_long or "cut"
    return render_set(messages, tokenizer, config.model.context_length, too_long, conversations.weights)


def _questions(conversations: Conversations) -> Iterator[list[dict[str, str]]]:
    """The conversations without system messages, each beginning with what a user says."""
    for record in conversations:
        if (messages := check_messages(record["messages"]))[0]["role"] == "user":
            yield messages
