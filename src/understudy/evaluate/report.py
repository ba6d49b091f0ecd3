"""One self-contained HTML page that compares runs: results, curves, samples, and what was set differently.

It reads run folders and fills report.html beside this file; nothing on the page is fetched from anywhere. Whatever
a run brings, a sample above all, is text there and never markup. Not here: measuring anything.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from understudy.evaluate.plots import loss_limits, smooth, thin
from understudy.run import RunFolder, find_run, now, read_json, write_text
from understudy.settings import read_preset
from understudy.train.metrics import read_metrics
from understudy.train.panel import bytes_text, count_text, duration_text, printable

CURVE_POINTS, SMALL_POINTS = 400, 150
MOST_SAMPLES, MOST_CHARACTERS = 40, 20_000
MISSING = "–"
# The small charts: what a metric is called and how its numbers are written. Others come with their own name.
CHARTS = {
    "lr": ("learning rate", "number"),
    "tokens_per_second": ("tokens a second", "count"),
    "memory_bytes": ("memory in use", "bytes"),
    "mfu": ("share of the peak (MFU)", "percent"),
    "grad_norm": ("gradient norm", "number"),
}
NO_CHART = {"step", "tokens", "train_seconds", "train/loss", "val/loss", "memory_peak_bytes"}
AXES = {"step": "step", "tokens": "tokens", "seconds": "train_seconds"}


@dataclass(frozen=True)
class Evidence:
    """What a run folder holds that the page shows."""

    label: str
    folder: RunFolder
    rows: list[dict[str, Any]]
    settings: dict[str, Any]
    about: dict[str, Any]
    evaluation: dict[str, Any]
    tokenizer_kind: str
    samples: list[tuple[int, str]]

    def last(self, name: str) -> Any:
        """The last value of a metric, or None."""
        return next((row[name] for row in reversed(self.rows) if row.get(name) is not None), None)

    def best(self) -> tuple[float, int] | None:
        """The lowest validation loss while training, and its step."""
        found = [(row["val/loss"], row["step"]) for row in self.rows if row.get("val/loss") is not None]
        return min(found) if found else None

    def setting(self, dotted: str) -> Any:
        node: Any = self.settings
        for part in dotted.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the page that compares the runs in ``folders`` to ``out``, a file, or a folder that gets report.html.

    Raises:
        ValueError: no run, a damaged file in one, or a page that cannot be written.
    """
    import jinja2

    if not folders:
        raise ValueError("a report needs at least one run; give the names of runs under runs/, or their folders")
    runs = _read_runs(folders)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # the charts come in our order
    template = (resources.files("understudy.evaluate") / "report.html").read_text(encoding="utf-8")
    charts = {"runs": [_curves(run) for run in runs], "titles": _chart_titles(runs), "limits": _limits(runs)}
    page = environment.from_string(template).render(
        title=runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared",
        written=now().replace("T", " ").removesuffix("Z") + " UTC",
        cards=[_card(run) for run in runs],
        labels=[run.label for run in runs],
        facts=_side_by_side([_facts(run) for run in runs]),
        differences=_differences(runs),
        samples=[[{"step": step, "text": text} for step, text in run.samples] for run in runs],
        configs=[_yaml(run.settings) for run in runs],
        charts=charts,
        # No text in a run can know the hash of the data it is itself part of, so only our script may run.
        nonce=hashlib.sha256(json.dumps([charts, [run.samples for run in runs]]).encode()).hexdigest()[:32],
    )
    out = out / "report.html" if out.is_dir() else out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise ValueError(f"the report {out} cannot be written ({error.strerror}); choose another --out") from error
    return out


def _read_runs(folders: Sequence[Path]) -> list[Evidence]:
    found = [find_run(str(folder)) for folder in folders]
    names = [folder.name for folder in found]
    return [_read_run(f, f.name if names.count(f.name) == 1 else str(f.path)) for f in found]


def _read_run(folder: RunFolder, label: str) -> Evidence:
    def optional(name: str) -> dict[str, Any]:
        return read_json(folder.path / name) if (folder.path / name).exists() else {}

    steps = sorted(
        int(path.stem.removeprefix("step_"))
        for path in folder.samples.glob("step_*.txt")
        if path.stem.removeprefix("step_").isdigit()
    )
    if len(steps) > MOST_SAMPLES:
        steps = [steps[round(i * (len(steps) - 1) / (MOST_SAMPLES - 1))] for i in range(MOST_SAMPLES)]
    samples = [
        (step, (folder.samples / f"step_{step}.txt").read_text(encoding="utf-8", errors="replace")) for step in steps
    ]
    return Evidence(
        label,
        folder,
        read_metrics(folder.metrics),
        read_preset(str(folder.path / "config.yaml")),
        optional("run.json"),
        optional("evaluation.json"),
        str(optional("tokenizer.json").get("kind", "")),
        [(step, printable(text[:MOST_CHARACTERS])) for step, text in samples],
    )


def _card(run: Evidence) -> dict[str, str]:
    """The few numbers to see first."""
    evaluation, best = run.evaluation, run.best()
    if "loss" in evaluation:
        loss, what = evaluation["loss"], _interval(evaluation, "loss", 3)
    elif best:
        loss, what = best[0], f"best, at step {best[1]:,}"
    else:
        loss, what = None, "not evaluated yet"
    seconds, tokens = run.last("train_seconds"), run.last("tokens")
    small = {
        "bits a byte": _number(evaluation.get("bits_per_byte"), 3),
        "parameters": MISSING if run.about.get("parameters") is None else count_text(run.about["parameters"]),
        "tokens": MISSING if tokens is None else count_text(tokens),
        "trained": MISSING if seconds is None else duration_text(seconds),
    }
    return {"loss": _number(loss, 4), "what": what} | {name: text for name, text in small.items() if text != MISSING}


def _facts(run: Evidence) -> dict[str, dict[str, str]]:
    """Everything known of a run, in groups of names and texts."""
    evaluation, best, last_step = run.evaluation, run.best(), run.last("step")
    seconds, tokens = run.last("train_seconds"), run.last("tokens")
    data, about = run.about.get("data") or {}, run.about
    peak = max((row[k] for row in run.rows for k in ("memory_peak_bytes", "memory_bytes") if row.get(k)), default=None)
    losses = np.array([row["train/loss"] for row in run.rows if row.get("train/loss") is not None])
    broken = [row["step"] for row in run.rows if "train/loss" in row and row["train/loss"] is None]
    passes = tokens / data["train_tokens"] if tokens and data.get("train_tokens") else None
    result = {
        "validation loss": f"{_number(evaluation.get('loss'), 4)} {_interval(evaluation, 'loss', 4)}".rstrip(),
        "bits a byte": f"{_number(evaluation.get('bits_per_byte'), 3)} {_interval(evaluation, 'bits_per_byte', 3)}".rstrip(),
        "perplexity": _number(evaluation.get("perplexity"), 3),
        "evaluated": _joined(evaluation.get("checkpoint"), _count(evaluation.get("tokens"), "tokens")),
        "best while training": f"{best[0]:.4f} at step {best[1]:,}" if best else MISSING,
        "last validation loss": _number(run.last("val/loss"), 4),
        "last training loss": _number(float(smooth(losses)[-1]) if len(losses) else None, 4),
        "trouble": f"the loss was no number at step {broken[0]:,} ({len(broken)} lines)" if broken else MISSING,
    }
    training = {
        "steps": _joined(_count(last_step), f"of {run.setting('train.steps'):,}" if _is_short(run) else None, gap=" "),
        "tokens": _joined(_count(tokens), f"{passes:.2f} passes over the data" if passes else None),
        "time": MISSING if seconds is None else duration_text(seconds),
        "tokens a second": count_text(tokens / seconds) if tokens and seconds else MISSING,
        "memory at peak": MISSING if peak is None else bytes_text(peak),
        "optimiser": _joined(run.setting("optim.name"), run.setting("optim.schedule"), f"lr {run.setting('optim.lr')}"),
        "seed": _text(run.setting("train.seed")),
    }
    model = {
        "parameters": _count(about.get("parameters")),
        "model": _shape(run),
        "tokenizer": _joined(run.tokenizer_kind, _count(run.setting("model.vocab_size"), "tokens")),
    }
    origin = {
        "stage": _text(about.get("stage")),
        "data": _joined(data.get("path"), _short_hash(data.get("sha256"))),
        "training split": _count(data.get("train_tokens"), "tokens"),
        "validation split": _count(data.get("val_tokens"), "tokens"),
        "started from": _parent(about.get("parent")),
        "made with": _joined(*(f"{name} {about[name]}" for name in ("understudy", "torch") if name in about)),
        "begun": _text(about.get("created")).replace("T", " ").replace("Z", " UTC"),
        "folder": str(run.folder.path),
    }
    return {"Result": result, "Training": training, "Model": model, "Origin": origin}


def _is_short(run: Evidence) -> bool:
    steps, last = run.setting("train.steps"), run.last("step")
    return isinstance(steps, int) and last is not None and last < steps


def _shape(run: Evidence) -> str:
    names = {"n_layers": "layers", "n_heads": "heads", "d_model": "wide", "context_length": "context"}
    sizes = [f"{run.setting(f'model.{key}')} {name}" for key, name in names.items() if run.setting(f"model.{key}")]
    return _joined(run.setting("model.family"), *sizes)


def _parent(parent: Mapping[str, Any] | None) -> str:
    if not parent:
        return "random weights"
    return _joined(f"{parent.get('run')} at step {parent.get('step')}", _short_hash(parent.get("sha256")))


def _side_by_side(facts: Sequence[Mapping[str, Mapping[str, str]]]) -> dict[str, dict[str, list[str]]]:
    """Group to name to the texts of all runs, without the rows that say nothing."""
    table: dict[str, dict[str, list[str]]] = {}
    for group, names in facts[0].items():
        rows = {name: [each[group][name] for each in facts] for name in names}
        table[group] = {name: texts for name, texts in rows.items() if any(text != MISSING for text in texts)}
    return table


def _differences(runs: Sequence[Evidence]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs."""
    flat = [dict(_flatten(run.settings)) for run in runs]
    names = dict.fromkeys(name for each in flat for name in each)
    rows = {name: [_text(each.get(name)) for each in flat] for name in names}
    return {name: texts for name, texts in rows.items() if len(set(texts)) > 1}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def _curves(run: Evidence) -> dict[str, Any]:
    """The points of every chart of a run: for each metric, its values and where they stand on each x axis."""
    names = dict.fromkeys(name for row in run.rows for name in row if name not in NO_CHART)
    curves = {name: _curve(run.rows, name, SMALL_POINTS) for name in names}
    curves |= {name: _curve(run.rows, name, CURVE_POINTS) for name in ("train/loss", "val/loss")}
    return {"name": run.label, "curves": {name: curve for name, curve in curves.items() if curve["y"]}}


def _curve(rows: Sequence[Mapping[str, Any]], name: str, most: int) -> dict[str, list[float]]:
    wanted = [*AXES.values(), name]
    complete = [[row[key] for key in wanted] for row in rows if all(row.get(key) is not None for key in wanted)]
    points = np.array(complete, dtype=float).reshape(-1, len(wanted))
    if name == "train/loss":
        points = np.column_stack([points, smooth(points[:, -1])])
    elif name == "val/loss":
        most = max(most, len(points))  # each is a measurement of its own, and the best one is looked for
    points = thin(points, most)
    keys = [*AXES, "y", "smooth"][: points.shape[1]]
    return {key: [_rounded(value) for value in points[:, column]] for column, key in enumerate(keys)}


def _chart_titles(runs: Sequence[Evidence]) -> dict[str, dict[str, str]]:
    """The small charts in order, with title and kind of number."""
    present = dict.fromkeys(name for run in runs for row in run.rows for name in row if name not in NO_CHART)
    order = [*(name for name in CHARTS if name in present), *(name for name in present if name not in CHARTS)]
    return {name: dict(zip(("title", "kind"), CHARTS.get(name, (name, "number")))) for name in order}


def _limits(runs: Sequence[Evidence]) -> list[float]:
    """Where the axis of losses begins and ends unless all of it is asked for."""
    curves = []
    for run in runs:
        for name in ("train/loss", "val/loss"):
            curve = _curve(run.rows, name, CURVE_POINTS)
            curves.append(np.array(curve.get("smooth", curve["y"])))
    return [_rounded(limit) for limit in loss_limits(curves)]


def _yaml(settings: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(settings), sort_keys=False)


def _interval(values: Mapping[str, Any], name: str, digits: int) -> str:
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    return "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _count(value: float | None, unit: str = "") -> str:
    return MISSING if value is None else f"{value:,} {unit}".rstrip()


def _text(value: Any) -> str:
    return MISSING if value is None or value == "" else str(value)


def _joined(*parts: Any, gap: str = " · ") -> str:
    return gap.join(str(part) for part in parts if part not in (None, "", MISSING)) or MISSING


def _short_hash(sha256: str | None) -> str | None:
    return f"sha256 {sha256[:12]}…" if sha256 else None


def _rounded(value: float) -> float:
    """Six digits, which is more than a chart shows and less than a page should carry."""
    return value if value == 0 or not math.isfinite(value) else round(value, 5 - math.floor(math.log10(abs(value))))
