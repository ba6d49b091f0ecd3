"""The work of a plan: a span of the text as token files, and the files of all tasks put together.

Task i of N writes .partial/task-i/train.bin and val.bin, and then done.json, which vouches for them with their hashes and
counts. The tasks may run in any order, on any machine that reaches the folder. The merge needs all of them and nothing else
of the sources. A killed task goes on from its journal where it works on the folder itself, and begins anew where the folder
is in an object store and another machine takes over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from understudy.data.fetch.download import UnavailableError
from understudy.data.layout import MANIFEST, PARTIAL, SPLITS, put_in_place
from understudy.data.progress import PreparationProgress, Report
from understudy.data.quality.cleaning import QUALITY, remove_old
from understudy.data.sources import Feed, Files, Source
from understudy.data.store import BLOCK_BYTES, Store
from understudy.data.text.chunks import ChunkDigests, chunks_name
from understudy.data.text.encoding import (
    WHOLE,
    EncodingState,
    TaskSpan,
    TokenWriter,
    batches,
    encode_in_order,
    read_state,
    share,
    state_from_json,
)
from understudy.data.text.plan import PLANNED_TOKENIZER, Plan
from understudy.data.text.shards import TOKENIZER, Manifest, token_dtype
from understudy.files import locked, sha256_of
from understudy.tokenizer import Tokenizer, load_tokenizer

DONE = "done.json"
DATA_FILES = (*(f"{split}.bin" for split in SPLITS), *(chunks_name(split) for split in SPLITS), TOKENIZER)
"""Files of a data folder beside the manifest. Small token files have no digests of chunks."""


def task_folder(task: int) -> str:
    return f"{PARTIAL}/task-{task:05d}"


def encode_span(
    folder: Path,
    plan: Plan,
    feeds: Sequence[Feed],
    tokenizer: Tokenizer,
    workers: int,
    report: Report,
    span: TaskSpan = WHOLE,
) -> tuple[EncodingState, dict[str, str]]:
    """Encode a span into the token files of a folder, from where their journal ends.

    Returns its counts, and the SHA-256 of each file as it was written.
    """
    state = read_state(folder, len(feeds))
    source = batches(feeds, plan.rules, plan.limit, state, span, plan.documents_before)
    first, last = min(span.start, plan.total), int(min(span.stop, plan.total))
    with TokenWriter(folder, tokenizer.vocab_size, plan.eot_id, state, tokenizer.prefix_ids) as writer:
        for encoded in encode_in_order(source, tokenizer, workers):
            writer.add(encoded)
            tokens = sum(counts.tokens for counts in state.splits.values())
            done = min(max(encoded[0].done, first), last) - first
            report(PreparationProgress("encoding", done, last - first, tokens))
        writer.commit()
    return state, {split: digest.hexdigest() for split, digest in writer.hashes.items()}


def build_manifest(
    plan: Plan, tokenizer: Tokenizer, state: EncodingState, hashes: dict[str, str], digests: dict[str, bytes]
) -> Manifest:
    """The description of the whole.

    Args:
        hashes: the SHA-256 of the token file of each split.
        digests: of the chunks of each; empty for small files.

    Raises:
        ValueError: nothing fell to one of the splits.
    """
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
            "name": source.name,
            "documents": documents,
            "validation": source.rule.kind,
            "val_fraction": source.rule.fraction,
            "revision": source.revision,
            "note": "; ".join(source.notes),
            "skipped": source.left_out,
            "parts": [asdict(part) for part in source.parts],
        }
        for source, documents in zip(plan.sources, state.documents)
    ]
    return Manifest(
        tokenizer_sha256=tokenizer.sha256,
        tokenizer_kind=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        eot_id=plan.eot_id,
        dtype=token_dtype(tokenizer.vocab_size).name,
        splits={
            split: replace(
                counts,
                sha256=hashes[split],
                chunks_sha256=hashlib.sha256(digests[split]).hexdigest() if digests[split] else "",
            )
            for split, counts in state.splits.items()
        },
        sources=sources,
        request=plan.request,
        empty_documents=state.empty_documents,
        end_of_text_spelled=state.end_of_text_spelled,
        notes=state.listed_notes(),
        seed=plan.seed,
        understudy=plan.understudy,
    )


def read_tokenizer(store: Store, plan: Plan, cache: Path) -> Tokenizer:
    """The tokenizer of a plan.

    Raises:
        ValueError: it is not there, or another one.
    """
    work = store.workplace(cache)
    with contextlib.ExitStack() as stack:
        if store.path is None:
            stack.enter_context(locked(work, "cache", wait=True))
            store.download(PLANNED_TOKENIZER, work / PLANNED_TOKENIZER)
        tokenizer = load_tokenizer(work / PLANNED_TOKENIZER)
    if tokenizer.sha256 != plan.tokenizer_sha256:
        raise ValueError(f"{store}/{PLANNED_TOKENIZER} is not the tokenizer of the plan: begin anew with --force")
    return tokenizer


def run_task(
    store: Store, plan: Plan, task: int, sources: Sequence[Source], feeds: Sequence[Feed], workers: int, cache: Path,
    report: Report,
) -> bool:  # fmt: skip
    """Encode the share of one task, unless it is done.

    Returns whether there was something to do.

    Raises:
        ValueError: a file has changed since the plan was made.
    """
    name = task_folder(task)
    if store.read(f"{name}/{DONE}") is not None:
        return False
    folder = store.workplace(cache) / name
    with locked(folder, "--out", wait=True):  # a process that was given up, and not killed, may still be at it
        if store.read(f"{name}/{DONE}") is not None:
            return False
        span = share(feeds, task, plan.tasks)
        _check_files(plan, sources, span)
        tokenizer = read_tokenizer(store, plan, cache)
        try:
            state, hashes = encode_span(folder, plan, feeds, tokenizer, workers, report, span)
        except UnavailableError:
            raise
        except ValueError:
            for file in folder.glob("*.*"):
                file.unlink()
            raise
        if store.path is None:
            for split in SPLITS:
                store.upload(folder / f"{split}.bin", f"{name}/{split}.bin")
        done = {"plan": plan.sha256, "state": asdict(state), "sha256": hashes}
        store.write(f"{name}/{DONE}", json.dumps(done).encode())
    if store.path is None:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _check_files(plan: Plan, sources: Sequence[Source], span: TaskSpan) -> None:
    """Compare the files that a span reads with the hashes of the plan; those of the others are left to other tasks."""
    first = 0
    for source, planned in zip(sources, plan.sources):
        paths = source.origin.paths if isinstance(source.origin, Files) else ()
        for i, part in enumerate(planned.parts):
            if paths and span.overlaps(first, first + max(part.size, 1) - 1) and sha256_of(paths[i]) != part.sha256:
                raise ValueError(
                    f"{part.name} has changed since this preparation was begun: begin anew with --force, or restore it"
                )
            first += part.size


def done_tasks(store: Store) -> set[int]:
    """The numbers of the tasks that are done."""
    marks = (name.split("/") for name in store.names(PARTIAL))
    return {int(mark[0].removeprefix("task-")) for mark in marks if len(mark) == 2 and mark[1] == DONE}


def merge_tasks(store: Store, plan: Plan, cache: Path, report: Report) -> None:
    """Put the files of all tasks together and in place.

    Raises:
        ValueError: a task is not done, or its files are damaged.
    """
    done = done_tasks(store)
    if missing := [task for task in range(plan.tasks) if task not in done]:
        listed = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
        raise ValueError(
            f"{len(missing):,} of {plan.tasks:,} tasks of {store} are not done ({listed}): run them with --task, then merge"
        )
    tokenizer = read_tokenizer(store, plan, cache)
    marks = [_read_mark(store, plan, task) for task in range(plan.tasks)]
    states = [state_from_json(mark["state"]) for mark in marks]
    state = EncodingState(documents=[0] * len(plan.sources))
    for following in states:
        state.add(following)
    itemsize = token_dtype(tokenizer.vocab_size).itemsize
    total = sum(counts.tokens for counts in state.splits.values()) * itemsize
    merged = 0
    hashes: dict[str, str] = {}
    digests: dict[str, bytes] = {}
    finished = PARTIAL + "/" if store.path is not None else ""
    if store.path is None:
        store.remove(MANIFEST)  # an old manifest never stands beside new data
    for split in SPLITS:
        digest, chunks = hashlib.sha256(), ChunkDigests()
        with store.writer(f"{finished}{split}.bin") as target:
            for task, mark in enumerate(marks):
                name = f"{task_folder(task)}/{split}.bin"
                size = states[task].splits[split].tokens * itemsize
                merged += _copy(store, name, target, (digest, chunks), size, mark["sha256"][split])
                report(PreparationProgress("merging", merged, total))
        hashes[split] = digest.hexdigest()
        digests[split] = chunks.digests()
    for name, content in digests.items():
        if content:
            store.write(f"{finished}{chunks_name(name)}", content)
        elif store.path is None:
            store.remove(chunks_name(name))
    manifest = build_manifest(plan, tokenizer, state, hashes, digests).to_json().encode()
    if store.path is not None:
        store.write(f"{PARTIAL}/{MANIFEST}", manifest)
        finish(store.path)
    else:
        store.write(TOKENIZER, tokenizer.to_json().encode())
        store.write(MANIFEST, manifest)
        store.remove(PARTIAL)


def finish(folder: Path) -> None:
    """Put the finished files of a folder on the disk in place."""
    remove_old(folder, (folder / PARTIAL / QUALITY).is_file())
    for split in SPLITS:
        if not (folder / PARTIAL / chunks_name(split)).is_file():
            (folder / chunks_name(split)).unlink(missing_ok=True)
    put_in_place(folder, (*DATA_FILES, QUALITY, MANIFEST))


def _read_mark(store: Store, plan: Plan, task: int) -> dict[str, Any]:
    content = store.read(f"{task_folder(task)}/{DONE}")
    assert content is not None, f"task {task} was listed as done"
    mark: dict[str, Any] = json.loads(content)
    if mark["plan"] != plan.sha256:
        raise ValueError(f"task {task} of {store} was done for another plan: begin anew with --force")
    return mark


def _copy(store: Store, name: str, target: BinaryIO, digests: Sequence[Any], size: int, sha256: str) -> int:
    """Append a file of a task, and return its size in bytes. `digests` are updated with it."""
    own = hashlib.sha256()
    copied = 0
    with store.reader(name) as source:
        while block := source.read(BLOCK_BYTES):
            target.write(block)
            for digest in (*digests, own):
                digest.update(block)
            copied += len(block)
    if copied != size or own.hexdigest() != sha256:
        raise ValueError(
            f"{store}/{name} was changed or damaged since it was written: delete the folder {name.rsplit('/', 1)[0]} in it, "
            "run its task again, then merge"
        )
    return copied
