"""Proximal policy optimisation: answers are better or worse than a critic expected, token by token.

Shapes: N answers, A tokens of the longest, M tokens of the answers in a batch, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.config.align import PPOConfig
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.packing import PackedRows, render_set
from understudy.data.loader import Batch
from understudy.losses import (
    IGNORE,
    clipped_value_sum,
    cross_entropy_sum,
    generalised_advantages,
    kl_estimate,
    whiten,
)
from understudy.model import GPT, build_model
from understudy.model.masks import packed
from understudy.optim import build_optimizers
from understudy.rewards.model import completion_hidden_states
from understudy.stages.answers import (
    SampledCompletion,
    answer_logprobs,
    sampled_logprobs,
    score_completions,
    token_mask,
)
from understudy.stages.rollout import Policy, RolloutModels, RolloutSource, RolloutStage
from understudy.train.init_from import start_from
from understudy.train.stage import StageContext, samples_per_process


class PolicyAndCritic(Policy):
    """The policy's clipped loss, the critic's, and the language modelling loss where it is mixed in."""

    config: PPOConfig

    def __init__(self, model: GPT, config: PPOConfig, critic: GPT | None) -> None:
        super().__init__(model, config)
        self.critic = critic

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        hidden = completion_hidden_states(self.model, batch)
        loss, sums = self.policy_loss(batch, hidden)
        values = self.values(batch, hidden)
        value_loss = clipped_value_sum(
            values, batch["values"], batch["returns"], torch.ones_like(values), config.value_clip
        )
        loss, sums = loss + config.value_coefficient * value_loss, sums | {"value_loss": value_loss}
        if "ptx_tokens" in batch:
            ptx = self._ptx_loss(batch)
            loss, sums = loss + config.ptx_coefficient * ptx, sums | {"ptx_loss": ptx}
        return loss, sums

    def values(self, batch: dict[str, Tensor], hidden: Tensor | None = None) -> Tensor:
        """What the critic expects before each token (M,); ``hidden`` (M, D) are the policy's, where they are at hand."""
        if self.critic is not None:
            return self.critic.score(completion_hidden_states(self.critic, batch))
        return self.model.score(completion_hidden_states(self.model, batch) if hidden is None else hidden)

    def _ptx_loss(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = self.model.hidden(batch["ptx_tokens"], packed(batch["ptx_documents"]))
        learnt = batch["ptx_targets"] != IGNORE
        logits = self.model.logits(hidden[learnt][None])
        return cross_entropy_sum(logits, batch["ptx_targets"][learnt][None]) * batch["ptx_scale"][0]


class Ppo(RolloutStage):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    def make_course(self, context: StageContext) -> None:
        self.objective, self.batches, self.extra_optimizers = ppo_course(context, self.models)


def ppo_course(
    setting: StageContext, actors: RolloutModels
) -> tuple[PolicyAndCritic, RolloutSource, list[torch.optim.Optimizer]]:
    """What the loop needs for PPO."""
    config = setting.config.section(PPOConfig)
    critic = _critic(setting, actors, config)
    objective = PolicyAndCritic(actors.policy, config, critic)
    control = _Control(config.kl_coefficient)
    optimizers: list[torch.optim.Optimizer] = []
    if critic is not None:
        optim = setting.config.optim
        optimizers = build_optimizers(critic, optim.model_copy(update={"lr": config.critic_lr or optim.lr}))
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["names"] = [f"critic.{name}" for name in group["names"]]

    def learn_from(
        answers: Sequence[SampledCompletion], rewards: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        runtime, context = actors.runtime, setting.config.model.context_length
        mask, old = token_mask(answers), sampled_logprobs(answers)
        reference = score_completions(
            answers, answer_logprobs(actors.reference, config.temperature), actors.reference, context, runtime
        )
        values = score_completions(answers, objective.values, objective, context, runtime)
        kl = kl_estimate(old, reference, config.kl_estimator) * mask
        each = -control.coefficient * kl
        each[torch.arange(len(answers)), mask.sum(1) - 1] += rewards["reward"]
        advantages, returns = generalised_advantages(each, values, mask, config.gamma, config.lam)
        unexplained, spread = (x[mask].var(correction=0) for x in (returns - values, returns))
        if config.whiten:
            advantages = whiten(advantages, mask, runtime.all_sum)
        diverged = (kl_estimate(old, reference, "k3") * mask).sum()
        sums = {
            "kl": diverged, "kl_coefficient": torch.tensor(control.coefficient * len(answers)),
            "explained_variance": (1 - unexplained / spread.clamp(min=1e-8)) * len(answers),
            "value": (values.sum() / mask.sum()) * len(answers),
        }  # fmt: skip
        told = runtime.all_sum(torch.stack((diverged, torch.tensor(float(len(answers))))))
        control.steer(config, float(told[0] / told[1]), int(told[1]))
        return {"advantages": advantages, "values": values, "returns": returns}, sums

    source = RolloutSource(
        actors, objective, learn_from, config.group_size, extend=_ptx(setting, actors, config),
        own_state=lambda: {"kl_coefficient": control.coefficient}, load_own_state=control.load,
    )  # fmt: skip
    return objective, source, optimizers


@dataclass
class _Control:
    """The coefficient of the divergence, steered towards a wanted one (Ziegler et al. 2019, section 2.2)."""

    coefficient: float

    def steer(self, config: PPOConfig, kl: float, answers: int) -> None:
        if config.kl_target:
            error = min(max(kl / config.kl_target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * answers / (config.kl_horizon or 10_000)

    def load(self, state: dict[str, Any]) -> None:
        self.coefficient = state["kl_coefficient"]


def _critic(setting: StageContext, actors: RolloutModels, config: PPOConfig) -> GPT | None:
    """A critic of its own, with its first weights; None where it is a head on the policy."""
    if config.critic == "head":
        return None
    run, judge = actors.start, actors.rewards.model
    if config.critic == "reward" and judge is not None:  # the configuration sees to it that there is one
        run = judge.run
    shape = run.config.model.model_copy(update={"score_head": True, "lora": None})
    critic = build_model(shape).to(setting.runtime.device)
    assert isinstance(critic, GPT)
    start_from(critic, run, actors.tokenizer)
    if not shape.tied:
        critic.head.requires_grad_(False)  # nothing reads it
    return critic


def _ptx(setting: StageContext, actors: RolloutModels, config: PPOConfig) -> Callable[[list[Batch], int], list[Batch]]:
    """Adds conversations to each micro-batch, whose loss is to be a mean over their tokens, whatever the answers'."""
    if not config.ptx_data:
        return lambda batches, step: batches
    run, runtime = setting.config, setting.runtime
    messages = (record["messages"] for record in open_conversations(Path(config.ptx_data), "train"))
    rendered = render_set(messages, actors.tokenizer, run.model.context_length)
    rows = PackedRows(rendered, run.model.context_length, run.train.seed)
    share, micro = samples_per_process(run, runtime), run.train.micro_batch_size
    assert micro is not None, "decided before a course is prepared"

    def extend(batches: list[Batch], step: int) -> list[Batch]:
        at = step * run.train.batch_size + runtime.rank * share
        for batch in batches:
            more = rows.batch(at, micro)
            at += micro
            batch |= {f"ptx_{name}": tensor for name, tensor in more.items()}
        counts = torch.stack([
            torch.tensor(float(sum(len(batch["targets"]) for batch in batches))),
            sum(((batch["ptx_targets"] != IGNORE).sum() for batch in batches), torch.zeros(())),
        ])  # fmt: skip
        answers, others = runtime.all_sum(counts).tolist()
        for batch in batches:
            batch["ptx_scale"] = torch.tensor([answers / max(1.0, others)])
        return batches

    return extend
