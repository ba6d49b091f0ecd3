"""Runs that start from another run, their parent: inherited settings, and initial weights.

Resuming the same run is in checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from understudy.config.load import build_config
from understudy.config.model import ModelConfig
from understudy.config.run import RunConfig
from understudy.config.stages import DEFAULT_STAGE, stage_info
from understudy.model import GPT, Bigram, merge_lora
from understudy.run import Run, RunFolder, load_run, refuse_reward_model
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import with_chat_tokens

FREE = ("context_length", "dropout", "lora", "ngram_dropout", "score_head")
"""Model settings that a run may set to other values than its parent's."""
TOKEN_TABLES = ("token_embedding.weight", "value_embedding.weight", "head.weight")
"""Ends of the names of weights that have a row for each token."""


def model_from_parent(raw: dict[str, Any], parent: ModelConfig, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """The model settings of a run that starts from ``parent``: the parent's, and those of ``raw`` that are in FREE.

    Args:
        tokenizer: if it has more tokens than the parent, the vocabulary grows to its size.

    Raises:
        ValueError: ``raw`` sets the shape to something else.
    """
    shape = parent.model_dump(mode="json", exclude_none=True)
    shape.pop("lora", None)  # adapters of the parent are merged into its weights
    if tokenizer and parent.vocab_size and tokenizer.vocab_size > parent.vocab_size:
        shape["vocab_size"] = tokenizer.vocab_size
        if shape.get("embedding_rows", tokenizer.vocab_size) < tokenizer.vocab_size:
            shape.pop("embedding_rows")
    given = {n: list(v) if isinstance(v, tuple) else v for n, v in raw.items() if v is not None}
    for name, value in given.items():
        if name not in FREE and shape.get(name) != value:
            raise ValueError(
                f"model.{name} is {value!r}, and the run to start from has {shape.get(name)!r}; leave model settings out, "
                f"or change only {', '.join(FREE)}"
            )
    merged = shape | given
    if merged["context_length"] > parent.context_length and parent.position == "learned":
        raise ValueError(
            f"model.context_length {merged['context_length']} exceeds the {parent.context_length} positions that the run to "
            "start from has learned; choose at most that"
        )
    if merged.get("lora") and merged["lora"].get("embeddings") is None:
        grown = tokenizer is not None and tokenizer.vocab_size > (parent.vocab_size or 0)
        merged["lora"] = merged["lora"] | {"embeddings": grown}
    return merged


def config_from_parent(tree: Mapping[str, Any], parent: Run) -> RunConfig:
    """The configuration of a run that starts from ``parent``, from raw settings. sft adds the tokens of the chat format.

    Raises:
        ValueError: settings that do not fit the parent or each other, or a parent that is a reward model.
    """
    stage = tree.get("stage") or DEFAULT_STAGE
    info = stage_info(stage)
    if info.generates:
        refuse_reward_model(parent)
    tokenizer = with_chat_tokens(parent.tokenizer) if info.adds_chat_tokens else parent.tokenizer
    settings = {**(tree.get("model") or {}), "score_head": info.score_head(tree.get(stage) or {})}
    if not info.trains_with_dropout:  # the parent's dropout is not inherited
        settings = {"dropout": 0.0} | ({"ngram_dropout": 0.0} if parent.config.model.ngram_orders else {}) | settings
    model = model_from_parent(settings, parent.config.model, tokenizer)
    return build_config({**tree, "model": model})


def resumed_model(raw: dict[str, Any], saved: ModelConfig) -> dict[str, Any]:
    """The model settings of a resumed run that started from another run: the saved ones, overridden by ``raw``."""
    given = {name: value for name, value in raw.items() if value is not None}
    merged = saved.model_dump(mode="json", exclude_none=True)
    if given.get("lora"):
        given["lora"] = merged.get("lora", {}) | {name: v for name, v in given["lora"].items() if v is not None}
    return merged | given


def start_from(model: GPT | Bigram, parent: Run, tokenizer: Tokenizer) -> list[str]:
    """Copy the parent's weights into ``model``; returns lines to show.

    The parent's adapters are merged first. Added tokens come after the parent's, and their rows start as the mean of the
    parent's rows (Hewitt 2021).
    """
    merge_lora(parent.model)
    weights = dict(parent.model.named_parameters())
    parent_tokens = parent.tokenizer.vocab_size
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("lora_a", "lora_b")) or name not in weights:  # new adapters, a new score head
                continue
            source = weights[name]
            if tokenizer.vocab_size > parent_tokens and name.endswith(TOKEN_TABLES):
                parameter.zero_()  # the padding
                parameter[:parent_tokens] = source[:parent_tokens]
                parameter[parent_tokens : tokenizer.vocab_size] = source[:parent_tokens].mean(dim=0)
            else:  # the context may be shorter than the parent's
                parameter.copy_(source[: len(parameter)])
    notes = []
    before, after = parent.config.model.context_length, model.config.context_length
    if before != after:
        notes.append(f"context: this run reads {after:,} tokens; the run it starts from reads {before:,}")
    if tokenizer.vocab_size == parent_tokens:
        return notes
    added = list(tokenizer.special_tokens)[-(tokenizer.vocab_size - parent_tokens) :]
    return [*notes, f"tokenizer: {' and '.join(added)} added; their embeddings start as the mean of the others"]


def load_reference(folder: RunFolder) -> Run:
    """The parent of a run, loaded as a separate model: the reference model.

    Raises:
        ValueError: it is missing, or has changed since.
    """
    parent = folder.record()["parent"]
    reference = load_run(parent["run"])
    if reference.state["weights_sha256"] != parent["sha256"]:
        raise ValueError(
            f"the run {parent['run']} has other weights than when {folder.path} started from it; restore it from a copy"
        )
    return reference
