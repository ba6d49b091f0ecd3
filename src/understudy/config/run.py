"""The configuration of a run: one typed, frozen tree. The docstring below each field describes the setting.

``None`` means the default of the chosen family, optimiser or schedule; validation fills these in, so that a saved file is
complete. An unknown setting is an error, and so is one that other settings make ignored. Model settings are in
config/model.py, those of the stages after sft in config/align.py. YAML and overrides are read in config/load.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, create_model, model_validator

from understudy.config import align
from understudy.config.align import RolloutConfig
from understudy.config.model import ModelConfig
from understudy.config.stages import DEFAULT_STAGE, STAGES, StageInfo, stage_info
from understudy.config.types import Count, CountOrZero, Fraction, NotNegative, Positive, Section, refuse, switch


class MixturePart(Section):
    """A data folder of a mixture."""

    path: str
    """Folder that `understudy prepare` wrote."""
    weight: Positive | dict[CountOrZero, NotNegative] = 1.0
    """Share of the training windows, relative to the other weights; or several by the step from which each holds, the first
    from step 0."""

    @model_validator(mode="after")
    def _from_the_first_step(self) -> Self:
        if isinstance(self.weight, dict) and 0 not in self.weight:
            raise ValueError(
                f"the weights of {self.path} begin at step {min(self.weight, default=0)}; give one for step 0"
            )
        return self

    def weight_at(self, step: int) -> float:
        """The weight that holds at a step."""
        if not isinstance(self.weight, dict):
            return self.weight
        return self.weight[max(first for first in self.weight if first <= step)]


class DataConfig(Section):
    """The training data."""

    path: str
    """Folder that `understudy prepare` wrote, or a .jsonl file of conversations, preferences, judgements or prompts."""
    mixture: tuple[MixturePart, ...] | None = None
    """pretrain: several folders, as a list of path and weight; `data` may be this list itself. A weight is a share of the
    training windows; {0: 1, 500: 0.2} changes it at step 500. All need the same tokenizer."""
    source: str | None = None
    """The SOURCE of `understudy prepare`. Only error messages use it."""
    too_long: Literal["cut", "drop"] | None = None
    """sft: treatment of conversations longer than the context. cut, the default, removes the last turns, and shortens a
    first turn that is too long alone; drop leaves them out."""
    pack: bool | None = None
    """sft: put several conversations into one sequence; attention never crosses between them. Default: true."""

    @model_validator(mode="before")
    @classmethod
    def _mixture(cls, raw: Any) -> Any:
        """A list is a mixture, whose first folder stands as the path."""
        raw = {"mixture": raw} if isinstance(raw, (list, tuple)) else raw
        parts = raw.get("mixture") if isinstance(raw, Mapping) else None
        if isinstance(parts, (list, tuple)) and parts and isinstance(parts[0], Mapping) and "path" in parts[0]:
            if raw.get("path") not in (None, parts[0]["path"]):
                raise ValueError("data.path and data.mixture both say what to train on; give one of them")
            return {**raw, "path": parts[0]["path"]}
        return raw

    @model_validator(mode="after")
    def _check_mixture(self) -> Self:
        if self.mixture is None:
            return self
        paths = [part.path for part in self.mixture]
        if len(set(paths)) < len(paths):
            raise ValueError("data.mixture names a folder twice; add their weights")
        if any(not sum(part.weight_at(step) for part in self.mixture) for step in self.phase_steps()):
            raise ValueError("data.mixture has a step at which all weights are 0; give one of them a weight")
        return self

    def phase_steps(self) -> list[int]:
        """The steps at which the weights of a mixture change, from 0."""
        weights = [part.weight for part in self.mixture or ()]
        return sorted({0}.union(*(weight for weight in weights if isinstance(weight, dict))))


class TokenizerConfig(Section):
    """The tokenizer that the data must have been prepared with; a mismatch is refused."""

    kind: Literal["char", "bpe", "gpt2"] | None = None
    """Kind of tokenizer that the data must have been prepared with; null accepts any."""
    vocab_size: Count | None = None
    """bpe: the vocabulary size that the data must have been prepared with."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.vocab_size is not None and self.kind != "bpe":
            raise ValueError("tokenizer.vocab_size is only read by tokenizer.kind bpe; leave it out")
        return self


MUON_DEFAULTS = {
    "lr": 0.02, "momentum": 0.95, "newton_schulz_steps": 5, "embedding_lr": 3e-3, "head_lr": 3e-3, "vector_lr": 3e-3,
}  # fmt: skip


class OptimConfig(Section):
    """The optimiser and its schedule. Learning rates are peaks."""

    name: Literal["adamw", "muon"] = "adamw"
    """Optimiser: adamw, or muon for the matrices inside the blocks and AdamW for everything else."""
    lr: Positive = 1e-3
    """Peak learning rate; under muon, that of the matrices inside the blocks, 0.02 by default."""
    embedding_lr: Positive | None = None
    """muon: peak learning rate of token, position, value and n-gram embeddings. Default: 0.003."""
    head_lr: Positive | None = None
    """muon: peak learning rate of an output head that is not tied. Default: 0.003."""
    vector_lr: Positive | None = None
    """muon: peak learning rate of biases and norm weights. Default: 0.003."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""
    eps: Positive = 1e-8
    """Added to the denominator of AdamW's update."""
    weight_decay: NotNegative = 0.1
    """Decoupled weight decay of matrices and n-gram tables. Vectors have none, and under muon other embeddings
    have none."""
    momentum: Fraction | None = None
    """muon: momentum. Default: 0.95."""
    newton_schulz_steps: Count | None = None
    """muon: iterations of the orthogonalisation. Default: 5."""
    grad_clip: NotNegative = 1.0
    """Largest gradient norm; 0 is off."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    """Learning rate after the warmup: constant, cosine or linear decay, or wsd (constant, then a linear decay)."""
    warmup_steps: CountOrZero = 0
    """Steps in which the learning rate rises linearly from 0."""
    min_lr_fraction: Fraction | None = None
    """Learning rate at the end of the decay, as a fraction of the peak. Default: 0.1 for cosine, else 0."""
    decay_fraction: Fraction | None = None
    """wsd: fraction of all steps spent decaying. Default: 0.2."""
    ema: Fraction | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated and saved; 0 is off."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        given = {name: value for name, value in raw.items() if value is not None}
        filled: dict[str, Any] = {"ema": 0.0} | given
        if given.get("name") == "muon":
            filled = MUON_DEFAULTS | filled
        else:
            refuse(given, "optim", "optim.name adamw", MUON_DEFAULTS.keys() - {"lr"})
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


LENGTHS = ("minutes", "tokens", "epochs")
"""Settings of ``train`` that give the length of a training otherwise than in steps."""

SHORT_OPTIONS = {"data": "data.path", "seed": "train.seed", "device": "train.device", "init_from": "init_from"} | {
    name: f"train.{name}" for name in LENGTHS
}
"""Options of every stage that are short for a setting."""


class TrainConfig(Section):
    """Steps, batch, precision and device."""

    seed: CountOrZero = 1337
    """Seed of initial weights, data order, dropout and sampling."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of matrix products; weights stay fp32."""
    bigram_start: bool = False
    """Start the token embeddings and the output head as a bigram model of the training text, in seconds; the loss then begins
    where it otherwise comes to after many steps. Needs model.tied false. A run that starts from another one says that it keeps its weights."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(switch)] = "auto"
    """Compile the model by torch.compile. auto: on CUDA, where it pays."""
    steps: Count = 1000
    """Optimiser steps, over which the schedule runs."""
    minutes: Positive | None = None
    """Train for about this many minutes. The steps then follow from the measured speed, and the intervals of evaluation and
    checkpoints and the warmup keep their share of them. pretrain: the batch shrinks where few steps would be left."""
    tokens: Count | None = None
    """Train on about this many tokens; the rest follows as for minutes."""
    epochs: Positive | None = None
    """Read the training data about this often, in 50 steps at least; the rest follows as for minutes."""
    batch_size: Count = 32
    """Samples in one optimiser step, over all processes."""
    micro_batch_size: Count | None = None
    """Samples in one forward of one process. Default: the largest that fits into memory."""
    stop_at_tokens: Count | None = None
    """Stop after this many training tokens."""
    stop_at_seconds: Positive | None = None
    """Stop after this many seconds of training, evaluation and start-up not counted."""
    stop_at_loss: Positive | None = None
    """Stop at an evaluation whose validation loss is at most this."""
    loss_chunk_tokens: CountOrZero | None = None
    """Compute logits and loss for this many tokens at a time, to save memory; 0 is off. Default: 0, or on a CPU as many as
    have four million logits, which is also faster."""
    activation_checkpointing: bool = False
    """Keep only the inputs of the blocks, and compute the rest again in the backward pass, to save memory."""
    deterministic: bool = False
    """On a GPU, use only kernels that give the same bits each time, which are slower. A CPU always does."""


class EvalConfig(Section):
    """Evaluation during training."""

    every_steps: CountOrZero = 250
    """Steps between evaluations; 0 evaluates only at the end."""
    max_tokens: Count | None = None
    """Evaluate on the first tokens of the validation split, this many. Default: all of it."""
    batch_size: Count | None = None
    """Sequences in one forward of an evaluation. Default: the micro-batch."""
    tasks: tuple[str, ...] = ()
    """Tasks whose accuracy is measured at each evaluation; `understudy evaluate --help` lists them."""
    task_examples: Count | None = None
    """Largest number of examples of each task."""


class CheckpointConfig(Section):
    """Checkpoints of a run."""

    every_steps: CountOrZero = 250
    """Steps between checkpoints; 0 saves only at the end and on an interrupt."""
    keep: Count = 2
    """Number of newest checkpoints to keep, the best one not counted."""
    best: bool = True
    """Also keep the checkpoint with the lowest validation loss."""


class LogConfig(Section):
    """Metrics and samples."""

    every_steps: Count = 10
    """Steps between rows of metrics.jsonl."""
    tensorboard: bool = False
    """Also log to TensorBoard."""
    wandb: bool = False
    """Also log to Weights & Biases."""
    project: str = "understudy"
    """Project name at Weights & Biases."""
    plot: bool = True
    """Draw the curves into loss.png at the end."""
    samples: CountOrZero = 3
    """Texts to sample at each evaluation; after sft, the number of prompts to answer."""
    sample_tokens: Count = 200
    """Length of each sampled text, in tokens."""
    prompt: str = ""
    """pretrain: text that the samples continue. Default: the beginning of a text."""
    prompts: tuple[str, ...] = ()
    """sft: prompts to answer at each evaluation. Default: the first validation conversations."""


SECTIONS: dict[str, type[Section]] = {
    name: getattr(align, info.section) for name, info in STAGES.items() if info.section
}
"""The class of each stage's own section; the other stages refuse it."""

if TYPE_CHECKING:
    StageSections = Section
else:  # one optional field for each stage that has a section
    StageSections = create_model(
        "StageSections", __base__=Section, **{name: (section | None, None) for name, section in SECTIONS.items()}
    )

S = TypeVar("S", bound=Section)


def known_stage(name: Any) -> Any:
    """Refuse stages that do not exist; the table is config/stages.py."""
    if not isinstance(name, str):
        raise ValueError(f"stage is the name of one stage, not {name!r}; choose one of {', '.join(STAGES)}")
    stage_info(name)
    return name


class RunConfig(StageSections):
    """All settings of a run."""

    stage: Annotated[str, BeforeValidator(known_stage)] = DEFAULT_STAGE
    """Stage of training; the command of the same name runs it."""
    depth: Count | None = None
    """portable: number of layers, from which width, heads, batch size, learning rates and steps follow unless
    given."""
    init_from: str | None = None
    """Run to start from: its weights, shape and tokenizer."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @property
    def info(self) -> StageInfo:
        """The row of this run's stage in the table of stages."""
        return STAGES[self.stage]

    def section(self, kind: type[S]) -> S:
        """This stage's own section, which is a ``kind``.

        >>> RunConfig(stage="dpo", data={"path": "data/pairs"}).section(align.DPOConfig).beta
        0.1
        """
        section = getattr(self, self.stage, None)
        if not isinstance(section, kind):
            raise TypeError(f"the stage {self.stage} has no section {kind.__name__}")
        return section

    @model_validator(mode="before")
    @classmethod
    def _own_section(cls, raw: Any) -> Any:
        """Give a stage its section, and refuse those of the others."""
        if not isinstance(raw, Mapping):
            return raw
        stage = known_stage(raw.get("stage") or DEFAULT_STAGE)
        for name in SECTIONS.keys() - {stage}:
            if raw.get(name) is not None:
                raise ValueError(f"{name} would be ignored by the stage {stage}; leave it out, or set it to null")
        return {**raw, stage: raw.get(stage) or {}} if stage in SECTIONS else raw

    @model_validator(mode="after")
    def _by_stage(self) -> Self:
        """Fill in the settings that the stage needs, and refuse those it would ignore."""
        for dotted in self.info.ignored:
            section, name = dotted.split(".")
            settings: Section = getattr(self, section)
            value = getattr(settings, name)
            off = isinstance(value, int) and not isinstance(value, bool) and value == 0
            if not off and value not in (None, type(settings).model_fields[name].default):
                raise ValueError(
                    f"{dotted} would be ignored by the stage {self.stage}; leave it out, or set it to null"
                )
        if self.train.compile == "on" and not self.info.fixed_shapes:
            raise ValueError(
                f"train.compile is on, but the batches of {self.stage} change their shape and each shape would be compiled "
                "anew; leave it out, or set it to off"
            )
        model = self.model
        dropouts = {"dropout": model.dropout, "ngram_dropout": model.ngram_dropout}
        dropouts["lora.dropout"] = model.lora.dropout if model.lora else 0.0
        for name, value in dropouts.items():
            if value and not self.info.trains_with_dropout:
                raise ValueError(
                    f"model.{name} is {value}, but {self.stage} compares probabilities of two passes and trains without "
                    "dropout; leave it out, or set it to 0"
                )
        if self.info.data == "conversations":
            defaults: dict[str, Any] = {"too_long": self.data.too_long or "cut", "pack": self.data.pack is not False}
            object.__setattr__(self, "data", self.data.model_copy(update=defaults))
        return self

    @model_validator(mode="after")
    def _whole_iterations(self) -> Self:
        """Iterations end with a step, and whatever reads or keeps the model comes between two of them."""
        if not self.info.rollout:
            return self
        rollout = self.section(RolloutConfig)
        answers, batch = rollout.answers, self.train.batch_size
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
                    f"{rollout.epochs} times, {batch} a step); choose one"
                )
        return self

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps between one sampling of answers and the next."""
        rollout = self.section(RolloutConfig)
        return rollout.epochs * rollout.answers // self.train.batch_size

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.eval.task_examples and not self.eval.tasks:
            raise ValueError("eval.task_examples would be ignored without eval.tasks; name a task, or leave it out")
        if self.model.lora and self.optim.name != "adamw":
            raise ValueError("adapters (model.lora) learn by AdamW; set optim.name adamw")
        if self.model.lora and self.info.parent == "optional" and not self.init_from:
            raise ValueError("adapters (model.lora) need a model to adapt; give --init-from RUN, or leave them out")
        if self.train.bigram_start and not self.init_from and (self.model.family == "bigram" or self.model.tied):
            raise ValueError(
                "train.bigram_start needs a GPT whose output head is not its token embedding; set model.tied to false, or "
                "train.bigram_start to false"
            )
        lengths = [name for name in LENGTHS if getattr(self.train, name) is not None]
        if len(lengths) > 1:
            raise ValueError(f"train.{lengths[0]} and train.{lengths[1]} both set the length of the training; give one")
        micro = self.train.micro_batch_size
        if micro is not None and self.train.batch_size % micro:
            raise ValueError(
                f"train.micro_batch_size {micro} does not divide train.batch_size {self.train.batch_size}; choose a divisor"
            )
        return self
