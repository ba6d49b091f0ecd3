"""Export of a run in another project's format, compared with the run and written whole or not at all.

The contents of the files are in huggingface.py, gguf.py, ollama.py and nanogpt.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.config.stages import IMPORTED
from understudy.interop.proof import TOLERANCE
from understudy.interop.shapes import FORMATS, check_exportable

if TYPE_CHECKING:
    from understudy.run import Run

TYPES = {"hf": ("f32", "f16", "bf16"), "gguf": tuple(TOLERANCE), "ollama": tuple(TOLERANCE), "nanogpt": ("f32",)}
"""Types of weights of each format."""


@dataclass(frozen=True)
class ExportedModel:
    """An export: its folder, and a line for each comparison with the run."""

    folder: Path
    checks: list[str]


def export_run(run: Run, format: str, out: Path, type: str | None = None, adapter: bool = False) -> ExportedModel:
    """Export a run into the new folder ``out``.

    Args:
        format: hf, gguf, ollama or nanogpt.
        type: of the weights, one of TYPES[format]. Default: for hf that of an imported model, else f32; for gguf f16.
        adapter: hf: write the base model and its adapters separately, in PEFT's format, instead of merging them.

    Raises:
        ValueError: the format cannot hold the run, ``out`` exists, or a library is missing.
    """
    from understudy.interop import gguf, huggingface, nanogpt, ollama
    from understudy.interop.proof import reference_outputs, whole_folder

    if format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; choose one of {', '.join(FORMATS)}")
    check_exportable(run, format)
    type = type or default_type(run, format)
    if type not in TYPES[format]:
        raise ValueError(f"--format {format} has no type {type!r}; choose one of {', '.join(TYPES[format])}")
    if format in ("gguf", "ollama"):
        gguf.check_tokenizer(run)
        huggingface.require("gguf")
    with whole_folder(out) as partial:
        reference = reference_outputs(run)
        match format:
            case "hf" if adapter:
                checks = huggingface.write_peft(run, reference, partial, out)
            case "hf":
                checks = huggingface.write_huggingface(run, reference, partial, type)
            case "gguf":
                checks = gguf.write_gguf(run, reference, partial / f"{run.path.name}-{type}.gguf", type)
            case "ollama":
                checks = ollama.write_ollama(run, reference, partial, type)
            case _:
                checks = nanogpt.write_nanogpt(run, reference, partial)
    return ExportedModel(out, checks)


def default_type(run: Run, format: str) -> str:
    """The type of weights if none is given: an imported model goes out as it came in."""
    if format in ("gguf", "ollama"):
        return "f16"
    imported = run.state.get("weights_type") if format == "hf" and run.state["stage"] == IMPORTED else None
    return str(imported or "f32")


def push(folder: Path, repo: str) -> str:
    """Upload a folder to a repository of the Hugging Face hub, which is created if missing; returns its URL.

    Raises:
        ValueError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        created = api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=created.repo_id, folder_path=folder)
    except (errors.HTTPError, errors.HFValidationError, errors.LocalTokenNotFoundError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), error.__class__.__name__)
        raise ValueError(
            f"{folder} is written, but could not be pushed to {repo} ({reason}); check the network and HF_TOKEN, and "
            f"upload it with `hf upload {repo} {folder}`"
        ) from error
    return str(created)
