"""One self-contained HTML page on runs: lineage, results, curves, samples, and settings that differ.

It fills report.html beside this file, by page.py. Not here: measuring, reading folders (lineage.py), the comparison of
tasks (comparison.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.config.stages import STAGES
from understudy.console import bytes_text, count_text, duration_text
from understudy.report.alignment import draw_overoptimisation, overoptimisation, reward_evidence
from understudy.report.comparison import compare_tasks, headlines
from understudy.report.lineage import Evidence, left_out_text, lineage_card, parameters_text, read_family, split_text
from understudy.report.page import page_path, write_page
from understudy.report.plots import loss_limits, smooth, thin
from understudy.report.wording import MISSING, count, interval, joined, number, plain, short_hash
from understudy.run import Run, RunFolder, read_metrics

CURVE_POINTS, SMALL_POINTS = 400, 150
CHARTS = {
    "lr": ("learning rate", "number"),
    "tokens_per_second": ("tokens per second", "count"),
    "memory_bytes": ("memory in use (bytes)", "bytes"),
    "mfu": ("model FLOPs utilisation (MFU)", "percent"),
    "grad_norm": ("gradient norm", "number"),
}
"""Titles of the small charts, and the kind of their numbers. Other metrics are shown under their own name."""
STAGE_CHARTS = {
    "reward": ("reward", "number"),
    "true_score": ("true score", "number"),
    "score": ("score of the reward model", "number"),
    "kl": ("KL from the reference model (nats per completion)", "number"),
    "accuracy": ("pairs in the labelled order, or completions on the side of their label", "percent"),
    "true_accuracy": ("pairs in the order of their true scores", "percent"),
    "margin": ("margin of chosen over rejected (nats)", "number"),
    "chosen_logratio": ("log-ratio of chosen to the reference model (nats)", "number"),
    "rejected_logratio": ("log-ratio of rejected to the reference model (nats)", "number"),
    "desirable_logratio": ("log-ratio of desirable completions to the reference model (nats)", "number"),
    "undesirable_logratio": ("log-ratio of undesirable completions to the reference model (nats)", "number"),
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
"""The same for metrics of stages: training (train/...) and evaluation (val/...) share a chart."""
NO_CHART = {"step", "tokens", "train_seconds", "train/loss", "val/loss", "memory_peak_bytes"}
AXES = {"step": "step", "tokens": "tokens", "seconds": "train_seconds"}


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the page that compares the runs in ``folders`` to ``out``, a file, or a folder that gets report.html.

    Raises:
        ValueError: no run, a damaged file in one, or a page that cannot be written.
    """
    import yaml

    if not folders:
        raise ValueError("a report needs at least one run; give the names of runs under runs/, or their folders")
    out = page_path(out, "report.html")
    family = read_family(folders)
    runs, members = family.members[: family.asked], family.members
    evidence = [
        {"overoptimisation": overoptimisation(run.rows, run.best_of_n, run.settings | {"stage": run.about.get("stage")}),
         "reward": reward_evidence(run.reward)}
        for run in members
    ]  # fmt: skip
    charts = {
        "runs": [_curves(run) for run in runs], "titles": _chart_titles(runs), "main": _main_charts(runs),
        "ancestors": [_curves(run, only_main=True) for run in members[len(runs) :]],
        "members": [_main_chart([run], [place]) for place, run in enumerate(members)], "evidence": evidence,
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
        "configs": [yaml.safe_dump(run.settings, sort_keys=False) for run in runs],
        "charts": charts,
    }
    about = {
        "title": runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared",
        "runs": len(runs),
        # A text in a run cannot contain the hash of data that includes it, so only the page's own script runs.
        "nonce": hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:32],
    }
    return write_page("report.html", content | about, out)


def update_report(run: Run) -> Path:
    """Draw a run's over-optimisation charts and write its report.html again, after new evidence."""
    draw_overoptimisation(run.path, read_metrics(RunFolder(run.path).metrics), run.config.model_dump())
    return write_report([run.path], run.path / "report.html")


def _samples(run: Evidence) -> list[dict[str, Any]]:
    """Samples of a run in order. Each is a ``text``, or for an assistant ``exchanges`` of prompt, answer, and the answer
    before training (None if that was not sampled)."""
    samples = [_sample(step, text, STAGES[run.stage].data != "text") for step, text in run.samples]
    first = samples[0].get("exchanges", []) if samples and samples[0]["step"] == 0 else []
    for sample in samples:
        exchanges = sample.get("exchanges", [])
        same_prompts = [prompt for prompt, *_ in exchanges] == [prompt for prompt, *_ in first]
        for index, exchange in enumerate(exchanges):
            exchange.append(first[index][1] if sample["step"] > 0 and same_prompts else None)
    return samples


def _sample(step: int, text: str, assistant: bool) -> dict[str, Any]:
    exchanges: list[list[str | None]] = []
    for part in text.strip("\n").split("\n---\n") if assistant else []:
        prompt, separator, answer = part.removeprefix("user: ").partition("\nassistant:")
        if part.startswith("user: ") and separator:
            exchanges.append([prompt, answer.strip()])
        elif exchanges:  # the answer itself contained the separator of samples
            exchanges[-1][1] = f"{exchanges[-1][1]}\n---\n{part}"
    return {"step": step, "exchanges": exchanges} if exchanges else {"step": step, "text": text}


def _card(run: Evidence) -> dict[str, Any]:
    """The main numbers of a run."""
    evaluation, best = run.evaluation, run.best()
    name, unit = run.main_metric()
    if "loss" in evaluation and not (best and STAGES[run.stage].rollout):
        value, note = evaluation["loss"], interval(evaluation, "loss", 3)
    elif best:
        value, note = best[0], f"best, at step {best[1]:,}"
    else:
        value, note = None, "not evaluated yet"
    seconds, tokens = run.last("train_seconds"), run.last("tokens")
    small = [
        *headlines(run),
        ("bits per byte", number(evaluation.get("bits_per_byte"), 3)),
        ("parameters", MISSING if run.about.get("parameters") is None else count_text(run.about["parameters"])),
        ("tokens", MISSING if tokens is None else count_text(tokens)),
        ("trained", MISSING if seconds is None else duration_text(seconds)),
    ]
    return {
        "name": f"validation {name} ({unit})" if unit else f"validation {name}",
        "value": number(value, 4),
        "note": note,
        "small": [pair for pair in small if pair[1] != MISSING],
    }


def _facts(run: Evidence) -> dict[str, dict[str, str]]:
    """All facts of a run: names and texts, in groups."""
    evaluation, best, last_step, last_loss = run.evaluation, run.best(), run.last("step"), run.last("val/loss")
    seconds, tokens = run.last("train_seconds"), run.last("tokens")
    data, about = run.data, run.about
    peak = max((row[k] for row in run.rows for k in ("memory_peak_bytes", "memory_bytes") if row.get(k)), default=None)
    name, _ = run.main_metric()
    losses = np.array([row["train/loss"] for row in run.rows if row.get("train/loss") is not None])
    broken = [row["step"] for row in run.rows if "train/loss" in row and row["train/loss"] is None]
    steps, parent = run.setting("train", "steps"), run.parent
    is_short = bool(steps and last_step and last_step < steps)
    sizes = {"n_layers": "layers", "n_heads": "heads", "d_model": "width", "context_length": "context"}
    shape = [f"{run.setting('model', key)} {word}" for key, word in sizes.items() if run.setting("model", key)]
    passes = tokens / data["train_tokens"] if tokens and "train_tokens" in data else None
    result = {
        "validation loss": f"{number(evaluation.get('loss'), 4)} {interval(evaluation, 'loss', 4)}".rstrip(),
        "bits per byte": f"{number(evaluation.get('bits_per_byte'), 3)} {interval(evaluation, 'bits_per_byte', 3)}".rstrip(),
        "perplexity": number(evaluation.get("perplexity"), 3),
        "evaluated": joined(evaluation.get("checkpoint"), count(evaluation.get("tokens"), "tokens")),
        f"best validation {name} in training": f"{best[0]:.4f} at step {best[1]:,}" if best else MISSING,
        f"last validation {name}": number(None if last_loss is None else run.measured(last_loss), 4),
        "last training loss": number(float(smooth(losses)[-1]) if len(losses) else None, 4),
        "trouble": f"the loss was not finite at step {broken[0]:,} ({len(broken)} lines)" if broken else MISSING,
    }
    training = {
        "steps": joined(count(last_step), f"of {steps:,}" if is_short else None, gap=" "),
        "tokens": joined(count(tokens), f"{passes:.2f} epochs" if passes else None),
        "time": MISSING if seconds is None else duration_text(seconds),
        "tokens per second": count_text(tokens / seconds) if tokens and seconds else MISSING,
        "peak memory": MISSING if peak is None else bytes_text(peak),
        "optimiser": joined(
            run.setting("optim", "name"), run.setting("optim", "schedule"), f"lr {run.setting('optim', 'lr')}"
        ),
        "seed": plain(run.setting("train", "seed")),
    }
    model = {
        "parameters": parameters_text(about),
        "model": joined(run.setting("model", "family"), *shape),
        "tokenizer": joined(run.tokenizer_kind, count(run.setting("model", "vocab_size"), "tokens")),
    }
    origin = {
        "stage": plain(about.get("stage")),
        "data": joined(data.get("path"), short_hash(data.get("sha256"))),
        "training split": split_text(data, "train"),
        "validation split": split_text(data, "val"),
        "cut or dropped": left_out_text(data),
        "started from": joined(f"{parent.get('run')} at step {parent.get('step')}", short_hash(parent.get("sha256")))
        if parent else "random weights",
        "made with": joined(*(f"{name} {about[name]}" for name in ("understudy", "torch") if name in about)),
        "begun": plain(about.get("created")).replace("T", " ").replace("Z", " UTC"),
        "folder": str(run.folder.path),
    }  # fmt: skip
    return {"Result": result, "Training": training, "Model": model, "Origin": origin}


def _side_by_side(facts: Sequence[Mapping[str, Mapping[str, str]]]) -> dict[str, dict[str, list[str]]]:
    """For each group and name, the texts of all runs, without empty rows."""
    table: dict[str, dict[str, list[str]]] = {}
    for group in facts[0]:
        names = dict.fromkeys(name for run in facts for name in run[group])
        rows = {name: [run[group].get(name, MISSING) for run in facts] for name in names}
        table[group] = {name: texts for name, texts in rows.items() if any(text != MISSING for text in texts)}
    return table


def _differences(runs: Sequence[Evidence]) -> dict[str, list[str]]:
    """Settings that differ between runs."""
    flat = [dict(_flatten(run.settings)) for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = {name: [plain(settings.get(name)) for settings in flat] for name in names}
    return {name: texts for name, texts in rows.items() if len(set(texts)) > 1}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def _main_charts(runs: Sequence[Evidence]) -> list[dict[str, Any]]:
    """The large charts: one for each unit, since curves of different units do not share an axis."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(run.main_metric(), []).append(place)
    return [_main_chart([runs[place] for place in places], places) for places in groups.values()]


def _main_chart(runs: Sequence[Evidence], numbers: list[int]) -> dict[str, Any]:
    """The large chart of runs whose curves have the same unit. ``limits`` of None show everything."""
    name, unit = runs[0].main_metric()
    reward = STAGES[runs[0].stage].rollout
    note = ""
    if len({run.data.get("sha256") for run in runs}) > 1:
        note = "These runs have different data, so their curves are not directly comparable."
    if len({STAGES[run.stage].data for run in runs}) > 1:
        note += " Losses of conversations count the answers only, losses of text every token."
    limits = None
    if not reward:
        curves = [_curve(run.rows, loss, CURVE_POINTS) for run in runs for loss in ("train/loss", "val/loss")]
        limits = [_rounded(end) for end in loss_limits([np.array(c.get("smooth", c["y"])) for c in curves])]
    return {
        "title": f"{name} ({unit})" if unit else name, "train": "train/reward" if reward else "train/loss",
        "val": "val/reward" if reward else "val/loss", "best": "max" if reward else "min", "runs": numbers,
        "limits": limits, "note": note,
    }  # fmt: skip


MAIN_METRICS = ("train/loss", "val/loss", "train/reward", "val/reward")


def _curves(run: Evidence, only_main: bool = False) -> dict[str, Any]:
    """Points of every chart of a run: for each metric its values and positions on each x axis."""
    names = {} if only_main else _charted(run.rows)
    curves = {name: _curve(run.rows, name, SMALL_POINTS) for name in names}
    curves |= {name: _curve(run.rows, name, CURVE_POINTS) for name in MAIN_METRICS}
    return {"name": run.label, "curves": {name: curve for name, curve in curves.items() if curve["y"]}}


def _curve(rows: Sequence[Mapping[str, Any]], name: str, most: int) -> dict[str, list[float]]:
    wanted = [*AXES.values(), name]
    complete = [[row[key] for key in wanted] for row in rows if all(row.get(key) is not None for key in wanted)]
    points = np.array(complete, dtype=float).reshape(-1, len(wanted))
    if name in ("train/loss", "train/reward"):
        points = np.column_stack([points, smooth(points[:, -1])])
    elif name in ("val/loss", "val/reward"):
        most = max(most, len(points))  # every evaluation is kept, since the best one is marked
    points = thin(points, most)
    keys = [*AXES, "y", "smooth"][: points.shape[1]]
    return {key: [_rounded(value) for value in points[:, column]] for column, key in enumerate(keys)}


def _charted(rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """Metrics with a small chart, in order of first appearance, without the ends of intervals."""
    return dict.fromkeys(
        name for row in rows for name in row
        if name not in NO_CHART and not (name.startswith("val/") and name.endswith(("_low", "_high")))
    )  # fmt: skip


def _chart_titles(runs: Sequence[Evidence]) -> dict[str, dict[str, str]]:
    """The small charts in order, with title and kind of number; ``beside``: a second metric in the same chart."""
    rows = [row for run in runs for row in run.rows]
    present = _charted(rows)
    if all(len(_accuracies(row)) == 1 for row in rows if "accuracy" in row):
        present.pop("accuracy", None)  # the mean over a single task
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
        # A task of kind loss has its loss under this name.
        kind = "share" if all(0 <= row[name] <= 1 for row in rows if row.get(name) is not None) else "number"
    return {"title": title, "kind": kind}


def _rounded(value: float) -> float:
    """A value with six significant digits, to keep the page small."""
    return float(f"{value:.6g}")
