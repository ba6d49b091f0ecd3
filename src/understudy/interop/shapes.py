"""Which of our models exist elsewhere, and what their settings are called there.

An option that changes what a model computes and that the other side lacks is refused by its name. What can be folded in
exactly is: adapters are merged, biases that a model has not are zeros, and rows that pad the vocabulary are cut off.
Not here: names of weights (names.py), and files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from understudy.config import ModelConfig
from understudy.settings import build_config

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.run import Run

OURS_ALONE: dict[str, Any] = {"ngram_orders": (), "value_embeddings": False, "key_shift": False, "logit_softcap": 0.0}
"""Options of ours that no other format knows, and their values that leave them out."""


@dataclass(frozen=True)
class Family:
    """What a family is in Hugging Face's files."""

    model_type: str
    language_model: str
    headless: str
    reward_model: str
    base: str
    """What the names of all weights but the heads begin with; files of the model without a head leave it out."""
    fields: dict[str, str]
    """Our name of a setting, and theirs."""
    activations: dict[str, str]
    always: dict[str, Any]
    """What our settings must be."""
    theirs_always: dict[str, Any]
    """What theirs must be, where they are given."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """What theirs mean where they are left out."""


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        model_type="gpt2",
        language_model="GPT2LMHeadModel",
        headless="GPT2Model",
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
    "portable": Family(
        model_type="qwen3",
        language_model="Qwen3ForCausalLM",
        headless="Qwen3Model",
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

FORMATS = {
    "hf": "Hugging Face", "gguf": "GGUF", "ollama": "Ollama", "nanogpt": "nanoGPT",
}  # fmt: skip
NARROWER: dict[str, dict[str, dict[str, Any]]] = {
    "gguf": {"gpt2": {"activation": "gelu_tanh"}},
    "nanogpt": {"gpt2": {"activation": "gelu", "norm_eps": 1e-5, "tied": True}},
}
"""What a format asks of a family beside ``always``. nanoGPT has the one family."""


def check_exportable(run: Run, format: str) -> None:
    """Refuse a run that the format has no counterpart for, naming all that stands in the way.

    Raises:
        ValueError: the options, their values, and what would do.
    """
    config, name = run.config.model, FORMATS[format]
    if config.family == "bigram":
        raise ValueError(f"the run {run.path} is a bigram, a table that {name} has no counterpart for; export a GPT")
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
    """A setting as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def gives_scores(run: Run) -> bool:
    """Whether a run is a reward model. A policy of PPO may have a score head too, its critic's, which stays here."""
    return run.config.stage == "reward"


def plain_shape(run: Run, bias: bool = True) -> ModelConfig:
    """The shape of a run's model as it leaves: no adapters, as many tokens as its tokenizer has.

    Args:
        bias: let the gpt2 family have biases, zeros where it has none.
    """
    shape = run.config.model.model_dump(exclude_none=True) | {"vocab_size": run.tokenizer.vocab_size}
    shape.pop("lora", None)
    shape["score_head"] = gives_scores(run)
    if run.config.model.family == "gpt2" and bias:
        shape["bias"] = True
    return ModelConfig(**shape)


def plain_weights(run: Run, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of a run in the shape of :func:`plain_shape`. Adapters must have been merged before."""
    import torch

    from understudy.interop.names import shapes_of
    from understudy.run import weights_of

    shapes = shapes_of(config)
    weights = {name: tensor for name, tensor in weights_of(run.model).items() if name in shapes}
    absent = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in weights}
    assert all(name.endswith(".bias") for name in absent), f"no weights for {', '.join(absent)}"
    return fit_rows(weights | absent, run.config.model, config)


def fit_rows(weights: dict[str, Tensor], before: ModelConfig, after: ModelConfig) -> dict[str, Tensor]:
    """Weights of the shape ``before`` with the fewer tokens and positions of ``after``."""
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
    """What Hugging Face's config.json says of the shape of a model."""
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
    else:  # the one is read by transformers from version 5 on, the other by all else
        document |= {
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        }
    if config.score_head:
        document |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
    return document


def shape_from_document(document: Mapping[str, Any], source: object) -> dict[str, Any]:
    """The settings of the model that a config.json of Hugging Face describes.

    Raises:
        ValueError: another architecture, or an option of it that we have not.
    """
    kinds = {family.model_type: name for name, family in FAMILIES.items()}
    model_type = document.get("model_type")
    if model_type not in kinds:
        raise ValueError(
            f"{source} describes a model of type {model_type!r}; models of type {' and '.join(kinds)} can be imported"
        )
    name = kinds[model_type]
    family = FAMILIES[name]
    for architecture in document.get("architectures") or ():
        if architecture not in (
            family.language_model,
            family.language_model.replace("LMHead", "").replace("ForCausalLM", "Model"),
        ):
            raise ValueError(f"{source} describes a {architecture}; {family.language_model} can be imported")
    for option, value in family.theirs_always.items():
        _their_option(source, option, document.get(option, value), value)
    said = family.defaults | {option: value for option, value in document.items() if value is not None}
    if missing := [theirs for theirs in family.fields.values() if theirs not in said]:
        raise ValueError(f"{source} does not say what {missing[0]} is; it is damaged, or of another kind")
    shape = {"family": name} | {
        ours: said[theirs] for ours, theirs in family.fields.items() if said[theirs] is not None
    }
    activation = str(said[ACTIVATION_FIELD[name]])
    known = {theirs: ours for ours, theirs in family.activations.items()}
    if ALIASES.get(activation, activation) not in known:
        raise ValueError(f"{source} has the activation {activation!r}; {' and '.join(known)} can be imported")
    shape["activation"] = known[ALIASES.get(activation, activation)]
    if name == "portable":
        rope = document.get("rope_parameters") or document.get("rope_scaling") or {}
        _their_option(source, "rope_type", rope.get("rope_type", rope.get("type", "default")), "default")
        shape["rope_theta"] = rope.get("rope_theta") or document.get("rope_theta") or 10_000.0
    return shape


def _their_option(source: object, option: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise ValueError(f"{source} has {option} {value!r}; only {wanted!r} has a counterpart here")


def model_config(shape: Mapping[str, Any], source: object) -> ModelConfig:
    """The configuration of a model that was read.

    Raises:
        ValueError: settings that do not fit each other.
    """
    try:
        return build_config({"model": dict(shape), "data": {"path": str(source)}}).model
    except ValueError as error:
        raise ValueError(f"{source} describes a model that cannot be made here: {error}") from error
