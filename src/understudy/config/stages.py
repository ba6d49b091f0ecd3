"""The table of stages: the data, parent and result of each. The one place that knows stages by name.

A row is data. The code of the stage NAME is the class in ``stages/NAME.py`` that stages/table.py looks up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class StageInfo:
    """One stage of training.

    Attributes:
        summary: one line for `understudy --help`.
        title: its name in a model card.
        data: the kind of data it learns from, as `understudy prepare --kind` names it.
        parent: "optional" (a base model may start from random weights), "any" run, or an "assistant", whose tokenizer
            has the tokens of the chat format.
        init_from: help text of --init-from.
        section: the class in config/align.py of its section of the configuration; None where it has none. A name,
            so that `understudy --help` does not wait for pydantic.
        adds_chat_tokens: the tokens of the chat format are added to the parent's tokenizer.
        score_head: whether the model gets a score head, given the raw settings of the stage's section.
        generates: the trained run writes completions (a reward model only scores).
        rollout: it samples completions while it trains, and its section is a RolloutConfig.
        reference_model: it holds the reference model while it trains.
        fixed_shapes: its batches have one shape, so that train.compile pays.
        sequences_per_sample: sequences of a sample, as the memory plan assumes before the data is opened.
        token_loss: its data has a loss per token, which `understudy evaluate` computes.
        trains_with_dropout: stages that compare probabilities of two passes train without dropout.
        loss_label: axis label of its loss.
        ignored: settings it does not read; they are refused unless they are at their "off" value.
        epochs: how often `understudy improve` shows it the exported feedback; None takes the preset's steps.
        next_command: the suggested next command, with {} for the run's path.
    """

    summary: str
    title: str
    data: str
    parent: Literal["optional", "any", "assistant"] = "assistant"
    init_from: str = "the assistant to improve"
    section: str | None = None
    adds_chat_tokens: bool = False
    score_head: Callable[[Mapping[str, Any]], bool] = lambda section: False
    generates: bool = True
    rollout: bool = False
    reference_model: bool = False
    fixed_shapes: bool = False
    sequences_per_sample: int = 1
    token_loss: bool = False
    trains_with_dropout: bool = False
    loss_label: str = "loss (nats per token)"
    ignored: tuple[str, ...] = ()
    epochs: int | None = None
    next_command: str = "understudy chat {}"


_NOT_TEXT = ("log.prompt", "data.mixture", "train.bigram_start")
_NOT_CONVERSATIONS = ("data.too_long", "data.pack", "train.loss_chunk_tokens")
_ROLLOUT = (*_NOT_TEXT, *_NOT_CONVERSATIONS, "eval.max_tokens", "eval.batch_size")

DEFAULT_STAGE = "pretrain"
"""The stage of a configuration that names none."""
IMPORTED = "import"
"""The stage in run.json of a run that `understudy import` made."""

STAGES: dict[str, StageInfo] = {
    "pretrain": StageInfo(
        "train a base model on text", "pretraining",
        data="text", parent="optional", init_from="start from the weights, shape and tokenizer of a run",
        token_loss=True, trains_with_dropout=True, fixed_shapes=True, ignored=("log.prompts", "data.too_long", "data.pack"),
        next_command="understudy sample {}",
    ),
    "sft": StageInfo(
        "finetune a run on conversations", "finetuning on conversations",
        data="conversations", parent="any", init_from="the run to finetune", adds_chat_tokens=True,
        token_loss=True, trains_with_dropout=True, fixed_shapes=True, ignored=_NOT_TEXT, epochs=3,
    ),
    "reward": StageInfo(
        "train a reward model on preferences", "reward modelling",
        data="preferences", init_from="the assistant whose weights to start from", section="RewardConfig",
        sequences_per_sample=2,
        score_head=lambda section: True, generates=False, loss_label="loss (nats per pair)",
        ignored=(*_NOT_TEXT, *_NOT_CONVERSATIONS, "log.prompts"), epochs=2, next_command="understudy score {} FILE",
    ),
    "dpo": StageInfo(
        "improve an assistant by preferences, directly", "DPO",
        data="preferences", section="DPOConfig", sequences_per_sample=2, loss_label="loss (nats per pair)",
        ignored=(*_NOT_TEXT, *_NOT_CONVERSATIONS), epochs=2,
    ),
    "kto": StageInfo(
        "improve an assistant by judgements of single completions", "KTO",
        data="judgements", section="KTOConfig", reference_model=True, loss_label="loss per completion",
        ignored=(*_NOT_TEXT, *_NOT_CONVERSATIONS), epochs=2,
    ),
    "ppo": StageInfo(
        "improve an assistant by rewards, with a critic", "PPO",
        data="prompts", section="PPOConfig", score_head=lambda section: (section.get("critic") or "head") == "head",
        rollout=True, reference_model=True, loss_label="loss per token; validation: negative reward", ignored=_ROLLOUT,
    ),
    "grpo": StageInfo(
        "improve an assistant by rewards, within groups of completions", "GRPO",
        data="prompts", section="GRPOConfig", rollout=True, reference_model=True,
        loss_label="loss per token; validation: negative reward", ignored=_ROLLOUT,
    ),
}  # fmt: skip


def stages_for(data: str, generates: bool = True) -> list[str]:
    """Names of the stages that learn from this kind of data; reward models with ``generates`` false."""
    return [name for name, info in STAGES.items() if info.data == data and info.generates == generates]


def improving_stages() -> tuple[str, ...]:
    """Names of the stages that improve an assistant, which `understudy improve` can end with."""
    return tuple(name for name, info in STAGES.items() if info.parent != "optional" and info.generates)


def stage_info(name: str) -> StageInfo:
    """The row of a stage; a ValueError if there is no such stage."""
    if name not in STAGES:
        raise ValueError(f"there is no stage {name!r}; choose one of {', '.join(STAGES)}")
    return STAGES[name]
