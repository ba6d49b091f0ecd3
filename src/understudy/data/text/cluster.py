"""All tasks of a preparation, run by an executor of `datatrove`: processes of this machine, a Slurm array, or Ray.

The plan is made first, here. Each task is a call of `prepare_task`, which needs nothing but the folder and the sources, so
that tasks of an array that somebody else starts do the same. The logs of the tasks lie in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.layout import CACHE, PARTIAL
from understudy.data.progress import Report
from understudy.data.quality.cleaning import done_cleaning
from understudy.data.store import Store, is_url
from understudy.data.text.cleaning_tasks import begin_cleaning
from understudy.data.text.encoding import MOST_WORKERS
from understudy.data.text.prepare import merge, plan_tasks, prepare, prepare_task
from understudy.data.text.summary import TextSummary
from understudy.data.text.work import done_tasks

EXECUTORS = ("local", "slurm", "ray")
SET_HERE = ("self", "pipeline", "tasks", "workers", "logging_dir", "skip_completed", "depends")
"""Arguments of the executors that are no options of the user."""


@dataclass(frozen=True)
class SubmittedTasks:
    """Tasks that were handed to Slurm, which runs them and the merge later. `job`: the number of the merge's job."""

    folder: Path | str
    tasks: int
    job: str
    logs: Path

    def __str__(self) -> str:
        return f"{self.folder}: {self.tasks:,} tasks and their merge were submitted (the merge is job {self.job}); logs: {self.logs}"


@dataclass(frozen=True)
class TaskCall:
    """A step of datatrove's pipelines: the task whose number is the rank. `folder`: where relative paths begin."""

    settings: dict[str, Any]
    folder: str

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        with contextlib.chdir(self.folder):
            print(prepare_task(**self.settings, tasks=world_size, task=rank), flush=True)


@dataclass(frozen=True)
class LastCall:
    """The last step: see TaskCall. `function`: `merge`, or `prepare` where the tasks cleaned text."""

    function: Callable[..., TextSummary]
    settings: dict[str, Any]
    folder: str

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        with contextlib.chdir(self.folder):
            print(self.function(**self.settings), flush=True)


def prepare_in_tasks(
    sources: Sequence[str],
    out: Path | str,
    tasks: int,
    workers: int | None = None,
    executor: str = "local",
    options: dict[str, str] | None = None,
    force: bool = False,
    cache: Path = CACHE,
    report: Report | None = None,
    **settings: Any,
) -> TextSummary | SubmittedTasks:
    """`prepare`, divided into tasks: the same bytes for any number of tasks and workers.

    Args:
        tasks: the number of shares.
        workers: tasks that run at once; on this machine one a processor by default, elsewhere all.
        executor: "local", "slurm" or "ray".
        options: further arguments of datatrove's executor, such as partition and time of Slurm.
        settings: the others of `prepare`.

    Raises:
        UnavailableError: the network is away or the disk is full; finished work is kept.
        ValueError: any other mistake of the user, datatrove or Ray are missing, or a task failed.
    """
    start = time.perf_counter()
    if executor not in EXECUTORS:
        raise ValueError(f"no executor {executor!r}: choose one of {', '.join(EXECUTORS)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    build, given = _executor(executor), _checked_options(executor, options or {})
    cores = os.cpu_count() or 1
    at_once = workers or (min(cores, tasks) if executor == "local" else -1)
    cleaning = any(settings.get(name) for name in ("filters", "dedup", "decontaminate"))
    name = out if is_url(out) else Path(out)
    store = Store(out)
    if cleaning:
        done = begin_cleaning(sources, out, tasks, force=force, cache=cache, report=report, **settings)
    elif plan_tasks(sources, out, tasks, force=force, cache=cache, report=report, **settings) is None:
        return merge(out, cache, report)
    else:
        done = done_tasks(store)

    threads = min(MOST_WORKERS, max(1, cores // at_once)) if executor == "local" else int(given.get("cpus_per_task", 1))
    here = str(Path.cwd())
    call = TaskCall(
        {"sources": list(sources), "out": str(out), "cache": cache, "workers": threads, **settings}, here
    )  # fmt: skip
    last_call = LastCall(merge, {"out": str(out), "cache": cache}, here)
    if cleaning:
        last_call = LastCall(prepare, call.settings | {"cleaning_tasks": tasks}, here)
    logs = (cache / "tasks" / hashlib.sha256(f"{here} {out}".encode()).hexdigest()[:16]).absolute()
    if done is not None and len(done) < tasks:
        run = build(
            pipeline=[call],
            tasks=tasks,
            workers=at_once,
            logging_dir=str(logs / "tasks"),
            skip_completed=False,
            **given,
        )
        if executor == "slurm":
            last = build(
                pipeline=[last_call], tasks=1, workers=1, logging_dir=str(logs / "merge"),
                skip_completed=False, depends=run, **given,
            )  # fmt: skip
            last.run()
            return SubmittedTasks(name, tasks, str(last.job_id), logs)
        run.run()
        done = done_cleaning(Path(out) / PARTIAL) if cleaning else done_tasks(store)
        if failed := tasks - len(done):
            raise ValueError(
                f"{failed:,} of {tasks:,} tasks failed; their logs are in {logs}: run the same command again"
            )
    own = {"workers": workers} if cleaning else {}  # on this machine it has all processors to itself
    summary = last_call.function(**last_call.settings | own, report=report)
    shutil.rmtree(logs, ignore_errors=True)
    return TextSummary(summary.folder, summary.status, summary.manifest, time.perf_counter() - start, summary.notes)


def _executor(name: str) -> Callable[..., Any]:
    try:
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

        if name == "ray":
            import ray  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"tasks are run by datatrove, and with --executor ray by Ray, and one is not installed ({error}): "
            "pip install 'understudy[cluster]', or run each one with --task"
        ) from error
    executors: dict[str, Callable[..., Any]] = {
        "local": LocalPipelineExecutor, "slurm": SlurmPipelineExecutor, "ray": RayPipelineExecutor,
    }  # fmt: skip
    return executors[name]


def _checked_options(executor: str, options: dict[str, str]) -> dict[str, Any]:
    """Options of an executor, whole numbers as such.

    Raises:
        ValueError: one that it does not have, or one is missing.
    """
    parameters = inspect.signature(_executor(executor)).parameters
    accepted = [name for name in parameters if name not in SET_HERE]
    if unknown := [name for name in options if name not in accepted]:
        raise ValueError(f"the executor {executor} has no option {unknown[0]!r}: it has {', '.join(accepted)}")
    required = [name for name in accepted if parameters[name].default is inspect.Parameter.empty]
    if missing := [name for name in required if name not in options]:
        raise ValueError(
            f"the executor {executor} needs " + " and ".join(f"--executor-option {name}=…" for name in missing)
        )
    return {name: int(value) if value.lstrip("-").isdigit() else value for name, value in options.items()}
