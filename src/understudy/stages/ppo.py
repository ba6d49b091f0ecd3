"""Proximal policy optimisation (PPO): a critic estimates the value before each token.

Shapes: N completions, A tokens of the longest, M tokens of the completions in a batch, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from understudy.config.align import PPOConfig
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.packing import PackedRows, render_set
from understudy.data.loader import Batch
from understudy.losses import IGNORE, clipped_value_sum, cross_entropy_sum, generalised_advantages, kl_estimate, whiten
from understudy.model import GPT, as_gpt, build_model
from understudy.model.masks import packed
from understudy.optim import build_optimizers
from understudy.rewards.model import completion_hidden_states
from understudy.stages.completions import EncodedPrompt, PolicyObjective, compute_per_token
from understudy.stages.rollout import Rollout, RolloutModels, RolloutSource
from understudy.stages.rollout_stage import RolloutStage
from understudy.tokenizer import Tokenizer
from understudy.train.init_from import load_reference, start_from
from understudy.train.stage import StageContext, micro_batch_size, samples_per_process


class PPOObjective(PolicyObjective):
    """The clipped policy loss, the loss of the critic, and with PPO-ptx the loss of conversations.

    A batch is that of :class:`PolicyObjective` with ``values`` and ``returns`` (M,), and with PPO-ptx the
    tensors of :class:`ConversationMix`. ``critic`` is None where the critic is a score head on the policy.
    """

    config: PPOConfig

    def __init__(self, model: GPT, config: PPOConfig, critic: GPT | None) -> None:
        super().__init__(model, config)
        self.critic = critic

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        hidden = completion_hidden_states(self.model, batch)  # (M, D)
        loss, sums = self.policy_loss(batch, hidden)
        values = self.values(batch, hidden)
        sums["value_loss"] = clipped_value_sum(values, batch["values"], batch["returns"], config.value_clip)
        loss = loss + config.value_coefficient * sums["value_loss"]
        if "ptx_tokens" in batch:
            sums["ptx_loss"] = self._ptx_loss(batch)
            loss = loss + config.ptx_coefficient * sums["ptx_loss"]
        return loss, sums

    def values(self, batch: dict[str, Tensor], hidden: Tensor | None = None) -> Tensor:
        """The critic's values (M,) before each token. ``hidden`` (M, D) are the policy's hidden states, if known."""
        if self.critic is not None:
            return self.critic.score(completion_hidden_states(self.critic, batch))
        return self.model.score(completion_hidden_states(self.model, batch) if hidden is None else hidden)

    def _ptx_loss(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = self.model.hidden(batch["ptx_tokens"], packed(batch["ptx_documents"]))
        is_target = batch["ptx_targets"] != IGNORE
        logits = self.model.logits(hidden[is_target][None])
        return cross_entropy_sum(logits, batch["ptx_targets"][is_target][None]) * batch["ptx_scale"][0]


class ConversationMix:
    """Conversations that PPO-ptx adds for a language modelling loss (Ouyang et al. 2022): packed rows, as many for each
    micro-batch as it has completions."""

    def __init__(self, context: StageContext, tokenizer: Tokenizer, path: str) -> None:
        config = context.config
        messages = (record["messages"] for record in open_conversations(Path(path), "train"))
        rendered = render_set(messages, tokenizer, config.model.context_length)
        self.rows = PackedRows(rendered, config.model.context_length, config.train.seed)
        self.runtime, self.batch_size = context.runtime, config.train.batch_size
        self.per_process = samples_per_process(config, context.runtime)
        self.micro_batch_size = micro_batch_size(config)

    def add_to(self, batches: list[Batch], step: int) -> None:
        """Add ``ptx_tokens``, ``ptx_targets`` and ``ptx_documents`` to the micro-batches of a step, and ``ptx_scale`` (1,).

        The loop divides the loss by the number of completion tokens. Times the scale, the loss of the conversations is a
        mean over their own tokens.
        """
        first = step * self.batch_size + self.runtime.rank * self.per_process
        for number, batch in enumerate(batches):
            rows = self.rows.batch(first + number * self.micro_batch_size, self.micro_batch_size)
            batch |= {f"ptx_{name}": tensor for name, tensor in rows.items()}
        counts = torch.stack([
            torch.tensor(float(sum(len(batch["targets"]) for batch in batches))),
            sum(((batch["ptx_targets"] != IGNORE).sum() for batch in batches), torch.zeros(())),
        ])  # fmt: skip
        completion_tokens, conversation_tokens = self.runtime.all_sum(counts).tolist()
        for batch in batches:
            batch["ptx_scale"] = torch.tensor([completion_tokens / max(1.0, conversation_tokens)])


class PPOSource(RolloutSource):
    """Rollouts with generalised advantages. The KL from the reference model is part of the reward of each token."""

    def __init__(
        self, context: StageContext, tokenizer: Tokenizer, models: RolloutModels, prompts: Sequence[EncodedPrompt],
        objective: PPOObjective,
    ) -> None:  # fmt: skip
        super().__init__(context, tokenizer, models, prompts)
        self.objective, path = objective, objective.config.ptx_data
        self.conversations = ConversationMix(context, tokenizer, path) if path else None

    def mini_batches(self, iteration: int, rollout: Rollout, tokenwise: dict[str, Tensor]) -> list[list[Batch]]:
        steps = super().mini_batches(iteration, rollout, tokenwise)
        if self.conversations:
            for number, batches in enumerate(steps):
                self.conversations.add_to(batches, iteration * self.steps_per_iteration + number)
        return steps

    def advantages(self, rollout: Rollout) -> dict[str, Tensor]:
        """Advantages, values and returns (N, A) of the tokens (Schulman et al. 2016)."""
        config, mask, n = self.objective.config, rollout.mask, len(rollout.completions)
        values = compute_per_token(
            rollout.completions, self.objective.values, self.objective, self.context_length, self.runtime
        )
        kl = kl_estimate(rollout.old_logprobs, rollout.reference_logprobs, config.kl_estimator) * mask
        rewards = -self.kl_coefficient * kl
        rewards[torch.arange(n), mask.sum(1) - 1] += rollout.rewards
        advantages, returns = generalised_advantages(rewards, values, mask, config.gamma, config.lam)
        residual, variance = (x[mask].var(correction=0) for x in (returns - values, returns))
        self.metrics.add("explained_variance", (1 - residual / variance.clamp(min=1e-8)) * n, n)
        self.metrics.add("value", (values.sum() / mask.sum()) * n, n)
        self.metrics.add("kl_coefficient", self.kl_coefficient * n, n)
        if config.whiten:
            advantages = whiten(advantages, mask, self.runtime.all_sum)
        if config.kl_target:
            kl_sum, count = self.runtime.all_sum(torch.stack((rollout.kl.sum(), torch.tensor(float(n))))).tolist()
            self.kl_coefficient *= kl_coefficient_factor(config, kl_sum / count, int(count))
        return {"advantages": advantages, "values": values, "returns": returns}


def kl_coefficient_factor(config: PPOConfig, kl: float, completions: int) -> float:
    """The factor that steers the KL coefficient towards ``kl_target`` (Ziegler et al. 2019, section 2.2).

    ``kl`` is the mean over the number of ``completions``, in nats per completion.
    """
    error = min(max(kl / config.kl_target - 1, -0.2), 0.2)
    return 1 + error * completions / (config.kl_horizon or 10_000)


class PPO(RolloutStage):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    def setup(self, context: StageContext) -> None:
        super().setup(context)
        config, optim = context.config.section(PPOConfig), context.config.optim
        critic = self._critic(context, config)
        self.objective = objective = PPOObjective(self.models.policy, config, critic)
        if critic is not None:
            self.extra_optimizers = build_optimizers(
                critic, optim.model_copy(update={"lr": config.critic_lr or optim.lr})
            )
            for group in (group for optimizer in self.extra_optimizers for group in optimizer.param_groups):
                group["names"] = [f"critic.{name}" for name in group["names"]]
        self.batches = PPOSource(context, self.tokenizer, self.models, self.prompts["train"], objective)

    def _critic(self, context: StageContext, config: PPOConfig) -> GPT | None:
        """A critic beside the policy, with its initial weights; None where it is a score head on the policy."""
        if config.critic == "head":
            return None
        parent = load_reference(context.folder)
        if config.critic == "reward":
            if self.models.reward.model is None:
                raise ValueError("ppo.critic reward needs ppo.reward_model with ppo.reward_weight above 0; give both")
            parent = self.models.reward.model.run
        shape = parent.config.model.model_copy(update={"score_head": True, "lora": None})
        critic = as_gpt(build_model(shape).to(context.runtime.device))
        start_from(critic, parent, self.tokenizer)
        if not shape.tied:
            critic.head.requires_grad_(False)  # the critic computes no logits
        return critic
