"""Rollouts: prompts answered by the policy, rewarded, and learnt from for a few steps.

Sampling, teacher forcing and learning are the same model at the same temperature, without truncation, so that the
first ratio is 1 but for rounding. How a model is asked is in answers.py, what answers are worth in rewards.py, and what
ppo and grpo make of the rewards in their own files.

Shapes: N answers, A tokens of the longest, M tokens of the answers in a batch, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.align.answers import (
    Answer,
    Asked,
    ask,
    divergence,
    fitting,
    lay_out,
    read_answers,
    sampled_logprobs,
    token_mask,
)
from understudy.align.reward import RewardModel
from understudy.align.rewards import Rewards
from understudy.config import RolloutConfig, RunConfig
from understudy.data.loader import Batch, mix, permute, shuffled
from understudy.data.prompts import Prompts, open_prompts
from understudy.evaluate.loss import LossResult
from understudy.evaluate.statistics import estimate, mean_estimate
from understudy.losses import clipped_ratio_sum, entropy, kl_estimate, vocabulary_logprobs
from understudy.model import GPT
from understudy.run import Run
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids
from understudy.train.inherit import start_of
from understudy.train.material import Course, Material, Setting, present_data, share_of_batch, shown_prompts
from understudy.train.objectives import Objective


@dataclass(frozen=True)
class Actors:
    """Who takes part: the policy that learns, the start it is held to, and what judges its answers."""

    config: RunConfig
    rollout: RolloutConfig
    runtime: Runtime
    tokenizer: Tokenizer
    policy: GPT
    start: Run
    rewards: Rewards
    prompts: list[Asked]
    """Of training, in their order."""

    @property
    def reference(self) -> GPT:
        """The start's model, which nothing trains."""
        assert isinstance(self.start.model, GPT)
        return self.start.model


@dataclass
class Rollouts:
    """A source of batches that answers prompts, and learns from the answers for the steps of one iteration.

    Attributes:
        learn_from: makes of answers and rewards what the objective reads beside the tokens, (N, A) each, and says what
            was measured.
    """

    actors: Actors
    objective: Policy
    learn_from: Callable[[Sequence[Answer], dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, Tensor]]]
    group_size: int = 1
    extend: Callable[[list[Batch], int], list[Batch]] = lambda batches, step: batches
    own_state: Callable[[], dict[str, Any]] = dict
    load_own_state: Callable[[dict[str, Any]], None] = lambda state: None
    _iteration: int | None = None
    _answers: list[Answer] = field(default_factory=list)
    _tokenwise: dict[str, Tensor] = field(default_factory=dict)
    _ended_early: bool = False
    _number: int | None = None
    _first_ratio: float | None = None
    _sums: dict[str, Tensor] = field(default_factory=dict)

    def batches(self, step: int) -> list[Batch]:
        config, rollout, runtime = self.actors.config, self.actors.rollout, self.actors.runtime
        iteration, number = divmod(step, config.steps_per_iteration)
        if iteration != self._iteration:
            self._collect(iteration)
        self._look_back(number)
        if self._ended_early:
            return []
        share, micro = share_of_batch(config, runtime), config.train.micro_batch
        per_epoch = rollout.answers // config.train.batch_size
        epoch, place = divmod(number, per_epoch)
        here, mask = len(self._answers), token_mask(self._answers)
        key = np.uint64(mix(np.uint64(iteration * rollout.epochs + epoch), np.uint64(config.train.seed)))
        groups = permute(np.arange(here // self.group_size), here // self.group_size, key)  # whose prompt is read once
        order = (groups[:, None] * self.group_size + np.arange(self.group_size)).flatten()
        order = order[place * share : (place + 1) * share]
        found = []
        for start in range(0, share, micro):
            rows = order[start : start + micro]
            batch = lay_out([self._answers[row] for row in rows], config.model.context_length)
            found.append(batch | {name: tensor[rows][mask[rows]] for name, tensor in self._tokenwise.items()})
        return self.extend(found, step)

    def at_rest(self, step: int) -> bool:
        return step % self.actors.config.steps_per_iteration == 0

    def measured(self) -> dict[str, float]:
        """Means over the answers since the last call."""
        if not self._sums:
            return {}
        sums = dict(zip(self._sums, self.actors.runtime.all_sum(torch.stack(list(self._sums.values()))).tolist()))
        self._sums.clear()
        answers = sums.pop("answers")
        first = {} if self._first_ratio is None else {"first_ratio": self._first_ratio}
        return {f"train/{name}": value for name, value in first.items()} | {
            f"train/{name}": value / answers for name, value in sums.items()
        }

    def state(self) -> dict[str, Any]:
        return {"rewards": self.actors.rewards.state(), **self.own_state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.actors.rewards.load_state(state["rewards"])
        self.load_own_state(state)

    def _collect(self, iteration: int) -> None:
        """Answer the prompts of an iteration, this process its share."""
        actors, rollout, runtime = self.actors, self.actors.rollout, self.actors.runtime
        if rollout.prompts % runtime.world_size:
            raise ValueError(
                f"{rollout.prompts} prompts of an iteration cannot be shared by {runtime.world_size} processes; choose a "
                "multiple"
            )
        share = rollout.prompts // runtime.world_size
        first = iteration * rollout.prompts + runtime.rank * share
        places = [shuffled(first + k, len(actors.prompts), actors.config.train.seed) for k in range(share)]
        asked = [actors.prompts[place] for place in places]
        asked = [each for each in asked for _ in range(self.group_size)]
        seed = int(mix(np.uint64(iteration), np.uint64(actors.config.train.seed))) % 2**63
        answers = ask(
            actors.policy, actors.tokenizer, asked, rollout, seed, runtime, runtime.rank * share * self.group_size
        )
        rewards = actors.rewards(answers, learn=True)
        self._answers = answers
        self._tokenwise, sums = self.learn_from(answers, rewards)
        self._tokenwise["old"] = sampled_logprobs(answers)
        told = {name: each.sum() for name, each in rewards.items()}
        for name, value in (told | sums | {"answers": torch.tensor(float(len(answers)))}).items():
            self._sums[name] = self._sums.get(name, torch.zeros(())) + value.float().cpu()
        self._iteration, self._ended_early = iteration, False

    def _look_back(self, number: int) -> None:
        """After a step: how far it left the policy from the one that sampled, and whether that is too far."""
        kl, ratio, tokens = self.actors.runtime.all_sum(self.objective.moved).tolist()
        self.objective.moved = torch.zeros_like(self.objective.moved)
        if self._number == 0 and tokens:
            self._first_ratio = ratio / tokens
        self._number = number
        limit = self.actors.rollout.target_kl
        if number and tokens and limit and kl / tokens > limit:
            self._ended_early = True


def rollout_material(
    config: RunConfig, tokenizer: Tokenizer, course: Callable[[Setting, Actors, Judging], Course]
) -> Material:
    """Prompts for a stage that answers them.

    Raises:
        ValueError: no such data, or no prompt that leaves room for an answer.
    """
    rollout = config.section(RolloutConfig)
    asked: dict[str, list[Asked]] = {}
    notes = []
    for split in ("val", "train"):
        opened, asked[split] = open_asked(config, tokenizer, split)
        left_out = len(opened) - len(asked[split])
        notes.append(f"{split}: {len(asked[split]):,} prompts" + (f", {left_out:,} too long" if left_out else ""))
    path = opened.path
    every = (each.prompt for split in asked.values() for each in split)
    if rollout.checker_weight and any(prompt.check is None and prompt.answer is None for prompt in every):
        raise ValueError(
            f"{config.stage}.checker_weight needs prompts with a check or an answer, and some in {path} have neither; prepare "
            "others, or set it to 0"
        )

    def prepare(setting: Setting) -> Course:
        assert isinstance(setting.model, GPT)
        start = start_of(setting.folder)
        actors = gather(setting.config, setting.runtime, tokenizer, setting.model, start, asked["train"])
        judging = Judging(actors, asked["val"][: rollout.eval_prompts])
        return course(setting, actors, judging)

    return Material(
        tokenizer=tokenizer, prepare=prepare,
        prompts=shown_prompts(config, tokenizer, (each.prompt.messages for each in asked["val"])),
        ends=end_ids(tokenizer),
        about={
            "path": str(path), "sha256": opened.sha256,
            **{f"{split}_prompts": len(each) for split, each in asked.items()},
        },
        notes=notes, evaluate_first=True,
    )  # fmt: skip


def open_asked(config: RunConfig, tokenizer: Tokenizer, split: str) -> tuple[Prompts, list[Asked]]:
    """A split of the prompts, as it lies there, and those of it that leave room for an answer.

    Raises:
        ValueError: no such data, or no such prompt.
    """
    path, most = present_data(config), config.section(RolloutConfig).max_new_tokens
    opened = open_prompts(path, split)
    asked = fitting(opened, tokenizer, config.model.context_length - most)
    if not asked:
        raise ValueError(
            f"no prompt in {path} leaves room for {most} tokens of an answer in a context of "
            f"{config.model.context_length}; lower {config.stage}.max_new_tokens or choose shorter prompts"
        )
    return opened, asked


def gather(
    config: RunConfig, runtime: Runtime, tokenizer: Tokenizer, policy: GPT, start: Run, prompts: list[Asked]
) -> Actors:
    """The policy, with the run it started from as reference, and with what ``config`` says that rewards it.

    Raises:
        ValueError: a reward model that is not there, or does not fit the policy.
    """
    rollout = config.section(RolloutConfig)
    judge = None
    if rollout.reward_model and rollout.reward_weight:
        judge = RewardModel(rollout.reward_model, runtime)
        if judge.run.tokenizer.sha256 != tokenizer.sha256:
            raise ValueError(f"the reward model {judge.run.path} has another tokenizer than the run to train")
        if judge.model.config.context_length < config.model.context_length:
            raise ValueError(
                f"the reward model {judge.run.path} reads {judge.model.config.context_length} tokens, and the run "
                f"{config.model.context_length}; give both the same model.context_length"
            )
    start.model.to(runtime.device).eval().requires_grad_(False)
    rewards = Rewards(rollout, tokenizer, runtime, judge)
    return Actors(config, rollout, runtime, tokenizer, policy, start, rewards, prompts)


@dataclass
class Judging:
    """Judges a policy by the rewards of answers to validation prompts, the same draws each time."""

    actors: Actors
    asked: list[Asked]

    def __call__(self, objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
        """As loss the negative mean reward; beside it reward, true score and divergence, with intervals."""
        actors, rollout, runtime = self.actors, self.actors.rollout, self.actors.runtime
        answers = ask(actors.policy, actors.tokenizer, self.asked, rollout, actors.config.train.seed, runtime)
        rewards = actors.rewards(answers)
        kl = read_answers(
            answers, divergence(actors.policy, actors.reference, rollout.temperature), actors.policy,
            actors.config.model.context_length, runtime,
        ).sum(1)  # fmt: skip
        told = {"kl": kl} | {name: rewards[name] for name in ("reward", "score", "truth") if name in rewards}
        found: dict[str, float] = {}
        for name, each in told.items():
            value = estimate(each.tolist()) if name == "truth" else mean_estimate(each.tolist())
            found |= {f"val/{name}": value.value}
            if value.low is not None and value.high is not None:
                found |= {f"val/{name}_low": value.low, f"val/{name}_high": value.high}
        found |= {f"val/{name}": float(rewards[name].mean()) for name in ("length", "ended")}
        low, high = (-found.get(f"val/reward_{end}", found["val/reward"]) for end in ("high", "low"))
        return LossResult(-found["val/reward"], low, high, len(answers)), found


class Policy(Objective):
    """The clipped loss of ppo and grpo, with what each adds to it.

    A batch is that of :func:`lay_out` with ``old`` and ``advantages`` (M,); where the divergence is part of the loss,
    ``reference`` (M,); where there is a critic, ``values`` and ``returns`` (M,).

    Attributes:
        moved: (3,), summed over a step's tokens: the divergence of this policy from the one that sampled, the ratio of
            the two, and the number of tokens. The source reads it, and sets it to zero.
    """

    model: GPT

    def __init__(self, model: GPT, config: RolloutConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.moved = torch.zeros(3, device=next(model.parameters()).device)

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.tensor(float(len(batch["targets"])), device=batch["targets"].device)

    def policy_loss(self, batch: dict[str, Tensor], hidden: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped loss, less the entropy bonus, over the tokens of answers; ``hidden`` (M, D)."""
        config, old, advantages = self.config, batch["old"], batch["advantages"]
        logits = self.model.logits(hidden[None])[0]  # (M, V)
        known = vocabulary_logprobs(logits, config.temperature)
        logprobs = known.gather(-1, batch["targets"][:, None])[:, 0]
        every = torch.ones_like(logprobs)
        loss, clipped = clipped_ratio_sum(logprobs, old, advantages, every, config.clip_low, config.clip_high)
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.entropy_bonus > 0):  # else it is only watched
            spread = entropy(known).sum()
        moved = kl_estimate(old, logprobs, "k3").sum()  # of the sampling policy from this one
        ratio = (logprobs - old).exp().sum()
        self.moved = self.moved + torch.stack((moved, ratio, every.sum())).detach()
        sums = {"policy_loss": loss, "entropy": spread, "clip_fraction": clipped, "moved": moved, "ratio": ratio}
        loss = loss - config.entropy_bonus * spread
        if "reference" in batch:
            kl = kl_estimate(logprobs, batch["reference"], config.kl_estimator).sum()
            loss, sums = loss + config.kl_coefficient * kl, sums | {"kl_loss": kl}
        return loss, sums
