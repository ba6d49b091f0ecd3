"""TensorBoard and wandb behind one interface: values, text, close.

A missing package or login is an error before training starts. A later failure (a network, a disk) ends the tracking
with one note, and never the training. Not here: metrics.jsonl, which is always written.
"""

from __future__ import annotations

import html
import importlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from understudy.config.run import LogConfig
from understudy.files import read_json, write_json
from understudy.run import RunFolder


class TensorBoard:
    """Event files in the run's folder tensorboard/. Events of steps that a resumed run repeats are hidden."""

    def __init__(
        self, module: Any, folder: RunFolder, log: LogConfig, config: dict[str, Any], resume_step: int | None
    ) -> None:
        purge = None if resume_step is None else resume_step + 1
        self.writer = module.SummaryWriter(str(folder.path / "tensorboard"), purge_step=purge)

    def values(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if name != "step":
                self.writer.add_scalar(name, value, step)

    def text(self, title: str, text: str, step: int) -> None:
        self.writer.add_text(title, "\n".join(f"    {line}" for line in text.splitlines()), step)  # as Markdown's code

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A run at Weights & Biases. A resumed run continues with the id in its trackers.json.

    The step is a value to plot against and not wandb's own step, which cannot go back: it would drop the steps that a
    resumed run repeats. Its capture of the console is off, since it would record every frame.
    """

    def __init__(
        self, module: Any, folder: RunFolder, log: LogConfig, config: dict[str, Any], resume_step: int | None
    ) -> None:
        ids_file = folder.path / "trackers.json"
        ids = read_json(ids_file) if resume_step is not None and ids_file.exists() else {"wandb": uuid.uuid4().hex[:8]}
        self.module = module
        self.run = module.init(
            project=log.project, name=folder.name, id=ids["wandb"], resume="allow", config=config,
            dir=str(folder.path), settings=module.Settings(console="off"),
        )  # fmt: skip
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        write_json(ids_file, ids)

    def values(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def text(self, title: str, text: str, step: int) -> None:
        self.run.log({title: self.module.Html(f"<pre>{html.escape(text)}</pre>"), "step": step})

    def close(self) -> None:
        self.run.finish()


Tracker = TensorBoard | Wandb
TRACKERS: dict[str, tuple[str, type[Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", TensorBoard),
    "wandb": ("wandb", Wandb),
}
"""By its flag in LogConfig, the module that a tracker needs and its class."""


class Trackers:
    """The trackers that are configured. One that fails is removed with a note, and the others continue.

    Raises:
        ValueError: a package is missing, or a tracker cannot be started.
    """

    def __init__(
        self, folder: RunFolder, log: LogConfig, config: dict[str, Any], resume_step: int | None,
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.note = note
        self.running: dict[str, Tracker] = {}
        self.failures: dict[str, tuple[type[Exception], ...]] = {}
        for name, module in require_trackers(log).items():
            # Exceptions that are no defect of ours: of disk, network and its service.
            self.failures[name] = (OSError, RuntimeError, *((module.Error,) if hasattr(module, "Error") else ()))
            try:
                self.running[name] = TRACKERS[name][1](module, folder, log, config, resume_step)
            except self.failures[name] as error:
                self.close()
                raise ValueError(
                    f"{name} could not be started ({_brief(error)}); see its own help on logging in and on "
                    f"working offline, or leave log.{name} out"
                ) from error

    def values(self, values: Mapping[str, float], step: int) -> None:
        self._call(lambda tracker: tracker.values(values, step))

    def text(self, title: str, text: str, step: int) -> None:
        self._call(lambda tracker: tracker.text(title, text, step))

    def close(self) -> None:
        self._call(lambda tracker: tracker.close())
        self.running.clear()

    def _call(self, method: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.running.items()):
            try:
                method(tracker)
            except self.failures[name] as error:
                del self.running[name]
                self.note(f"{name} failed ({_brief(error)}); training continues, and metrics.jsonl has everything")


def require_trackers(log: LogConfig) -> dict[str, Any]:
    """Import the packages of the configured trackers, by name.

    Raises:
        ValueError: a package is not installed.
    """
    modules = {}
    for name in (name for name in TRACKERS if getattr(log, name)):
        try:
            modules[name] = importlib.import_module(TRACKERS[name][0])
        except ImportError as error:
            raise ValueError(
                f"log.{name} is on, but {name} is not installed; leave log.{name} out, or get it with "
                f'`pip install "understudy[track]"`'
            ) from error
    return modules


def _brief(error: Exception) -> str:
    """The first line of an error's message, or the name of its class."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
