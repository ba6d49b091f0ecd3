"""Datasets on the Hugging Face hub, as lists of parquet files fetched one at a time; and the files of models.

`huggingface_hub` lists, fetches, caches and resumes; the choice of the training split is made here. No dataset script
is run: the parquet files of the repository are read, or else those of the hub's converter (revision
refs/convert/parquet). Everything is pinned to one commit and checked against the hub's own SHA-256.
"""

from __future__ import annotations

import errno
import fnmatch
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from understudy.data.fetch.download import UnavailableError, disk_problem
from understudy.files import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONVERTED = "refs/convert/parquet"
OTHER_SPLITS = ("test", "validation", "valid", "val", "dev")


@dataclass(frozen=True)
class HubDataset:
    """A dataset to read. `config`: one of its subsets. `files`: a pattern that names the files."""

    repo: str
    config: str | None = None
    field: str | None = None
    files: str | None = None


@dataclass(frozen=True)
class HubFile:
    path: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True)
class HubListing:
    """The training split of a dataset at one commit. `note`: a remark for the user, or ""."""

    revision: str
    files: tuple[HubFile, ...]
    note: str = ""


def parse_hub_name(argument: str) -> HubDataset:
    """`hf:owner/name` or `hf:owner/name:config`, each with `#field` where the text is not in `text`."""
    match = re.fullmatch(r"hf:([\w.-]+(?:/[\w.-]+)?)(?::([^#]+))?(?:#(.+))?", argument)
    if match is None:
        raise ValueError(
            f"{argument!r} names no dataset: write hf:owner/name, hf:owner/name:config or hf:owner/name#field"
        )
    return HubDataset(repo=match[1], config=match[2], field=match[3])


def list_dataset(dataset: HubDataset, endpoint: str | None = None) -> HubListing:
    """The parquet files of a dataset's training split, in the order of their names.

    Raises:
        UnavailableError: the hub cannot be reached.
        ValueError: no such dataset, config or split, no permission, or no parquet in either place.
    """
    from huggingface_hub import HfApi

    with _explained(dataset.repo):
        api = HfApi(endpoint=endpoint)
        main = _tree(api, dataset.repo, None)
        chosen = _choose_main(dataset, main)
        if chosen:
            return HubListing(main.revision, tuple(chosen))
        if not api.revision_exists(dataset.repo, CONVERTED, repo_type="dataset"):
            raise ValueError(
                f"the dataset {dataset.repo} holds no parquet files, nor has the hub converted it; fetch "
                "its files yourself and give their paths instead"
            )
        converted = _tree(api, dataset.repo, CONVERTED)
    chosen, partial = _choose_converted(dataset, converted)
    note = f"the hub has converted only the beginning of {dataset.repo}" if partial else ""
    return HubListing(converted.revision, tuple(chosen), note)


def list_model(repo: str, endpoint: str | None = None) -> HubListing:
    """The files of a model at its present commit.

    Raises:
        UnavailableError: the hub cannot be reached.
        ValueError: no such model, or no permission.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _explained(repo, "model"):
        api = HfApi(endpoint=endpoint)
        revision = api.model_info(repo).sha
        if revision is None:
            raise UnavailableError(f"the hub gave no commit for {repo}; try again later")
        entries = list(api.list_repo_tree(repo, revision=revision))
    files = [HubFile(e.path, e.size, e.lfs.sha256 if e.lfs else None) for e in entries if isinstance(e, RepoFile)]
    return HubListing(revision, tuple(files))


def fetch_file(
    repo: str, revision: str, file: HubFile, cache: Path | None, endpoint: str | None = None, kind: str = "dataset"
) -> Path:
    """One file of a dataset or model, from the cache or the hub, its SHA-256 checked where the hub states one.

    Args:
        cache: the library's own when None.
    """
    from huggingface_hub import hf_hub_download

    with _explained(repo, kind):
        got = hf_hub_download(repo, file.path, repo_type=kind, revision=revision, cache_dir=cache, endpoint=endpoint)
    path = Path(str(got))
    if file.sha256 is not None and (seen := sha256_of(path)) != file.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise UnavailableError(
            f"{repo}/{file.path} arrived damaged: its sha256 is {seen}, the hub states {file.sha256}; it was "
            "removed: run the same command again"
        )
    return path


@dataclass(frozen=True)
class _Tree:
    revision: str
    files: tuple[HubFile, ...]
    configs: Sequence[dict[str, Any]]


def _tree(api: HfApi, repo: str, revision: str | None) -> _Tree:
    """Every parquet file at the commit that `revision` stands for now, and the configs of the card."""
    from huggingface_hub.hf_api import RepoFile

    info = api.dataset_info(repo, revision=revision)
    if info.sha is None:
        raise UnavailableError(f"the hub gave no commit for {repo}; try again later")
    entries = api.list_repo_tree(repo, repo_type="dataset", revision=info.sha, recursive=True)
    files = [
        HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if isinstance(entry, RepoFile) and entry.path.endswith(".parquet")
    ]
    configs = info.card_data.get("configs") if info.card_data else None
    return _Tree(info.sha, tuple(sorted(files, key=lambda f: f.path)), configs or ())


def _choose_main(dataset: HubDataset, tree: _Tree) -> list[HubFile]:
    """The training split among the repository's own parquet files; none where it has no such files."""
    if dataset.files is not None:
        return [f for f in tree.files if fnmatch.fnmatchcase(f.path, dataset.files)]
    if not tree.files:
        return []
    if tree.configs:
        patterns, by_split = _train_patterns(dataset, tree.configs)
        files = [f for f in tree.files if any(fnmatch.fnmatchcase(f.path, p) for p in patterns)]
        return files if by_split else _train_by_name(files)
    if dataset.config is None:
        return _train_by_name(tree.files)
    files = [f for f in tree.files if dataset.config in PurePosixPath(f.path).parts[:-1]]
    if not files:
        folders = sorted({str(PurePosixPath(f.path).parent) for f in tree.files})
        raise ValueError(f"{dataset.repo} has no config {dataset.config!r}; its folders are {', '.join(folders)}")
    return _train_by_name(files)


def _train_by_name(files: Sequence[HubFile]) -> list[HubFile]:
    train = [f for f in files if _mentions(f, ("train",))]
    return train or [f for f in files if not _mentions(f, OTHER_SPLITS)] or list(files)


def _mentions(file: HubFile, splits: Sequence[str]) -> bool:
    """Whether a folder or the file's name says that it belongs to one of these splits."""
    words = re.split(r"[/._-]", file.path.lower())
    return any(word in splits for word in words)


def _train_patterns(dataset: HubDataset, configs: Sequence[dict[str, Any]]) -> tuple[list[str], bool]:
    """The file patterns of the chosen config, in any of a card's spellings, and whether they name the training split
    alone."""
    named = {str(c.get("config_name", "default")): c for c in configs}
    default = [name for name, c in named.items() if c.get("default")] or [n for n in named if n == "default"]
    name = dataset.config or (default[0] if default else next(iter(named)) if len(named) == 1 else None)
    if name not in named:
        given = f"has no config {dataset.config!r}" if dataset.config else "has several configs"
        raise ValueError(
            f"{dataset.repo} {given}; write hf:{dataset.repo}:CONFIG with one of {', '.join(sorted(named))}"
        )
    folder = str(named[name].get("data_dir") or "").strip("/")
    entries = named[name].get("data_files") or [f"{folder}/*" if folder else "*"]
    entries = [entries] if isinstance(entries, str | dict) else entries
    patterns: list[str] = []
    for entry in entries:
        if isinstance(entry, dict) and entry.get("split", "train") != "train":
            continue
        paths = entry.get("path", []) if isinstance(entry, dict) else entry
        patterns += [paths] if isinstance(paths, str) else list(paths)
    if not patterns:
        splits = ", ".join(str(e.get("split")) for e in entries if isinstance(e, dict))
        raise ValueError(f"{dataset.repo} config {name} has no split 'train' but {splits}; fetch its files yourself")
    return [p.removeprefix("./") for p in patterns], any(isinstance(entry, dict) for entry in entries)


def _choose_converted(dataset: HubDataset, tree: _Tree) -> tuple[list[HubFile], bool]:
    """From the converter's layout, CONFIG/SPLIT/0000.parquet, SPLIT being partial-train if it stopped early."""
    by_config: dict[str, list[HubFile]] = {}
    for file in tree.files:
        parts = PurePosixPath(file.path).parts
        if len(parts) == 3 and parts[1] in ("train", "partial-train"):
            by_config.setdefault(parts[0], []).append(file)
    name = dataset.config or ("default" if "default" in by_config else next(iter(by_config), None))
    if name not in by_config or (dataset.config is None and len(by_config) > 1 and name != "default"):
        raise ValueError(
            f"{dataset.repo} has no training split for the config {dataset.config!r}; write "
            f"hf:{dataset.repo}:CONFIG with one of {', '.join(sorted(by_config)) or 'none: it has none'}"
        )
    files = by_config[name]
    return files, any("/partial-train/" in f.path for f in files)


@contextmanager
def _explained(repo: str, kind: str = "dataset") -> Iterator[None]:
    """Turn the library's failures into one sentence each."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as problem:
        raise ValueError(
            f"the hub no longer has {repo} as it was when this was begun: run the same command to begin anew"
        ) from problem
    except errors.GatedRepoError as problem:
        raise ValueError(
            f"the {kind} {repo} is gated: accept its terms on its page, then set HF_TOKEN to a token of yours"
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise ValueError(
            f"there is no {kind} {repo} on the hub, or it is private: check the name, or set HF_TOKEN"
        ) from problem
    except errors.HFValidationError as problem:
        raise ValueError(f"{repo!r} is no name of a {kind}: {problem}") from problem
    except (errors.HTTPError, OSError) as problem:
        # The library has no class of its own for a failed connection; it raises one of these.
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_problem(problem, Path(problem.filename or ".")) from problem
        raise UnavailableError(
            f"the {kind} {repo} could not be fetched from the hub ({_first_line(problem)}); check the network, or fetch its "
            f"{'parquet files' if kind == 'dataset' else 'files'} on another machine and give their paths instead"
        ) from problem


def _first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__
