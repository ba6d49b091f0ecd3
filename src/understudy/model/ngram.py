"""Embeddings of the last n tokens, added to those of the tokens.

Shapes: B batch, T time, D model width, N orders.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.config.model import ModelShape
from understudy.model.masks import AttentionContext


class NgramEmbedding(nn.Module):
    """Hashed n-gram embeddings: each order has a table of ``ngram_buckets`` rows, zero at first.

    A small model learns the continuations of common pairs and triples from these, and has its blocks for other patterns.
    Positions before the start of a document count as one separate token.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.orders, self.buckets = sorted(set(shape.ngram_orders)), shape.ngram_buckets
        self.dropped = len(self.orders) * self.buckets  # a last row that is never read
        self.dropout = shape.ngram_dropout
        self.table = nn.Embedding(self.dropped + 1, shape.d_model)

    def forward(self, tokens: Tensor, context: AttentionContext) -> Tensor:
        """The sum over orders of the n-gram embeddings (B, T, D) of ``tokens`` (B, T)."""
        rows = self._rows(tokens, context)  # (B, T, N)
        scale = 1.0
        if self.training and self.dropout:
            rows = rows.masked_fill(torch.rand(rows.shape, device=rows.device) < self.dropout, self.dropped)
            scale = 1 / (1 - self.dropout)
        bags = F.embedding_bag(
            rows.flatten(0, 1), self.table.weight, mode="sum", padding_idx=self.dropped
        )  # (B * T, D)
        return bags.view(*tokens.shape, -1) * scale

    def _rows(self, tokens: Tensor, context: AttentionContext) -> Tensor:
        """The table's rows (B, T, N): a hash that takes in one earlier token at a time, 0 where there is none."""
        memory = None if context.cache is None else context.cache.tokens
        rows: list[Tensor] = []
        hashed = tokens + 1
        for back in range(1, self.orders[-1]):
            earlier = context.earlier(tokens, back, memory, fill=-1) + 1
            hashed = (hashed * 1_000_003 + earlier) & 0x3FFFFFFFFF  # 38 bits, so that the products fit 64
            if back + 1 in self.orders:
                rows.append(((hashed * 40_503) >> 15) % self.buckets + len(rows) * self.buckets)
        return torch.stack(rows, dim=-1)
