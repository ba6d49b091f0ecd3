"""The reinforcement learning iteration of PPO and GRPO, in :meth:`RolloutSource.collect`.

Sampling and training use the same model at the same temperature, without truncation of the distribution, so that the
first ratio of an iteration is 1 up to rounding. Not here: the loss (completions.py), the stage around it (rollout_stage.py).

Shapes: N completions of this process, A tokens of the longest, M tokens of the completions in a micro-batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.config.align import RolloutConfig
from understudy.data.loader import Batch, mix, permute, shuffled
from understudy.losses import kl_estimate
from understudy.model import GPT
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import true_score
from understudy.runtime import Runtime
from understudy.stages.completions import (
    SAMPLING_BATCH,
    EncodedPrompt,
    SampledCompletion,
    collate_completions,
    completion_logprobs,
    completion_mask,
    compute_per_token,
    sample_completions,
    sampled_logprobs,
)
from understudy.tokenizer import Tokenizer
from understudy.train.loop import BatchSource
from understudy.train.stage import StageContext, micro_batch_size, samples_per_process


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


@dataclass(frozen=True)
class RolloutModels:
    """The policy in training, the frozen reference model that the KL is measured from, and the reward function."""

    policy: GPT
    reference: GPT
    reward: RewardFunction


@dataclass(frozen=True)
class Rollout:
    """The completions that this process sampled for one iteration.

    Attributes:
        rewards: (N,).
        mask: (N, A), true on the tokens of each completion.
        old_logprobs: (N, A), log-probabilities of the tokens under the behaviour policy, which sampled them.
        reference_logprobs: (N, A), the same under the reference model.
    """

    completions: list[SampledCompletion]
    rewards: Tensor
    mask: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor

    @property
    def kl(self) -> Tensor:
        """Estimated KL (N, A) of the behaviour policy from the reference model at each token."""
        return kl_estimate(self.old_logprobs, self.reference_logprobs, "k3") * self.mask


class MetricMeans:
    """Means of metrics over all processes since they were last popped. All processes add the same names."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}  # (2,): sum, count

    def add(self, name: str, total: Tensor | float, count: float) -> None:
        self._totals[name] = self._totals.get(name, torch.zeros(2)) + torch.tensor([float(total), float(count)])

    def add_values(self, name: str, values: Tensor) -> None:
        """Add values (N,), of which those that are NaN do not count."""
        known = values[~values.isnan()]
        self.add(name, known.sum(), len(known))

    def pop(self, runtime: Runtime) -> dict[str, float]:
        """The means, without the metrics that have no value in any process."""
        if not self._totals:
            return {}
        totals = dict(zip(self._totals, runtime.all_sum(torch.stack(list(self._totals.values()))).tolist()))
        self._totals.clear()
        return {name: total / count for name, (total, count) in totals.items() if count}


class RolloutSource(BatchSource):
    """Mini-batches of sampled completions, which are trained on for the steps of one iteration.

    PPO and GRPO differ in :meth:`advantages`; PPO-ptx also adds conversations to the mini-batches.

    Args:
        prompts: of the training split, in order.
    """

    def __init__(
        self, context: StageContext, tokenizer: Tokenizer, models: RolloutModels, prompts: Sequence[EncodedPrompt]
    ) -> None:
        self.run_config, self.runtime = context.config, context.runtime
        self.rollout_config = context.config.section(RolloutConfig)
        self.tokenizer, self.models, self.prompts = tokenizer, models, prompts
        self.steps_per_iteration = context.config.steps_per_iteration
        self.context_length = context.config.model.context_length
        self.kl_coefficient = self.rollout_config.kl_coefficient
        self.metrics = MetricMeans()
        self._iteration: int | None = None
        self._steps: list[list[Batch]] = []
        if self.rollout_config.prompts % self.runtime.world_size:
            raise ValueError(
                f"{context.config.stage}.prompts {self.rollout_config.prompts} cannot be shared by "
                f"{self.runtime.world_size} processes; choose a multiple"
            )

    def collect(self, iteration: int) -> list[list[Batch]]:
        """Sample an iteration's completions, and return the micro-batches of each of its steps."""
        completions = self.sample(iteration)
        rewards = self.score(completions)
        rollout = self.logprobs(completions, rewards)
        advantages = self.advantages(rollout)
        return self.mini_batches(iteration, rollout, advantages)

    def sample(self, iteration: int) -> list[SampledCompletion]:
        """Completions of this process's share of an iteration's prompts, ``group_size`` of each prompt in a row."""
        config, seed = self.rollout_config, self.run_config.train.seed
        share = config.prompts // self.runtime.world_size
        first = iteration * config.prompts + self.runtime.rank * share
        prompts = [self.prompts[shuffled(first + k, len(self.prompts), seed)] for k in range(share)]
        return sample_completions(
            self.models.policy, self.tokenizer, [prompt for prompt in prompts for _ in range(config.group_size)], config,
            int(mix(np.uint64(iteration), np.uint64(seed))) % 2**63, self.runtime,
            self.runtime.rank * share * config.group_size,
        )  # fmt: skip

    def score(self, completions: Sequence[SampledCompletion]) -> Tensor:
        """Rewards (N,)."""
        values = self.models.reward(completions, update=True)
        for name, value in values.items():
            self.metrics.add_values(name, value)
        return values["reward"]

    def logprobs(self, completions: list[SampledCompletion], rewards: Tensor) -> Rollout:
        """The rollout, with log-probabilities under the behaviour policy and the reference model."""
        reference, temperature = self.models.reference, self.rollout_config.temperature
        reference_logprobs = compute_per_token(
            completions, lambda batch: completion_logprobs(reference, batch, temperature), reference,
            self.context_length, self.runtime,
        )  # fmt: skip
        rollout = Rollout(
            completions, rewards, completion_mask(completions), sampled_logprobs(completions), reference_logprobs
        )
        self.metrics.add("kl", rollout.kl.sum(), len(completions))
        return rollout

    @abstractmethod
    def advantages(self, rollout: Rollout) -> dict[str, Tensor]:
        """``advantages`` (N, A) of the tokens, and other tensors (N, A) that the loss reads, by their names in a batch."""

    def mini_batches(self, iteration: int, rollout: Rollout, tokenwise: dict[str, Tensor]) -> list[list[Batch]]:
        """The micro-batches of each step. Every epoch shuffles the groups of completions and keeps each together, since
        its prompt is read once."""
        config, seed = self.rollout_config, self.run_config.train.seed
        share, micro = samples_per_process(self.run_config, self.runtime), micro_batch_size(self.run_config)
        tokenwise = tokenwise | {"old_logprobs": rollout.old_logprobs}
        group, n_groups = config.group_size, len(rollout.completions) // config.group_size
        steps = []
        for epoch in range(config.epochs):
            key = np.uint64(mix(np.uint64(iteration * config.epochs + epoch), np.uint64(seed)))
            groups = permute(np.arange(n_groups), n_groups, key)
            rows = (groups[:, None] * group + np.arange(group)).flatten()
            for first in range(0, len(rows), share):
                parts = [rows[start : start + micro] for start in range(first, first + share, micro)]
                steps.append([self._collate(rollout, tokenwise, part) for part in parts])
        return steps

    def _collate(self, rollout: Rollout, tokenwise: dict[str, Tensor], rows: np.ndarray) -> Batch:
        batch = collate_completions([rollout.completions[row] for row in rows], self.context_length)
        return batch | {name: tensor[rows][rollout.mask[rows]] for name, tensor in tokenwise.items()}

    # ---- the batch source of the training loop ------------------------------------------------------------------

    def batches(self, step: int) -> list[Batch]:
        iteration, number = divmod(step, self.steps_per_iteration)
        if iteration != self._iteration:
            self._steps, self._iteration = self.collect(iteration), iteration
        return self._steps[number]

    def observe_step(self, step: int, sums: dict[str, Tensor], count: Tensor) -> None:
        """End the iteration early, by emptying its other steps, where the policy has moved too far from the behaviour
        policy."""
        number = step % self.steps_per_iteration
        if number == 0:
            self.metrics.add("first_ratio", sums["ratio"], float(count) / self.runtime.world_size)
        limit = self.rollout_config.target_kl
        if limit and float(self.runtime.all_sum(sums["behaviour_kl"])) / float(count) > limit:
            self._steps[number + 1 :] = [[] for _ in self._steps[number + 1 :]]

    def can_checkpoint(self, step: int) -> bool:
        return step % self.steps_per_iteration == 0

    def pop_metrics(self) -> dict[str, float]:
        return {f"train/{name}": value for name, value in self.metrics.pop(self.runtime).items()}

    def state(self) -> dict[str, Any]:
        return {"rewards": self.models.reward.state(), "kl_coefficient": self.kl_coefficient}

    def load_state(self, state: dict[str, Any]) -> None:
        self._iteration = None
        self.models.reward.load_state(state["rewards"])
        self.kl_coefficient = state["kl_coefficient"]
