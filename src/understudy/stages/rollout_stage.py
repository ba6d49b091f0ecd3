"""The stage around rollouts, common to PPO and GRPO: prompts, models and evaluation."""

from __future__ import annotations

import torch

from understudy.config.align import RolloutConfig
from understudy.config.run import RunConfig
from understudy.data.chat.prompts import Prompts, open_prompts
from understudy.evaluation.loss import LossResult
from understudy.evaluation.statistics import estimate, mean_estimate
from understudy.model import GPT, as_gpt
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import verifier_of
from understudy.runtime import Runtime
from understudy.stages.completions import (
    EncodedPrompt,
    completion_kl,
    compute_per_token,
    encode_prompts,
    sample_completions,
)
from understudy.stages.reference import frozen_reference
from understudy.stages.rollout import RewardFunction, RolloutModels
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids
from understudy.train.stage import StageContext, TrainingStage, existing_data, shown_prompts


class RolloutStage(TrainingStage):
    """A stage that samples completions of its prompts and trains on their rewards.

    :meth:`setup` of a subclass calls this one and then makes ``objective`` and ``batches``.
    """

    evaluate_first = True

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.tokenizer, self.rollout_config = tokenizer, config.section(RolloutConfig)
        self.prompts: dict[str, list[EncodedPrompt]] = {}
        for split in ("val", "train"):
            opened, self.prompts[split] = open_encoded_prompts(config, tokenizer, split)
            reason = "too long" if tokenizer.chat_template is None else "too long or refused by the chat template"
            left_out = len(opened) - len(self.prompts[split])
            text = f"{split}: {len(self.prompts[split]):,} prompts" + (f", {left_out:,} {reason}" if left_out else "")
            self.notes.append(text)
        rollout = self.rollout_config
        self.epoch_samples = len(self.prompts["train"]) * rollout.group_size * rollout.epochs
        records = [prompt.record for prompts in self.prompts.values() for prompt in prompts]
        if self.rollout_config.checker_weight and any(verifier_of(record) is None for record in records):
            raise ValueError(
                f"{config.stage}.checker_weight needs prompts with a check or an answer, and some in {opened.path} have "
                "neither; prepare others, or set it to 0"
            )
        self.sample_prompts = shown_prompts(config, tokenizer, (p.record.messages for p in self.prompts["val"]))
        self.end_ids = end_ids(tokenizer)
        self.data_summary = {
            "path": str(opened.path), "sha256": opened.sha256,
            **{f"{split}_prompts": len(prompts) for split, prompts in self.prompts.items()},
        }  # fmt: skip

    def setup(self, context: StageContext) -> None:
        self.config, self.runtime = context.config, context.runtime
        policy = as_gpt(context.model)
        self.models = load_models(context.config, context.runtime, self.tokenizer, policy, frozen_reference(context))

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        """The negative mean reward of completions of validation prompts as the loss; reward, score, true score and KL
        with their intervals. The random draws are the same each time, and the processes share the prompts."""
        prompts = self.prompts["val"][: self.rollout_config.eval_prompts]
        names = ["reward", "true_score", "kl", "length", "eos_rate", *(["score"] if self.models.reward.model else [])]
        world_size, rank = self.runtime.world_size, self.runtime.rank
        start, stop = (len(prompts) * n // world_size for n in (rank, rank + 1))
        table = torch.zeros(len(names), len(prompts))
        if start < stop:
            values = self._evaluate_prompts(prompts[start:stop], start)
            table[:, start:stop] = torch.stack([values[name] for name in names])
        values = dict(zip(names, self.runtime.all_sum(table)))
        metrics = {f"val/{name}": float(values.pop(name).mean()) for name in ("length", "eos_rate")}
        for name, value in values.items():
            if known := value[~value.isnan()].tolist():
                result = estimate(known) if name == "true_score" else mean_estimate(known)
                metrics |= result.metrics(f"val/{name}")
        reward = metrics["val/reward"]
        low, high = (-metrics.get(f"val/reward_{bound}", reward) for bound in ("high", "low"))
        return LossResult(-reward, low, high, len(prompts)), metrics

    def _evaluate_prompts(self, prompts: list[EncodedPrompt], first: int) -> dict[str, torch.Tensor]:
        """Metrics (N,) of a completion of each prompt, the first of which has the number ``first``."""
        policy, reference, config = self.models.policy, self.models.reference, self.rollout_config
        completions = sample_completions(
            policy, self.tokenizer, prompts, config, self.config.train.seed, self.runtime, first
        )
        kl = compute_per_token(
            completions, lambda batch: completion_kl(policy, reference, batch, config.temperature), policy,
            self.config.model.context_length, self.runtime,
        )  # fmt: skip
        return self.models.reward(completions) | {"kl": kl.sum(1)}


def open_encoded_prompts(config: RunConfig, tokenizer: Tokenizer, split: str) -> tuple[Prompts, list[EncodedPrompt]]:
    """A split of the prompts, and those of it that leave room for a completion, encoded.

    Raises:
        ValueError: no such data, or no such prompt.
    """
    path, max_new_tokens = existing_data(config)[0], config.section(RolloutConfig).max_new_tokens
    opened = open_prompts(path, split)
    encoded = encode_prompts(opened, tokenizer, config.model.context_length - max_new_tokens)
    if not encoded:
        raise ValueError(
            f"no prompt in {path} leaves room for {max_new_tokens} tokens of a completion in a context of "
            f"{config.model.context_length}; lower {config.stage}.max_new_tokens or choose shorter prompts"
        )
    return opened, encoded


def load_models(
    config: RunConfig, runtime: Runtime, tokenizer: Tokenizer, policy: GPT, reference: GPT
) -> RolloutModels:
    """The policy, the frozen reference model and the reward function of ``config``.

    Raises:
        ValueError: there is no such reward model, or it does not fit the policy.
    """
    rollout, reward_model = config.section(RolloutConfig), None
    if rollout.reward_model and rollout.reward_weight:
        reward_model = RewardModel(rollout.reward_model, runtime)
        run = reward_model.run
        if run.tokenizer.sha256 != tokenizer.sha256:
            raise ValueError(f"the reward model {run.path} has another tokenizer than the run to train")
        if reward_model.model.config.context_length < config.model.context_length:
            raise ValueError(
                f"the reward model {run.path} reads {reward_model.model.config.context_length} tokens, and the run "
                f"{config.model.context_length}; give both the same model.context_length"
            )
    reference = reference.to(runtime.device).eval().requires_grad_(False)
    return RolloutModels(policy, reference, RewardFunction(rollout, runtime, reward_model))
