"""Conversations that PPO-ptx adds to its batches, for a language modelling loss (Ouyang et al. 2022)."""

from __future__ import annotations

from pathlib import Path

import torch

from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.packing import PackedRows, render_set
from understudy.data.loader import Batch
from understudy.losses import IGNORE
from understudy.tokenizer import Tokenizer
from understudy.train.stage import StageContext, micro_batch_size, samples_per_process


class ConversationMix:
    """Packed rows of conversations, as many for each micro-batch as it has completions."""

    def __init__(self, context: StageContext, tokenizer: Tokenizer, path: str) -> None:
        config = context.config
        messages = (record["messages"] for record in open_conversations(Path(path), "train"))
        rendered = render_set(messages, tokenizer, config.model.context_length)
        self.rows = PackedRows(rendered, config.model.context_length, config.train.seed)
        self.runtime, self.batch_size = context.runtime, config.train.batch_size
        self.per_process = samples_per_process(config, context.runtime)
        self.micro_batch_size = micro_batch_size(config)

    def add_to(self, batches: list[Batch], step: int) -> None:
        """Add ``ptx_tokens``, ``ptx_targets`` and ``ptx_documents`` to the micro-batches of a step, and ``ptx_scale`` (1,).

        The loop divides the loss by the number of completion tokens. Times the scale, the loss of the conversations is a
        mean over their own tokens.
        """
        first = step * self.batch_size + self.runtime.rank * self.per_process
        for number, batch in enumerate(batches):
            rows = self.rows.batch(first + number * self.micro_batch_size, self.micro_batch_size)
            batch |= {f"ptx_{name}": tensor for name, tensor in rows.items()}
        counts = torch.stack([
            torch.tensor(float(sum(len(batch["targets"]) for batch in batches))),
            sum(((batch["ptx_targets"] != IGNORE).sum() for batch in batches), torch.zeros(())),
        ])  # fmt: skip
        completion_tokens, conversation_tokens = self.runtime.all_sum(counts).tolist()
        for batch in batches:
            batch["ptx_scale"] = torch.tensor([completion_tokens / max(1.0, conversation_tokens)])
