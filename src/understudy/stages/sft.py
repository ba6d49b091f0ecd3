"""Finetuning on conversations."""

from __future__ import annotations

from collections.abc import Iterator

from understudy.config import RunConfig
from understudy.data.chat.conversations import Conversations, open_conversations
from understudy.data.chat.packing import PackedRows, RenderedSet, all_rows, render_set
from understudy.evaluate.loss import LossResult, loss_over
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import check_messages, end_ids
from understudy.train.objective import Objective
from understudy.train.stage import (
    StageContext,
    StageData,
    TrainingSetup,
    _next_token,
    by_sample,
    present_data,
    shown_prompts,
)


def conversation_material(config: RunConfig, tokenizer: Tokenizer) -> StageData:
    """Conversations, rendered and packed. ``tokenizer`` speaks chat.

    Raises:
        ValueError: no such data, or nothing in it to train on.
    """
    path = present_data(config)
    context = config.model.context_length
    opened = {split: open_conversations(path, split) for split in ("train", "val")}
    sets = {split: _rendered(conversations, config, tokenizer) for split, conversations in opened.items()}
    train, val = sets["train"], sets["val"].first(config.eval.max_tokens)
    rows = PackedRows(train, context, config.train.seed, bool(config.data.pack))

    def prepare(setting: StageContext) -> TrainingSetup:
        def judge(objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
            runtime = setting.runtime
            return loss_over(
                objective.model, all_rows(val, context, size, runtime.rank, runtime.world_size), runtime
            ), {}

        return TrainingSetup(_next_token(setting), by_sample(rows, setting), judge)

    return StageData(
        tokenizer=tokenizer,
        prepare=prepare,
        prompts=shown_prompts(config, tokenizer, (messages[:1] for messages in _questions(opened["val"]))),
        ends=end_ids(tokenizer),
        about={
            "path": str(path), "sha256": opened["train"].sha256,
            **{f"{split}_{what}": number for split, each in sets.items() for what, number in (
                ("conversations", len(each)), ("tokens", len(each.tokens)), ("trained_tokens", int(each.mask.sum())))},
            "counts": {split: vars(each.counts) for split, each in sets.items()},
        },
        notes=[f"{split}: {each.counts}" for split, each in sets.items()],
    )  # fmt: skip


def _rendered(conversations: Conversations, config: RunConfig, tokenizer: Tokenizer) -> RenderedSet:
    messages = (record["messages"] for record in conversations)
    too_long = config.data.too_long or "cut"
    return render_set(messages, tokenizer, config.model.context_length, too_long, conversations.weights)


def _questions(conversations: Conversations) -> Iterator[list[dict[str, str]]]:
    """The conversations without system messages, each beginning with what a user says."""
    for record in conversations:
        if (messages := check_messages(record["messages"]))[0]["role"] == "user":
            yield messages
