"""What answers are worth: the score of a reward model, the verdict of a checker, or both.

Shapes: N answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.config.align import RolloutConfig
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import true_score
from understudy.runtime import Runtime
from understudy.stages.answers import AT_ONCE, SampledCompletion
from understudy.tokenizer import Tokenizer


@dataclass
class Rewards:
    """What answers are worth: the score of a reward model, the verdict of a checker, or both, weighted.

    Attributes:
        count, mean, squares: of the scores so far, where they are normalised; squared distances from the mean.
    """

    config: RolloutConfig
    tokenizer: Tokenizer
    runtime: Runtime
    model: RewardModel | None
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def __call__(self, answers: Sequence[SampledCompletion], learn: bool = False) -> dict[str, Tensor]:
        """For each answer (N,): the ``reward``, whether it ``ended``, its ``length``; the reward model's ``score`` and the
        ``truth``, where there is the one and where the other is known of all.

        ``learn`` counts these scores among those that normalise, and normalises by all so far. Otherwise the reward has
        the score as it is, so that evaluations along a run, of which the best is kept, have the same scale.
        """
        config, truth = self.config, torch.tensor([true_score(a.asked.prompt, a.text) for a in answers])
        score = torch.zeros(len(answers))
        if self.model is not None:
            score = torch.tensor(self.model.answers([(a.asked.tokens, a.tokens) for a in answers], AT_ONCE))
        scaled = score
        if learn and config.normalise_scores:
            self._count(score)
            scaled = (score - self.mean) / max((self.squares / self.count) ** 0.5, 1e-6)
        reward = config.reward_weight * scaled
        if config.checker_weight:
            reward = reward + config.checker_weight * truth
        ended = torch.tensor([answer.ended for answer in answers])
        found = {
            "reward": reward - config.missing_end_penalty * ~ended, "ended": ended.float(),
            "length": torch.tensor([float(len(answer.tokens)) for answer in answers]),
        }  # fmt: skip
        found |= {"score": score} if self.model else {}
        return found | ({} if truth.isnan().any() else {"truth": truth})

    def _count(self, score: Tensor) -> None:
        """Add to mean and spread of all processes (Chan et al. 1979)."""
        n, total = self.runtime.all_sum(torch.stack((torch.tensor(float(len(score))), score.sum()))).tolist()
        mean = total / n
        squares = float(self.runtime.all_sum((score - mean).square().sum()))
        moved, both = mean - self.mean, self.count + n
        self.squares += squares + moved * moved * self.count * n / both
        self.mean += moved * n / both
        self.count = int(both)

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
