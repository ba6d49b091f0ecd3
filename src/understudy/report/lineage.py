"""Contents of run folders for the report, and the lineage of each run.

A run names its parent by folder, step and hash of the weights. The folder may have moved with its child, be missing, or
hold another training; the page says so and the report is still written. Weights are not read: their hash is the one in the
checkpoint's state.json. Not here: the page (report.py), tasks (comparison.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from understudy.config.load import read_preset
from understudy.config.stages import DEFAULT_STAGE, STAGES
from understudy.console import printable
from understudy.files import read_json
from understudy.report.wording import MISSING, count, joined, plain, short_hash
from understudy.run import BEST_OF_N, REWARD_EVALUATION, RunFolder, find_run, lineage, read_metrics

MOST_SAMPLES, MOST_CHARACTERS = 40, 20_000
COUNTS = {
    "cut_at_a_turn": "cut at a turn",
    "cut_inside": "cut inside a turn",
    "too_long": "dropped as too long",
    "without_answer": "dropped without an answer",
}
"""Counts in run.json of conversations that were cut or dropped."""


@dataclass(frozen=True)
class Evidence:
    """Contents of a run folder that the page shows."""

    label: str
    folder: RunFolder
    rows: list[dict[str, Any]]
    settings: dict[str, Any]
    about: dict[str, Any]
    evaluation: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    """The last result of each task."""
    answers: dict[str, list[dict[str, Any]]]
    """Examples of each task, with id and score; empty if they were not saved."""
    reward: dict[str, Any]
    """Evaluation of a reward model."""
    best_of_n: dict[str, Any]
    """Best of n of the reference model."""
    tokenizer_kind: str
    samples: list[tuple[int, str]]

    @property
    def data(self) -> Mapping[str, Any]:
        return self.about.get("data") or {}

    @property
    def parent(self) -> Mapping[str, Any]:
        """The run it started from: ``run``, ``step``, ``sha256``; empty for random weights."""
        return self.about.get("parent") or {}

    def last(self, name: str) -> Any:
        """The last value of a metric, or None."""
        return next((row[name] for row in reversed(self.rows) if row.get(name) is not None), None)

    @property
    def stage(self) -> str:
        """The stage by its name in the table of stages; that of a base model for other names, such as an import."""
        stage = self.about.get("stage")
        return stage if isinstance(stage, str) and stage in STAGES else DEFAULT_STAGE

    def main_metric(self) -> tuple[str, str]:
        """Name and unit of the quantity that validation measures: the loss, or the reward of a stage with rollouts."""
        if STAGES[self.stage].rollout:
            return "reward", ""
        name, _, unit = STAGES[self.stage].loss_label.partition(" (")
        return name, unit.rstrip(")")

    def measured(self, loss: float) -> float:
        """A validation loss, or the reward of a stage with rollouts, whose loss is the negative reward."""
        return 0.0 - loss if STAGES[self.stage].rollout else loss

    def best(self) -> tuple[float, int] | None:
        """The lowest validation loss in training, or the highest reward, and its step."""
        losses = [(row["val/loss"], row["step"]) for row in self.rows if row.get("val/loss") is not None]
        if not losses:
            return None
        loss, step = min(losses)
        return self.measured(loss), step

    def setting(self, section: str, name: str) -> Any:
        return self.settings.get(section, {}).get(name)


@dataclass(frozen=True)
class Link:
    """One run of a lineage.

    Attributes:
        member: its number among the members; None if it could not be read.
        record: its child's record of it; empty for the last run.
        trouble: a problem with it; empty if there is none.
    """

    member: int | None
    record: Mapping[str, Any]
    trouble: str = ""


@dataclass(frozen=True)
class LineageTree:
    """The requested runs, then their ancestors. ``chains``: the lineage of each requested run, the oldest first."""

    members: list[Evidence]
    asked: int
    chains: list[list[Link]]

    def order(self) -> list[int]:
        """All members, each after its ancestors."""
        return list(dict.fromkeys(link.member for chain in self.chains for link in chain if link.member is not None))

    def ancestors(self, member: int) -> list[int]:
        """The ancestors of a member, the nearest first."""
        for chain in self.chains:
            known = [link.member for link in chain if link.member is not None]
            if member in known:
                return known[: known.index(member)][::-1]
        return []

    def stories(self) -> list[list[Link]]:
        """The lineages to show: those of runs with a parent, unless they are part of another."""
        inner = {link.member for chain in self.chains for link in chain[:-1]}
        return [chain for chain in self.chains if len(chain) > 1 and chain[-1].member not in inner]


def read_family(folders: Sequence[Path]) -> LineageTree:
    """Read the runs in ``folders`` and their ancestors.

    Raises:
        ValueError: one of ``folders`` is not a run, or has a damaged file. Damaged ancestors are tolerated.
    """
    runs = list({run.path.resolve(): run for run in (find_run(str(folder)) for folder in folders)}.values())
    members = [_read_run(run) for run in runs]
    numbers = {run.path.resolve(): number for number, run in enumerate(runs)}
    chains = [_chain(run, members, numbers) for run in runs]
    labels = [member.label for member in members]
    named = [m if labels.count(m.label) == 1 else replace(m, label=str(m.folder.path)) for m in members]
    return LineageTree(named, len(runs), chains)


def _chain(run: RunFolder, members: list[Evidence], numbers: dict[Path, int]) -> list[Link]:
    """The lineage of a run, the oldest first; ancestors are added to the members."""
    chain: list[Link] = []
    for folder, record in lineage(run):
        path = folder.path.resolve()
        try:
            doubt = _doubt(folder, record) if record and folder.exists() else ""
            if path not in numbers:
                members.append(_read_run(folder))
                numbers[path] = len(members) - 1
        except (OSError, ValueError) as error:
            gone = f"the folder {record.get('run')} does not exist any more"
            chain.insert(0, Link(None, record, str(error) if folder.exists() else gone))
            break
        chain.insert(0, Link(numbers[path], record, doubt))
    return chain


def _doubt(folder: RunFolder, record: Mapping[str, Any]) -> str:
    """A sentence if a folder does not have the recorded checkpoint; else empty."""
    step, wanted = record["step"], record["sha256"]
    if step not in folder.steps():
        return f"its checkpoint of step {step} does not exist any more"
    actual = read_json(folder.checkpoints / f"step_{step}" / "state.json").get("weights_sha256")
    if actual == wanted:
        return ""
    return (
        f"its checkpoint of step {step} now has other weights ({short_hash(actual)}) than those the child started from "
        f"({short_hash(wanted)})"
    )


def _read_run(folder: RunFolder) -> Evidence:
    def optional(name: str) -> dict[str, Any]:
        return read_json(folder.path / name) if (folder.path / name).exists() else {}

    steps = sorted(int(path.stem.removeprefix("step_")) for path in folder.samples.glob("step_*.txt"))
    if len(steps) > MOST_SAMPLES:
        steps = [steps[round(i * (len(steps) - 1) / (MOST_SAMPLES - 1))] for i in range(MOST_SAMPLES)]
    samples = [
        (step, (folder.samples / f"step_{step}.txt").read_text(encoding="utf-8", errors="replace")) for step in steps
    ]
    tasks = optional("evaluation_tasks.json")
    files = {path.stem: path for path in (folder.path / "evaluations").glob("*.jsonl")}
    return Evidence(
        folder.name, folder, read_metrics(folder.metrics), read_preset(str(folder.path / "config.yaml")),
        optional("run.json"), optional("evaluation.json"), tasks,
        answers={name: read_metrics(files[name]) if name in files else [] for name in tasks},
        reward=optional(REWARD_EVALUATION), best_of_n=optional(BEST_OF_N),
        tokenizer_kind=str(optional("tokenizer.json").get("kind", "")),
        samples=[(step, printable(text[:MOST_CHARACTERS])) for step, text in samples],
    )  # fmt: skip


def lineage_card(link: Link, family: LineageTree) -> dict[str, Any]:
    """One run of a lineage for the page: name, stage, facts, trouble."""
    record = link.record
    came = joined(f"step {count(record.get('step'))}", short_hash(record.get("sha256"))) if record else MISSING
    if link.member is None:
        return {
            "member": None, "label": Path(plain(record.get("run"))).name, "stage": "", "trouble": link.trouble,
            "facts": {"checkpoint": came, "folder": plain(record.get("run"))},
        }  # fmt: skip
    run = family.members[link.member]
    best, last = run.best(), run.last("step")
    facts = {
        "data": joined(run.data.get("path"), short_hash(run.data.get("sha256"))),
        "trained on": split_text(run.data, "train"),
        "cut or dropped": left_out_text(run.data),
        "steps": count(last),
        "parameters": parameters_text(run.about),
        f"best validation {run.main_metric()[0]}": f"{best[0]:.4f} at step {best[1]:,}" if best else MISSING,
        "checkpoint": came if record else _own_checkpoint(run),
    }
    return {
        "member": link.member, "label": run.label, "stage": plain(run.about.get("stage")), "trouble": link.trouble,
        "facts": {name: text for name, text in facts.items() if text != MISSING},
    }  # fmt: skip


def _own_checkpoint(run: Evidence) -> str:
    """The checkpoint that commands use by default."""
    if not run.folder.steps():
        return MISSING
    state = read_json(run.folder.checkpoint("best") / "state.json")
    return joined(f"step {state['step']:,}", short_hash(state["weights_sha256"]))


def split_text(data: Mapping[str, Any], split: str) -> str:
    """Size of a split: prompts, pairs, conversations, tokens, and tokens of answers."""
    units = {name: name for name in ("prompts", "pairs", "conversations", "tokens")}
    units["trained_tokens"] = "of them in answers"
    return joined(*(count(data.get(f"{split}_{name}"), unit) for name, unit in units.items()))


def left_out_text(data: Mapping[str, Any]) -> str:
    """Counts of training conversations that were cut or dropped."""
    counts = data.get("counts", {}).get("train")
    if not counts:
        return MISSING
    parts = [count(counts[name], words) for name, words in COUNTS.items() if counts.get(name)]
    return joined(*parts) if parts else "nothing"


def parameters_text(about: Mapping[str, Any]) -> str:
    total, trained = about.get("parameters"), about.get("trained_parameters")
    return joined(count(total), count(trained, "of them trained") if trained not in (None, total) else None)
