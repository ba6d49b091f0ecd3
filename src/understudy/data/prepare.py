"""`prepare`: from sources to a data folder, in one call that can be interrupted at any moment and run again.

First everything is decided and written down (plan.py), then the text is encoded (encoding.py), both in a
folder .partial; then the finished files are renamed into place, the manifest last. The same request again
continues an unfinished folder and leaves a finished one alone; another request is refused unless forced.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from understudy import __version__
from understudy.data.download import UnavailableError, disk_problem, sha256_of
from understudy.data.encoding import State, TokenWriter, batches, encode_in_order, read_state
from understudy.data.plan import Plan, make_plan, planned_request, read_plan
from understudy.data.request import Request, default_name, difference, make_request
from understudy.data.shards import (
    MANIFEST,
    PARTIAL,
    SPLITS,
    TOKENIZER,
    Manifest,
    SplitInfo,
    open_split,
    read_manifest,
    token_dtype,
)
from understudy.data.sources import Progress, Report
from understudy.run import write_text

CACHE = Path("data/.cache")
# More threads would wait for one another: see encode_in_order.
MOST_WORKERS = 8


@dataclass(frozen=True)
class Summary:
    """What `prepare` did. `status`: "prepared", "continued" or "already prepared"; str() is for people."""

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
) -> Summary:
    """Turn sources into a folder of token files.

    Args:
        sources: named sources, `hf:owner/name[:config][#field]`, files, folders and globs.
        out: the data folder; by default data/NAME after the one source.
        tokenizer: "char", "bpe" (trained here), "gpt2", or the path of a tokenizer.
        vocab_size: of "bpe", special tokens included; 4,096 by default.
        pattern: of "bpe", how text is split before merging: "gpt2" (default) or "gpt4".
        field: the field of jsonl and the column of parquet that holds the text; "text" by default.
        val_fraction: the share of the text for validation; the head of splits.py has the default.
        limit: read at most so many documents of each source; of hamlet, which has no end, so many to train on.
        seed: of the embedded corpus; 0 by default.
        workers: threads that encode; one for each processor by default, 8 at most. It changes no byte.
        force: replace data, finished or not, that is there already.
        cache: where downloads are kept.
        report: called often with how far the work is; `progress_bars()` gives one for a terminal.

    Raises:
        UnavailableError: the network is away or the disk is full; what was done is kept.
        ValueError: anything else that a user can put right; nothing half-written is left.
    """
    start = time.perf_counter()
    report = report or (lambda progress: None)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    request = make_request(sources, tokenizer, vocab_size, pattern, field, val_fraction, limit, seed, report)
    folder = out or Path("data") / default_name(request.sources)
    try:
        status = _look_at(folder, request, force)
        if status != "already prepared":
            _carry_out(
                folder, request, status == "continued", workers or min(os.cpu_count() or 1, MOST_WORKERS), cache, report
            )
    except OSError as problem:
        raise disk_problem(problem, folder) from problem
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder} has lost its manifest; prepare it again")
    return Summary(folder, status, manifest, time.perf_counter() - start, _notes(manifest))


def _look_at(folder: Path, request: Request, force: bool) -> str:
    """What is to be done with what is there: the status that the summary will have."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give --out a folder")
    if any((folder / f"{split}.jsonl").exists() for split in SPLITS):
        raise ValueError(f"{folder} holds conversations: give another --out")
    partial = folder / PARTIAL
    begun = planned_request(partial)
    if not force and (manifest := read_manifest(folder)) is not None:
        _refuse_other(folder, "data prepared otherwise", manifest.request, request)
        for split in SPLITS:
            open_split(folder, split)
        if begun == request.mapping:
            shutil.rmtree(partial)
        return "already prepared"
    if begun == request.mapping:
        return "continued"
    if begun is not None and not force:
        _refuse_other(folder, "an unfinished preparation of another kind", begun, request)
    if not force and any((folder / f"{split}.bin").exists() for split in SPLITS):
        raise ValueError(f"{folder} holds token files that were not made here: give another --out, or use --force")
    if partial.exists():
        shutil.rmtree(partial)
    return "prepared"


def _refuse_other(folder: Path, what: str, found: dict, request: Request) -> None:
    if found != request.mapping:
        raise ValueError(
            f"{folder} holds {what} ({difference(found, request.mapping)}): give another --out, or "
            "replace it with --force"
        )


def _carry_out(folder: Path, request: Request, continued: bool, workers: int, cache: Path, report: Report) -> None:
    """Decide where nothing is decided yet, encode what is left, and put the result in place."""
    partial = folder / PARTIAL
    try:
        if not (partial / MANIFEST).is_file():
            plan = (read_plan if continued else make_plan)(partial, request, cache, report)
            state = _encode(partial, request, plan, workers, report)
            manifest = _make_manifest(partial, request, plan, state, report)
            write_text(partial / MANIFEST, manifest.to_json())
    except UnavailableError:
        raise
    except ValueError:
        # The input must change before this can succeed, and with it the request: nothing here is of use then.
        shutil.rmtree(partial, ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    _put_in_place(folder)


def _encode(partial: Path, request: Request, plan: Plan, workers: int, report: Report) -> State:
    """Encode from where the journal ends to the end of the last feed.

    Raises:
        ValueError: bad input; or a split got no text at all.
    """
    state = read_state(partial)
    sizes = [[part.size for part in feed.parts] for feed in plan.feeds]
    feed_starts = [0, *accumulate(sum(parts) for parts in sizes)]
    part_starts = [[0, *accumulate(parts)] for parts in sizes]
    source = batches(plan.feeds, plan.rules, request.limit, state.feed, state.position)
    with TokenWriter(partial, plan.tokenizer.vocab_size, plan.eot_id, state) as writer:
        for encoded in encode_in_order(source, plan.tokenizer, workers):
            writer.add(encoded)
            done = feed_starts[state.feed] + part_starts[state.feed][state.position.part]
            offset = encoded.batch.items[-1].offset
            tokens = sum(counts.tokens for counts in state.splits.values())
            report(Progress("encoding", done + offset, feed_starts[-1], tokens))
        writer.commit()
    for split, counts in state.splits.items():
        if not counts.tokens:
            documents = sum(state.documents)
            raise ValueError(
                f"the text is too short to split: of {state.text_bytes:,} bytes in {documents:,} "
                f"documents none fell to {split}; give more text, or another --val-fraction"
            )
    return state


def _make_manifest(partial: Path, request: Request, plan: Plan, state: State, report: Report) -> Manifest:
    splits = {}
    for split, counts in state.splits.items():
        report(Progress(f"hashing {split}.bin", 0, None))
        sha256 = sha256_of(partial / f"{split}.bin")
        splits[split] = SplitInfo(counts.tokens, counts.bytes, counts.documents, sha256)
    sources = [
        {
            "name": feed.name,
            "documents": documents,
            "validation": rule.kind,
            "val_fraction": rule.fraction,
            "revision": feed.revision,
            "note": feed.note,
            "skipped": feed.skipped,
            "parts": [{"name": part.name, "size": part.size, "sha256": part.sha256} for part in feed.parts],
        }
        for feed, rule, documents in zip(plan.feeds, plan.rules, state.documents)
    ]
    return Manifest(
        tokenizer_sha256=plan.tokenizer.sha256,
        tokenizer_kind=plan.tokenizer.kind,
        vocab_size=plan.tokenizer.vocab_size,
        eot_id=plan.eot_id,
        dtype=token_dtype(plan.tokenizer.vocab_size).name,
        splits=splits,
        sources=sources,
        request=request.mapping,
        empty_documents=state.empty_documents,
        seed=request.seed,
        understudy=__version__,
    )


def _put_in_place(folder: Path) -> None:
    """Rename the finished files out of .partial; where this is cut off the next run takes it up."""
    partial = folder / PARTIAL
    # An old manifest never stands beside new tokens.
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in (*(f"{split}.bin" for split in SPLITS), TOKENIZER, MANIFEST):
        if (partial / name).is_file():
            (partial / name).replace(folder / name)
    shutil.rmtree(partial)


def _notes(manifest: Manifest) -> tuple[str, ...]:
    """What was left out or is less than it seems; nothing is dropped without a word."""
    notes = [source["note"] for source in manifest.sources if source["note"]]
    for source in manifest.sources:
        if source["skipped"]:
            counts = ", ".join(f"{n:,} {ending}" for ending, n in source["skipped"].items())
            notes.append(f"skipped files of other kinds: {counts}")
    if manifest.empty_documents:
        notes.append(f"dropped empty documents: {manifest.empty_documents:,}")
    return tuple(notes)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A report for `prepare` that draws on standard error, one bar a stage; silent where that is no
    terminal."""
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[tokens]}"),
        rich_progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with rich_progress.Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, rich_progress.TaskID] = {}

        def report(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, tokens="")
            tokens = f"{progress.tokens:,} tokens" if progress.tokens else ""
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total, tokens=tokens)

        yield report
