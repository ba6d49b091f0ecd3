"""Conversations as rows to train on: rendered to tokens, cut or dropped where too long, packed several to a row.

Which conversations stand in which row is a pure function of seed and epoch, and the sample with a given index of seed
and index alone, as in loader.py. Not here: the chat format (tokenizer/chat.py), files (conversations.py).

Shapes: B batch, T time, N tokens of all conversations, C conversations.
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
from understudy.tokenizer.chat import Message, Rendered, render_all

AT_ONCE = 2048
"""Conversations rendered together: enough to keep several cores busy."""


@dataclass
class Counts:
    """What became of the conversations on their way into rows."""

    conversations: int = 0
    whole: int = 0
    cut_at_a_turn: int = 0
    """Too long, and went on without their last turns."""
    cut_inside: int = 0
    """Too long with one turn already: the beginning of the question, or the end of the answer, was left out."""
    too_long: int = 0
    """Dropped for their length."""
    without_answer: int = 0
    """Dropped, since nothing in them would be trained on."""

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
    """Conversations end to end: ``tokens`` and ``mask`` (N,), and where each begins, ``starts`` (C + 1,).

    ``weights`` (C,): how many times an epoch shows each.
    """

    tokens: np.ndarray
    mask: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    counts: Counts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def first(self, most_tokens: int | None) -> RenderedSet:
        """The first conversations, one at least, that have ``most_tokens`` together; all for None."""
        if most_tokens is None:
            return self
        count = max(1, int(np.searchsorted(self.starts, most_tokens, side="right")) - 1)
        tokens = slice(self.starts[count])
        return dataclasses.replace(
            self, tokens=self.tokens[tokens], mask=self.mask[tokens], starts=self.starts[: count + 1],
            weights=self.weights[:count],
        )  # fmt: skip

    def row(self, conversation: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets (length - 1,) of one conversation; IGNORE where nothing is learnt."""
        piece = slice(self.starts[conversation], self.starts[conversation + 1])
        tokens = self.tokens[piece].astype(np.int64)
        return tokens[:-1], np.where(self.mask[piece][1:], tokens[1:], IGNORE)


def render_set(
    conversations: Iterable[Sequence[Message]],
    tokenizer: Tokenizer,
    context_length: int,
    too_long: str = "cut",
    weights: np.ndarray | None = None,
) -> RenderedSet:
    """Render conversations for rows of ``context_length`` tokens.

    A conversation longer than a row loses its last turns until it fits (``too_long`` "cut") or is dropped ("drop").
    Where even its first answer does not fit, the beginning of the question and the end of the answer are cut, at most
    half of the row being the answer unless there is room.

    Raises:
        ValueError: a message that cannot be rendered, or nothing left to train on.
    """
    counts, most = Counts(), context_length + 1  # the last token of a conversation is a target only
    tokens: list[np.ndarray] = []
    mask: list[np.ndarray] = []
    kept: list[int] = []
    todo = iter(conversations)
    while some := list(islice(todo, AT_ONCE)):
        for rendered in render_all(tokenizer, some):
            counts.conversations += 1
            fitted = fit_to_row(rendered, most, too_long, counts)
            if fitted is not None:
                tokens.append(np.array(fitted.tokens, dtype=np.uint32))
                mask.append(np.array(fitted.mask, dtype=bool))
                kept.append(counts.conversations - 1)
    if not tokens:
        raise ValueError(
            f"no conversation is left to train on ({counts}); choose a longer model.context_length, or data.too_long cut"
        )
    starts = np.cumsum([0, *map(len, tokens)])
    every = np.ones(counts.conversations) if weights is None else weights
    return RenderedSet(np.concatenate(tokens), np.concatenate(mask), starts, every[kept], counts)


def fit_to_row(rendered: Rendered, most: int, too_long: str, counts: Counts) -> Rendered | None:
    """The conversation as at most ``most`` tokens, or None where it is dropped; counts what happened."""
    tokens, mask = rendered.tokens, rendered.mask
    if not any(mask):
        counts.without_answer += 1
        return None
    if len(tokens) <= most:
        counts.whole += 1
        return rendered
    if too_long == "drop":
        counts.too_long += 1
        return None
    ends = [at + 1 for at in range(len(mask)) if mask[at] and not (at + 1 < len(mask) and mask[at + 1])]
    fitting = [end for end in ends if end <= most]
    if fitting:
        counts.cut_at_a_turn += 1
        return _pieces(rendered, range(fitting[-1]))
    counts.cut_inside += 1
    begin, end = mask.index(True), ends[0]
    answer = min(end - begin, max(most // 2, most - begin))
    asked = rendered.contents[[span.stop >= begin for span in rendered.contents].index(True) - 1]
    head = range(asked.start) if asked.start <= most // 4 else range(0)
    first = min(asked.stop, max(asked.start, begin + answer - most + len(head)))
    return _pieces(rendered, head, range(first, begin + answer))


def _pieces(rendered: Rendered, *pieces: range) -> Rendered:
    """Only these places of a conversation."""
    tokens = [rendered.tokens[place] for piece in pieces for place in piece]
    return Rendered(tokens, [rendered.mask[place] for piece in pieces for place in piece], [])


class PackedRows:
    """Rows of ``context_length`` tokens with whole conversations in them, shuffled anew each epoch.

    Packing is best-fit: each conversation goes where the least room is left over (Ding et al. 2024). Every row has at
    least one target, since every conversation has.

    Args:
        pack: False for one conversation a row.
    """

    def __init__(self, conversations: RenderedSet, context_length: int, seed: int, pack: bool = True) -> None:
        self.conversations, self.context_length, self.seed, self.pack = conversations, context_length, seed, pack
        self._epochs: list[list[list[int]]] = []  # the rows of each epoch so far

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size``: tokens, targets and documents, each (B, T)."""
        return collate(
            [self._row(index) for index in range(first, first + size)], self.conversations, self.context_length
        )

    def epoch(self, number: int) -> list[list[int]]:
        """The rows of an epoch, each the conversations in it."""
        while len(self._epochs) <= number:
            self._epochs.append(self._plan(len(self._epochs)))
        return self._epochs[number]

    def _row(self, index: int) -> list[int]:
        number = 0
        while index >= (size := len(self.epoch(number))):
            index, number = index - size, number + 1
        return self.epoch(number)[index]

    def _plan(self, epoch: int) -> list[list[int]]:
        chosen = self._shown(epoch)
        order = chosen[permute(np.arange(len(chosen)), len(chosen), self._key(epoch, 0))]
        lengths = np.diff(self.conversations.starts) - 1
        rows = pack_best_fit(lengths[order], self.context_length) if self.pack else [[n] for n in range(len(order))]
        shuffled = permute(np.arange(len(rows)), len(rows), self._key(epoch, 1))
        return [[int(order[place]) for place in rows[row]] for row in shuffled]

    def _shown(self, epoch: int) -> np.ndarray:
        """Conversations of an epoch: as often as the weight says, the fraction by a draw of each epoch."""
        weights = self.conversations.weights
        times = np.floor(weights).astype(np.int64)
        drawn = mix(np.arange(len(weights), dtype=np.uint64), self._key(epoch, 2)) / 2.0**64
        times += drawn < weights - times
        shown = np.repeat(np.arange(len(weights)), times)
        return shown if len(shown) else np.arange(1)  # tiny weights may leave an epoch empty

    def _key(self, epoch: int, use: int) -> np.uint64:
        return np.uint64(mix(np.uint64(3 * epoch + use), np.uint64(self.seed)))


def pack_best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Rows of places in ``lengths`` (C,), each summing to at most ``capacity``; in order, each to the fullest row that
    has room."""
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, row), sorted
    for place, length in enumerate(lengths.tolist()):
        assert length <= capacity, f"a conversation of {length} tokens in rows of {capacity}"
        at = bisect.bisect_left(rooms, (length, 0))
        if at < len(rooms):
            room, row = rooms.pop(at)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(place)
        if room - length > 1:  # the shortest conversation takes two
            bisect.insort(rooms, (room - length, row))
    return rows


@dataclass(frozen=True)
class Tree:
    """Documents that begin alike: what they have in common, and each way to go on."""

    trunk: Sequence[int]
    branches: list[Sequence[int]]

    def __len__(self) -> int:
        return len(self.trunk) + sum(map(len, self.branches))


def grow_trees(documents: Sequence[tuple[Sequence[int], Sequence[int]]], capacity: int) -> tuple[list[Tree], list[int]]:
    """Documents as (beginning, rest) with equal beginnings put together, as far as ``capacity`` tokens hold a tree.

    Returns:
        The trees, and the documents in the order in which their rests are the trees' branches.
    """
    members: dict[tuple[int, ...], list[list[int]]] = {}
    for number, (trunk, rest) in enumerate(documents):
        trees = members.setdefault(tuple(trunk), [])
        room = capacity - len(trunk) - sum(len(documents[n][1]) for n in trees[-1]) if trees else -1
        if room < len(rest):
            trees.append([])
        trees[-1].append(number)
    grown = [tree for trees in members.values() for tree in trees]
    built = [Tree(documents[tree[0]][0], [documents[number][1] for number in tree]) for tree in grown]
    return built, [number for tree in grown for number in tree]


def lay_in_rows(
    documents: Sequence[tuple[Sequence[int], Sequence[int]]], context_length: int
) -> tuple[Batch, list[torch.Tensor]]:
    """Documents as (beginning, rest), with what several begin with read once.

    Rows are as wide as costs least, where attention to W tokens costs W / 1536 of the rest, as it does in a model of
    width 256: narrow rows waste more room, wide rows more attention.

    Returns:
        ``tokens`` (B, T), the numbers of trees as ``documents`` with PADDING after the last, and ``branch_ids``; and for
        each document where in B x T it is read, from the last token of its beginning on: (1 + length of rest,).
    """
    trees, order = grow_trees(documents, 2 * context_length)
    lengths = np.array([len(tree) for tree in trees])
    longest = int(lengths.max())
    plans = [
        pack_best_fit(lengths, width) for width in sorted({longest, longest * 3 // 2, max(longest, context_length)})
    ]
    rows, width = min(
        ((plan, max(int(lengths[row].sum()) for row in plan)) for plan in plans),
        key=lambda found: len(found[0]) * found[1] * (1 + found[1] / 1536),
    )
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    numbers, branch_ids = np.full_like(tokens, PADDING), np.zeros_like(tokens)
    places: list[torch.Tensor] = []
    begins = {number: (place, at) for place, row in enumerate(rows) for number, at in zip(row, _offsets(lengths[row]))}
    for number, tree in enumerate(trees):
        place, at = begins[number]
        numbers[place, at : at + len(tree)] = number
        last = at + len(tree.trunk) - 1
        tokens[place, at : last + 1] = tree.trunk
        at = last + 1
        for branch, rest in enumerate(tree.branches, 1):
            tokens[place, at : at + len(rest)], branch_ids[place, at : at + len(rest)] = rest, branch
            places.append(torch.tensor([last, *range(at, at + len(rest))]) + place * width)
            at += len(rest)
    batch = {"tokens": torch.from_numpy(tokens), "documents": torch.from_numpy(numbers)}
    batch["branch_ids"] = torch.from_numpy(branch_ids)
    return batch, [place for _, place in sorted(zip(order, places), key=lambda pair: pair[0])]


def _offsets(lengths: np.ndarray) -> list[int]:
    return [0, *np.cumsum(lengths)[:-1].tolist()]


def collate(rows: Sequence[Sequence[int]], conversations: RenderedSet, context_length: int) -> Batch:
    """A batch of rows (B, T): ``documents`` numbers the conversations of a row from 0; what pads it is PADDING."""
    shape = (len(rows), context_length)
    tokens, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
    documents = np.zeros(shape, dtype=np.int64)
    for number, row in enumerate(rows):
        at = 0
        for document, conversation in enumerate(row):
            inputs, wanted = conversations.row(conversation)
            piece = slice(at, at + len(inputs))
            tokens[number, piece], targets[number, piece], documents[number, piece] = inputs, wanted, document
            at += len(inputs)
        documents[number, at:] = PADDING
    return {
        name: torch.from_numpy(part)
        for name, part in (("tokens", tokens), ("targets", targets), ("documents", documents))
    }


def all_rows(
    conversations: RenderedSet, context_length: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Every conversation once, packed in order, in batches that go round the processes: for evaluation."""
    rows = pack_best_fit(np.diff(conversations.starts) - 1, context_length)
    for number, first in enumerate(range(0, len(rows), batch_size)):
        if number % world_size == rank:
            yield collate(rows[first : first + batch_size], conversations, context_length)
