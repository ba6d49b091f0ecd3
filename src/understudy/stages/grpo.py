"""Group relative policy optimisation (GRPO): the completions of a prompt are each other's baseline.

Shapes: N completions, A tokens of the longest.
"""

from __future__ import annotations

from torch import Tensor

from understudy.config.align import GRPOConfig
from understudy.losses import group_advantages
from understudy.stages.completions import PolicyObjective
from understudy.stages.rollout import Rollout, RolloutSource
from understudy.stages.rollout_stage import RolloutStage
from understudy.train.stage import StageContext


class GRPOSource(RolloutSource):
    """Rollouts with advantages within groups of completions."""

    def advantages(self, rollout: Rollout) -> dict[str, Tensor]:
        """The same advantage for all tokens of a completion (Shao et al. 2024; RLOO: Ahmadian et al. 2024)."""
        config = self.run_config.section(GRPOConfig)
        advantages = group_advantages(
            rollout.rewards, config.group_size, config.divide_by_spread, config.baseline == "leave_one_out"
        )
        groups = rollout.rewards.view(-1, config.group_size)
        self.metrics.add("zero_std_groups", (groups.amax(1) - groups.amin(1) < 1e-8).sum(), len(groups))
        tokenwise = {"advantages": advantages[:, None] * rollout.mask}
        return tokenwise | ({"reference_logprobs": rollout.reference_logprobs} if config.kl_coefficient else {})


class GRPO(RolloutStage):
    """Group relative policy optimisation (Shao et al. 2024)."""

    def setup(self, context: StageContext) -> None:
        super().setup(context)
        self.objective = PolicyObjective(self.models.policy, context.config.section(GRPOConfig))
        self.batches = GRPOSource(context, self.tokenizer, self.models, self.prompts["train"])
