"""Export of a run in another project's format, compared with the run and written whole or not at all.

The contents of the files are in huggingface.py, gguf.py, ollama.py and nanogpt.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.interop.shapes import FORMATS, check_exportable

if TYPE_CHECKING:
    from understudy.run import Run


@dataclass(frozen=True)
class ExportedModel:
    """An export: its folder, and a line for each comparison with the run."""

    folder: Path
    checks: list[str]


def export_run(run: Run, format: str, out: Path, type: str = "f32", adapter: bool = False) -> ExportedModel:
    """Export a run into the new folder ``out``.

    Args:
        format: hf, gguf, ollama or nanogpt.
        type: of the matrices, for gguf and ollama: f32, f16 or q8_0.
        adapter: hf: write the base model and its adapters separately, in PEFT's format, instead of merging them.

    Raises:
        ValueError: the format cannot hold the run, ``out`` exists, or a library is missing.
    """
    from understudy.interop import gguf, huggingface, nanogpt, ollama
    from understudy.interop.proof import reference_outputs, whole_folder

    if format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; choose one of {', '.join(FORMATS)}")
    check_exportable(run, format)
    if format in ("gguf", "ollama"):
        gguf.check_tokenizer(run)
        huggingface.require("gguf")
    with whole_folder(out) as partial:
        reference = reference_outputs(run)
        match format:
            case "hf" if adapter:
                checks = huggingface.write_peft(run, reference, partial, out)
            case "hf":
                checks = huggingface.write_huggingface(run, reference, partial)
            case "gguf":
                checks = gguf.write_gguf(run, reference, partial / f"{run.path.name}-{type}.gguf", type)
            case "ollama":
                checks = ollama.write_ollama(run, reference, partial, type)
            case _:
                checks = nanogpt.write_nanogpt(run, reference, partial)
    return ExportedModel(out, checks)


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
