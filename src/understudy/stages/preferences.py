"""The data, the objective and the evaluation that stages over pairs of completions share.

Shapes: N completions of a batch, P pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from understudy.config.run import RunConfig
from understudy.data.chat.pair_rows import EncodedComparison, EncodedPreferences, encode_preferences
from understudy.data.chat.preferences import open_preferences
from understudy.data.loader import Batch
from understudy.evaluate.reward_model import over_comparisons
from understudy.model import GPT
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.train.objective import Objective
from understudy.train.stage import existing_data


class PreferenceData:
    """Both splits of the preferences, opened and encoded; of validation as many as eval.max_tokens allows.

    Raises:
        ValueError: no such data, or no prompt of a split that fits.
    """

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        path, context_length = existing_data(config), config.model.context_length
        self.opened = {split: open_preferences(path, split) for split in ("train", "val")}
        self.encoded = {
            split: encode_preferences(opened, tokenizer, context_length, split) for split, opened in self.opened.items()
        }
        self.encoded["val"] = self.encoded["val"].limit(config.eval.max_tokens)

    @property
    def tokens_per_sample(self) -> int:
        """Tokens of the longest comparison, its prompt counted for each completion."""
        return max(comparison.tokens for comparison in self.encoded["train"].comparisons)

    def summary(self) -> dict[str, Any]:
        """The description of the data in run.json."""
        counts = {
            f"{split}_{name}": getattr(encoded, name)
            for split, encoded in self.encoded.items()
            for name in ("prompts", "pairs", "tokens")
        }
        train = self.opened["train"]
        return {"path": str(train.path), "sha256": train.sha256, **counts}

    def notes(self) -> list[str]:
        return [f"{split}: {encoded}" for split, encoded in self.encoded.items()]


class PairObjective(Objective):
    """A loss over the pairs of a batch of :func:`collate_pairs`, a mean over the pairs of each prompt."""

    model: GPT

    def pair_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """For each pair (P,): its ``loss``, its ``accuracy``, and further metrics."""
        raise NotImplementedError

    def count(self, batch: Batch) -> Tensor:
        return batch["weight"].sum()

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        sums = {name: (values * batch["weight"]).sum() for name, values in self.pair_metrics(batch).items()}
        return sums.pop("loss"), sums


def with_ties(tie: Tensor, loss: Tensor, swapped_loss: Tensor) -> Tensor:
    """The loss (P,) of pairs. Of a tie it is half the loss and half that of the swapped pair."""
    return torch.where(tie, (loss + swapped_loss) / 2, loss)


def pair_accuracy(tie: Tensor, margin: Tensor) -> Tensor:
    """1 for each pair (P,) whose ``margin`` of chosen over rejected is positive, 0 if negative; 0.5 for 0 and for ties."""
    return torch.where(tie, 0.5, (margin.sign() + 1) / 2)


def evaluate_pairs(
    objective: PairObjective, preferences: EncodedPreferences, context_length: int, batch_size: int, runtime: Runtime,
    reference_logprobs: Tensor | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Each metric of the objective for each prompt, a mean over its pairs. The processes share the batches."""

    def compute(comparisons: list[EncodedComparison], batch: Batch) -> dict[str, list[float]]:
        return {n: prompt_means(comparisons, batch, values) for n, values in objective.pair_metrics(batch).items()}

    gathered = over_comparisons(
        objective.model, preferences, context_length, batch_size, runtime, compute, reference_logprobs
    )
    return {name: [mean for means in gathered for mean in means[name]] for name in gathered[0]}


def prompt_means(comparisons: list[EncodedComparison], batch: Batch, values: Tensor) -> list[float]:
    """The mean over the pairs of each prompt of ``values`` (P,)."""
    pairs = (values * batch["weight"]).split([len(comparison.pairs) for comparison in comparisons])
    return [float(weighted.sum()) for weighted in pairs]
