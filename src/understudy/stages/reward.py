"""Reward models: a score for each answer, trained so that what people prefer scores higher.

Shapes: N documents (answers) of a batch, P pairs.
"""

from __future__ import annotations

from torch import Tensor

from understudy.config.align import RewardConfig
from understudy.config.run import RunConfig
from understudy.data.chat.pair_rows import PairRows
from understudy.evaluate.loss import LossResult
from understudy.evaluate.reward_model import RewardEvaluation, evaluate_scores
from understudy.losses import pair_loss
from understudy.model import GPT, as_gpt
from understudy.rewards.model import document_scores
from understudy.stages.preferences import PreferenceData, weighted_pairs
from understudy.tokenizer import Tokenizer
from understudy.train.objective import Objective
from understudy.train.stage import StageContext, TrainingStage, by_sample


class PairwiseReward(Objective):
    """Bradley-Terry loss of the pairs in a batch of :func:`understudy.data.chat.pair_rows.collate_pairs`."""

    model: GPT

    def __init__(self, model: GPT, config: RewardConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        if not model.config.tied:
            model.head.requires_grad_(False)  # nothing reads it

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["weight"].sum()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        scores = document_scores(self.model, batch)
        better, worse = scores[batch["better"]], scores[batch["worse"]]
        margin = batch["margin"] if self.config.margin else 0.0
        loss = pair_loss(better, worse, margin, self.config.centring)
        reverse = pair_loss(worse, better, 0.0, self.config.centring)
        return weighted_pairs(batch, loss, reverse, better - worse)


class Reward(TrainingStage):
    """Pairwise reward modelling over preferences."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.tokenizer = tokenizer
        self.data = PreferenceData(config, tokenizer)
        self.data_summary, self.notes = self.data.summary(), self.data.notes()
        self.last: RewardEvaluation | None = None

    def setup(self, context: StageContext) -> None:
        self.context = context
        rows = PairRows(self.data.rendered["train"], self.config.model.context_length, self.config.train.seed)
        self.objective = PairwiseReward(as_gpt(context.model), self.config.section(RewardConfig))
        self.batches = by_sample(rows, context)

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        model, length = as_gpt(self.objective.model), self.config.model.context_length
        self.last = evaluate_scores(model, self.data.rendered["val"], length, batch_size, self.context.runtime)
        return self.last.loss, self.last.measured()

    def on_best(self, step: int) -> None:
        if self.last is not None:
            self.last.save(self.context.folder, step)
