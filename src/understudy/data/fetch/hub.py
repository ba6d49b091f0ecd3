"""Datasets on the Hugging Face hub, as lists of parquet files fetched one at a time; and the files of models.

`huggingface_hub` lists, fetches, caches and resumes; the choice of the training split is made here. No dataset script
is run: the parquet files of the repository are read, or else those of the hub's converter (revision
refs/convert/parquet). Everything is pinned to one commit and checked against the hub's own SHA-256.
"""

from __future__ import annotations

import dataclasses
import errno
import fnmatch
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from understudy.data.fetch.download import UnavailableError, disk_problem
from understudy.data.layout import Split
from understudy.files import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONVERTED = "refs/convert/parquet"
OTHER_SPLITS = {"test", "validation", "valid", "val", "dev"}


class About(NamedTuple):
    """A named source, for its users. `bytes`: what is fetched of it, `rows`: its records or documents; None where it is not
    known."""

    what: str
    licence: str
    bytes: int | None = None
    rows: int | None = None


@dataclass(frozen=True)
class HubDataset:
    """A dataset to read. `config`: one of its subsets. `files`: a pattern that names the files; with `val_files` too they
    are its two splits. A dataset without parquet files is named by those of the hub's converter (`default/train/*`)."""

    repo: str
    config: str | None = None
    field: str | None = None
    files: str | None = None
    val_files: str | None = None
    about: About | None = None


@dataclass(frozen=True)
class HubFile:
    path: str
    size_bytes: int
    sha256: str | None
    split: Split | None = None


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
    """The parquet files of a dataset's training split, or those that it names, in the order of their names. Files that it
    names may be the repository's or the converter's.

    Raises:
        UnavailableError: the hub cannot be reached.
        ValueError: no such dataset, config or split, no permission, or no parquet in either place.
    """
    from huggingface_hub import HfApi

    with _explained(dataset.repo):
        api = HfApi(endpoint=endpoint)
        main, configs = _tree(api, dataset.repo, "dataset")
        main = dataclasses.replace(main, files=tuple(file for file in main.files if file.path.endswith(".parquet")))
        named = dataset.files is not None
        if main.files or not named:
            chosen = _named_files(dataset, main.files) if named else _choose_main(dataset, main.files, configs)
            if chosen:
                return dataclasses.replace(main, files=tuple(chosen))
        if not api.revision_exists(dataset.repo, CONVERTED, repo_type="dataset"):
            raise ValueError(
                f"the dataset {dataset.repo} holds no parquet files, nor has the hub converted it; fetch "
                "its files yourself and give their paths instead"
            )
        converted, _ = _tree(api, dataset.repo, "dataset", CONVERTED)
        if named:
            return dataclasses.replace(converted, files=tuple(_named_files(dataset, converted.files)))
    return _choose_converted(dataset, converted)


def list_model(repo: str, endpoint: str | None = None) -> HubListing:
    """The files of a model at its present commit.

    Raises:
        UnavailableError: the hub cannot be reached.
        ValueError: no such model, or no permission.
    """
    from huggingface_hub import HfApi

    with _explained(repo, "model"):
        return _tree(HfApi(endpoint=endpoint), repo, "model")[0]


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


def _tree(api: HfApi, repo: str, kind: str, revision: str | None = None) -> tuple[HubListing, Sequence[dict[str, Any]]]:
    """Every file at the commit that `revision` stands for now, by path, and the configs of the card."""
    from huggingface_hub.hf_api import RepoFile

    info = api.repo_info(repo, repo_type=kind, revision=revision)
    if info.sha is None:
        raise UnavailableError(f"the hub gave no commit for {repo}; try again later")
    entries = api.list_repo_tree(repo, repo_type=kind, revision=info.sha, recursive=kind == "dataset")
    files = [HubFile(e.path, e.size, e.lfs.sha256 if e.lfs else None) for e in entries if isinstance(e, RepoFile)]
    card = getattr(info, "card_data", None)
    configs = card.get("configs") if card else None
    return HubListing(info.sha, tuple(sorted(files, key=lambda file: file.path))), configs or ()


def _named_files(dataset: HubDataset, parquet: Sequence[HubFile]) -> list[HubFile]:
    """The files that the dataset names, with their splits."""
    chosen: list[HubFile] = []
    patterns: tuple[tuple[str | None, Split], ...] = ((dataset.files, "train"), (dataset.val_files, "val"))
    for pattern, split in patterns:
        files = [file for file in parquet if pattern and fnmatch.fnmatchcase(file.path, pattern)]
        if pattern and not files:
            raise ValueError(
                f"the dataset {dataset.repo} no longer has files like {pattern}; fetch its files and give their paths"
            )
        chosen += [dataclasses.replace(file, split=split if dataset.val_files else None) for file in files]
    return chosen


def _choose_main(
    dataset: HubDataset, parquet: Sequence[HubFile], configs: Sequence[dict[str, Any]]
) -> Sequence[HubFile]:
    """The training split among the repository's own parquet files; none where it has no such files."""
    if parquet and configs:
        patterns, by_split = _train_patterns(dataset, configs)
        files = [f for f in parquet if any(fnmatch.fnmatchcase(f.path, p) for p in patterns)]
        return files if by_split else _train_by_name(files)
    if not parquet or dataset.config is None:
        return _train_by_name(parquet)
    files = [f for f in parquet if dataset.config in PurePosixPath(f.path).parts[:-1]]
    if not files:
        folders = sorted({str(PurePosixPath(f.path).parent) for f in parquet})
        raise ValueError(f"{dataset.repo} has no config {dataset.config!r}; its folders are {', '.join(folders)}")
    return _train_by_name(files)


def _train_by_name(files: Sequence[HubFile]) -> Sequence[HubFile]:
    """The files whose folder or name says that they are for training, or else those not said to be for another split."""
    words = {file: set(re.split(r"[/._-]", file.path.lower())) for file in files}
    train = [file for file in files if "train" in words[file]]
    return train or [file for file in files if not words[file] & OTHER_SPLITS] or files


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


def _choose_converted(dataset: HubDataset, converted: HubListing) -> HubListing:
    """From the converter's layout, CONFIG/SPLIT/0000.parquet, SPLIT being partial-train if it stopped early."""
    by_config: dict[str, list[HubFile]] = {}
    for file in converted.files:
        parts = PurePosixPath(file.path).parts
        if len(parts) == 3 and parts[1] in ("train", "partial-train"):
            by_config.setdefault(parts[0], []).append(file)
    name = dataset.config or ("default" if "default" in by_config else next(iter(by_config), None))
    if name not in by_config or (dataset.config is None and len(by_config) > 1 and name != "default"):
        raise ValueError(
            f"{dataset.repo} has no training split for the config {dataset.config!r}; write "
            f"hf:{dataset.repo}:CONFIG with one of {', '.join(sorted(by_config)) or 'none: it has none'}"
        )
    partial = any("/partial-train/" in file.path for file in by_config[name])
    note = f"the hub has converted only the beginning of {dataset.repo}" if partial else ""
    return HubListing(converted.revision, tuple(by_config[name]), note)


@contextmanager
def _explained(repo: str, kind: str = "dataset") -> Iterator[None]:
    """Turn the library's failures into one sentence each."""
    from huggingface_hub import errors

    sentences: dict[type[Exception], str] = {
        errors.RevisionNotFoundError: f"the hub no longer has {repo} as it was when this was begun: run the same command "
        "to begin anew",
        errors.GatedRepoError: f"the {kind} {repo} is gated: accept its terms on its page, then set HF_TOKEN to a token "
        "of yours",
        errors.RepositoryNotFoundError: f"there is no {kind} {repo} on the hub, or it is private: check the name, or set "
        "HF_TOKEN",
        errors.HFValidationError: f"{repo!r} is no name of a {kind}: write owner/name",
    }
    try:
        yield
    except tuple(sentences) as problem:
        raise ValueError(next(text for error, text in sentences.items() if isinstance(problem, error))) from problem
    except (errors.HTTPError, OSError) as problem:
        # The library has no exception class for a failed connection; it raises one of these.
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_problem(problem, Path(problem.filename or ".")) from problem
        [reason, *_] = str(problem).strip().splitlines() or [type(problem).__name__]
        raise UnavailableError(
            f"the {kind} {repo} could not be fetched from the hub ({reason}); check the network, or fetch its "
            f"{'parquet files' if kind == 'dataset' else 'files'} on another machine and give their paths instead"
        ) from problem
