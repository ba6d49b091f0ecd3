"""Each family of models against transformers on random weights: logits uncached, cached and packed; in, out, to the bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.config.model import ModelConfig
from understudy.interop.huggingface import read_huggingface, read_weights
from understudy.interop.names import from_theirs, to_theirs
from understudy.interop.shapes import ARCHITECTURES, config_document, shape_from_document
from understudy.model import GPT, KVCache
from understudy.model.masks import cached, packed
from understudy.model.weights import load_weights

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
