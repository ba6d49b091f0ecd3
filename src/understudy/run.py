"""The folder of a run: configuration, tokenizer, metrics, samples and checkpoints, written whole and verified when read.

    runs/NAME/
      config.yaml  tokenizer.json  run.json (stage, data, parent)  metrics.jsonl  samples/  loss.png  report.html
      checkpoints/latest, checkpoints/best       each names a step
      checkpoints/step_N/  model.safetensors  training.safetensors  state.json  config.yaml  tokenizer.json  run.json

Every file is written under a temporary name, flushed to the disk and renamed. state.json holds the hashes of both files
of tensors, and every load compares them. The state of training is in train/checkpoint.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from understudy.config.load import dump_config, load_config
from understudy.config.run import RunConfig
from understudy.files import flush, locked, read_json, write_json, write_text
from understudy.model.weights import load_weights, sha256_of_weights
from understudy.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.model import GPT, Bigram

    Tensors = dict[str, Tensor]

RUNS = Path("runs")
FORMAT = 1
"""Version of the checkpoint format, in state.json."""
RECORD_FIELDS = {"stage": str, "tokenizer_sha256": str}
"""Fields that every run.json has, with their types."""
STATE_FIELDS = {"step": int, "tokenizer_sha256": str, "weights_sha256": str}
"""Fields that every state.json has beside ``format``, with their types."""
BEST_OF_N = "best_of_n.json"
"""File of a run's folder: the rewards of best-of-n samples of its reference model."""
REWARD_EVALUATION = "evaluation_reward.json"
"""File of a run's folder: the accuracy of a reward model on validation pairs."""


@dataclass
class Run:
    """A trained model with its tokenizer and configuration, as :func:`load_run` reads them."""

    path: Path
    step: int
    model: GPT | Bigram
    tokenizer: Tokenizer
    config: RunConfig
    state: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """Paths, checkpoints and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"

    @property
    def name(self) -> str:
        return self.path.name

    def as_argument(self) -> str:
        """The run's name if it lies in runs/, else its path: commands find it by this argument."""
        return self.name if self.path.parent == RUNS else str(self.path)

    def exists(self) -> bool:
        return (self.path / "config.yaml").exists()

    def is_finished(self) -> bool:
        """Whether the run is trained to its last step."""
        steps = self.steps() if self.exists() else []
        return bool(steps) and steps[-1] >= self.config().train.steps

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from training into this folder; see :func:`understudy.files.locked`."""
        return locked(self.path, "--run")

    def create(self, config: RunConfig, tokenizer: Tokenizer, record: dict[str, Any]) -> None:
        """Write the files of a new run. ``record`` becomes run.json."""
        self.samples.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        tokenizer.save(self.path / "tokenizer.json")
        write_json(self.path / "run.json", record)
        write_text(self.path / "config.yaml", dump_config(config))  # last: a folder with it is a run

    def set_length(self, config: RunConfig, record: dict[str, Any]) -> None:
        """Replace configuration and record of a run that has taken no step by those with its planned length."""
        write_json(self.path / "run.json", record)
        write_text(self.path / "config.yaml", dump_config(config))

    def config(self) -> RunConfig:
        return load_config(str(self.path / "config.yaml"))

    def record(self) -> dict[str, Any]:
        """The content of run.json: stage, versions, data, parent; a ValueError if it is missing or damaged."""
        return read_json(self.path / "run.json")

    def check_deletable(self) -> None:
        """Refuse, by a ValueError, to delete a folder unless it is a run below runs/ that this program wrote."""
        advice = "remove it yourself if it may go, or choose another --run"
        if RUNS.resolve() not in self.path.resolve().parents:
            raise ValueError(f"{self.path} is not deleted, because it is outside {RUNS}/; {advice}")
        record: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            record = self.record() if self.exists() else {}
        if not _has_fields(record, RECORD_FIELDS):
            raise ValueError(f"{self.path} is not deleted, because it is not the folder of a run; {advice}")

    def delete(self) -> None:
        """Delete the run; a ValueError if :meth:`check_deletable` refuses, or the run is being trained."""
        self.check_deletable()
        with self.locked():
            shutil.rmtree(self.path)

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, oldest first."""
        names = [entry.name for entry in self.checkpoints.glob("step_*")] if self.checkpoints.exists() else []
        return sorted(int(name.removeprefix("step_")) for name in names if name.removeprefix("step_").isdigit())

    def checkpoint(self, which: str = "latest") -> Path:
        """The folder of a checkpoint: ``latest``, ``best`` (the latest if there is no best), or a step.

        Raises:
            ValueError: there is no such checkpoint.
        """
        if not (steps := self.steps()):
            raise ValueError(f"the run {self.path} has no checkpoint yet")
        if which in ("latest", "best"):
            pointed = self._pointed_step(which)
            step = pointed if pointed in steps else steps[-1]  # no pointer, or a damaged checkpoint was removed by hand
        elif which.isdecimal():
            step = int(which)
        else:
            raise ValueError(f"a checkpoint is latest, best or a step, not {which!r}")
        if step not in steps:
            raise ValueError(
                f"the run {self.path} has no checkpoint {which}; it has the steps {', '.join(map(str, steps))}"
            )
        return self.checkpoints / f"step_{step}"

    def _pointed_step(self, pointer: str) -> int | None:
        """The step in the file ``latest`` or ``best``; None if there is no such file."""
        path = self.checkpoints / pointer
        if not path.exists():
            return None
        text = path.read_bytes().decode(errors="replace").strip()
        if not text.isdecimal():
            raise ValueError(f"{path} holds {text[:20]!r} and no step; remove it to use the latest checkpoint")
        return int(text)

    def write_checkpoint(
        self, state: dict[str, Any], is_best: bool, weights: Tensors, training: Tensors | None = None
    ) -> None:
        """Write a checkpoint whole or not at all, and point ``latest`` (and ``best``) to it.

        Args:
            state: of state.json, with the ``step``; the format and the hashes of both files of tensors are added.

        Raises:
            OSError, SafetensorError: the disk is full or cannot be written; earlier checkpoints are untouched.
        """
        from safetensors.torch import save_file

        step = state["step"]
        state = state | {"format": FORMAT, "weights_sha256": sha256_of_weights(weights)}
        if training is not None:
            state["training_sha256"] = sha256_of_weights(training)
        final, partial = self.checkpoints / f"step_{step}", self.checkpoints / f".partial_{step}"
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            save_file(weights, partial / "model.safetensors")
            if training is not None:
                save_file(training, partial / "training.safetensors")
            write_json(partial / "state.json", state)
            for name in ("tokenizer.json", "config.yaml", "run.json"):
                shutil.copyfile(self.path / name, partial / name)
            for entry in partial.iterdir():
                flush(entry)
            flush(partial)
            if final.exists():  # the same step again, after an interrupt
                final.rename(self.checkpoints / f".partial_old_{step}")
            partial.rename(final)
            flush(self.checkpoints)
            write_text(self.checkpoints / "latest", str(step))
            if is_best:
                write_text(self.checkpoints / "best", str(step))
        except (OSError, SafetensorError):
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def prune(self, keep: int) -> None:
        """Delete all checkpoints but the newest ``keep`` and the best."""
        steps = self.steps()
        for step in set(steps) - {*steps[-keep:], self._pointed_step("best")}:
            shutil.rmtree(self.checkpoints / f"step_{step}", ignore_errors=True)
        for leftover in self.checkpoints.glob(".partial_*"):
            shutil.rmtree(leftover, ignore_errors=True)


def find_run(name: str) -> RunFolder:
    """The folder of a run by its name under runs/ or by its path; a ValueError if there is no such run."""
    for path in (Path(name), RUNS / name):
        if RunFolder(path).exists():
            return RunFolder(path)
    present = sorted(entry.parent.name for entry in RUNS.glob("*/config.yaml"))
    known = f"; runs here: {', '.join(present)}" if present else "; there is none yet under runs/"
    raise ValueError(f"there is no run {name!r}{known}")


def run_path(name: str) -> Path:
    """The folder of a new run of this name: runs/NAME, or the path itself if it has a separator.

    Raises:
        ValueError: a name that cannot be a folder.
    """
    if not name or name in (".", "..") or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a run; use letters, digits, - and _")
    return Path(name) if ("/" in name or os.sep in name) else RUNS / name


def load_run(path: str | Path, checkpoint: str = "best", device: str = "cpu") -> Run:
    """Read a run: its model (in evaluation mode), tokenizer and configuration.

    Args:
        path: a run's name under runs/ or its folder.
        checkpoint: ``best`` validation loss, ``latest``, or a step such as ``"500"``.
        device: device of the model.

    Raises:
        ValueError: no such run, or a checkpoint that is damaged or belongs to another tokenizer.
    """
    from understudy.model import build_model

    folder = find_run(str(path))
    checkpoint_folder = folder.checkpoint(checkpoint)
    state = read_state(checkpoint_folder)
    config = load_config(str(checkpoint_folder / "config.yaml"))
    tokenizer = load_tokenizer(checkpoint_folder / "tokenizer.json")
    if state["tokenizer_sha256"] != tokenizer.sha256:
        raise ValueError(
            f"the tokenizer in {checkpoint_folder} is not the one its model was trained with; "
            f"{other_checkpoint(checkpoint_folder)}"
        )
    model = build_model(config.model)
    load_weights(model, read_weights(checkpoint_folder, state), checkpoint_folder)
    return Run(folder.path, state["step"], model.to(device).eval(), tokenizer, config, state)


def lineage(run: RunFolder) -> Iterator[tuple[RunFolder, Mapping[str, Any]]]:
    """A run and the runs it started from, the nearest first, each with its child's record of it (empty for the first).

    A parent that is not at its recorded path is looked for beside its child. The last one may not exist.
    """
    record: Mapping[str, Any] = {}
    seen: set[Path] = set()
    while run.path.resolve() not in seen:
        yield run, record
        seen.add(run.path.resolve())
        about = run.path / "run.json"
        record = (read_json(about).get("parent") if about.exists() else None) or {}
        if not record:
            return
        recorded = RunFolder(Path(record["run"]))
        beside = RunFolder(run.path.resolve().parent / recorded.name)
        run = beside if beside.exists() and not recorded.exists() else recorded


def save_run(
    folder: RunFolder, config: RunConfig, tokenizer: Tokenizer, weights: Tensors, record: dict[str, Any], step: int = 0
) -> None:
    """Write a run with one checkpoint and no state of training.

    Raises:
        OSError, SafetensorError: the disk is full or cannot be written.
    """
    record = record | {"tokenizer_sha256": tokenizer.sha256}
    folder.create(config, tokenizer, record)
    folder.write_checkpoint(record | {"step": step}, True, weights)


# ---- Weights --------------------------------------------------------------------------------------------------------


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The content of state.json of a checkpoint, with the fields of STATE_FIELDS.

    Raises:
        ValueError: it is missing, damaged or of another format.
    """
    path = checkpoint / "state.json"
    try:
        state = read_json(path)
    except ValueError:
        raise ValueError(f"{path} is missing or damaged; {other_checkpoint(checkpoint)}") from None
    if state.get("format") != FORMAT:
        raise ValueError(
            f"the checkpoint {checkpoint} has format {state.get('format')!r}, and this version reads {FORMAT}; "
            f"{other_checkpoint(checkpoint)}"
        )
    if not _has_fields(state, STATE_FIELDS):
        raise ValueError(f"{path} lacks one of {', '.join(STATE_FIELDS)}; {other_checkpoint(checkpoint)}")
    return state


def read_weights(checkpoint: Path, state: dict[str, Any]) -> Tensors:
    """The weights of a checkpoint, compared with their hash in ``state``.

    Raises:
        ValueError: the file is missing or damaged, it is of another model, or a weight is not finite.
    """
    path = checkpoint / "model.safetensors"
    tensors = read_tensors(path, state["weights_sha256"])
    for name, tensor in tensors.items():
        if not tensor.sum().isfinite() and not tensor.isfinite().all():  # the sum is faster, and may overflow
            raise ValueError(
                f"{path} holds weights that are not finite, in {name}, because training diverged; "
                f"{other_checkpoint(checkpoint)}"
            )
    return tensors


def read_tensors(path: Path, sha256: str | None = None) -> Tensors:
    """The tensors of a safetensors file of a checkpoint.

    Args:
        sha256: the expected :func:`sha256_of_weights`; None compares nothing.

    Raises:
        ValueError: the file is missing, cut short or damaged.
    """
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); {other_checkpoint(path.parent)}") from error
    if sha256 is not None and sha256_of_weights(tensors) != sha256:
        raise ValueError(
            f"{path} is damaged or belongs to another checkpoint: its hash is not the one in state.json; "
            f"{other_checkpoint(path.parent)}"
        )
    return tensors


def other_checkpoint(checkpoint: Path) -> str:
    """Advice for a checkpoint that cannot be used."""
    steps = [step for step in RunFolder(checkpoint.parent.parent).steps() if checkpoint.name != f"step_{step}"]
    if not steps:
        return "the run has no other checkpoint, so restore this one from a copy, or train again"
    return f"remove the folder {checkpoint} to use the checkpoint of step {steps[-1]}, or give --checkpoint {steps[-1]}"


def _has_fields(content: dict[str, Any], fields: Mapping[str, type]) -> bool:
    return all(isinstance(content.get(name), kind) for name, kind in fields.items())


# ---- Metrics --------------------------------------------------------------------------------------------------------


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, oldest first; none if nothing was logged yet.

    A last line that was cut short is left out. Values that were not finite are None.

    Raises:
        ValueError: a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # of JSON or of UTF-8
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {path} is damaged ({error}); remove it") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def refuse_reward_model(run: Run) -> None:
    """Refuse a reward model, which gives scores and generates no text, by a ValueError."""
    if not run.config.info.generates:
        raise ValueError(f"the run {run.path} gives scores and generates no text; use it with `understudy score`")
