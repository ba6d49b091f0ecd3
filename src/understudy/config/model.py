"""Settings of a model and of its adapters: those that decide which weights it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from understudy.config.types import Count, CountOrZero, Dropout, NotNegative, Positive, Section, refuse

LLAMA_DEFAULTS: dict[str, Any] = {
    "position": "rope", "norm": "rmsnorm", "norm_eps": 1e-6, "activation": "swiglu", "bias": False, "qkv_bias": False,
    "qk_norm": False, "tied": True,
}  # fmt: skip
"""Llama's values, which the families after it change in an option or two."""
# The defaults of each family of models: the values of settings that are None.
FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "position": "learned", "norm": "layernorm", "norm_eps": 1e-5, "activation": "gelu",
        "bias": True, "qk_norm": False, "tied": True,
    },
    "llama": LLAMA_DEFAULTS,
    "mistral": LLAMA_DEFAULTS,
    "smollm3": LLAMA_DEFAULTS,
    "qwen2": LLAMA_DEFAULTS | {"qkv_bias": True},
    "qwen3": LLAMA_DEFAULTS | {"qk_norm": True},
    "lfm2": LLAMA_DEFAULTS | {"qk_norm": True, "norm_eps": 1e-5},
}  # fmt: skip


class RopeScaling(Section):
    """Rotary frequencies stretched to a longer context than that of the first training."""

    type: Literal["linear", "llama3"]
    """linear divides all frequencies by the factor; llama3 only low ones (Llama 3.1 and later)."""
    factor: Positive
    """Frequencies are divided by this."""
    low_freq_factor: Positive = 1.0
    """llama3: wavelengths over original_context / low_freq_factor are stretched in full."""
    high_freq_factor: Positive = 4.0
    """llama3: wavelengths under original_context / high_freq_factor stay."""
    original_context: Count = 8192
    """llama3: context of the first training, in tokens."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"model.rope_scaling.low_freq_factor {self.low_freq_factor} must be below high_freq_factor "
                f"{self.high_freq_factor}"
            )
        return self


Family = Literal["gpt2", "llama", "mistral", "smollm3", "qwen2", "qwen3", "lfm2", "bigram"]


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021) of a run that starts from another one."""

    rank: Count = 8
    """Rank of each adapter."""
    alpha: Positive = 16.0
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    targets: tuple[Literal["qkv", "gates", "project", "up", "down"], ...] = ("qkv", "gates", "project", "up", "down")
    """Layers of each block with an adapter: qkv and project of the attention, gates and project of a short convolution, up
    and down of the MLP."""
    dropout: Dropout = 0.0
    """Dropout on the input of each adapter."""
    embeddings: bool | None = None
    """Train the token embeddings too. Default: only if tokens were added to the parent's."""


class ModelConfig(Section):
    """The shape of a model. Widths are in features, ``context_length`` in tokens.

    >>> ModelConfig(family="qwen3", vocab_size=65, n_layers=2, n_heads=2, d_model=64).d_ff
    192
    """

    family: Family = "gpt2"
    """Architecture: gpt2; the Llama line (rotary positions, RMSNorm, SwiGLU): llama, mistral, smollm3, qwen2 with biases
    of queries, keys and values, qwen3 with normalised queries and keys, lfm2 with these and with short convolutions; or
    bigram, a table of next tokens."""
    vocab_size: Count | None = None
    """Number of token ids. Default: that of the tokenizer."""
    embedding_rows: Count | None = None
    """Rows of the token embedding. Default: vocab_size rounded up to 64. Imported models keep theirs."""
    context_length: Count = 256
    """Longest sequence, in tokens."""
    n_layers: Count | None = None
    """Number of blocks. Default: 4."""
    n_heads: Count | None = None
    """Query heads of each block. Default: 4."""
    d_model: Count | None = None
    """Width of the hidden states, in features. Default: 128."""
    n_kv_heads: Count | None = None
    """Key and value heads of each block, each shared by a group of query heads. Default: n_heads."""
    head_width: Count | None = None
    """Width of one head, in features. Default: d_model / n_heads."""
    d_ff: Count | None = None
    """Hidden width of the MLP. Default: 4 x d_model, or 8/3 x d_model rounded up to 64 for swiglu."""
    position: Literal["learned", "rope"] | None = None
    """Positions: a learned embedding of each, or rotations of queries and keys (rope). Default: that of the family."""
    rope_theta: Positive | None = None
    """Base of the rotary frequencies. Default: 10,000, or 1,000,000 for lfm2."""
    rope_scaling: RopeScaling | None = None
    no_rope_layers: tuple[CountOrZero, ...] | None = None
    """Layers without positions, counted from 0, as in SmolLM3."""
    conv_layers: tuple[CountOrZero, ...] | None = None
    """Layers with a short convolution in place of attention, counted from 0, as in LFM2."""
    conv_width: Count | None = None
    """Tokens that a short convolution sums, its own included. Default: 3."""
    sliding_window: Count | None = None
    """Each token attends to so many tokens, itself included, as in Mistral. Default: to all before it."""
    norm: Literal["layernorm", "rmsnorm"] | None = None
    """Normalisation before each layer and at the end. Default: that of the family."""
    norm_eps: Positive | None = None
    """Added to the variance in each normalisation. Default: that of the family."""
    activation: Literal["gelu", "gelu_tanh", "relu2", "swiglu"] | None = None
    """Activation of the MLP. gelu_tanh is that of OpenAI's GPT-2; gelu differs from it in the fourth digit and is
    faster on a CPU."""
    bias: bool | None = None
    """Give linear layers and layernorms biases. Default: true for gpt2, false for the others."""
    qkv_bias: bool | None = None
    """Give the queries, keys and values biases. Default: as ``bias``, true for qwen2."""
    qk_norm: bool | None = None
    """Normalise queries and keys of each head (RMSNorm). Default: true for qwen3 and lfm2, false for the
    others."""
    tied: bool | None = None
    """Use the token embedding as the output head. Default: true."""
    dropout: Dropout | None = None
    """Dropout of the embeddings and of the output of each layer. Attention weights are never dropped, because fast
    kernels cannot."""
    zero_init_projections: bool | None = None
    """Start the projections into the residual stream, and an output head that is not tied, at zero, so that each
    block starts as the identity."""
    logit_softcap: NotNegative | None = None
    """Limit logits to (-c, c) by c * tanh(logits / c); 0 is off."""
    value_embeddings: bool | None = None
    """Add an embedding of the token to the attention's values in every second layer."""
    key_shift: bool | None = None
    """Take half of each key's features, which carry no position, from the previous token. Copying is learnt
    sooner."""
    ngram_orders: tuple[Annotated[int, Field(ge=2, le=8)], ...] | None = None
    """Add hashed embeddings of the last n tokens to the input, for each n listed."""
    ngram_buckets: Count | None = None
    """Rows of the table of each n-gram order. Default: 8192."""
    ngram_dropout: Dropout | None = None
    """Share of positions whose n-gram embedding of one order is left out while training."""
    score_head: bool | None = None
    """Add a head that gives a score for each position. Stages that need one set it."""
    lora: LoraConfig | None = None

    def resolve(self) -> ModelShape:
        """The shape of the model, with a value for every field.

        Raises:
            ValueError: the vocabulary is not known yet.
        """
        if self.vocab_size is None:
            raise ValueError("model.vocab_size is not set; it comes from the tokenizer of the data")
        names = {field.name for field in dataclasses.fields(ModelShape)}
        return ModelShape(**{name: value for name, value in self if name in names and value is not None})

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        given = {name: value for name, value in raw.items() if value is not None}
        family = given.get("family", "gpt2")
        if family == "bigram":
            others = cls.model_fields.keys() - {"family", "vocab_size", "context_length"}
            refuse(given, "model", "family bigram", others)
            return given
        if family not in FAMILY_DEFAULTS:
            return given
        filled = {
            "n_layers": 4, "n_heads": 4, "d_model": 128, "dropout": 0.0, "zero_init_projections": False,
            "logit_softcap": 0.0, "value_embeddings": False, "key_shift": False, "ngram_orders": (), "score_head": False,
        } | FAMILY_DEFAULTS[family] | given  # fmt: skip
        if filled["position"] == "rope":
            filled.setdefault("rope_theta", 1e6 if family == "lfm2" else 10_000.0)
        else:
            refuse(given, "model", "learned positions", {"rope_theta", "rope_scaling", "no_rope_layers"})
        filled.setdefault("qkv_bias", filled["bias"])
        if filled.get("conv_layers"):
            filled.setdefault("conv_width", 3)
        else:
            refuse(given, "model", "no conv_layers", {"conv_width"})
        if filled["ngram_orders"]:
            filled.setdefault("ngram_buckets", 8192)
            filled.setdefault("ngram_dropout", 0.0)
        else:
            refuse(given, "model", "no ngram_orders", {"ngram_buckets", "ngram_dropout"})
        return filled

    @model_validator(mode="after")
    def _derive(self) -> Self:
        if self.n_heads is None or self.d_model is None:  # a bigram
            return self
        head_width, n_kv_heads, d_ff = self.head_width, self.n_kv_heads or self.n_heads, self.d_ff
        if head_width is None:
            if self.d_model % self.n_heads:
                raise ValueError(
                    f"model.n_heads {self.n_heads} does not divide model.d_model {self.d_model}; choose a divisor, "
                    "or give model.head_width"
                )
            head_width = self.d_model // self.n_heads
        if self.n_heads % n_kv_heads:
            raise ValueError(
                f"model.n_kv_heads {n_kv_heads} does not divide model.n_heads {self.n_heads}; choose a divisor"
            )
        if self.position == "rope" and head_width % 2:
            raise ValueError(f"rotary positions turn pairs, so model.head_width {head_width} must be even")
        for option in ("no_rope_layers", "conv_layers"):
            layers: tuple[int, ...] = getattr(self, option) or ()
            if outside := [layer for layer in layers if layer >= (self.n_layers or 0)]:
                raise ValueError(f"model.{option} names layer {outside[0]}, and the model has {self.n_layers}")
            if len(set(layers)) < len(layers):
                raise ValueError(f"model.{option} names a layer twice")
        convs = set(self.conv_layers or ())
        if len(convs) == self.n_layers:
            raise ValueError(f"model.conv_layers names all {self.n_layers} layers; leave one to attention")
        if both := convs & set(self.no_rope_layers or ()):
            raise ValueError(
                f"model.no_rope_layers names layer {min(both)}, which is a convolution and has no positions"
            )
        if self.value_embeddings and convs.issuperset(range(0, self.n_layers or 0, 2)):
            raise ValueError(
                "model.value_embeddings are for layers 0, 2, ..., which are all convolutions; leave them out"
            )
        if self.lora and set(self.lora.targets) == {"gates"} and not convs:
            raise ValueError(
                "model.lora.targets names gates only, and the model has no convolutions; name other layers"
            )
        if self.embedding_rows and self.vocab_size and self.embedding_rows < self.vocab_size:
            raise ValueError(
                f"model.embedding_rows {self.embedding_rows} is less than model.vocab_size {self.vocab_size}; leave it out"
            )
        if self.key_shift and head_width % 4:
            raise ValueError(f"model.key_shift needs a multiple of 4 as model.head_width, and it is {head_width}")
        if d_ff is None:
            d_ff = _round_up(8 * self.d_model // 3, 64) if self.activation == "swiglu" else 4 * self.d_model
        for name, value in (("head_width", head_width), ("n_kv_heads", n_kv_heads), ("d_ff", d_ff)):
            object.__setattr__(self, name, value)  # the one place where a frozen value is completed
        return self


@dataclass(frozen=True)
class ModelShape:
    """A resolved :class:`ModelConfig`: the same fields, none of them optional but the adapters and
    the scaling of rotary frequencies.

    Fields without meaning for a model are 0, False or empty: the layers, heads and widths of a bigram, the rotary base of a model
    with learned positions.
    """

    family: Family
    vocab_size: int
    context_length: int
    embedding_rows: int = 0
    n_layers: int = 0
    n_heads: int = 0
    n_kv_heads: int = 0
    d_model: int = 0
    head_width: int = 0
    d_ff: int = 0
    position: Literal["learned", "rope"] = "learned"
    rope_theta: float = 0.0
    rope_scaling: RopeScaling | None = None
    no_rope_layers: tuple[int, ...] = ()
    conv_layers: tuple[int, ...] = ()
    conv_width: int = 0
    sliding_window: int = 0
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_eps: float = 0.0
    activation: Literal["gelu", "gelu_tanh", "relu2", "swiglu"] = "gelu"
    bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    dropout: float = 0.0
    zero_init_projections: bool = False
    logit_softcap: float = 0.0
    value_embeddings: bool = False
    key_shift: bool = False
    ngram_orders: tuple[int, ...] = ()
    ngram_buckets: int = 0
    ngram_dropout: float = 0.0
    score_head: bool = False
    lora: LoraConfig | None = None

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding: as set, or the vocabulary rounded up to 64, which matrix products prefer."""
        return self.embedding_rows or _round_up(self.vocab_size, 64)

    @property
    def attention_layers(self) -> int:
        """The number of layers with attention."""
        return self.n_layers - len(self.conv_layers)

    @property
    def rows_in_files(self) -> int:
        """Rows of the embedding in other projects' files: without those that only round up."""
        return self.embedding_rows or self.vocab_size


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
