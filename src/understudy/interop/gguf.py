"""GGUF files, read as models and written for llama.cpp: weights, shape, tokenizer and chat template.

By the `gguf` package (extra `interop`), which dequantises all of GGUF's types. Written are f32, f16, bf16 and q8_0;
vectors and position embeddings stay in fp32, and under q8_0 a matrix whose rows are no multiple of 32 is stored in f16, as
llama.cpp's converter does. A written file is read again and computed by our model. The tokenizer is in gguf_tokenizer.py.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.model import ModelConfig, RopeScaling
from understudy.interop.gguf_tokenizer import add_tokenizer, read_tokenizer
from understudy.interop.gguf_tokenizer import check_tokenizer as check_tokenizer_of
from understudy.interop.huggingface import check_layers
from understudy.interop.memory import check_fits_memory
from understudy.interop.names import from_theirs, to_theirs
from understudy.interop.proof import TOLERANCE, ReferenceOutputs
from understudy.interop.shapes import ARCHITECTURES, MOST_CONTEXT, MOST_LAYERS, model_config, plain_shape, plain_weights

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from understudy.run import Run
    from understudy.tokenizer import Tokenizer

K_QUANTS = ("q6_k", "q5_k_m", "q4_k_m")
BLOCK = 32
"""Values that q8_0 quantises together."""
FAMILIES = tuple(name for name, row in ARCHITECTURES.items() if row.gguf == name)
"""Our families that are also GGUF's architectures."""
FACTORS = "rope_freqs.weight"
"""The tensor (K / 2) by which llama.cpp divides rotary frequencies; made from Llama 3's scaling."""


# ---- Reading --------------------------------------------------------------------------------------------------------


def read_gguf(path: Path, tokenizer: Tokenizer | None = None) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer]:
    """The model settings, the weights (by our names, in fp32) and the tokenizer of a GGUF file.

    Args:
        tokenizer: instead of the file's.

    Raises:
        ValueError: it is damaged, needs more memory than there is, or has no counterpart here.
    """
    reader = open_gguf(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    check_fits_memory(path, sum(4 * int(tensor.n_elements) for tensor in reader.tensors))
    shape = shape_from_metadata(metadata, {tensor.name: tensor for tensor in reader.tensors}, path)
    config = model_config(shape, path)
    check_layers(config, {tensor.name: tensor for tensor in reader.tensors}, path)
    try:
        tokenizer = tokenizer or read_tokenizer(metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; or give another tokenizer with the same ids by --tokenizer") from error
    tensors = read_tensors(path, reader)
    factors = tensors.pop(FACTORS, None)
    if factors is not None:
        shape["rope_scaling"] = scaling_from_factors(factors, config, path).model_dump()
    return shape, from_theirs(tensors, config, "gguf", path), tokenizer


def open_gguf(path: Path) -> Any:
    """The file, whose tensors are read from disk when they are used.

    Raises:
        ValueError: it is damaged, cut short, or one part of several.
    """
    import gguf

    with path.open("rb") as file:
        if file.read(4) != b"GGUF" and path.stat().st_size >= 4:
            raise ValueError(f"{path} is no GGUF file")
    try:
        reader = gguf.GGUFReader(path)
        needed = max((int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors), default=0)
    except (ValueError, LookupError, OverflowError, OSError, MemoryError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or cut short; fetch it again") from error
    if needed > path.stat().st_size:
        raise ValueError(f"{path} is cut short: it has {path.stat().st_size:,} bytes of {needed:,}; fetch it again")
    parts = reader.fields.get("split.count")
    if parts is not None and parts.contents() not in (0, 1):
        raise ValueError(f"{path} is one of {parts.contents()} parts; join them with `llama-gguf-split --merge`")
    return reader


def shape_from_metadata(metadata: Mapping[str, Any], tensors: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The model settings of a GGUF file.

    Raises:
        ValueError: another architecture, an option that our model lacks, or a setting that is missing.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"{path} holds a model of architecture {name!r}; {', '.join(FAMILIES)} can be imported")

    def setting(key: str, default: Any = None) -> Any:
        value = metadata.get(f"{name}.{key}", default)
        if value is None:
            raise ValueError(f"{path} lacks {name}.{key}; it is damaged, or of another kind")
        numbers = value if key == "attention.head_count_kv" and isinstance(value, list) and value else [value]
        if key != "rope.scaling.type" and not all(type(n) in (int, float) and 0 <= n < 2**40 for n in numbers):
            raise ValueError(
                f"{path} has {name}.{key} {str(value)[:40]!r}, which is no number of a model; it is damaged"
            )
        return value

    if setting("expert_count", 0):
        raise ValueError(f"{path} holds a mixture of experts, which has no counterpart here")
    if (scaling := setting("rope.scaling.type", "none")) not in ("none", "linear"):
        raise ValueError(f"{path} has the rope scaling {scaling!r}; models with none or linear can be imported")
    shape = {
        "family": name, "context_length": setting("context_length"), "n_layers": setting("block_count"),
        "n_heads": setting("attention.head_count"), "d_model": setting("embedding_length"),
        "d_ff": setting("feed_forward_length"), "tied": "output.weight" not in tensors,
    }  # fmt: skip
    if not 1 <= shape["n_layers"] <= MOST_LAYERS or not 1 <= shape["context_length"] <= MOST_CONTEXT:
        raise ValueError(
            f"{path} has {shape['n_layers']} layers and a context of {shape['context_length']} tokens; up to {MOST_LAYERS} "
            f"and {MOST_CONTEXT:,} can be imported"
        )
    if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
        raise ValueError(f"{path} lacks token_embd.weight; it is damaged, or of another kind")
    shape["vocab_size"] = int(tensors["token_embd.weight"].shape[1])
    if name == "gpt2":
        return shape | {"norm_eps": _fp32(setting("attention.layer_norm_epsilon")), "activation": "gelu_tanh"}
    shape |= {
        "n_kv_heads": setting("attention.head_count_kv", shape["n_heads"]),
        "norm_eps": _fp32(setting("attention.layer_norm_rms_epsilon")),
        "rope_theta": _fp32(setting("rope.freq_base", 10_000.0)),
    }  # fmt: skip
    if f"{name}.attention.key_length" in metadata:
        shape["head_width"] = setting("attention.key_length")
    if scaling == "linear":
        shape["rope_scaling"] = {"type": "linear", "factor": setting("rope.scaling.factor")}
    if name == "smollm3":
        shape["no_rope_layers"] = list(range(3, shape["n_layers"], 4))
    if isinstance(heads := shape["n_kv_heads"], list):  # by layer; a convolution has none
        shape["n_kv_heads"] = max(heads)
        known = (0, max(heads)) if name == "lfm2" else (max(heads),)
        if len(heads) != shape["n_layers"] or not max(heads) or any(count not in known for count in heads):
            raise ValueError(
                f"{path} has layers with different numbers of key and value heads, which has no counterpart here"
            )
        if name == "lfm2":
            shape["conv_layers"] = [layer for layer, count in enumerate(heads) if not count]
    if shape.get("conv_layers"):
        shape["conv_width"] = setting("shortconv.l_cache")
    return shape


def _fp32(value: float) -> float:
    """The short number that was stored in fp32."""
    return float(f"{value:.7g}")


def scaling_from_factors(factors: Tensor, config: ModelConfig, path: Path) -> RopeScaling:
    """Llama 3's scaling of rotary frequencies, of which GGUF holds the factors (K / 2) only.

    Raises:
        ValueError: they are not those of a Llama 3.
    """
    import torch

    scaling = RopeScaling(type="llama3", factor=float(factors.max()) if factors.numel() else 1.0)
    if factors.shape != (config.resolve().head_width // 2,) or not torch.allclose(
        factors, rope_factors(config, scaling), rtol=1e-3
    ):
        raise ValueError(f"{path} scales rotary frequencies in another way than Llama 3, which has no counterpart here")
    return scaling


def rope_factors(config: ModelConfig, scaling: RopeScaling) -> Tensor:
    """The factors (K / 2) by which ``scaling`` divides the rotary frequencies."""
    from understudy.model.positions import rope_frequencies, scale_frequencies

    frequencies = rope_frequencies(config.resolve())
    return frequencies / scale_frequencies(frequencies, scaling)


def read_tensors(path: Path, reader: Any = None) -> dict[str, Tensor]:
    """The tensors of a GGUF file by name, in fp32.

    Args:
        reader: the file, if it is open already.

    Raises:
        ValueError: a type of quantisation that the `gguf` package cannot read.
    """
    import gguf
    import torch

    tensors = {}
    for tensor in (reader or open_gguf(path)).tensors:
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ValueError(
                f"{path} holds {tensor.name} as {tensor.tensor_type.name}, which cannot be read"
            ) from error
        tensors[tensor.name] = torch.from_numpy(values.astype("float32", copy=True))
    return tensors


# ---- Writing --------------------------------------------------------------------------------------------------------


def check_tokenizer(run: Run) -> None:
    """Refuse a run whose tokenizer GGUF cannot hold.

    Raises:
        ValueError: see gguf_tokenizer.py.
    """
    try:
        check_tokenizer_of(run.tokenizer)
    except ValueError as error:
        raise ValueError(f"the run {run.path} cannot be exported so: {error}") from error


def write_gguf(run: Run, reference: ReferenceOutputs, path: Path, type: str) -> list[str]:
    """Write a run as one file, adapters merged, and return a line for each check.

    Args:
        type: of the matrices. K-quants are made by llama.cpp's own tool from a file in f32.

    Raises:
        ValueError: a K-quant, and the tool is not installed.
    """
    import gguf
    import torch

    from understudy.model import merge_lora

    if type in K_QUANTS:
        return _write_k_quant(run, reference, path, type)
    merge_lora(run.model)
    config = plain_shape(run)
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.family].gguf)
    writer.add_name(run.path.name)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if type == "f32" else f"MOSTLY_{type.upper()}"])
    _add_shape(writer, config)
    add_tokenizer(writer, run.tokenizer, config.resolve().rows_in_files)
    tensors = to_theirs(plain_weights(run, config), config, "gguf")
    if config.rope_scaling is not None and config.rope_scaling.type == "llama3":
        tensors[FACTORS] = rope_factors(config, config.rope_scaling)
    for name, tensor in tensors.items():
        values = tensor.to(torch.float32).numpy()
        kind = _type_of(name, values, type)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    del tensors, writer  # not in memory while the file is read again
    return [_compare(config, reference, path, type)]


def _compare(config: ModelConfig, reference: ReferenceOutputs, path: Path, type: str) -> str:
    """Compare the logits that the written weights give with the run's."""
    written = read_tensors(path)
    written.pop(FACTORS, None)
    weights = from_theirs(written, config, "gguf", path)
    difference = reference.compare_weights(config, weights, path, TOLERANCE[type], "gguf")
    return f"read again, its {type} weights give logits within {difference:.1g} of ours"


def _write_k_quant(run: Run, reference: ReferenceOutputs, path: Path, type: str) -> list[str]:
    """Write a file whose matrices llama.cpp's llama-quantize has quantised."""
    tool = shutil.which("llama-quantize")
    if tool is None:
        raise ValueError(
            f"{type} is made by llama.cpp's llama-quantize, which is not on the PATH; install llama.cpp, or use --type q8_0"
        )
    whole = path.with_name(f".{path.name}.f32")
    write_gguf(run, reference, whole, "f32")
    done = subprocess.run([tool, str(whole), str(path), type.upper()], capture_output=True, text=True)
    whole.unlink()
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ValueError(f"llama-quantize could not write {type}: {lines[-1]}")
    return [_compare(plain_shape(run), reference, path, type), f"quantised by {tool}"]


def _add_shape(writer: Any, config: ModelConfig) -> None:
    import gguf

    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    if config.family == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_vocab_size(config.resolve().rows_in_files)
    if config.family == "lfm2":
        shape = config.resolve()
        writer.add_head_count_kv([0 if n in shape.conv_layers else shape.n_kv_heads for n in range(shape.n_layers)])
        writer.add_shortconv_l_cache(shape.conv_width or 3)
    else:
        writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling is not None and config.rope_scaling.type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)


def _type_of(name: str, values: np.ndarray, type: str) -> Any:
    """GGUF's storage type of a tensor."""
    import gguf

    if values.ndim == 1 or name == "position_embd.weight" or name.endswith("shortconv.conv.weight"):
        return gguf.GGMLQuantizationType.F32
    if type == "q8_0" and values.shape[1] % BLOCK:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[type.upper()]
