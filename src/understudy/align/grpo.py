"""Group relative policy optimisation: answers to the same prompt are better or worse than each other, without a critic.

Shapes: N answers, A tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from understudy.align.answers import Answer, answer_logprobs, read_answers, sampled_logprobs, states, token_mask
from understudy.align.rollout import Actors, Judging, Policy, Rollouts
from understudy.config import GRPOConfig
from understudy.losses import group_advantages, kl_estimate
from understudy.train.material import Course, Setting


class GroupPolicy(Policy):
    """The policy's clipped loss, and its divergence from the start."""

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.policy_loss(batch, states(self.model, batch))


def grpo_course(setting: Setting, actors: Actors, judging: Judging) -> Course:
    """What the loop needs for GRPO, and with ``baseline: leave_one_out`` for RLOO."""
    config = setting.config.section(GRPOConfig)

    def learn_from(
        answers: Sequence[Answer], rewards: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        mask = token_mask(answers)
        advantages = group_advantages(
            rewards["reward"], config.group_size, config.divide_by_spread, config.baseline == "leave_one_out"
        )
        reference = read_answers(
            answers, answer_logprobs(actors.reference, config.temperature), actors.reference,
            setting.config.model.context_length, actors.runtime,
        )  # fmt: skip
        found = {"advantages": advantages[:, None] * mask}
        if config.kl_coefficient:
            found["reference"] = reference
        groups = rewards["reward"].view(-1, config.group_size)
        same = (groups.amax(1) - groups.amin(1) < 1e-8).sum() * config.group_size
        diverged = (kl_estimate(sampled_logprobs(answers), reference, "k3") * mask).sum()
        return found, {"kl": diverged, "zero_spread": same}

    objective = GroupPolicy(actors.policy, config)
    return Course(objective, Rollouts(actors, objective, learn_from, config.group_size), judging)
