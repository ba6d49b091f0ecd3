"""Settings of the stages that learn from preferences and rewards, one section for each."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from understudy.config.types import Count, Fraction, NotNegative, Positive, Section, whole_number


class RewardConfig(Section):
    """Reward modelling (Ouyang et al. 2022): a score that is higher for the chosen completion."""

    margin: bool = False
    """Require scores as far apart as the ratings of the two completions (Touvron et al. 2023, section 3.2.2)."""
    centring: NotNegative = 0.0
    """Weight of the squared sum of both scores, which keeps them near zero; 0.01 is usual."""


class DPOConfig(Section):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """Loss of a pair: sigmoid (DPO, Rafailov et al. 2023) or ipo (Azar et al. 2023)."""
    beta: Positive = 0.1
    """Strength of the constraint to the reference model."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """sigmoid: assumed share of pairs with chosen and rejected exchanged (conservative DPO)."""
    length_normalised: bool = False
    """sigmoid: compare mean log-probabilities per token instead of sums; ipo always does."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.loss == "ipo" and (self.label_smoothing or self.length_normalised):
            raise ValueError(
                "dpo.label_smoothing and dpo.length_normalised would be ignored with dpo.loss ipo; leave them out"
            )
        return self


class KTOConfig(Section):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): completions that are desirable or undesirable, without pairs."""

    beta: Positive = 0.1
    """Strength of the constraint to the reference model."""
    desirable_weight: Positive = 1.0
    """Weight of the loss of desirable completions."""
    undesirable_weight: Positive = 1.0
    """Weight of the loss of undesirable completions."""


class RolloutConfig(Section):
    """Settings of ppo and grpo: sampling, rewards and the KL penalty."""

    reward_model: str | None = None
    """Run of `understudy reward` whose score is the reward."""
    reward_weight: NotNegative = 1.0
    """Weight of the reward model's score."""
    checker_weight: NotNegative = 0.0
    """Weight of the verifier's result (0 to 1), for prompts that have a verifier."""
    normalise_scores: bool = False
    """Normalise scores by the mean and standard deviation of all scores so far."""
    missing_end_penalty: NotNegative = 1.0
    """Subtracted from the reward of a completion that does not end by itself."""
    prompts: Count = 64
    """Prompts of one iteration, over all processes."""
    group_size: Count = 1
    """Completions of each prompt."""
    epochs: Count = 1
    """Passes over the completions of one iteration."""
    max_new_tokens: Count = 64
    """Longest completion, in tokens."""
    temperature: Positive = 1.0
    """Sampling temperature, at which log-probabilities are computed too."""
    clip_low: Positive = 0.2
    """Clip range of the probability ratio below 1."""
    clip_high: Positive = 0.2
    """Clip range of the probability ratio above 1."""
    kl_coefficient: NotNegative = 0.05
    """Weight of the KL penalty against the reference model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimator of the KL against the reference model (Schulman 2020)."""
    target_kl: NotNegative = 0.0
    """End an iteration early when the KL from the behaviour policy exceeds this, in nats per token; 0 is off."""
    entropy_bonus: NotNegative = 0.0
    """Weight of the entropy of the next token."""
    eval_prompts: Count = 64
    """Validation prompts to answer at each evaluation."""

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        if not (self.reward_model and self.reward_weight) and not self.checker_weight:
            raise ValueError("nothing is rewarded; give reward_model RUN, or checker_weight above 0")
        if self.normalise_scores and not self.reward_model:
            raise ValueError("normalise_scores would be ignored without reward_model; leave it out")
        return self

    @property
    def answers(self) -> int:
        """Completions of one iteration, over all processes."""
        return self.prompts * self.group_size


class PPOConfig(RolloutConfig):
    """Proximal policy optimisation (Schulman et al. 2017), with the KL penalty in the reward."""

    kl_target: NotNegative = 0.0
    """Adapt kl_coefficient towards this KL per completion, in nats (Ziegler et al. 2019, section 2.2); 0 is off."""
    kl_horizon: Positive | None = None
    """Completions over which the coefficient adapts; 10,000 by default."""
    critic: Literal["head", "model", "reward"] = "head"
    """Model that estimates values: a head on the policy, a copy of the reference model with a head, or a copy of
    the reward model."""
    value_coefficient: NotNegative = 0.5
    """Weight of the critic's loss."""
    value_clip: NotNegative = 0.2
    """Clip range of a value around its old value; 0 is off."""
    critic_lr: Positive | None = None
    """Learning rate of a critic that is a separate model. Default: optim.lr."""
    gamma: Fraction = 1.0
    """Discount of later rewards in the advantages."""
    lam: Fraction = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2016)."""
    whiten: bool = True
    """Normalise advantages to mean 0 and variance 1."""
    ptx_coefficient: NotNegative = 0.0
    """Weight of a language modelling loss added to PPO's (Ouyang et al. 2022, PPO-ptx); 0 is off."""
    ptx_data: str | None = None
    """Conversations for that language modelling loss."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.ptx_coefficient) != bool(self.ptx_data):
            raise ValueError("ppo.ptx_coefficient and ppo.ptx_data work together; give both or neither")
        if self.kl_horizon and not self.kl_target:
            raise ValueError("ppo.kl_horizon would be ignored without ppo.kl_target; leave it out")
        if self.critic == "reward" and not self.reward_model:
            raise ValueError("ppo.critic reward needs ppo.reward_model; give it, or choose critic model or head")
        if self.critic_lr and self.critic == "head":
            raise ValueError("ppo.critic_lr would be ignored with ppo.critic head; leave it out, or choose model")
        return self


class GRPOConfig(RolloutConfig):
    """Group relative policy optimisation (Shao et al. 2024): the completions of a prompt are each other's baseline."""

    group_size: Annotated[int, Field(ge=2), BeforeValidator(whole_number)] = 8
    """Completions of each prompt, which are compared with each other."""
    baseline: Literal["mean", "leave_one_out"] = "mean"
    """Baseline of a completion's reward: the mean of its group, or of the others in it (RLOO, Ahmadian et al.
    2024)."""
    divide_by_spread: bool = True
    """Divide advantages by the standard deviation of the group's rewards; off in Dr. GRPO (Liu et al. 2025)."""
    kl_estimator: Literal["k2", "k3"] = "k3"
    """Estimator of the KL against the reference model, which is part of the loss. k1 has no gradient on average."""
