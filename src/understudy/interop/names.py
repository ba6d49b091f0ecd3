"""Names and layouts of the weights in other formats: one table for each family, read in both directions.

Several names of theirs for one of our matrices are its parts, in order of rows. `.T` marks a transposed matrix. N is the
number of a block. Kinds of rows:

    tokens     a row for each token; the other format has no padding rows, and ours are zeros
    heads      queries, keys and values in one matrix; GGUF's llama has the rotary pairs of q and k side by side
    halves     the gate of SwiGLU, then its values
    conv       a weight for each feature and place, (D, 1, W); GGUF's is (D, W)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.config.model import ModelConfig, ModelShape
from understudy.model.weights import check_shapes

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class NameRow:
    """The names of one weight, or of the same weight of every block."""

    ours: str
    huggingface: str
    gguf: str
    kind: str = ""


def _with_biases(*rows: NameRow) -> tuple[NameRow, ...]:
    """Each row, followed by that of its bias."""
    with_biases = []
    for row in rows:
        names = (row.ours, row.huggingface.removesuffix(".T"), row.gguf)
        with_biases += [row, NameRow(*(name.replace(".weight", ".bias") for name in names))]
    return tuple(with_biases)


TABLES: dict[str, tuple[NameRow, ...]] = {
    "gpt2": (
        NameRow("token_embedding.weight", "transformer.wte.weight", "token_embd.weight", "tokens"),
        NameRow("position_embedding.weight", "transformer.wpe.weight", "position_embd.weight"),
        *_with_biases(
            NameRow("blocks.N.attention_norm.weight", "transformer.h.N.ln_1.weight", "blk.N.attn_norm.weight"),
            NameRow("blocks.N.attention.qkv.weight", "transformer.h.N.attn.c_attn.weight.T", "blk.N.attn_qkv.weight"),
            NameRow("blocks.N.attention.project.weight", "transformer.h.N.attn.c_proj.weight.T", "blk.N.attn_output.weight"),
            NameRow("blocks.N.mlp_norm.weight", "transformer.h.N.ln_2.weight", "blk.N.ffn_norm.weight"),
            NameRow("blocks.N.mlp.up.weight", "transformer.h.N.mlp.c_fc.weight.T", "blk.N.ffn_up.weight"),
            NameRow("blocks.N.mlp.down.weight", "transformer.h.N.mlp.c_proj.weight.T", "blk.N.ffn_down.weight"),
            NameRow("norm.weight", "transformer.ln_f.weight", "output_norm.weight"),
        ),
        NameRow("head.weight", "lm_head.weight", "output.weight", "tokens"),
        NameRow("score.weight", "score.weight", "score.weight"),
    ),
    "llama": (
        NameRow("token_embedding.weight", "model.embed_tokens.weight", "token_embd.weight", "tokens"),
        NameRow("blocks.N.attention_norm.weight", "model.layers.N.input_layernorm.weight", "blk.N.attn_norm.weight"),
        NameRow(
            "blocks.N.attention.qkv.weight",
            "model.layers.N.self_attn.q_proj.weight model.layers.N.self_attn.k_proj.weight "
            "model.layers.N.self_attn.v_proj.weight",
            "blk.N.attn_q.weight blk.N.attn_k.weight blk.N.attn_v.weight",
            "heads",
        ),
        NameRow(
            "blocks.N.attention.qkv.bias",
            "model.layers.N.self_attn.q_proj.bias model.layers.N.self_attn.k_proj.bias "
            "model.layers.N.self_attn.v_proj.bias",
            "blk.N.attn_q.bias blk.N.attn_k.bias blk.N.attn_v.bias",
            "heads",
        ),
        NameRow("blocks.N.attention.query_norm.weight", "model.layers.N.self_attn.q_norm.weight", "blk.N.attn_q_norm.weight"),
        NameRow("blocks.N.attention.key_norm.weight", "model.layers.N.self_attn.k_norm.weight", "blk.N.attn_k_norm.weight"),
        NameRow("blocks.N.attention.project.weight", "model.layers.N.self_attn.o_proj.weight", "blk.N.attn_output.weight"),
        NameRow("blocks.N.mlp_norm.weight", "model.layers.N.post_attention_layernorm.weight", "blk.N.ffn_norm.weight"),
        NameRow(
            "blocks.N.mlp.up.weight",
            "model.layers.N.mlp.gate_proj.weight model.layers.N.mlp.up_proj.weight",
            "blk.N.ffn_gate.weight blk.N.ffn_up.weight",
            "halves",
        ),
        NameRow("blocks.N.mlp.down.weight", "model.layers.N.mlp.down_proj.weight", "blk.N.ffn_down.weight"),
        NameRow("norm.weight", "model.norm.weight", "output_norm.weight"),
        NameRow("head.weight", "lm_head.weight", "output.weight", "tokens"),
        NameRow("score.weight", "score.weight", "score.weight"),
    ),
}  # fmt: skip
LFM2_NAMES = {
    "input_layernorm": "operator_norm", "post_attention_layernorm": "ffn_norm", "model.norm": "model.embedding_norm",
    "q_norm.weight": "q_layernorm.weight", "k_norm.weight": "k_layernorm.weight", "o_proj": "out_proj",
    "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
}  # fmt: skip
"""Parts of Llama's names in Hugging Face's files, and what LFM2 has in their place."""


def _lfm2_rows() -> tuple[NameRow, ...]:
    """Llama's rows by LFM2's names, and those of its convolutions."""
    rows = []
    for row in TABLES["llama"]:
        name = row.huggingface
        for llama, lfm2 in LFM2_NAMES.items():
            name = name.replace(llama, lfm2)
        rows.append(NameRow(row.ours, name, row.gguf.replace("output_norm", "token_embd_norm"), row.kind))
    return (
        *rows,
        NameRow("blocks.N.conv.gates.weight", "model.layers.N.conv.in_proj.weight", "blk.N.shortconv.in_proj.weight"),
        NameRow("blocks.N.conv.conv.weight", "model.layers.N.conv.conv.weight", "blk.N.shortconv.conv.weight", "conv"),
        NameRow("blocks.N.conv.project.weight", "model.layers.N.conv.out_proj.weight", "blk.N.shortconv.out_proj.weight"),
    )  # fmt: skip


TABLES["lfm2"] = _lfm2_rows()

PAIRED_IN_GGUF = ("llama", "mistral", "smollm3")
"""Families whose rotary pairs are neighbours in GGUF: features k and k + K/2 of a head become 2k and 2k + 1."""


def table_of(family: str) -> tuple[NameRow, ...]:
    """The names of a family's weights."""
    return TABLES.get(family, TABLES["llama"])


COLUMNS: dict[str, Callable[[NameRow], list[str]]] = {
    "huggingface": lambda row: row.huggingface.split(),
    "nanogpt": lambda row: row.huggingface.replace(".weight.T", ".weight").split(),  # GPT-2's names, our layout
    "gguf": lambda row: row.gguf.split(),
}


@dataclass(frozen=True)
class TensorPlace:
    """The tensors of another format that make up one of our weights.

    Attributes:
        names: their names.
        sizes: rows of our weight for each name; without padding rows they add up to all rows.
        padding: padding rows of our weight.
        paired_width: the head width, if their queries and keys have neighbouring rotary pairs; else 0.
        squeezed: whether theirs lacks the second dimension, which is 1.
    """

    ours: str
    names: tuple[str, ...]
    transposed: bool
    sizes: tuple[int, ...]
    padding: int
    paired_width: int = 0
    squeezed: bool = False

    def reorder(self, part: Tensor, number: int, back: bool = False) -> Tensor:
        """Part ``number`` of our weight with its rotary pairs in their order, or back in ours."""
        if not self.paired_width or number == 2:  # the values have no positions
            return part
        heads = part.unflatten(0, (-1, self.paired_width)).unflatten(1, (-1, 2) if back else (2, -1))
        return heads.transpose(1, 2).flatten(0, 2)


def places(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, column: str) -> list[TensorPlace]:
    """The place of each of our weights, given their shapes by name."""
    table = {row.ours: row for row in table_of(config.family)}
    tensor_places = []
    for ours, shape in shapes.items():
        number = re.search(r"\.(\d+)\.", ours)
        row = table[re.sub(r"\.\d+\.", ".N.", ours)]
        names = [name.replace(".N.", f".{number[1]}.") if number else name for name in COLUMNS[column](row)]
        rows = rows_of(row.kind, config.resolve(), shape[0])
        transposed = names[0].endswith(".T")
        plain_names, padding = tuple(name.removesuffix(".T") for name in names), shape[0] - sum(rows)
        paired = column == "gguf" and row.kind == "heads" and config.family in PAIRED_IN_GGUF
        paired_width = config.resolve().head_width if paired else 0
        squeezed = column == "gguf" and row.kind == "conv"
        tensor_places.append(
            TensorPlace(ours, plain_names, transposed, rows[: len(names)], padding, paired_width, squeezed)
        )
    return tensor_places


def to_theirs(weights: Tensors, config: ModelConfig, column: str) -> Tensors:
    """Our weights under their names and in their layout, without padding rows; tied ones once."""
    import torch

    theirs = {}
    for place in places({name: tuple(t.shape) for name, t in weights.items()}, config, column):
        parts = weights[place.ours][: sum(place.sizes)].split(place.sizes)
        for number, (name, part) in enumerate(zip(place.names, parts)):
            part = place.reorder(part.squeeze(1) if place.squeezed else part, number)
            # a copy, because safetensors refuses views of a larger tensor
            theirs[name] = (part.T if place.transposed else part).clone(memory_format=torch.contiguous_format)
    return theirs


def from_theirs(tensors: Tensors, config: ModelConfig, column: str, source: object) -> Tensors:
    """The inverse of :func:`to_theirs`, in the tensors' own precision.

    Args:
        source: the name of the file, for errors.

    Raises:
        ValueError: a tensor that is missing, unknown, or of another shape than that of ``config``.
    """
    import torch

    shapes = shapes_of(config)
    tensor_places = places(shapes, config, column)
    expected: dict[str, tuple[int, ...]] = {}
    for place in tensor_places:
        parts_shapes = [(size, *shapes[place.ours][1 + place.squeezed :]) for size in place.sizes]
        expected |= zip(place.names, (shape[::-1] if place.transposed else shape for shape in parts_shapes))
    check_shapes(tensors, expected, source)
    ours = {}
    for place in tensor_places:
        parts = [place.reorder(tensors[name], number, back=True) for number, name in enumerate(place.names)]
        parts = [part.T for part in parts] if place.transposed else parts
        parts = [part.unsqueeze(1) for part in parts] if place.squeezed else parts
        padding = parts[0].new_zeros(place.padding, *parts[0].shape[1:])
        ours[place.ours] = torch.cat([*parts, padding]) if len(parts) > 1 or place.padding else parts[0].contiguous()
    return ours


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of a model, by name, without memory for the weights."""
    import torch

    from understudy.model import build_model

    with torch.device("meta"):
        model = build_model(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def rows_of(kind: str, shape: ModelShape, rows: int) -> tuple[int, ...]:
    """Rows of a weight for each of their names."""
    if kind == "tokens":
        return (shape.rows_in_files,)
    if kind == "heads":
        return tuple(n * shape.head_width for n in (shape.n_heads, shape.n_kv_heads, shape.n_kv_heads))
    if kind == "halves":
        return (rows // 2, rows // 2)
    return (rows,)
