"""Runs as GGUF files for llama.cpp: weights, tokenizer, special tokens and chat template.

Written with the `gguf` package (extra `interop`). Vectors and position embeddings stay in fp32, and under q8_0 a matrix
whose rows are no multiple of 32 is stored in f16, as llama.cpp's converter does. A written file is read again and
computed by our model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.model import ModelConfig
from understudy.interop.huggingface_tokenizer import tokenizer_document
from understudy.interop.names import from_theirs, to_theirs
from understudy.interop.proof import EXACT, ReferenceOutputs
from understudy.interop.shapes import ARCHITECTURES, plain_shape, plain_weights
from understudy.tokenizer import END_OF_TEXT, BPETokenizer, Tokenizer
from understudy.tokenizer.chat import CHAT_TEMPLATE, END, speaks_chat

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from understudy.run import Run

SPLITTERS = {"gpt2": "gpt-2", "gpt4": "llama-bpe"}
"""llama.cpp's names of our split patterns; Llama 3 has GPT-4's."""
TYPES = ("f32", "f16", "q8_0")
TOLERANCE = {"f32": EXACT, "f16": 0.02, "q8_0": 0.1}
"""Largest difference of logits from ours by type, for logits up to 1 and in proportion above. Rounding stays below it,
and a wrong name or layout exceeds it."""
BLOCK = 32
"""Values that q8_0 quantises together."""


def check_tokenizer(run: Run) -> None:
    """Refuse a run whose tokenizer GGUF cannot hold.

    Raises:
        ValueError: a character tokenizer, or one without an end-of-text token.
    """
    if not isinstance(run.tokenizer, BPETokenizer):
        raise ValueError(
            f"the run {run.path} has a character tokenizer, and GGUF holds byte-level BPE only; train a run with that, or "
            "use --format hf"
        )
    if run.tokenizer.eot_id is None and not speaks_chat(run.tokenizer):
        raise ValueError(
            f"the tokenizer of {run.path} has no token that ends a text, and GGUF needs one; train one with {END_OF_TEXT}"
        )


def write_gguf(run: Run, reference: ReferenceOutputs, path: Path, type: str) -> list[str]:
    """Write a run as one file, adapters merged, and return a line for each check.

    Args:
        type: of the matrices, one of TYPES.
    """
    import gguf

    from understudy.model import merge_lora

    merge_lora(run.model)
    config = plain_shape(run)
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.family].gguf)
    writer.add_name(run.path.name)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if type == "f32" else f"MOSTLY_{type.upper()}"])
    _add_shape(writer, config)
    _add_tokenizer(writer, run.tokenizer)
    for name, tensor in to_theirs(plain_weights(run, config), config, "gguf").items():
        values = tensor.numpy()
        kind = _type_of(name, values, type)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = from_theirs(read_tensors(path), config, "gguf", path)
    difference = reference.compare_weights(config, weights, path, TOLERANCE[type], "gguf")
    return [f"read again, its {type} weights give logits within {difference:.1g} of ours"]


def _add_shape(writer: Any, config: ModelConfig) -> None:
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    if config.family == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)


def _add_tokenizer(writer: Any, tokenizer: Tokenizer) -> None:
    """Add the vocabulary, spelled as in Hugging Face's files, and the special tokens. The end-of-text token is always
    written, because llama.cpp takes token 11 by default."""
    import gguf

    if not isinstance(tokenizer, BPETokenizer):
        raise TypeError(f"GGUF holds no tokenizer of kind {tokenizer.kind}")
    model = tokenizer_document(tokenizer)["model"]
    spelled = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = set(tokenizer.special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITTERS[tokenizer.pattern])
    writer.add_token_list(spelled)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in spelled])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    end = tokenizer.special_tokens.get(END, tokenizer.eot_id)
    begin = tokenizer.eot_id if tokenizer.eot_id is not None else end
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    if speaks_chat(tokenizer):
        writer.add_eot_token_id(end)
        writer.add_chat_template(CHAT_TEMPLATE)


def _type_of(name: str, values: np.ndarray, type: str) -> Any:
    """GGUF's storage type of a tensor."""
    import gguf

    if values.ndim == 1 or name == "position_embd.weight":
        return gguf.GGMLQuantizationType.F32
    if type == "q8_0" and values.shape[1] % BLOCK:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[type.upper()]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a GGUF file by name, in fp32."""
    import gguf
    import torch

    return {
        tensor.name: torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in gguf.GGUFReader(path).tensors
    }
