"""A call of `prepare`, checked, and how far the folder that it names has come."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.data.layout import CACHE, PARTIAL, SPLITS, check_folder, check_hash, check_same, check_version
from understudy.data.progress import Report
from understudy.data.quality.cleaning import begun_request
from understudy.data.quality.contamination import Benchmark
from understudy.data.quality.settings import QualitySettings, quality_settings
from understudy.data.request import default_name, make_request
from understudy.data.sources import Request
from understudy.data.store import Store
from understudy.data.text.encoding import MOST_WORKERS
from understudy.data.text.plan import Plan, check_reading, check_tokenizer, read_plan
from understudy.data.text.shards import open_split, read_manifest, stored_manifest
from understudy.files import sha256_of
from understudy.tokenizer import Tokenizer


@dataclass(frozen=True)
class Job:
    """A call of `prepare`, checked.

    Attributes:
        loaded: the tokenizer at a path, where the request names one.
        cleaning_tasks: those that share the first pass of a cleaning.
    """

    store: Store
    request: Request
    quality: QualitySettings | None
    loaded: Tokenizer | None
    workers: int
    force: bool
    cache: Path
    report: Report
    cleaning_tasks: int = 1

    @property
    def name(self) -> Path | str:
        return self.store.path or self.store.url


def check_job(
    sources: Sequence[str], out: Path | str | None = None, tokenizer: str = "bpe", vocab_size: int | None = None,
    pattern: str | None = None, field: str | None = None, val_fraction: float | None = None, limit: int | None = None,
    seed: int | None = None, workers: int | None = None, force: bool = False, cache: Path = CACHE,
    report: Report | None = None, separator: str | None = None, template: str | None = None,
    validation: Sequence[str] = (), filters: Sequence[str] = (), dedup: Sequence[str] = (),
    decontaminate: Sequence[Benchmark] = (), cleaning_tasks: int = 1,
) -> Job:  # fmt: skip
    """Everything about a call that can be checked before the text is read. The arguments are those of `prepare`."""
    report = report or (lambda progress: None)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    loaded, identity = check_tokenizer(tokenizer, vocab_size, pattern)
    quality = quality_settings(filters, dedup, decontaminate)
    settings = {
        "tokenizer": identity, "field": field, "separator": separator, "template": template,
        "quality": quality.mapping() if quality else None,
    }  # fmt: skip
    plan = read_plan(Store(out)) if out is not None and not force else None

    def known_hash(path: Path) -> str:
        # A task does not read all files of all tasks: it checks those that it reads (work.py).
        planned = plan.hash_of(path) if plan is not None and plan.tasks > 1 else None
        return planned or sha256_of(path)

    request = make_request(
        "text", sources, val_fraction, limit, seed, report, settings, validation=validation, hash_of=known_hash
    )
    check_reading(request.sources, field, separator, template)
    store = Store(out if out is not None else Path("data") / default_name(request.sources))
    if quality is not None and store.path is None:
        raise ValueError(f"text is cleaned on the disk, and {out} is not there: give a folder to --out, then copy it")
    return Job(
        store, request, quality, loaded, workers or min(os.cpu_count() or 1, MOST_WORKERS), force, cache, report,
        cleaning_tasks,
    )  # fmt: skip


def check_tasks(tasks: int) -> None:
    """Refuse a single task.

    Raises:
        ValueError: there are fewer than two.
    """
    if tasks < 2:
        raise ValueError(f"--tasks is {tasks}, and one process needs no tasks: give 2 or more, or leave it out")


def check_plan(job: Job, plan: Plan, tasks: int) -> None:
    """Refuse to continue a plan of another request, number of tasks or version."""
    check_same(job.name, "an unfinished preparation of another kind", plan.request, job.request.mapping)
    if plan.tasks != tasks:
        raise _other_tasks(job.name, plan.tasks)
    if tasks > 1:
        check_version(job.name, plan.understudy)


def _other_tasks(name: Path | str, tasks: int) -> ValueError:
    held = f"{tasks} tasks" if tasks > 1 else "one process"
    again = f"give --tasks {tasks}" if tasks > 1 else "leave --tasks out"
    return ValueError(f"{name} holds an unfinished preparation in {held}: {again}, or replace it with --force")


def remote_status(job: Job, tasks: int) -> str:
    """See job_status. The files in an object store are not read again: their checksums are compared when they are fetched."""
    store, request = job.store, job.request.mapping
    manifest = None if job.force else stored_manifest(store)
    if manifest is not None:
        check_same(store.url, "data prepared otherwise", manifest.request, request)
        return "already prepared"
    plan = None if job.force else read_plan(store)
    if plan is None:
        return "prepared"
    check_plan(job, plan, tasks)
    return "continued"


def job_status(folder: Path, job: Job, tasks: int) -> str:
    """The status that the summary will have, by the contents of the folder."""
    request, force = job.request.mapping, job.force
    check_folder(folder, ".jsonl", "conversations")
    if not force and (manifest := read_manifest(folder)) is not None:
        check_same(folder, "data prepared otherwise", manifest.request, request)
        for split in SPLITS:
            open_split(folder, split)
            check_hash(folder / f"{split}.bin", manifest.splits[split].sha256)
        return "already prepared"
    try:
        plan = read_plan(Store(folder))
    except ValueError:
        if not force:
            raise
        plan = None
    if plan is not None and plan.request == request and plan.tasks == tasks:
        return "continued"
    if plan is not None and not force:
        check_plan(job, plan, tasks)
    begun = begun_request(folder / PARTIAL) if plan is None else None
    if begun is not None and begun == (request, job.cleaning_tasks) and not force:
        return "continued"
    if begun is not None and not force:
        check_same(folder, "an unfinished preparation of another kind", begun[0], request)
        raise _other_tasks(folder, begun[1])
    if not force and any((folder / f"{split}.bin").exists() for split in SPLITS):
        raise ValueError(f"{folder} holds token files that were not made here: give another --out, or use --force")
    return "prepared"
