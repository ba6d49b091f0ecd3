"""Attention kernels: softmax(q k^T / sqrt(K)) v, by the fastest kernel for the device, precision and mask.

    causal rows, cached rows, dense masks   scaled_dot_product_attention
    packed rows on a CPU                    the same, one document at a time
    bf16 on a CPU, few keys or one query    explicit products
    BlockMask (packed rows on CUDA)         FlexAttention (Dong et al. 2024)

Shapes: B batch, H heads, Hk key and value heads (H is a multiple), T time, K head width.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from understudy.model.masks import AttentionContext, Division, dense_mask
from understudy.model.positions import shift_keys

MAX_KEYS_FOR_MATMUL_ATTENTION = 512
"""On a CPU in bf16, use explicit products up to this many keys.

SDPA takes up to five times as long there (benchmarks/attention_bf16.py on two Zen 5 cores; the table is in
benchmarks/README.md).
"""
LENGTH_MULTIPLE = 64
"""With explicit products, documents are computed in lengths that are multiples of this: oneDNN compiles a product of a new
shape for about a millisecond, which took half of a small model's step."""
MIN_DOCUMENT_FOR_OWN_PRODUCT = 128
"""With explicit products, documents that are shorter than this on average share one product with all others of their row."""
FLEX_HEAD_WIDTHS = range(16, 257)
"""Head widths for which FlexAttention has CUDA kernels: tl.dot needs 16, shared memory ends after 256."""


def attend(q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
    """Attention output (B, H, T, K) of queries (B, H, T, K) over keys and values (B, Hk, keys, K)."""
    k, v = k.to(q.dtype), v.to(q.dtype)
    if context.key_shift:
        k = shift_keys(k, None if context.cache else context.positions, context.prev_index)
    mask = context.mask
    if isinstance(mask, BlockMask):
        if q.shape[-1] in FLEX_HEAD_WIDTHS:
            return attend_blocks(q, k, v, mask)
        mask = dense_mask(mask.mask_mod, len(q), q.shape[2], q.device)
    if context.per_document and not _in_one_product(q, k, context.per_document):
        return attend_per_document(q, k, v, mask if context.prev_index is not None else None, context.per_document)
    return dot_product_attention(q, k, v, mask)


def attend_cached(q: Tensor, held: Sequence[tuple[Tensor, Tensor]], context: AttentionContext) -> Tensor:
    """As :func:`attend`, over cached keys and values: of all rows together, or a pair for each row.

    With a pair for each row, a row's output does not depend on the rows beside it, to the bit.
    """
    outputs = [attend(rows, k, v, context) for rows, (k, v) in zip(q.split(len(q) // len(held)), held)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def attend_per_document(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, divisions: Sequence[Division]
) -> Tensor:  # fmt: skip
    """Causal attention within each document of a row, or under the part of ``mask`` (B, 1, T, T) that is its own."""
    rows = [division.rows for division in divisions]
    masks = [None] * len(rows) if mask is None else mask.split(rows)
    multiple = LENGTH_MULTIPLE if mask is None and _by_explicit_products(q, k) else 1
    outputs = []
    for division, part, *qkv in zip(divisions, masks, q.split(rows), k.split(rows), v.split(rows)):
        documents, start = [], 0
        spans = zip(division.lengths, *(_split_documents(x, division.lengths, multiple) for x in qkv))
        for length, one_q, one_k, one_v in spans:
            span_mask = None if part is None else part[..., start : start + length, start : start + length]
            documents.append(dot_product_attention(one_q, one_k, one_v, span_mask)[:, :, :length])
            start += length
        outputs.append(torch.cat(documents, dim=2))
    return torch.cat(outputs)


def _split_documents(x: Tensor, lengths: list[int], multiple: int) -> Sequence[Tensor]:
    """The part of ``x`` (B, H, T, K) of each document, with what follows it up to a multiple of so many tokens."""
    if multiple == 1:
        return x.split(lengths, dim=2)  # which has one backward pass for all documents
    x = F.pad(x, (0, 0, 0, multiple - 1))
    starts = itertools.accumulate(lengths, initial=0)
    return [x[:, :, start : start + -(-length // multiple) * multiple] for start, length in zip(starts, lengths)]


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask) -> Tensor:
    """FlexAttention, which skips the blocks of 128 x 128 scores that are masked; autocast does not know it."""
    dtype = _product_dtype(q)
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    grouped = q.shape[1] != k.shape[1]
    if torch.compiler.is_compiling():
        return flex_attention(q, k, v, block_mask=mask, enable_gqa=grouped)
    return compiled_flex_attention()(q, k, v, block_mask=mask, enable_gqa=grouped)


@functools.cache
def compiled_flex_attention() -> Callable[..., Any]:
    """FlexAttention without torch.compile would hold all scores."""
    return torch.compile(flex_attention)


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention under a dense mask (B, 1, T, keys); without one causal, or of one query over all keys."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        if q.shape[2] == 1:
            with torch.autocast("cpu", enabled=False):
                return dot_product_attention(q.float(), k.float(), v.float(), mask).to(q.dtype)
        if k.shape[2] <= MAX_KEYS_FOR_MATMUL_ATTENTION:
            weights = attention_weights(q, k, mask)
            return (_by_key_head(weights, v) @ v).view(q.shape)
    is_causal = mask is None and q.shape[2] == k.shape[2]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=q.shape[1] != k.shape[1]
    )


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights (B, H, T, keys) that each query of ``q`` (B, H, T, K) gives to the keys ``k`` (B, Hk, keys, K), under a
    mask (B, 1, T, keys); causal without one. Each row sums to 1."""
    length, keys = q.shape[2], k.shape[2]
    allowed = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length) if mask is None else mask
    bias = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(~allowed, -math.inf)
    if q.dtype == torch.bfloat16 and (spare := -keys % 32):  # softmax of other widths takes up to seven times as long
        k, bias = F.pad(k, (0, 0, 0, spare)), F.pad(bias, (0, spare), value=-math.inf)
    scores = _by_key_head(q / math.sqrt(q.shape[-1]), k) @ k.transpose(-2, -1)
    return (scores.view(*q.shape[:3], -1) + bias).softmax(dim=-1)[..., :keys]


def _by_key_head(x: Tensor, k: Tensor) -> Tensor:
    """The rows of ``x`` (B, H, T, ...) under their head of ``k`` (B, Hk, keys, K): (B, Hk, H / Hk * T, ...)."""
    return x.reshape(len(k), k.shape[1], -1, x.shape[-1])


def _in_one_product(q: Tensor, k: Tensor, divisions: Sequence[Division]) -> bool:
    """Whether all documents of a row of packed rows are computed at once, under a mask."""
    if not _by_explicit_products(q, k):
        return False
    documents = sum(division.rows * len(division.lengths) for division in divisions)
    return len(q) * k.shape[2] < MIN_DOCUMENT_FOR_OWN_PRODUCT * documents


def _by_explicit_products(q: Tensor, k: Tensor) -> bool:
    """Whether scores are computed by explicit products rather than by SDPA."""
    short = k.shape[2] <= MAX_KEYS_FOR_MATMUL_ATTENTION
    return q.device.type == "cpu" and _product_dtype(q) == torch.bfloat16 and short


def _product_dtype(x: Tensor) -> torch.dtype:
    """Of matrix products of ``x``: autocast's, or its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
