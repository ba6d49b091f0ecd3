"""The tables of named sources, what a source can be, and how it is read.

A source becomes a feed: parts (files, or splits of a generated corpus) that are read in order. A new dataset is one row
of TEXT, CONVERSATIONS or PREFERENCES; a generated one is a row of generated.CORPORA. How a file is read is told by the
caller, and the arguments of a user become sources in request.py.

Licences, sizes and numbers of rows are those that the publishers, or others who counted, gave in November 2026. Round
numbers are estimates. Sizes are of the files that are fetched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from understudy.data.chat.formats import ParsedRow
from understudy.data.fetch.download import download
from understudy.data.fetch.hub import About, HubDataset, HubFile, fetch_file, list_dataset
from understudy.data.fetch.objects import list_objects
from understudy.data.generated import CORPORA, PROMPT_CORPORA, GeneratedPrompts, Split, fingerprint, record_count
from understudy.data.inputs import InputFile
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
    about: About | None = None


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
    """Files of the disk.

    Attributes:
        paths: of each part. An archive whose members have splits stands there once for each split.
        members: of each part that is a share of an archive, the members that are read; None for others.
        left_out: see Feed.
    """

    paths: tuple[Path, ...]
    parts: tuple[Part, ...]
    members: tuple[frozenset[str] | None, ...]
    left_out: dict[str, int]

    def file(self, number: int) -> Path | InputFile:
        """What a reader of part `number` is given."""
        path, only = self.paths[number], self.members[number]
        return path if only is None else InputFile.at(path, only)

    def chosen(self, numbers: Sequence[int], split: Split) -> Files:
        """Some of the files, all for one split."""
        return Files(
            tuple(self.paths[n] for n in numbers), tuple(replace(self.parts[n], split=split) for n in numbers),
            tuple(self.members[n] for n in numbers), self.left_out,
        )  # fmt: skip


@dataclass(frozen=True)
class RemoteFiles:
    """A file, folder or glob in an object store, read where it is."""

    url: str


Origin = WebText | Generated | HubDataset | Files | RemoteFiles


@dataclass(frozen=True)
class Source:
    """`weight`: how many times an epoch shows each record of a conversation source. `only`: the split that all of it is
    for, where the user gave validation files; its own validation split is then not read."""

    name: str
    weight: float
    origin: Origin
    only: Split | None = None

    def has_splits(self) -> bool:
        """Whether nothing of it is left to be divided here."""
        if self.only:
            return True
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


def _books(what: str, size: int, *numbers: int) -> WebText:
    """Books of Project Gutenberg. Their files are corrected now and then, so that no checksum is published here: the one
    first seen is kept beside the download and in the manifest, and holds from then on."""
    urls = tuple((f"https://www.gutenberg.org/cache/epub/{n}/pg{n}.txt", None) for n in numbers)
    return WebText(urls, True, About(what, PUBLIC_DOMAIN, size, len(numbers)))


PUBLIC_DOMAIN = "public domain in the USA"
OPUS = "https://object.pouta.csc.fi/OPUS-OpenSubtitles/v2018/mono/"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
TEXT: dict[str, Origin] = {
    **{name: Generated(name) for name in CORPORA},
    "shakespeare": WebText(
        ((SHAKESPEARE_URL, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),),
        about=About("plays of Shakespeare, one text", "public domain", 1_115_394, 1),
    ),
    "alice": _books("Alice's Adventures in Wonderland", 170_000, 11),
    "frankenstein": _books("Frankenstein", 450_000, 84),
    "pride-and-prejudice": _books("Pride and Prejudice", 770_000, 1342),
    "sherlock-holmes": _books("The Adventures of Sherlock Holmes", 610_000, 1661),
    "moby-dick": _books("Moby Dick", 1_280_000, 2701),
    "books": _books("the five books above", 3_280_000, 11, 84, 1342, 1661, 2701),
    "gutenberg": HubDataset(
        "sedthh/gutenberg_english", field="TEXT",
        about=About("English books of Project Gutenberg", "MIT; books: " + PUBLIC_DOMAIN, 10_700_000_000, 48_284),
    ),
    "wikipedia": HubDataset(
        "wikimedia/wikipedia", field="text", files="20231101.en/train-*.parquet",
        about=About("English Wikipedia, November 2023", "CC BY-SA 3.0, GFDL", 11_630_929_031, 6_407_814),
    ),
    "wikipedia-simple": HubDataset(
        "wikimedia/wikipedia", field="text", files="20231101.simple/train-*.parquet",
        about=About("Wikipedia in simple English, November 2023", "CC BY-SA 3.0, GFDL", 157_000_000, 241_787),
    ),
    "opensubtitles": WebText(
        ((OPUS + "en.txt.gz", None),),
        about=About("English film subtitles, one text of a line each (OPUS 2018)",
                    "none stated; name www.opensubtitles.org", None, 441_450_449),
    ),
    "tinystories": HubDataset(
        "roneneldan/TinyStories", field="text", files="data/train-*.parquet", val_files="data/validation-*.parquet",
        about=About("short stories in words of a small child", "CDLA-Sharing 1.0", 1_000_000_000, 2_141_709),
    ),
    "openwebtext": HubDataset(
        "Skylion007/openwebtext", field="text",
        about=About("pages that Reddit linked to", "CC0 1.0", 24_200_000_000, 8_013_769),
    ),
    "openwebtext-10k": HubDataset(
        "stas/openwebtext-10k", field="text",
        about=About("the first 10,000 pages of it", "CC0 1.0", 30_000_000, 10_000),
    ),
    "fineweb-edu": HubDataset(
        "HuggingFaceFW/fineweb-edu", field="text", files="sample/10BT/*.parquet",
        about=About("educational web pages, sample of 10 billion tokens", "ODC-By 1.0", 28_500_000_000, 9_672_101),
    ),
    "climbmix": HubDataset(
        "karpathy/climbmix-400b-shuffle", field="text", files="shard_*.parquet",
        about=About("ClimbMix: 400 billion tokens, 6,543 files; take --limit", "CC BY-NC 4.0", 600_000_000_000, None),
    ),
}  # fmt: skip
OASST = HubDataset(
    "OpenAssistant/oasst2", files="data/train-*.parquet", val_files="data/validation-*.parquet",
    about=About("trees of messages by volunteers, in 35 languages", "Apache 2.0", 66_674_129, 135_174),
)  # fmt: skip
CONVERSATIONS: dict[str, Origin] = {
    **{name: Generated(name) for name in CORPORA},
    "gsm8k": HubDataset(
        "openai/gsm8k", files="main/train-*.parquet", val_files="main/test-*.parquet",
        about=About("sums in words with their steps", "MIT", 2_725_633, 8_792),
    ),
    "squad_v2": HubDataset(
        "rajpurkar/squad_v2", files="squad_v2/train-*.parquet", val_files="squad_v2/validation-*.parquet",
        about=About("questions about texts of Wikipedia", "CC BY-SA 4.0", 17_700_000, 142_192),
    ),
    "dolly": HubDataset(
        "databricks/databricks-dolly-15k",
        about=About("instructions by Databricks' employees", "CC BY-SA 3.0", 7_500_000, 15_011),
    ),
    "alpaca": HubDataset(
        "tatsu-lab/alpaca",
        about=About("instructions by text-davinci-003", "CC BY-NC 4.0", 24_200_000, 52_002),
    ),
    "ultrachat": HubDataset(
        "HuggingFaceH4/ultrachat_200k", files="data/train_sft-*.parquet", val_files="data/test_sft-*.parquet",
        about=About("dialogues of several turns by ChatGPT", "MIT", 813_204_672, 230_975),
    ),
    "smoltalk2": HubDataset(
        "HuggingFaceTB/smoltalk2", files="SFT/*_no_think-*.parquet",
        about=About("SmolTalk 2 without thoughts, 15 parts", "Apache 2.0 or that of the part", 3_000_000_000, 1_901_409),
    ),
    "oasst": OASST,
}  # fmt: skip
IDENTITY = "identity"
"""The source of conversations that is made from a name, a maker and facts."""
PREFERENCES: dict[str, Origin] = {
    **{name: Generated(name) for name in CORPORA},
    "hh": HubDataset(
        "Anthropic/hh-rlhf", files="default/train/*.parquet", val_files="default/test/*.parquet",
        about=About("dialogues, helpful and harmless (HH-RLHF)", "MIT", 190_000_000, 169_352),
    ),
    "ultrafeedback": HubDataset(
        "HuggingFaceH4/ultrafeedback_binarized",
        files="data/train_prefs-*.parquet",
        val_files="data/test_prefs-*.parquet",
        about=About("answers of models, rated by GPT-4", "MIT", 233_000_000, 63_135),
    ),
    "smoltalk2": HubDataset(
        "HuggingFaceTB/smoltalk2", files="Preference/*_no_think-*.parquet",
        about=About("SmolTalk 2 without thoughts (Tulu 3)", "Apache 2.0 or that of the part", 640_000_000, 230_501),
    ),
    "oasst": OASST,
}  # fmt: skip
PROMPTS: dict[str, Origin] = CONVERSATIONS | {name: Generated(name) for name in PROMPT_CORPORA}
JUDGEMENTS: dict[str, Origin] = {name: Generated(name) for name in CORPORA}
NAMED = {
    "text": TEXT, "conversations": CONVERSATIONS, "preferences": PREFERENCES, "judgements": JUDGEMENTS, "prompts": PROMPTS,
}  # fmt: skip
"""The named sources of each kind of data."""
GENERATED = About("made on this machine from a seed, without a network", "MIT, as this program")


def about_source(origin: Origin) -> About:
    """What is known of a named source."""
    if isinstance(origin, Generated):
        return GENERATED
    return (origin.about if isinstance(origin, WebText | HubDataset) else None) or About("", "not stated")


def list_sources(kind: str | None = None) -> list[dict[str, Any]]:
    """The named sources, of one kind or of all, as rows of a table."""
    rows = []
    for name_of_kind, named in NAMED.items():
        for name, origin in named.items() if kind in (None, name_of_kind) else ():
            where = origin.repo if isinstance(origin, HubDataset) else ""
            rows.append({"name": name, "kind": name_of_kind, **about_source(origin)._asdict(), "repository": where})
    return rows


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
        feed = Feed(source.name, origin.parts, lambda i: read(origin.file(i)), left_out=dict(origin.left_out))
    elif isinstance(origin, RemoteFiles):
        objects = list_objects(origin.url)
        feed = Feed(source.name, tuple(Part(item.url, item.size, item.version, source.only) for item in objects),
                    lambda i: read(objects[i].file()))  # fmt: skip
    elif isinstance(origin, WebText):
        feed = _open_web(source, origin, read, cache, report)
    elif origin.sampling:
        feed = origin.sampling.open(origin.corpus, request.seed, request.limit)
    else:
        feed = _open_generated(origin, request.kind, request.seed, request.limit, source.only)
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
        parts.append(Part(url, paths[-1].stat().st_size, sha256, source.only))

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
    if source.only:
        origin = replace(origin, val_files=None)
    if pinned is None or pinned.revision is None:
        report(PreparationProgress(f"listing {origin.repo}", 0, None))
        listing = list_dataset(origin, endpoint)
        parts = tuple(Part(f.path, f.size_bytes, f.sha256, source.only or f.split) for f in listing.files)
        pinned = Pin(parts, listing.revision, (listing.note,) if listing.note else ())
    parts, revision, notes = pinned
    assert revision is not None

    def fetched(i: int) -> Iterator[Any]:
        file = HubFile(parts[i].name, parts[i].size, parts[i].sha256)
        yield from read(fetch_file(origin.repo, revision, file, cache / "hub", endpoint))

    return Feed(source.name, parts, fetched, remote=True, revision=revision, notes=notes)


def _open_generated(origin: Generated, kind: str, seed: int, limit: int | None, only: Split | None) -> Feed:
    name, corpus = origin.corpus, origin.records()
    splits = (only,) if only else SPLITS
    counts = [record_count(split, corpus.counts[kind][split], limit) for split in splits]
    sha256 = fingerprint(corpus, kind, seed)
    parts = tuple(Part(f"{name}/{split}", count, sha256, split) for split, count in zip(splits, counts))

    @functools.cache
    def documents(i: int) -> list[str]:
        # Kept (a few MB): a tokenizer is trained on the same documents that are then encoded.
        return list(islice(CORPORA[name].texts(seed, splits[i]), counts[i]))

    def read(i: int) -> Iterator[DocumentPiece | ParsedRow]:
        if kind == "text":
            return (DocumentPiece(text, True, number) for number, text in enumerate(documents(i), 1))
        records = corpus.records(kind, seed, splits[i], counts[i])
        return (ParsedRow(record, "", number) for number, record in enumerate(records, 1))

    return Feed(name, parts, read)
