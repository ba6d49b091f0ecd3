"""`prepare`: from sources to a data folder, in one call that can be interrupted at any moment and run again.

First everything is decided, and written into .partial (plan.py). Then the text is encoded, and the finished files are
renamed into place, the manifest last. The same request again continues an unfinished folder and leaves a finished one
alone; another is refused unless forced. Several machines share the work as tasks of one plan (work.py).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.data.fetch.download import UnavailableError, disk_problem
from understudy.data.layout import CACHE, MANIFEST, PARTIAL, check_hash
from understudy.data.progress import Report
from understudy.data.quality.cleaning import (
    QUALITY,
    begun_request,
    check_tasks_done,
    cleaned_feeds,
    with_quality,
)
from understudy.data.quality.contamination import Benchmark
from understudy.data.store import Store
from understudy.data.text.chunks import chunks_name, file_digests
from understudy.data.text.cleaning_tasks import clean_in_task
from understudy.data.text.job import Job, check_job, check_plan, check_tasks, job_status, remote_status
from understudy.data.text.plan import Plan, make_plan, open_feeds, read_plan, write_plan
from understudy.data.text.shards import read_manifest, stored_manifest
from understudy.data.text.summary import TaskSummary, TextSummary, summary_notes
from understudy.data.text.work import (
    DATA_FILES,
    build_manifest,
    done_tasks,
    encode_span,
    finish,
    merge_tasks,
    read_tokenizer,
    run_task,
)
from understudy.files import locked, write_bytes, write_text


def prepare(
    sources: Sequence[str],
    out: Path | str | None = None,
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
    cleaning_tasks: int = 1,
) -> TextSummary:
    """Turn sources into a folder of token files.

    Args:
        sources: named sources, `hf:owner/name[:config][#field]`, files, folders and globs.
        out: the data folder, or its URL in an object store; by default data/NAME after the one source.
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
        cleaning_tasks: how many calls of `prepare_task` have put the text through the filters; 1 for none.

    Raises:
        UnavailableError: the network is away or the disk is full; finished work is kept.
        ValueError: any other mistake of the user; nothing half-written is left.
    """
    start = time.perf_counter()
    job = check_job(
        sources, out, tokenizer, vocab_size, pattern, field, val_fraction, limit, seed, workers, force, cache, report,
        separator, template, validation, filters, dedup, decontaminate, cleaning_tasks,
    )  # fmt: skip
    if job.store.path is None:
        return _prepare_remote(job, start)
    folder = job.store.path
    try:
        status = job_status(folder, job, 1)
        if status != "already prepared" or (folder / PARTIAL).exists():
            with locked(folder, "--out"):
                status = job_status(folder, job, 1)  # again: another process may have finished it
                if status == "already prepared":  # and was killed while it removed what was left
                    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
                else:
                    if status == "prepared" and (folder / PARTIAL).exists():
                        shutil.rmtree(folder / PARTIAL)  # the unfinished work of another request
                    _carry_out(folder, job)
    except OSError as error:
        raise disk_problem(error, folder) from error
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder} was removed while it was prepared: run the same command again")
    return TextSummary(folder, status, manifest, time.perf_counter() - start, summary_notes(manifest))


def prepare_task(
    sources: Sequence[str], out: Path | str, tasks: int, task: int, **settings: Any
) -> TaskSummary:  # fmt: skip
    """One of several tasks that together do the work of `prepare`, on any machine that reaches sources and folder.

    The first task makes the plan, and the others follow it or are refused. After all of them `merge` is called.

    Args:
        tasks: of the preparation, the same number for each.
        task: this one, from 0.
        settings: the other arguments of `prepare`, but for `force`.

    Raises:
        UnavailableError: the network is away or the disk is full; finished work is kept.
        ValueError: any other mistake of the user; what other tasks did is left as it is.
    """
    start = time.perf_counter()
    if not 0 <= task < tasks:
        raise ValueError(f"task {task} of {tasks} is none: tasks are numbered from 0, to one less than --tasks")
    if settings.get("force"):
        raise ValueError("--force would undo what other tasks did: use it without --task, or remove the folder first")
    job = check_job(sources, out, **settings)
    if job.quality is not None:
        return clean_in_task(replace(job, cleaning_tasks=tasks), task, start)
    plan = _plan_tasks(job, tasks)
    if plan is None:
        return TaskSummary(job.name, task, tasks, "already prepared", tasks, time.perf_counter() - start)
    feeds = open_feeds(job.request, job.cache, job.report, plan.pins())
    try:
        worked = run_task(job.store, plan, task, job.request.sources, feeds, job.workers, job.cache, job.report)
    except OSError as error:
        raise disk_problem(error, Path(str(job.store))) from error
    status = "done" if worked else "already done"
    return TaskSummary(job.name, task, tasks, status, len(done_tasks(job.store)), time.perf_counter() - start)


def plan_tasks(sources: Sequence[str], out: Path | str, tasks: int, **settings: Any) -> Plan | None:
    """Decide everything for `prepare_task`, which does so itself where it was not done; None if the folder is finished.

    Raises:
        ValueError: a mistake of the user, or the folder holds other data or unfinished work of another request.
    """
    return _plan_tasks(check_job(sources, out, **settings), tasks)


def merge(out: Path | str, cache: Path = CACHE, report: Report | None = None) -> TextSummary:
    """Put the finished tasks of a folder together: the same bytes that `prepare` gives in one process.

    Raises:
        ValueError: there are no tasks, or some are not done.
    """
    start = time.perf_counter()
    store = Store(out)
    name = store.path or store.url
    report = report or (lambda progress: None)
    plan, manifest = read_plan(store), stored_manifest(store)
    if manifest is not None:
        if plan is None or plan.tasks > 1:  # a merge was killed while it removed the tasks
            store.remove(PARTIAL)
        return TextSummary(name, "already prepared", manifest, time.perf_counter() - start, summary_notes(manifest))
    if store.path is not None and begun_request(store.path / PARTIAL) is not None:
        raise ValueError(
            f"the tasks of {out} clean text, and the rest is done from the sources: run their command without --task"
        )
    if plan is None or plan.tasks == 1:
        raise ValueError(
            f"{out} holds no tasks to merge: run them first, `understudy prepare SOURCE --out {out} --tasks N`"
        )
    try:
        if store.path is None:
            merge_tasks(store, plan, cache, report)
        else:
            with locked(store.path, "--out"):
                if (store.path / PARTIAL / MANIFEST).is_file():
                    finish(store.path)
                else:
                    merge_tasks(store, plan, cache, report)
    except OSError as error:
        raise disk_problem(error, Path(str(store))) from error
    manifest = stored_manifest(store)
    assert manifest is not None, "a merge ends with the manifest"
    return TextSummary(name, "prepared", manifest, time.perf_counter() - start, summary_notes(manifest))


def _plan_tasks(job: Job, tasks: int) -> Plan | None:
    """The plan for several tasks, made if there is none yet; None if the folder is finished.

    Two tasks that make it at once make the same one.

    Raises:
        ValueError: the folder holds other data, or unfinished work of another request or number of tasks.
    """
    check_tasks(tasks)
    store, request = job.store, job.request
    if store.path is not None:
        status = job_status(store.path, job, tasks)
    else:
        status = remote_status(job, tasks)
    if status == "already prepared":
        return None
    if status == "prepared":
        if job.force:
            for name in (MANIFEST, *DATA_FILES, PARTIAL):
                store.remove(name)
        feeds = open_feeds(request, job.cache, job.report)
        plan, tokenizer = make_plan(request, feeds, job.loaded, tasks, job.cache, job.report)
        if read_plan(store) is None:
            if stored_manifest(store) is not None:  # others have done everything meanwhile
                return None
            write_plan(store, plan, tokenizer)
    plan_there = read_plan(store)
    if plan_there is None:
        raise ValueError(f"{store} was removed while it was prepared: run the same command again")
    check_plan(job, plan_there, tasks)
    return plan_there


def _prepare_remote(job: Job, start: float) -> TextSummary:
    """Prepare in a folder of the cache, then copy the result into the object store, the manifest last."""
    store = job.store
    status = remote_status(job, 1)
    if status != "already prepared":
        folder = store.workplace(job.cache) / "whole"
        try:
            with locked(folder, "--out"):
                status = job_status(folder, job, 1)
                if status != "already prepared":
                    if status == "prepared" and (folder / PARTIAL).exists():
                        shutil.rmtree(folder / PARTIAL)
                    _carry_out(folder, job)
                store.remove(MANIFEST)
                for name in (*DATA_FILES, MANIFEST):
                    if (folder / name).is_file():
                        store.upload(folder / name, name)
                    else:  # of earlier data
                        store.remove(name)
        except OSError as error:
            raise disk_problem(error, folder) from error
        status = "prepared" if status == "already prepared" else status
        shutil.rmtree(folder, ignore_errors=True)
    manifest = stored_manifest(store)
    if manifest is None:
        raise ValueError(f"{store} was removed while it was prepared: run the same command again")
    return TextSummary(store.url, status, manifest, time.perf_counter() - start, summary_notes(manifest))


def _carry_out(folder: Path, job: Job) -> None:
    """Make or read the plan, encode the text that is left, and put the result in place."""
    partial, store = folder / PARTIAL, Store(folder)
    check_tasks_done(partial, job.cleaning_tasks)
    try:
        if not (partial / MANIFEST).is_file():
            request, plan = job.request, read_plan(store)
            if job.quality is None:
                feeds = open_feeds(request, job.cache, job.report, plan.pins() if plan else ())
            else:
                feeds = cleaned_feeds(
                    partial, request.mapping, job.quality, lambda pins: open_feeds(request, job.cache, job.report, pins),
                    request.limit, job.workers, job.report, job.cleaning_tasks,
                )  # fmt: skip
            if plan is None:
                limit = None if job.quality else request.limit  # a cleaning has applied it
                plan, tokenizer = make_plan(replace(request, limit=limit), feeds, job.loaded, 1, job.cache, job.report)
                write_plan(store, plan, tokenizer)
            else:
                tokenizer = read_tokenizer(store, plan, job.cache)
            state, hashes = encode_span(partial, plan, feeds, tokenizer, job.workers, job.report)
            digests = {}
            for split, sha256 in hashes.items():
                check_hash(partial / f"{split}.bin", sha256)
                digests[split] = file_digests(partial / f"{split}.bin")
                if digests[split]:
                    write_bytes(partial / chunks_name(split), digests[split])
            manifest = build_manifest(plan, tokenizer, state, hashes, digests)
            if job.quality is not None:
                manifest = with_quality(manifest, partial / QUALITY)
            write_text(partial / MANIFEST, manifest.to_json())
    except UnavailableError:
        raise
    except ValueError:
        # The input must change before this can succeed, and with it the request: nothing here is of use then.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finish(folder)
