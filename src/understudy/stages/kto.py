"""Kahneman-Tversky optimisation: the policy is trained on completions that people found desirable or not, without pairs.

The loss compares each completion with a reference point, the KL of the policy from the reference model. It is estimated from
mismatched rows: the prompt of each row of a step with the completion of the next one. All rows of the step count, over all
micro-batches and processes, before the first of them is trained on. So a step does not depend on how it is divided.

Shapes: N completions of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.config.align import KTOConfig
from understudy.config.run import RunConfig
from understudy.data.chat.judgement_rows import (
    JudgementRows,
    MismatchedRows,
    encode_judgements,
    mismatched_split,
)
from understudy.data.chat.judgements import open_judgements
from understudy.data.chat.pair_rows import EncodedCompletion, collate_completions
from understudy.data.loader import Batch
from understudy.evaluation.loss import LossResult
from understudy.evaluation.statistics import estimate, mean_estimate
from understudy.inference.generate import evaluating
from understudy.losses import kto_loss
from understudy.model import GPT, as_gpt
from understudy.runtime import Runtime
from understudy.stages.dpo import summed_logprobs
from understudy.stages.reference import frozen_reference, saved_reference_logprobs
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids
from understudy.train.loop import BatchSource
from understudy.train.objective import Objective
from understudy.train.stage import (
    IndexedBatches,
    StageContext,
    TrainingStage,
    existing_data,
    micro_batch_size,
    shown_prompts,
)

ADVISED_RATIO = 1.0, 4 / 3
"""Range of the total weight of desirable over that of undesirable completions that Ethayarajh et al. advise."""


class KahnemanTversky(Objective):
    """KTO loss of the log-ratios of policy and reference model, a mean over completions.

    A batch is what :class:`JudgementRows` gives, and ``kl``, the reference point of its step.
    """

    model: GPT

    def __init__(self, model: GPT, config: KTOConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor(float(len(batch["desirable"])))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logratios = summed_logprobs(self.model, batch) - batch["reference_logprobs"]  # (N,)
        metrics = judgement_metrics(logratios, batch["desirable"], batch["kl"], self.config)
        sums = {name: values.sum() for name, values in metrics.items()}
        return sums.pop("loss"), sums | {"kl": batch["kl"] * len(logratios)}


def judgement_metrics(logratios: Tensor, desirable: Tensor, kl: Tensor, config: KTOConfig) -> dict[str, Tensor]:
    """For each completion (N,): its ``loss``, and its ``accuracy``, 1 if its log-ratio is above the reference point ``kl``
    and it is desirable, or below and it is not; 0.5 at the reference point."""
    margins = logratios.detach() - kl
    return {
        "loss": kto_loss(logratios, desirable, kl, config.beta, config.desirable_weight, config.undesirable_weight),
        "accuracy": (torch.where(desirable, margins, -margins).sign() + 1) / 2,
    }


def reference_point(logratio_sum: Tensor, count: int) -> Tensor:
    """The KL in nats, a scalar, from the summed log-ratios of ``count`` mismatched completions; negative estimates are 0."""
    return (logratio_sum / count).clamp(min=0)


class JudgementBatches(BatchSource):
    """The micro-batches of each step, with the reference point of the step as ``kl``.

    It is estimated with the weights before the step, without a gradient, by one forward of policy and reference model.
    """

    def __init__(self, rows: JudgementRows, context: StageContext) -> None:
        self.runtime, self.batch_size = context.runtime, context.config.train.batch_size
        self.policy, self.reference = as_gpt(context.model), frozen_reference(context)
        self.matched = IndexedBatches(rows, context)
        self.mismatched = IndexedBatches(MismatchedRows(rows, self.batch_size), context)

    def batches(self, step: int) -> list[Batch]:
        kl = self._kl(self.mismatched.batches(step))
        return [batch | {"kl": kl} for batch in self.matched.batches(step)]

    @torch.no_grad()
    def _kl(self, micro_batches: list[Batch]) -> Tensor:
        device, total = self.runtime.device, torch.zeros((), device=self.runtime.device)
        for micro_batch in micro_batches:
            batch = {name: tensor.to(device) for name, tensor in micro_batch.items()}
            with self.runtime.autocast():
                logratios = summed_logprobs(self.policy, batch) - summed_logprobs(self.reference, batch)
            total += logratios.float().sum()
        # On the CPU, as all tensors of a batch: the loop moves them.
        return reference_point(self.runtime.all_sum(total), self.batch_size).cpu()


class Kto(TrainingStage):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024). The reference model is the run that it starts from."""

    evaluate_first = True

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        if config.train.batch_size == 1:
            raise ValueError(
                "train.batch_size 1 leaves kto no second completion of a step to estimate its KL from; choose 2 or more "
                "(train.micro_batch_size may be 1)"
            )
        self.tokenizer = tokenizer
        path, context_length = existing_data(config)[0], config.model.context_length
        self.opened = {split: open_judgements(path, split) for split in ("train", "val")}
        self.encoded = {
            split: encode_judgements(opened, tokenizer, context_length, split) for split, opened in self.opened.items()
        }
        if len(self.encoded["train"].completions) == 1:
            raise ValueError(
                f"{path} leaves 1 judgement to train on; kto needs 2 or more, since each is compared with another"
            )
        train, val = self.encoded["train"], self.encoded["val"].limit(config.eval.max_tokens)
        self.encoded["val"] = val
        self.mismatched_val = mismatched_split(val.completions, context_length)
        self.tokens_per_sample = max(map(len, train.completions))
        self.epoch_samples = len(train.completions)
        self.data_summary = {"path": str(path), "sha256": self.opened["train"].sha256} | {
            f"{split}_{name}": getattr(encoded, name)
            for split, encoded in self.encoded.items()
            for name in ("desirable", "undesirable", "tokens")
        }
        self.notes = [f"{split}: {encoded}" for split, encoded in self.encoded.items()]
        self.notes += weight_advice(config.section(KTOConfig), train.desirable, train.undesirable)
        self.sample_prompts = shown_prompts(config, tokenizer, (judged.prompt for judged in self.opened["val"]))
        self.end_ids = end_ids(tokenizer)

    def setup(self, context: StageContext) -> None:
        self.runtime, config = context.runtime, context.config
        self.reference_logprobs = self._reference_logprobs(context)
        self.objective = KahnemanTversky(as_gpt(context.model), config.section(KTOConfig))
        train, logprobs = self.encoded["train"], self.reference_logprobs["train"]
        rows = JudgementRows(train, config.model.context_length, config.train.seed, logprobs)
        self.batches = JudgementBatches(rows, context)

    def _reference_logprobs(self, context: StageContext) -> dict[str, Tensor]:
        """The log-probability of each completion of both splits, and of the mismatched ones of validation, under the
        reference model; mismatched ones of training differ in each epoch and are computed when they come."""
        completions = {split: encoded.completions for split, encoded in self.encoded.items()}
        completions["val_mismatched"] = self.mismatched_val
        fingerprint = [part for s, opened in self.opened.items() for part in (opened.sha256, len(completions[s]))]
        batch_size, length = micro_batch_size(context.config), context.config.model.context_length

        def compute(reference: GPT) -> dict[str, Tensor]:
            return {
                name: split_logprobs(reference, rows, length, batch_size, context.runtime)
                for name, rows in completions.items()
            }

        return saved_reference_logprobs(context, fingerprint, completions, compute)

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        """The mean loss of the validation split, whose reference point is estimated from all of it; accuracy with its
        interval, the KL, and the mean log-ratios of desirable and undesirable completions."""
        policy, length, val = self.objective.model, self.config.model.context_length, self.encoded["val"]
        rows = {"val": val.completions, "val_mismatched": self.mismatched_val}
        logratios = {
            name: split_logprobs(as_gpt(policy), completions, length, batch_size, self.runtime)
            - self.reference_logprobs[name]
            for name, completions in rows.items()
        }
        desirable = torch.tensor(val.labels)
        kl = reference_point(logratios["val_mismatched"].sum(), len(val.labels))
        values = judgement_metrics(logratios["val"], desirable, kl, self.config.section(KTOConfig))
        loss, accuracy = mean_estimate(values["loss"].tolist()), estimate(values["accuracy"].tolist())
        metrics = accuracy.metrics("val/accuracy") | {"val/kl": float(kl)}
        for name, side in (("desirable", desirable), ("undesirable", ~desirable)):
            if side.any():
                metrics[f"val/{name}_logratio"] = float(logratios["val"][side].mean())
        return LossResult(loss.value, loss.low, loss.high, len(val.labels)), metrics


@torch.no_grad()
def split_logprobs(
    model: GPT, completions: list[EncodedCompletion], context_length: int, batch_size: int, runtime: Runtime
) -> Tensor:
    """The log-probability (N,) in nats of each completion of a split, on the CPU. The processes share the batches."""
    shard = []
    with evaluating(model):
        for start in range(0, len(completions), batch_size)[runtime.rank :: runtime.world_size]:
            batch = collate_completions(completions[start : start + batch_size], context_length)
            with runtime.autocast():
                logprobs = summed_logprobs(model, {k: tensor.to(runtime.device) for k, tensor in batch.items()})
            shard.append(logprobs.cpu())
    return torch.cat(runtime.gather_shards(shard))


def weight_advice(config: KTOConfig, desirable: int, undesirable: int) -> list[str]:
    """A line to show where one label has much more weight than the other in all, with a weight that balances them."""
    if not desirable or not undesirable:
        label = "desirable" if desirable else "undesirable"
        return [f"all judgements to train on are {label}; kto learns more from both labels"]
    low, high = ADVISED_RATIO
    ratio = config.desirable_weight * desirable / (config.undesirable_weight * undesirable)
    if low / 1.01 <= ratio <= high * 1.01:
        return []
    advice = f"kto.undesirable_weight {config.undesirable_weight * ratio:.3g}"
    if ratio < low:
        advice = f"kto.desirable_weight {config.desirable_weight / ratio:.3g}"
    return [
        f"desirable completions have {ratio:.2g} times the weight of undesirable ones; 1 to 4/3 is advised (Ethayarajh et al. "
        f"2024), as {advice} gives"
    ]
