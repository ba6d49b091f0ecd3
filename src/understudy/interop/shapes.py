"""Model settings in other formats, and the refusal of options that a format lacks.

Adapters are merged, missing biases become zeros, and padding rows of the vocabulary are cut off; the outputs stay the
same. An option that changes the outputs and that the format lacks is refused by name. Names of weights are in names.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from understudy.config.load import build_config
from understudy.config.model import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.run import Run

OURS_ALONE: dict[str, Any] = {"ngram_orders": (), "value_embeddings": False, "key_shift": False, "logit_softcap": 0.0}
"""Options that no other format has, and the values that turn them off."""


@dataclass(frozen=True)
class ModelFamily:
    """A family in Hugging Face's files.

    Attributes:
        base: prefix of the names of all weights but the heads'; files of a model without a head leave it out.
        fields: from our names of settings to theirs.
        activations: from our names to theirs.
        always: required values of our settings.
        theirs_always: required values of their settings, if given.
        defaults: their defaults.
    """

    model_type: str
    language_model: str
    reward_model: str
    base: str
    fields: dict[str, str]
    activations: dict[str, str]
    always: dict[str, Any]
    theirs_always: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, ModelFamily] = {
    "gpt2": ModelFamily(
        model_type="gpt2",
        language_model="GPT2LMHeadModel",
        reward_model="GPT2ForSequenceClassification",
        base="transformer.",
        fields={
            "vocab_size": "vocab_size", "context_length": "n_positions", "n_layers": "n_layer", "n_heads": "n_head",
            "d_model": "n_embd", "d_ff": "n_inner", "norm_eps": "layer_norm_epsilon", "tied": "tie_word_embeddings",
            "dropout": "resid_pdrop",
        },
        activations={"gelu_tanh": "gelu_new", "gelu": "gelu", "relu2": "relu2"},
        always={"position": "learned", "norm": "layernorm", "qk_norm": False},
        theirs_always={
            "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False,
        },
        defaults={
            "n_positions": 1024, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True, "resid_pdrop": 0.1,
        },
    ),
    "portable": ModelFamily(
        model_type="qwen3",
        language_model="Qwen3ForCausalLM",
        reward_model="Qwen3ForSequenceClassification",
        base="model.",
        fields={
            "vocab_size": "vocab_size", "context_length": "max_position_embeddings", "n_layers": "num_hidden_layers",
            "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads", "d_model": "hidden_size",
            "head_width": "head_dim", "d_ff": "intermediate_size", "norm_eps": "rms_norm_eps",
            "tied": "tie_word_embeddings",
        },
        activations={"swiglu": "silu"},
        always={"position": "rope", "norm": "rmsnorm", "qk_norm": True, "bias": False},
        theirs_always={"attention_bias": False, "use_sliding_window": False},
        defaults={
            "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "head_dim": 128,
            "num_key_value_heads": 32, "tie_word_embeddings": False,
        },
    ),
}  # fmt: skip
ACTIVATION_FIELD = {"gpt2": "activation_function", "portable": "hidden_act"}
ALIASES = {"gelu_pytorch_tanh": "gelu_new"}

FORMATS = {"hf": "Hugging Face", "gguf": "GGUF", "ollama": "Ollama", "nanogpt": "nanoGPT"}
NARROWER: dict[str, dict[str, dict[str, Any]]] = {
    "gguf": {"gpt2": {"activation": "gelu_tanh"}},
    "nanogpt": {"gpt2": {"activation": "gelu", "norm_eps": 1e-5, "tied": True}},
}
"""Required values of a format beside those of ``always``. nanoGPT has one family."""


def check_exportable(run: Run, format: str) -> None:
    """Refuse a run that the format cannot hold.

    Raises:
        ValueError: names every option in the way, its value, and the values that can be exported.
    """
    config, name = run.config.model, FORMATS[format]
    if config.family == "bigram":
        raise ValueError(f"the run {run.path} is a bigram, and {name} has no counterpart for it; export a GPT")
    if gives_scores(run) and format != "hf":
        raise ValueError(f"the run {run.path} gives scores, which {name} has no counterpart for; use --format hf")
    if format == "nanogpt" and config.family != "gpt2":
        raise ValueError(f"nanoGPT has no counterpart for model.family {config.family}; use --format hf or gguf")
    family = FAMILIES[config.family]
    narrower = NARROWER.get("gguf" if format == "ollama" else format, {}).get(config.family, {})
    fixed = OURS_ALONE | family.always
    if config.family == "gpt2":
        shape = config.resolve()
        fixed |= {"n_kv_heads": shape.n_heads, "head_width": shape.d_model // shape.n_heads}
        fixed |= {"d_ff": 4 * shape.d_model} if format == "nanogpt" else {}
    wanted = {"activation": tuple(family.activations)} | {
        option: (value,) for option, value in (fixed | narrower).items()
    }
    if refused := [option for option, values in wanted.items() if getattr(config, option) not in values]:
        given = " and ".join(f"model.{option} {getattr(config, option)!r}" for option in refused)
        known = " ".join(f"--model.{option} {' or '.join(map(_typed, wanted[option]))}" for option in refused)
        raise ValueError(
            f"{name} has no counterpart for {given} in the family {config.family}; only a run trained with {known} can "
            "be exported"
        )


def _typed(value: Any) -> str:
    """A value as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def gives_scores(run: Run) -> bool:
    """Whether a run is a reward model. The score head of a PPO policy, its critic's, is not exported."""
    return not run.config.info.generates


def plain_shape(run: Run, bias: bool = True) -> ModelConfig:
    """The shape of the exported model: without adapters, with as many tokens as the tokenizer.

    Args:
        bias: give the gpt2 family biases, zeros if the run has none.
    """
    shape = run.config.model.model_dump(exclude_none=True) | {"vocab_size": run.tokenizer.vocab_size}
    shape.pop("lora", None)
    shape["score_head"] = gives_scores(run)
    if run.config.model.family == "gpt2" and bias:
        shape["bias"] = True
    return ModelConfig(**shape)


def plain_weights(run: Run, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of a run, whose adapters are merged, in the shape of :func:`plain_shape`."""
    import torch

    from understudy.interop.names import shapes_of
    from understudy.model.weights import weights_of

    shapes = shapes_of(config)
    weights = {name: tensor for name, tensor in weights_of(run.model).items() if name in shapes}
    absent = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in weights}
    if missing := [name for name in absent if not name.endswith(".bias")]:
        raise TypeError(f"the model of {run.path} has no weight {missing[0]}")
    return fit_rows(weights | absent, run.config.model, config)


def fit_rows(weights: dict[str, Tensor], before: ModelConfig, after: ModelConfig) -> dict[str, Tensor]:
    """Weights of the shape ``before``, cut to the tokens and positions of ``after``."""
    from understudy.interop.names import TABLES

    old, new = before.resolve(), after.resolve()
    assert new.vocab_size <= old.vocab_size, f"{new.vocab_size} tokens from a model of {old.vocab_size}"
    fitted = dict(weights)
    if old.vocab_size != new.vocab_size:
        for name in {row.ours for row in TABLES[after.family] if row.kind == "tokens"} & fitted.keys():
            table = fitted[name][: new.padded_vocab_size].clone()
            table[new.vocab_size :] = 0
            fitted[name] = table
    if "position_embedding.weight" in fitted:
        fitted["position_embedding.weight"] = fitted["position_embedding.weight"][: after.context_length].contiguous()
    return fitted


def config_document(config: ModelConfig) -> dict[str, Any]:
    """The content of Hugging Face's config.json for a model."""
    family = FAMILIES[config.family]
    document: dict[str, Any] = {
        "architectures": [family.reward_model if config.score_head else family.language_model],
        "model_type": family.model_type,
        **{theirs: getattr(config, ours) for ours, theirs in family.fields.items()},
        ACTIVATION_FIELD[config.family]: family.activations[config.resolve().activation],
        **family.theirs_always,
        "dtype": "float32",
    }
    if config.family == "gpt2":
        document |= {"embd_pdrop": config.dropout, "attn_pdrop": 0.0}
    else:  # transformers from version 5 on reads rope_parameters, everything else rope_theta
        document |= {
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        }
    if config.score_head:
        document |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
    return document


def shape_from_document(document: Mapping[str, Any], source: object) -> dict[str, Any]:
    """The model settings of a config.json of Hugging Face.

    Raises:
        ValueError: another architecture, or an option that our model lacks.
    """
    kinds = {family.model_type: name for name, family in FAMILIES.items()}
    model_type = document.get("model_type")
    if not isinstance(model_type, str) or model_type not in kinds:
        raise ValueError(
            f"{source} describes a model of type {model_type!r}; models of type {' and '.join(kinds)} can be imported"
        )
    name = kinds[model_type]
    family = FAMILIES[name]
    architectures = document.get("architectures") or []
    for architecture in architectures if isinstance(architectures, list) else [architectures]:
        headless = family.language_model.replace("LMHead", "").replace("ForCausalLM", "Model")
        if architecture not in (family.language_model, headless):
            raise ValueError(f"{source} describes a {architecture}; {family.language_model} can be imported")
    for option, value in family.theirs_always.items():
        _their_option(source, option, document.get(option, value), value)
    settings = family.defaults | {option: value for option, value in document.items() if value is not None}
    if missing := [theirs for theirs in family.fields.values() if theirs not in settings]:
        raise ValueError(f"{source} lacks {missing[0]}; it is damaged, or of another kind")
    shape = {"family": name} | {
        ours: settings[theirs] for ours, theirs in family.fields.items() if settings[theirs] is not None
    }
    activation = str(settings[ACTIVATION_FIELD[name]])
    known = {theirs: ours for ours, theirs in family.activations.items()}
    if ALIASES.get(activation, activation) not in known:
        raise ValueError(f"{source} has the activation {activation!r}; {' and '.join(known)} can be imported")
    shape["activation"] = known[ALIASES.get(activation, activation)]
    if name == "portable":
        rope = document.get("rope_parameters") or document.get("rope_scaling") or {}
        if not isinstance(rope, Mapping):
            raise ValueError(f"{source} has rope parameters that are no settings by name; it is damaged")
        _their_option(source, "rope_type", rope.get("rope_type", rope.get("type", "default")), "default")
        shape["rope_theta"] = rope.get("rope_theta") or document.get("rope_theta") or 10_000.0
    return shape


def _their_option(source: object, option: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise ValueError(f"{source} has {option} {value!r}; only {wanted!r} has a counterpart here")


def model_config(shape: Mapping[str, Any], source: object) -> ModelConfig:
    """The configuration of an imported model.

    Raises:
        ValueError: settings that do not fit each other.
    """
    try:
        return build_config({"model": dict(shape), "data": {"path": str(source)}}).model
    except ValueError as error:
        raise ValueError(f"{source} describes a model that cannot be built here: {error}") from error
