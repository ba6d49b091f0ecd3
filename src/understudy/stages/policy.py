"""The clipped policy loss that PPO and GRPO share.

Shapes: M tokens of the completions in a batch, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.config.align import RolloutConfig
from understudy.losses import clipped_ratio_sum, entropy, kl_estimate, vocabulary_logprobs
from understudy.model import GPT
from understudy.rewards.model import completion_hidden_states
from understudy.train.objective import Objective


class PolicyObjective(Objective):
    """The clipped loss of a policy on completions of the behaviour policy, the one that sampled them.

    A batch is that of :func:`collate_completions` with ``old_logprobs`` and ``advantages`` (M,), and with
    ``reference_logprobs`` (M,) where the KL from the reference is part of the loss.
    """

    model: GPT

    def __init__(self, model: GPT, config: RolloutConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.tensor(float(len(batch["targets"])), device=batch["targets"].device)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.policy_loss(batch, completion_hidden_states(self.model, batch))

    def policy_loss(self, batch: dict[str, Tensor], hidden: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss from ``hidden`` (M, D), and the sums to be logged."""
        config, old_logprobs = self.config, batch["old_logprobs"]
        logits = self.model.logits(hidden[None])[0]  # (M, V)
        vocabulary = vocabulary_logprobs(logits, config.temperature)  # (M, V)
        logprobs = vocabulary.gather(-1, batch["targets"][:, None])[:, 0]  # (M,)
        clipped_loss, clipped_tokens = clipped_ratio_sum(
            logprobs, old_logprobs, batch["advantages"], torch.ones_like(logprobs), config.clip_low, config.clip_high
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.entropy_bonus > 0):  # else it is only logged
            entropy_sum = entropy(vocabulary).sum()
        sums = {
            "policy_loss": clipped_loss, "entropy": entropy_sum, "clip_fraction": clipped_tokens,
            "behaviour_kl": kl_estimate(old_logprobs, logprobs, "k3").sum(),
            "ratio": (logprobs - old_logprobs).exp().sum(),
        }  # fmt: skip
        loss = clipped_loss - config.entropy_bonus * entropy_sum
        if "reference_logprobs" in batch:
            sums["kl_loss"] = kl_estimate(logprobs, batch["reference_logprobs"], config.kl_estimator).sum()
            loss = loss + config.kl_coefficient * sums["kl_loss"]
        return loss, sums
