"""The table of named sources, and the origin of every SOURCE of `prepare --kind conversations`, preferences or prompts.

A source becomes parts whose rows are read in order, each of a split of its own or to be divided by hash. A new
dataset is one row of NAMED or PREFERENCES, a new format one row in the table of its kind. Nothing is written here.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from understudy.data.chat.conversation_formats import read_conversations
from understudy.data.chat.formats import ParsedRow
from understudy.data.chat.parts import ChatPart, Opened, Sampler
from understudy.data.chat.preference_formats import read_preferences
from understudy.data.chat.prompt_formats import read_prompts
from understudy.data.fetch.hub import HubDataset, HubFile, fetch_file, list_dataset, parse_hub_name
from understudy.data.find import FileKinds, find_files, is_glob
from understudy.data.generated import CORPORA, Split, fingerprint, record_count
from understudy.data.progress import PreparationProgress, Report
from understudy.data.text.sources import NAMED as NAMED_TEXT
from understudy.files import sha256_of

CHAT_FILES = FileKinds((".json", ".jsonl", ".parquet"), (".csv", ".tsv", ".arrow"))
VALIDATION_WORDS = ("val", "valid", "validation", "dev", "eval")
TEST_WORDS = ("test",)


@dataclass(frozen=True)
class LocalFile:
    """`split`: the one in its name, where a folder has files of several splits."""

    path: Path
    sha256: str
    split: Split | None


@dataclass(frozen=True)
class ChatFiles:
    """`left_out`: files of a folder that were passed over, by ending, or as those for testing."""

    files: tuple[LocalFile, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Hub:
    """Datasets of the hub: one for each split it has, or one that is divided here."""

    splits: tuple[tuple[Split | None, HubDataset], ...]


@dataclass(frozen=True)
class GeneratedChat:
    """A row of generated.CORPORA; with `sampling`, its questions answered by a run."""

    corpus: str
    sampling: Sampler | None = None


@dataclass(frozen=True)
class ChatSource:
    """`weight`: how many times an epoch shows each of its records."""

    name: str
    weight: float
    origin: ChatFiles | Hub | GeneratedChat

    def has_splits(self) -> bool:
        """Whether nothing of it is left to be divided by hash."""
        if isinstance(self.origin, ChatFiles):
            return all(file.split for file in self.origin.files)
        return isinstance(self.origin, GeneratedChat) or all(split for split, _ in self.origin.splits)


def _with_splits(repo: str, train: str, val: str) -> Hub:
    return Hub((("train", HubDataset(repo, files=train)), ("val", HubDataset(repo, files=val))))


NAMED: dict[str, Hub | GeneratedChat] = {
    **{name: GeneratedChat(name) for name in CORPORA},
    "gsm8k": _with_splits("openai/gsm8k", "main/train-*.parquet", "main/test-*.parquet"),
    "squad_v2": _with_splits("rajpurkar/squad_v2", "squad_v2/train-*.parquet", "squad_v2/validation-*.parquet"),
    "dolly": Hub(((None, HubDataset("databricks/databricks-dolly-15k")),)),
    "alpaca": Hub(((None, HubDataset("tatsu-lab/alpaca")),)),
    "ultrachat": _with_splits("HuggingFaceH4/ultrachat_200k", "data/train_sft-*.parquet", "data/test_sft-*.parquet"),
}
PREFERENCES: dict[str, Hub | GeneratedChat] = {
    **{name: GeneratedChat(name) for name in CORPORA},
    "hh": Hub(((None, HubDataset("Anthropic/hh-rlhf")),)),
    "ultrafeedback": _with_splits(
        "HuggingFaceH4/ultrafeedback_binarized", "data/train_prefs-*.parquet", "data/test_prefs-*.parquet"
    ),
}
BY_KIND = {"conversations": NAMED, "preferences": PREFERENCES, "prompts": NAMED}
READERS: dict[str, Callable[..., Iterator[ParsedRow]]] = {
    "conversations": read_conversations,
    "preferences": read_preferences,
    "prompts": read_prompts,
}


def parse_sources(
    arguments: Sequence[str], kind: str, report: Report, sampling: Sampler | None = None
) -> list[ChatSource]:
    """The source behind each SOURCE[@WEIGHT], without the network; files are looked up and hashed.

    Args:
        sampling: how a run answers the questions of a generated corpus.

    Raises:
        ValueError: no sources, one that is not there or cannot be of this kind, one source twice, a weight that is
            no positive number.
    """
    if not arguments:
        named = ", ".join(BY_KIND[kind])
        raise ValueError(f"nothing to prepare: name files, folders, globs, hf:owner/name, or one of {named}")
    given = [_take_weight(argument) for argument in arguments]
    stems = Counter(_short_name(argument) for argument, _ in given)
    sources = []
    for argument, weight in given:
        origin = GeneratedChat(argument, sampling) if argument in CORPORA else _find(argument, kind, report)
        name = _short_name(argument)
        # Two files of one name are distinguished by their paths, as they were given.
        sources.append(ChatSource(name if stems[name] == 1 else argument, weight, origin))
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(
            f"a source is named twice in {', '.join(names)}: name each one once, SOURCE@2 shows it twice as often"
        )
    _refuse_overlap(sources)
    return sources


def _take_weight(argument: str) -> tuple[str, float]:
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
    return source, weight


def _short_name(argument: str) -> str:
    if argument in NAMED or argument in PREFERENCES or argument.startswith("hf:"):
        return argument
    return argument if is_glob(argument) else PurePath(argument).name.split(".")[0] or argument


def _find(argument: str, kind: str, report: Report) -> ChatFiles | Hub | GeneratedChat:
    named = BY_KIND[kind]
    if argument in named:
        return named[argument]
    if argument in NAMED or argument in PREFERENCES:
        raise ValueError(f"{argument} has no {kind}: name files, hf:owner/name, or one of {', '.join(named)}")
    if argument.startswith("hf:"):
        dataset = parse_hub_name(argument)
        if dataset.field is not None:
            raise ValueError(
                f"the field of {argument} would do nothing: formats of {kind} are recognised by their fields; leave it out"
            )
        return Hub(((None, dataset),))
    if argument in NAMED_TEXT:
        raise ValueError(
            f"{argument} is text without {kind}: prepare it without --kind, or name one of {', '.join(named)}"
        )
    return _local(argument, kind, report)


def _local(argument: str, kind: str, report: Report) -> ChatFiles:
    """The files behind a path, folder or glob."""
    path = Path(argument).expanduser()
    if not path.exists() and not is_glob(argument):
        near = difflib.get_close_matches(argument, BY_KIND[kind], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"named sources are {', '.join(BY_KIND[kind])}"
        raise ValueError(f"{argument!r} is neither a file or folder nor a named source of {kind}: {hint}")
    local = find_files([argument], CHAT_FILES)
    splits: dict[Path, Split | None] = dict.fromkeys(local.files)
    left_out = dict(local.skipped)
    if not path.is_file():
        splits, for_testing = _splits_by_name(local.files, path if path.is_dir() else None)
        left_out = for_testing | left_out
    files = []
    for number, (file, split) in enumerate(splits.items(), 1):
        files.append(LocalFile(file, sha256_of(file), split))
        report(PreparationProgress("hashing files", number, len(splits)))
    return ChatFiles(tuple(files), left_out)


def _splits_by_name(files: Sequence[Path], folder: Path | None) -> tuple[dict[Path, Split | None], dict[str, int]]:
    """The split of each file, where the names tell training from validation, as in train.jsonl and test.jsonl.

    Files for testing stand in for validation where there is none; else they are left out, and counted.
    """
    words = {f: re.split(r"[/._-]", (f.relative_to(folder) if folder else f).as_posix().lower()) for f in files}
    validation = {f for f in files if any(word in VALIDATION_WORDS for word in words[f])}
    testing = {f for f in files if any(word in TEST_WORDS for word in words[f])} - validation
    if not any("train" in words[f] for f in files) or not validation | testing:
        return dict.fromkeys(files), {}
    left_out = testing if validation else set()
    splits: dict[Path, Split | None] = {
        f: "val" if f in validation | testing else "train" for f in files if f not in left_out
    }
    return splits, {"for testing": len(left_out)} if left_out else {}


def _refuse_overlap(sources: Sequence[ChatSource]) -> None:
    seen: dict[Path, str] = {}
    for source in sources:
        for file in source.origin.files if isinstance(source.origin, ChatFiles) else ():
            other = seen.setdefault(file.path.resolve(), source.name)
            if other != source.name:
                raise ValueError(f"{file.path} is in two sources, {other} and {source.name}: name it once")


def identity(source: ChatSource, kind: str, seed: int) -> dict[str, Any]:
    """The values that make two requests for this source the same one: contents, where they are known, never paths."""
    about: dict[str, Any] = {"name": source.name, "weight": source.weight}
    if isinstance(source.origin, ChatFiles):
        about["files"] = [[file.sha256, file.split] for file in source.origin.files]
    elif isinstance(source.origin, GeneratedChat):
        about |= {"seed": seed, "fingerprint": fingerprint(source.origin.corpus, kind, seed)}
        if source.origin.sampling:
            about["sampled"] = source.origin.sampling.identity(source.origin.corpus)
    return about


def open_source(
    source: ChatSource,
    kind: str,
    format_name: str | None,
    seed: int,
    limit: int | None,
    cache: Path,
    report: Report,
    endpoint: str | None = None,
) -> Opened:
    """The parts of a source. Files of the hub are fetched when their rows are read.

    Raises:
        UnavailableError: the network is away.
        ValueError: the dataset does not exist.
    """
    rows, origin = partial(READERS[kind], format_name=format_name), source.origin
    if isinstance(origin, GeneratedChat) and origin.sampling:
        return origin.sampling.open(origin.corpus, seed, limit)
    if isinstance(origin, GeneratedChat):
        return Opened(_generated_parts(origin.corpus, kind, seed, limit))
    if isinstance(origin, Hub):
        return _open_hub(origin, rows, cache, report, endpoint)
    parts = [
        ChatPart(file.path.name, file.split, file.sha256, file.path.stat().st_size, partial(rows, file.path))
        for file in origin.files
    ]
    return Opened(tuple(parts), left_out=origin.left_out)


def _open_hub(
    origin: Hub, rows: Callable[[Path], Iterator[ParsedRow]], cache: Path, report: Report, endpoint: str | None
) -> Opened:
    parts, notes, revision = [], [], None
    for split, dataset in origin.splits:
        report(PreparationProgress(f"listing {dataset.repo}", 0, None))
        listing = list_dataset(dataset, endpoint)
        if dataset.files is not None and not all(PurePath(file.path).match(dataset.files) for file in listing.files):
            raise ValueError(
                f"the dataset {dataset.repo} no longer has files like {dataset.files}; give it by its repository, "
                f"hf:{dataset.repo}, or its files by their paths"
            )
        revision = listing.revision
        notes += [listing.note] if listing.note else []
        fetch = partial(fetch_file, dataset.repo, listing.revision, cache=cache / "hub", endpoint=endpoint)
        parts += [
            ChatPart(file.path, split, file.sha256, file.size_bytes, partial(_fetched_rows, fetch, file, rows))
            for file in listing.files
        ]
    return Opened(tuple(parts), revision, tuple(notes))


def _fetched_rows(
    fetch: Callable[[HubFile], Path], file: HubFile, rows: Callable[[Path], Iterator[ParsedRow]]
) -> Iterator[ParsedRow]:
    yield from rows(fetch(file))


def _generated_parts(name: str, kind: str, seed: int, limit: int | None) -> tuple[ChatPart, ...]:
    corpus = CORPORA[name]

    def rows(split: Split, count: int) -> Iterator[ParsedRow]:
        for number, record in enumerate(corpus.records(kind, seed, split, count), 1):
            yield ParsedRow(record, "", number)

    def part(split: Split) -> ChatPart:
        count = record_count(split, corpus.counts[kind][split], limit)
        return ChatPart(f"{name}/{split}", split, None, count, lambda: rows(split, count))

    return part("train"), part("val")
