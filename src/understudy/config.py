"""The configuration of a run: one typed, frozen tree.

A setting left at ``None`` means "the default of the family, optimiser or schedule chosen here"; a validated tree has
every such default filled in, so that the saved file explains the run by itself. A setting that the choices made
elsewhere in the tree would ignore is an error, as is one that does not exist. The shape of a model is in config_model.py,
and the sections of the stages that learn from preferences and rewards are in config_align.py. This file knows no torch;
reading YAML and overrides is settings.py's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from understudy.config_align import DPOConfig, GRPOConfig, PPOConfig, RewardConfig, RolloutConfig
from understudy.config_model import LoraConfig as LoraConfig
from understudy.config_model import ModelConfig
from understudy.config_model import ModelShape as ModelShape
from understudy.config_types import Count, CountOrZero, Fraction, NotNegative, Positive, Section, refuse, switch


class DataConfig(Section):
    """What is trained on, and from what it can be prepared."""

    path: str
    """A folder that `understudy prepare` made: token files, or conversations (a .jsonl file of them will do)."""
    source: str | None = None
    """What `understudy prepare` is told to make that folder; only named in advice."""
    too_long: Literal["cut", "drop"] | None = None
    """sft: what becomes of conversations longer than the context. cut: the last turns go until it fits, and a first
    turn that is too long by itself is cut inside."""
    pack: bool | None = None
    """sft: put several conversations into one row, each seeing only itself."""


class TokenizerConfig(Section):
    """Which tokenizer the data is expected to have been prepared with; a mismatch is refused."""

    kind: Literal["char", "bpe", "gpt2"] | None = None
    vocab_size: Count | None = None
    """For bpe: the size trained to."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.vocab_size is not None and self.kind != "bpe":
            raise ValueError("tokenizer.vocab_size is only read by tokenizer.kind bpe; leave it out")
        return self


MUON_ONLY = {"momentum", "embedding_lr", "head_lr", "vector_lr", "newton_schulz_steps"}


class OptimConfig(Section):
    """The optimiser and its schedule. Learning rates are peaks."""

    name: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 1e-3
    """AdamW: of everything. Muon: of the matrices inside the blocks."""
    embedding_lr: Positive | None = None
    """Muon's AdamW part: token, position, value and n-gram embeddings."""
    head_lr: Positive | None = None
    """Muon's AdamW part: an output head of its own."""
    vector_lr: Positive | None = None
    """Muon's AdamW part: biases and norm weights."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.1
    """Decoupled; applied to matrices and n-gram tables, never to vectors, and not to other embeddings under Muon."""
    momentum: Fraction | None = None
    newton_schulz_steps: Count | None = None
    grad_clip: NotNegative = 1.0
    """Largest gradient norm; 0 is off."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    warmup_steps: CountOrZero = 0
    min_lr_fraction: Fraction | None = None
    """Where the decay ends, as a share of the peak."""
    decay_fraction: Fraction | None = None
    """wsd: the share of all steps spent decaying."""
    ema: Fraction | None = None
    """Evaluate and keep an exponential moving average of the weights with this decay; 0 is off."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        given = {name: value for name, value in raw.items() if value is not None}
        filled: dict[str, Any] = {"ema": 0.0} | given
        if given.get("name") == "muon":
            filled.setdefault("lr", 0.02)
            filled.setdefault("momentum", 0.95)
            filled.setdefault("newton_schulz_steps", 5)
            for name in ("embedding_lr", "head_lr", "vector_lr"):
                filled.setdefault(name, 3e-3)
        else:
            refuse(given, "optim", "optim.name adamw", MUON_ONLY)
        schedule = given.get("schedule", "cosine")
        if schedule == "constant":
            refuse(given, "optim", "optim.schedule constant", {"min_lr_fraction"})
        else:
            filled.setdefault("min_lr_fraction", 0.1 if schedule == "cosine" else 0.0)
        if schedule == "wsd":
            filled.setdefault("decay_fraction", 0.2)
        else:
            refuse(given, "optim", f"optim.schedule {schedule}", {"decay_fraction"})
        return filled


class TrainConfig(Section):
    """How long and how to train."""

    seed: CountOrZero = 1337
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the matrix products; weights stay fp32."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(switch)] = "auto"
    steps: Count = 1000
    """Optimiser steps; the schedule ends here."""
    batch_size: Count = 32
    """Samples in one optimiser step, over all processes."""
    micro_batch_size: Count | None = None
    """Samples in one forward of one process; the largest share of batch_size when left out."""
    stop_at_tokens: Count | None = None
    stop_at_seconds: Positive | None = None
    """Seconds of training, evaluation and start-up excluded."""
    stop_at_loss: Positive | None = None
    """Stop when an evaluation's validation loss is at or under this."""
    loss_chunk_tokens: CountOrZero = 0
    """Compute logits and loss for this many tokens at a time, so that logits never exist whole; 0 is off."""
    activation_checkpointing: bool = False
    """Keep only the inputs of the blocks, and compute the rest again in the backward pass."""
    deterministic: bool = False
    """On a GPU, use only kernels that give the same bits each time, which are slower; a CPU always does."""

    @property
    def micro_batch(self) -> int:
        """``micro_batch_size``, once it is chosen.

        Raises:
            ValueError: it is not chosen yet.
        """
        if self.micro_batch_size is None:
            raise ValueError("train.micro_batch_size is not chosen yet; give it, or let a run choose it")
        return self.micro_batch_size


class EvalConfig(Section):
    """Validation while training."""

    every_steps: CountOrZero = 250
    """0: only at the end."""
    max_tokens: Count | None = None
    """Evaluate on the first so many tokens of the validation split; all of it when left out."""
    batch_size: Count | None = None
    """Windows in one forward; the micro-batch when left out."""
    tasks: tuple[str, ...] = ()
    """Tasks whose accuracy is measured at each evaluation; `understudy evaluate --help` lists them."""
    task_examples: Count | None = None
    """At most so many examples of each task."""


class CheckpointConfig(Section):
    """What is kept of a run."""

    every_steps: CountOrZero = 250
    """0: only at the end, and when interrupted."""
    keep: Count = 2
    """The newest so many, beside the best."""
    best: bool = True
    """Keep the checkpoint with the lowest validation loss."""


class LogConfig(Section):
    """What is written and shown beside the checkpoints."""

    every_steps: Count = 10
    tensorboard: bool = False
    wandb: bool = False
    trackio: bool = False
    project: str = "understudy"
    """Name of the project at wandb and trackio."""
    samples: CountOrZero = 3
    """Texts sampled at each evaluation; sft: how many prompts are answered."""
    sample_tokens: Count = 200
    prompt: str = ""
    """pretrain: what the samples continue; when empty, the beginning of a text."""
    prompts: tuple[str, ...] = ()
    """sft: what is asked at each evaluation; when empty, the first validation conversations."""


Stage = Literal["pretrain", "sft", "reward", "dpo", "ppo", "grpo"]
STAGE_SECTIONS: dict[str, type[Section]] = {
    "reward": RewardConfig, "dpo": DPOConfig, "ppo": PPOConfig, "grpo": GRPOConfig,
}  # fmt: skip
"""Stages with a section of their own, which the other stages refuse."""
StageSection = TypeVar("StageSection", bound=Section)


class RunConfig(Section):
    """Everything that decides a run."""

    stage: Stage = "pretrain"
    """Which command trains it."""
    depth: Count | None = None
    """One dial for the portable family: sets width, heads, batch, learning rates and steps not given."""
    init_from: str | None = None
    """The run whose weights, shape and tokenizer to start from."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    reward: RewardConfig | None = None
    dpo: DPOConfig | None = None
    ppo: PPOConfig | None = None
    grpo: GRPOConfig | None = None

    def section(self, kind: type[StageSection]) -> StageSection:
        """The section of the stage, which is a ``kind``.

        Raises:
            ValueError: the stage has another one, or none.
        """
        for section in (self.reward, self.dpo, self.ppo, self.grpo):
            if isinstance(section, kind):
                return section
        raise ValueError(f"the stage {self.stage} has no {kind.__name__}")

    @property
    def rollout(self) -> RolloutConfig | None:
        """The section of the stages that learn from answers of their own."""
        return self.ppo or self.grpo

    @model_validator(mode="before")
    @classmethod
    def _own_section(cls, raw: Any) -> Any:
        """Give a stage its section, and refuse those of the others."""
        if not isinstance(raw, Mapping):
            return raw
        stage = raw.get("stage") or "pretrain"
        for name in STAGE_SECTIONS.keys() - {stage}:
            if raw.get(name) is not None:
                raise ValueError(f"{name} would be ignored by the stage {stage}; leave it out, or set it to null")
        return {**raw, stage: raw.get(stage) or {}} if stage in STAGE_SECTIONS else raw

    @model_validator(mode="after")
    def _by_stage(self) -> Self:
        """Fill in what the stage needs, and refuse what it would ignore."""
        if self.eval.task_examples and not self.eval.tasks:
            raise ValueError("eval.task_examples would be ignored without eval.tasks; name a task, or leave it out")
        ignored: dict[str, Any] = {}
        if self.stage != "pretrain":
            ignored["log.prompt"] = self.log.prompt
        if self.stage in ("pretrain", "reward"):
            ignored["log.prompts"] = self.log.prompts
        if self.stage == "sft":
            defaults: dict[str, Any] = {"too_long": self.data.too_long or "cut", "pack": self.data.pack is not False}
            object.__setattr__(self, "data", self.data.model_copy(update=defaults))
        else:
            ignored |= {"data.too_long": self.data.too_long, "data.pack": self.data.pack}
        if self.stage not in ("pretrain", "sft"):
            ignored["train.loss_chunk_tokens"] = self.train.loss_chunk_tokens or None
        if self.rollout:
            ignored |= {"eval.max_tokens": self.eval.max_tokens, "eval.batch_size": self.eval.batch_size}
        for name, value in ignored.items():
            if value not in (None, "", ()):
                raise ValueError(f"{name} would be ignored by the stage {self.stage}; leave it out, or set it to null")
        return self

    @model_validator(mode="after")
    def _whole_iterations(self) -> Self:
        """Iterations end with a step, and whatever reads or keeps the model comes between two of them."""
        if self.rollout is None:
            return self
        answers, batch = self.rollout.answers, self.train.batch_size
        if answers % batch:
            raise ValueError(
                f"train.batch_size {batch} does not divide the {answers} answers of an iteration; choose a divisor"
            )
        steps = self.steps_per_iteration
        for name, number in (
            ("train.steps", self.train.steps), ("eval.every_steps", self.eval.every_steps),
            ("checkpoint.every_steps", self.checkpoint.every_steps),
        ):  # fmt: skip
            if number % steps:
                raise ValueError(
                    f"{name} {number} is no multiple of the {steps} steps of an iteration ({answers} answers, "
                    f"{self.rollout.epochs} times, {batch} a step); choose one"
                )
        return self

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps between one sampling of answers and the next."""
        rollout = self.section(RolloutConfig)
        return rollout.epochs * rollout.answers // self.train.batch_size

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.lora and self.optim.name != "adamw":
            raise ValueError("adapters (model.lora) learn by AdamW; set optim.name adamw")
        if self.model.lora and not self.init_from:
            raise ValueError("adapters (model.lora) need a model to adapt; give --init-from RUN, or leave them out")
        micro = self.train.micro_batch_size
        if micro is not None and self.train.batch_size % micro:
            raise ValueError(
                f"train.micro_batch_size {micro} does not divide train.batch_size {self.train.batch_size}; choose a divisor"
            )
        return self
