"""`prepare`: from sources to a data folder, in one call that can be interrupted at any moment and run again.

First everything is decided: feeds, rules of validation, tokenizer. It is written into .partial/plan.json and
.partial/tokenizer.json, so that a resumed preparation reads the same files at the same commit, and encodes them with the
same tokenizer. Then the text is encoded (encoding.py), and the finished files are renamed into place, the manifest last.
The same request again continues an unfinished folder and leaves a finished one alone; another is refused unless forced.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.data.fetch.download import UnavailableError, disk_problem, fetch_gpt2_vocabulary
from understudy.data.fetch.hub import HubDataset
from understudy.data.layout import CACHE, MANIFEST, PARTIAL, SPLITS, check_folder, check_hash, check_same, put_in_place
from understudy.data.progress import PreparationProgress, Report
from understudy.data.quality.cleaning import (
    QUALITY,
    begun_request,
    cleaned_feeds,
    quality_notes,
    remove_old,
    with_quality,
)
from understudy.data.quality.contamination import Benchmark
from understudy.data.quality.settings import QualitySettings, quality_settings
from understudy.data.request import default_name, make_request
from understudy.data.sources import Feed, Files, Part, Pin, Request, Source, open_feed
from understudy.data.text.documents import Note
from understudy.data.text.encoding import (
    OTHER_REASONS,
    EncodingState,
    TokenWriter,
    batches,
    encode_in_order,
    read_state,
)
from understudy.data.text.readers.base import ReadOptions
from understudy.data.text.readers.fields import template_fields
from understudy.data.text.reading import check_fields, check_libraries, kind_of_path, read_file
from understudy.data.text.shards import TOKENIZER, Manifest, open_split, read_manifest, token_dtype
from understudy.data.text.splits import Rule, choose_rule, training_sample
from understudy.files import locked, write_text
from understudy.tokenizer import (
    END_OF_TEXT,
    SPLIT_PATTERNS,
    Tokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    train_tokenizer,
)  # fmt: skip

PLAN = "plan.json"
SAMPLE_BYTES = 64 << 20

# More threads would wait for one another: see encode_in_order.
MOST_WORKERS = 8


@dataclass(frozen=True)
class TextSummary:
    """Result of `prepare`. `status`: "prepared", "continued" or "already prepared"; str() is for people."""

    folder: Path
    status: str
    manifest: Manifest
    seconds: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        m = self.manifest
        took = "" if self.status == "already prepared" else f" in {self.seconds:.1f} s"
        lines = [f"{self.folder}: {self.status}{took}"]
        for split, info in m.splits.items():
            lines.append(
                f"  {split:5s} {info.tokens:>14,} tokens {info.bytes:>15,} bytes {info.documents:>11,} documents"
            )
        lines.append(f"  tokenizer: {m.tokenizer_kind} of {m.vocab_size:,}, sha256 {m.tokenizer_sha256[:12]}…")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def prepare(
    sources: Sequence[str],
    out: Path | None = None,
    tokenizer: str = "bpe",
    vocab_size: int | None = None,
    pattern: str | None = None,
    field: str | None = None,
    val_fraction: float | None = None,
    limit: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    force: bool = False,
    cache: Path = CACHE,
    report: Report | None = None,
    separator: str | None = None,
    template: str | None = None,
    validation: Sequence[str] = (),
    filters: Sequence[str] = (),
    dedup: Sequence[str] = (),
    decontaminate: Sequence[Benchmark] = (),
) -> TextSummary:
    """Turn sources into a folder of token files.

    Args:
        sources: named sources, `hf:owner/name[:config][#field]`, files, folders and globs.
        out: the data folder; by default data/NAME after the one source.
        tokenizer: "char", "bpe" (trained here), "gpt2", or the path of a tokenizer.
        vocab_size: of "bpe", special tokens included; 4,096 by default, fewer where the text gives no more.
        pattern: of "bpe", how text is split before merging: "gpt2" (default) or "gpt4".
        field: the field of records that holds the text, with dots into objects; "text" by default.
        val_fraction: the share of the text for validation; the head of splits.py has the default.
        limit: the most documents of each source; of a generated source the number to train on.
        seed: of the embedded corpus; 0 by default.
        workers: threads that encode; one for each processor by default, 8 at most. It changes no byte.
        force: replace existing data, finished or not.
        cache: where downloads are kept.
        report: called often with the progress; `preparation_bars()` gives one for a terminal.
        separator: divides a plain text into documents, such as "<|endoftext|>"; by default it is one document.
        template: the text of a record made of several fields, such as "{question}\\n{answer}", in place of `field`.
        validation: files, folders and globs that are the validation text; the sources are then training text alone.
        filters: rows of quality.settings.FILTERS and `language:CODE`; training text that they refuse is dropped.
        dedup: "exact", "minhash" and "sentence": copies of documents, and repeated sentences, that are dropped.
        decontaminate: questions that must not be in the training text.

    Raises:
        UnavailableError: the network is away or the disk is full; finished work is kept.
        ValueError: any other mistake of the user; nothing half-written is left.
    """
    start = time.perf_counter()
    report = report or (lambda progress: None)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    loaded, identity = _check_tokenizer(tokenizer, vocab_size, pattern)
    quality = quality_settings(filters, dedup, decontaminate)
    settings = {
        "tokenizer": identity, "field": field, "separator": separator, "template": template,
        "quality": quality.mapping() if quality else None,
    }  # fmt: skip
    request = make_request("text", sources, val_fraction, limit, seed, report, settings, validation=validation)
    _check_reading(request.sources, field, separator, template)
    folder = out or Path("data") / default_name(request.sources)
    try:
        if (status := _status(folder, request.mapping, force)) != "already prepared":
            with locked(folder, "--out"):
                status = _status(folder, request.mapping, force)  # again: another process may have finished it
                if status != "already prepared":
                    if status == "prepared" and (folder / PARTIAL).exists():
                        shutil.rmtree(folder / PARTIAL)  # the unfinished work of another request
                    workers = workers or min(os.cpu_count() or 1, MOST_WORKERS)
                    _carry_out(folder, request, quality, loaded, workers, cache, report)
    except OSError as error:
        raise disk_problem(error, folder) from error
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder} was removed while it was prepared: run the same command again")
    return TextSummary(folder, status, manifest, time.perf_counter() - start, _notes(manifest))


def _check_tokenizer(
    tokenizer: str, vocab_size: int | None, pattern: str | None
) -> tuple[Tokenizer | None, dict[str, Any]]:
    """The tokenizer at a path, where one is named; and the values that make two requests for it the same one."""
    if tokenizer != "bpe" and (vocab_size is not None or pattern is not None):
        setting = "vocab_size" if vocab_size is not None else "pattern"
        raise ValueError(
            f"{setting} is a setting of the tokenizer 'bpe' and does nothing for {tokenizer!r}: leave it out"
        )
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"vocab_size must be a positive number of tokens, not {vocab_size}")
    if pattern is not None and pattern not in SPLIT_PATTERNS:
        raise ValueError(f"no pattern {pattern!r}: choose one of {', '.join(SPLIT_PATTERNS)}")
    if tokenizer == "bpe":
        return None, {"name": "bpe", "vocab_size": vocab_size, "pattern": pattern or "gpt2"}
    if tokenizer in ("char", "gpt2"):
        return None, {"name": tokenizer}
    path = Path(tokenizer).expanduser()
    if not path.exists():
        raise ValueError(f"no tokenizer {tokenizer!r}: give 'char', 'bpe', 'gpt2', or the path of a tokenizer.json")
    loaded = load_tokenizer(path)
    return loaded, {"sha256": loaded.sha256}


def _check_reading(sources: Sequence[Source], field: str | None, separator: str | None, template: str | None) -> None:
    """Refuse settings that no source would use, and files whose library is missing."""
    paths = [path for source in sources if isinstance(source.origin, Files) for path in source.origin.paths]
    datasets = [source.origin for source in sources if isinstance(source.origin, HubDataset)]
    of_paths = {path: kind_of_path(path) for path in paths}
    kinds = {kind for kind in of_paths.values() if kind is not None}
    archives = any(kind.members for kind in kinds)
    for name, value in (("field", field), ("template", template)):
        used = archives or any(kind.records for kind in kinds) or any(data.field is None for data in datasets)
        if value is not None and not used:
            raise ValueError(
                f"{name}={value!r} would do nothing: no file of records or hf: source was given; leave it out"
            )
    if template is not None:
        if field is not None:
            raise ValueError("field and template are two ways to say where the text of a record is: give one of them")
        template_fields(template)
    if separator is not None and (not separator or not (archives or any(kind.divided for kind in kinds))):
        raise ValueError(f"separator={separator!r} would do nothing: no file of plain text was given; leave it out")
    check_libraries(of_paths)
    check_fields(of_paths, ReadOptions(field or "text", template))


def _status(folder: Path, request: dict[str, Any], force: bool) -> str:
    """The status that the summary will have, by the contents of the folder."""
    check_folder(folder, ".jsonl", "conversations")
    begun = _planned_request(folder / PARTIAL)
    if not force and (manifest := read_manifest(folder)) is not None:
        check_same(folder, "data prepared otherwise", manifest.request, request)
        for split in SPLITS:
            open_split(folder, split)
            check_hash(folder / f"{split}.bin", manifest.splits[split].sha256)
        return "already prepared"
    if begun == request:
        return "continued"
    if begun is not None and not force:
        check_same(folder, "an unfinished preparation of another kind", begun, request)
    if not force and any((folder / f"{split}.bin").exists() for split in SPLITS):
        raise ValueError(f"{folder} holds token files that were not made here: give another --out, or use --force")
    return "prepared"


def _carry_out(
    folder: Path, request: Request, quality: QualitySettings | None, loaded: Tokenizer | None, workers: int, cache: Path,
    report: Report,
) -> None:  # fmt: skip
    """Clean the text if need be, make or read the plan, encode the text that is left, and put the result in place."""
    partial = folder / PARTIAL
    try:
        if not (partial / MANIFEST).is_file():
            feeds = None
            if quality is not None:
                feeds = cleaned_feeds(
                    partial, request.mapping, quality, lambda pins: _open_all(request, pins, cache, report), request.limit,
                    workers, report,
                )  # fmt: skip
                request = replace(request, limit=None)  # it was applied
            plan = _make_plan(partial, request, feeds, loaded, cache, report)
            manifest = _encode(partial, request, plan, workers, report)
            if quality is not None:
                manifest = with_quality(manifest, partial / QUALITY)
            write_text(partial / MANIFEST, manifest.to_json())
    except UnavailableError:
        raise
    except ValueError:
        # The input must change before this can succeed, and with it the request: nothing here is of use then.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    remove_old(folder, quality is not None)
    put_in_place(folder, (*(f"{split}.bin" for split in SPLITS), TOKENIZER, QUALITY, MANIFEST))


@dataclass(frozen=True)
class _Plan:
    """`eot_id`: the token written after every document; None for one document alone, which needs no end."""

    feeds: tuple[Feed, ...]
    rules: tuple[Rule, ...]
    tokenizer: Tokenizer
    eot_id: int | None


def _make_plan(
    partial: Path,
    request: Request,
    cleaned: tuple[Feed, ...] | None,
    loaded: Tokenizer | None,
    cache: Path,
    report: Report,
) -> _Plan:
    """Decide everything, then write it down; the folder `partial` is made only then. A resumed preparation keeps the feeds
    and the tokenizer of its plan. `loaded`: the tokenizer at a path, where the request names one. `cleaned`: feeds in place
    of the sources'."""
    continued = (partial / PLAN).is_file()
    saved = json.loads((partial / PLAN).read_text("utf-8"))["feeds"] if continued else []
    pins = [Pin(tuple(Part(*part) for part in parts), revision, tuple(notes)) for parts, revision, notes in saved]
    feeds = cleaned or _open_all(request, pins, cache, report)
    notes: list[Note] = []
    chosen = [choose_rule(feed, request.val_fraction, request.limit, report, notes) for feed in feeds]
    rules = tuple(rule for rule, _ in chosen)
    documents = sum(documents for _, documents in chosen)
    if not documents:
        if problem := next((note for note in notes if note.kind == "failed"), None):
            raise ValueError(problem.reason)
        names = ", ".join(feed.parts[0].name if len(feed.parts) == 1 else feed.name for feed in feeds)
        reasons = ", ".join(sorted({note.reason for note in notes if note.kind in ("dropped", "skipped")}))
        raise ValueError(f"there is no text in {names}: every document is empty" + (f" ({reasons})" if reasons else ""))
    if continued:
        loaded = load_tokenizer(partial / TOKENIZER)
    tokenizer = loaded or _make_tokenizer(request, feeds, rules, documents > 1, cache, report)
    if documents > 1 and tokenizer.eot_id is None:
        raise ValueError(f"the tokenizer has no {END_OF_TEXT} token to put between documents: use one that has")
    if not continued:
        partial.mkdir(parents=True, exist_ok=True)
        tokenizer.save(partial / TOKENIZER)
        decided = [[[astuple(part) for part in feed.parts], feed.revision, feed.notes] for feed in feeds]
        write_text(partial / PLAN, json.dumps({"request": request.mapping, "feeds": decided}))
    return _Plan(feeds, rules, tokenizer, tokenizer.eot_id if documents > 1 else None)


def _open_all(request: Request, pins: Sequence[Pin], cache: Path, report: Report) -> tuple[Feed, ...]:
    return tuple(_open(source, request, cache, report, pin) for source, pin in zip_longest(request.sources, pins))


def _open(source: Source, request: Request, cache: Path, report: Report, pin: Pin | None) -> Feed:
    named = source.origin.field if isinstance(source.origin, HubDataset) else None
    wanted = request.mapping
    options = ReadOptions(
        named or wanted["field"] or "text", None if named else wanted["template"], wanted["separator"]
    )
    keep_going = isinstance(source.origin, Files) and len(source.origin.paths) > 1
    return open_feed(source, request, lambda path: read_file(path, options, keep_going), cache, report, pin)


def _planned_request(partial: Path) -> dict[str, Any] | None:
    """The request that an unfinished preparation in this folder is of; None where there is none."""
    path = partial / PLAN
    return json.loads(path.read_text("utf-8"))["request"] if path.is_file() else begun_request(partial)


def _make_tokenizer(
    request: Request, feeds: tuple[Feed, ...], rules: tuple[Rule, ...], several: bool, cache: Path, report: Report
) -> Tokenizer:
    """The tokenizer asked for. Characters are collected from all of the text, so that validation text can be
    encoded too; merges are learned from training text alone, about 64 MB of it."""
    wanted = request.mapping["tokenizer"]
    if wanted["name"] == "gpt2":
        report(PreparationProgress("fetching the vocabulary", 0, None))
        return gpt2_tokenizer(fetch_gpt2_vocabulary(cache))
    if wanted["name"] == "char":
        report(PreparationProgress("collecting characters", 0, None))
        everything = batches(feeds, rules, request.limit, EncodingState())
        texts = (text for batch in everything for item in batch.items for _, text, _ in item.texts)
        return train_tokenizer("char", texts, special_tokens=(END_OF_TEXT,) if several else ())
    report(PreparationProgress("training the tokenizer", 0, None))
    sample = training_sample(feeds, rules, request.limit, SAMPLE_BYTES)
    return train_tokenizer(
        "bpe", sample, wanted["vocab_size"], pattern=wanted["pattern"], special_tokens=(END_OF_TEXT,)
    )


def _encode(partial: Path, request: Request, plan: _Plan, workers: int, report: Report) -> Manifest:
    """Encode from where the journal ends to the end of the last feed, and describe the result."""
    state = read_state(partial, len(plan.feeds))
    total = sum(part.size for feed in plan.feeds for part in feed.parts)
    source = batches(plan.feeds, plan.rules, request.limit, state)
    with TokenWriter(partial, plan.tokenizer.vocab_size, plan.eot_id, state, plan.tokenizer.prefix_ids) as writer:
        for encoded in encode_in_order(source, plan.tokenizer, workers):
            writer.add(encoded)
            tokens = sum(counts.tokens for counts in state.splits.values())
            report(PreparationProgress("encoding", encoded[0].done, total, tokens))
        writer.commit()
    hashes = {split: digest.hexdigest() for split, digest in writer.hashes.items()}
    for split, sha256 in hashes.items():
        check_hash(partial / f"{split}.bin", sha256)
    for split, counts in state.splits.items():
        if not counts.tokens and any(rule.uniform for rule in plan.rules):
            raise ValueError(
                f"the {sum(state.documents):,} documents are all the same, and equal documents are never in both splits: "
                f"none fell to {split}; give other text too, or validation text with --val FILE"
            )
        if not counts.tokens:
            raise ValueError(
                f"the text is too short or too uniform to split: of {state.text_bytes:,} bytes in "
                f"{sum(state.documents):,} documents none fell to {split}; give more text, or another --val-fraction"
            )
    sources = [
        {
            "name": feed.name,
            "documents": documents,
            "validation": rule.kind,
            "val_fraction": rule.fraction,
            "revision": feed.revision,
            "note": "; ".join(feed.notes),
            "skipped": feed.left_out,
            "parts": [asdict(part) for part in feed.parts],
        }
        for feed, rule, documents in zip(plan.feeds, plan.rules, state.documents)
    ]
    return Manifest(
        tokenizer_sha256=plan.tokenizer.sha256,
        tokenizer_kind=plan.tokenizer.kind,
        vocab_size=plan.tokenizer.vocab_size,
        eot_id=plan.eot_id,
        dtype=token_dtype(plan.tokenizer.vocab_size).name,
        splits={split: replace(counts, sha256=hashes[split]) for split, counts in state.splits.items()},
        sources=sources,
        request=request.mapping,
        empty_documents=state.empty_documents,
        end_of_text_spelled=state.end_of_text_spelled,
        notes=state.notes,
        seed=request.seed,
        understudy=__version__,
    )


def _notes(manifest: Manifest) -> tuple[str, ...]:
    """Everything that was left out, and warnings about the text."""
    notes = [source["note"] for source in manifest.sources if source["note"]]
    for source in manifest.sources:
        if source["skipped"]:
            counts = ", ".join(f"{n:,} {ending}" for ending, n in source["skipped"].items())
            notes.append(f"skipped files of other kinds: {counts}")
        if source["validation"] == "own" and any(part["split"] for part in source["parts"] if part["sha256"]):
            splits = [part["split"] for part in source["parts"]]
            notes.append(f"files for training: {splits.count('train'):,}, for validation: {splits.count('val'):,}")
    notes += _counted(manifest.notes)
    notes += quality_notes(manifest)
    if manifest.empty_documents:
        notes.append(f"dropped empty documents: {manifest.empty_documents:,}")
    if manifest.end_of_text_spelled:
        notes.append(
            f"the text spells {END_OF_TEXT} {manifest.end_of_text_spelled:,} times, which is encoded as plain text; to end "
            f"documents of plain text there, prepare again with --separator '{END_OF_TEXT}' --force"
        )
    return tuple(notes)


NOTE_WORDS = {
    "failed": "could not be read",
    "dropped": "dropped",
    "skipped": "skipped members of other kinds",
    "changed": "changed",
}


def _counted(notes: dict[str, dict[str, list[Any]]]) -> list[str]:
    """A line for each reason, with the number and the first place."""
    lines = []
    for kind, words in NOTE_WORDS.items():
        for reason, (number, where) in notes.get(kind, {}).items():
            if kind == "failed" and reason != OTHER_REASONS:
                lines.append(f"{words}: {reason}")
            else:
                lines.append(f"{words}: {reason}: {number:,} (first: {where})")
    return lines
