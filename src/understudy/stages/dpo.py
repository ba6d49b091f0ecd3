"""Direct preference optimisation: the policy itself learns to tell the better answer from the worse.

Shapes: B rows of a batch, T time, N documents (answers) of a batch, P pairs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from understudy.config.align import DPOConfig
from understudy.config.run import RunConfig
from understudy.data.chat.pair_rows import PairRows, RenderedPairs, unit_batches
from understudy.evaluate.loss import LossResult
from understudy.evaluate.statistics import estimate, mean_interval
from understudy.inference.generate import evaluating
from understudy.losses import dpo_loss, ipo_loss, token_logprobs
from understudy.model import GPT, as_gpt
from understudy.rewards.model import completion_hidden_states
from understudy.runtime import Runtime
from understudy.stages.preferences import PreferenceData, weighted_pairs
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids
from understudy.train.init_from import load_reference
from understudy.train.objective import Objective
from understudy.train.stage import StageContext, TrainingStage, by_sample, shown_prompts

REFERENCE = "reference.safetensors"
"""Log-probabilities of all answers under the start, kept in the run's folder."""


class DirectPreference(Objective):
    """DPO or IPO over the pairs of a batch of :func:`understudy.data.chat.pair_rows.collate_pairs` with a reference."""

    model: GPT

    def __init__(self, model: GPT, config: DPOConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["weight"].sum()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        ratios = document_logprobs(self.model, batch) - batch["reference"]
        if self.config.length_normalised or self.config.loss == "ipo":
            ratios = ratios / document_lengths(batch)
        better, worse = ratios[batch["better"]], ratios[batch["worse"]]
        loss, sums = weighted_pairs(batch, self._loss(better, worse), self._loss(worse, better), better - worse)
        weight = batch["weight"]
        return loss, sums | {
            "margin": (self.config.beta * (better - worse) * weight).sum(),
            "better_logratio": (better * weight).sum(), "worse_logratio": (worse * weight).sum(),
        }  # fmt: skip

    def _loss(self, better: Tensor, worse: Tensor) -> Tensor:
        if self.config.loss == "ipo":
            return ipo_loss(better, worse, self.config.beta)
        return dpo_loss(better, worse, self.config.beta, self.config.label_smoothing)


def document_logprobs(model: GPT, batch: dict[str, Tensor]) -> Tensor:
    """The summed log-probability (N,) of each document's answer, in nats."""
    each = token_logprobs(model.logits(completion_hidden_states(model, batch)[None])[0], batch["targets"])
    return each.new_zeros(len(batch["ends"])).index_add(0, batch["owners"], each)


def document_lengths(batch: dict[str, Tensor]) -> Tensor:
    """Tokens (N,) of each document's answer."""
    return torch.bincount(batch["owners"], minlength=len(batch["ends"])).float()


class Dpo(TrainingStage):
    """Direct preference optimisation over preferences, against the model that the run starts from."""

    evaluate_first = True

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.tokenizer = tokenizer
        self.data = PreferenceData(config, tokenizer)
        self.sample_prompts = shown_prompts(config, tokenizer, (pair.prompt for pair in self.data.opened["val"]))
        self.end_ids = end_ids(tokenizer)
        self.data_summary, self.notes = self.data.summary(), self.data.notes()

    def setup(self, context: StageContext) -> None:
        self.context = context
        opened, rendered = self.data.opened, self.data.rendered
        self.reference = reference_logprobs(context, rendered, f"{opened['train'].sha256} {opened['val'].sha256}")
        length, seed = self.config.model.context_length, self.config.train.seed
        rows = PairRows(rendered["train"], length, seed, self.reference["train"])
        self.objective = DirectPreference(as_gpt(context.model), self.config.section(DPOConfig))
        self.batches = by_sample(rows, context)

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        rendered, length = self.data.rendered["val"], self.config.model.context_length
        runtime = self.context.runtime
        return judge_pairs(self.objective, rendered, self.reference["val"], length, batch_size, runtime)


def reference_logprobs(context: StageContext, rendered: dict[str, RenderedPairs], data: str) -> dict[str, Tensor]:
    """Of every answer of each split, the log-probability (documents,) under the model that the run starts from.

    They are computed once and kept in the run's folder.

    Raises:
        ValueError: a run that goes on has lost them, and its parent is not what it was.
    """
    path = context.folder.path / REFERENCE
    parent = context.folder.about()["parent"]
    key = hashlib.sha256(f"{parent['sha256']} {data} {context.config.model.context_length}".encode()).hexdigest()
    if context.runtime.is_main and not _is_kept(path, key):
        model = as_gpt(
            context.model if context.parent else load_reference(context.folder).model.to(context.runtime.device)
        )
        found = {split: _all_logprobs(model, each, context) for split, each in rendered.items()}
        save_file(found, partial := path.with_name(f".{path.name}.partial"), {"key": key})
        partial.replace(path)
    context.runtime.barrier()
    return load_file(path)


def _is_kept(path: Path, key: str) -> bool:
    from safetensors import safe_open

    if not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("key") == key


@torch.no_grad()
def _all_logprobs(model: GPT, rendered: RenderedPairs, context: StageContext) -> Tensor:
    found = []
    size = context.config.train.micro_batch_size or 1
    with evaluating(model):
        for _, batch in unit_batches(rendered, context.config.model.context_length, size):
            batch = {name: tensor.to(context.runtime.device) for name, tensor in batch.items()}
            with context.runtime.autocast():
                found.append(document_logprobs(model, batch).cpu())
    return torch.cat(found)


@torch.no_grad()
def judge_pairs(
    objective: Objective, rendered: RenderedPairs, reference: Tensor, context_length: int, batch_size: int,
    runtime: Runtime,
) -> tuple[LossResult, dict[str, float]]:  # fmt: skip
    """The mean loss of a prompt, and how often the policy moved towards the better answer rather than the worse."""
    losses: list[float] = []
    right: list[float] = []
    with evaluating(objective.model):
        for unit in rendered.units:
            [(_, batch)] = unit_batches(RenderedPairs([unit]), context_length, 1, reference=reference)
            batch = {name: tensor.to(runtime.device) for name, tensor in batch.items()}
            with runtime.autocast():
                loss, sums = objective(batch)
            losses.append(float(loss))
            right.append(float(sums["accuracy"]))
    mean = sum(losses) / len(losses)
    low, high = mean_interval(losses)
    told = estimate(right)
    found = {"val/accuracy": told.value}
    found |= {f"val/accuracy_{end}": x for end, x in (("low", told.low), ("high", told.high)) if x is not None}
    return LossResult(mean, low, high, rendered.pairs), found
