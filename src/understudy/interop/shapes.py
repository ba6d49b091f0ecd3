"""Model settings in other formats, and the refusal of options that a format lacks.

Adapters are merged, missing biases become zeros, and padding rows of the vocabulary are cut off; the outputs stay the
same. An option that changes the outputs and that the format lacks is refused by name. Names of weights are in names.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from understudy.config.load import build_config
from understudy.config.model import ModelConfig, RopeScaling

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.run import Run

OURS_ALONE: dict[str, Any] = {"ngram_orders": (), "value_embeddings": False, "key_shift": False, "logit_softcap": 0.0}
"""Options that no other format has, and the values that turn them off."""


@dataclass(frozen=True)
class Architecture:
    """An architecture in Hugging Face's files and in GGUF.

    Attributes:
        base: prefix of the names of all weights but the heads'; files of a model without a head leave it out.
        gguf: its name in GGUF files; empty if they do not know it.
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
    gguf: str
    fields: dict[str, str]
    activations: dict[str, str]
    always: dict[str, Any]
    theirs_always: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def activation_field(self) -> str:
        """Empty if their settings do not name it."""
        return {"gpt2": "activation_function", "lfm2": ""}.get(self.model_type, "hidden_act")


def _llama_line(
    model_type: str, name: str, always: dict[str, Any], theirs_always: dict[str, Any], defaults: dict[str, Any],
    head_width: bool = True, **fields: str,
) -> Architecture:  # fmt: skip
    """An architecture of the Llama line, by its differences from the others."""
    names = {
        "vocab_size": "vocab_size", "context_length": "max_position_embeddings", "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads", "d_model": "hidden_size",
        "d_ff": "intermediate_size", "norm_eps": "rms_norm_eps", "tied": "tie_word_embeddings",
    }  # fmt: skip
    return Architecture(
        model_type=model_type,
        language_model=f"{name}ForCausalLM",
        reward_model=f"{name}ForSequenceClassification",
        base="model.",
        gguf=model_type,
        fields=names | ({"head_width": "head_dim"} if head_width else {}) | fields,
        activations={"swiglu": "silu"},
        always={
            "position": "rope", "norm": "rmsnorm", "bias": False, "qkv_bias": False, "qk_norm": False,
            "no_rope_layers": (), "conv_layers": (), "sliding_window": None,
        } | always,
        theirs_always={"partial_rotary_factor": 1.0} | theirs_always,
        defaults={
            "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "max_position_embeddings": 32768,
            "num_key_value_heads": None, "head_dim": None, "rope_theta": 10_000.0,
        } | defaults,
    )  # fmt: skip


ATTENTION = "full_attention"
"""Hugging Face's name of a layer that attends to all tokens before."""
ANY = object()
"""As a required value: any."""
MOST_LAYERS, MOST_CONTEXT = 1000, 1 << 20
"""Limits that no real model reaches, so that a damaged file cannot ask for endless work."""
NO_BIAS = {"attention_bias": False, "mlp_bias": False}
ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(
        model_type="gpt2",
        language_model="GPT2LMHeadModel",
        reward_model="GPT2ForSequenceClassification",
        base="transformer.",
        gguf="gpt2",
        fields={
            "vocab_size": "vocab_size", "context_length": "n_positions", "n_layers": "n_layer", "n_heads": "n_head",
            "d_model": "n_embd", "d_ff": "n_inner", "norm_eps": "layer_norm_epsilon", "tied": "tie_word_embeddings",
            "dropout": "resid_pdrop",
        },
        activations={"gelu_tanh": "gelu_new", "gelu": "gelu", "relu2": "relu2"},
        always={
            "position": "learned", "norm": "layernorm", "qk_norm": False, "sliding_window": None, "conv_layers": (),
        },
        theirs_always={
            "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False,
        },
        defaults={
            "n_positions": 1024, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True, "resid_pdrop": 0.1,
        },
    ),
    "llama": _llama_line("llama", "Llama", {}, NO_BIAS, {"max_position_embeddings": 2048}),
    "mistral": replace(
        _llama_line(
            "mistral", "Mistral", {"sliding_window": ANY}, {},
            {"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072},
            sliding_window="sliding_window",
        ),
        gguf="llama",
    ),
    "smollm3": _llama_line(
        "smollm3", "SmolLM3", {"no_rope_layers": ANY}, NO_BIAS | {"use_sliding_window": False},
        {"num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True}, head_width=False,
    ),
    "qwen2": _llama_line(
        "qwen2", "Qwen2", {"qkv_bias": True}, {"use_sliding_window": False}, {"num_key_value_heads": 32},
        head_width=False,
    ),
    "qwen3": _llama_line(
        "qwen3", "Qwen3", {"qk_norm": True}, {"attention_bias": False, "use_sliding_window": False},
        {"num_key_value_heads": 32, "head_dim": 128},
    ),
    "lfm2": replace(
        _llama_line(
            "lfm2", "Lfm2", {"qk_norm": True, "conv_layers": ANY}, {"conv_bias": False}, {}, head_width=False,
            norm_eps="norm_eps", conv_width="conv_L_cache",
        ),
        reward_model="",
        defaults={
            "num_key_value_heads": 8, "norm_eps": 1e-5, "tie_word_embeddings": True, "max_position_embeddings": 128_000,
            "rope_theta": 1e6, "conv_L_cache": 3,
        },
    ),
}  # fmt: skip
ALIASES = {"gelu_pytorch_tanh": "gelu_new", "swish": "silu"}

FORMATS = {"hf": "Hugging Face", "gguf": "GGUF", "ollama": "Ollama", "nanogpt": "nanoGPT"}
NARROWER: dict[str, dict[str, dict[str, Any]]] = {
    "gguf": {"gpt2": {"activation": "gelu_tanh"}, "mistral": {"sliding_window": None}},
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
    if gives_scores(run) and not ARCHITECTURES[config.family].reward_model:
        raise ValueError(
            f"the run {run.path} gives scores, which {name} has no counterpart for in the family {config.family}"
        )
    if format == "nanogpt" and config.family != "gpt2":
        raise ValueError(f"nanoGPT has no counterpart for model.family {config.family}; use --format hf or gguf")
    family = ARCHITECTURES[config.family]
    narrower = NARROWER.get("gguf" if format == "ollama" else format, {}).get(config.family, {})
    fixed, shape = OURS_ALONE | family.always, config.resolve()
    if "head_width" not in family.fields:
        fixed |= {"head_width": shape.d_model // shape.n_heads}
    if config.family == "gpt2":
        nanogpt = {"d_ff": 4 * shape.d_model, "qkv_bias": shape.bias}
        fixed |= {"n_kv_heads": shape.n_heads} | (nanogpt if format == "nanogpt" else {})
    if config.family == "smollm3" and format in ("gguf", "ollama"):  # llama.cpp knows this pattern only
        fixed |= {"no_rope_layers": tuple(range(3, shape.n_layers, 4))}
    wanted = {"activation": tuple(family.activations)} | {
        option: (value,) for option, value in (fixed | narrower).items() if value is not ANY
    }
    # An option that is not set has the value of the resolved shape.
    given = {
        option: getattr(shape, option) for option, values in wanted.items()
        if getattr(config, option) not in values and getattr(shape, option) not in values
    }  # fmt: skip
    if given:
        options = " and ".join(f"model.{option} {value!r}" for option, value in given.items())
        known = " ".join(f"--model.{option} {' or '.join(map(_typed, wanted[option]))}" for option in given)
        raise ValueError(
            f"{name} has no counterpart for {options} in the family {config.family}; only a run trained with {known} can "
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
        shape["bias"] = shape["qkv_bias"] = True
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
    from understudy.interop.names import table_of

    old, new = before.resolve(), after.resolve()
    fitted = dict(weights)
    if (old.vocab_size, old.padded_vocab_size) != (new.vocab_size, new.padded_vocab_size):
        for name in {row.ours for row in table_of(after.family) if row.kind == "tokens"} & fitted.keys():
            table = fitted[name][: new.padded_vocab_size].clone()
            table[new.rows_in_files :] = 0
            fitted[name] = table
    if "position_embedding.weight" in fitted:
        fitted["position_embedding.weight"] = fitted["position_embedding.weight"][: after.context_length].contiguous()
    return fitted


def config_document(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The content of Hugging Face's config.json for a model."""
    architecture, shape = ARCHITECTURES[config.family], config.resolve()
    document: dict[str, Any] = {
        "architectures": [architecture.reward_model if config.score_head else architecture.language_model],
        "model_type": architecture.model_type,
        **{theirs: getattr(config, ours) for ours, theirs in architecture.fields.items()},
        **{name: value for name, value in architecture.theirs_always.items() if name != "partial_rotary_factor"},
        "vocab_size": shape.rows_in_files,
        "dtype": dtype,
    }
    if architecture.activation_field:
        document[architecture.activation_field] = architecture.activations[shape.activation]
    if config.family == "gpt2":
        document |= {"embd_pdrop": config.dropout, "attn_pdrop": 0.0}
    else:  # transformers from version 5 on reads rope_parameters, everything else rope_theta and rope_scaling
        scaling = rope_document(shape.rope_scaling)
        document |= {
            "rope_theta": config.rope_theta,
            "rope_scaling": scaling,
            "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta},
        }
    if config.family == "smollm3":
        document["no_rope_layers"] = [int(layer not in shape.no_rope_layers) for layer in range(shape.n_layers)]
    if config.family == "lfm2":
        kinds = ["conv" if layer in shape.conv_layers else ATTENTION for layer in range(shape.n_layers)]
        document |= {
            "layer_types": kinds, "full_attn_idxs": [layer for layer, kind in enumerate(kinds) if kind == ATTENTION],
            "conv_L_cache": shape.conv_width or 3, "block_auto_adjust_ff_dim": False,
        }  # fmt: skip
    if config.score_head:
        document |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
    return document


def rope_document(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """Hugging Face's rope_scaling."""
    if scaling is None:
        return None
    document: dict[str, Any] = {"rope_type": scaling.type, "factor": scaling.factor}
    if scaling.type == "llama3":
        document |= {
            "low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }  # fmt: skip
    return document


def shape_from_document(document: Mapping[str, Any], source: object) -> dict[str, Any]:
    """The model settings of a config.json of Hugging Face.

    Raises:
        ValueError: another architecture, or an option that our model lacks.
    """
    name = _family_of(document, source)
    architecture = ARCHITECTURES[name]
    for option, value in architecture.theirs_always.items():
        _their_option(source, option, document.get(option, value), value)
    if document.get("quantization_config"):
        raise ValueError(
            f"{source} describes quantised weights; import the model's unquantised weights, or a GGUF file"
        )
    if name == "lfm2":  # the first files name some settings otherwise, and transformers reads these first
        older = {"intermediate_size": "block_ff_dim", "tie_word_embeddings": "tie_embedding"}
        document = {**document, **{new: document[old] for new, old in older.items() if document.get(old) is not None}}
    null = {"sliding_window"}  # where null is not the default
    settings = architecture.defaults | {
        option: value for option, value in document.items() if value is not None or option in null
    }
    if missing := [theirs for theirs in architecture.fields.values() if theirs not in settings]:
        raise ValueError(f"{source} lacks {missing[0]}; it is damaged, or of another kind")
    shape = {"family": name} | {
        ours: settings[theirs] for ours, theirs in architecture.fields.items() if settings[theirs] is not None
    }
    activation = str(settings.get(architecture.activation_field, "silu"))
    known = {theirs: ours for ours, theirs in architecture.activations.items()}
    if ALIASES.get(activation, activation) not in known:
        raise ValueError(f"{source} has the activation {activation!r}; {' and '.join(known)} can be imported")
    shape["activation"] = known[ALIASES.get(activation, activation)]
    if name != "gpt2":
        shape |= _rope_settings(document, settings["rope_theta"], source)
    for option, most in (("n_layers", MOST_LAYERS), ("context_length", MOST_CONTEXT)):
        if isinstance(shape[option], int | float) and shape[option] > most:
            raise ValueError(
                f"{source} has {architecture.fields[option]} {shape[option]}; up to {most:,} can be imported"
            )
    if name == "lfm2":
        return shape | _lfm2_settings(document, shape, source)
    wanted = "sliding_attention" if shape.get("sliding_window") else ATTENTION
    if any(layer != wanted for layer in document.get("layer_types") or []):
        raise ValueError(f"{source} has layer_types other than {wanted} for all layers, which has no counterpart here")
    if name == "smollm3":
        interval = document.get("no_rope_layer_interval", 4)
        with_rope = document.get("no_rope_layers")
        layers = shape["n_layers"]
        if not (type(interval) is type(layers) is int and interval > 0 and isinstance(with_rope, list | None)):
            raise ValueError(f"{source} has no_rope_layers that are no list, or an interval below 1; it is damaged")
        with_rope = with_rope or [(n + 1) % interval != 0 for n in range(layers)]
        shape["no_rope_layers"] = [layer for layer, has_rope in enumerate(with_rope) if not has_rope]
    return shape


def _lfm2_settings(document: Mapping[str, Any], shape: Mapping[str, Any], source: object) -> dict[str, Any]:
    """The settings of a LFM2 that other architectures lack or name otherwise."""
    layers, d_ff, attention = shape["n_layers"], shape["d_ff"], document.get("full_attn_idxs")
    if type(layers) is not int or not isinstance(attention, list | None):
        raise ValueError(f"{source} has layers that are no numbers; it is damaged")
    kinds = document.get("layer_types") or [
        ATTENTION if attention is None or n in attention else "conv" for n in range(layers)
    ]
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in ("conv", ATTENTION) for kind in kinds):
        raise ValueError(f"{source} has layer_types that are not conv or {ATTENTION} for each layer; it is damaged")
    multiplier, multiple = document.get("block_ffn_dim_multiplier", 1.0), document.get("block_multiple_of", 256)
    if not (type(d_ff) is type(multiple) is int and multiple > 0 and isinstance(multiplier, int | float | None)):
        raise ValueError(f"{source} has a width of the MLP that is no number; it is damaged")
    if document.get("block_auto_adjust_ff_dim", True):
        d_ff = -(-int((multiplier or 1.0) * int(2 * d_ff / 3)) // multiple) * multiple
    conv_layers = [layer for layer, kind in enumerate(kinds) if kind == "conv"]
    settings: dict[str, Any] = {"d_ff": d_ff, "conv_layers": conv_layers}
    return settings if conv_layers else settings | {"conv_width": None}


def _family_of(document: Mapping[str, Any], source: object) -> str:
    """The name of the row of ARCHITECTURES that a config.json describes."""
    model_type = document.get("model_type")
    names = {architecture.model_type: name for name, architecture in ARCHITECTURES.items()}
    if not isinstance(model_type, str) or model_type not in names:
        kind = ""
        if any("expert" in key for key in document):
            kind = ", a mixture of experts"
        elif any(key.endswith(("vision_config", "audio_config", "text_config")) for key in document):
            kind = ", which reads more than text"
        raise ValueError(
            f"{source} describes a model of type {model_type!r}{kind}; models of type {', '.join(names)} can be imported"
        )
    architecture = ARCHITECTURES[names[model_type]]
    classes = document.get("architectures") or []
    for given in classes if isinstance(classes, list) else [classes]:
        headless = architecture.language_model.replace("LMHead", "").replace("ForCausalLM", "Model")
        if given not in (architecture.language_model, headless):
            raise ValueError(f"{source} describes a {given}; {architecture.language_model} can be imported")
    return names[model_type]


def _rope_settings(document: Mapping[str, Any], default_theta: float, source: object) -> dict[str, Any]:
    """Our settings of rotary positions from those of a config.json, in its older or newer form."""
    rope = document.get("rope_scaling") or document.get("rope_parameters") or {}  # as transformers reads them
    if not isinstance(rope, Mapping):
        raise ValueError(f"{source} has rope parameters that are no settings by name; it is damaged")
    settings: dict[str, Any] = {"rope_theta": rope.get("rope_theta") or document.get("rope_theta") or default_theta}
    match rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return settings
        case "linear":
            return settings | {"rope_scaling": {"type": "linear", "factor": rope.get("factor", 1.0)}}
        case "llama3":
            names = {
                "factor": "factor", "low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor",
                "original_context": "original_max_position_embeddings",
            }  # fmt: skip
            scaling = {ours: rope.get(theirs) for ours, theirs in names.items()}
            return settings | {"rope_scaling": {"type": "llama3", **scaling}}
        case other:
            raise ValueError(
                f"{source} has the rope_type {other!r}; models with rope_type default, linear or llama3 can be imported"
            )


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
