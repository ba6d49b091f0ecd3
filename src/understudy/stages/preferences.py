"""The data of the stages that learn from preferences."""

from __future__ import annotations

from typing import Any

import torch

from understudy.config.run import RunConfig
from understudy.data.chat.pair_rows import RenderedPairs, Unit, render_pairs
from understudy.data.chat.preferences import open_preferences
from understudy.data.loader import Batch
from understudy.tokenizer import Tokenizer
from understudy.train.stage import existing_data


class PreferenceData:
    """Both splits of the preferences, as they lie there and rendered; validation as far as eval.max_tokens goes.

    Raises:
        ValueError: no such data, or nothing in it to train on.
    """

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        path, length = existing_data(config), config.model.context_length
        self.opened = {split: open_preferences(path, split) for split in ("train", "val")}
        self.rendered = {split: render_pairs(each, tokenizer, length) for split, each in self.opened.items()}
        if most := config.eval.max_tokens:
            val, tokens = self.rendered["val"], 0
            units: list[Unit] = []
            for unit in val.units:
                tokens += sum(len(document.tokens) for document in unit.documents)
                if units and tokens > most:
                    break
                units.append(unit)
            n_documents = sum(len(unit.documents) for unit in units)
            self.rendered["val"] = RenderedPairs(units, n_documents, val.cut, val.too_long)

    def summary(self) -> dict[str, Any]:
        """What run.json says of them."""
        counts = {
            f"{split}_{what}": getattr(each, what) if what != "prompts" else len(each.units)
            for split, each in self.rendered.items()
            for what in ("prompts", "pairs", "tokens")
        }
        train = self.opened["train"]
        return {"path": str(train.path), "sha256": train.sha256, **counts}

    def notes(self) -> list[str]:
        return [f"{split}: {each}" for split, each in self.rendered.items()]


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
