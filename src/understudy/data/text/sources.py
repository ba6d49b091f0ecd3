"""The table of named texts, and the origin of every SOURCE that `prepare` is given.

A source becomes a feed: parts (files, or splits of a generated corpus) whose documents are read in order. A new
dataset is one row of NAMED; a generated one is a row of generated.CORPORA. Nothing here splits or encodes.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from understudy.data.fetch.download import download
from understudy.data.fetch.hub import HubDataset, HubFile, fetch_file, list_dataset, parse_hub_name
from understudy.data.find import LocalFiles, find_files
from understudy.data.generated import CORPORA, fingerprint, record_count
from understudy.data.progress import PreparationProgress, Report
from understudy.data.records import file_ending
from understudy.data.text.documents import (
    TEXT_ENDINGS,
    TEXT_FILES,
    DocumentPiece,
    ReadingOptions,
    read_file,
    split_document,
    uses_field,
)
from understudy.files import sha256_of


@dataclass(frozen=True)
class WebText:
    """Texts at fixed addresses, (url, sha256 or None) each. `gutenberg`: cut off the header and licence of Project
    Gutenberg."""

    urls: tuple[tuple[str, str | None], ...]
    gutenberg: bool = False


@dataclass(frozen=True)
class GeneratedText:
    """A row of generated.CORPORA, with its own training and validation documents."""

    corpus: str


@dataclass(frozen=True)
class TextFiles:
    found: LocalFiles
    parts: tuple[TextPart, ...]


Origin = WebText | GeneratedText | HubDataset | TextFiles


def _books(*numbers: int) -> WebText:
    """Books of Project Gutenberg. Their files are corrected now and then, so that no checksum is published here: the one
    first seen is kept beside the download and in the manifest, and holds from then on."""
    return WebText(tuple((f"https://www.gutenberg.org/cache/epub/{n}/pg{n}.txt", None) for n in numbers), True)


NAMED: dict[str, Origin] = {
    **{name: GeneratedText(name) for name in CORPORA},
    "shakespeare": WebText(
        (
            (
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        )
    ),
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

GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


@dataclass(frozen=True)
class TextPart:
    """A file of a feed. `size`: its bytes, or its documents; `split`: set where the source has splits of its own."""

    name: str
    size: int
    sha256: str | None
    split: str | None = None


@dataclass(frozen=True)
class Feed:
    """A source that can be read: `read(i)` gives the documents of `parts[i]`, the same ones every time.

    Attributes:
        remote: whether the parts are fetched when they are read.
        note: a remark for the user, or "".
        skipped: the number of files left out, by ending.
    """

    name: str
    parts: tuple[TextPart, ...]
    read: Callable[[int], Iterator[DocumentPiece]]
    remote: bool = False
    revision: str | None = None
    note: str = ""
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Pin:
    """The parts that an interrupted preparation began with, which its source must still have."""

    parts: tuple[TextPart, ...]
    revision: str | None
    note: str


@dataclass(frozen=True)
class TextSource:
    """One named source, or all the files that were given, together."""

    name: str
    origin: Origin


def parse_sources(arguments: Sequence[str], report: Report) -> list[TextSource]:
    """The source behind each SOURCE, without the network; files are looked up, hashed, and made one source.

    Raises:
        ValueError: no sources, a name that is neither in the table nor a file, one source twice.
    """
    if not arguments:
        raise ValueError(f"nothing to prepare: name files, folders, globs, or one of {', '.join(NAMED)}")
    sources: list[TextSource] = []
    paths: list[str] = []
    for argument in arguments:
        if argument in NAMED:
            sources.append(TextSource(argument, NAMED[argument]))
        elif argument.startswith("hf:"):
            sources.append(TextSource(argument, parse_hub_name(argument)))
        else:
            _refuse_misspelt(argument)
            paths.append(argument)
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"a source is named twice in {', '.join(names)}: name each one once")
    if paths:
        sources.append(TextSource("files", _hashed(find_files(paths, TEXT_FILES), report)))
    return sources


def _refuse_misspelt(argument: str) -> None:
    """Refuse a bare word that is no file: most likely a misspelt name."""
    if Path(argument).expanduser().exists() or any(mark in argument for mark in "/\\.*?["):
        return
    near = difflib.get_close_matches(argument, NAMED, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"named sources are {', '.join(NAMED)}"
    raise ValueError(f"{argument!r} is neither a file or folder nor a named source: {hint}")


def _hashed(listing: LocalFiles, report: Report) -> TextFiles:
    sizes = [path.stat().st_size for path in listing.files]
    parts: list[TextPart] = []
    done, total = 0, sum(sizes)
    for path, size in zip(listing.files, sizes):
        parts.append(TextPart(str(path), size, sha256_of(path)))
        done += size
        report(PreparationProgress("hashing files", done, total))
    return TextFiles(listing, tuple(parts))


def identity(source: TextSource, seed: int) -> dict[str, Any]:
    """The values that make two requests for this source the same one: contents, where they are known, never paths."""
    origin = source.origin
    if isinstance(origin, TextFiles):
        names = [("".join(file_ending(path)), part.sha256) for path, part in zip(origin.found.files, origin.parts)]
        return {"files": [list(pair) for pair in names]}
    if isinstance(origin, GeneratedText):
        return {"name": source.name, "seed": seed, "fingerprint": fingerprint(origin.corpus, "text", seed)}
    return {"name": source.name}


def takes_field(source: TextSource) -> bool:
    """Whether a field chosen by the user would be used for this source."""
    if isinstance(source.origin, TextFiles):
        return any(uses_field(path) for path in source.origin.found.files)
    return isinstance(source.origin, HubDataset) and source.origin.field is None


def takes_separator(source: TextSource) -> bool:
    """Whether a separator of documents would be used for this source."""
    files = source.origin.found.files if isinstance(source.origin, TextFiles) else ()
    return any(file_ending(path)[0] in TEXT_ENDINGS for path in files)


def open_feed(
    source: TextSource,
    reading: ReadingOptions,
    cache: Path,
    seed: int,
    limit: int | None,
    report: Report,
    pinned: Pin | None = None,
    endpoint: str | None = None,
) -> Feed:
    """A feed for a source.

    Raises:
        UnavailableError: the network is away.
        ValueError: the dataset or file does not exist, or has changed since.
    """
    origin = source.origin
    if isinstance(origin, HubDataset):
        reading = dataclasses.replace(reading, field=origin.field or reading.field, separator=None)
        feed = _open_hub(source, origin, reading, cache, report, pinned, endpoint)
    elif isinstance(origin, TextFiles):
        paths = origin.found.files
        feed = Feed(source.name, origin.parts, lambda i: read_file(paths[i], reading), skipped=origin.found.skipped)
    elif isinstance(origin, WebText):
        feed = _open_web(source, origin, cache, report)
    else:
        feed = _open_generated(source, origin, seed, limit)
    if pinned is not None and feed.parts != pinned.parts:
        changed = [new.name for new, old in zip(feed.parts, pinned.parts) if new != old] or [source.name]
        raise ValueError(
            f"{changed[0]} has changed since this preparation was begun: run the same command again to begin anew"
        )
    return feed


def _open_web(source: TextSource, origin: WebText, cache: Path, report: Report) -> Feed:
    paths, parts = [], []
    for url, sha256 in origin.urls:
        name = url.rsplit("/", 1)[-1]
        report(PreparationProgress(f"fetching {name}", 0, None))
        fetched = download(url, cache / "web" / source.name / name, sha256)
        paths.append(fetched.path)
        parts.append(TextPart(url, fetched.size_bytes, fetched.sha256))

    def read(i: int) -> Iterator[DocumentPiece]:
        if not origin.gutenberg:
            return read_file(paths[i])
        return split_document(without_gutenberg(paths[i].read_text("utf-8-sig"), parts[i].name), parts[i].size)

    return Feed(source.name, tuple(parts), read)


def _open_hub(
    source: TextSource,
    origin: HubDataset,
    reading: ReadingOptions,
    cache: Path,
    report: Report,
    pinned: Pin | None,
    endpoint: str | None,
) -> Feed:
    """A feed of files on the hub. Their list is requested once; a resumed preparation takes it from its plan."""
    if pinned is not None and pinned.revision is not None:
        parts, revision, note = pinned.parts, pinned.revision, pinned.note
    else:
        report(PreparationProgress(f"listing {origin.repo}", 0, None))
        listing = list_dataset(origin, endpoint)
        parts = tuple(TextPart(file.path, file.size_bytes, file.sha256) for file in listing.files)
        revision, note = listing.revision, listing.note

    def read(i: int) -> Iterator[DocumentPiece]:
        file = HubFile(parts[i].name, parts[i].size, parts[i].sha256)
        yield from read_file(fetch_file(origin.repo, revision, file, cache / "hub", endpoint), reading)

    return Feed(source.name, parts, read, remote=True, revision=revision, note=note)


def _open_generated(source: TextSource, origin: GeneratedText, seed: int, limit: int | None) -> Feed:
    corpus = CORPORA[origin.corpus]
    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    counts = [record_count(split, corpus.counts["text"][split], limit) for split in splits]
    sha256 = fingerprint(origin.corpus, "text", seed)
    parts = [TextPart(f"{source.name}/{split}", n, sha256, split) for split, n in zip(splits, counts)]

    @functools.cache
    def documents(i: int) -> list[str]:
        # Kept (a few MB): a tokenizer is trained on the same documents that are then encoded.
        return list(islice(corpus.texts(seed, splits[i]), counts[i]))

    def read(i: int) -> Iterator[DocumentPiece]:
        return (DocumentPiece(text, True, number) for number, text in enumerate(documents(i), 1))

    return Feed(source.name, tuple(parts), read)


def without_gutenberg(text: str, name: str) -> str:
    """A book without the header and licence of Project Gutenberg, its line ends plain newlines.

    Raises:
        ValueError: the lines that mark the beginning and the end of the book are not there.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    marks = [line.lstrip("* ").upper() if line.startswith("***") else "" for line in lines]
    begins = [i for i, mark in enumerate(marks) if mark.startswith("START OF TH")]
    ends = [i for i, mark in enumerate(marks) if mark.startswith("END OF TH")]
    if not begins or not ends or ends[-1] <= begins[0]:
        raise ValueError(f"{name} is no book of Project Gutenberg: its START and END lines are missing")
    return "\n".join(lines[begins[0] + 1 : ends[-1]]).strip("\n") + "\n"


def fetch_gpt2_vocabulary(cache: Path, report: Report) -> Path:
    """A folder with OpenAI's vocab.bpe and encoder.json, fetched once into `cache` and checked.

    Raises:
        UnavailableError: the network is away; the sentence names the files to fetch by other means.
    """
    folder = cache / "gpt2"
    for name, sha256 in GPT2_FILES.items():
        report(PreparationProgress(f"fetching {name}", 0, None))
        download(GPT2_URL + name, folder / name, sha256)
    return folder
