"""Reward modelling: a score for each completion, trained so that chosen completions score higher than rejected ones.

Shapes: N completions of a batch, P pairs.
"""

from __future__ import annotations

from torch import Tensor

from understudy.config.align import RewardConfig
from understudy.data.loader import Batch
from understudy.evaluation.loss import LossResult
from understudy.evaluation.reward_model import RewardEvaluation, evaluate_scores
from understudy.losses import pair_loss
from understudy.model import GPT, as_gpt
from understudy.rewards.model import document_scores
from understudy.stages.preferences import PairObjective, PreferenceStage, pair_accuracy, with_ties
from understudy.train.stage import StageContext


class PairwiseReward(PairObjective):
    """Bradley-Terry loss."""

    def __init__(self, model: GPT, config: RewardConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        if not model.config.tied:
            model.head.requires_grad_(False)  # nothing reads it

    def pair_metrics(self, batch: Batch) -> dict[str, Tensor]:
        scores = document_scores(self.model, batch)  # (N,)
        chosen, rejected = scores[batch["chosen"]], scores[batch["rejected"]]  # (P,)
        margin, centring = batch["margin"] if self.config.margin else 0.0, self.config.centring
        loss, swapped_loss = pair_loss(chosen, rejected, margin, centring), pair_loss(rejected, chosen, 0.0, centring)
        return {
            "loss": with_ties(batch["tie"], loss, swapped_loss),
            "accuracy": pair_accuracy(batch["tie"], chosen - rejected),
        }


class Reward(PreferenceStage):
    """Pairwise reward modelling over preferences (Ouyang et al. 2022)."""

    evaluation: RewardEvaluation | None = None

    def setup(self, context: StageContext) -> None:
        self.context = context
        self.objective = PairwiseReward(as_gpt(context.model), self.config.section(RewardConfig))
        self.batches = self.pair_batches(context)

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        model, context_length = as_gpt(self.objective.model), self.config.model.context_length
        self.evaluation = evaluate_scores(model, self.encoded["val"], context_length, batch_size, self.context.runtime)
        return self.evaluation.loss, self.evaluation.measured()

    def on_best(self, step: int) -> None:
        if self.evaluation is not None:
            self.evaluation.save(self.context.folder.path, step)
