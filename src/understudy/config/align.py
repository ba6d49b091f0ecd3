"""The settings of the stages that learn from preferences and rewards, one section for each (config.py has the rest)."""

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
    """What ppo and grpo share: answers are sampled, rewarded, and learnt from for a few steps."""

    reward_model: str | None = None
    """The run that `understudy reward` trained, whose score is the reward."""
    reward_weight: NotNegative = 1.0
    """What the score is multiplied by."""
    checker_weight: NotNegative = 0.0
    """What the checker's verdict (0 or 1) is multiplied by, where the prompts have one."""
    normalise_scores: bool = False
    """Subtract the mean of all scores so far, and divide by their spread."""
    missing_end_penalty: NotNegative = 1.0
    """Taken from the reward of an answer that does not end by itself."""
    prompts: Count = 64
    """Prompts of one iteration, over all processes."""
    group_size: Count = 1
    """Answers to each prompt, which is read once for all of them."""
    epochs: Count = 1
    """How often the answers of an iteration are learnt from."""
    max_new_tokens: Count = 64
    temperature: Positive = 1.0
    """At which answers are sampled, and at which the policy is compared and improved."""
    clip_low: Positive = 0.2
    clip_high: Positive = 0.2
    """How far below and above 1 the ratio to the sampling policy may be rewarded."""
    kl_coefficient: NotNegative = 0.05
    """What a nat of divergence from the start costs."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    target_kl: NotNegative = 0.0
    """End an iteration early when the policy has moved so many nats a token from the one that sampled; 0 is never."""
    entropy_bonus: NotNegative = 0.0
    """Weight of the entropy of each next token."""
    eval_prompts: Count = 64
    """Validation prompts answered at each evaluation."""

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        if not (self.reward_model and self.reward_weight) and not self.checker_weight:
            raise ValueError("nothing is rewarded; give reward_model RUN, or checker_weight above 0")
        if self.normalise_scores and not self.reward_model:
            raise ValueError("normalise_scores would be ignored without reward_model; leave it out")
        return self

    @property
    def answers(self) -> int:
        """Answers of one iteration, over all processes."""
        return self.prompts * self.group_size


class PPOConfig(RolloutConfig):
    """Proximal policy optimisation (Schulman et al. 2017), with the divergence from the start in the reward."""

    kl_target: NotNegative = 0.0
    """Steer kl_coefficient so that an answer diverges by so many nats (Ziegler et al. 2019, section 2.2); 0 leaves it."""
    kl_horizon: Positive | None = None
    """Answers after which such steering has its effect; 10,000 when left out."""
    critic: Literal["head", "model", "reward"] = "head"
    """What estimates the value of a beginning: a head on the policy itself, a copy of the start with a head, or a copy
    of the reward model."""
    value_coefficient: NotNegative = 0.5
    """Weight of the critic's loss."""
    value_clip: NotNegative = 0.2
    """How far a value may be rewarded for moving from the one before; 0 clips nothing."""
    critic_lr: Positive | None = None
    """Learning rate of a critic of its own; optim.lr when left out."""
    gamma: Fraction = 1.0
    lam: Fraction = 0.95
    """Discount and trace of generalised advantages."""
    whiten: bool = True
    """Scale advantages to mean 0 and variance 1."""
    ptx_coefficient: NotNegative = 0.0
    """Weight of the language modelling loss mixed in (Ouyang et al. 2022, PPO-ptx); 0 is off."""
    ptx_data: str | None = None
    """Conversations that it is taken over."""

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
    """Group relative policy optimisation (Shao et al. 2024): several answers to a prompt are each other's baseline."""

    group_size: Annotated[int, BeforeValidator(whole_number), Field(ge=2)] = 8
    """Answers to each prompt, which are compared."""
    baseline: Literal["mean", "leave_one_out"] = "mean"
    """The group's mean, or that of the other answers (RLOO, Ahmadian et al. 2024)."""
    divide_by_spread: bool = True
    """Divide by the standard deviation of the group's rewards; off as in Dr. GRPO (Liu et al. 2025)."""
    kl_estimator: Literal["k2", "k3"] = "k3"
    """Of the divergence from the start, which is part of the loss here, where k1 would have no gradient on average."""
