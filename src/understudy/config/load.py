"""Presets, YAML files and dotted overrides as a resolved configuration, and a configuration as YAML.

Every mistake becomes one sentence that names the setting. The settings themselves are in the other files of this package.
"""

from __future__ import annotations

import difflib
import json
import math
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model

from understudy.config.run import LENGTHS, SECTIONS, RunConfig, known_stage
from understudy.config.stages import DEFAULT_STAGE
from understudy.config.types import Count, Section


def size_by_depth(depth: int) -> dict[str, dict[str, Any]]:
    """Settings of the portable family by its number of layers: width 64 per layer, heads of width 64, and a budget.

    The budget is 20 tokens per weight inside the blocks (Hoffmann et al. 2022, table 3). The batch is 2^19 tokens at
    depth 12 and proportional to the budget to the power 0.383, rounded to a power of two, and small enough for 500
    steps. Learning rates are proportional to the square root of the batch. Those of small models, and their three
    Newton-Schulz steps, are from depth 4 on two CPU cores (benchmarks/pages/linux_doc.md). Embeddings and head, which begin as
    a bigram model, change more slowly than those that begin at random.
    """
    d_model, context = 64 * depth, min(2048, 2 ** math.ceil(math.log2(128 * depth)))
    tokens, reference = 20 * 12 * depth * d_model**2, 20 * 12 * 12 * 768**2
    batch_tokens = min(2**19 * (tokens / reference) ** 0.383, tokens / 500)
    batch_tokens = 2 ** round(math.log2(max(batch_tokens, context)))
    lr_scale = min(1.0, (batch_tokens / 2**19) ** 0.5 * 4)
    adamw_lr = round(min(0.02, 3e-3 * (d_model / 768) ** -1.5) * lr_scale, 6)
    steps = max(1, tokens // batch_tokens)
    return {
        "model": {
            "family": "lfm2", "conv_layers": [0], "tied": False, "n_layers": depth, "d_model": d_model, "n_heads": depth,
            "n_kv_heads": next(depth // share for share in (4, 2, 1) if depth % share == 0),
            "context_length": context, "zero_init_projections": True,
        },
        "optim": {
            "name": "muon", "lr": round(0.02 * lr_scale, 5), "embedding_lr": round(0.65 * adamw_lr, 6),
            "head_lr": round(0.19 * adamw_lr, 6), "vector_lr": round(0.3 * adamw_lr, 6), "newton_schulz_steps": 3 if depth <= 6 else 5,
            "schedule": "wsd", "decay_fraction": 0.6, "warmup_steps": min(40, steps // 10),
        },
        "train": {"batch_size": max(1, batch_tokens // context), "steps": steps, "bigram_start": True},
    }  # fmt: skip


def preset_summaries() -> dict[str, str]:
    """The first line of each YAML file in understudy/presets, by the name of the preset."""
    files = (entry for entry in (resources.files("understudy") / "presets").iterdir() if entry.name.endswith(".yaml"))
    texts = {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in files}
    return {name: text.partition("\n")[0].removeprefix("#").strip() for name, text in sorted(texts.items())}


def read_preset(name: str) -> dict[str, Any]:
    """The raw settings of a preset by name, or of a YAML file by path.

    Raises:
        ValueError: neither a preset nor a readable YAML file of settings.
    """
    path: Any = Path(name)
    if not name.endswith((".yaml", ".yml")):
        if name not in (presets := preset_summaries()):
            raise ValueError(
                f"there is no preset {name!r}{nearest(name, presets)}; `understudy presets` lists them, "
                "and a path to a .yaml file works too"
            )
        path = resources.files("understudy") / "presets" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"the configuration file {name} cannot be read: it is missing, or no file")
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"the configuration file {name} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of YAML or of UTF-8
        raise ValueError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{name} must hold settings by name, such as `train: {{steps: 100}}`")
    data = raw.get("data")
    if isinstance(data, list) and data and all(isinstance(part, dict) for part in data):
        raw["data"] = {"mixture": data}
    for section, field in RunConfig.model_fields.items():
        value = raw.get(section) or {}
        if _section(field.annotation) and not isinstance(value, dict):
            raise ValueError(f"{section} in {name} is {reprlib.repr(value)}, and settings by name are expected")
    known_stage(raw.get("stage") or DEFAULT_STAGE)
    return raw


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1 and name != "<<"), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        ValueError: it is not valid, or nested too deeply to read.
    """
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def load_config(preset: str, overrides: Mapping[str, str] | None = None) -> RunConfig:
    """Read a preset or YAML file, apply dotted overrides, and resolve every default.

    Example: ``load_config("shakespeare-char", {"train.steps": "500", "optim.lr": "3e-4"})``.

    Raises:
        ValueError: one sentence about the first setting that is unknown, of a wrong type, out of range or unused.
    """
    return build_config(apply_overrides(read_preset(preset), overrides or {}))


def apply_overrides(raw: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """Raw settings with dotted overrides applied. The text of an override is read as YAML, else as it stands.

    Raises:
        ValueError: an override of an unknown setting.
    """
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    known = {name for name, _ in setting_names()}
    for dotted, text in overrides.items():
        if dotted not in known:
            raise ValueError(_unknown_setting(dotted))
        try:
            value = parse_yaml(text)
        except ValueError:
            value = text
        *sections, leaf = dotted.split(".")
        node = tree
        for section in sections:
            node[section] = dict(node.get(section) or {})
            node = node[section]
        node[leaf] = value
    # Steps that are asked for replace the minutes, tokens or epochs of a preset, and one of these another.
    if asked := [name for name in ("steps", *LENGTHS) if f"train.{name}" in overrides]:
        for name in set(LENGTHS) - set(asked):
            tree["train"].pop(name, None)
    # Other data than the preset's brings its own tokenizer.
    if data := [name for name in ("path", "mixture") if f"data.{name}" in overrides]:
        for name in {"path", "mixture"} - set(data):
            tree["data"].pop(name, None)
        if not any(name.startswith("tokenizer.") for name in overrides):
            tree.pop("tokenizer", None)
    # The vocabulary size in a preset belongs to its kind of tokenizer.
    tokenizer = tree.get("tokenizer") or {}
    if {"tokenizer.kind", "tokenizer.vocab_size"} & overrides.keys() == {"tokenizer.kind"} and tokenizer[
        "kind"
    ] != "bpe":
        tokenizer.pop("vocab_size", None)
    return tree


def build_config(tree: Mapping[str, Any]) -> RunConfig:
    """The configuration of raw settings, every default filled in; see :func:`load_config`."""
    tree = dict(tree)
    if tree.get("depth") is not None:
        _fill_by_depth(tree)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, the stage's own section last; :func:`load_config` reads it back to an equal one."""
    tree = config.model_dump(mode="json", exclude_none=True)
    ordered = {name: tree[name] for name in sorted(tree, key=lambda name: name in SECTIONS)}
    return yaml.safe_dump(ordered, sort_keys=False)


def setting_names(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the pydantic field of every setting, in order."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from setting_names(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _section(annotation: Any) -> type[Section] | None:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _fill_by_depth(tree: dict[str, Any]) -> None:
    try:
        depth = TypeAdapter(Count).validate_python(tree["depth"])
    except ValidationError:
        raise ValueError(f"depth is {tree['depth']!r}; a whole number of layers from 1 is expected") from None
    for section, settings in size_by_depth(depth).items():
        given = tree.get(section) or {}
        if isinstance(given, Mapping):  # anything else is refused by the validation that follows
            tree[section] = settings | {name: value for name, value in given.items() if value is not None}


def _unknown_setting(dotted: str) -> str:
    hint = nearest(dotted, [name for name, _ in setting_names()])
    return f"{dotted} is not a setting{hint}; `understudy presets --settings` lists them"


def nearest(name: str, known: Collection[str]) -> str:
    """ " (did you mean X?)" for the closest known name, or the one with the closest last part; empty if none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        leaves = {candidate.rpartition(".")[2]: candidate for candidate in reversed(list(known))}
        close = [leaves[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], leaves, n=1, cutoff=0.75)]
    return f" (did you mean {close[0]}?)" if close else ""


def _sentence(error: ValidationError) -> str:
    """The first error of pydantic as one sentence."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    dotted = ".".join(path)
    if first["type"] == "extra_forbidden":
        return _unknown_setting(dotted)
    if first["type"] == "missing":
        return f"{dotted} is missing; give it in the configuration or as --{dotted}"
    if first["type"] in ("model_type", "model_attributes_type"):
        return f"{dotted} is {reprlib.repr(first['input'])}, and settings by name are expected"
    if first["type"] == "value_error" and len(path) < 2:
        return str(first["ctx"]["error"])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "value_error":
        return f"{dotted}: {message}"
    return f"{dotted} is {reprlib.repr(first['input'])}, but it {message}"


# ---- The list of settings -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SettingRow:
    """One setting for the list of `understudy presets --settings` and the reference page."""

    name: str  # dotted, as on the command line
    type: str  # accepted values in plain words, such as "whole number from 1"
    default: str  # as YAML; "null" leaves the choice to other settings, and "required" means that there is none
    description: str  # the docstring below the field


def setting_rows() -> list[SettingRow]:
    """Every setting of the configuration, those of a stage's own section last."""
    rows = []
    for name, field in setting_names():
        default = "required" if field.is_required() else json.dumps(field.get_default(call_default_factory=True))
        description = " ".join((field.description or "").split())
        schema = create_model("Setting", value=(field.annotation, field)).model_json_schema()["properties"]["value"]
        rows.append(SettingRow(name, _type_text(schema), default, description))
    return sorted(rows, key=lambda row: row.name.partition(".")[0] in SECTIONS)


def _type_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema in plain words."""
    if "anyOf" in schema:
        return " or ".join(_type_text(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        *others, last = map(str, schema["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    if "$ref" in schema:
        return "settings by name"
    match schema["type"]:
        case "integer" | "number" as kind:
            limits = {
                "from": "minimum", "above": "exclusiveMinimum", "to": "maximum", "below": "exclusiveMaximum",
            }  # fmt: skip
            ranges = [f"{word} {schema[key]:g}" for word, key in limits.items() if key in schema]
            return " ".join(["whole number" if kind == "integer" else "number", *ranges])
        case "array" if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])}: {_type_text(schema['prefixItems'][0])}"
        case "array":
            return f"list: {_type_text(schema['items'])}"
        case kind:
            return {"boolean": "true or false", "string": "text"}[kind]
