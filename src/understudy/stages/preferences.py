"""The data of the stages that learn from preferences."""

from __future__ import annotations

from typing import Any

import torch

from understudy.config import RunConfig
from understudy.data.chat.pair_rows import RenderedPairs, Unit, render_pairs
from understudy.data.chat.preferences import open_preferences
from understudy.data.loader import Batch
from understudy.tokenizer import Tokenizer
from understudy.train.stage import present_data


def open_pairs(config: RunConfig, tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, RenderedPairs]]:
    """Both splits of the preferences, as they lie there and rendered; validation as far as eval.max_tokens goes."""
    path = present_data(config)
    opened = {split: open_preferences(path, split) for split in ("train", "val")}
    rendered = {split: render_pairs(each, tokenizer, config.model.context_length) for split, each in opened.items()}
    if most := config.eval.max_tokens:
        val, tokens = rendered["val"], 0
        kept: list[Unit] = []
        for unit in val.units:
            tokens += sum(len(document.tokens) for document in unit.documents)
            if kept and tokens > most:
                break
            kept.append(unit)
        rendered["val"] = RenderedPairs(kept, sum(len(unit.documents) for unit in kept), val.cut, val.too_long)
    return opened, rendered


def about_pairs(opened: dict[str, Any], rendered: dict[str, RenderedPairs]) -> dict[str, Any]:
    """What run.json says of preferences."""
    counts = {
        f"{split}_{what}": getattr(each, what) if what != "prompts" else len(each.units)
        for split, each in rendered.items()
        for what in ("prompts", "pairs", "tokens")
    }
    return {"path": str(opened["train"].path), "sha256": opened["train"].sha256, **counts}


def weighted_pairs(
    batch: Batch, loss: torch.Tensor, reverse: torch.Tensor, difference: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The summed loss over pairs, and how many are the right way round.

    Args:
        loss, reverse: (P,) the loss of each pair, and of the same turned round; a tie is half of each.
        difference: (P,) by how much the better one is rated better; a tie counts as half right, and so does 0.
    """
    tie, weight = batch["tie"], batch["weight"]
    each = torch.where(tie, (loss + reverse) / 2, loss)
    right = torch.where(tie, 0.5, (difference.sign() + 1) / 2)
    return (each * weight).sum(), {"accuracy": (right * weight).sum()}
