"""A run that starts from another one: which settings it takes over, and how its weights begin.

Not here: resuming the same run (checkpoint.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from understudy.config.load import build_config
from understudy.config.model import ModelConfig
from understudy.config.run import RunConfig
from understudy.config.stages import DEFAULT_STAGE, stage_info
from understudy.model import merge_lora
from understudy.run import Run, RunFolder, load_run
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import with_chat_tokens

FREE = ("context_length", "dropout", "lora", "ngram_dropout", "score_head")
"""Model settings in which a run may differ from its parent."""


def model_from_parent(raw: dict[str, Any], parent: ModelConfig, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """The model settings of a run that starts from ``parent``: the parent's shape, with what may change changed.

    Args:
        tokenizer: where it has more tokens than the parent, the vocabulary grows to them.

    Raises:
        ValueError: ``raw`` sets the shape to something else.
    """
    shape = parent.model_dump(mode="json", exclude_none=True)
    shape.pop("lora", None)  # adapters of the parent are merged into its weights
    if tokenizer and parent.vocab_size and tokenizer.vocab_size > parent.vocab_size:
        shape["vocab_size"] = tokenizer.vocab_size
    for name, value in raw.items():
        value = list(value) if isinstance(value, tuple) else value
        if value is not None and name not in FREE and shape.get(name) != value:
            raise ValueError(
                f"model.{name} is {value!r}, and the run to start from has {shape.get(name)!r}; leave model settings out, "
                f"or change only {', '.join(FREE)}"
            )
    merged = shape | {name: value for name, value in raw.items() if value is not None}
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
    """The raw settings of a run that starts from ``parent``, resolved; sft adds the tokens of the chat format.

    Raises:
        ValueError: settings that do not fit the parent or each other.
    """
    stage = tree.get("stage") or DEFAULT_STAGE
    info = stage_info(stage)
    tokenizer = with_chat_tokens(parent.tokenizer) if info.adds_chat_tokens else parent.tokenizer
    settings = {**(tree.get("model") or {}), "score_head": info.score_head(tree.get(stage) or {})}
    if not info.trains_with_dropout:  # the parent's dropout is not inherited
        settings = {"dropout": 0.0} | ({"ngram_dropout": 0.0} if parent.config.model.ngram_orders else {}) | settings
    model = model_from_parent(settings, parent.config.model, tokenizer)
    return build_config({**tree, "model": model})


def resumed_model(raw: dict[str, Any], saved: ModelConfig) -> dict[str, Any]:
    """The model settings of a run that started from another one and goes on, with what is said anew laid over them."""
    said = {name: value for name, value in raw.items() if value is not None}
    merged = saved.model_dump(mode="json", exclude_none=True)
    if said.get("lora"):
        said["lora"] = merged.get("lora", {}) | {name: v for name, v in said["lora"].items() if v is not None}
    return merged | said


def start_from(model: nn.Module, parent: Run, tokenizer: Tokenizer) -> list[str]:
    """Give ``model`` the parent's weights; returns what there is to say of it.

    The parent's adapters are merged first. Tokens that the parent has not, which come after its own, start as the mean
    of all that it has (Hewitt 2021), in each table that has a row for each token.
    """
    merge_lora(parent.model)
    weights = dict(parent.model.named_parameters())
    held = parent.tokenizer.vocab_size
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("lora_a", "lora_b")) or name not in weights:  # a score head is new at times
                continue
            source = weights[name]
            if name == "position_embedding.weight":
                parameter.copy_(source[: len(parameter)])
            elif tokenizer.vocab_size > held and parameter.ndim == 2 and _has_a_row_for_each_token(name):
                _grow(parameter, source, held, tokenizer.vocab_size)
            else:
                parameter.copy_(source)
    if tokenizer.vocab_size == held:
        return []
    added = list(tokenizer.special_tokens)[-(tokenizer.vocab_size - held) :]
    return [f"tokenizer: {' and '.join(added)} added; their embeddings start as the mean of the others"]


def load_reference(folder: RunFolder) -> Run:
    """The run that a run started from, its model a copy that nothing else changes.

    Raises:
        ValueError: it is not there any more, or is not what it was.
    """
    parent = folder.about()["parent"]
    start = load_run(parent["run"])
    if start.state["weights_sha256"] != parent["sha256"]:
        raise ValueError(f"the run {parent['run']} is not any more what {folder.path} started from; bring it back")
    return start


def _has_a_row_for_each_token(name: str) -> bool:
    return name.endswith(("token_embedding.weight", "value_embedding.weight")) or name == "head.weight"


def _grow(parameter: Tensor, source: Tensor, held: int, wanted: int) -> None:
    """Fill a table (V, D) from a smaller one: its rows, the mean of those for what is new, zeros for padding."""
    parameter.zero_()
    parameter[:held] = source[:held]
    parameter[held:wanted] = source[:held].mean(dim=0)
