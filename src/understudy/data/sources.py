"""The tables of named sources, what a source can be, and how it is read.

A source becomes a feed: parts (files, or splits of a generated corpus) that are read in order. A new dataset is one row
of TEXT, CONVERSATIONS or PREFERENCES; a generated one is a row of generated.CORPORA. How a file is read is told by the
caller, and the arguments of a user become sources in request.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from understudy.data.chat.formats import ParsedRow
from understudy.data.fetch.download import download
from understudy.data.fetch.hub import HubDataset, HubFile, fetch_file, list_dataset
from understudy.data.fetch.objects import list_objects
from understudy.data.generated import CORPORA, PROMPT_CORPORA, GeneratedPrompts, Split, fingerprint, record_count
from understudy.data.layout import SPLITS
from understudy.data.progress import PreparationProgress, Report
from understudy.data.text.documents import DocumentPiece, split_document, without_gutenberg


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
    def run_name(self) -> str: ...
    def identity(self, corpus: str) -> dict[str, Any]: ...
    def open(self, corpus_name: str, seed: int, limit: int | None) -> Feed: ...


@dataclass(frozen=True)
class WebText:
    """Texts at fixed addresses, (url, sha256 or None) each. `gutenberg`: cut off the header and licence of Project
    Gutenberg."""

    urls: tuple[tuple[str, str | None], ...]
    gutenberg: bool = False


@dataclass(frozen=True)
class Generated:
    """A row of generated.PROMPT_CORPORA, or `made` from the user's settings; with `sampling`, its questions answered by a
    run."""

    corpus: str
    sampling: Sampler | None = None
    made: GeneratedPrompts | None = None

    def records(self) -> GeneratedPrompts:
        return self.made or PROMPT_CORPORA[self.corpus]


@dataclass(frozen=True)
class Files:
    """`left_out`: see Feed."""

    paths: tuple[Path, ...]
    parts: tuple[Part, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class RemoteFiles:
    """A file, folder or glob in an object store, read where it is."""

    url: str


Origin = WebText | Generated | HubDataset | Files | RemoteFiles


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


@dataclass(frozen=True)
class Request:
    """A request to `prepare`, checked, its defaults filled in.

    Attributes:
        mapping: what decides a byte of the result, and nothing else: contents and not paths, neither the number of
            workers nor the folder. It is compared with another request's, and written into the manifest.
    """

    kind: str
    sources: tuple[Source, ...]
    val_fraction: float | None
    limit: int | None
    seed: int
    mapping: dict[str, Any]


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
IDENTITY = "identity"
"""The source of conversations that is made from a name, a maker and facts."""
PREFERENCES: dict[str, Origin] = {
    **{name: Generated(name) for name in CORPORA},
    "hh": HubDataset("Anthropic/hh-rlhf"),
    "ultrafeedback": HubDataset(
        "HuggingFaceH4/ultrafeedback_binarized",
        files="data/train_prefs-*.parquet",
        val_files="data/test_prefs-*.parquet",
    ),
}
PROMPTS: dict[str, Origin] = CONVERSATIONS | {name: Generated(name) for name in PROMPT_CORPORA}
NAMED = {"text": TEXT, "conversations": CONVERSATIONS, "preferences": PREFERENCES, "prompts": PROMPTS}
"""The named sources of each kind of data."""


def open_feed(
    source: Source,
    request: Request,
    read: Callable[[Any], Iterator[Any]],
    cache: Path,
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
    elif isinstance(origin, RemoteFiles):
        objects = list_objects(origin.url)
        feed = Feed(source.name, tuple(Part(item.url, item.size, item.version) for item in objects),
                    lambda i: read(objects[i].file()))  # fmt: skip
    elif isinstance(origin, WebText):
        feed = _open_web(source, origin, read, cache, report)
    elif origin.sampling:
        feed = origin.sampling.open(origin.corpus, request.seed, request.limit)
    else:
        feed = _open_generated(origin, request.kind, request.seed, request.limit)
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
        paths.append(cache / "web" / source.name / name)
        sha256 = download(url, paths[-1], sha256)
        parts.append(Part(url, paths[-1].stat().st_size, sha256))

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


def _open_generated(origin: Generated, kind: str, seed: int, limit: int | None) -> Feed:
    name, corpus = origin.corpus, origin.records()
    counts = [record_count(split, corpus.counts[kind][split], limit) for split in SPLITS]
    sha256 = fingerprint(corpus, kind, seed)
    parts = tuple(Part(f"{name}/{split}", count, sha256, split) for split, count in zip(SPLITS, counts))

    @functools.cache
    def documents(i: int) -> list[str]:
        # Kept (a few MB): a tokenizer is trained on the same documents that are then encoded.
        return list(islice(CORPORA[name].texts(seed, SPLITS[i]), counts[i]))

    def read(i: int) -> Iterator[DocumentPiece | ParsedRow]:
        if kind == "text":
            return (DocumentPiece(text, True, number) for number, text in enumerate(documents(i), 1))
        records = corpus.records(kind, seed, SPLITS[i], counts[i])
        return (ParsedRow(record, "", number) for number, record in enumerate(records, 1))

    return Feed(name, parts, read)
