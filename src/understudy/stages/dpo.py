"""Direct preference optimisation: the policy is trained on pairs, without a reward model.

Shapes: N completions of a batch, M trained tokens of all of them, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.config.align import DPOConfig
from understudy.config.run import RunConfig
from understudy.data.loader import Batch
from understudy.evaluation.loss import LossResult
from understudy.evaluation.reward_model import over_comparisons
from understudy.evaluation.statistics import estimate, mean_estimate
from understudy.losses import dpo_loss, ipo_loss, token_logprobs
from understudy.model import GPT, as_gpt
from understudy.rewards.model import completion_hidden_states
from understudy.stages.preferences import PairObjective, PreferenceStage, evaluate_pairs, pair_accuracy, with_ties
from understudy.stages.reference import saved_reference_logprobs
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids
from understudy.train.stage import StageContext, micro_batch_size, shown_prompts


class DirectPreference(PairObjective):
    """DPO or IPO loss of the log-ratios of policy and reference model."""

    def __init__(self, model: GPT, config: DPOConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def pair_metrics(self, batch: Batch) -> dict[str, Tensor]:
        logratios = summed_logprobs(self.model, batch) - batch["reference_logprobs"]  # (N,)
        if self.config.length_normalised or self.config.loss == "ipo":
            logratios = logratios / torch.bincount(batch["completion_index"], minlength=len(batch["ends"])).float()
        chosen, rejected = logratios[batch["chosen"]], logratios[batch["rejected"]]  # (P,)
        return {
            "loss": with_ties(batch["tie"], self._loss(chosen, rejected), self._loss(rejected, chosen)),
            "accuracy": pair_accuracy(batch["tie"], chosen - rejected),
            "margin": self.config.beta * (chosen - rejected),
            "chosen_logratio": chosen,
            "rejected_logratio": rejected,
        }

    def _loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        if self.config.loss == "ipo":
            return ipo_loss(chosen, rejected, self.config.beta)
        return dpo_loss(chosen, rejected, self.config.beta, self.config.label_smoothing)


def summed_logprobs(model: GPT, batch: Batch) -> Tensor:
    """The log-probability (N,) in nats of each completion, summed over its trained tokens."""
    logits = model.logits(completion_hidden_states(model, batch)[None])[0]  # (M, V)
    logprobs = token_logprobs(logits, batch["targets"])  # (M,)
    return logprobs.new_zeros(len(batch["ends"])).index_add(0, batch["completion_index"], logprobs)


class Dpo(PreferenceStage):
    """Direct preference optimisation (Rafailov et al. 2023). The reference model is the run that it starts from."""

    evaluate_first = True
    objective: DirectPreference

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.sample_prompts = shown_prompts(config, tokenizer, (pair.prompt for pair in self.opened["val"]))
        self.end_ids = end_ids(tokenizer)

    def setup(self, context: StageContext) -> None:
        self.runtime, self.reference_logprobs = context.runtime, reference_logprobs(context, self)
        self.objective = DirectPreference(as_gpt(context.model), self.config.section(DPOConfig))
        self.batches = self.pair_batches(context, self.reference_logprobs["train"])

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        val, context_length = self.encoded["val"], self.config.model.context_length
        metrics = evaluate_pairs(
            self.objective, val, context_length, batch_size, self.runtime, self.reference_logprobs["val"]
        )
        loss, accuracy = mean_estimate(metrics["loss"]), estimate(metrics["accuracy"])
        return LossResult(loss.value, loss.low, loss.high, val.pairs), accuracy.metrics("val/accuracy")


def reference_logprobs(context: StageContext, data: PreferenceStage) -> dict[str, Tensor]:
    """The log-probability (completions,) of each completion of each split under the reference model.

    Raises:
        ValueError: they are missing, and so is the run that this one started from.
    """
    runtime, config = context.runtime, context.config

    def compute(reference: GPT) -> dict[str, Tensor]:
        return {
            split: torch.cat(over_comparisons(
                reference, encoded, config.model.context_length, micro_batch_size(config), runtime,
                lambda _, batch: summed_logprobs(reference, batch).cpu(),
            ))
            for split, encoded in data.encoded.items()
        }  # fmt: skip

    fingerprint = [part for s, encoded in data.encoded.items() for part in (data.opened[s].sha256, encoded.completions)]
    return saved_reference_logprobs(context, fingerprint, data.encoded, compute)
