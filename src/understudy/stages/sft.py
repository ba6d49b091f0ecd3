"""Supervised finetuning: next-token prediction over the assistant's tokens of conversations."""

from __future__ import annotations

from collections.abc import Iterator

from understudy.config.run import RunConfig
from understudy.data.chat.conversations import Conversations, open_conversations
from understudy.data.chat.packing import PackedRows, all_rows, render_set
from understudy.evaluation.loss import LossResult, loss_over
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import check_messages, end_ids
from understudy.train.objective import NextToken
from understudy.train.stage import IndexedBatches, StageContext, TrainingStage, existing_data, shown_prompts

FEW_CONVERSATIONS = 100
"""With fewer, a line says what to expect."""


class Sft(TrainingStage):
    """Next-token prediction over rendered and packed conversations; only the assistant's tokens count."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.tokenizer = tokenizer
        path, context_length = existing_data(config)[0], config.model.context_length
        data = {split: open_conversations(path, split) for split in ("train", "val")}
        rendered = {
            split: render_set(
                (record["messages"] for record in conversations), tokenizer, context_length, config.data.too_long or "cut",
                conversations.weights, split,
            )
            for split, conversations in data.items()
        }  # fmt: skip
        self.val = rendered["val"]
        self.rows = PackedRows(rendered["train"], context_length, config.train.seed, bool(config.data.pack))
        self.epoch_samples = len(self.rows.epoch(0))
        self.sample_prompts = shown_prompts(config, tokenizer, (m[:1] for m in user_first(data["val"])))
        self.end_ids = end_ids(tokenizer)
        self.data_summary = {"path": str(path), "sha256": data["train"].sha256}
        for split, conversations in rendered.items():
            self.data_summary |= {
                f"{split}_conversations": len(conversations), f"{split}_tokens": len(conversations.tokens),
                f"{split}_trained_tokens": int(conversations.mask.sum()),
            }  # fmt: skip
            self.notes.append(f"{split}: {conversations.counts}")
        if len(rendered["train"]) < FEW_CONVERSATIONS:
            self.notes.append(
                f"{len(rendered['train'])} conversations are few: expect answers like theirs to questions like theirs, and no more"
            )
        self.data_summary["counts"] = {split: vars(conversations.counts) for split, conversations in rendered.items()}

    def setup(self, context: StageContext) -> None:
        self.runtime = context.runtime
        self.objective = NextToken(context.model, context.config.train.loss_chunk_tokens)
        self.batches = IndexedBatches(self.rows, context)

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        runtime, length = self.runtime, self.config.model.context_length
        batches = all_rows(
            self.val.limit(self.config.eval.max_tokens), length, batch_size, runtime.rank, runtime.world_size
        )
        return loss_over(self.objective.model, batches, runtime), {}


def user_first(conversations: Conversations) -> Iterator[list[dict[str, str]]]:
    """The conversations that begin with a user message."""
    for record in conversations:
        if (messages := check_messages(record["messages"]))[0]["role"] == "user":
            yield messages
