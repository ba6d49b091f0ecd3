"""Reward models: a score for each answer, trained so that what people prefer scores higher.

Shapes: N documents (answers) of a batch, P pairs.
"""

from __future__ import annotations

from torch import Tensor

from understudy.config import RewardConfig, RunConfig
from understudy.data.chat.pair_rows import PairRows
from understudy.evaluate.loss import LossResult
from understudy.evaluate.reward_model import RewardEvaluation, judge_scores
from understudy.losses import pair_loss
from understudy.model import GPT
from understudy.rewards.model import document_scores
from understudy.stages.preferences import about_pairs, open_pairs, weighted_pairs
from understudy.tokenizer import Tokenizer
from understudy.train.objective import Objective
from understudy.train.stage import StageContext, StageData, TrainingSetup, by_sample


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


def reward_material(config: RunConfig, tokenizer: Tokenizer) -> StageData:
    """Preferences for a reward model.

    Raises:
        ValueError: no such data, or nothing in it to train on.
    """
    opened, rendered = open_pairs(config, tokenizer)

    def prepare(setting: StageContext) -> TrainingSetup:
        assert isinstance(setting.model, GPT) and config.reward
        context = config.model.context_length
        rows = PairRows(rendered["train"], context, config.train.seed)
        last: list[RewardEvaluation] = []

        def judge(objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
            assert isinstance(objective.model, GPT)
            last[:] = [judge_scores(objective.model, rendered["val"], context, size, setting.runtime)]
            return last[0].loss, last[0].measured()

        objective, source = PairwiseReward(setting.model, config.reward), by_sample(rows, setting)
        return TrainingSetup(objective, source, judge, keep=lambda step: last[0].save(setting.folder, step))

    return StageData(
        tokenizer=tokenizer, prepare=prepare, prompts=[], ends=frozenset(), about=about_pairs(opened, rendered),
        notes=[f"{split}: {each}" for split, each in rendered.items()],
    )  # fmt: skip
