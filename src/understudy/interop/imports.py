"""`import`: other projects' models as runs of ours, which everything that works on runs works on.

A source is a folder of Hugging Face's, nanoGPT's ckpt.pt, or a name on the hub. Not here: what is in the files
(huggingface.py, nanogpt.py), and tokenizers (tokenizer/load.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.data.hub import fetch_file, list_model
from understudy.interop.huggingface import read_huggingface
from understudy.interop.nanogpt import read_characters, read_nanogpt
from understudy.interop.proof import whole_folder
from understudy.interop.shapes import fit_rows
from understudy.run import FORMAT, RunFolder, now, run_path, sha256_of_weights, write_json
from understudy.settings import build_config
from understudy.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

HUB = {name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")}
"""Names that stand for repositories of the hub's."""
WEIGHTS = (r"model\.safetensors", r"model(-\d+-of-\d+\.safetensors|\.safetensors\.index\.json)",
           r"pytorch_model\.bin", r"pytorch_model(-\d+-of-\d+\.bin|\.bin\.index\.json)")  # fmt: skip
"""Files with weights, those of the first kind that there are."""
BESIDE = ("config.json", "tokenizer.json", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Source:
    """Where a model is: a folder of Hugging Face's, or a checkpoint file of nanoGPT's."""

    path: Path
    called: str
    """As the user said."""

    @property
    def is_nanogpt(self) -> bool:
        return self.path.is_file()


def import_model(
    called: str, name: str | None = None, context_length: int | None = None, dropout: float | None = None,
    tokenizer: Path | None = None, report: Callable[[str], None] = lambda text: None,
) -> RunFolder:  # fmt: skip
    """Make a run of a model of another project's.

    Args:
        called: a folder, a file, or a name on the hub.
        name: of the run; that of the folder or on the hub when left out.
        context_length: at most the model's, which it is when left out.
        tokenizer: for a model that comes without one.
        report: told what is being done.

    Raises:
        ValueError: no such model, one that has no counterpart here, files that are missing, damaged or would execute
            code, or a run of that name that is there already.
    """
    name = name or _name_of(called)
    folder = RunFolder(run_path(name))
    if folder.path.exists():
        raise ValueError(f"{folder.path} is there already; remove it, or choose another name with --run")
    source = find_source(called, report)
    report(f"reading {source.path}")
    shape, weights = (read_nanogpt if source.is_nanogpt else read_huggingface)(source.path)
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{source.path} holds numbers that are not finite, in {broken[0]}; it is damaged")
    own = _tokenizer_of(source, shape, tokenizer, report)
    shape, weights = _fitted(shape, weights, own, context_length, dropout)
    with whole_folder(folder.path, "--run") as partial:
        _write_run(RunFolder(partial), shape, weights, own, source)
    return folder


def find_source(called: str, report: Callable[[str], None] = lambda text: None, endpoint: str | None = None) -> Source:
    """A model on this disk, or one of the hub's, which is fetched.

    Raises:
        ValueError: there is none, or the hub cannot be reached.
    """
    path = Path(called)
    if path.is_file():
        return Source(path if path.suffix in (".pt", ".pth") else path.parent, called)
    if (path / "config.json").is_file():
        return Source(path, called)
    if (path / "ckpt.pt").is_file():
        return Source(path / "ckpt.pt", called)
    if path.exists():
        raise ValueError(f"{path} holds no model: it has neither config.json nor nanoGPT's ckpt.pt")
    if called not in HUB and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", called):
        raise ValueError(
            f"there is no model {called!r}: give a folder of Hugging Face's, nanoGPT's ckpt.pt, a repository of the "
            f"hub's as owner/name, or one of {', '.join(HUB)}"
        )
    return Source(_fetch(HUB.get(called, called), report, endpoint), called)


def _fetch(repo: str, report: Callable[[str], None], endpoint: str | None) -> Path:
    """A folder with the files of a repository that are wanted, each checked against the hub's own SHA-256."""
    listing = list_model(repo, endpoint)
    held = {file.path: file for file in listing.files}
    weights = next((found for kind in WEIGHTS if (found := [n for n in held if re.fullmatch(kind, n)])), None)
    if weights is None or "config.json" not in held:
        raise ValueError(f"the repository {repo} holds no model: it lacks config.json, or weights that can be read")
    paths = []
    for name in [*(name for name in BESIDE if name in held), *weights]:
        report(f"fetching {repo}/{name} ({held[name].size_bytes / 1e6:,.1f} MB)")
        paths.append(fetch_file(repo, listing.revision, held[name], None, endpoint, kind="model"))
    return paths[-1].parent


def _name_of(called: str) -> str:
    path = Path(called)
    if path.is_file():
        path = path.resolve().parent if path.stem in ("ckpt", "model", "pytorch_model") else path.with_suffix("")
    return path.resolve().name if path.exists() else path.name


def _tokenizer_of(
    source: Source, shape: dict[str, Any], given: Path | None, report: Callable[[str], None]
) -> Tokenizer:
    """The tokenizer that goes with a model: the one given, the one beside it, or for nanoGPT GPT-2's by its size."""
    folder = source.path.parent if source.is_nanogpt else source.path
    if given is not None:
        own = load_tokenizer(given)
    elif source.is_nanogpt and (folder / "meta.pkl").is_file():
        own = read_characters(folder / "meta.pkl")
    elif source.is_nanogpt and not (folder / "tokenizer.json").is_file() and shape["vocab_size"] in (50257, 50304):
        from understudy.data.prepare import CACHE
        from understudy.data.sources import fetch_gpt2_vocabulary
        from understudy.tokenizer import gpt2_tokenizer

        report("its vocabulary is as large as GPT-2's, whose tokenizer it gets")
        own = gpt2_tokenizer(fetch_gpt2_vocabulary(CACHE, lambda progress: None))
    else:
        try:
            own = load_tokenizer(folder)
        except ValueError as error:
            raise ValueError(f"{error}; or name another tokenizer for the same ids with --tokenizer") from error
    if own.vocab_size > shape["vocab_size"]:
        raise ValueError(
            f"the tokenizer has {own.vocab_size:,} tokens, and the model {source.path} knows {shape['vocab_size']:,}; "
            "it belongs to another model"
        )
    return own


def _fitted(
    shape: dict[str, Any], weights: dict[str, Tensor], tokenizer: Tokenizer, context: int | None, dropout: float | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model with the context and dropout asked for, and no rows for ids that no token has."""
    held = shape["context_length"]
    if context is not None and not 1 <= context <= held:
        raise ValueError(f"--context is {context}; the model reads 1 to {held:,} tokens")
    wanted = shape | {"vocab_size": tokenizer.vocab_size, "context_length": context or held}
    if dropout is not None:
        wanted["dropout"] = dropout
    before, after = (build_config({"model": each, "data": {"path": "."}}).model for each in (shape, wanted))
    return wanted, fit_rows(weights, before, after)


def _write_run(
    folder: RunFolder, shape: dict[str, Any], weights: dict[str, Tensor], tokenizer: Tokenizer, source: Source
) -> None:
    from safetensors.torch import save_file

    import understudy

    config = build_config({"model": shape, "data": {"path": f"imported from {source.called}"}})
    parameters = sum(tensor.numel() for tensor in weights.values())
    about = {
        "stage": "import", "understudy": understudy.__version__, "created": now(), "imported_from": source.called,
        "parameters": parameters, "trained_parameters": 0, "tokenizer_sha256": tokenizer.sha256, "data": {},
        "parent": None,
    }  # fmt: skip
    state = about | {"format": FORMAT, "step": 0, "weights_sha256": sha256_of_weights(weights)}
    folder.create(config, tokenizer, about)
    folder.put_checkpoint(
        0,
        {
            "model.safetensors": lambda path: save_file(weights, path),
            "state.json": lambda path: write_json(path, state),
        },
        is_best=True,
    )
