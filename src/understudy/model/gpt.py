"""GPT in two families: `gpt2` as OpenAI made it, and `portable`, shaped like Qwen3. One file, one forward.

The model maps token ids to logits and knows nothing of what tokens mean, of files, or of training. Options that
only serve the speed of learning (n-gram and value embeddings, shifted keys, ReLU squared, zero-initialised
projections, soft capped logits) are fields of the same configuration.

Shapes: B batch, T time, D model width, H heads, K head width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from understudy.config.model import ModelConfig
from understudy.model.documents import Division, divided, within_branches, within_documents
from understudy.model.kv_cache import KVCache
from understudy.model.lora import add_lora
from understudy.model.positions import rope_table, rotate, shift_keys

SHORT = 512
"""Up to so many keys, and for one query of any number, a CPU attends in bf16 by plain products, and to all documents of a
row at once: PyTorch's SDPA takes up to five times as long there (benchmarks/README.md)."""


@dataclass
class Trace:
    """What a forward leaves behind for those who look inside (inference/lookinside.py), layer by layer.

    Of the model's own computation nothing changes. The weights are those that SDPA sums values with, in fp32.
    """

    residual: list[Tensor] = field(default_factory=list)  # (B, T, D): the embedding, then what each block made of it
    attention: list[Tensor] = field(default_factory=list)  # (B, H, T, keys), each row sums to 1


class Inputs(NamedTuple):
    """What every block is told beside its hidden states; without a cache or documents, tokens stand at 0, 1, 2, … and
    the mask is plainly causal."""

    tokens: Tensor  # (B, T)
    positions: Tensor | None  # (B, T)
    mask: Tensor | None  # (B, 1, T, keys)
    rope: Tensor | None  # (2, [B, 1,] T, K)
    cache: KVCache | None
    before: Tensor | None = None  # (B, T), where in its row the token before stands, for documents that branch
    at: Tensor | None = None  # (M,), the places in B x T whose states are wanted
    trace: Trace | None = None
    apart: list[Division] | None = None  # documents are attended to one by one; a mask then is that of branches


class GPT(nn.Module):
    """A decoder-only transformer.

    Sources: Radford et al. 2019 (gpt2); Su et al. 2021 (rotary positions); Shazeer 2020 (SwiGLU); Ainslie et
    al. 2023 (grouped queries); Henry et al. 2020 (query-key norm).

    >>> model = GPT(ModelConfig(vocab_size=65, context_length=16, n_layers=2, n_heads=2, d_model=32))
    >>> model(torch.zeros(1, 8, dtype=torch.long)).shape
    torch.Size([1, 8, 65])
    """

    rope: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.family == "bigram":
            raise ValueError("model.family bigram is a table, not a GPT; build it with Bigram or build_model")
        if config.vocab_size is None:
            raise ValueError("model.vocab_size is not set; it comes from the tokenizer of the data")
        assert config.n_layers and config.d_model, "filled in by ModelConfig"
        self.config = config
        vocab, width = config.padded_vocab_size, config.d_model
        self.token_embedding = nn.Embedding(vocab, width)
        if config.position == "learned":
            self.position_embedding = nn.Embedding(config.context_length, width)
        if config.ngram_orders:
            self.ngram_embedding = NgramEmbedding(config)
        self.dropout = nn.Dropout(config.dropout or 0.0)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = make_norm(config, width)
        self.head = nn.Linear(width, vocab, bias=False)
        if config.tied:
            self.head.weight = self.token_embedding.weight
        if config.score_head:
            self.score = nn.Linear(width, 1, bias=False)
        if config.position == "rope":
            self.register_buffer("rope", rope_table(config), persistent=False)
        self.activation_checkpointing = False
        self._initialise()
        if config.lora:
            add_lora(self, config.lora)

    def _initialise(self) -> None:
        """GPT-2's start: normal 0.02, and projections into the residual stream divided by sqrt(2 x layers)."""
        assert self.config.n_layers
        zero = bool(self.config.zero_init_projections)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
            elif name.startswith(("ngram_embedding", "score")) or (name == "head.weight" and zero):
                nn.init.zeros_(parameter)
            elif name.endswith(("project.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.0 if zero else 0.02 / math.sqrt(2 * self.config.n_layers))
            else:
                nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, Attention) and self.config.key_shift:
                module.start_alike()

    def forward(self, tokens: Tensor, cache: KVCache | None = None, documents: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ``tokens`` (B, T).

        Args:
            cache: ``tokens`` continue what it holds, and are added to it.
            documents: (B, T), the same number for neighbours that belong together. Each document is read by itself:
                its positions start at 0, and nothing in it looks beyond it. Not together with a cache.

        Raises:
            ValueError: more tokens than the context holds.
        """
        return self.logits(self.hidden(tokens, cache, documents))

    def hidden(
        self, tokens: Tensor, cache: KVCache | None = None, documents: Tensor | None = None,
        branches: Tensor | None = None, at: Tensor | None = None, trace: Trace | None = None,
    ) -> Tensor:  # fmt: skip
        """The last hidden states (B, T, D), from which :meth:`logits` reads; arguments as for :meth:`forward`, and:

        Args:
            branches: (B, T), for documents that begin alike and go on differently: 0 where they are alike, and after
                that 1, 2, … for each way to go on, which sees what they have in common and itself. A row may then be
                longer than the context, as long as no way through a document is.
            at: (M,), places in B x T. Only their states come back, (M, D), and the last block does only what they need.
            trace: is given what the layers computed on the way.
        """
        held = cache.longest if cache else 0
        limit = cache.max_tokens if cache else self.config.context_length
        if held + tokens.shape[1] > limit and branches is None:
            raise ValueError(
                f"{held + tokens.shape[1]} tokens do not fit the context of {limit}; pass the last ones only"
            )
        inputs = self._inputs(tokens, cache, documents, branches, trace)
        x = self._embed(inputs)
        for number, block in enumerate(self.blocks, 1):
            if trace is not None:
                trace.residual.append(x)
            if number == len(self.blocks):
                inputs = inputs._replace(at=at)
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, inputs, use_reentrant=False)
            else:
                x = block(x, inputs)
        if cache:
            cache.advance(tokens.shape[1])
        if trace is not None:
            trace.residual.append(x)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (B, T, V) from hidden states (B, T, D); the rows that pad the vocabulary are cut off."""
        logits = self.head(hidden)[..., : self.config.vocab_size]
        if self.config.logit_softcap:
            logits = self.config.logit_softcap * torch.tanh(logits.float() / self.config.logit_softcap)
        return logits

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores (...) from hidden states (..., D), in fp32 even where products are of bf16, which would make ties of
        what is nearly alike; only with ``score_head``."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.score.weight.float())[..., 0]

    def set_activation_checkpointing(self, on: bool) -> None:
        """Trade a second forward of each block for the memory of its activations."""
        self.activation_checkpointing = on

    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward for one token at full context.

        Six for each weight that multiplies (the embedding look-ups do not), and 12 T H K for each layer's
        attention (Chowdhery et al. 2022, appendix B).
        """
        config = self.config
        assert config.n_layers and config.n_heads and config.head_width
        weights = sum(p.numel() for p in self.blocks.parameters() if p.ndim == 2) + self.head.weight.numel()
        weights -= sum(p.numel() for name, p in self.blocks.named_parameters() if "value_embedding" in name)
        return 6 * weights + 12 * config.n_layers * config.n_heads * config.head_width * config.context_length

    def _inputs(
        self, tokens: Tensor, cache: KVCache | None, documents: Tensor | None, branches: Tensor | None,
        trace: Trace | None,
    ) -> Inputs:  # fmt: skip
        """Where the tokens stand, and what they may attend to."""
        positions = mask = rope = before = apart = None
        assert cache is None or documents is None, "documents are for rows read at once"
        if documents is not None and documents.device.type == "cpu" and not trace and not torch.compiler.is_compiling():
            apart = divided(documents)
            if branches is not None and int(branches.max()) < 2:
                branches = None
            fits = documents.shape[1] <= self.config.context_length
            if fits and branches is None and [alike.lengths for alike in apart] == [[documents.shape[1]]]:
                documents = apart = None  # each row is one document
            elif fits and documents.shape[1] <= SHORT and self._dtype == torch.bfloat16:
                apart = None  # few large products, much of which is masked, are faster than many small ones
        if documents is not None:
            if branches is None:
                positions, mask = within_documents(documents)
            else:
                positions, mask, before = within_branches(documents, branches)
            if apart and branches is None:
                mask = None
        if cache:
            positions = cache.positions(tokens.shape[1])
            cache.write_tokens(tokens, positions)
            if cache.longest and not cache.attends_apart(tokens.shape[1]):
                keys = torch.arange(cache.longest + tokens.shape[1], device=tokens.device)
                mask = (keys <= positions[:, :, None])[:, None]
        if self.config.position == "rope":
            rope = self.rope[:, : tokens.shape[1]] if positions is None else self.rope[:, positions][:, :, None]
        return Inputs(tokens, positions, mask, rope, cache, before, None, trace, apart)

    @property
    def _dtype(self) -> torch.dtype:
        """Of matrix products on a CPU."""
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.head.weight.dtype

    def _embed(self, inputs: Inputs) -> Tensor:
        x = self.token_embedding(inputs.tokens)  # (B, T, D)
        if self.config.position == "learned":
            at = inputs.positions
            x = x + (self.position_embedding.weight[: x.shape[1]] if at is None else self.position_embedding(at))
        if self.config.ngram_orders:
            x = x + self.ngram_embedding(inputs.tokens, inputs.cache, inputs.positions, inputs.before)
        return self.dropout(x)


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream after a norm of its input."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        assert config.d_model
        self.attention_norm = make_norm(config, config.d_model)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config, config.d_model)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, inputs: Inputs) -> Tensor:
        found = self.attention(self.before(x), inputs)
        return self.after(x if inputs.at is None else x.flatten(0, 1).index_select(0, inputs.at), found)

    def before(self, x: Tensor) -> Tensor:
        """What attention is given; this and :meth:`after` look at each token alone (inference/compiled.py)."""
        return self.attention.qkv(self.attention_norm(x))

    def after(self, x: Tensor, found: Tensor) -> Tensor:
        """The residual stream (B, T, D) with what attention found, and what the MLP makes of both."""
        x = x + self.attention.dropout(self.attention.project(found))
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    """Causal self-attention with grouped key and value heads."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        assert config.n_heads and config.n_kv_heads and config.head_width and config.d_model
        self.config, self.layer = config, layer
        bias = bool(config.bias)
        self.widths = [n * config.head_width for n in (config.n_heads, config.n_kv_heads, config.n_kv_heads)]
        self.qkv = nn.Linear(config.d_model, sum(self.widths), bias=bias)
        self.project = nn.Linear(self.widths[0], config.d_model, bias=bias)
        if config.qk_norm:
            self.query_norm = make_norm(config, config.head_width)
            self.key_norm = make_norm(config, config.head_width)
        has_embedding = config.value_embeddings and layer % 2 == 0
        self.value_embedding = nn.Embedding(config.padded_vocab_size, self.widths[2]) if has_embedding else None
        self.dropout = nn.Dropout(config.dropout or 0.0)

    @torch.no_grad()
    def start_alike(self) -> None:
        """Let a query find the keys that follow its own token from the start: for what is shifted, both begin with the
        same weights (Trockman and Kolter 2023 start whole transformers so)."""
        assert self.config.head_width
        quarter = self.config.head_width // 4
        q, k, _ = (part.unflatten(0, (-1, 2, 2, quarter)) for part in self.qkv.weight.split(self.widths))
        k[:, :, 1] = q[:: len(q) // len(k), :, 1]

    def forward(self, x: Tensor, inputs: Inputs) -> Tensor:
        """What queries find in all keys and values so far, (B, T, D), or (M, D) where only M places are wanted.

        Args:
            x: queries, keys and values side by side, of :attr:`qkv`.
        """
        q, k, v = x.split(self.widths, dim=-1)
        if self.value_embedding is not None:
            v = v + self.value_embedding(inputs.tokens)
        q, k, v = (
            part.unflatten(-1, (-1, self.config.head_width)).transpose(1, 2) for part in (q, k, v)
        )  # (B, H, T, K)
        if self.config.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        if inputs.rope is not None:
            q, k = rotate(q, inputs.rope), rotate(k, inputs.rope)
        parts = [(k, v)]
        if inputs.cache is not None and inputs.positions is not None:
            parts = inputs.cache.write(self.layer, k, v, inputs.positions)
        y = [self._attend(rows, *part, inputs) for rows, part in zip(q.split(len(q) // len(parts)), parts)]
        together = (y[0] if len(y) == 1 else torch.cat(y)).transpose(1, 2).flatten(2)  # (B, T, D)
        return together if inputs.at is None else together.flatten(0, 1).index_select(0, inputs.at)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, inputs: Inputs) -> Tensor:
        """What queries (B, H, T, K) find in keys and values (B, H, held, K)."""
        k, v = k.to(q.dtype), v.to(q.dtype)
        if self.config.key_shift:
            k = shift_keys(k, None if inputs.cache is not None else inputs.positions, inputs.before)
        if inputs.trace is not None:
            inputs.trace.attention.append(attention_weights(q.float(), k.float(), inputs.mask))
        if inputs.apart is None:
            return self._sdpa(q, k, v, inputs.mask)
        counts = [alike.rows for alike in inputs.apart]
        masks = [None] * len(counts) if inputs.mask is None else inputs.mask.split(counts)
        found = []
        for alike, mask, *parts in zip(inputs.apart, masks, *(part.split(counts) for part in (q, k, v))):
            pieces, end = [], 0
            for own_q, own_k, own_v in zip(*(part.split(alike.lengths, dim=2) for part in parts)):
                own, end = slice(end, end + own_q.shape[2]), end + own_q.shape[2]
                pieces.append(self._sdpa(own_q, own_k, own_v, None if mask is None else mask[..., own, own]))
            found.append(torch.cat(pieces, dim=2))
        return torch.cat(found)

    def _sdpa(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if q.device.type == "cpu" and q.dtype == torch.bfloat16:
            if q.shape[2] == 1:
                with torch.autocast("cpu", enabled=False):
                    return self._sdpa(q.float(), k.float(), v.float(), mask).to(q.dtype)
            if k.shape[2] <= SHORT:
                return attention_weights(q, k, mask) @ repeat_heads(v, q.shape[1])
        return F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=mask,
            is_causal=mask is None and q.shape[2] == k.shape[2],  # else one token that may see all
            enable_gqa=self.config.n_kv_heads != self.config.n_heads,
        )  # fmt: skip


class MLP(nn.Module):
    """Two matrices around a nonlinearity; SwiGLU's gate is the first half of ``up``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.d_model and config.d_ff
        self.activation = config.activation
        bias = bool(config.bias)
        self.up = nn.Linear(config.d_model, config.d_ff * (2 if config.activation == "swiglu" else 1), bias=bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=bias)
        self.dropout = nn.Dropout(config.dropout or 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.activation == "swiglu":
            gate, x = x.chunk(2, dim=-1)
            x = F.silu(gate) * x
        elif self.activation == "relu2":
            x = F.relu(x).square()
        else:
            x = F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return self.dropout(self.down(x))


class NgramEmbedding(nn.Module):
    """Embeddings of the last n tokens, found by hashing them into ``ngram_buckets`` rows of a table for each order.

    A small model learns what follows common pairs and triples from these at once, and spends its blocks on the
    rest. Positions before the start of the text count as one token of their own. The tables start at zero.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.ngram_orders and config.ngram_buckets and config.d_model
        self.orders, self.buckets = sorted(set(config.ngram_orders)), config.ngram_buckets
        self.dropped = len(self.orders) * self.buckets  # a last row that is never read
        self.drop = config.ngram_dropout or 0.0
        self.table = nn.Embedding(self.dropped + 1, config.d_model)

    def forward(
        self, tokens: Tensor, cache: KVCache | None = None, positions: Tensor | None = None,
        before: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The sum over orders of the n-gram embeddings (B, T, D) of ``tokens`` (B, T)."""
        rows = self._rows(tokens, cache, positions, before)  # (B, T, orders)
        scale = 1.0
        if self.training and self.drop:
            rows = rows.masked_fill(torch.rand(rows.shape, device=rows.device) < self.drop, self.dropped)
            scale = 1 / (1 - self.drop)
        bags = F.embedding_bag(rows.flatten(0, 1), self.table.weight, mode="sum", padding_idx=self.dropped)
        return bags.view(*tokens.shape, -1) * scale

    def _rows(self, tokens: Tensor, cache: KVCache | None, positions: Tensor | None, before: Tensor | None) -> Tensor:
        """The table's row for each order: a hash that takes in one earlier token at a time, 0 where there is none."""
        hashed = tokens + 1
        rows: list[Tensor] = []
        place = before
        for back in range(1, self.orders[-1]):
            if place is not None and before is not None:
                earlier = tokens.gather(1, place) + 1
                place = before.gather(1, place)
            elif cache is not None and positions is not None:
                earlier = cache.earlier_tokens((positions - back).clamp(min=0)) + 1
            else:
                earlier = F.pad(tokens[:, : max(0, tokens.shape[1] - back)] + 1, (min(back, tokens.shape[1]), 0))
            if positions is not None:
                earlier = earlier.masked_fill(positions < back, 0)
            hashed = (hashed * 1_000_003 + earlier) & 0x3FFFFFFFFF  # 38 bits, so that the products fit 64
            if back + 1 in self.orders:
                rows.append(((hashed * 40_503) >> 15) % self.buckets + len(rows) * self.buckets)
        return torch.stack(rows, dim=-1)


def make_norm(config: ModelConfig, width: int) -> nn.Module:
    """The family's norm over the last ``width`` features."""
    assert config.norm_eps
    if config.norm == "rmsnorm":
        return nn.RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=bool(config.bias))


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """How much each query of ``q`` (B, H, T, K) takes of each key of ``k`` (B, H or fewer, keys, K): (B, H, T, keys),
    causal where there is no mask (B, 1, T, keys)."""
    length, keys = q.shape[2], k.shape[2]
    allowed = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length) if mask is None else mask
    bias = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(~allowed, -math.inf)
    if q.dtype == torch.bfloat16 and (spare := -keys % 32):  # softmax of other widths takes up to seven times as long
        k, bias = F.pad(k, (0, 0, 0, spare)), F.pad(bias, (0, spare), value=-math.inf)
    scores = (q / math.sqrt(q.shape[-1])) @ repeat_heads(k, q.shape[1]).transpose(-2, -1)
    return (scores + bias).softmax(dim=-1)[..., :keys]


def repeat_heads(x: Tensor, n_heads: int) -> Tensor:
    """Keys or values (B, fewer, T, K) for each of ``n_heads`` (B, H, T, K): of grouped heads, neighbours share one."""
    return x if x.shape[1] == n_heads else x.repeat_interleave(n_heads // x.shape[1], dim=1)
