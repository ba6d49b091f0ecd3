"""From presets, YAML and dotted overrides to a resolved configuration, and back to YAML.

What the settings are and mean is config.py's business. Every mistake becomes one sentence that names the setting.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from understudy.config.run import SECTIONS, RunConfig
from understudy.config.types import Section, whole_number


def size_by_depth(depth: int) -> dict[str, dict[str, Any]]:
    """The portable family by its number of layers: width 64 a layer, heads of 64, and a budget to match.

    Tokens are 20 for each weight inside the blocks (Hoffmann et al. 2022, table 3). The batch grows with the
    power 0.383 of the tokens from 2^19 tokens at depth 12, rounded to a power of two, but is kept small enough
    for 500 steps; learning rates grow with the root of the batch.
    """
    d_model, context = 64 * depth, min(2048, 2 ** math.ceil(math.log2(128 * depth)))
    tokens, reference = 20 * 12 * depth * d_model**2, 20 * 12 * 12 * 768**2
    batch_tokens = min(2**19 * (tokens / reference) ** 0.383, tokens / 500)
    batch_tokens = 2 ** round(math.log2(max(batch_tokens, context)))
    lr_scale = min(1.0, (batch_tokens / 2**19) ** 0.5 * 4)
    width_scale = (d_model / 768) ** -0.5
    steps = max(1, tokens // batch_tokens)
    return {
        "model": {
            "family": "portable", "n_layers": depth, "d_model": d_model, "n_heads": depth,
            "n_kv_heads": next(depth // share for share in (4, 2, 1) if depth % share == 0),
            "context_length": context, "zero_init_projections": True,
        },
        "optim": {
            "name": "muon", "lr": round(0.02 * lr_scale, 5), "embedding_lr": round(3e-3 * width_scale * lr_scale, 6),
            "head_lr": round(3e-3 * width_scale * lr_scale, 6), "vector_lr": round(3e-3 * width_scale * lr_scale, 6),
            "schedule": "wsd", "decay_fraction": 0.5, "warmup_steps": min(40, steps // 10),
        },
        "train": {"batch_size": max(1, batch_tokens // context), "steps": steps},
    }  # fmt: skip


def preset_names() -> list[str]:
    """Names that stand for the YAML files in understudy/presets."""
    folder = resources.files("understudy") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """The raw settings of a preset by name, or of a YAML file by path.

    Raises:
        ValueError: neither a preset nor a readable YAML file of settings.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"the configuration file {name} cannot be read: {error.strerror}") from error
    elif name in preset_names():
        text = (resources.files("understudy") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise ValueError(
            f"there is no preset {name!r}{_nearest(name, preset_names())}; `understudy presets` lists them, "
            "and a path to a .yaml file works too"
        )
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{name} must hold settings by name, such as `train: {{steps: 100}}`")
    return raw


def load_config(preset: str, overrides: Mapping[str, str] | None = None) -> RunConfig:
    """Read a preset or YAML file, lay dotted overrides over it, and resolve every default.

    Example: ``load_config("shakespeare-char", {"train.steps": "500", "optim.lr": "3e-4"})``.

    Raises:
        ValueError: one sentence about the first setting that is unknown, of a wrong type, out of range or unused.
    """
    return build_config(apply_overrides(read_preset(preset), overrides or {}))


def apply_overrides(raw: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """Raw settings with dotted overrides laid over them; the text of each is read as YAML reads a value.

    Raises:
        ValueError: an override that is no setting.
    """
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    known = [name for name, _ in setting_names()]
    for dotted, text in overrides.items():
        if dotted not in known:
            raise ValueError(
                f"{dotted} is not a setting{_nearest(dotted, known)}; `understudy presets --settings` lists them"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        *sections, leaf = dotted.split(".")
        node = tree
        for section in sections:
            inner = dict(node.get(section) or {})
            node[section] = inner
            node = inner
        node[leaf] = value
    return tree


def build_config(tree: Mapping[str, Any]) -> RunConfig:
    """Resolve a tree of raw settings; see :func:`load_config`."""
    tree = dict(tree)
    if tree.get("depth") is not None:
        _fill_by_depth(tree)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def dump_config(config: RunConfig) -> str:
    """The resolved tree as YAML; `load_config` reads it back to an equal tree."""
    tree = config.model_dump(mode="json", exclude_none=True)
    ordered = {
        name: tree[name] for name in sorted(tree, key=lambda name: name in SECTIONS)
    }  # a stage's own section last
    return yaml.safe_dump(ordered, sort_keys=False)


def setting_names(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted name of the tree with its pydantic field, in order."""
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
        depth = int(whole_number(tree["depth"]))
        if depth < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"depth is {tree['depth']!r}; a whole number of layers from 1 is wanted") from None
    for section, settings in size_by_depth(depth).items():
        tree[section] = settings | {key: value for key, value in (tree.get(section) or {}).items() if value is not None}


def _nearest(name: str, known: list[str]) -> str:
    """', did you mean X?' for the closest known name, comparing last parts as well as whole names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        leaves = {candidate.rpartition(".")[2]: candidate for candidate in reversed(known)}
        close = [leaves[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], leaves, n=1, cutoff=0.75)]
    return f" (did you mean {close[0]}?)" if close else ""


def _sentence(error: ValidationError) -> str:
    """The first complaint of pydantic as one sentence of ours."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    dotted = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = [name for name, _ in setting_names()]
        return f"{dotted} is not a setting{_nearest(dotted, known)}; `understudy presets --settings` lists them"
    if first["type"] == "missing":
        return f"{dotted} is missing; give it in the configuration or as --{dotted}"
    if first["type"] == "value_error" and len(path) < 2:
        return str(first["ctx"]["error"])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return (
        f"{dotted} is {first['input']!r}, but it {message}"
        if first["type"] != "value_error"
        else f"{dotted}: {message}"
    )


def preset_summaries() -> dict[str, str]:
    """What each preset says of itself in its first line, by name."""
    folder = resources.files("understudy") / "presets"
    lines = {name: (folder / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0] for name in preset_names()}
    return {name: line.removeprefix("#").strip() for name, line in lines.items()}


def setting_rows() -> dict[str, str]:
    """Every setting by dotted name, with its type and default."""
    rows = {}
    for name, field in setting_names():
        kind = str(field.annotation).replace("typing.", "").replace("<class '", "").removesuffix("'>")
        kind = re.sub(r"Annotated\[(\w+),.*?\](?=[,\]|]| \||$)", r"\1", kind)
        default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
        rows[name] = f"{kind}{default}"
    return rows
