"""Evaluation of a run on a split of data: loss per token, or for a reward model loss per pair and accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config.stages import IMPORTED
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.packing import all_rows, render_set
from understudy.data.chat.pair_rows import encode_preferences
from understudy.data.chat.preferences import open_preferences
from understudy.data.text.shards import data_folder, open_split
from understudy.evaluation.loss import LossResult, evaluate_loss, loss_over, pooled
from understudy.evaluation.reward_model import RewardEvaluation, evaluate_scores
from understudy.files import write_json
from understudy.rewards.model import RewardModel
from understudy.run import Run
from understudy.runtime import Runtime


@dataclass(frozen=True)
class RunEvaluation:
    """Result of one run on one split.

    Attributes:
        result: a :class:`RewardEvaluation` for a reward model.
        own_validation: whether the data is the run's own validation split, in windows of the model's context.
    """

    run: Run
    split: str
    context_length: int
    result: LossResult | RewardEvaluation
    own_validation: bool

    def facts(self) -> dict[str, Any]:
        """The evaluated run, checkpoint, split and context length, as plain JSON."""
        return {
            "run": str(self.run.path), "step": self.run.step, "split": self.split,
            "context_length": self.context_length,
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """The facts and the results, without the list of single scores."""
        results = {name: value for name, value in self.result.as_dict().items() if name != "scores"}
        return self.facts() | results

    def save(self) -> None:
        """Write the result to the run's folder, where the report reads it, if it is the run's own validation."""
        if self.own_validation and isinstance(self.result, RewardEvaluation):
            self.result.save(self.run.path, self.run.step)
        elif self.own_validation:
            write_json(self.run.path / "evaluation.json", self.result.as_dict() | {"checkpoint": str(self.run.step)})


def evaluate_split(
    run: Run, runtime: Runtime, path: Path | str | None = None, split: str = "val", context_length: int | None = None,
    batch_size: int = 16,
) -> RunEvaluation:  # fmt: skip
    """Evaluate a run on a split of its data, or of the data at ``path``: text for base models, conversations for
    assistants, preferences for reward models.

    Args:
        context_length: length of the windows; the model's context by default.

    Raises:
        ValueError: a context the model cannot read, no such data, data prepared with another tokenizer, a run whose
            data has no loss per token, or a result that is not finite.
    """
    info, limit = run.config.info, run.config.model.context_length
    context = limit if context_length is None else context_length
    if not 1 <= context <= limit:
        raise ValueError(f"--context is {context}; the model reads 1 to {limit} tokens")
    if path is None and info.generates and not info.token_loss:
        raise ValueError(
            f"the run {run.path} was trained on {info.data}, which have no loss per token; name --tasks, or --data "
            "CONVERSATIONS"
        )
    if path is None and run.state.get("stage") == IMPORTED:
        raise ValueError(f"the run {run.path} was imported and has no data; name --data or --tasks")
    data = data_folder(path or run.config.data.path) if info.data == "text" else Path(path or run.config.data.path)
    result: LossResult | RewardEvaluation
    if not info.generates:
        model = RewardModel(run, runtime).model
        encoded = encode_preferences(open_preferences(data, split), run.tokenizer, context, split)
        result = evaluate_scores(model, encoded, context, batch_size, runtime)
    elif info.data == "text":
        mixture = [data_folder(part.path) for part in run.config.data.mixture or ()] if path is None else []
        losses = [_text_loss(run, each, split, context, batch_size, runtime) for each in mixture or [data]]
        result = pooled(losses) if mixture else losses[0]
    else:
        messages = (record["messages"] for record in open_conversations(data, split))
        conversations = render_set(messages, run.tokenizer, context, run.config.data.too_long or "cut")
        rows = all_rows(conversations, context, batch_size, runtime.rank, runtime.world_size)
        result = loss_over(run.model.to(runtime.device), rows, runtime)
    if isinstance(result, LossResult) and not math.isfinite(result.loss):
        raise ValueError(
            f"the loss of {run.path} at step {run.step} is not finite: its weights are damaged or its training "
            "diverged; use another checkpoint with --checkpoint"
        )
    return RunEvaluation(run, split, context, result, path is None and split == "val" and context == limit)


def _text_loss(run: Run, path: Path, split: str, context: int, batch_size: int, runtime: Runtime) -> LossResult:
    data = open_split(path, split, run.config.model.vocab_size)
    if data.tokenizer_sha256 not in (None, run.tokenizer.sha256):
        raise ValueError(f"the data in {path} was prepared with another tokenizer than the run {run.path} has")
    return evaluate_loss(run.model.to(runtime.device), data.tokens, context, batch_size, runtime, data.bytes)
