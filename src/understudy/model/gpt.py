"""GPT: GPT-2, and the Llama line (Llama, Mistral, SmolLM, Qwen, LFM2). One file, one forward; families are options.

The model maps token ids to logits. It knows nothing of text, files or training, and asks for no
device, precision or row layout: that is in the AttentionContext (masks.py) and in the kernels (attention.py).

Initial values:

    matrices, embeddings            normal, standard deviation 0.02
    attention.project, mlp.down     normal, 0.02 / sqrt(2 x layers); zero with zero_init_projections
    head, if not tied               normal, 0.02; zero with zero_init_projections
    ngram_embedding, score          zero
    norms, biases                   one, zero
    conv_layers                     see _init_copying
    shifted half of W_k             W_q's (positions.py), with key_shift

Shapes: B batch, T time, D model width, H heads, Hk key and value heads, K head width, F hidden width of the MLP,
V vocabulary, M selected places.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from understudy.config.model import ModelConfig, ModelShape
from understudy.model.attention import attend, attend_cached
from understudy.model.lora import add_lora
from understudy.model.masks import AttentionContext, causal, limit_to_window
from understudy.model.ngram import NgramEmbedding
from understudy.model.positions import init_shifted_keys, rope_table, rotate
from understudy.model.rms_norm import RMSNorm
from understudy.model.score_head import ScoreHead
from understudy.model.short_conv import ShortConv
from understudy.model.swiglu import swiglu

CONSTANT_FEATURE = 4.0
"""The first feature of all token embeddings at first, in standard deviations of the others, with conv_layers."""


class GPT(nn.Module):
    """A decoder-only transformer.

    Sources: Radford et al. 2019 (gpt2); Su et al. 2021 (rotary positions); Shazeer 2020 (SwiGLU); Ainslie et
    al. 2023 (grouped queries); Henry et al. 2020 (query-key norm).

    Attributes:
        config: the settings it was built from; ``shape`` is the same with a value for each.
        score: a head from hidden states (..., D) to scores (...), where ``score_head`` is set.

    >>> model = GPT(ModelConfig(vocab_size=65, context_length=16, n_layers=2, n_heads=2, d_model=32))
    >>> model(torch.zeros(1, 8, dtype=torch.long)).shape
    torch.Size([1, 8, 65])
    """

    rope: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.family == "bigram":
            raise ValueError("model.family bigram is a table, not a GPT; build it with Bigram or build_model")
        self.config = config
        self.shape = shape = config.resolve()
        self.token_embedding = nn.Embedding(shape.padded_vocab_size, shape.d_model)
        if shape.position == "learned":
            self.position_embedding = nn.Embedding(shape.context_length, shape.d_model)
        if shape.ngram_orders:
            self.ngram_embedding = NgramEmbedding(shape)
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.n_layers))
        self.norm = make_norm(shape, shape.d_model)
        self.head = nn.Linear(shape.d_model, shape.padded_vocab_size, bias=False)
        if shape.tied:
            self.head.weight = self.token_embedding.weight
        if shape.score_head:
            self.score = ScoreHead(shape.d_model)
        if shape.position == "rope":
            self.register_buffer("rope", rope_table(shape), persistent=False)
        self.activation_checkpointing = False
        self._init_weights()
        if shape.lora:
            add_lora(self, shape.lora)

    def _init_weights(self) -> None:
        """The table above."""
        zero = self.shape.zero_init_projections
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
            elif name.startswith(("ngram_embedding", "score")) or (name == "head.weight" and zero):
                nn.init.zeros_(parameter)
            elif name.endswith(("project.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.0 if zero else 0.02 / math.sqrt(2 * self.shape.n_layers))
            else:
                nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, CausalSelfAttention) and self.shape.key_shift:
                init_shifted_keys(module.qkv.weight, module.widths, self.shape.head_width)
        if self.shape.conv_layers:
            self._init_copying()

    @torch.no_grad()
    def _init_copying(self) -> None:
        """Convolutions that bring the previous token into each place, and keys that look for it there.

        A query that matches its own token then attends to the token after its earlier copy, as an induction head does
        (Olsson et al. 2022), before anything is learnt. The constant feature of the embeddings adds the same to all logits of a
        tied head. Heads whose width is no multiple of 4 start as any others.
        """
        d_model = self.shape.d_model
        self.token_embedding.weight[:, 0] = 0.02 * CONSTANT_FEATURE
        normed = CONSTANT_FEATURE / math.sqrt(1 + (CONSTANT_FEATURE**2 - 1) / d_model)
        rotation = torch.linalg.qr(torch.randn(d_model, d_model)).Q
        for module in self.modules():
            if isinstance(module, ShortConv):
                module.init_as_shift(0.02 * rotation, normed)
            elif (
                isinstance(module, CausalSelfAttention) and self.shape.head_width % 4 == 0 and not self.shape.key_shift
            ):
                init_shifted_keys(module.qkv.weight, module.widths, self.shape.head_width, rotation)

    def forward(self, tokens: Tensor, context: AttentionContext | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ``tokens`` (B, T).

        Args:
            context: from a constructor of masks.py; causal when left out.

        Raises:
            ValueError: more tokens than the context length.
        """
        return self.logits(self.hidden(tokens, context))

    def hidden(self, tokens: Tensor, context: AttentionContext | None = None) -> Tensor:
        """The last hidden states (B, T, D), or (M, D) of the places that the context selects; as :meth:`forward`."""
        context = self.prepare(tokens, context or causal())
        inner = replace(context, select=None)
        x = self.embed(tokens, context)
        for number, block in enumerate(self.blocks, 1):
            block_context = context if number == len(self.blocks) else inner
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, block_context, use_reentrant=False)
            else:
                x = block(x, block_context)
        if context.cache is not None:
            context.cache.advance(tokens.shape[1])
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) from hidden states (..., D), without the rows that pad the vocabulary."""
        logits = self.head(hidden)[..., : self.shape.vocab_size]
        if self.shape.logit_softcap:
            logits = self.shape.logit_softcap * torch.tanh(logits.float() / self.shape.logit_softcap)
        return logits

    def prepare(self, tokens: Tensor, context: AttentionContext) -> AttentionContext:
        """The context with the model's additions: the tokens, their rotary angles, whether keys are shifted."""
        length, limit, positions = tokens.shape[1], self.shape.context_length, context.positions
        if context.cache is not None and positions is not None:
            context.cache.write(context.cache.tokens, tokens, positions)
        elif length > limit and positions is None:
            raise ValueError(f"{length} tokens do not fit the context of {limit}; pass the last ones only")
        rope = None  # (2, [B, 1,] T, K)
        if self.shape.position == "rope":
            rope = self.rope[:, :length] if positions is None else self.rope[:, positions][:, :, None]
        context = replace(context, tokens=tokens, rope=rope, key_shift=self.shape.key_shift)
        return limit_to_window(context, self.shape.sliding_window)

    def embed(self, tokens: Tensor, context: AttentionContext) -> Tensor:
        """The input of the first block (B, T, D)."""
        x = self.token_embedding(tokens).to(self.norm.weight.dtype)  # (B, T, D); frozen embeddings may be in bf16
        if self.shape.position == "learned":
            table = self.position_embedding
            x = x + (table.weight[: x.shape[1]] if context.positions is None else table(context.positions))
        if self.shape.ngram_orders:
            x = x + self.ngram_embedding(tokens, context)
        return self.dropout(x)

    def set_activation_checkpointing(self, on: bool) -> None:
        """Trade a second forward of each block for the memory of its activations."""
        self.activation_checkpointing = on

    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward for one token at full context.

        Six for each weight that multiplies (embeddings are looked up), and 12 T H K for each attention layer
        (Chowdhery et al. 2022, appendix B).
        """
        shape = self.shape
        weights = sum(p.numel() for p in self.blocks.parameters() if p.ndim == 2) + self.head.weight.numel()
        weights -= sum(p.numel() for name, p in self.blocks.named_parameters() if "value_embedding" in name)
        return 6 * weights + 12 * shape.attention_layers * shape.n_heads * shape.head_width * shape.context_length


class Block(nn.Module):
    """Attention, or a short convolution, and MLP, each added to the residual stream after a norm of its input."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(shape, shape.d_model)
        self.is_conv = layer in shape.conv_layers
        if self.is_conv:
            self.conv = ShortConv(shape, layer)
        else:
            self.attention = CausalSelfAttention(shape, layer)
        self.mlp_norm = make_norm(shape, shape.d_model)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        mix = self.conv if self.is_conv else self.attention
        x = mix(self.attention_norm(x), context) + context.selected(x)
        return x + self.mlp(self.mlp_norm(x))


class CausalSelfAttention(nn.Module):
    """Multi-head attention over the tokens so far, with grouped key and value heads."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.layer, self.head_width = layer, shape.head_width
        self.widths = [n * shape.head_width for n in (shape.n_heads, shape.n_kv_heads, shape.n_kv_heads)]
        self.qkv = nn.Linear(shape.d_model, sum(self.widths), bias=shape.qkv_bias)
        self.project = nn.Linear(self.widths[0], shape.d_model, bias=shape.bias)
        self.has_rope, self.qk_norm = layer not in shape.no_rope_layers, shape.qk_norm
        if shape.qk_norm:
            self.query_norm, self.key_norm = make_norm(shape, shape.head_width), make_norm(shape, shape.head_width)
        has_embedding = shape.value_embeddings and layer % 2 == 0
        self.value_embedding = nn.Embedding(shape.padded_vocab_size, self.widths[2]) if has_embedding else None
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, D), or (M, D) of the selected places, from the normed residual stream (B, T, D)."""
        q, k, v = self.queries_keys_values(x, context)
        if context.cache is None:
            y = attend(q, k, v, context)  # (B, H, T, K)
        else:
            y = attend_cached(q, context.cache.update(self.layer, k, v), context)
        y = context.selected(y.transpose(1, 2).flatten(2))  # (B, T, H * K) or (M, H * K)
        return self.dropout(self.project(y))

    def queries_keys_values(self, x: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, K), and the keys and values (B, Hk, T, K) of the same tokens."""
        q, k, v = self.qkv(x).split(self.widths, dim=-1)
        if self.value_embedding is not None:
            v = v + self.value_embedding(context.tokens)
        q = q.unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (B, H, T, K)
        k = k.unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (B, Hk, T, K)
        v = v.unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (B, Hk, T, K)
        if self.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        if context.rope is not None and self.has_rope:
            q, k = rotate(q, context.rope), rotate(k, context.rope)
        return q, k, v


class MLP(nn.Module):
    """Two matrices around a nonlinearity; the gate of SwiGLU is the first half of ``up``."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.up = nn.Linear(shape.d_model, shape.d_ff * (2 if shape.activation == "swiglu" else 1), bias=shape.bias)
        self.down = nn.Linear(shape.d_ff, shape.d_model, bias=shape.bias)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)  # (..., F), or (..., 2 F)
        if self.activation == "swiglu":
            x = swiglu(x)
        elif self.activation == "relu2":
            x = F.relu(x).square()
        else:
            x = F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return self.dropout(self.down(x))


def make_norm(shape: ModelShape, width: int) -> nn.Module:
    """The family's norm over the last ``width`` features."""
    if shape.norm == "rmsnorm":
        return RMSNorm(width, shape.norm_eps)
    return nn.LayerNorm(width, eps=shape.norm_eps, bias=shape.bias)
