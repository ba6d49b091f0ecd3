"""The tables of named sources, and the origin of every SOURCE that `prepare` is given.

A source becomes a feed: parts (files, or splits of a generated corpus) that are read in order. A new dataset is one row
of NAMED; a generated one is a row of generated.CORPORA. How a file is read is told by the caller, and nothing is written.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

from understudy.data.chat.formats import ParsedRow
from understudy.data.fetch.download import download
from understudy.data.fetch.hub import HubDataset, HubFile, fetch_file, list_dataset, parse_hub_name
from understudy.data.find import FileKinds, find_files, is_glob
from understudy.data.generated import CORPORA, Split, fingerprint, record_count
from understudy.data.layout import SPLITS
from understudy.data.progress import PreparationProgress, Report
from understudy.data.records import file_ending
from understudy.data.text.documents import TEXT_FILES, DocumentPiece, split_document, without_gutenberg
from understudy.files import sha256_of

CHAT_FILES = FileKinds((".json", ".jsonl", ".parquet"), (".csv", ".tsv", ".arrow"))
VALIDATION_WORDS = ("val", "valid", "validation", "dev", "eval")


@dataclass(frozen=True)
class Part:
    """A file, or a split of a generated corpus. `size`: the total of the offsets within it, bytes or records.
    `split`: the one it belongs to, where the source has splits of its own."""

    name: str
    size: int
    sha256: str | None
    split: Split | None = None


class Pin(NamedTuple):
    """The parts that an interrupted preparation began with, which its source must still have."""

    parts: tuple[Part, ...]
    revision: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Feed:
    """A source that can be read: `read(i)` gives the documents or records of `parts[i]`, the same ones every time.

    Attributes:
        remote: whether the parts are fetched when they are read.
        notes: remarks for the user, complete when everything was read.
        left_out: the number of files passed over, by ending, or as those for testing.
        about: further fields of the manifest.
        doing: the verb for a progress bar.
    """

    name: str
    parts: tuple[Part, ...]
    read: Callable[[int], Iterator[Any]]
    remote: bool = False
    revision: str | None = None
    notes: Sequence[str] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    doing: str = "reading"


class Sampler(Protocol):
    """Preferences between answers sampled from a run (annotators.py), in place of a corpus's own."""

    @property
    def run(self) -> str: ...

    def identity(self, corpus: str) -> dict[str, Any]:
        """The values that make two requests the same one."""
        ...

    def run_name(self) -> str: ...

    def open(self, corpus_name: str, seed: int, limit: int | None) -> Feed: ...


@dataclass(frozen=True)
class WebText:
    """Texts at fixed addresses, (url, sha256 or None) each. `gutenberg`: cut off the header and licence of Project
    Gutenberg."""

    urls: tuple[tuple[str, str | None], ...]
    gutenberg: bool = False


@dataclass(frozen=True)
class Generated:
    """A row of generated.CORPORA; with `sampling`, its questions answered by a run."""

    corpus: str
    sampling: Sampler | None = None


@dataclass(frozen=True)
class Files:
    """`left_out`: see Feed."""

    paths: tuple[Path, ...]
    parts: tuple[Part, ...]
    left_out: dict[str, int]


Origin = WebText | Generated | HubDataset | Files


@dataclass(frozen=True)
class Source:
    """`weight`: how many times an epoch shows each record of a conversation source."""

    name: str
    weight: float
    origin: Origin

    def has_splits(self) -> bool:
        """Whether nothing of it is left to be divided here."""
        if isinstance(self.origin, Files):
            return all(part.split for part in self.origin.parts)
        return isinstance(self.origin, Generated) or (
            isinstance(self.origin, HubDataset) and bool(self.origin.val_files)
        )


def _books(*numbers: int) -> WebText:
    """Books of Project Gutenberg. Their files are corrected now and then, so that no checksum is published here: the one
    first seen is kept beside the download and in the manifest, and holds from then on."""
    return WebText(tuple((f"https://www.gutenberg.org/cache/epub/{n}/pg{n}.txt", None) for n in numbers), True)


SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
TEXT: dict[str, Origin] = {
    **{name: Generated(name) for name in CORPORA},
    "shakespeare": WebText(((SHAKESPEARE_URL, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),)),
    "alice": _books(11),
    "frankenstein": _books(84),
    "pride-and-prejudice": _books(1342),
    "sherlock-holmes": _books(1661),
    "moby-dick": _books(2701),
    "books": _books(11, 84, 1342, 1661, 2701),
    "openwebtext": HubDataset("Skylion007/openwebtext", field="text"),
    "openwebtext-10k": HubDataset("stas/openwebtext-10k", field="text"),
    "fineweb-edu": HubDataset("HuggingFaceFW/fineweb-edu", field="text", files="sample/10BT/*.parquet"),
}
CONVERSATIONS: dict[str, Origin] = {
    **{name: Generated(name) for name in CORPORA},
    "gsm8k": HubDataset("openai/gsm8k", files="main/train-*.parquet", val_files="main/test-*.parquet"),
    "squad_v2": HubDataset(
        "rajpurkar/squad_v2", files="squad_v2/train-*.parquet", val_files="squad_v2/validation-*.parquet"
    ),
    "dolly": HubDataset("databricks/databricks-dolly-15k"),
    "alpaca": HubDataset("tatsu-lab/alpaca"),
    "ultrachat": HubDataset(
        "HuggingFaceH4/ultrachat_200k", files="data/train_sft-*.parquet", val_files="data/test_sft-*.parquet"
    ),
}
PREFERENCES: dict[str, Origin] = {
    **{name: Generated(name) for name in CORPORA},
    "hh": HubDataset("Anthropic/hh-rlhf"),
    "ultrafeedback": HubDataset(
        "HuggingFaceH4/ultrafeedback_binarized",
        files="data/train_prefs-*.parquet",
        val_files="data/test_prefs-*.parquet",
    ),
}
NAMED = {"text": TEXT, "conversations": CONVERSATIONS, "preferences": PREFERENCES, "prompts": CONVERSATIONS}
"""The named sources of each kind of data."""


def parse_sources(
    arguments: Sequence[str], kind: str, report: Report, sampling: Sampler | None = None
) -> tuple[Source, ...]:
    """The source behind each SOURCE, or SOURCE@WEIGHT of messages, without the network.

    Files are looked up and hashed. Those of text are one source together.

    Args:
        sampling: how a run answers the questions of a generated corpus.

    Raises:
        ValueError: no sources, one that is not there or cannot be of this kind, one source twice, a weight that is
            no positive number.
    """
    if not arguments:
        named = ", ".join(NAMED[kind])
        raise ValueError(f"nothing to prepare: name files, folders, globs, hf:owner/name, or one of {named}")
    given = [(argument, 1.0) if kind == "text" else _take_weight(argument) for argument in arguments]
    stems = Counter(_stem(argument) for argument, _ in given)
    sources: list[Source] = []
    texts: list[str] = []
    for argument, weight in given:
        if origin := _named(argument, kind, sampling):
            sources.append(Source(argument, weight, origin))
        elif kind == "text":
            texts.append(argument)
        else:
            # Two files of one name are distinguished by their paths, as they were given.
            name = _stem(argument) if stems[_stem(argument)] == 1 else argument
            sources.append(Source(name, weight, _local([argument], kind, report)))
    if texts:
        sources.append(Source("files", 1.0, _local(texts, kind, report)))
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"a source is named twice in {', '.join(names)}: name each one once")
    owner: dict[Path, str] = {}
    for source in sources:
        for path in source.origin.paths if isinstance(source.origin, Files) else ():
            if (other := owner.setdefault(path.resolve(), source.name)) != source.name:
                raise ValueError(f"{path} is in two sources, {other} and {source.name}: name it once")
    return tuple(sources)


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


def _stem(argument: str) -> str:
    return argument if is_glob(argument) else PurePath(argument).name.split(".")[0] or argument


def _named(argument: str, kind: str, sampling: Sampler | None) -> Origin | None:
    """The origin of a named source or a dataset of the hub; None for files."""
    if argument in NAMED[kind]:
        return Generated(argument, sampling) if sampling else NAMED[kind][argument]
    if argument.startswith("hf:"):
        dataset = parse_hub_name(argument)
        if dataset.field is not None and kind != "text":
            raise ValueError(
                f"the field of {argument} would do nothing: formats of {kind} are recognised by their fields; leave it out"
            )
        return dataset
    if other := next((other for other, named in NAMED.items() if argument in named), None):
        raise ValueError(f"{argument} is a source of {other}, not of {kind}: add --kind {other}")
    if not Path(argument).expanduser().exists() and not is_glob(argument):
        near = difflib.get_close_matches(argument, NAMED[kind], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"named sources are {', '.join(NAMED[kind])}"
        raise ValueError(f"{argument!r} is neither a file or folder nor a named source of {kind}: {hint}")
    return None


def _local(arguments: Sequence[str], kind: str, report: Report) -> Files:
    """The files behind paths, folders and globs."""
    found = find_files(arguments, TEXT_FILES if kind == "text" else CHAT_FILES)
    splits: dict[Path, Split | None] = dict.fromkeys(found.files)
    left_out = found.skipped
    path = Path(arguments[0]).expanduser()
    if kind != "text" and not path.is_file():
        splits, for_testing = _splits_by_name(found.files, path if path.is_dir() else None)
        left_out = for_testing | left_out
    sizes = [file.stat().st_size for file in splits]
    parts: list[Part] = []
    for (file, split), size in zip(splits.items(), sizes):
        parts.append(Part(str(file), size, sha256_of(file), split))
        report(PreparationProgress("hashing files", sum(part.size for part in parts), sum(sizes)))
    return Files(tuple(splits), tuple(parts), left_out)


def _splits_by_name(files: Sequence[Path], folder: Path | None) -> tuple[dict[Path, Split | None], dict[str, int]]:
    """The split of each file, where the names tell training from validation, as in train.jsonl and test.jsonl.

    Files for testing stand in for validation where there is none; else they are left out, and counted.
    """
    words = {f: re.split(r"[/._-]", (f.relative_to(folder) if folder else f).as_posix().lower()) for f in files}
    validation = {f for f in files if any(word in VALIDATION_WORDS for word in words[f])}
    testing = {f for f in files if "test" in words[f]} - validation
    if not any("train" in words[f] for f in files) or not validation | testing:
        return dict.fromkeys(files), {}
    left_out = testing if validation else set()
    splits: dict[Path, Split | None] = {
        f: "val" if f in validation | testing else "train" for f in files if f not in left_out
    }
    return splits, {"for testing": len(left_out)} if left_out else {}


def identity(source: Source, kind: str, seed: int) -> dict[str, Any]:
    """The values that make two requests for this source the same one: contents, where they are known, never paths."""
    origin = source.origin
    if isinstance(origin, Files) and kind == "text":
        return {"files": [["".join(file_ending(path)), part.sha256] for path, part in zip(origin.paths, origin.parts)]}
    about: dict[str, Any] = {"name": source.name} | ({} if kind == "text" else {"weight": source.weight})
    if isinstance(origin, Files):
        about["files"] = [[part.sha256, part.split] for part in origin.parts]
    elif isinstance(origin, Generated):
        about |= {"seed": seed, "fingerprint": fingerprint(origin.corpus, kind, seed)}
        if origin.sampling:
            about["sampled"] = origin.sampling.identity(origin.corpus)
    return about


def check_divided(sources: Sequence[Source], val_fraction: float | None, limit: int | None, seed: int | None) -> None:
    """Refuse settings of a preparation that are out of range, or that these sources would ignore.

    Raises:
        ValueError: one of them is.
    """
    if val_fraction is not None and not 0 < val_fraction <= 0.5:
        raise ValueError(f"val_fraction must be above 0 and at most 0.5, not {val_fraction}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 of each source, not {limit}")
    if val_fraction is not None and all(source.has_splits() for source in sources):
        raise ValueError(
            f"val_fraction={val_fraction} would do nothing: {sources[0].name} has its own validation split"
        )
    if seed is not None and not any(isinstance(source.origin, Generated) for source in sources):
        raise ValueError(
            f"seed={seed} would do nothing: no generated source ({', '.join(CORPORA)}) was given; leave it out"
        )


def default_name(sources: Sequence[Source]) -> str:
    """The name of the data folder where the user gave none: that of the one source or file.

    Raises:
        ValueError: there are several.
    """
    name, origin = sources[0].name, sources[0].origin
    is_file = isinstance(origin, Files) and len(origin.paths) == 1
    if len(sources) > 1 or is_glob(name) or (name == "files" and not is_file):
        raise ValueError("several files or sources have no common name: give the folder of the data, --out FOLDER")
    name = _stem(origin.parts[0].name) if isinstance(origin, Files) and is_file else name
    return name.removeprefix("hf:").split("#")[0].split("/")[-1].replace(":", "-")


def open_feed(
    source: Source,
    kind: str,
    read: Callable[[Path], Iterator[Any]],
    cache: Path,
    seed: int,
    limit: int | None,
    report: Report,
    pinned: Pin | None = None,
    endpoint: str | None = None,
) -> Feed:
    """A feed for a source, whose files `read` reads. Files of the hub are fetched when they are read.

    Raises:
        UnavailableError: the network is away.
        ValueError: the dataset or file does not exist, or has changed since.
    """
    origin = source.origin
    if isinstance(origin, HubDataset):
        feed = _open_hub(source, origin, read, cache, report, pinned, endpoint)
    elif isinstance(origin, Files):
        feed = Feed(source.name, origin.parts, lambda i: read(origin.paths[i]), left_out=origin.left_out)
    elif isinstance(origin, WebText):
        feed = _open_web(source, origin, read, cache, report)
    elif origin.sampling:
        feed = origin.sampling.open(origin.corpus, seed, limit)
    else:
        feed = _open_generated(origin.corpus, kind, seed, limit)
    if pinned is not None and feed.parts != pinned.parts:
        changed = [new.name for new, old in zip(feed.parts, pinned.parts) if new != old] or [source.name]
        raise ValueError(
            f"{changed[0]} has changed since this preparation was begun: run the same command again to begin anew"
        )
    return feed


def _open_web(
    source: Source, origin: WebText, read: Callable[[Path], Iterator[Any]], cache: Path, report: Report
) -> Feed:
    paths, parts = [], []
    for url, sha256 in origin.urls:
        name = url.rsplit("/", 1)[-1]
        report(PreparationProgress(f"fetching {name}", 0, None))
        fetched = download(url, cache / "web" / source.name / name, sha256)
        paths.append(fetched.path)
        parts.append(Part(url, fetched.size_bytes, fetched.sha256))

    def read_book(i: int) -> Iterator[DocumentPiece]:
        return split_document(without_gutenberg(paths[i].read_text("utf-8-sig"), parts[i].name), parts[i].size)

    return Feed(source.name, tuple(parts), read_book if origin.gutenberg else lambda i: read(paths[i]))


def _open_hub(
    source: Source,
    origin: HubDataset,
    read: Callable[[Path], Iterator[Any]],
    cache: Path,
    report: Report,
    pinned: Pin | None,
    endpoint: str | None,
) -> Feed:
    """A feed of files on the hub. Their list is requested once; a resumed preparation takes it from its plan."""
    if pinned is None or pinned.revision is None:
        report(PreparationProgress(f"listing {origin.repo}", 0, None))
        listing = list_dataset(origin, endpoint)
        parts = tuple(Part(file.path, file.size_bytes, file.sha256, file.split) for file in listing.files)
        pinned = Pin(parts, listing.revision, (listing.note,) if listing.note else ())
    parts, revision, notes = pinned
    assert revision is not None

    def fetched(i: int) -> Iterator[Any]:
        file = HubFile(parts[i].name, parts[i].size, parts[i].sha256)
        yield from read(fetch_file(origin.repo, revision, file, cache / "hub", endpoint))

    return Feed(source.name, parts, fetched, remote=True, revision=revision, notes=notes)


def _open_generated(name: str, kind: str, seed: int, limit: int | None) -> Feed:
    corpus = CORPORA[name]
    counts = [record_count(split, corpus.counts[kind][split], limit) for split in SPLITS]
    sha256 = fingerprint(name, kind, seed)
    parts = tuple(Part(f"{name}/{split}", count, sha256, split) for split, count in zip(SPLITS, counts))

    @functools.cache
    def documents(i: int) -> list[str]:
        # Kept (a few MB): a tokenizer is trained on the same documents that are then encoded.
        return list(islice(corpus.texts(seed, SPLITS[i]), counts[i]))

    def read(i: int) -> Iterator[DocumentPiece | ParsedRow]:
        if kind == "text":
            return (DocumentPiece(text, True, number) for number, text in enumerate(documents(i), 1))
        records = corpus.records(kind, seed, SPLITS[i], counts[i])
        return (ParsedRow(record, "", number) for number, record in enumerate(records, 1))

    return Feed(name, parts, read)
