"""Cleaning as tasks: each call puts a share of the text through the filters, and `prepare` does the rest.

Copies are found in all of the text, and the tokenizer is trained on the clean text. So the tasks share the filters, which take
most of the time, and one process goes on from there. The result is the same bytes as without tasks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.data.fetch.download import disk_problem
from understudy.data.layout import MANIFEST, PARTIAL
from understudy.data.quality.cleaning import clean_share, done_cleaning
from understudy.data.text.job import Job, check_job, check_tasks, job_status
from understudy.data.text.plan import open_feeds, read_plan
from understudy.data.text.summary import TaskSummary


def begin_cleaning(
    sources: Sequence[str], out: Path | str, tasks: int, force: bool = False, **settings: Any
) -> set[int] | None:
    """Check a cleaning in tasks before it is begun. The arguments are those of `prepare_task`.

    Returns the tasks that are done; None if the folder is finished, or only the last steps are left.

    Raises:
        ValueError: a mistake of the user, or the folder holds other data or unfinished work of another request.
    """
    job = replace(check_job(sources, out, force=force, **settings), cleaning_tasks=tasks)
    status = _status(job)
    if force:
        for name in (MANIFEST, PARTIAL):
            job.store.remove(name)
        return set()
    assert job.store.path is not None, "text is cleaned on the disk"
    finishing = status == "already prepared" or read_plan(job.store) is not None
    return None if finishing else done_cleaning(job.store.path / PARTIAL)


def _status(job: Job) -> str:
    check_tasks(job.cleaning_tasks)
    if job.request.limit is not None:
        raise ValueError(
            "--limit counts documents from the beginning, and tasks that clean begin anywhere: leave it out"
        )
    assert job.store.path is not None, "text is cleaned on the disk"
    return job_status(job.store.path, job, 1)


def clean_in_task(job: Job, task: int, start: float) -> TaskSummary:
    """The share of one task in the first pass of a cleaning. The last pass and the encoding are left to `prepare`."""
    tasks, folder, request = job.cleaning_tasks, job.store.path, job.request
    assert folder is not None and job.quality is not None, "text is cleaned on the disk"
    status = _status(job)
    if status == "already prepared":
        return TaskSummary(folder, task, tasks, status, tasks, time.perf_counter() - start)
    worked = False
    if read_plan(job.store) is None:  # a plan is made when all tasks are done
        try:
            worked = clean_share(
                folder / PARTIAL, request.mapping, job.quality, lambda pins: open_feeds(request, job.cache, job.report, pins),
                task, tasks, job.workers, job.report,
            )  # fmt: skip
        except OSError as error:
            raise disk_problem(error, folder) from error
    done, status = len(done_cleaning(folder / PARTIAL)), "done" if worked else "already done"
    return TaskSummary(folder, task, tasks, status, done, time.perf_counter() - start, cleaned=True)
