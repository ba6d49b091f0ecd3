"""The arguments of `prepare`, as sources and settings, checked. Nothing is fetched or written here."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from understudy.data.archives import ARCHIVE_ENDINGS, member_names
from understudy.data.fetch.hub import parse_hub_name
from understudy.data.find import FileKinds, find_files, is_glob
from understudy.data.generated import PROMPT_CORPORA, fingerprint, identity_corpus
from understudy.data.inputs import InputFile, file_ending
from understudy.data.layout import FORMAT, SPLITS, Split
from understudy.data.progress import PreparationProgress, Report
from understudy.data.sources import (
    IDENTITY,
    NAMED,
    Files,
    Generated,
    Origin,
    Part,
    RemoteFiles,
    Request,
    Sampler,
    Source,
)
from understudy.data.store import is_url
from understudy.data.text.readers.table import BY_ENDING
from understudy.data.text.reading import TEXT_FILES
from understudy.files import sha256_of
from understudy.identity.settings import IdentitySettings

CHAT_FILES = FileKinds((".json", ".jsonl", ".ndjson", ".parquet"), (".csv", ".tsv", ".arrow", *ARCHIVE_ENDINGS))
VALIDATION = "validation"
"""The source of files that the user gave with --val."""
VALIDATION_WORDS = ("val", "valid", "validation", "dev", "eval")


def parse_sources(
    arguments: Sequence[str], kind: str, report: Report, sampling: Sampler | None = None, validation: Sequence[str] = (),
    identity: IdentitySettings | None = None, hash_of: Callable[[Path], str] = sha256_of,
) -> tuple[Source, ...]:  # fmt: skip
    """The source behind each SOURCE, or SOURCE@WEIGHT of messages, without the network.

    Files are looked up and hashed. Those of text are one source together.

    Args:
        sampling: how a run answers the questions of a generated corpus.
        validation: files that are for validation; the sources are then to train on alone.
        identity: who the assistant is, of the source `identity`.
        hash_of: gives the SHA-256 of a file.

    Raises:
        ValueError: no sources, one that is not there or cannot be of this kind, one source twice, a weight that is
            no positive number.
    """
    if not arguments:
        named = ", ".join(NAMED[kind])
        raise ValueError(f"nothing to prepare: name files, folders, globs, hf:owner/name, or one of {named}")
    given = [(argument, 1.0) if kind == "text" else _take_weight(argument, kind) for argument in arguments]
    stems = Counter(_stem(argument) for argument, _ in given)
    sources: list[Source] = []
    texts: list[str] = []
    for argument, weight in given:
        if origin := _named(argument, kind, sampling, identity):
            sources.append(Source(argument, weight, origin))
        elif kind == "text":
            texts.append(argument)
        else:
            # Two files of one name are distinguished by their paths, as they were given.
            name = _stem(argument) if stems[_stem(argument)] == 1 else argument
            sources.append(Source(name, weight, _local([argument], kind, report)))
    if texts:
        sources.append(Source("files", 1.0, _local(texts, kind, report, validation, hash_of)))
    elif kind != "text" and not validation:
        sources = _kept_apart(sources)
    if validation:
        sources = _to_train_on(sources, validation, kind, report)
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"a source is named twice in {', '.join(names)}: name each one once")
    owner: dict[Path, str] = {}
    for source in sources:
        for path in source.origin.paths if isinstance(source.origin, Files) else ():
            if (other := owner.setdefault(path.resolve(), source.name)) != source.name:
                raise ValueError(f"{path} is in two sources, {other} and {source.name}: name it once")
    return tuple(sources)


def _to_train_on(sources: Sequence[Source], validation: Sequence[str], kind: str, report: Report) -> list[Source]:
    """The sources without their own validation splits, and one of the files for validation. Files of text are one source,
    in which those for validation stand already."""
    if any(source.name == "files" for source in sources):
        return [replace(source, only=None if source.name == "files" else "train") for source in sources]
    held_out = _local(validation, kind, report)
    resolved = {path.resolve() for path in held_out.paths}
    only: list[Source] = []
    for source in sources:
        origin = source.origin
        if isinstance(origin, Files):
            chosen = [n for n, path in enumerate(origin.paths) if path.resolve() not in resolved]
            if not chosen:
                raise ValueError(f"every file is for validation ({', '.join(validation)}): name others to train on")
            origin = origin.chosen(chosen, "train")
        only.append(replace(source, origin=origin, only="train"))
    return [*only, Source(VALIDATION, 1.0, held_out.chosen(range(len(held_out.parts)), "val"), "val")]


def _kept_apart(sources: Sequence[Source]) -> list[Source]:
    """Sources of one file each, whose names tell their splits, as in `train.jsonl test.jsonl`, with those splits."""
    single = [s for s in sources if isinstance(s.origin, Files) and len(s.origin.paths) == 1]
    words = {s.origin.paths[0]: _split_words(s.origin.paths[0], None) for s in single if isinstance(s.origin, Files)}
    splits, for_testing = _splits_by_name(words, whole=True)
    if not any(splits.values()):
        return list(sources)
    kept: list[Source] = []
    for source in sources:
        origin = source.origin
        if source not in single or not isinstance(origin, Files):
            kept.append(source)
        elif split := splits.get(origin.paths[0]):
            left_out = origin.left_out | (for_testing if not kept else {})
            kept.append(replace(source, origin=replace(origin.chosen([0], split), left_out=left_out)))
    return kept


def _take_weight(argument: str, kind: str) -> tuple[str, float]:
    source, at, number = argument.rpartition("@")
    if not at or Path(argument).expanduser().exists():
        return argument, 1.0
    try:
        weight = float(number)
    except ValueError:
        return argument, 1.0
    if not 0 < weight < math.inf:
        raise ValueError(
            f"the weight of {source} must be a number above 0, not {number}: 2 shows each conversation twice an epoch"
        )
    if weight != 1 and kind != "conversations":
        raise ValueError(f"the weight of {source} would do nothing: an epoch shows {kind} once; leave @{number} out")
    return source, weight


def _stem(argument: str) -> str:
    return argument if is_glob(argument) else PurePath(argument).name.split(".")[0] or argument


def _named(
    argument: str, kind: str, sampling: Sampler | None, identity: IdentitySettings | None
) -> Origin | None:  # fmt: skip
    """The origin of a named source or a dataset of the hub; None for files."""
    if argument == IDENTITY:
        if kind != "conversations":
            raise ValueError(f"{argument} is a source of conversations, not of {kind}: add --kind conversations")
        if identity is None:
            raise ValueError("identity needs the assistant's --name and --maker")
        return Generated(argument, made=identity_corpus(identity))
    if argument in NAMED[kind]:
        return Generated(argument, sampling) if sampling else NAMED[kind][argument]
    if argument.startswith("hf:"):
        dataset = parse_hub_name(argument)
        if dataset.field is not None and kind != "text":
            raise ValueError(
                f"the field of {argument} would do nothing: formats of {kind} are recognised by their fields; leave it out"
            )
        return dataset
    if is_url(argument):
        if kind != "text":
            raise ValueError(
                f"{argument} can be a source of text, not of {kind}: copy the files here and give their paths"
            )
        return RemoteFiles(argument)
    if other := next((other for other, named in NAMED.items() if argument in named), None):
        raise ValueError(f"{argument} is a source of {other}, not of {kind}: add --kind {other}")
    if not Path(argument).expanduser().exists() and not is_glob(argument):
        hint = _similar_name(argument, kind) or f"named sources are {', '.join(NAMED[kind])}"
        raise ValueError(f"{argument!r} is neither a file or folder nor a named source of {kind}: {hint}")
    return None


def _similar_name(argument: str, kind: str) -> str:
    """A question whether another source was meant, of this kind or else of another; "" where none is similar."""
    for named in (kind, *(other for other in NAMED if other != kind)):
        if near := difflib.get_close_matches(argument.lower().replace("_", "-"), [*NAMED[named]], n=1):
            return f"did you mean {near[0]!r}?" if named == kind else f"did you mean {near[0]!r}, with --kind {named}?"
    return ""


def _local(
    arguments: Sequence[str], kind: str, report: Report, validation: Sequence[str] = (),
    hash_of: Callable[[Path], str] = sha256_of,
) -> Files:  # fmt: skip
    """The files behind paths, folders and globs; with those of `validation` kept apart."""
    kinds = TEXT_FILES if kind == "text" else CHAT_FILES
    found = find_files(arguments, kinds)
    splits: dict[Path, Split | None] = dict.fromkeys(found.files)
    left_out = found.skipped
    path = Path(arguments[0]).expanduser()
    folder = path if len(arguments) == 1 and path.is_dir() else None
    if validation:
        apart = find_files(validation, kinds).files
        resolved = {file.resolve() for file in apart}
        splits = {file: "train" for file in found.files if file.resolve() not in resolved}
        if not splits:
            raise ValueError(f"every file is for validation ({', '.join(validation)}): name others to train on")
        splits |= dict.fromkeys(apart, "val")
    elif kind == "text":
        splits, for_testing = _splits_by_name({f: _split_words(f, folder) for f in found.files}, whole=True)
        left_out = for_testing | left_out
    elif not path.is_file():
        words = {
            f: re.split(r"[/._-]", (f.relative_to(folder) if folder else f).as_posix().lower()) for f in found.files
        }
        splits, for_testing = _splits_by_name(words)
        left_out = for_testing | left_out
    shares = None if validation or any(splits.values()) else _shares_of_archives(found.files, kind)
    if shares is None:
        files: list[_Share] = [(file, split, None) for file, split in splits.items()]
    else:
        files, for_testing = shares
        left_out = for_testing | left_out
    sizes = [file.stat().st_size for file, _, _ in files]
    hashes: dict[Path, str] = {}
    parts: list[Part] = []
    for (file, split, _), size in zip(files, sizes):
        hashes[file] = hashes.get(file) or hash_of(file)
        parts.append(Part(str(file), size, hashes[file], split))
        report(PreparationProgress("hashing files", sum(part.size for part in parts), sum(sizes)))
    return Files(tuple(file for file, _, _ in files), tuple(parts), tuple(only for _, _, only in files), left_out)


_Share = tuple[Path, Split | None, frozenset[str] | None]
"""A file, its split, and of an archive the members that are read."""


def _shares_of_archives(files: Sequence[Path], kind: str) -> tuple[list[_Share], dict[str, int]] | None:
    """Archives divided by the names of their members, and the number of members for testing that are left out.

    None where a file is no archive, or has no splits inside.
    """
    if not all(file_ending(file)[0] in ARCHIVE_ENDINGS for file in files):
        return None
    shares: list[_Share] = []
    left_out: Counter[str] = Counter()
    for file in files:
        try:
            names = member_names(InputFile.at(file))
        except ValueError:  # which is told when it is read
            return None
        words = {Path(name): _split_words(Path(name), Path()) for name in names}
        if kind == "text":  # pictures and the like need no split
            words = {name: found for name, found in words.items() if found or file_ending(name)[0] in BY_ENDING}
        splits, for_testing = _splits_by_name(words, whole=kind == "text")
        if not any(splits.values()):
            return None
        left_out.update(for_testing)
        for split in SPLITS:
            others = [name for name in names if split == "train" and Path(name) not in words]
            chosen = [name for name in names if splits.get(Path(name)) == split]
            shares.append((file, split, frozenset(chosen + others)))
    shares.sort(key=lambda share: share[1] == "val")  # so that a limit counts training text first
    return shares, dict(left_out)


def _split_words(file: Path, folder: Path | None) -> list[str]:
    """The word that names a file's split: its folder (validation/0.txt), or the first or last word of its name, numbers
    aside (train-00000-of-00002.parquet, stories-train.txt). Text about trains and tests has such words elsewhere."""
    inner = file.relative_to(folder) if folder else Path(file.name)
    words = [
        word for word in re.split(r"[._-]", inner.name.split(".")[0].lower()) if not word.isdigit() and word != "of"
    ]
    named = ("train", "test", *VALIDATION_WORDS)
    return [word for word in (*inner.parts[:-1], *words[:1], *words[-1:]) if word in named]


def _splits_by_name(
    words: dict[Path, list[str]], whole: bool = False
) -> tuple[dict[Path, Split | None], dict[str, int]]:
    """The split of each file, where the words of the names tell training from validation, as in train.jsonl and test.jsonl.

    Files for testing stand in for validation where there is none; else they are left out, and counted.

    Args:
        whole: whether the names tell nothing unless they tell it of every file.
    """
    validation = {f for f in words if any(word in VALIDATION_WORDS for word in words[f])}
    testing = {f for f in words if "test" in words[f]} - validation
    unnamed = whole and not all(words.values())
    if unnamed or not any("train" in words[f] for f in words) or not validation | testing:
        return dict.fromkeys(words), {}
    left_out = testing if validation else set()
    splits: dict[Path, Split | None] = {
        f: "val" if f in validation | testing else "train" for f in words if f not in left_out
    }
    splits = dict(
        sorted(splits.items(), key=lambda item: item[1] == "val")
    )  # so that a limit counts training text first
    return splits, {"for testing": len(left_out)} if left_out else {}


def _identity(source: Source, kind: str, seed: int) -> dict[str, Any]:
    """The values that make two requests for this source the same one: contents, where they are known, never paths."""
    origin = source.origin
    if isinstance(origin, Files) and kind == "text":
        split = [[part.split] if part.split else [] for part in origin.parts]
        endings = ["".join(file_ending(path)) for path in origin.paths]
        return {"files": [[ending, part.sha256, *own] for ending, part, own in zip(endings, origin.parts, split)]}
    about: dict[str, Any] = {"name": source.name} | ({} if kind == "text" else {"weight": source.weight})
    if isinstance(origin, Files):
        about["files"] = [[part.sha256, part.split] for part in origin.parts]
    elif source.only:
        about["only"] = source.only
    if isinstance(origin, Generated):
        about |= {"seed": seed, "fingerprint": fingerprint(origin.records(), kind, seed)}
        if origin.sampling:
            about["sampled"] = origin.sampling.identity(origin.corpus)
    return about


def make_request(
    kind: str,
    arguments: Sequence[str],
    val_fraction: float | None,
    limit: int | None,
    seed: int | None,
    report: Report,
    settings: dict[str, Any],
    sampling: Sampler | None = None,
    validation: Sequence[str] = (),
    identity: IdentitySettings | None = None,
    hash_of: Callable[[Path], str] = sha256_of,
) -> Request:
    """Look the sources up, and refuse settings that are out of range or that these sources would ignore.

    Args:
        settings: further ones that decide a byte of the result.
        hash_of: gives the SHA-256 of a file.

    Raises:
        ValueError: one of them is, or :func:`parse_sources` refuses a source.
    """
    if val_fraction is not None and not 0 < val_fraction <= 0.5:
        raise ValueError(f"val_fraction must be above 0 and at most 0.5, not {val_fraction}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 of each source, not {limit}")
    sources = parse_sources(arguments, kind, report, sampling, validation, identity, hash_of)
    if identity is not None and IDENTITY not in (source.name for source in sources):
        raise ValueError(f"the name {identity.name} would do nothing: the source identity was not given")
    if val_fraction is not None and all(source.has_splits() for source in sources):
        raise ValueError(
            f"val_fraction={val_fraction} would do nothing: {sources[0].name} has its own validation split"
        )
    if seed is not None and not any(isinstance(source.origin, Generated) for source in sources):
        raise ValueError(
            f"seed={seed} would do nothing: no generated source ({', '.join(PROMPT_CORPORA)}) was given; leave it out"
        )
    identities = [_identity(source, kind, seed or 0) for source in sources]
    mapping = {"format": FORMAT, "sources": identities, **settings, "val_fraction": val_fraction, "limit": limit}
    mapping = json.loads(json.dumps(mapping))  # as it will be read back
    return Request(kind, sources, val_fraction, limit, seed or 0, mapping)


def default_name(sources: Sequence[Source]) -> str:
    """The name of the data folder where the user gave none: that of the one source or file.

    Raises:
        ValueError: there are several.
    """
    sources = [source for source in sources if source.only != "val"]
    name, origin = sources[0].name, sources[0].origin
    is_file = isinstance(origin, Files) and len(set(origin.paths)) == 1
    if len(sources) > 1 or is_glob(name) or (name == "files" and not is_file):
        raise ValueError("several files or sources have no common name: give the folder of the data, --out FOLDER")
    name = _stem(origin.parts[0].name) if isinstance(origin, Files) and is_file else name
    return name.removeprefix("hf:").split("#")[0].split("/")[-1].replace(":", "-")
