"""The sections of the stages that train on preferences and rewards; config/run.py has the other settings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from understudy.config.types import Count, Fraction, NotNegative, Positive, Section, whole_number


class RewardConfig(Section):
    """Reward modelling: a score that is higher for the answer that people prefer."""

    margin: bool = False
    """Ask for scores as far apart as the ratings of the two answers (Touvron et al. 2023, section 3.2.2)."""
    centring: NotNegative = 0.0
    """Weight of the squared sum of both scores, which holds them near zero; 0.01 is usual."""


class DPOConfig(Section):
    """Direct preference optimisation: the preferred answer made likelier than the other, both compared to the start."""

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    beta: Positive = 0.1
    """How much leaving the start costs."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """sigmoid: the share of pairs taken to be the wrong way round (conservative DPO)."""
    length_normalised: bool = False
    """sigmoid: compare means over the tokens of an answer, not sums; ipo always does."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.loss == "ipo" and (self.label_smoothing or self.length_normalised):
            raise ValueError(
                "dpo.label_smoothing and dpo.length_normalised would be ignored with dpo.loss ipo; leave them out"
            )
        return self


class RolloutConfig(Section):
    """Settings that ppo and grpo share: completions are sampled, rewarded, and trained on for a few steps."""

    reward_model: str | None = None
    """A run of `understudy reward`, whose score is the reward."""
    reward_weight: NotNegative = 1.0
    """Factor of the reward model's score."""
    checker_weight: NotNegative = 0.0
    """Factor of the verifier's verdict (0 to 1); needs prompts with a check or an answer."""
    normalise_scores: bool = False
    """Subtract the mean of all scores so far, and divide by their standard deviation."""
    missing_end_penalty: NotNegative = 1.0
    """Subtracted from the reward of a completion without an end token."""
    prompts: Count = 64
    """Prompts of one iteration, over all processes."""
    group_size: Count = 1
    """Completions of each prompt; a prompt is read once for all of them."""
    epochs: Count = 1
    """Passes over the completions of an iteration."""
    max_new_tokens: Count = 64
    temperature: Positive = 1.0
    """Temperature of sampling, and of the log-probabilities in the loss."""
    clip_low: Positive = 0.2
    clip_high: Positive = 0.2
    """The ratio to the behaviour policy is clipped to 1 - clip_low and 1 + clip_high."""
    kl_coefficient: NotNegative = 0.05
    """Weight of the KL from the reference model, the run named by init_from."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    target_kl: NotNegative = 0.0
    """End an iteration early when the KL from the behaviour policy exceeds this, in nats per token; 0 is off."""
    entropy_bonus: NotNegative = 0.0
    """Weight of the entropy of the next-token distribution."""
    eval_prompts: Count = 64
    """Validation prompts of each evaluation."""

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
    """Proximal policy optimisation (Schulman et al. 2017), with the KL from the reference model in the reward."""

    kl_target: NotNegative = 0.0
    """Adapt kl_coefficient towards this KL in nats per completion (Ziegler et al. 2019, section 2.2); 0 is off."""
    kl_horizon: Positive | None = None
    """Completions over which kl_coefficient adapts; 10,000 when left out."""
    critic: Literal["head", "model", "reward"] = "head"
    """The value estimator: a score head on the policy, a copy of the reference model with a head, or a copy of the reward
    model."""
    value_coefficient: NotNegative = 0.5
    """Weight of the value loss."""
    value_clip: NotNegative = 0.2
    """Clip values to within this of the sampled ones in the value loss; 0 is off."""
    critic_lr: Positive | None = None
    """Learning rate of a separate critic; optim.lr when left out."""
    gamma: Fraction = 1.0
    lam: Fraction = 0.95
    """Discount (gamma) and trace decay (lam) of generalised advantage estimation."""
    whiten: bool = True
    """Scale advantages to mean 0 and variance 1."""
    ptx_coefficient: NotNegative = 0.0
    """Weight of the language modelling loss of PPO-ptx (Ouyang et al. 2022); 0 is off."""
    ptx_data: str | None = None
    """Prepared conversations for the PPO-ptx loss."""

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
    """Group relative policy optimisation (Shao et al. 2024): a prompt's completions are each other's baseline."""

    group_size: Annotated[int, BeforeValidator(whole_number), Field(ge=2)] = 8
    """Completions of each prompt."""
    baseline: Literal["mean", "leave_one_out"] = "mean"
    """The mean reward of the group, or of its other completions (RLOO, Ahmadian et al. 2024)."""
    divide_by_spread: bool = True
    """Divide by the standard deviation of the group's rewards; off as in Dr. GRPO (Liu et al. 2025)."""
    kl_estimator: Literal["k2", "k3"] = "k3"
    """Estimator of the KL from the reference model in the loss; the gradient of k1 would be zero on average."""
