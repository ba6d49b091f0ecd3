"""loss.png and the page on runs: complete, self-contained, free of markup from a run's data, and with the whole
lineage of a run."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy.config.load import build_config
from understudy.files import write_json
from understudy.report.comparison import compare_tasks
from understudy.report.lineage import read_family
from understudy.report.plots import loss_limits, loss_plot, series, smooth, thin
from understudy.report.report import write_report
from understudy.run import RunFolder
from understudy.tokenizer import train_tokenizer

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'it' {{ 7 * 7 }} <!-- "


def rows(steps: int, every: int = 10, batch_tokens: int = 768, floor: float = 1.7) -> list[dict[str, Any]]:
    """Lines as a real run writes them; the best validation loss is at three quarters."""
    lines = []
    for step in range(every, steps + 1, every):
        loss = floor + 2.5 * math.exp(-step / steps * 5)
        line = {
            "step": step, "tokens": step * batch_tokens, "train_seconds": step * 0.05, "train/loss": loss,
            "lr": 1e-3 * (1 - step / steps), "tokens_per_second": 15_400.0, "memory_bytes": 512_000_000,
            "memory_peak_bytes": 700_000_000, "kl": 0.1,
        }  # fmt: skip
        if step % (steps // 4) == 0:
            line["val/loss"] = floor + 0.2 + abs(step / steps - 0.75)
        lines.append(line)
    return lines


def make_run(path: Path, lines: list[dict[str, Any]] | None = None, **changes: Any) -> RunFolder:
    """A run folder with all it may hold."""
    folder = RunFolder(path)
    tree = {
        "model": {"family": "gpt2", "vocab_size": 65, "context_length": 64},
        "data": {"path": "data/shakespeare-char"},
        "train": {"steps": 400},
    } | changes  # fmt: skip
    about = {
        "stage": "pretrain", "understudy": "0.1.0", "torch": "2.13.0", "created": "2026-08-01T12:00:00Z",
        "parameters": 804_096, "parent": None,
        "data": {"path": "data/shakespeare-char", "sha256": "cd" * 32, "train_tokens": 100_000, "val_tokens": 10_000},
    }  # fmt: skip
    folder.create(build_config(tree), train_tokenizer("char", ["abc"]), about)
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in (rows(400) if lines is None else lines)))
    return folder


class Page(HTMLParser):
    """Tags, attributes, visible text and the JSON blocks of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json: dict[str, Any] = {}
        self.cells: list[list[str]] = []
        self.text = ""
        self._inside = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag in ("script", "style"):
            self._inside = values.get("id") or tag
        if tag == "tr":
            self.cells.append([])
        if tag in ("th", "td") and self.cells:
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = ""
        if tag == "table":
            self.cells.append([])

    def handle_data(self, data: str) -> None:
        if self._inside in ("charts", "texts"):
            self.json[self._inside] = json.loads(data)
        elif not self._inside:
            self.text += data
            if self.cells and self.cells[-1]:
                self.cells[-1][-1] += data.strip()

    def row(self, name: str) -> list[str]:
        (matching,) = [cells[1:] for cells in self.cells if cells and cells[0] == name]
        return matching


def page_of(tmp_path: Path, *folders: RunFolder) -> Page:
    return Page(write_report([folder.path for folder in folders], tmp_path / "page.html"))


# Curves.


def test_series_leaves_out_what_was_not_measured_or_not_finite() -> None:
    lines: list[dict[str, Any]] = [{"step": 1, "a": 2.0}, {"step": 2, "a": None}, {"step": 3}, {"step": 4, "a": 5}]
    steps, values = series(lines, "a")
    assert steps.tolist() == [1, 4] and values.tolist() == [2.0, 5.0]
    assert [part.shape for part in series(lines, "b")] == [(0,), (0,)]


def test_smoothing_keeps_a_line_a_line_and_takes_noise_away() -> None:
    line = np.arange(200.0)
    assert np.allclose(smooth(line, 21)[:-10], line[:-10]), "neither late nor bent at the start"
    noise = np.random.default_rng(0).normal(size=2000)
    assert smooth(noise).std() < 0.15 * noise.std()
    assert abs(smooth(noise)[-1]) < 0.5, "the last value is a mean too"
    assert smooth(noise)[0] == noise[0] and len(smooth(np.array([]))) == 0
    assert smooth(np.array([3.0])).tolist() == [3.0]


def test_thinning_keeps_ends_and_means() -> None:
    points = np.column_stack([np.arange(10_001.0), np.sin(np.arange(10_001) / 500)])
    few = thin(points, 101)
    assert few.shape == (101, 2) and few[-1].tolist() == points[-1].tolist()
    assert few[0].tolist() == pytest.approx(points[:100].mean(0).tolist())
    assert thin(points, 20_000) is points


def test_limits_leave_out_the_first_fall_and_nothing_later() -> None:
    low, high = loss_limits([np.concatenate([[11.0, 9.0, 7.0], np.linspace(4, 2, 200)]), np.array([2.5, 3.0])])
    assert 1.8 < low < 2 and 4 < high < 5
    assert loss_limits([np.array([2.0, 1.0, 9.0])])[1] > 9, "a run that went wrong is not cut off at its end"
    assert loss_limits([]) == (0.0, 1.0)


@pytest.mark.parametrize(
    "runs",
    [
        {"alone": rows(400)},
        {"one": rows(400), r"_two $\frac$": rows(200, batch_tokens=99)},
        {"nothing yet": []},
        {"one line": rows(400)[:1]},
        {"not finite": [{"step": 1, "tokens": 2, "train_seconds": 1, "train/loss": None, "val/loss": None}]},
    ],
    ids=lambda runs: ", ".join(runs),
)  # fmt: skip
def test_loss_png_is_drawn_without_touching_the_backend(runs: dict[str, Any], tmp_path: Path) -> None:
    had_pyplot = "matplotlib.pyplot" in sys.modules
    loss_plot(runs, tmp_path / "loss.png")
    data = (tmp_path / "loss.png").read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 5000
    assert int.from_bytes(data[16:20]) == 1200 and int.from_bytes(data[20:24]) == 720
    assert had_pyplot or "matplotlib.pyplot" not in sys.modules


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the picture .* cannot be written"):
        loss_plot({"a": rows(40)}, tmp_path / "no" / "loss.png")


# The page.


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_run(tmp_path / "a"), make_run(tmp_path / "b"))
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert not {"src", "srcset", "action"} & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), attributes
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", page.source))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of a format, which nobody fetches"
    assert "@import" not in page.source and not re.search(r"url\((?!#)", page.source)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")
    assert any(a.get("name") == "viewport" for _, a in page.tags)


def test_nothing_that_a_run_brings_becomes_markup(tmp_path: Path) -> None:
    lines = [line | {EVIL: 1.0} for line in rows(400)]
    folder = make_run(tmp_path / "<b>run&", lines, data={"path": EVIL})
    (folder.samples / "step_100.txt").write_text("earlier\n")
    (folder.samples / "step_400.txt").write_text(EVIL + "\x1b[31m\n---\nsecond")
    about = folder.record()
    write_json(folder.path / "run.json", about | {"data": {"path": EVIL}, "stage": EVIL})
    write_json(folder.path / "evaluation.json", {"loss": 1.5, "checkpoint": EVIL})
    page = page_of(tmp_path, folder)
    assert [t for t, _ in page.tags if t in ("script", "img", "b")] == ["script"] * 3
    (script,) = [a for t, a in page.tags if t == "script" and "nonce" in a]
    assert script["nonce"] and f"'nonce-{script['nonce']}'" in page.source
    assert page.text.count("<script>alert(1)</script>") >= 4 and "{{ 7 * 7 }}" in page.text
    assert page.json["texts"][0][1]["text"] == EVIL + "\N{REPLACEMENT CHARACTER}[31m\n---\nsecond"
    assert page.json["charts"]["titles"][EVIL] == {"title": EVIL, "kind": "number"}
    assert page.row("stage") == [EVIL.strip()]
    assert "<b>run&" in page.text


def test_the_page_shows_the_results_of_a_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "shakespeare")
    evaluation = {
        "loss": 1.88634, "loss_low": 1.8711, "loss_high": 1.9019, "perplexity": 6.5951, "bits_per_byte": 2.7214,
        "bits_per_byte_low": 2.7, "bits_per_byte_high": 2.7431, "tokens": 111_539, "checkpoint": "best",
    }  # fmt: skip
    write_json(folder.path / "evaluation.json", evaluation)
    page = page_of(tmp_path, folder)
    expected = {
        "validation loss": "1.8863 [1.8711, 1.9019]", "bits per byte": "2.721 [2.700, 2.743]", "perplexity": "6.595",
        "evaluated": "best · 111,539 tokens", "best validation loss in training": "1.9000 at step 300",
        "last validation loss": "2.1500", "steps": "400", "tokens": "307,200 · 3.07 epochs",
        "time": "0:20", "tokens per second": "15.4k", "peak memory": "700 MB", "seed": "1337",
        "parameters": "804,096", "model": "gpt2 · 4 layers · 4 heads · 128 width · 64 context",
        "tokenizer": "char · 65 tokens", "data": "data/shakespeare-char · sha256 cdcdcdcdcdcd…",
        "training split": "100,000 tokens", "started from": "random weights", "begun": "2026-08-01 12:00:00 UTC",
    }  # fmt: skip
    for name, text in expected.items():
        assert page.row(name) == [text], name
    assert "Settings that differ" not in page.text and "trouble" not in page.text
    assert "context_length: 64" in page.text, "the whole configuration is there"
    assert "[1.871, 1.902]" in page.text and "804k" in page.text


def test_runs_stand_side_by_side_with_their_different_settings(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", rows(200), train={"steps": 400, "seed": 7}, optim={"name": "muon"})
    write_json(two.path / "run.json", two.record() | {"parent": {"run": "runs/one", "step": 400, "sha256": "ef" * 32}})
    page = page_of(tmp_path, one, two)
    assert page.row("started from") == ["random weights", "runs/one at step 400 · sha256 efefefefefef…"]
    assert page.row("steps") == ["400", "200 of 400"]
    assert page.row("train.seed") == ["1337", "7"]
    assert page.row("optim.name") == ["adamw", "muon"] and page.row("optim.momentum") == ["–", "0.95"]
    assert not any(cells[:1] == ["train.steps"] for cells in page.cells), "equal settings are not shown"
    assert "2 runs compared" in page.text


def test_the_charts_carry_every_curve_on_every_axis(tmp_path: Path) -> None:
    lines = rows(20_000)
    page = page_of(tmp_path, make_run(tmp_path / "long", lines), make_run(tmp_path / "short"))
    charts = page.json["charts"]
    assert list(charts["titles"]) == ["lr", "tokens_per_second", "memory_bytes", "kl"]
    long, short = (run["curves"] for run in charts["runs"])
    assert {len(values) for values in long["train/loss"].values()} == {400}
    assert {len(values) for values in short["train/loss"].values()} == {40}
    assert set(long["train/loss"]) == {"step", "tokens", "seconds", "y", "smooth"}
    assert long["val/loss"]["step"] == [5000, 10_000, 15_000, 20_000]
    assert long["val/loss"]["y"][2] == pytest.approx(1.9)
    assert long["train/loss"]["tokens"][-1] == 20_000 * 768 and long["train/loss"]["seconds"][-1] == 1000
    (main,) = charts["main"]
    assert main["limits"][0] < 1.7 and main["limits"][1] > 2.4
    assert (main["title"], main["runs"], main["note"]) == ("loss (nats per token)", [0, 1], "")
    assert len(page.source) < 200_000


def test_curves_of_different_units_or_data_do_not_share_an_axis_without_a_note(tmp_path: Path) -> None:
    def lines(metric: str) -> list[dict[str, Any]]:
        return [line | {metric: 0.5, metric.replace("train", "val"): 0.25} for line in rows(400)]

    base = make_run(tmp_path / "base")
    folders = {"pretrain": base}
    for stage, data in (("sft", "aa"), ("dpo", "bb"), ("grpo", "cc")):
        folders[stage] = make_run(tmp_path / stage, lines("train/reward"))
        about = folders[stage].record()
        write_json(
            folders[stage].path / "run.json", about | {"stage": stage, "data": about["data"] | {"sha256": data * 32}}
        )
    page = page_of(tmp_path, *folders.values())
    charts = page.json["charts"]
    assert [(chart["title"], chart["runs"], chart["val"]) for chart in charts["main"]] == [
        ("loss (nats per token)", [0, 1], "val/loss"), ("loss (nats per pair)", [2], "val/loss"),
        ("reward", [3], "val/reward"),
    ]  # fmt: skip
    assert "different data" in charts["main"][0]["note"] and "count the answers only" in charts["main"][0]["note"]
    assert charts["main"][1]["note"] == "" and charts["main"][2]["best"] == "max"
    assert [member["title"] for member in charts["members"]] == [
        "loss (nats per token)", "loss (nats per token)", "loss (nats per pair)", "reward",
    ]  # fmt: skip
    alone = page_of(tmp_path, folders["grpo"])
    assert alone.row("best validation reward in training") == ["-1.9000 at step 300"]
    assert "validation loss" not in alone.text


def test_the_page_has_a_list_of_contents(tmp_path: Path) -> None:
    _, child = before_and_after(tmp_path)
    page = page_of(tmp_path, child)
    links = [(attributes["href"] or "").removeprefix("#") for tag, attributes in page.tags if tag == "a"]
    ids = [attributes.get("id") for _, attributes in page.tags]
    assert {"summary", "lineage", "tasks", "curves", "configuration"} <= set(links) <= set(ids)
    assert "reward-model" not in links and "differences" not in links


def test_tables_that_scroll_can_be_reached_by_the_keyboard(tmp_path: Path) -> None:
    _, child = before_and_after(tmp_path)
    page = page_of(tmp_path, child, make_run(tmp_path / "other", train={"steps": 400, "seed": 7}))
    wide = [attributes for _, attributes in page.tags if "wide" in (attributes.get("class") or "").split()]
    assert len(wide) == 3
    for attributes in wide:
        assert attributes["tabindex"] == "0" and attributes["role"] == "region"
        assert attributes.get("aria-label") or attributes.get("aria-labelledby") in {a.get("id") for _, a in page.tags}


def test_a_metric_that_no_table_knows_has_a_chart_under_its_name(tmp_path: Path) -> None:
    lines = [line | {"train/novelty": 0.5} for line in rows(400)]
    titles = page_of(tmp_path, make_run(tmp_path / "a", lines)).json["charts"]["titles"]
    assert titles["train/novelty"] == {"title": "train/novelty", "kind": "number"}


def test_samples_come_in_order_and_not_without_end(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    for step in range(100, 20_100, 100):
        (folder.samples / f"step_{step}.txt").write_text(f"text of {step}\n" + "x" * 50_000)
    page = page_of(tmp_path, folder)
    texts = page.json["texts"][0]
    steps = [text["step"] for text in texts]
    assert steps == sorted(steps) and steps[0] == 100 and steps[-1] == 20_000 and len(steps) == 40
    assert len(texts[0]["text"]) == 20_000
    assert "text of 20000" in page.text and "text of 100\n" not in page.text, "the last one is shown first"


def test_a_run_that_has_just_begun_or_went_wrong_has_its_page_too(tmp_path: Path) -> None:
    broken = [line | ({"train/loss": None} if line["step"] > 200 else {}) for line in rows(400)]
    page = page_of(tmp_path, make_run(tmp_path / "new", []), make_run(tmp_path / "broken", broken))
    assert page.row("trouble") == ["–", "the loss was not finite at step 210 (20 lines)"]
    assert page.row("steps") == ["–", "400"]
    assert "not evaluated yet" in page.text
    assert page.json["charts"]["runs"][0] == {"name": "new", "curves": {}}
    alone = page_of(tmp_path, RunFolder(tmp_path / "new"))
    assert "not evaluated yet" in alone.text


def test_runs_of_one_name_are_distinguished(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / where / "same") for where in ("here", "there")]
    page = page_of(tmp_path, *folders, make_run(tmp_path / "other"))
    names = [run["name"] for run in page.json["charts"]["runs"]]
    assert names == [str(tmp_path / "here" / "same"), str(tmp_path / "there" / "same"), "other"]


def test_the_page_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    assert write_report([folder.path], tmp_path) == tmp_path / "report.html"
    assert write_report([folder.path], tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written .* choose another --out"):
        write_report([folder.path], tmp_path / "file" / "page.html")


def test_a_page_replaces_nothing_but_a_regular_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (tmp_path / "page.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    os.mkfifo(tmp_path / "pipe.html")
    for name in ("link.html", "pipe.html"):
        with pytest.raises(ValueError, match=f"{name} is no regular file; choose the name of a new or regular file"):
            write_report([folder.path], tmp_path / name)
    assert (tmp_path / "page.html").read_text() == "old" and (tmp_path / "link.html").is_symlink()
    assert write_report([folder.path], tmp_path / "page.html").read_text() != "old"


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(ValueError, match="there is no run"):
        write_report([tmp_path / "nothing"], tmp_path / "page.html")
    folder = make_run(tmp_path / "a")
    (folder.path / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation.json is missing or damaged"):
        write_report([folder.path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# A run and its parents.

BASE_SHA, CHILD_SHA = "ef" * 32, "12" * 32


def checkpoint(folder: RunFolder, step: int, sha256: str) -> None:
    at = folder.checkpoints / f"step_{step}"
    at.mkdir()
    write_json(at / "state.json", {"step": step, "weights_sha256": sha256})


def make_child(path: Path, parent: RunFolder, sha256: str = BASE_SHA) -> RunFolder:
    """A finetuned run; its parent gets the checkpoint it names, unless it has one."""
    if not parent.steps():
        checkpoint(parent, 400, BASE_SHA)
    folder = make_run(path)
    data = {
        "path": "data/talk", "sha256": "ab" * 32, "train_conversations": 1500, "train_tokens": 90_000,
        "train_trained_tokens": 20_000, "val_conversations": 70, "val_tokens": 4000, "val_trained_tokens": 900,
        "counts": {"train": {"conversations": 1503, "whole": 1490, "cut_at_a_turn": 10, "too_long": 3}},
    }  # fmt: skip
    about = folder.record() | {
        "stage": "sft", "data": data, "trained_parameters": 5_000,
        "parent": {"run": str(parent.path), "step": 400, "sha256": sha256},
    }  # fmt: skip
    write_json(folder.path / "run.json", about)
    checkpoint(folder, 300, CHILD_SHA)
    return folder


def add_task(folder: RunFolder, name: str, scores: dict[str, float], **changes: Any) -> None:
    """The files of `evaluate --tasks`; a question's category is the beginning of its id, before the dash."""
    n, right = len(scores), sum(scores.values())
    result = {
        "checkpoint": "400", "metric": "accuracy", "accuracy": right / n, "low": 0.1, "high": 0.9, "n": n, "few_shot": 0,
        "metrics": {"accuracy": {"value": right / n, "low": 0.1, "high": 0.9, "n": n}}, "categories": {},
    }  # fmt: skip
    categories: dict[str, list[float]] = {}
    for id, score in scores.items():
        categories.setdefault(id.partition("-")[0], []).append(score)
    for category, own in categories.items():
        accuracy = sum(own) / len(own)
        result["categories"][category] = {"accuracy": accuracy, "low": 0.0, "high": accuracy, "n": len(own)}
    path = folder.path / "evaluation_tasks.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, saved | {name: result | changes})
    (folder.path / "evaluations").mkdir(exist_ok=True)
    lines = [
        {"id": id, "category": id.partition("-")[0], "score": score, "answer": f"{folder.name} says {id}"}
        for id, score in scores.items()
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder.path / "evaluations" / f"{name}.jsonl").write_text(text)


def before_and_after(tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """Two of eight right, then seven: one lost, six won."""
    base = make_run(tmp_path / "base")
    child = make_child(tmp_path / "child", base)
    names = [f"{category}-{i}" for i in range(4) for category in ("who", "sum")]
    add_task(base, "village", {name: float(i < 2) for i, name in enumerate(names)})
    add_task(child, "village", {name: float(i > 0) for i, name in enumerate(names)}, checkpoint="300")
    return base, child


def table(page: Page, name: str) -> list[str]:
    return page.row(name)[1:]  # after the chart


def test_a_run_with_a_parent_shows_its_lineage(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    child = make_child(tmp_path / "child", base)
    page = page_of(tmp_path, child)
    story = page.text[page.text.rindex("Lineage") : page.text.rindex("Curves")]
    assert story.index("pretrain") < story.index("sft")
    for text in (
        "data/shakespeare-char · sha256 cdcdcdcdcdcd…", "100,000 tokens", "step 400 · sha256 efefefefefef…",
        "data/talk · sha256 abababababab…", "1,500 conversations · 90,000 tokens · 20,000 of them in answers",
        "10 cut at a turn · 3 dropped as too long", "804,096 · 5,000 of them trained", "1.9000 at step 300",
        "step 300 · sha256 121212121212…",
    ):  # fmt: skip
        assert text in story, text
    assert "trouble" not in page.source[page.source.index("<body>") :].partition("<script")[0]
    assert [run["name"] for run in page.json["charts"]["runs"]] == ["child"], "the comparison has only the given runs"
    (ancestor,) = page.json["charts"]["ancestors"]
    assert ancestor["name"] == "base" and set(ancestor["curves"]) == {"train/loss", "val/loss"}
    assert page.row("cut or dropped") == ["10 cut at a turn · 3 dropped as too long"]


@pytest.mark.parametrize("fault", ["gone", "retrained", "pruned", "damaged"])
def test_trouble_with_a_parent_is_noted_and_stops_nothing(fault: str, tmp_path: Path) -> None:
    base, child = before_and_after(tmp_path)
    if fault == "gone":
        shutil.rmtree(base.path)
    elif fault == "retrained":
        write_json(base.checkpoints / "step_400" / "state.json", {"weights_sha256": "77" * 32})
    elif fault == "pruned":
        shutil.rmtree(base.checkpoints / "step_400")
    else:
        base.metrics.write_text("{\n{}\n")
    page = page_of(tmp_path, child)
    message = {
        "gone": f"the folder {base.path} does not exist any more",
        "retrained": "its checkpoint of step 400 now has other weights (sha256 777777777777…) than those the child "
        "started from (sha256 efefefefefef…)",
        "pruned": "its checkpoint of step 400 does not exist any more",
        "damaged": f"line 1 of {base.metrics} is damaged",
    }
    assert message[fault] in page.text
    assert "87.5%" in page.text, "its own results are there"
    assert ("Tasks, before and after" in page.text) == (fault in ("retrained", "pruned"))


def test_runs_that_moved_together_find_each_other(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    before_and_after(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    page = page_of(tmp_path, RunFolder(tmp_path / "new" / "child"))
    assert "does not exist" not in page.text and "Tasks, before and after" in page.text


def test_tasks_stand_before_and_after_with_intervals_and_a_paired_test(tmp_path: Path) -> None:
    _, child = before_and_after(tmp_path)
    page = page_of(tmp_path, child)
    assert table(page, "accuracy") == ["25.0%10.0 to 90.0n 8", "87.5%10.0 to 90.0n 8"]
    assert table(page, "who") == ["25.0%0.0 to 25.0n 4", "75.0%0.0 to 75.0n 4"]
    assert table(page, "sum") == ["25.0%0.0 to 25.0n 4", "100.0%0.0 to 100.0n 4"]
    # one lost and six won: 2 * (1 + 7) / 2^7; the mean difference 5/8 has the deviation sqrt(31/56)
    assert (
        "child scores 62.5 points higher than base (95% interval +10.9 to +114.1) on the same 8 questions: child alone "
        "is right on 6, base alone on 1, p = 0.12 (exact paired test)."
    ) in page.text
    marks = [a for tag, a in page.tags if tag == "circle"]
    assert [mark["cx"] for mark in marks[:2]] == ["25.0%", "87.5%"]
    card = page.text[: page.text.rindex("Lineage")]
    assert "village" in card and "87.5%" in card


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            {"who-0": 1.0, "sum-0": 1.0, "where-1": 0.0},
            "base and child score the same (95% interval +0.0 to +0.0) on the 2 questions that both had: child alone "
            "is right on 0, base alone on 0, p = 1 (exact paired test).",
        ),
        ({"else-0": 1.0}, "base and child were evaluated on different questions"),
        ({"who-0": 0.5, "sum-0": 1.0}, "higher on 0, lower on 1, p = 1 (exact paired test)"),
        (None, "The answers of child were not saved"),
    ],
)  # fmt: skip
def test_only_the_same_questions_are_compared(scores: dict[str, float] | None, message: str, tmp_path: Path) -> None:
    _, child = before_and_after(tmp_path)
    if scores is None:
        (child.path / "evaluations" / "village.jsonl").unlink()
    else:
        add_task(child, "village", scores)
    assert message in page_of(tmp_path, child).text


def test_a_task_that_measures_a_loss_is_no_percentage(tmp_path: Path) -> None:
    base, child = before_and_after(tmp_path)
    for folder, loss in ((base, 2.0), (child, 1.5)):
        value = {"value": loss, "low": loss - 0.25, "high": loss + 0.25, "n": 2}
        metrics = {"loss": value, "bits_per_byte": value | {"value": 0.7}}
        changes = {"metric": "loss", "loss": loss, "low": loss - 0.25, "high": loss + 0.25, "metrics": metrics}
        add_task(folder, "text", {"a": loss, "b": loss - 0.1}, categories={}, **changes)
    page = page_of(tmp_path, child)
    assert table(page, "loss") == ["2.00001.7500 to 2.2500n 2", "1.50001.2500 to 1.7500n 2"]
    assert table(page, "bits_per_byte")[0].startswith("0.7000")
    assert "The loss of child is 0.5000 nats per token lower than that of base" in page.text
    assert page.text.count("answers of child") == 1, "those of the other task"


def test_unfair_comparisons_are_noted(tmp_path: Path) -> None:
    base, child = before_and_after(tmp_path)
    add_task(base, "village", {"who-0": 1.0}, checkpoint="200", few_shot=5, cut=3)
    text = page_of(tmp_path, child).text
    assert "base was evaluated at step 200; its child started from step 400." in text
    assert "The runs had different numbers of few-shot examples." in text and "step 200 · 5 few-shot examples" in text
    assert "3 prompts were too long for the context of base and lost their beginning." in text


def test_some_right_and_wrong_answers_are_shown_with_the_parents(tmp_path: Path) -> None:
    _, child = before_and_after(tmp_path)
    path = child.path / "evaluations" / "village.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0] |= {"question": "Who was it?", "expected": "Ben."}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(tmp_path, child)
    shown = page.text[page.text.index("answers of child: 7 right, 1 wrong") :]
    assert shown.count("✓ right") == 5 and shown.count("✗ wrong") == 1
    wrong = shown[shown.index("✗ wrong") :]
    order = ["who", "Who was it?", "child says who-0", "expected:", "Ben.", "base, right:", "base says who-0"]
    places = [wrong.index(text) for text in order]
    assert places == sorted(places)
    assert "base, wrong:" in shown


def test_shown_answers_come_from_as_many_categories_as_can_be(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    add_task(folder, "village", {f"c{i % 9}-{i}": 1.0 for i in range(90)})
    (task,) = compare_tasks(read_family([folder.path]))
    (answers,) = task["answers"]
    assert [row["category"] for row in answers["right"]] == ["c0", "c2", "c4", "c6", "c8"]
    assert answers["wrong"] == [] and not task["sentences"]
    assert "before and after" not in page_of(tmp_path, folder).text


def test_samples_of_an_assistant_are_exchanges(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    child = make_child(tmp_path / "child", base)
    (base.samples / "step_400.txt").write_text("user: no\nassistant: a story\n")
    (child.samples / "step_100.txt").write_text("user: Hello\nassistant: the the\n")
    (child.samples / "step_300.txt").write_text(
        "user: Hello\nassistant: Good day.\n---\nuser: Draw\na line\nassistant: Here:\n---\nDone.\n---\nuser: Why?\nassistant: \n"
    )
    page = page_of(tmp_path, child)
    ours, theirs = page.json["texts"]
    assert theirs == [{"step": 400, "text": "user: no\nassistant: a story\n"}], "a base model's text is as it is"
    assert ours[0] == {"step": 100, "exchanges": [["Hello", "the the", None]]}
    expected = [["Hello", "Good day.", None], ["Draw\na line", "Here:\n---\nDone.", None], ["Why?", "", None]]
    assert ours[1]["exchanges"] == expected
    assert "Good day." in page.text and "(nothing)" in page.text and "the the" not in page.text
    boxes = [a["data-run"] for _, a in page.tags if "data-run" in a]
    assert boxes == ["1", "0"], "the parent comes first"


def test_accuracies_have_charts_in_percent(tmp_path: Path) -> None:
    def lines(**values: float) -> list[dict[str, Any]]:
        return [line | (values if "val/loss" in line else {}) for line in rows(400)]

    one = make_run(tmp_path / "one", lines(accuracy=0.5, **{"accuracy/village": 0.5}))
    two = make_run(tmp_path / "two", lines(accuracy=0.4, **{"accuracy/village": 0.5, "accuracy/sums": 0.3}))
    lossy = make_run(tmp_path / "lossy", lines(accuracy=0.9, **{"accuracy/text": 1.7}))
    share = {"title": "accuracy on village", "kind": "share"}
    titles = page_of(tmp_path, one).json["charts"]["titles"]
    assert list(titles)[:2] == ["accuracy/village", "lr"] and "accuracy" not in titles, (
        "the mean of one task is that task"
    )
    assert titles["accuracy/village"] == share
    titles = page_of(tmp_path, one, two).json["charts"]["titles"]
    assert titles["accuracy"] == {"title": "accuracy, mean of the tasks", "kind": "share"}
    assert list(titles)[:3] == ["accuracy", "accuracy/village", "accuracy/sums"]
    assert page_of(tmp_path, lossy).json["charts"]["titles"]["accuracy/text"]["kind"] == "number"


def test_a_lineage_is_shown_once_and_from_its_beginning(tmp_path: Path) -> None:
    base, child = before_and_after(tmp_path)
    last = make_child(tmp_path / "last", child)
    parent = {"run": str(child.path), "step": 300, "sha256": CHILD_SHA}
    write_json(last.path / "run.json", last.record() | {"parent": parent})
    add_task(last, "village", {"who-0": 1.0})
    family = read_family([child.path, last.path])
    assert [member.label for member in family.members] == ["child", "last", "base"]
    assert family.order() == [2, 0, 1] and family.ancestors(1) == [0, 2]
    (story,) = family.stories()
    assert [link.member for link in story] == [2, 0, 1]
    (task,) = compare_tasks(family)
    assert [column["label"] for column in task["columns"]] == ["base", "child", "last"]
    assert [sentence.split()[0] for sentence in task["sentences"]] == ["child", "last"]
    page = page_of(tmp_path, base, child, last)
    assert "3 runs compared" in page.text and len(page.json["charts"]["runs"]) == 3
    assert not page.json["charts"]["ancestors"]


def test_runs_without_parents_have_no_lineage(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_run(tmp_path / "a"), make_run(tmp_path / "b"))
    assert "Lineage" not in page.text and "Tasks" not in page.text


def test_nothing_that_answers_or_ancestors_bring_becomes_markup(tmp_path: Path) -> None:
    base = make_run(tmp_path / "<img src=x>")
    child = make_child(tmp_path / "<b>child", base)
    about = child.record()
    write_json(child.path / "run.json", about | {"data": about["data"] | {"path": EVIL, "sha256": EVIL}})
    write_json(base.path / "run.json", base.record() | {"stage": EVIL})
    (child.samples / "step_300.txt").write_text(f"user: {EVIL}\nassistant: {EVIL}\x1b[31m\n")
    for folder in (base, child):
        add_task(folder, "village", {"a": 0.0}, checkpoint=EVIL, few_shot=EVIL)
        lines = [{"id": "a", "score": 1.0} | dict.fromkeys(("category", "answer", "question", "expected"), EVIL)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder.path / "evaluations" / "village.jsonl").write_text(text)
        path = folder.path / "evaluation_tasks.json"
        results = json.loads(path.read_text())
        results["village"]["categories"] = {EVIL: results["village"]["metrics"]["accuracy"]}
        results["village"]["metrics"][EVIL] = results["village"]["metrics"]["accuracy"]
        write_json(path, results | {EVIL: results["village"], "../../x": results["village"]})
    page = page_of(tmp_path, child)
    assert [t for t, _ in page.tags if t in ("script", "img", "b")] == ["script"] * 3
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("<script>alert(1)</script>") > 15
    assert page.json["texts"][0][0]["exchanges"] == [[EVIL, EVIL + "\N{REPLACEMENT CHARACTER}[31m", None]]
