"""`prepare --kind conversations` (or preferences, judgements or prompts): from sources to a folder of train.jsonl and val.jsonl.

All sources are read, one after another, into one file in a folder .partial. Then the records for validation are chosen,
and the lines are written to two files, which are renamed into place, the manifest last. Cut off at any moment it leaves
the former data or a folder that the next run takes over. Downloads are kept; everything else begins anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from understudy import __version__
from understudy.data.chat.conversations import CONVERSATIONS
from understudy.data.chat.formats import ParsedRow, UnknownFormat, parse_columns, read_formatted
from understudy.data.chat.judgements import JUDGEMENTS
from understudy.data.chat.preferences import PREFERENCES
from understudy.data.chat.prepared import VAL_FRACTION, read_manifest, record_hash, validation_mask
from understudy.data.chat.prompts import PROMPTS
from understudy.data.fetch.download import UnavailableError, disk_problem
from understudy.data.generated import CORPORA
from understudy.data.layout import (
    CACHE,
    MANIFEST,
    PARTIAL,
    SPLITS,
    check_folder,
    check_hash,
    check_same,
    check_size,
    put_in_place,
)  # fmt: skip
from understudy.data.progress import PreparationProgress, Report
from understudy.data.request import default_name, make_request
from understudy.data.sources import Feed, Generated, Part, Request, Sampler, open_feed
from understudy.data.store import is_url
from understudy.files import locked, write_text
from understudy.identity.settings import IdentitySettings
from understudy.tokenizer.base import clean

EVERYTHING = "all.jsonl"
KINDS = {kind.name: kind for kind in (CONVERSATIONS, PREFERENCES, JUDGEMENTS, PROMPTS)}
REPORTS = 500
"""The most reports of progress of each source."""
REASONS = 20
"""The most reasons of dropped records, and the most unused fields, that are counted by name."""
PLACES = 3
"""Places of dropped records that are remembered for each reason."""
MAX_DROPPED = 0.5
"""The largest share of records that cannot be used."""
BY_HASH = -1
LEFT_OUT = len(SPLITS)


@dataclass(frozen=True)
class ChatSummary:
    """Result of a preparation. `status`: "prepared" or "already prepared"; str() is for people."""

    folder: Path
    status: str
    manifest: dict[str, Any]
    seconds: float

    def __str__(self) -> str:
        took = "" if self.status == "already prepared" else f" in {self.seconds:.1f} s"
        kind = self.manifest["kind"]
        lines = [f"{self.folder}: {self.status}{took}"]
        for source in self.manifest["sources"]:
            weight = "" if source["weight"] == 1 else f", each {source['weight']:g} times an epoch"
            lines.append(f"  {source['name']}: {source['train']:,} train, {source['val']:,} val {kind}{weight}")
            for reason, count in source["dropped"].items():
                places = source.get("dropped_at", {}).get(reason)
                lines.append(f"    dropped, {reason}: {count:,}" + (f" (first: {places[0]})" if places else ""))
            lines += [f"    not read to its end: {sentence}" for sentence in source.get("failed", ())]
            for name, count in source["left_out"].items():
                lines.append(f"    files left out, {name}: {count:,}")
            if source["unused_fields"]:
                fields = ", ".join(f"{name} ({count:,})" for name, count in source["unused_fields"].items())
                lines.append(f"    fields not used: {fields}")
            lines += [f"    {note}" for note in source["notes"]]
        return "\n".join(lines)


def prepare_conversations(
    sources: Sequence[str],
    out: Path | str | None = None,
    kind: str = "conversations",
    format_name: str | None = None,
    val_fraction: float | None = None,
    limit: int | None = None,
    seed: int | None = None,
    force: bool = False,
    cache: Path = CACHE,
    report: Report | None = None,
    endpoint: str | None = None,
    sampling: Sampler | None = None,
    identity: IdentitySettings | None = None,
    validation: Sequence[str] = (),
    columns: str | None = None,
    max_dropped: float | None = None,
) -> ChatSummary:
    """Turn sources into a folder of conversations in the one schema, or of preferences, judgements or prompts.

    Args:
        sources: names of sources.NAMED, `hf:owner/name[:config]`, files, folders and globs; those of
            conversations each with `@WEIGHT` where an epoch is to show it more or less than once.
        out: the folder, on the disk; by default data/NAME-KIND after the one source.
        kind: "conversations", "preferences", "judgements" or "prompts".
        format_name: a row of the formats of the kind; by default each file's first record shows it.
        val_fraction: the share for validation of sources without splits of their own; 0.05 by default.
        limit: the most records of each source, or of each split where it has splits; of a generated source the number
            to train on, and where a run answers the number of its prompts.
        seed: of the embedded corpus; 0 by default.
        force: replace existing data.
        cache: where downloads are kept.
        report: called often with the progress.
        endpoint: of the hub, where it is another than the library's.
        sampling: have a run answer the questions of a generated corpus; the answers become preferences.
        identity: who the assistant is, of the source `identity`; from :func:`understudy.identity.settings.read_identity`.
        validation: files, folders and globs that are for validation; the sources are then to train on alone.
        columns: names of fields or columns in the files, for those of a format: "question=Frage,answer=Antwort"; by
            numbers from 1 for CSV files without a header.
        max_dropped: the largest share of a source's records that may be dropped because they cannot be used; 0.5 by
            default. Records that are not to be trained on, such as those with the label false, do not count.

    Raises:
        UnavailableError: the network is away or the disk is full.
        ValueError: any other mistake of the user; the former data is untouched.
    """
    start = time.perf_counter()
    report = report or (lambda progress: None)
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r} of conversations: choose one of {', '.join(KINDS)}")
    if out is not None and is_url(out):
        raise ValueError(f"{out} can hold text, not {kind}: give a folder on the disk")
    if sampling is not None and (kind != "preferences" or len(sources) != 1 or sources[0] not in CORPORA):
        raise ValueError(
            f"the run {sampling.run} would do nothing for {kind} of {', '.join(sources)}: its answers become preferences "
            f"of a generated source alone ({', '.join(CORPORA)}), --kind preferences"
        )
    if sampling is not None and validation:
        raise ValueError(
            f"--val does nothing with answers of the run {sampling.run}, which has its own validation split"
        )
    if format_name is not None and format_name not in KINDS[kind].formats:
        raise ValueError(f"no format {format_name!r}: choose one of {', '.join(KINDS[kind].formats)}")
    if max_dropped is not None and not 0 <= max_dropped <= 1:
        raise ValueError(f"--max-dropped is a share from 0 to 1, not {max_dropped}")
    named = parse_columns(columns, KINDS[kind]) if columns else None
    settings = {"kind": kind, "record_format": format_name, "columns": named}
    request = make_request(
        kind, sources, val_fraction, limit, seed, report, settings, sampling, validation, identity=identity
    )
    if all(isinstance(source.origin, Generated) for source in request.sources):
        for name, value in (("format", format_name), ("columns", columns), ("max_dropped", max_dropped)):  # of files
            if value is not None:
                raise ValueError(f"{name} {value!r} would do nothing for {kind} of {sources[0]}: leave it out")
    folder = (
        Path(out)
        if out
        else Path("data") / f"{sampling.run_name() if sampling else default_name(request.sources)}-{kind}"
    )
    try:
        check_folder(folder, ".bin", "text as tokens")
        manifest = None if force else _present_manifest(folder, request)
        status = "already prepared" if manifest else "prepared"
        if manifest is None:
            with locked(folder, "--out"), _partial_folder(folder) as partial_folder:
                most = MAX_DROPPED if max_dropped is None else max_dropped
                manifest = _write(partial_folder, request, cache, report, endpoint, most)
                put_in_place(folder, (*(f"{split}.jsonl" for split in SPLITS), MANIFEST))
    except OSError as error:
        raise disk_problem(error, folder) from error
    return ChatSummary(folder, status, manifest, time.perf_counter() - start)


def _present_manifest(folder: Path, request: Request) -> dict[str, Any] | None:
    """The manifest of a folder where this request was carried out already; None where there is work to do."""
    manifest = read_manifest(folder, request.kind)
    if manifest is None:
        # A preparation that was cut off while it renamed its files leaves .partial beside them.
        if any((folder / f"{split}.jsonl").exists() for split in SPLITS) and not (folder / PARTIAL).is_dir():
            raise ValueError(f"{folder} holds files that were not made here: give another --out, or use --force")
        return None
    check_same(folder, f"{manifest['kind']} prepared otherwise", manifest["request"], request.mapping)
    for split in SPLITS:
        check_size(folder / f"{split}.jsonl", manifest["splits"][split]["bytes"])
        check_hash(folder / f"{split}.jsonl", manifest["splits"][split]["sha256"])
    return manifest


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """A folder to write in, removed afterwards."""
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass
class _Read:
    """The lines read so far: of each its source, its split or BY_HASH, and its hash; and the remarks on each source."""

    sources: array = field(default_factory=lambda: array("i"))
    splits: array = field(default_factory=lambda: array("b"))
    hashes: array = field(default_factory=lambda: array("Q"))
    remarks: list[_Remarks] = field(default_factory=list)


@dataclass
class _Remarks:
    """Remarks on one source.

    Attributes:
        dropped: the number of records dropped, by reason.
        places: the first of them, by reason.
        unusable: those that count against the largest share.
        unused: fields that nothing reads.
        skipped: files that hold no such records, by ending or a few words.
        failed: a sentence for each file that was not read, or not to its end.
        problem: the sentence about the first file without such records.
    """

    dropped: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    unusable: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    problem: str = ""

    def drop(self, reason: str, where: str, intended: bool) -> None:
        known = reason in self.dropped or len(self.dropped) < REASONS
        reason = reason if known else "other reasons"
        self.dropped[reason] += 1
        self.unusable += not intended
        places = self.places.setdefault(reason, [])
        if where and len(places) < PLACES:
            places.append(where)

    def reasons(self) -> str:
        """The reasons with their numbers and the first place, for a sentence."""
        if not self.dropped:
            return self.problem or "; ".join(self.failed) or "it is empty"
        place = next((places[0] for places in self.places.values() if places), "")
        return ", ".join(f"{reason}: {n:,}" for reason, n in self.dropped.items()) + (
            f"; first at {place}" if place else ""
        )


def _write(
    partial_folder: Path, request: Request, cache: Path, report: Report, endpoint: str | None, max_dropped: float
) -> dict[str, Any]:
    """Both splits and the manifest, whole, in `partial_folder`."""
    read, feeds, kind = _Read(), [], request.kind
    wanted = request.mapping
    reader = partial(read_formatted, KINDS[kind], format_name=wanted["record_format"], columns=wanted["columns"])
    with (partial_folder / EVERYTHING).open("wb") as file:
        for number, source in enumerate(request.sources):
            feeds.append(open_feed(source, request, reader, cache, report, endpoint=endpoint))
            read.remarks.append(_Remarks())
            before = len(read.sources)
            _read_source(file, number, feeds[-1], request, read, report)
            if len(read.sources) == before:
                raise ValueError(f"{source.name} has no {kind} to train on ({read.remarks[-1].reasons()})")
            if not isinstance(source.origin, Generated):
                _check_dropped(source.name, len(read.sources) - before, read.remarks[-1], max_dropped)
    splits = _divide(request, read)
    hashes = _write_splits(partial_folder, splits)
    manifest = _make_manifest(partial_folder, request, feeds, read, splits, hashes)
    write_text(partial_folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def _check_dropped(name: str, used: int, remarks: _Remarks, most: float) -> None:
    """Refuse a source of which too large a share cannot be used.

    Raises:
        ValueError: it is such a source.
    """
    total = used + remarks.unusable
    if remarks.unusable > most * total:
        share = -(-100 * remarks.unusable // total) / 100
        raise ValueError(
            f"{name}: {remarks.unusable:,} of {total:,} records cannot be used, which is more than the share of {most:g} "
            f"({remarks.reasons()}); correct them, or leave them out with --max-dropped {share:g}"
        )


def _without_stop(rows: Iterator[ParsedRow], kind: str, part: Part, remarks: _Remarks) -> Iterator[ParsedRow]:
    """The rows of one of several files; an error becomes a row."""
    try:
        yield from rows
    except UnavailableError:
        raise
    except UnknownFormat as error:
        remarks.problem = remarks.problem or str(error)
        yield ParsedRow(None, f"without {kind}", part.size, where=part.name, file="skipped")
    except ValueError as error:
        yield ParsedRow(None, str(error), part.size, where=part.name, file="failed")


def _read_source(file: BinaryIO, number: int, feed: Feed, request: Request, read: _Read, report: Report) -> None:
    """Append the lines of one source."""
    name, stage = request.sources[number].name, f"{feed.doing} {request.sources[number].name}"
    remarks, unused = read.remarks[number], read.remarks[number].unused
    # A generated source stops by itself.
    limit = None if isinstance(request.sources[number].origin, Generated) else request.limit
    total, before, reported = sum(part.size for part in feed.parts), 0, 0
    counts: Counter[str | None] = Counter()
    report(PreparationProgress(stage, 0, total))
    for i, part in enumerate(feed.parts):
        rows = feed.read(i)
        for row in _without_stop(rows, request.kind, part, remarks) if len(feed.parts) > 1 else rows:
            if limit is not None and counts[part.split] == limit:
                break
            if before + row.offset - reported > total / REPORTS:
                reported = before + row.offset
                report(PreparationProgress(stage, reported, total))
            unused.update(name for name in row.unused if name in unused or len(unused) < REASONS)
            if row.record is None:
                if row.file == "skipped":
                    remarks.skipped[row.reason] += 1
                elif row.file == "failed":
                    remarks.failed.append(row.reason)
                else:
                    remarks.drop(row.reason, row.where, row.intended)
                continue
            record = {**row.record, "source": name}
            # Values that parquet has and JSON has not, such as dates among the other fields, become text.
            line = clean(json.dumps(record, ensure_ascii=False, default=str))
            file.write(line.encode("utf-8") + b"\n")
            counts[part.split] += 1
            read.sources.append(number)
            read.splits.append(SPLITS.index(part.split) if part.split else BY_HASH)
            read.hashes.append(record_hash(record, KINDS[request.kind]))
        before += part.size
    report(PreparationProgress(stage, total, total))


def _divide(request: Request, read: _Read) -> np.ndarray:
    """The split of every line (N,), as an index into SPLITS, or LEFT_OUT.

    A prompt or conversation for validation in one source with splits of its own is left out of training, and counted.
    """
    splits = np.array(read.splits, dtype=np.int8)
    hashes = np.array(read.hashes, dtype=np.uint64)
    undecided = splits == BY_HASH
    if undecided.any():
        names = ", ".join(source.name for source in request.sources)
        fraction = request.val_fraction or VAL_FRACTION
        splits[undecided] = validation_mask(hashes[undecided], fraction, names, KINDS[request.kind].divided)
    on_both = (splits == SPLITS.index("train")) & np.isin(hashes, hashes[splits == SPLITS.index("val")])
    splits[on_both] = LEFT_OUT
    noun = KINDS[request.kind].divided.removesuffix("s")
    for number in np.array(read.sources, dtype=np.int32)[on_both].tolist():
        read.remarks[number].drop(f"{noun} that is for validation", "", intended=True)
    for index, split in enumerate(SPLITS):
        if not (splits == index).any():
            raise ValueError(f"nothing of {request.sources[0].name} fell to {split}: give more data")
    return splits


def _write_splits(partial: Path, splits: np.ndarray) -> dict[str, str]:
    """Write the lines to their files, in order and flushed to the disk; the SHA-256 of each."""
    hashes = {split: hashlib.sha256() for split in SPLITS}
    with (
        (partial / EVERYTHING).open("rb") as everything,
        (partial / "train.jsonl").open("wb") as train,
        (partial / "val.jsonl").open("wb") as val,
    ):
        files = {"train": train, "val": val}
        for index, line in zip(splits.tolist(), everything, strict=True):
            if index != LEFT_OUT:
                files[SPLITS[index]].write(line)
                hashes[SPLITS[index]].update(line)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for split in SPLITS:
        check_hash(partial / f"{split}.jsonl", hashes[split].hexdigest())
    return {split: digest.hexdigest() for split, digest in hashes.items()}


def _make_manifest(
    partial: Path, request: Request, feeds: Sequence[Feed], read: _Read, splits: np.ndarray, hashes: dict[str, str]
) -> dict[str, Any]:
    source_of_line = np.array(read.sources, dtype=np.int32)
    sources = []
    for number, (source, feed) in enumerate(zip(request.sources, feeds)):
        counts = np.bincount(splits[source_of_line == number], minlength=len(SPLITS)).tolist()
        sources.append(
            {
                "name": source.name,
                "weight": source.weight,
                **dict(zip(SPLITS, counts)),
                "dropped": dict(sorted(read.remarks[number].dropped.items())),
                "dropped_at": {reason: at for reason, at in sorted(read.remarks[number].places.items()) if at},
                "failed": read.remarks[number].failed,
                "unused_fields": dict(sorted(read.remarks[number].unused.items())),
                "left_out": dict(sorted((read.remarks[number].skipped + Counter(feed.left_out)).items())),
                "notes": list(feed.notes),
                "revision": feed.revision,
                "parts": [asdict(part) for part in feed.parts],
                **feed.about,
            }
        )
    return {
        "kind": request.kind,
        "format": request.mapping["format"],
        "sources": sources,
        "splits": {
            split: {
                request.kind: int((splits == index).sum()),
                "bytes": (partial / f"{split}.jsonl").stat().st_size,
                "sha256": hashes[split],
            }
            for index, split in enumerate(SPLITS)
        },
        "val_fraction": None
        if all(source.has_splits() for source in request.sources)
        else request.val_fraction or VAL_FRACTION,
        "seed": request.seed,
        "request": request.mapping,
        "understudy": __version__,
    }
