"""Direct preference optimisation: the policy itself learns to tell the better answer from the worse.

Shapes: B rows of a batch, T time, N documents (answers) of a batch, P pairs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from understudy.align.answers import states
from understudy.align.pairs import PairRows, RenderedPairs, unit_batches, weighted_pairs
from understudy.align.reward import about_pairs, open_pairs
from understudy.config import DPOConfig, RunConfig
from understudy.evaluate.loss import LossResult
from understudy.evaluate.statistics import estimate, mean_interval
from understudy.inference.engine import evaluating
from understudy.losses import dpo_loss, ipo_loss, token_logprobs
from understudy.model import GPT
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids
from understudy.train.inherit import start_of
from understudy.train.material import Course, Material, Setting, by_sample, shown_prompts
from understudy.train.objectives import Objective

REFERENCE = "reference.safetensors"
"""Log-probabilities of all answers under the start, kept in the run's folder."""


class DirectPreference(Objective):
    """DPO or IPO over the pairs of a batch of :func:`understudy.align.pairs.collate_pairs` with a reference."""

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
    each = token_logprobs(model.logits(states(model, batch)[None])[0], batch["targets"])
    return each.new_zeros(len(batch["ends"])).index_add(0, batch["owners"], each)


def document_lengths(batch: dict[str, Tensor]) -> Tensor:
    """Tokens (N,) of each document's answer."""
    return torch.bincount(batch["owners"], minlength=len(batch["ends"])).float()


def dpo_material(config: RunConfig, tokenizer: Tokenizer) -> Material:
    """Preferences for DPO.

    Raises:
        ValueError: no such data, or nothing in it to train on.
    """
    opened, rendered = open_pairs(config, tokenizer)

    def prepare(setting: Setting) -> Course:
        assert isinstance(setting.model, GPT)
        context, runtime = config.model.context_length, setting.runtime
        reference = reference_logprobs(setting, rendered, f"{opened['train'].sha256} {opened['val'].sha256}")
        rows = PairRows(rendered["train"], context, config.train.seed, reference["train"])

        def judge(objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
            return judge_pairs(objective, rendered["val"], reference["val"], context, size, runtime)

        return Course(DirectPreference(setting.model, config.section(DPOConfig)), by_sample(rows, setting), judge)

    return Material(
        tokenizer=tokenizer, prepare=prepare,
        prompts=shown_prompts(config, tokenizer, (comparison.prompt for comparison in opened["val"])),
        ends=end_ids(tokenizer), about=about_pairs(opened, rendered),
        notes=[f"{split}: {each}" for split, each in rendered.items()], evaluate_first=True,
    )  # fmt: skip


def reference_logprobs(setting: Setting, rendered: dict[str, RenderedPairs], data: str) -> dict[str, Tensor]:
    """Of every answer of each split, the log-probability (documents,) under the model that the run starts from.

    They are computed once and kept in the run's folder.

    Raises:
        ValueError: a run that goes on has lost them, and its parent is not what it was.
    """
    path = setting.folder.path / REFERENCE
    parent = setting.folder.about()["parent"]
    key = hashlib.sha256(f"{parent['sha256']} {data} {setting.config.model.context_length}".encode()).hexdigest()
    if setting.runtime.is_main and not _is_kept(path, key):
        model = setting.model if setting.parent else start_of(setting.folder).model.to(setting.runtime.device)
        assert isinstance(model, GPT)
        found = {split: _all_logprobs(model, each, setting) for split, each in rendered.items()}
        save_file(found, partial := path.with_name(f".{path.name}.partial"), {"key": key})
        partial.replace(path)
    setting.runtime.barrier()
    return load_file(path)


def _is_kept(path: Path, key: str) -> bool:
    from safetensors import safe_open

    if not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("key") == key


@torch.no_grad()
def _all_logprobs(model: GPT, rendered: RenderedPairs, setting: Setting) -> Tensor:
    found = []
    size = setting.config.train.micro_batch_size or 1
    with evaluating(model):
        for _, batch in unit_batches(rendered, setting.config.model.context_length, size):
            batch = {name: tensor.to(setting.runtime.device) for name, tensor in batch.items()}
            with setting.runtime.autocast():
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
    return LossResult(mean, low or mean, high or mean, rendered.pairs), found
