"""The validation loss: every token once, in consecutive windows, with a confidence interval.

One mean over all tokens, never a mean of means. Not here: tasks, tables, training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from understudy.data.conversations import open_conversations
from understudy.data.loader import Batch, consecutive_batches
from understudy.data.packing import all_rows, render_set
from understudy.data.shards import open_split
from understudy.losses import IGNORE
from understudy.model import GPT, Bigram
from understudy.model.masks import causal, packed
from understudy.run import Run, RunFolder, write_json
from understudy.runtime import Runtime


@dataclass(frozen=True)
class LossResult:
    """Mean negative log-likelihood a token in nats, with a 95% interval; the same per byte of text in bits."""

    loss: float
    loss_low: float
    loss_high: float
    tokens: int
    bits_per_byte: float | None = None
    bits_per_byte_low: float | None = None
    bits_per_byte_high: float | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"perplexity": self.perplexity}


def evaluate_run(
    run: Run,
    runtime: Runtime,
    path: Path | None = None,
    split: str = "val",
    context_length: int | None = None,
    batch_size: int = 16,
) -> LossResult:
    """The loss of a run on a split of its data, token files or conversations, or of what is at ``path``: of a run that
    answers, conversations.

    Args:
        context_length: the model's when left out.

    Raises:
        ValueError: no such data, data prepared with another tokenizer, or a run whose own data has no loss a token.
    """
    stage = run.config.stage
    if stage == "reward":
        raise ValueError(f"the run {run.path} gives scores, and no loss a token; judge it by `understudy evaluate`")
    if stage not in ("pretrain", "sft") and path is None:
        learnt_from = "preferences" if stage == "dpo" else "prompts"
        raise ValueError(
            f"the run {run.path} learnt from {learnt_from}, which have no loss a token; name --tasks, or --data "
            "CONVERSATIONS"
        )
    if run.state.get("stage") == "import" and path is None:
        raise ValueError(f"the run {run.path} was imported and has no data of its own; name --data, or --tasks")
    context = context_length or run.config.model.context_length
    path = path or Path(run.config.data.path)
    model = run.model.to(runtime.device)
    if stage != "pretrain":
        messages = (record["messages"] for record in open_conversations(path, split))
        conversations = render_set(messages, run.tokenizer, context, run.config.data.too_long or "cut")
        return loss_over(model, all_rows(conversations, context, batch_size, runtime.rank, runtime.world_size), runtime)
    data = open_split(path, split, run.config.model.vocab_size)
    if data.tokenizer_sha256 not in (None, run.tokenizer.sha256):
        raise ValueError(f"the data in {path} was prepared with another tokenizer than the run {run.path} has")
    return evaluate_loss(model, data.tokens, context, batch_size, runtime, data.bytes)


def evaluate_loss(
    model: GPT | Bigram,
    tokens: np.ndarray,
    context_length: int,
    batch_size: int,
    runtime: Runtime,
    text_bytes: int | None = None,
) -> LossResult:
    """The loss of a model on ``tokens`` (N,), each but the first predicted once from at most ``context_length`` before
    it in its window.

    The interval treats windows as the independent pieces of text: the standard error of the ratio of summed loss to
    summed tokens (Cochran 1977, section 6.4), times 1.96.

    Args:
        text_bytes: UTF-8 bytes of the text that ``tokens`` encode, for bits per byte.

    Raises:
        ValueError: fewer than two tokens.
    """
    if len(tokens) < 2:
        raise ValueError(
            f"the split to evaluate has {len(tokens)} tokens, and nothing can be predicted; bring more text"
        )
    batches = consecutive_batches(tokens, context_length, batch_size, runtime.rank, runtime.world_size)
    return loss_over(model, batches, runtime, text_bytes)


@torch.no_grad()
def loss_over(
    model: GPT | Bigram, batches: Iterable[Batch], runtime: Runtime, text_bytes: int | None = None
) -> LossResult:
    """The loss over all targets of this process's ``batches`` and those of the others; rows are what the interval
    counts as independent."""
    was_training = model.training
    model.eval()
    sums = torch.zeros(6, dtype=torch.float64, device="cpu")
    for batch in batches:
        batch = {name: tensor.to(runtime.device) for name, tensor in batch.items()}
        targets = batch["targets"]
        learnt = targets != IGNORE
        at = learnt.flatten().nonzero()[:, 0]
        context = packed(batch["documents"], at) if "documents" in batch else causal(at)
        with runtime.autocast():
            logits = model.logits(model.hidden(batch["tokens"], context)[None])[0]  # (N, V)
        each = F.cross_entropy(logits.float(), targets[learnt], reduction="none").cpu().double()
        loss = torch.zeros(len(targets), dtype=torch.float64).index_add_(0, learnt.nonzero()[:, 0].cpu(), each)  # (B,)
        count = learnt.sum(1).cpu().double()
        sums += torch.stack([loss.sum(), count.sum(), (loss * loss).sum(), (loss * count).sum(), (count * count).sum(),
                             torch.tensor(float(len(loss)), dtype=torch.float64)])  # fmt: skip
    model.train(was_training)
    total, count, loss2, cross, count2, windows = runtime.all_sum(sums).tolist()
    mean = total / count
    spread = max(0.0, loss2 - 2 * mean * cross + mean * mean * count2)
    error = 1.96 * math.sqrt(spread * windows / max(1.0, windows - 1)) / count
    per_byte = count / (text_bytes * math.log(2)) if text_bytes else None
    low, high = mean - error, mean + error
    bits = [value * per_byte if per_byte else None for value in (mean, low, high)]
    return LossResult(mean, low, high, int(count), *bits)


def save_evaluation(folder: RunFolder, result: LossResult, checkpoint: str) -> None:
    """Keep an evaluation with its run, where the report reads it."""
    write_json(folder.path / "evaluation.json", result.as_dict() | {"checkpoint": checkpoint})
