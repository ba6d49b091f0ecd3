"""Each family of models against transformers on random weights: logits uncached, cached and packed; in, out, to the bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from test_interop_huggingface import SAMPLE
from understudy.config.model import ModelConfig
from understudy.interop.export import export_run
from understudy.interop.huggingface import read_huggingface, read_weights
from understudy.interop.huggingface_tokenizer import config_document as tokenizer_settings
from understudy.interop.huggingface_tokenizer import tokenizer_document, write_together
from understudy.interop.imports import import_model
from understudy.interop.names import from_theirs, to_theirs
from understudy.interop.shapes import ARCHITECTURES, config_document, shape_from_document
from understudy.model import GPT, KVCache
from understudy.model.masks import cached, packed
from understudy.model.weights import load_weights, weights_of
from understudy.run import load_run
from understudy.tokenizer import train_tokenizer

transformers: Any = pytest.importorskip(
    "transformers", reason="transformers comes with `pip install 'understudy[interop]'`"
)
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 5e3,
}  # fmt: skip
NO_SPECIAL = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama with scaled positions": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama with stretched positions": (
        "LlamaConfig",
        {"head_dim": 24, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "mistral": ("MistralConfig", {"sliding_window": 7}),
    "mistral without a window": ("MistralConfig", {"sliding_window": None}),
    "smollm3": ("SmolLM3Config", NO_SPECIAL),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention", "conv", "conv", "full_attention"]}),
    "lfm2 with a wider convolution": (
        "Lfm2Config",
        {"full_attn_idxs": [2], "conv_L_cache": 4, "block_multiple_of": 32},
    ),
}


def theirs_of(kind: str, folder: Path, tied: bool, kv_heads: int, **more: Any) -> Any:
    """A model of transformers' with random weights, none of them zero or one, saved in ``folder``."""
    name, options = KINDS[kind]
    config = getattr(transformers, name)(
        hidden_size=64, intermediate_size=96, num_hidden_layers=5, num_attention_heads=4, vocab_size=300,
        max_position_embeddings=64, num_key_value_heads=kv_heads, tie_word_embeddings=tied, **options, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_are_those_of_transformers(kind: str, kv_heads: int, tied: bool, tmp_path: Path) -> None:
    theirs = theirs_of(kind, tmp_path, tied, kv_heads)
    settings, weights = read_huggingface(tmp_path)
    ours = GPT(ModelConfig(**settings)).eval()
    load_weights(ours, weights, tmp_path)
    tokens = torch.randint(0, 300, (2, 40))
    expected = theirs(tokens).logits

    def check(logits: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)

    check(ours(tokens), expected)
    rows, row = KVCache(ours.shape, 2), KVCache(ours.shape, 1)
    cuts = [0, 3, 4, 20, 21, 22, 40]
    steps = [ours.logits(ours.hidden(tokens[:, start:end], cached(rows, end - start))) for start, end in pairwise(cuts)]
    check(torch.cat(steps, 1), expected)
    singles = [ours.logits(ours.hidden(tokens[:1, at : at + 1], cached(row, 1))) for at in range(40)]
    check(torch.cat(singles, 1), expected[:1])
    documents = torch.tensor([[0] * 15 + [1] * 25, [0] * 38 + [-1] * 2])
    in_rows = ours.logits(ours.hidden(tokens, packed(documents)))
    check(in_rows[0, 15:], theirs(tokens[:1, 15:]).logits[0])
    check(in_rows[1, :38], expected[1, :38])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_in_and_out_to_the_bit(kind: str, tied: bool, tmp_path: Path) -> None:
    """Through our names and back, by Hugging Face's names and by GGUF's; the configuration too."""
    theirs_of(kind, tmp_path, tied, 2)
    settings, weights = read_huggingface(tmp_path)
    config, before = ModelConfig(**settings), read_weights(tmp_path)
    after = to_theirs(weights, config, "huggingface")
    assert after.keys() == before.keys() - ({"lm_head.weight"} if tied else set())
    assert all(torch.equal(after[name], before[name]) for name in after)
    again = from_theirs(to_theirs(weights, config, "gguf"), config, "gguf", "a test")
    assert again.keys() == weights.keys() and all(torch.equal(again[name], weights[name]) for name in weights)
    assert ModelConfig(**shape_from_document(config_document(config), "a test")) == config


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_defaults_are_those_of_transformers(name: str) -> None:
    """What a config.json leaves out means the same here as there."""
    architecture = ARCHITECTURES[name]
    config = transformers.AutoConfig.for_model(architecture.model_type)
    rope = getattr(config, "rope_parameters", None) or {}
    for option, value in architecture.defaults.items():
        if value is not None and option != "n_inner":
            assert (rope.get(option) if option == "rope_theta" else getattr(config, option)) == value, option


REAL: dict[str, tuple[str, int, dict[str, Any]]] = {
    "SmolLM2-135M": (
        "LlamaConfig", 3, {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
                           "vocab_size": 49152, "rope_theta": 1e5, "tie_word_embeddings": True}),
    "Llama-3.2-1B": (
        "LlamaConfig", 8, {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8,
                           "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
                           "rope_parameters": LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192,
                                                        "rope_theta": 5e5}}),
    "Llama-2-7B": (
        "LlamaConfig", 16, {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
                            "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False}),
    "Mistral-7B-v0.1": (
        "MistralConfig", 8, {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
                             "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32000, "sliding_window": 4096}),
    "SmolLM3-3B": (
        "SmolLM3Config", 4, NO_SPECIAL | {"hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16,
                                          "num_key_value_heads": 4, "vocab_size": 128256, "tie_word_embeddings": True}),
    "Qwen2.5-0.5B": (
        "Qwen2Config", 2, {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
                           "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1e6, "tie_word_embeddings": True}),
    "Qwen3-0.6B": (
        "Qwen3Config", 8, {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16,
                           "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}),
    "LFM2-350M": (
        "Lfm2Config", 8, {"hidden_size": 1024, "intermediate_size": 6656, "num_attention_heads": 16,
                          "num_key_value_heads": 8, "vocab_size": 65536,
                          "layer_types": ["conv", "conv", "full_attention", "conv"]}),
    "GPT-2 XL": ("GPT2Config", 5, {"n_embd": 1600, "n_head": 25, "vocab_size": 50257, "resid_pdrop": 0.0}),
}  # fmt: skip
"""Published shapes, and by how much their widths and heads are divided here. They get four layers."""
DIVIDED = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "n_embd", "n_head",
)  # fmt: skip


@pytest.mark.parametrize("name", REAL)
@torch.no_grad()
def test_real_proportions_in_out_and_in_again(name: str, tmp_path: Path) -> None:
    """A folder imported, exported as a folder and as GGUF, and both imported again: the same logits and bits everywhere."""
    kind, divisor, options = REAL[name]
    divided = {option: size // divisor if option in DIVIDED else size for option, size in options.items()}
    divided["vocab_size"] = options["vocab_size"] // 100  # it has no part in the proportions of the layers
    layers = {"n_layer": 4} if kind == "GPT2Config" else {"num_hidden_layers": 4}
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**divided | layers)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path / "theirs"
    theirs.save_pretrained(folder)
    tokenizer = train_tokenizer("bpe", SAMPLE, 290)
    write_together(folder, {
        "tokenizer.json": tokenizer_document(tokenizer), "tokenizer_config.json": tokenizer_settings(tokenizer),
    })  # fmt: skip
    run = load_run(import_model(str(folder), str(tmp_path / "run")).path)
    tokens = torch.randint(0, 290, (2, 40))
    torch.testing.assert_close(run.model(tokens), theirs(tokens).logits[..., :290], atol=1e-4, rtol=0)
    before, weights = read_weights(folder), weights_of(run.model)
    for format in ("hf",) if "Mistral" in name else ("hf", "gguf"):  # GGUF has no sliding window
        export_run(load_run(run.path), format, out := tmp_path / format, "f32")
        source = out if format == "hf" else next(out.glob("*.gguf"))
        again = load_run(import_model(str(source), str(tmp_path / f"{format}-run")).path)
        after = weights_of(again.model)
        assert after.keys() == weights.keys() and all(torch.equal(after[n], weights[n]) for n in weights)
        assert again.config.model == run.config.model
    written = read_weights(tmp_path / "hf")
    assert all(torch.equal(written[n], before[n]) for n in written) and len(before) - len(written) in (0, 1)


REFUSED = {
    "a mixture of experts": ({"model_type": "mixtral", "num_local_experts": 8}, "a mixture of experts"),
    "more than text": ({"model_type": "gemma3", "vision_config": {}}, "reads more than text"),
    "another type": ({"model_type": "olmo2"}, "'olmo2'; models of type gpt2, llama"),
    "unknown positions": ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type 'yarn'"),
    "biases everywhere": ({"attention_bias": True}, "attention_bias True"),
    "quantised weights": ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
    "another activation": ({"hidden_act": "relu"}, "activation 'relu'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(name: str) -> None:
    changes, reason = REFUSED[name]
    document = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300,
        "num_attention_heads": 4,
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match=reason):
        shape_from_document(document, "config.json")


def test_a_scaling_beside_rope_parameters_is_the_one_that_counts() -> None:
    """transformers 5 writes rope_parameters, and model cards tell users to add rope_scaling."""
    document = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300,
        "num_attention_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    }  # fmt: skip
    assert shape_from_document(document, "config.json")["rope_scaling"] == {"type": "linear", "factor": 2.0}


def test_layers_of_several_kinds_are_refused() -> None:
    document = {
        "model_type": "mistral", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300,
        "num_attention_heads": 4, "sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"],
    }  # fmt: skip
    with pytest.raises(ValueError, match="layer_types"):
        shape_from_document(document, "config.json")


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 10**9}, {"max_position_embeddings": 10**9}])
def test_absurd_sizes_are_refused_at_once(changes: dict[str, int]) -> None:
    document = {
        "model_type": "smollm3", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300,
        "num_attention_heads": 4,
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match="can be imported"):
        shape_from_document(document, "config.json")


def test_the_first_lfm2_files_are_read_as_transformers_reads_them() -> None:
    """They name the MLP's width and the layers with attention otherwise."""
    document = {
        "model_type": "lfm2", "hidden_size": 64, "block_ff_dim": 96, "block_multiple_of": 16, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "full_attn_idxs": [1], "tie_embedding": True,
    }  # fmt: skip
    shape = shape_from_document(document, "config.json")
    assert (shape["d_ff"], shape["conv_layers"], shape["tied"]) == (64, [0, 2], True)
    for changes in ({"num_hidden_layers": "3"}, {"full_attn_idxs": 1}, {"layer_types": ["conv"]}):
        with pytest.raises(ValueError, match="damaged"):
            shape_from_document(document | changes, "config.json")
