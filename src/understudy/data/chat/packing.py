"""Packing: conversations as token ids, cut or dropped if too long, several to a row.

The rows of an epoch are a pure function of seed and epoch, and a sample is one of seed and index, as in loader.py. Not
here: the chat format (tokenizer/chat.py), files (conversations.py).

Rows of completions share the tokens of their prompts. A prefix tree is a prefix and the suffixes that continue it, its branches. Trees are packed into rows. With the prompt
``P`` and its completions ``a`` and ``b``, and the prompt ``Q`` and its completion ``c``:

    tokens      P  P  P  a  a  b  b  b  Q  Q  c  c  0
    documents   0  0  0  0  0  0  0  0  1  1  1  1 -1    the tree; PADDING after the last
    branch_ids  0  0  0  1  1  2  2  2  0  0  1  1  0    0: the prefix; 1, 2, ...: its branches

A token attends to its prefix and to the earlier tokens of its own branch, at the positions it has in its own sequence.
Hidden states are those of separate sequences, and the prompt is computed once. Not here: the mask (model/).

Shapes: B batch or rows, T time, N tokens of all conversations, C conversations.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from understudy.data.loader import Batch, mix, permute
from understudy.losses import IGNORE, PADDING
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, RefusedConversation, Rendered, render_each

RENDER_BATCH = 2048
"""Conversations rendered together: enough to keep several cores busy."""


@dataclass
class PackingCounts:
    """Counts of conversations that were kept whole, cut and dropped."""

    conversations: int = 0
    whole: int = 0
    cut_at_a_turn: int = 0
    """Too long: their last turns were removed."""
    cut_inside: int = 0
    """Too long with one turn: the beginning of the question, or the end of the answer, was removed."""
    too_long: int = 0
    """Dropped, because they are too long."""
    without_answer: int = 0
    """Dropped, because they have no token to train on."""
    refused_by_the_chat_template: int = 0
    """Dropped, such as those with a system message where the template knows none."""

    def __str__(self) -> str:
        parts = [f"{self.conversations:,} conversations, {self.whole:,} of them whole"]
        parts += [
            f"{count:,} {field.replace('_', ' ')}"
            for field, count in dataclasses.asdict(self).items()
            if count and field not in ("conversations", "whole")
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class RenderedSet:
    """Conversations end to end.

    Attributes:
        tokens, mask: (N,) token ids, and whether each is trained on.
        starts: (C + 1,) the index of the first token of each conversation.
        weights: (C,) how many times an epoch shows each.
    """

    tokens: np.ndarray
    mask: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    counts: PackingCounts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def limit(self, max_tokens: int | None) -> RenderedSet:
        """The first conversations, at least one, of at most ``max_tokens`` in all; None: all of them."""
        if max_tokens is None:
            return self
        count = max(1, int(np.searchsorted(self.starts, max_tokens, side="right")) - 1)
        tokens = slice(self.starts[count])
        return dataclasses.replace(
            self, tokens=self.tokens[tokens], mask=self.mask[tokens], starts=self.starts[: count + 1],
            weights=self.weights[:count],
        )  # fmt: skip

    def row(self, conversation: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets (length - 1,) of one conversation; IGNORE at tokens that are not trained on."""
        span = slice(self.starts[conversation], self.starts[conversation + 1])
        tokens = self.tokens[span].astype(np.int64)
        return tokens[:-1], np.where(self.mask[span][1:], tokens[1:], IGNORE)


def render_set(
    conversations: Iterable[Sequence[Message]],
    tokenizer: Tokenizer,
    context_length: int,
    too_long: str = "cut",
    weights: np.ndarray | None = None,
    split: str = "train",
) -> RenderedSet:
    """Render the conversations of a split for rows of ``context_length`` tokens.

    A conversation longer than a row loses its last turns until it fits (``too_long`` "cut") or is dropped ("drop").
    If even its first answer does not fit, the beginning of the question and the end of the answer are cut: the answer
    gets half of the row, and more if the question leaves room.

    Raises:
        ValueError: a message that cannot be rendered, or no conversation that fits.
    """
    counts, max_tokens = PackingCounts(), context_length + 1  # the last token of a conversation is a target only
    tokens: list[np.ndarray] = []
    mask: list[np.ndarray] = []
    numbers: list[int] = []
    remaining = iter(conversations)
    while batch := list(islice(remaining, RENDER_BATCH)):
        for rendered in render_each(tokenizer, batch):
            counts.conversations += 1
            if isinstance(rendered, RefusedConversation):
                counts.refused_by_the_chat_template += 1
                continue
            fitted = fit_to_row(rendered, max_tokens, too_long, counts)
            if fitted is not None:
                tokens.append(np.array(fitted.tokens, dtype=np.uint32))
                mask.append(np.array(fitted.mask, dtype=bool))
                numbers.append(counts.conversations - 1)
    if not tokens:
        raise nothing_fits("conversation", split, counts, ", or data.too_long cut" if too_long == "drop" else "")
    starts = np.cumsum([0, *map(len, tokens)])
    weights = np.ones(counts.conversations) if weights is None else weights
    return RenderedSet(np.concatenate(tokens), np.concatenate(mask), starts, weights[numbers], counts)


def nothing_fits(noun: str, split: str, counts: object, further_advice: str = "") -> ValueError:
    """The error for a split of which no conversation or preference fits the context."""
    if split == "val":
        return ValueError(
            f"no {noun} of the validation split fits ({counts}); choose a longer model.context_length{further_advice}, or "
            "prepare it again with more data or a larger --val-fraction"
        )
    return ValueError(f"no {noun} is left to train on ({counts}); choose a longer model.context_length{further_advice}")


def fit_to_row(rendered: Rendered, max_tokens: int, too_long: str, counts: PackingCounts) -> Rendered | None:
    """The conversation as at most ``max_tokens``, or None if it is dropped; ``counts`` is updated."""
    tokens, mask = rendered.tokens, rendered.mask
    if not any(mask):
        counts.without_answer += 1
        return None
    if len(tokens) <= max_tokens:
        counts.whole += 1
        return rendered
    if too_long == "drop":
        counts.too_long += 1
        return None
    answer_ends = [i + 1 for i in range(len(mask)) if mask[i] and not (i + 1 < len(mask) and mask[i + 1])]
    fitting = [end for end in answer_ends if end <= max_tokens]
    if fitting:
        counts.cut_at_a_turn += 1
        return _select(rendered, range(fitting[-1]))
    counts.cut_inside += 1
    answer_start = mask.index(True)
    answer_length = min(answer_ends[0] - answer_start, max(max_tokens // 2, max_tokens - answer_start))
    answer_stop = answer_start + answer_length
    before = [span for span in rendered.contents if span.stop < answer_start]
    question = max(before, key=lambda span: span.stop, default=range(0))
    header = range(question.start) if question.start <= max_tokens // 4 else range(0)
    first = min(question.stop, max(question.start, answer_stop - max_tokens + len(header)))
    return _select(rendered, header, range(first, answer_stop))


def _select(rendered: Rendered, *spans: range) -> Rendered:
    """Only the tokens of these spans of a conversation."""
    indices = [index for span in spans for index in span]
    return Rendered([rendered.tokens[index] for index in indices], [rendered.mask[index] for index in indices], [])


class PackedRows:
    """Rows of ``context_length`` tokens, each of whole conversations, shuffled anew each epoch.

    Packing is best-fit: each conversation goes where it leaves the least room (Ding et al. 2024). Every row has a
    target, since every conversation has one.

    Args:
        pack: False for one conversation a row.
    """

    def __init__(self, conversations: RenderedSet, context_length: int, seed: int, pack: bool = True) -> None:
        self.conversations, self.context_length, self.seed, self.pack = conversations, context_length, seed, pack
        self._epoch_starts = [0]  # the index of the first sample of each epoch planned so far, and of the next one
        self._planned: tuple[int, list[list[int]]] = (-1, [])  # one epoch and its rows

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size``: tokens, targets and documents, each (B, T)."""
        return collate(
            [self._row(index) for index in range(first, first + size)], self.conversations, self.context_length
        )

    def epoch(self, number: int) -> list[list[int]]:
        """The rows of an epoch, each a list of indices of conversations."""
        if self._planned[0] != number:
            self._planned = number, self._plan(number)
        return self._planned[1]

    def _row(self, index: int) -> list[int]:
        starts = self._epoch_starts
        while index >= starts[-1]:
            starts.append(starts[-1] + len(self.epoch(len(starts) - 1)))
        number = bisect.bisect_right(starts, index) - 1
        return self.epoch(number)[index - starts[number]]

    def _plan(self, epoch: int) -> list[list[int]]:
        chosen = self._shown(epoch)
        order = chosen[permute(np.arange(len(chosen)), len(chosen), self._key(epoch, 0))]
        lengths = np.diff(self.conversations.starts) - 1
        rows = pack_best_fit(lengths[order], self.context_length) if self.pack else [[n] for n in range(len(order))]
        shuffled = permute(np.arange(len(rows)), len(rows), self._key(epoch, 1))
        return [[int(order[index]) for index in rows[row]] for row in shuffled]

    def _shown(self, epoch: int) -> np.ndarray:
        """Indices of the conversations of an epoch, each as often as its weight; the fraction is drawn each epoch."""
        weights = self.conversations.weights
        times = np.floor(weights).astype(np.int64)
        drawn = mix(np.arange(len(weights), dtype=np.uint64), self._key(epoch, 2)) / 2.0**64
        times += drawn < weights - times
        shown = np.repeat(np.arange(len(weights)), times)
        return shown if len(shown) else np.arange(1)  # small weights may leave an epoch empty

    def _key(self, epoch: int, use: int) -> np.uint64:
        return np.uint64(mix(np.uint64(3 * epoch + use), np.uint64(self.seed)))


def pack_best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Rows of indices into ``lengths`` (C,), each row summing to at most ``capacity``. In order, each goes to the fullest
    row that has room."""
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, row), sorted
    for index, length in enumerate(lengths.tolist()):
        assert length <= capacity, f"a conversation of {length} tokens in rows of {capacity}"
        best = bisect.bisect_left(rooms, (length, 0))
        if best < len(rooms):
            room, row = rooms.pop(best)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        if room - length > 1:  # the shortest conversation takes two
            bisect.insort(rooms, (room - length, row))
    return rows


def collate(rows: Sequence[Sequence[int]], conversations: RenderedSet, context_length: int) -> Batch:
    """A batch of rows.

    Returns:
        ``tokens``, ``targets`` and ``documents`` (B, T), where ``documents`` numbers the conversations of a row from 0 and
        is PADDING after the last; ``places`` (M,), the places in B x T that have a target.
    """
    shape = (len(rows), context_length)
    tokens, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
    documents = np.full(shape, PADDING, dtype=np.int64)
    for row, members in enumerate(rows):
        start = 0
        for document, conversation in enumerate(members):
            row_inputs, row_targets = conversations.row(conversation)
            span = slice(start, start + len(row_inputs))
            tokens[row, span], targets[row, span], documents[row, span] = row_inputs, row_targets, document
            start = span.stop
    arrays = {"tokens": tokens, "targets": targets, "documents": documents}
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    batch["places"] = torch.from_numpy(np.flatnonzero(targets != IGNORE))
    return batch


def all_rows(
    conversations: RenderedSet, context_length: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """For evaluation: every conversation once, packed in order; every ``world_size``-th batch from ``rank`` on."""
    rows = pack_best_fit(np.diff(conversations.starts) - 1, context_length)
    for start in range(0, len(rows), batch_size)[rank::world_size]:
        yield collate(rows[start : start + batch_size], conversations, context_length)


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
