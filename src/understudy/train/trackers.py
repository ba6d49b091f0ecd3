"""TensorBoard, wandb and trackio, each behind the same three calls: values, text, close.

A missing package or login is said before training starts; what breaks later (a network, a disk) ends the
tracking with one note, and never the training. Not here: metrics.jsonl, which is always written.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import sqlite3
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from understudy.config.run import LogConfig
from understudy.files import read_json, write_json
from understudy.run import RunFolder

MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}


class Tracker(Protocol):
    """One service that is told what is measured."""

    def values(self, values: Mapping[str, float], step: int) -> None: ...

    def text(self, title: str, text: str, step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder tensorboard/; those of steps that a resumed run repeats are hidden."""

    def __init__(self, module: Any, folder: RunFolder, resume_step: int | None) -> None:
        purge = None if resume_step is None else resume_step + 1
        self.writer = module.SummaryWriter(str(folder.path / "tensorboard"), purge_step=purge)

    def values(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if name != "step":
                self.writer.add_scalar(name, value, step)

    def text(self, title: str, text: str, step: int) -> None:
        self.writer.add_text(title, _code_block(text), step)

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A run at Weights & Biases.

    Steps are given as a value to plot against, not as wandb's own step: that one cannot go back, and what a
    resumed run repeats would be dropped. Its capture of the console is off, or it would record every frame.
    """

    def __init__(self, module: Any, folder: RunFolder, log: LogConfig, config: dict[str, Any], run_id: str) -> None:
        self.module = module
        self.run = module.init(
            project=log.project, name=folder.name, id=run_id, resume="allow", config=config,
            dir=str(folder.path), settings=module.Settings(console="off"),
        )  # fmt: skip
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def values(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def text(self, title: str, text: str, step: int) -> None:
        self.run.log({title: self.module.Html(f"<pre>{html.escape(text)}</pre>"), "step": step})

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """A run in trackio's local database, or wherever its own settings say. It knows a run by its name."""

    def __init__(self, module: Any, folder: RunFolder, log: LogConfig, config: dict[str, Any], run_id: str) -> None:
        self.module = module
        with contextlib.redirect_stdout(sys.stderr):  # it greets on standard output, which is for results
            self.run = module.init(project=log.project, name=f"{folder.name}-{run_id}", config=config, resume="allow")

    def values(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({name: value for name, value in values.items() if name != "step"}, step=step)

    def text(self, title: str, text: str, step: int) -> None:
        if (markdown := getattr(self.module, "Markdown", None)) is not None:  # its first versions take no text
            self.run.log({title: markdown(_code_block(text))}, step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self.module.finish()  # not the run's own: that one is called again, aloud, when the process ends


class Trackers:
    """The trackers that a run asked for. One that fails is noted once and let go, and the others go on."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self.running: dict[str, Tracker] = {}
        self.failures: dict[str, tuple[type[Exception], ...]] = {}

    def values(self, values: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.values(values, step))

    def text(self, title: str, text: str, step: int) -> None:
        self._each(lambda tracker: tracker.text(title, text, step))

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())
        self.running.clear()

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.running.items()):
            try:
                tell(tracker)
            except self.failures[name] as error:
                del self.running[name]
                self.note(f"{name} gave up ({_brief(error)}); training goes on, and metrics.jsonl has everything")


def require_trackers(log: LogConfig) -> dict[str, Any]:
    """Import what the configuration asks for, by name. Best called before a run's folder is made, too.

    Raises:
        ValueError: a package is not installed.
    """
    modules = {}
    for name in (name for name in MODULES if getattr(log, name)):
        try:
            modules[name] = importlib.import_module(MODULES[name])
        except ImportError as error:
            raise ValueError(
                f"log.{name} is on, but {name} is not installed; leave log.{name} out, or get it with "
                f'`pip install "understudy[track]"`'
            ) from error
    return modules


def start_trackers(
    folder: RunFolder,
    log: LogConfig,
    config: dict[str, Any] | None,
    resume_step: int | None,
    note: Callable[[str], None],
) -> Trackers:
    """Start the trackers asked for; a resumed run goes on with the ids kept in its trackers.json.

    Raises:
        ValueError: a package is missing, or a tracker cannot be started.
    """
    started, ids_file = Trackers(note), folder.path / "trackers.json"
    ids = read_json(ids_file) if resume_step is not None and ids_file.exists() else {}
    for name, module in require_trackers(log).items():
        started.failures[name] = _failures(module)
        try:
            if name == "tensorboard":
                started.running[name] = TensorBoard(module, folder, resume_step)
            else:
                run_id = ids.setdefault(name, uuid.uuid4().hex[:8])
                start = Wandb if name == "wandb" else Trackio
                started.running[name] = start(module, folder, log, config or {}, run_id)
        except started.failures[name] as error:
            started.close()
            raise ValueError(
                f"{name} could not be started ({_brief(error)}); see its own help on logging in and on "
                f"working offline, or leave log.{name} out"
            ) from error
    if ids:
        write_json(ids_file, ids)
    return started


def _failures(module: Any) -> tuple[type[Exception], ...]:
    """What a tracker fails with for reasons that are not ours: disk, network, database, its own service."""
    own = (module.Error,) if hasattr(module, "Error") else ()  # the base class of all of wandb's
    return (OSError, RuntimeError, sqlite3.Error, *own)


def _brief(error: Exception) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _code_block(text: str) -> str:
    """Markdown that shows a text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
