"""The table of stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from understudy.config import RunConfig
from understudy.config.load import build_config
from understudy.run import Run, RunFolder, load_run
from understudy.stages.dpo import dpo_material
from understudy.stages.grpo import grpo_course
from understudy.stages.ppo import ppo_course
from understudy.stages.pretrain import text_material
from understudy.stages.reward import reward_material
from understudy.stages.rollout import rollout_material
from understudy.stages.sft import conversation_material
from understudy.tokenizer import Tokenizer, load_tokenizer
from understudy.tokenizer.chat import speaks_chat, with_chat_tokens
from understudy.train.init_from import config_from_parent
from understudy.train.runner import Result, _train
from understudy.train.stage import StageData


def pretrain(config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None) -> Result:
    """Train a base model into ``folder``, continue one there (``resume``), or start from another run's (``parent``).

    ``config.model.vocab_size`` may be left out; the data's tokenizer gives it.

    Raises:
        ValueError: data, tokenizer, folder or settings do not fit together.
        Interrupted: a signal asked to stop; everything is saved.
    """
    material = text_material(config)
    if parent and parent.tokenizer.sha256 != material.tokenizer.sha256:
        raise ValueError(
            f"the data was prepared with another tokenizer than the run {parent.path} has; prepare it with "
            f"`--tokenizer {parent.path / 'tokenizer.json'}`"
        )
    return _train(config, folder, resume, parent, material)


def sft(config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None) -> Result:
    """Finetune the run ``parent`` on conversations into ``folder``, or continue there (``resume``).

    The tokenizer is the parent's, with the chat format's tokens added where it lacks them.

    Raises:
        ValueError: data, folder or settings do not fit together.
        Interrupted: a signal asked to stop; everything is saved.
    """
    if config.model.family == "bigram":
        raise ValueError("a bigram sees one token, so it cannot answer; start from a GPT")
    if parent is None and not resume:
        raise ValueError("say which run to finetune: --init-from RUN")
    tokenizer = with_chat_tokens(parent.tokenizer if parent else load_tokenizer(folder.path / "tokenizer.json"))
    return _train(config, folder, resume, parent, conversation_material(config, tokenizer))


def align(config: RunConfig, folder: RunFolder, resume: bool = False, parent: Run | None = None) -> Result:
    """Train a reward model on preferences, or improve an assistant by preferences or rewards, as ``config.stage`` says,
    from the run ``parent`` into ``folder``, or continue there (``resume``).

    Raises:
        ValueError: data, folder or settings do not fit together.
        Interrupted: a signal asked to stop; everything is saved.
    """
    if parent is None and not resume:
        raise ValueError("say which assistant to start from: --init-from RUN")
    tokenizer = parent.tokenizer if parent else load_tokenizer(folder.path / "tokenizer.json")
    if not speaks_chat(tokenizer):
        started_from = parent.path if parent else folder.path
        raise ValueError(f"the run {started_from} does not speak chat yet; finetune it first: `understudy sft`")
    return _train(config, folder, resume, parent, MATERIALS[config.stage](config, tokenizer))


MATERIALS: dict[str, Callable[[RunConfig, Tokenizer], StageData]] = {
    "reward": reward_material,
    "dpo": dpo_material,
    "ppo": lambda config, tokenizer: rollout_material(config, tokenizer, ppo_course),
    "grpo": lambda config, tokenizer: rollout_material(config, tokenizer, grpo_course),
}
"""How the later stages open their data."""


def train_once(
    tree: Mapping[str, Any], folder: RunFolder, start: RunFolder | None, stage: Callable[..., Result]
) -> bool:
    """One stage of several that follow each other: from raw settings and, where given, the run to start from. What is
    done already is left be, and what was interrupted goes on.

    Returns:
        Whether there was anything to do.
    """
    if folder.exists() and folder.steps() and folder.steps()[-1] >= folder.config().train.steps:
        return False
    if folder.exists():
        stage(folder.config(), folder, True, None)
        return True
    parent = load_run(start.path) if start else None
    tree = {**tree, "init_from": str(start.path)} if start else tree
    stage(config_from_parent(tree, parent) if parent else build_config(tree), folder, False, parent)
    return True
