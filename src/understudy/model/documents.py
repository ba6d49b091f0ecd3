"""Several documents in a row: where each token stands in its own, and what it may see.

Shapes: B batch, T time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.losses import PADDING


class Division(NamedTuple):
    """How many neighbouring rows are divided alike, and the lengths of their documents, which add up to T."""

    rows: int
    lengths: list[int]


def divided(documents: Tensor) -> list[Division]:
    """How rows (B, T) fall into documents, each with the padding after it, which it does not see."""
    begins = (documents[:, 1:] != documents[:, :-1]) & (documents[:, 1:] != PADDING)
    found: list[Division] = []
    for row in begins:
        ends = [*(row.nonzero()[:, 0] + 1).tolist(), documents.shape[1]]
        lengths = [end - start for start, end in zip([0, *ends], ends)]
        if found and found[-1].lengths == lengths:
            found[-1] = Division(found[-1].rows + 1, lengths)
        else:
            found.append(Division(1, lengths))
    return found


def within_documents(documents: Tensor) -> tuple[Tensor, Tensor]:
    """For (B, T) numbers of documents: the position of each token in its own (B, T), and the mask (B, 1, T, T) that
    lets it see that one's tokens up to itself."""
    places = torch.arange(documents.shape[1], device=documents.device)
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    positions = (places - (places * begins).cummax(dim=1).values).masked_fill(documents == PADDING, 0)
    same = documents[:, :, None] == documents[:, None, :]
    return positions, (same & (places <= places[:, None]))[:, None]


def within_branches(documents: Tensor, branches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`within_documents`, for documents that branch (both (B, T)); beside positions and mask the place (B, T)
    of the token before each, which for the first of a branch is the last that all have in common."""
    places = torch.arange(documents.shape[1], device=documents.device)
    new_document = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    new_branch = new_document | F.pad(branches[:, 1:] != branches[:, :-1], (1, 0), value=True)
    forks = new_branch & (branches > 0) & ~new_document & (F.pad(branches[:, :-1], (1, 0)) == 0)
    begin, own, fork = ((places * each).cummax(dim=1).values for each in (new_document, new_branch, forks))
    common = branches == 0
    positions = torch.where(common, places - begin, fork - begin + places - own)
    positions = positions.masked_fill(documents == PADDING, 0)  # of which there may be more than the context holds
    before = torch.where(~common & (places == own), fork, places) - 1
    same = documents[:, :, None] == documents[:, None, :]
    seen = common[:, None, :] | (branches[:, :, None] == branches[:, None, :])
    return positions, (same & seen & (places <= places[:, None]))[:, None], before.clamp(min=0)
