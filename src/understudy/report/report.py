"""One self-contained HTML page on runs: where they come from, results, curves, samples, and what was set differently.

It fills report.html beside this file; nothing on the page is fetched from anywhere. Whatever a run brings, a sample
above all, is text there and never markup. Not here: measuring anything, reading folders (lineage.py), and what is
said of tasks (comparison.py).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from understudy.config.stages import STAGES
from understudy.console import bytes_text, count_text, duration_text
from understudy.files import now, write_text
from understudy.report.alignment import is_rollout, overoptimisation, reward_evidence
from understudy.report.comparison import compare_tasks, headlines
from understudy.report.lineage import Evidence, left_out_text, lineage_card, parameters_text, read_family, split_text
from understudy.report.plots import loss_limits, smooth, thin
from understudy.report.wording import MISSING, count, interval, joined, measured, number, plain, short_hash

CURVE_POINTS, SMALL_POINTS = 400, 150
# The small charts: what a metric is called and how its numbers are written. Others come with their own name.
CHARTS = {
    "lr": ("learning rate", "number"),
    "tokens_per_second": ("tokens a second", "count"),
    "memory_bytes": ("memory in use", "bytes"),
    "mfu": ("share of the peak (MFU)", "percent"),
    "grad_norm": ("gradient norm", "number"),
}
# The same for what a stage measures while it trains (train/...) and when it is evaluated (val/...), in one chart.
STAGE_CHARTS = {
    "reward": ("reward", "number"),
    "true_score": ("true score", "number"),
    "score": ("score of the reward model", "number"),
    "kl": ("KL from the reference model (nats per completion)", "number"),
    "accuracy": ("pairs in the labelled order", "percent"),
    "true_accuracy": ("pairs in the order of their true scores", "percent"),
    "margin": ("margin of chosen over rejected (nats)", "number"),
    "chosen_logratio": ("log-ratio of chosen to the reference model (nats)", "number"),
    "rejected_logratio": ("log-ratio of rejected to the reference model (nats)", "number"),
    "entropy": ("entropy (nats per token)", "number"),
    "length": ("length of completions (tokens)", "number"),
    "eos_rate": ("completions with an end token", "percent"),
    "clip_fraction": ("clipped tokens", "percent"),
    "behaviour_kl": ("KL from the behaviour policy (nats per token)", "number"),
    "ratio": ("ratio to the behaviour policy", "number"),
    "first_ratio": ("ratio in the first step of an iteration", "number"),
    "zero_std_groups": ("groups with equal rewards", "percent"),
    "value": ("value of the critic", "number"),
    "explained_variance": ("explained variance of the returns", "number"),
    "kl_coefficient": ("KL coefficient", "number"),
    "policy_loss": ("policy loss", "number"),
    "value_loss": ("value loss", "number"),
    "kl_loss": ("KL in the loss (nats per token)", "number"),
    "ptx_loss": ("PPO-ptx loss", "number"),
}
NO_CHART = {"step", "tokens", "train_seconds", "train/loss", "val/loss", "memory_peak_bytes"}
AXES = {"step": "step", "tokens": "tokens", "seconds": "train_seconds"}


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the page that compares the runs in ``folders`` to ``out``, a file, or a folder that gets report.html.

    Raises:
        ValueError: no run, a damaged file in one, or a page that cannot be written.
    """
    import jinja2

    if not folders:
        raise ValueError("a report needs at least one run; give the names of runs under runs/, or their folders")
    family = read_family(folders)
    runs, members = family.members[: family.asked], family.members
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # the charts come in our order
    template = (resources.files("understudy.report") / "report.html").read_text(encoding="utf-8")
    evidence = [_evidence(run) for run in members]
    charts = {
        "runs": [_curves(run) for run in runs], "titles": _chart_titles(runs), "limits": _limits(runs),
        "ancestors": [_curves(run, only_losses=True) for run in members[len(runs) :]],
        "own_limits": [_limits([run]) for run in members], "evidence": evidence,
    }  # fmt: skip
    content = {
        "cards": [_card(run) for run in runs],
        "labels": [run.label for run in members],
        "order": family.order(),
        "chains": [[lineage_card(link, family) for link in chain] for chain in family.stories()],
        "tasks": compare_tasks(family),
        "facts": _side_by_side([_facts(run) for run in runs]),
        "differences": _differences(runs),
        "evidence": evidence,
        "samples": [_samples(run) for run in members],
        "configs": [_yaml(run.settings) for run in runs],
        "charts": charts,
    }
    page = environment.from_string(template).render(
        content,
        title=runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared",
        written=now().replace("T", " ").removesuffix("Z") + " UTC",
        runs=len(runs),
        stages={str(run.about.get("stage")) for run in members},
        # No text in a run can know the hash of the data it is itself part of, so only our script may run.
        nonce=hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:32],
    )
    out = out / "report.html" if out.is_dir() else out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise ValueError(f"the report {out} cannot be written ({error.strerror}); choose another --out") from error
    return out


def _samples(run: Evidence) -> list[dict[str, Any]]:
    """The samples of a run for the page, in order: each a text, or of a run that answers its ``exchanges``: what was
    asked, what was said, and what the start said to the same, where that was sampled, or None."""
    found = [_sample(step, text, run.about.get("stage")) for step, text in run.samples]
    first = found[0].get("exchanges", []) if found and found[0]["step"] == 0 else []
    for sample in found:
        own = sample.get("exchanges", [])
        known = sample["step"] > 0 and [asked for asked, *_ in own] == [asked for asked, *_ in first]
        for place, exchange in enumerate(own):
            exchange.append(first[place][1] if known else None)
    return found


def _sample(step: int, text: str, stage: Any) -> dict[str, Any]:
    exchanges: list[list[str | None]] = []
    for part in text.strip("\n").split("\n---\n") if stage in STAGES and STAGES[stage].data != "text" else []:
        asked, found, said = part.removeprefix("user: ").partition("\nassistant:")
        if part.startswith("user: ") and found:
            exchanges.append([asked, said.strip()])
        elif exchanges:  # the answer had such a line of its own
            exchanges[-1][1] = f"{exchanges[-1][1]}\n---\n{part}"
    return {"step": step, "exchanges": exchanges} if exchanges else {"step": step, "text": text}


def _card(run: Evidence) -> dict[str, Any]:
    """The few numbers to see first."""
    evaluation, best = run.evaluation, run.best()
    name = "validation loss"
    if is_rollout(run.about.get("stage")) and best:
        name, loss, what = "validation reward", 0.0 - best[0], f"best, at step {best[1]:,}"
    elif "loss" in evaluation:
        loss, what = evaluation["loss"], interval(evaluation, "loss", 3)
    elif best:
        loss, what = best[0], f"best, at step {best[1]:,}"
    else:
        loss, what = None, "not evaluated yet"
    seconds, tokens = run.last("train_seconds"), run.last("tokens")
    small = [
        *headlines(run),
        ("bits a byte", number(evaluation.get("bits_per_byte"), 3)),
        ("parameters", MISSING if run.about.get("parameters") is None else count_text(run.about["parameters"])),
        ("tokens", MISSING if tokens is None else count_text(tokens)),
        ("trained", MISSING if seconds is None else duration_text(seconds)),
    ]
    return {
        "name": name,
        "loss": number(loss, 4),
        "what": what,
        "small": [pair for pair in small if pair[1] != MISSING],
    }


def _evidence(run: Evidence) -> dict[str, Any]:
    """What a later stage is judged by: the charts of over-optimisation, and of a reward model's scores."""
    settings = run.settings | {"stage": run.about.get("stage")}
    return {
        "overoptimisation": overoptimisation(run.rows, run.best_of_n, settings),
        "reward": reward_evidence(run.reward),
    }


def _facts(run: Evidence) -> dict[str, dict[str, str]]:
    """Everything known of a run, in groups of names and texts."""
    evaluation, best, last_step = run.evaluation, run.best(), run.last("step")
    seconds, tokens = run.last("train_seconds"), run.last("tokens")
    data, about = run.data, run.about
    peak = max((row[k] for row in run.rows for k in ("memory_peak_bytes", "memory_bytes") if row.get(k)), default=None)
    losses = np.array([row["train/loss"] for row in run.rows if row.get("train/loss") is not None])
    broken = [row["step"] for row in run.rows if "train/loss" in row and row["train/loss"] is None]
    passes = tokens / data["train_tokens"] if tokens and measured(data.get("train_tokens")) else None
    result = {
        "validation loss": f"{number(evaluation.get('loss'), 4)} {interval(evaluation, 'loss', 4)}".rstrip(),
        "bits a byte": f"{number(evaluation.get('bits_per_byte'), 3)} {interval(evaluation, 'bits_per_byte', 3)}".rstrip(),
        "perplexity": number(evaluation.get("perplexity"), 3),
        "evaluated": joined(evaluation.get("checkpoint"), count(evaluation.get("tokens"), "tokens")),
        "best while training": f"{best[0]:.4f} at step {best[1]:,}" if best else MISSING,
        "last validation loss": number(run.last("val/loss"), 4),
        "last training loss": number(float(smooth(losses)[-1]) if len(losses) else None, 4),
        "trouble": f"the loss was no number at step {broken[0]:,} ({len(broken)} lines)" if broken else MISSING,
    }
    training = {
        "steps": joined(count(last_step), f"of {run.setting('train.steps'):,}" if _is_short(run) else None, gap=" "),
        "tokens": joined(count(tokens), f"{passes:.2f} passes over the data" if passes else None),
        "time": MISSING if seconds is None else duration_text(seconds),
        "tokens a second": count_text(tokens / seconds) if tokens and seconds else MISSING,
        "memory at peak": MISSING if peak is None else bytes_text(peak),
        "optimiser": joined(run.setting("optim.name"), run.setting("optim.schedule"), f"lr {run.setting('optim.lr')}"),
        "seed": plain(run.setting("train.seed")),
    }
    model = {
        "parameters": parameters_text(about),
        "model": _shape(run),
        "tokenizer": joined(run.tokenizer_kind, count(run.setting("model.vocab_size"), "tokens")),
    }
    origin = {
        "stage": plain(about.get("stage")),
        "data": joined(data.get("path"), short_hash(data.get("sha256"))),
        "training split": split_text(data, "train"),
        "validation split": split_text(data, "val"),
        "cut or dropped": left_out_text(data),
        "started from": _parent(run.parent),
        "made with": joined(*(f"{name} {about[name]}" for name in ("understudy", "torch") if name in about)),
        "begun": plain(about.get("created")).replace("T", " ").replace("Z", " UTC"),
        "folder": str(run.folder.path),
    }
    return {"Result": result, "Training": training, "Model": model, "Origin": origin}


def _is_short(run: Evidence) -> bool:
    steps, last = run.setting("train.steps"), run.last("step")
    return isinstance(steps, int) and last is not None and last < steps


def _shape(run: Evidence) -> str:
    names = {"n_layers": "layers", "n_heads": "heads", "d_model": "wide", "context_length": "context"}
    sizes = [f"{run.setting(f'model.{key}')} {name}" for key, name in names.items() if run.setting(f"model.{key}")]
    return joined(run.setting("model.family"), *sizes)


def _parent(parent: Mapping[str, Any]) -> str:
    if not parent:
        return "random weights"
    return joined(f"{parent.get('run')} at step {parent.get('step')}", short_hash(parent.get("sha256")))


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
    rows = {name: [plain(each.get(name)) for each in flat] for name in names}
    return {name: texts for name, texts in rows.items() if len(set(texts)) > 1}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def _curves(run: Evidence, only_losses: bool = False) -> dict[str, Any]:
    """The points of every chart of a run: for each metric, its values and where they stand on each x axis."""
    names = {} if only_losses else _charted(run.rows)
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


def _charted(rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """The metrics with a small chart, in the order in which they first come; ends of intervals have none."""
    return dict.fromkeys(
        name for row in rows for name in row
        if name not in NO_CHART and not (name.startswith("val/") and name.endswith(("_low", "_high")))
    )  # fmt: skip


def _chart_titles(runs: Sequence[Evidence]) -> dict[str, dict[str, str]]:
    """The small charts in order, with title and kind of number; ``beside``: what else is in the same one."""
    rows = [row for run in runs for row in run.rows]
    present = _charted(rows)
    if all(len(_accuracies(row)) == 1 for row in rows if "accuracy" in row):
        present.pop("accuracy", None)  # the mean of one
    accuracies = {name: None for name in ("accuracy", *_accuracies(present)) if name in present}
    staged = {f"{split}/{name}": None for name in STAGE_CHARTS for split in ("train", "val")}
    order = accuracies | {name: None for name in (*staged, *CHARTS) if name in present} | present
    titles = {name: _chart_title(name, rows) for name in order}
    for name in [name for name in titles if name.startswith("val/") and f"train/{name[4:]}" in titles]:
        titles[f"train/{name[4:]}"]["beside"] = name
        del titles[name]
    return titles


def _accuracies(names: Mapping[str, Any]) -> list[str]:
    return [name for name in names if name.startswith("accuracy/")]


def _chart_title(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    split, _, bare = name.partition("/")
    title, kind = (STAGE_CHARTS if split in ("train", "val") else CHARTS).get(bare or name, (name, "number"))
    if name == "accuracy" or name.startswith("accuracy/"):
        task = name.partition("/")[2]
        several = any(_accuracies(row) for row in rows)
        title = f"accuracy on {task}" if task else "accuracy, mean of the tasks" if several else "accuracy"
        # Under the same name stands the loss of a task that measures one.
        kind = "share" if all(0 <= row[name] <= 1 for row in rows if row.get(name) is not None) else "number"
    return {"title": title, "kind": kind}


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


def _rounded(value: float) -> float:
    """Six digits, which is more than a chart shows and less than a page should carry."""
    return value if value == 0 or not math.isfinite(value) else round(value, 5 - math.floor(math.log10(abs(value))))
