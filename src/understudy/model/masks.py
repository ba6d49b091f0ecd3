"""Attention contexts: where each token stands, and which keys its query attends to.

The caller builds one context per forward, by the constructor that fits its rows; all blocks read the same one:

    causal()                             each row is one document
    packed(documents)                    several documents to a row, none of which attends to another
    prefix_shared(documents, branch_ids) as packed, for documents of which several continue a shared prefix
    cached(cache, new_tokens)            rows that continue the rows of a KV cache

All take ``select``, the places whose hidden states are wanted. A new kind of attention is one more constructor.

Shapes: B batch, T time, M selected places, K head width.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from understudy.losses import PADDING
from understudy.model.kv_cache import KVCache

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""FlexAttention's mask function: whether query ``q`` of row ``b`` attends to key ``k``; the head is not looked at."""


class Division(NamedTuple):
    """Neighbouring rows divided alike: how many there are, and the lengths of their documents, which add up to T."""

    rows: int
    lengths: list[int]


@dataclass(frozen=True)
class AttentionContext:
    """Per-forward inputs shared by all blocks.

    Attributes:
        positions: (B, T) of each token in its document; None: 0, 1, 2, ... in every row.
        mask: (B, 1, T, keys), True where a query attends to a key, or the same as a BlockMask. None: causal, or one query
            that attends to all keys.
        prev_index: (B, T) where in its row the token before each one stands; None: to its left.
        per_document: how rows fall into documents, where attention may be computed one document at a time.
        cache: to which the tokens are added.
        select: (M,) places in B x T. The last block computes only these, and hidden states are (M, D).
        tokens: (B, T); like ``rope`` (2, [B, 1,] T, K) and ``key_shift`` filled in by the model.
    """

    positions: Tensor | None = None
    mask: Tensor | BlockMask | None = None
    prev_index: Tensor | None = None
    per_document: list[Division] | None = None
    cache: KVCache | None = None
    select: Tensor | None = None
    tokens: Tensor | None = None
    rope: Tensor | None = None
    key_shift: bool = False

    def earlier(self, x: Tensor, back: int, memory: Tensor | None = None, fill: int = 0) -> Tensor:
        """``x`` (B, T, ...) of the token ``back`` places before each one in its document; ``fill`` where there is none.

        Args:
            memory: with a cache, that which holds ``x`` of all tokens so far.
        """
        features = (1,) * (x.ndim - 2)
        if memory is not None and self.cache is not None and self.positions is not None:
            shifted = self.cache.read(memory, (self.positions - back).clamp(min=0))
        elif self.prev_index is not None:
            place = self.prev_index
            for _ in range(back - 1):
                place = self.prev_index.gather(1, place)
            shifted = x.gather(1, place.view(*place.shape, *features).expand_as(x))
        else:
            length = x.shape[1]
            shifted = F.pad(x[:, : max(0, length - back)], (0, 0) * len(features) + (min(back, length), 0), value=fill)
        if self.positions is None:
            return shifted
        return shifted.masked_fill((self.positions < back).view(*self.positions.shape, *features), fill)

    def selected(self, x: Tensor) -> Tensor:
        """The selected places (M, ...) of ``x`` (B, T, ...); all of it where none are selected."""
        return x if self.select is None else x.flatten(0, 1).index_select(0, self.select)


def causal(select: Tensor | None = None) -> AttentionContext:
    """Each token attends to itself and all tokens before it."""
    return AttentionContext(select=select)


def packed(documents: Tensor, select: Tensor | None = None) -> AttentionContext:
    """Several documents to a row: each token attends to its own document up to itself.

    Rows may be longer than the model's context, as long as no document is.

    Args:
        documents: (B, T), the same number for neighbours that belong together; PADDING after the last document.
    """
    per_document = divide(documents)
    if per_document is not None and all(len(division.lengths) == 1 for division in per_document):
        return causal(select)
    positions, mask = document_positions(documents), build_mask(document_mask(documents), documents)
    return AttentionContext(positions, mask, None, per_document, select=select)


def prefix_shared(documents: Tensor, branch_ids: Tensor, select: Tensor | None = None) -> AttentionContext:
    """As :func:`packed`, where a document is a prefix and several continuations, its branches.

    A branch attends to the prefix and to itself. Rows may be longer than the model's context, as long as no prefix
    together with one of its branches is.

    Args:
        branch_ids: (B, T), 0 for the prefix, and 1, 2, ... for the branches after it.
    """
    per_document = divide(documents)
    if per_document is not None and int(branch_ids.max()) < 2:  # no two branches: documents read from left to right
        context = packed(documents, select)
        if context.positions is None and bool((documents[:, -1] == PADDING).all()):
            return replace(context, positions=document_positions(documents))  # rows may be longer than the context
        return context
    positions, prev_index = branch_positions(documents, branch_ids)
    mask = build_mask(document_mask(documents, branch_ids), documents)
    return AttentionContext(positions, mask, prev_index, per_document, select=select)


def cached(cache: KVCache, new_tokens: int, select: Tensor | None = None) -> AttentionContext:
    """Rows of ``new_tokens`` tokens, each of which continues its row of ``cache`` and is added to it.

    Raises:
        ValueError: more tokens than the cache has room for.
    """
    end = cache.longest + new_tokens
    if end > cache.max_tokens:
        raise ValueError(f"{end} tokens do not fit the context of {cache.max_tokens}; pass the last ones only")
    positions, mask = cache.positions(new_tokens), None
    if cache.longest and not cache.attends_per_row(new_tokens):
        mask = (torch.arange(end, device=positions.device) <= positions[:, :, None])[:, None]
    return AttentionContext(positions, mask, cache=cache, select=select)


def limit_to_window(context: AttentionContext, window: int) -> AttentionContext:
    """The context whose queries attend to the last ``window`` tokens only, themselves included; 0: no limit.

    A step of one token over a cache needs no mask: the cache gives it no more keys.
    """
    tokens, cache, mask = context.tokens, context.cache, context.mask
    if not window or tokens is None:
        return context
    rows, length = tokens.shape
    keys = length if cache is None else cache.longest + length
    if keys <= window or (cache is not None and cache.attends_per_row(length)):
        return context
    places = torch.arange(keys, device=tokens.device)[None]
    positions = places if context.positions is None else context.positions
    distance = positions[:, :, None] - (places if cache else positions)[:, None]  # (B or 1, T, keys)
    near = ((distance >= 0) & (distance < window))[:, None]
    if isinstance(mask, BlockMask):
        mask = dense_mask(mask.mask_mod, rows, length, tokens.device)
    if mask is None and cache is None:  # by places in the row, because the positions of padding are 0
        mask = (places[0, :, None] >= places)[None, None]
    return replace(context, mask=near if mask is None else near & mask, per_document=None)


def document_mask(documents: Tensor, branch_ids: Tensor | None = None) -> MaskMod:
    """The mask function of :func:`packed`, or with ``branch_ids`` of :func:`prefix_shared`."""

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        attends = (documents[b, q] == documents[b, k]) & (k <= q)
        if branch_ids is None:
            return attends
        return attends & ((branch_ids[b, k] == 0) | (branch_ids[b, q] == branch_ids[b, k]))

    return mask_mod


def build_mask(mask_mod: MaskMod, documents: Tensor) -> Tensor | BlockMask:
    """The mask for rows like ``documents`` (B, T): a BlockMask where FlexAttention has kernels, else a dense one."""
    rows, length = documents.shape
    if documents.is_cuda and importlib.util.find_spec("triton"):
        return create_block_mask(mask_mod, rows, None, length, length, documents.device)
    return dense_mask(mask_mod, rows, length, documents.device)


def dense_mask(mask_mod: MaskMod, rows: int, length: int, device: torch.device) -> Tensor:
    """``mask_mod`` of each query and key: (B, 1, T, T)."""
    b, places = torch.arange(rows, device=device)[:, None, None], torch.arange(length, device=device)
    return mask_mod(b, torch.zeros_like(b), places[:, None], places)[:, None]


def divide(documents: Tensor) -> list[Division] | None:
    """How rows (B, T) fall into documents, each with the padding after it, which it does not see.

    None where lengths are not at hand: on other devices than the CPU, which would have to be waited for, and while a
    graph is compiled.
    """
    if documents.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    begins = (documents[:, 1:] != documents[:, :-1]) & (documents[:, 1:] != PADDING)
    divisions: list[Division] = []
    for row in begins:
        ends = [*(row.nonzero()[:, 0] + 1).tolist(), documents.shape[1]]
        lengths = [end - start for start, end in zip([0, *ends], ends)]
        if divisions and divisions[-1].lengths == lengths:
            divisions[-1] = Division(divisions[-1].rows + 1, lengths)
        else:
            divisions.append(Division(1, lengths))
    return divisions


def document_positions(documents: Tensor) -> Tensor:
    """(B, T) the position of each token in its document; 0 for padding."""
    places = torch.arange(documents.shape[1], device=documents.device)
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    return (places - (places * begins).cummax(dim=1).values).masked_fill(documents == PADDING, 0)


def branch_positions(documents: Tensor, branch_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T) the position of each token in its prefix and branch, and (B, T) the place of the token before it, which for
    the first token of a branch is the last one of the prefix."""
    places = torch.arange(documents.shape[1], device=documents.device)
    new_document = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    new_branch = new_document | F.pad(branch_ids[:, 1:] != branch_ids[:, :-1], (1, 0), value=True)
    after_prefix = F.pad(branch_ids[:, :-1], (1, 0)) == 0
    first_branch = new_branch & (branch_ids > 0) & ~new_document & after_prefix  # where the prefix has just ended
    document, branch, fork = ((places * x).cummax(dim=1).values for x in (new_document, new_branch, first_branch))
    in_prefix = branch_ids == 0
    positions = torch.where(in_prefix, places - document, fork - document + places - branch)
    prev_index = torch.where(~in_prefix & (places == branch), fork, places) - 1
    return positions.masked_fill(documents == PADDING, 0), prev_index.clamp(min=0)
