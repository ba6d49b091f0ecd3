"""What the stages over pairs of completions share: the data, the objective and the evaluation.

Shapes: N completions of a batch, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.config.run import RunConfig
from understudy.data.chat.pair_rows import EncodedComparison, EncodedPreferences, PairRows, encode_preferences
from understudy.data.chat.preferences import open_preferences
from understudy.data.loader import Batch
from understudy.evaluation.reward_model import over_comparisons
from understudy.model import GPT
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.train.objective import Objective
from understudy.train.stage import IndexedBatches, StageContext, TrainingStage, existing_data


class PreferenceStage(TrainingStage):
    """A stage over both splits of preferences, opened and encoded; of validation as many as eval.max_tokens allows."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.tokenizer = tokenizer
        path, context_length = existing_data(config)[0], config.model.context_length
        self.opened = {split: open_preferences(path, split) for split in ("train", "val")}
        self.encoded = {
            split: encode_preferences(opened, tokenizer, context_length, split) for split, opened in self.opened.items()
        }
        self.encoded["val"] = self.encoded["val"].limit(config.eval.max_tokens)
        # Of the longest comparison, its prompt counted for each completion.
        self.tokens_per_sample = max(comparison.tokens for comparison in self.encoded["train"].comparisons)
        self.epoch_samples = len(self.encoded["train"].comparisons)
        train = self.opened["train"]
        self.data_summary = {"path": str(train.path), "sha256": train.sha256} | {
            f"{split}_{name}": getattr(encoded, name)
            for split, encoded in self.encoded.items()
            for name in ("prompts", "pairs", "tokens")
        }
        self.notes = [f"{split}: {encoded}" for split, encoded in self.encoded.items()]

    def pair_batches(self, context: StageContext, reference_logprobs: Tensor | None = None) -> IndexedBatches:
        """The batches of training, with the log-probabilities of each completion under a reference model if given."""
        length, seed = self.config.model.context_length, self.config.train.seed
        return IndexedBatches(PairRows(self.encoded["train"], length, seed, reference_logprobs), context)


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

    def prompt_means(comparisons: list[EncodedComparison], batch: Batch) -> dict[str, list[float]]:
        sizes = [len(comparison.pairs) for comparison in comparisons]
        return {
            name: [float(weighted.sum()) for weighted in (values * batch["weight"]).split(sizes)]
            for name, values in objective.pair_metrics(batch).items()
        }

    gathered = over_comparisons(
        objective.model, preferences, context_length, batch_size, runtime, prompt_means, reference_logprobs
    )
    return {name: [mean for means in gathered for mean in means[name]] for name in gathered[0]}
