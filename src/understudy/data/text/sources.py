"""The table of named sources, and what stands behind every SOURCE that `prepare` is given.

A source becomes a feed: parts (files, or what stands for one) whose documents are read in order. A new
dataset is one row of NAMED. Nothing here splits into training and validation, and nothing here encodes.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from understudy.data.fetch.download import download
from understudy.data.fetch.hub import HubDataset, HubFile, fetch_file, list_dataset, parse_hub_name
from understudy.data.text.documents import (
    DocumentPiece,
    Found,
    ending_of,
    find_files,
    read_file,
    split_document,
    uses_field,
)
from understudy.files import sha256_of

FINGERPRINT_STORIES = 64


@dataclass(frozen=True)
class WebText:
    """Texts at fixed addresses, (url, sha256 or None) each. `gutenberg`: cut off what Project Gutenberg
    adds."""

    urls: tuple[tuple[str, str | None], ...]
    gutenberg: bool = False


@dataclass(frozen=True)
class GeneratedText:
    """The embedded corpus: made from a seed, with training and validation stories of its own."""

    corpus: str


@dataclass(frozen=True)
class TextFiles:
    found: Found
    parts: tuple[TextPart, ...]


Origin = WebText | GeneratedText | HubDataset | TextFiles


def _books(*numbers: int) -> WebText:
    """Books of Project Gutenberg. Their files are corrected now and then, so no checksum is published here:
    the one first seen is kept beside the download and in the manifest, and holds from then on."""
    return WebText(tuple((f"https://www.gutenberg.org/cache/epub/{n}/pg{n}.txt", None) for n in numbers), True)


NAMED: dict[str, Origin] = {
    "hamlet": GeneratedText("hamlet"),
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
class PreparationProgress:
    """How far a stage of the work is: `done` of `total` in bytes of files (in stories, for a generator)."""

    stage: str
    done: int
    total: int | None
    tokens: int = 0


Report = Callable[[PreparationProgress], None]


@dataclass(frozen=True)
class TextPart:
    """A file of a feed. `size`: its bytes, or its stories; `split`: set where the source has splits of its
    own."""

    name: str
    size: int
    sha256: str | None
    split: str | None = None


@dataclass(frozen=True)
class Feed:
    """A source that can be read: `read(i)` gives the documents of `parts[i]`, the same ones every time."""

    name: str
    parts: tuple[TextPart, ...]
    read: Callable[[int], Iterator[DocumentPiece]]
    remote: bool = False
    revision: str | None = None
    note: str = ""
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TextSource:
    """One named source, or all the files that were given, together."""

    name: str
    origin: Origin


def parse_sources(arguments: Sequence[str], report: Report) -> list[TextSource]:
    """What each SOURCE means, without touching the network; files are looked up, hashed, and made one source.

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
        sources.append(TextSource("files", _hashed(find_files(paths), report)))
    return sources


def _refuse_misspelt(argument: str) -> None:
    """A bare word that is no file was most likely meant to be a name."""
    if Path(argument).expanduser().exists() or any(mark in argument for mark in "/\\.*?["):
        return
    near = difflib.get_close_matches(argument, NAMED, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"named sources are {', '.join(NAMED)}"
    raise ValueError(f"{argument!r} is neither a file or folder nor a named source: {hint}")


def _hashed(found: Found, report: Report) -> TextFiles:
    sizes = [path.stat().st_size for path in found.files]
    parts: list[TextPart] = []
    done, total = 0, sum(sizes)
    for path, size in zip(found.files, sizes):
        parts.append(TextPart(str(path), size, sha256_of(path)))
        done += size
        report(PreparationProgress("hashing files", done, total))
    return TextFiles(found, tuple(parts))


def identity(source: TextSource, seed: int) -> dict[str, Any]:
    """What makes two requests for this source the same one: contents, where they are known, and never
    paths."""
    origin = source.origin
    if isinstance(origin, TextFiles):
        names = [(ending_of(path), part.sha256) for path, part in zip(origin.found.files, origin.parts)]
        return {"files": [list(pair) for pair in names]}
    if isinstance(origin, GeneratedText):
        return {"name": source.name, "seed": seed, "fingerprint": _fingerprint(seed)}
    return {"name": source.name}


def takes_field(source: TextSource) -> bool:
    """Whether a field chosen by the user would be used for this source."""
    if isinstance(source.origin, TextFiles):
        return any(uses_field(path) for path in source.origin.found.files)
    return isinstance(source.origin, HubDataset) and source.origin.field is None


def open_feed(
    source: TextSource,
    text_field: str | None,
    cache: Path,
    seed: int,
    limit: int | None,
    report: Report,
    pinned: Feed | None = None,
    endpoint: str | None = None,
) -> Feed:
    """A feed for a source. `pinned`: the feed that an interrupted preparation began with, which it must
    equal.

    Raises:
        UnavailableError: the network is away.
        ValueError: what the source names does not exist, or is no longer what it was.
    """
    origin = source.origin
    if isinstance(origin, HubDataset):
        feed = _open_hub(source, origin, origin.field or text_field or "text", cache, report, pinned, endpoint)
    elif isinstance(origin, TextFiles):
        paths = origin.found.files
        feed = Feed(
            source.name,
            origin.parts,
            lambda i: read_file(paths[i], text_field or "text"),
            skipped=origin.found.skipped,
        )
    elif isinstance(origin, WebText):
        feed = _open_web(source, origin, cache, report)
    else:
        feed = _open_generated(source, seed, limit)
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
        got = download(url, cache / "web" / source.name / name, sha256, _fetching(name, report))
        paths.append(got.path)
        parts.append(TextPart(url, got.size_bytes, got.sha256))

    def read(i: int) -> Iterator[DocumentPiece]:
        if not origin.gutenberg:
            return read_file(paths[i])
        return split_document(without_gutenberg(paths[i].read_text("utf-8-sig"), parts[i].name), parts[i].size)

    return Feed(source.name, tuple(parts), read)


def _open_hub(
    source: TextSource,
    origin: HubDataset,
    text_field: str,
    cache: Path,
    report: Report,
    pinned: Feed | None,
    endpoint: str | None,
) -> Feed:
    """The list of files is asked for once; a preparation that goes on takes it from where it was written
    down."""
    if pinned is not None and pinned.revision is not None:
        parts, revision, note = pinned.parts, pinned.revision, pinned.note
    else:
        report(PreparationProgress(f"listing {origin.repo}", 0, None))
        listing = list_dataset(origin, endpoint)
        parts = tuple(TextPart(file.path, file.size_bytes, file.sha256) for file in listing.files)
        revision, note = listing.revision, listing.note

    def read(i: int) -> Iterator[DocumentPiece]:
        file = HubFile(parts[i].name, parts[i].size, parts[i].sha256)
        yield from read_file(fetch_file(origin.repo, revision, file, cache / "hub", endpoint), text_field)

    return Feed(source.name, parts, read, remote=True, revision=revision, note=note)


def generated_count(split: str, default: int, limit: int | None) -> int:
    """How much is written of a split of a source without end: a limit may ask for more to train on, not to validate."""
    return limit or default if split == "train" else min(default, limit or default)


def _open_generated(source: TextSource, seed: int, limit: int | None) -> Feed:
    from understudy.hamlet import DEFAULT_STORIES, stories

    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    counts = [generated_count(split, DEFAULT_STORIES[split], limit) for split in splits]
    fingerprint = _fingerprint(seed)
    parts = [TextPart(f"{source.name}/{split}", n, fingerprint, split) for split, n in zip(splits, counts)]

    @functools.cache
    def written(i: int) -> list[str]:
        # Kept (a few MB): a tokenizer is trained on the same stories that are then encoded.
        return list(islice(stories(seed, splits[i]), counts[i]))

    def read(i: int) -> Iterator[DocumentPiece]:
        return (DocumentPiece(story, True, number) for number, story in enumerate(written(i), 1))

    return Feed(source.name, tuple(parts), read)


def _fingerprint(seed: int) -> str:
    """The SHA-256 of the first stories: another seed or a changed generator makes another corpus."""
    from understudy.hamlet import stories

    first = "\0".join(islice(stories(seed, "train"), FINGERPRINT_STORIES))
    return hashlib.sha256(first.encode("utf-8")).hexdigest()


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
        download(GPT2_URL + name, folder / name, sha256, _fetching(name, report))
    return folder


def _fetching(name: str, report: Report) -> Callable[[int, int | None], None]:
    def progress(done: int, total: int | None) -> None:
        report(PreparationProgress(f"fetching {name}", done, total))

    return progress
