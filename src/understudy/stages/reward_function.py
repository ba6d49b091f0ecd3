"""The reward of completions: the score of a reward model, the verdict of a verifier, or both.

Shapes: N completions.
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
from understudy.stages.completions import SAMPLING_BATCH, SampledCompletion


@dataclass
class RewardFunction:
    """The weighted sum of a reward model's score and a verifier's verdict, less a penalty for a missing end token.

    Attributes:
        count, mean, squares: of the scores so far, where they are normalised; ``squares`` sums the squared distances
            from the mean.
    """

    config: RolloutConfig
    runtime: Runtime
    model: RewardModel | None
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def __call__(self, completions: Sequence[SampledCompletion], update: bool = False) -> dict[str, Tensor]:
        """For each completion (N,): its ``reward``, ``true_score`` (NaN where its prompt has no verifier), ``length`` and
        ``eos_rate`` (1 with an end token, else 0), and with a reward model its ``score``.

        ``update`` adds these scores to the statistics and normalises by them. Without it scores are not normalised, so
        that all evaluations of a run have the same scale and its best checkpoint can be chosen by them.
        """
        config = self.config
        verdict = torch.tensor([true_score(completion.prompt.record, completion.text) for completion in completions])
        score = torch.zeros(len(completions))
        if self.model is not None:
            rows = [(completion.prompt.tokens, completion.tokens) for completion in completions]
            score = torch.tensor(self.model.score_rows(rows, SAMPLING_BATCH))
        scaled = score
        if update and config.normalise_scores:
            self._update_statistics(score)
            scaled = (score - self.mean) / max((self.squares / self.count) ** 0.5, 1e-6)
        reward = config.reward_weight * scaled
        if config.checker_weight:
            reward = reward + config.checker_weight * verdict
        has_eos = torch.tensor([completion.has_eos for completion in completions], dtype=torch.bool)
        values = {
            "reward": reward - config.missing_end_penalty * ~has_eos, "true_score": verdict, "eos_rate": has_eos.float(),
            "length": torch.tensor([float(len(completion.tokens)) for completion in completions]),
        }  # fmt: skip
        return values | ({"score": score} if self.model else {})

    def _update_statistics(self, score: Tensor) -> None:
        """Add the scores of all processes to the mean and the squared distances (Chan et al. 1979)."""
        n, total = self.runtime.all_sum(torch.stack((torch.tensor(float(len(score))), score.sum()))).tolist()
        mean = total / n
        squares = float(self.runtime.all_sum((score - mean).square().sum()))
        difference, count = mean - self.mean, self.count + n
        self.squares += squares + difference * difference * self.count * n / count
        self.mean += difference * n / count
        self.count = int(count)

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
