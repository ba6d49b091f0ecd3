"""loss.png and the page that compares runs: complete, self-contained, and deaf to markup in what a run brings."""

from __future__ import annotations

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy.evaluate.plots import loss_limits, loss_plot, series, smooth, thin
from understudy.evaluate.report import write_report
from understudy.run import RunFolder, write_json
from understudy.settings import build_config
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

    def handle_data(self, data: str) -> None:
        if self._inside in ("charts", "texts"):
            self.json[self._inside] = json.loads(data)
        elif not self._inside:
            self.text += data
            if self.cells and self.cells[-1]:
                self.cells[-1][-1] += data.strip()

    def row(self, name: str) -> list[str]:
        (found,) = [cells[1:] for cells in self.cells if cells and cells[0] == name]
        return found


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
        assert not {"src", "href", "srcset", "action"} & attributes.keys(), (tag, attributes)
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
    about = folder.about()
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


def test_the_page_says_what_a_run_came_to(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "shakespeare")
    evaluation = {
        "loss": 1.88634, "loss_low": 1.8711, "loss_high": 1.9019, "perplexity": 6.5951, "bits_per_byte": 2.7214,
        "bits_per_byte_low": 2.7, "bits_per_byte_high": 2.7431, "tokens": 111_539, "checkpoint": "best",
    }  # fmt: skip
    write_json(folder.path / "evaluation.json", evaluation)
    page = page_of(tmp_path, folder)
    expected = {
        "validation loss": "1.8863 [1.8711, 1.9019]", "bits a byte": "2.721 [2.700, 2.743]", "perplexity": "6.595",
        "evaluated": "best · 111,539 tokens", "best while training": "1.9000 at step 300",
        "last validation loss": "2.1500", "steps": "400", "tokens": "307,200 · 3.07 passes over the data",
        "time": "0:20", "tokens a second": "15.4k", "memory at peak": "700 MB", "seed": "1337",
        "parameters": "804,096", "model": "gpt2 · 4 layers · 4 heads · 128 wide · 64 context",
        "tokenizer": "char · 65 tokens", "data": "data/shakespeare-char · sha256 cdcdcdcdcdcd…",
        "training split": "100,000 tokens", "started from": "random weights", "begun": "2026-08-01 12:00:00 UTC",
    }  # fmt: skip
    for name, text in expected.items():
        assert page.row(name) == [text], name
    assert "Set differently" not in page.text and "trouble" not in page.text
    assert "context_length: 64" in page.text, "the whole configuration is there"
    assert "[1.871, 1.902]" in page.text and "804k" in page.text


def test_runs_stand_side_by_side_with_what_was_set_differently(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", rows(200), train={"steps": 400, "seed": 7}, optim={"name": "muon"})
    write_json(two.path / "run.json", two.about() | {"parent": {"run": "runs/one", "step": 400, "sha256": "ef" * 32}})
    page = page_of(tmp_path, one, two)
    assert page.row("started from") == ["random weights", "runs/one at step 400 · sha256 efefefefefef…"]
    assert page.row("steps") == ["400", "200 of 400"]
    assert page.row("train.seed") == ["1337", "7"]
    assert page.row("optim.name") == ["adamw", "muon"] and page.row("optim.momentum") == ["–", "0.95"]
    assert not any(cells[:1] == ["train.steps"] for cells in page.cells), "what is the same is not in the way"
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
    assert charts["limits"][0] < 1.7 and charts["limits"][1] > 2.4
    assert len(page.source) < 200_000


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
    assert page.row("trouble") == ["–", "the loss was no number at step 210 (20 lines)"]
    assert page.row("steps") == ["–", "400"]
    assert "not evaluated yet" in page.text
    assert page.json["charts"]["runs"][0] == {"name": "new", "curves": {}}
    alone = page_of(tmp_path, RunFolder(tmp_path / "new"))
    assert "not evaluated yet" in alone.text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
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
