"""`export`: a run in another project's format, whole and compared, or not at all. One row for each format.

Not here: what is in the files, which is huggingface.py's, gguf.py's, ollama.py's and nanogpt.py's.
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
    """Where an export is, and what was found when it was read again."""

    folder: Path
    found: list[str]


def export_run(run: Run, format: str, out: Path, type: str = "f32", adapter: bool = False) -> ExportedModel:
    """Write a run into the new folder ``out``.

    Args:
        format: hf, gguf, ollama or nanogpt.
        type: gguf, ollama: f32, f16 or q8_0.
        adapter: hf: the base model and its adapters apart, the latter in PEFT's format; else they are merged.

    Raises:
        ValueError: a run that has no counterpart there, a folder that is there already, or a library that is missing.
    """
    from understudy.interop import gguf, huggingface, nanogpt, ollama
    from understudy.interop.proof import take_proof, whole_folder

    assert format in FORMATS, f"no format {format}"
    check_exportable(run, format)
    if format in ("gguf", "ollama"):
        gguf.check_tokenizer(run)
        gguf.check_installed()
    with whole_folder(out) as partial:
        proof = take_proof(run)
        match format:
            case "hf" if adapter:
                found = huggingface.write_peft(run, proof, partial, out)
            case "hf":
                found = huggingface.write_huggingface(run, proof, partial)
            case "gguf":
                found = gguf.write_gguf(run, proof, partial / f"{run.path.name}-{type}.gguf", type)
            case "ollama":
                found = ollama.write_ollama(run, proof, partial, type)
            case _:
                found = nanogpt.write_nanogpt(run, proof, partial)
    return ExportedModel(out, found)


def push(folder: Path, repo: str) -> str:
    """Upload a folder to a repository of the hub's, made where it is missing; returns its address.

    Raises:
        ValueError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        made = api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder)
    except (errors.HTTPError, errors.HFValidationError, errors.LocalTokenNotFoundError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), error.__class__.__name__)
        raise ValueError(
            f"{folder} is written, but could not be pushed to {repo} ({reason}); check the network and HF_TOKEN, and "
            f"upload it with `hf upload {repo} {folder}`"
        ) from error
    return str(made)
