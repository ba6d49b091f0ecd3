"""Token embeddings and an output head that start as a bigram model of the training text.

The counts of the pairs of neighbouring tokens are all that a model without attention can learn. A factorisation of them,
improved by some steps of Adam, gives in seconds what training would need millions of tokens for. The blocks start as they
do without it.

Shapes: V vocabulary, D model width, P different pairs, R tokens of a batch, Q different pairs that begin with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from understudy.data.loader import TokenArray
from understudy.model import GPT
from understudy.runtime import Runtime
from understudy.train.loop import BatchSource, Trainer, TrainingProgress, new_scaler
from understudy.train.objective import Objective

MOST_TOKENS = 1 << 24
"""Tokens that are counted at most."""
PRIOR = 100.0
"""A pair's count is compared with this many tokens drawn without regard to the one before."""
BATCH, STEPS, LEARNING_RATE = 512, 192, 0.01
"""Of the improvement: tokens in a batch, steps, and the first learning rate. With 8,192 tokens each is seen 12 times."""


def start_from_bigrams(model: GPT, texts: Sequence[TokenArray], runtime: Runtime) -> float:
    """Set the token embeddings and the output head of ``model``, and return the bigram model's loss in nats per token.

    Args:
        model: with a head of its own (``model.tied`` false).
        texts: token ids (N,) of each source; the first tokens of all are counted in equal shares.
    """
    pairs = BigramBatches.count(texts, model.shape.vocab_size)
    embedding, head = model.token_embedding.weight, model.head.weight
    embedding.data[: len(pairs.counts)], head.data[: len(pairs.counts)] = pairs.factorise(model.shape.d_model)
    objective = BigramObjective(model)
    adam = torch.optim.Adam([{"params": [embedding, head], "peak_lr": LEARNING_RATE}], betas=(0.9, 0.95))
    Trainer(
        objective, [adam], pairs, lambda step: 1 - step / STEPS, runtime, TrainingProgress(), STEPS, scaler=new_scaler(runtime)
    ).run()  # fmt: skip
    objective.zero_grad(set_to_none=True)  # the norm has gradients too, and is not trained here
    with torch.no_grad(), runtime.autocast():
        batches = [
            {k: v.to(runtime.device) for k, v in pairs.batches(i)[0].items()} for i in range(len(pairs.by_batch))
        ]
        return sum(float(objective(batch)[0]) for batch in batches) / float(pairs.counts.sum())


@dataclass(frozen=True)
class BigramBatches(BatchSource):
    """The pairs of a text, a batch of first tokens at a time.

    Attributes:
        first, second, pair_counts: of each different pair (P,), ordered: its tokens, and how often it occurs.
        counts: how often each first token occurs (V,).
        p_second: the probability of each second token (V,).
        by_batch: the first tokens (R,) of each batch; every batch has frequent and rare ones.
    """

    first: Tensor
    second: Tensor
    pair_counts: Tensor
    counts: Tensor
    p_second: Tensor
    by_batch: list[Tensor]

    @classmethod
    def count(cls, texts: Sequence[TokenArray], vocab_size: int) -> BigramBatches:
        """Count the pairs of texts of token ids (N,)."""
        parts = [np.asarray(text[: MOST_TOKENS // len(texts)], np.int64) for text in texts]
        pairs, numbers = np.unique(np.concatenate([t[:-1] * vocab_size + t[1:] for t in parts]), return_counts=True)
        first, second = (torch.from_numpy(half) for half in np.divmod(pairs, vocab_size))
        pair_counts, none = torch.from_numpy(numbers).float(), torch.zeros(vocab_size)
        counts, endings = none.index_add(0, first, pair_counts), none.index_add(0, second, pair_counts) + 0.5
        order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
        number = -(-len(order) // BATCH)
        return cls(
            first, second, pair_counts, counts, endings / endings.sum(), [order[k::number].contiguous() for k in range(number)],
        )  # fmt: skip

    def factorise(self, width: int) -> tuple[Tensor, Tensor]:
        """Embeddings and head (V, D), whose products approach the logarithm of how much likelier a pair makes its second
        token.

        The first feature is the same for all embeddings, and larger than the others together for most of them, so that the
        normalisation keeps rare tokens small; the head's has the logarithm of each token's own probability. The others are
        from a singular value decomposition in which pairs count by the probabilities of both tokens. (Levy and Goldberg 2014
        factorise a similar matrix.)
        """
        size = len(self.counts)
        weight_first, weight_second = ((self.counts + 1) / self.counts.sum()).sqrt(), self.p_second.sqrt()
        values = torch.log1p(self.pair_counts / (PRIOR * self.p_second[self.second]))
        values = values * weight_first[self.first] * weight_second[self.second]
        indices = torch.stack((self.first, self.second))
        matrix = torch.sparse_coo_tensor(indices, values, (size, size), check_invariants=False).coalesce()
        rank = min(width - 1, size)
        u, s, v = torch.svd_lowrank(matrix, q=rank, niter=2)
        embedding, head = torch.zeros(size, width), torch.zeros(size, width)
        embedding[:, 1 : rank + 1] = u * s.sqrt() / weight_first[:, None]
        head[:, 1 : rank + 1] = v * s.sqrt() / weight_second[:, None]
        embedding[:, 0] = embedding[:, 1:].norm(dim=-1).quantile(0.9)
        scale = embedding.square().mean(-1).sqrt().mean()
        head[:, 0] = (self.p_second.log() - self.p_second.log().mean()) / embedding[0, 0]
        return embedding / scale, head * scale

    def batches(self, step: int) -> list[dict[str, Tensor]]:
        tokens = self.by_batch[step % len(self.by_batch)]
        starts = torch.searchsorted(self.first, tokens)
        lengths = torch.searchsorted(self.first, tokens, right=True) - starts
        rows = torch.arange(len(tokens)).repeat_interleave(lengths)
        pairs = torch.arange(len(rows)) + (starts - lengths.cumsum(0) + lengths)[rows]
        return [{
            "tokens": tokens, "counts": self.counts[tokens], "rows": rows, "seconds": self.second[pairs],
            "pair_counts": self.pair_counts[pairs],
        }]  # fmt: skip


class BigramObjective(Objective):
    """Cross-entropy of the second token of each pair, summed over the pairs of a text by their counts.

    A batch is ``tokens`` and ``counts`` (R,), and ``rows`` (the places in R), ``seconds`` and ``pair_counts`` (Q,).
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        # Only these modules: with several processes, every parameter of an objective must have a gradient.
        self.embedding, self.norm, self.head = model.token_embedding, model.norm, model.head
        self.logits = model.logits

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["counts"].sum()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.logits(self.norm(self.embedding(batch["tokens"]))).float()  # (R, V)
        loss = (batch["counts"] * logits.logsumexp(-1)).sum()
        return loss - (batch["pair_counts"] * logits[batch["rows"], batch["seconds"]]).sum(), {}
