"""Prefix sharing: rows in which the completions of one prompt share the tokens of the prompt.

A prefix tree is a prefix and the suffixes that continue it, its branches. Trees are packed into rows. With the prompt
``P`` and its completions ``a`` and ``b``, and the prompt ``Q`` and its completion ``c``:

    tokens      P  P  P  a  a  b  b  b  Q  Q  c  c  0
    documents   0  0  0  0  0  0  0  0  1  1  1  1 -1    the tree; PADDING after the last
    branch_ids  0  0  0  1  1  2  2  2  0  0  1  1  0    0: the prefix; 1, 2, ...: its branches

A token attends to its prefix and to the earlier tokens of its own branch, at the positions it has in its own sequence.
Hidden states are those of separate sequences, and the prompt is computed once. Not here: the mask (model/).

Shapes: B rows, T width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from understudy.data.chat.packing import pack_best_fit
from understudy.data.loader import Batch
from understudy.losses import PADDING


@dataclass(frozen=True)
class PrefixTree:
    """A prefix, and the suffixes that continue it. ``members``: the index of the sequence of each suffix."""

    prefix: Sequence[int]
    suffixes: list[Sequence[int]]
    members: list[int]

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.suffixes))


def build_prefix_trees(sequences: Sequence[tuple[Sequence[int], Sequence[int]]], capacity: int) -> list[PrefixTree]:
    """Group sequences, each a (prefix, suffix), by equal prefixes, into trees of at most ``capacity`` tokens.

    A sequence longer than ``capacity`` is a separate tree.
    """
    by_prefix: dict[tuple[int, ...], list[PrefixTree]] = {}
    for index, (prefix, suffix) in enumerate(sequences):
        trees = by_prefix.setdefault(tuple(prefix), [])
        if not trees or len(trees[-1]) + len(suffix) > capacity:
            trees.append(PrefixTree(prefix, [], []))
        trees[-1].suffixes.append(suffix)
        trees[-1].members.append(index)
    return [tree for trees in by_prefix.values() for tree in trees]


def pack_prefix_trees(
    sequences: Sequence[tuple[Sequence[int], Sequence[int]]], context_length: int
) -> tuple[Batch, list[torch.Tensor]]:
    """Pack sequences, each a (prefix, suffix) of at most ``context_length`` tokens, into rows that share prefixes.

    Of three widths the cheapest is taken, where attention in a row of W tokens costs W / 1536 of the other layers: narrow
    rows hold more padding, wide rows more attention.

    Returns:
        ``tokens``, ``documents`` and ``branch_ids`` (B, T); and for each sequence the places in B x T of the last token
        of its prefix and of its suffix, (1 + length of the suffix,).
    """
    trees = build_prefix_trees(sequences, 2 * context_length)
    lengths = np.array([len(tree) for tree in trees])
    longest = int(lengths.max())
    plans = [
        pack_best_fit(lengths, width) for width in sorted({longest, longest * 3 // 2, max(longest, context_length)})
    ]
    rows, width = min(
        ((plan, max(int(lengths[row].sum()) for row in plan)) for plan in plans),
        key=lambda plan: len(plan[0]) * plan[1] * (1 + plan[1] / 1536),
    )
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    documents, branch_ids = np.full_like(tokens, PADDING), np.zeros_like(tokens)
    places: list[torch.Tensor] = [torch.empty(0)] * len(sequences)
    for row, members in enumerate(rows):
        end = 0
        for document in members:
            tree, start = trees[document], end
            last_of_prefix = row * width + start + len(tree.prefix) - 1
            documents[row, start : start + len(tree)] = document
            end = start + len(tree.prefix)
            tokens[row, start:end] = tree.prefix
            for branch_id, (suffix, sequence) in enumerate(zip(tree.suffixes, tree.members), 1):
                start, end = end, end + len(suffix)
                tokens[row, start:end], branch_ids[row, start:end] = suffix, branch_id
                places[sequence] = torch.tensor([last_of_prefix, *range(row * width + start, row * width + end)])
    arrays = {"tokens": tokens, "documents": documents, "branch_ids": branch_ids}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, places
