"""A run is a folder that explains itself: configuration, tokenizer, metrics, samples, and checkpoints.

    runs/NAME/
      config.yaml  tokenizer.json  run.json (stage, data, parent)  metrics.jsonl  samples/  loss.png  report.html
      checkpoints/latest, checkpoints/best       each names a step
      checkpoints/step_N/  model.safetensors  training.safetensors  state.json  config.yaml  tokenizer.json  run.json

Everything is written under another name, flushed to the disk and renamed, so that what has its final name is whole.
Not here: what a stage puts into its state (train/checkpoint.py), and training.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from understudy.config.load import dump_config, load_config
from understudy.config.run import RunConfig
from understudy.files import flush, locked, read_json, write_json, write_text
from understudy.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from understudy.model import GPT, Bigram

RUNS = Path("runs")
FORMAT = 1


@dataclass
class Run:
    """A trained model with the tokenizer and configuration it belongs to, as :func:`load_run` reads it."""

    path: Path
    step: int
    model: GPT | Bigram
    tokenizer: Tokenizer
    config: RunConfig
    state: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """The folder of one run while it is being written or read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"

    @property
    def name(self) -> str:
        return self.path.name

    def as_argument(self) -> str:
        """What to write on the command line for this run: its name where it lies in runs/, else its path."""
        return self.name if self.path.parent == RUNS else str(self.path)

    def exists(self) -> bool:
        return (self.path / "config.yaml").exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training into this folder; a killed process leaves no lock behind.

        Raises:
            ValueError: another process holds it.
        """
        with locked(self.path, "--run"):
            yield

    def create(self, config: RunConfig, tokenizer: Tokenizer, about: dict[str, Any]) -> None:
        """Write what a new run starts with."""
        self.samples.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        tokenizer.save(self.path / "tokenizer.json")
        write_json(self.path / "run.json", about)
        write_text(self.path / "config.yaml", dump_config(config))  # last: a folder with it is a run

    def config(self) -> RunConfig:
        return load_config(str(self.path / "config.yaml"))

    def about(self) -> dict[str, Any]:
        return read_json(self.path / "run.json")

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, oldest first."""
        names = [entry.name for entry in self.checkpoints.glob("step_*")] if self.checkpoints.exists() else []
        return sorted(int(name.removeprefix("step_")) for name in names if name.removeprefix("step_").isdigit())

    def checkpoint(self, which: str = "latest") -> Path:
        """The folder of a checkpoint: ``latest``, ``best`` (the latest where there is no best), or a step.

        Raises:
            ValueError: there is none.
        """
        if not (steps := self.steps()):
            raise ValueError(f"the run {self.path} has no checkpoint yet")
        if which in ("latest", "best"):
            pointer = self.checkpoints / which
            step = int(pointer.read_text()) if pointer.exists() else steps[-1]
            step = step if step in steps else steps[-1]  # someone removed a damaged one by hand
        elif which.isdigit():
            step = int(which)
        else:
            raise ValueError(f"a checkpoint is latest, best or a step, not {which!r}")
        if step not in steps:
            raise ValueError(
                f"the run {self.path} has no checkpoint {which}; it has the steps {', '.join(map(str, steps))}"
            )
        return self.checkpoints / f"step_{step}"

    def write_checkpoint(self, step: int, writers: dict[str, Callable[[Path], None]], keep: int, is_best: bool) -> Path:
        """Write a checkpoint whole or not at all, point ``latest`` (and ``best``) to it, and drop old ones.

        Args:
            writers: for each file, what writes it to the path it is given.

        Raises:
            ValueError: the disk is full or cannot be written; earlier checkpoints are untouched.
        """
        try:
            final = self.put_checkpoint(step, writers, is_best)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"the checkpoint of step {step} could not be written to {self.checkpoints} ({error}); "
                f"earlier checkpoints are whole; make room and go on with --resume"
            ) from error
        self._prune(keep)
        return final

    def put_checkpoint(self, step: int, writers: dict[str, Callable[[Path], None]], is_best: bool) -> Path:
        """What :meth:`write_checkpoint` does, dropping no old ones.

        Raises:
            OSError, SafetensorError: the disk is full or cannot be written; earlier checkpoints are untouched.
        """
        final, partial = self.checkpoints / f"step_{step}", self.checkpoints / f".partial_{step}"
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name, write in writers.items():
                write(partial / name)
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
        return final

    def _prune(self, keep: int) -> None:
        best = self.checkpoints / "best"
        kept = {*self.steps()[-keep:], *([int(best.read_text())] if best.exists() else [])}
        for step in set(self.steps()) - kept:
            shutil.rmtree(self.checkpoints / f"step_{step}", ignore_errors=True)
        for leftover in self.checkpoints.glob(".partial_*"):
            shutil.rmtree(leftover, ignore_errors=True)


def find_run(name: str) -> RunFolder:
    """The folder of a run by its name under runs/ or by its path.

    Raises:
        ValueError: there is no such run.
    """
    for path in (Path(name), RUNS / name):
        if RunFolder(path).exists():
            return RunFolder(path)
    present = sorted(entry.parent.name for entry in RUNS.glob("*/config.yaml"))
    known = f"; runs here: {', '.join(present)}" if present else "; there is none yet under runs/"
    raise ValueError(f"there is no run {name!r}{known}")


def run_path(name: str) -> Path:
    """Where a run of this name is written: runs/NAME, or the path itself when it has a separator.

    Raises:
        ValueError: a name that cannot be a folder.
    """
    if not name or name in (".", "..") or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a run; use letters, digits, - and _")
    return Path(name) if ("/" in name or os.sep in name) else RUNS / name


def load_run(path: str | Path, checkpoint: str = "best", device: str = "cpu") -> Run:
    """Read a run: its model (ready for evaluation), tokenizer and configuration.

    Args:
        path: a run's name under runs/ or its folder.
        checkpoint: ``best`` validation loss, ``latest``, or a step such as ``"500"``.
        device: where the model goes.

    Raises:
        ValueError: no such run, or a checkpoint that is damaged or belongs to another tokenizer.
    """
    from understudy.model import build_model

    folder = find_run(str(path))
    at = folder.checkpoint(checkpoint)
    state = read_json(at / "state.json")
    config = load_config(str(at / "config.yaml"))
    tokenizer = load_tokenizer(at / "tokenizer.json")
    if state["tokenizer_sha256"] != tokenizer.sha256:
        raise ValueError(f"the tokenizer in {at} is not the one its model was trained with; restore the original file")
    model = build_model(config.model)
    load_weights(model, read_tensors(at / "model.safetensors"), at)
    return Run(folder.path, state["step"], model.to(device).eval(), tokenizer, config, state)


def load_weights(model: Any, tensors: dict[str, Any], source: Path) -> None:
    """Copy tensors into a model, all of them and no others.

    Raises:
        ValueError: a missing, unexpected or wrongly shaped tensor, by name.
    """
    check_shapes(tensors, {name: tuple(p.shape) for name, p in model.named_parameters()}, source)
    model.load_state_dict(tensors, strict=False)  # strict would ask for tied weights twice


def check_shapes(tensors: dict[str, Any], wanted: dict[str, tuple[int, ...]], source: object) -> None:
    """Refuse tensors that are not those wanted, all of them and no others.

    Raises:
        ValueError: a missing, unexpected or wrongly shaped tensor, by name.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"the weights in {source} are not those of the model that its configuration describes: {name} is "
                f"{found.get(name, 'missing')}, and {wanted.get(name, 'no such tensor')} is wanted"
            )


def weights_of(model: Any) -> dict[str, Any]:
    """The parameters of a model by name, tied ones once, as they are saved."""
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}


def sha256_of_weights(weights: dict[str, Any]) -> str:
    """A hash of all weights, by which a child run names its parent."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: the file is missing, cut short or damaged.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint file {path} is missing or damaged ({error}); remove its folder, and the one before is used"
        ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, oldest first; none where nothing was logged yet.

    A last line that was cut short by the end of a process is left out. What was not finite is None.

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
        except ValueError as error:  # of JSON or of UTF-8
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {path} is damaged ({error}); remove it") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def refuse_reward_model(run: Run) -> None:
    """A run that gives scores writes nothing.

    Raises:
        ValueError: it is one.
    """
    if not run.config.info.generates:
        raise ValueError(f"the run {run.path} gives scores and writes nothing; use it with `understudy score`")


BEST_OF_N = "best_of_n.json"
"""What best of n of a run's start is worth, in the run's folder."""


REWARD_EVALUATION = "evaluation_reward.json"
"""What a reward model's scores are worth on validation pairs."""
