"""Metrics, progress and trackers of a run, none of which can stop the training."""

from __future__ import annotations

import io
import itertools
import json
import math
import mmap
import os
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from understudy.config.run import LogConfig
from understudy.console import bytes_text, count_text, duration_text, final_table, printable
from understudy.run import RunFolder, read_metrics
from understudy.train.console_panel import ProgressPanel, sparkline
from understudy.train.metrics import TrainingMetrics, memory_bytes


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that can move its cursor, whatever runs the tests."""
    monkeypatch.setenv("TERM", "xterm-256color")


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "tokens": step * 64, "train_seconds": step * 0.5, "train/loss": 4.0 - step / 1000} | more


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain_console() -> tuple[Console, io.StringIO]:
    return Console(file=(out := io.StringIO()), width=200), out


def terminal_console(width: int = 100) -> tuple[Console, Terminal]:
    return Console(file=(out := Terminal()), width=width, height=40, force_terminal=True, color_system="256"), out


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "a-run").mkdir()
    return RunFolder(tmp_path / "a-run")


# The file.


def test_lines_are_flat_json_and_readable_while_the_run_trains(folder: RunFolder) -> None:
    with TrainingMetrics(folder, LogConfig(), 100, console=plain_console()[0]) as metrics:
        metrics.write(row(1, lr=np.float32(0.25)))
        metrics.write(row(2, **{"train/loss": math.nan, "grad_norm": math.inf}))
        lines = folder.metrics.read_text().splitlines()
        assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == read_metrics(folder.metrics)
        assert read_metrics(folder.metrics) == [
            {"step": 1, "tokens": 64, "train_seconds": 0.5, "train/loss": 3.999, "lr": 0.25},
            {"step": 2, "tokens": 128, "train_seconds": 1.0, "train/loss": None, "grad_norm": None},
        ]


def test_a_line_without_required_fields_is_a_defect(folder: RunFolder) -> None:
    with (
        TrainingMetrics(folder, LogConfig(), 100, console=plain_console()[0]) as metrics,
        pytest.raises(AssertionError),
    ):
        metrics.write({"step": 1, "tokens": 64})


@pytest.mark.parametrize("torn", [b'{"step": 4, "tok', b'{"step": 4, "\xc3', b"\x00\x00\x00", b"{}\n{"])
def test_a_last_line_cut_short_is_left_out(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    assert [line["step"] for line in read_metrics(path) if line] == [1, 2]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_damaged_line_before_the_last_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"line 2 of .* is damaged"):
        read_metrics(path)


def test_resuming_drops_repeated_steps(folder: RunFolder) -> None:
    console, _ = plain_console()
    with TrainingMetrics(folder, LogConfig(), 100, console=console) as metrics:
        for step in (10, 20, 30):
            metrics.samples(f"at {step}", step)
            metrics.write(row(step, **{"val/loss": 3.0 - step / 100}))
    with folder.metrics.open("ab") as file:
        file.write(b'{"step": 40, "tok')
    with TrainingMetrics(folder, LogConfig(), 100, resume_step=20, console=console) as metrics:
        assert [line["step"] for line in read_metrics(folder.metrics)] == [10, 20]
        assert sorted(path.name for path in folder.samples.iterdir()) == ["step_10.txt", "step_20.txt"]
        assert metrics.panel.best == (2.8, 20), "the panel's best loss is restored"
        metrics.write(row(30))
    assert [line["step"] for line in read_metrics(folder.metrics)] == [10, 20, 30]
    assert folder.metrics.read_bytes().endswith(b"}\n")


def test_resuming_keeps_lines_as_they_were(folder: RunFolder) -> None:
    values = row(1, **{"val/loss": 0.1 + 0.2, "lr": 1e-7, "mfu": math.nan})
    with TrainingMetrics(folder, LogConfig(), 9, console=plain_console()[0]) as metrics:
        metrics.write(values)
    before = folder.metrics.read_bytes()
    with TrainingMetrics(folder, LogConfig(), 9, resume_step=5, console=plain_console()[0]):
        pass
    assert folder.metrics.read_bytes() == before


def test_a_new_run_does_not_write_into_the_metrics_of_another(folder: RunFolder) -> None:
    folder.metrics.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="earlier run; continue it with --resume"):
        TrainingMetrics(folder, LogConfig(), 100)
    assert folder.metrics.read_text() == '{"step": 1}\n'


def test_the_other_processes_write_and_print_nothing(folder: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.metrics.write_text('{"step": 9}\n')
    with TrainingMetrics(folder, LogConfig(tensorboard=True), 100, resume_step=1, quiet=True) as metrics:
        metrics.write(row(1))
        metrics.note("hello")
        metrics.samples("hello", 1)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in folder.path.iterdir()] == ["metrics.jsonl"]
    assert folder.metrics.read_text() == '{"step": 9}\n', "only the main process drops lines"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence(folder: RunFolder) -> None:
    folder.metrics.symlink_to("/dev/full")
    full = pytest.raises(ValueError, match=r"metrics.jsonl cannot be written \(No space left.*--resume")
    with TrainingMetrics(folder, LogConfig(), 100, console=plain_console()[0]) as metrics, full:
        metrics.write(row(1))


def test_samples_have_a_file_that_a_repeated_step_replaces(folder: RunFolder) -> None:
    for text in ("no", "\nTo be <b>\n"):
        with TrainingMetrics(folder, LogConfig(), 100, resume_step=0, console=plain_console()[0]) as metrics:
            metrics.samples(text, 50)
            metrics.samples("later", 60)
    assert (folder.samples / "step_50.txt").read_text() == "\nTo be <b>\n"
    assert (folder.samples / "step_60.txt").read_text() == "later\n"


# Output on the terminal.


def test_a_log_gets_plain_aligned_lines_and_not_too_many(folder: RunFolder) -> None:
    console, out = plain_console()
    with TrainingMetrics(folder, LogConfig(), 2000, console=console) as metrics:
        metrics.note("device: cpu")
        for step in range(1, 2001):
            more = {"val/loss": 2.5} if step % 500 == 0 else {}
            metrics.write(row(step, lr=1e-3, tokens_per_second=15_400, memory_bytes=512e6, **more))
    text = out.getvalue()
    assert "\x1b" not in text and "\r" not in text
    lines = [line for line in text.splitlines() if line.startswith("step")]
    assert text.startswith("device: cpu\n") and 20 <= len(lines) <= 60
    assert lines[-1].startswith("step 2,000/2,000  loss") and lines[-1].endswith("0:00 left")
    assert len({line.index("  lr ") for line in lines}) == 1, "columns stand below each other"
    assert sum("val 2.5000" in line for line in lines) == 4, "every evaluation is shown, and only when it is new"


def test_a_terminal_gets_a_panel_and_its_cursor_back(folder: RunFolder) -> None:
    console, out = terminal_console()
    with pytest.raises(KeyboardInterrupt), TrainingMetrics(folder, LogConfig(), 200, console=console) as metrics:
        for step in range(1, 100):
            metrics.write(row(step, lr=2e-4, mfu=0.412, memory_bytes=512e6, memory_peak_bytes=1.25e9, kl=0.25))
        metrics.write(row(100, **{"val/loss": 3.5, "tokens_per_second": 12_345}))
        metrics.note("a note")
        raise KeyboardInterrupt
    text = out.getvalue()
    frame = without_codes(text[text.rindex("╭") :])
    for expected in (
        "a-run", "100 / 200 steps", "validation  3.5000", "best        3.5000 at 100", "learning rate  2.00e-04",
        "tokens/s  12.3k", "MFU            41.2%", "512 MB", "1.25 GB", "trained   0:50", "kl  ", "▁",
    ):  # fmt: skip
        assert expected in frame, f"{expected!r} is not in\n{frame}"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "a note" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_panel_fits_its_terminal(width: int) -> None:
    watch = ProgressPanel(1_000_000, {"stop_at_loss": 1.0})
    for step in range(1, 60):
        watch.update(row(step, **{"val/loss": 3.0, "lr": 1e-3, "memory_bytes": 1e9, "clip_fraction": 0.5, "kl": 0.1}))
    for unicode in (True, False):
        console, out = Console(file=(out := io.StringIO()), width=width, color_system=None), out
        console.print(watch.render("a-run", width, unicode))
        lines = out.getvalue().splitlines()
        assert {len(line) for line in lines} == {min(width, 90)}
        assert width < 40 or "…" not in out.getvalue()
        assert unicode or "".join(lines[1:-1]).replace("…", "").isascii()


def test_texts_of_a_model_cannot_steer_the_terminal(folder: RunFolder) -> None:
    console, out = plain_console()
    with TrainingMetrics(folder, LogConfig(), 100, console=console) as metrics:
        metrics.samples("\nred \x1b[31m [bold]not markup[/bold] \x07 日本\u00a0語\ttab", 10)
    shown = out.getvalue()
    assert "\x1b" not in shown and "\x07" not in shown and "\nred \N{REPLACEMENT CHARACTER}[31m" in shown
    assert "[bold]not markup[/bold]" in shown and "日本\u00a0語" in shown
    assert "\x1b[31m" in (folder.samples / "step_10.txt").read_text(), "the file keeps the text unchanged"
    assert printable("a\r\nb") == "a\nb"


def test_the_loss_is_smoothed_and_a_broken_one_is_not_hidden() -> None:
    watch = ProgressPanel(100)
    for step, loss in enumerate([4.0, 2.0, 4.0, 2.0, 4.0, 2.0], 1):
        watch.update(row(step, **{"train/loss": loss}))
        watch.update(row(step, **{"train/loss": loss}))  # shown, then written: counted once
    assert watch.smoothed_loss is not None and 2.5 < watch.smoothed_loss < 3.5 and len(watch.losses) == 6
    watch.update(row(7, **{"train/loss": math.nan}))
    assert math.isnan(watch.smoothed_loss)
    assert "loss     nan" in watch.line(evaluated=False)


def watched(stops: dict[str, Any], clock_per_step: float = 1.0, steps: int = 11) -> ProgressPanel:
    """A run of 100 steps, 64 tokens and a second of training each, of which ``steps`` are done."""
    clock = iter(np.arange(1, 1000) * clock_per_step)
    watch = ProgressPanel(100, stops, clock=lambda: now[0])
    now = [0.0]
    for step in range(1, steps + 1):
        now[0] = float(next(clock))
        watch.update({"step": step, "tokens": step * 64, "train_seconds": float(step)})
    return watch


@pytest.mark.parametrize(
    ("stops", "left", "fraction"),
    [
        ({}, 89, 0.11),
        ({"stop_at_seconds": None, "stop_at_tokens": None}, 89, 0.11),
        ({"stop_at_seconds": 31.0}, 20, 11 / 31),
        ({"stop_at_tokens": 64 * 21}, 10, 11 / 21),
        ({"stop_at_seconds": 500.0, "stop_at_tokens": 10**9}, 89, 0.11),
        ({"stop_at_seconds": 5.0}, 0, 1.0),
    ],
)
def test_time_left_is_until_the_first_end(stops: dict[str, Any], left: float, fraction: float) -> None:
    watch = watched(stops)
    assert watch.seconds_left == pytest.approx(left)
    assert watch.fraction == pytest.approx(fraction)


def test_time_left_counts_evaluations_and_an_early_stop_by_loss() -> None:
    assert watched({}, clock_per_step=1.5).seconds_left == pytest.approx(89 * 1.5)
    assert watched({"stop_at_loss": 2.0}).left_text == "at most 1:29"
    assert watched({}, steps=1).left_text == "–", "one measurement is no pace"
    assert watched({}, steps=100).left_text == "0:00"


def test_time_left_follows_the_recent_pace() -> None:
    watch = ProgressPanel(1000, clock=lambda: 0.0)
    for step in range(1, 101):
        seconds = step * 10.0 if step <= 50 else 500 + (step - 50) * 1.0
        watch.update({"step": step, "tokens": step, "train_seconds": seconds})
    assert watch.seconds_left == pytest.approx(900)


def test_a_resumed_run_has_no_pace_before_it_ran() -> None:
    watch = ProgressPanel(100, clock=lambda: 50.0)
    for step in range(1, 11):
        watch.update(row(step), live=False)
    assert watch.seconds_left is None
    assert len(watch.losses) == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count_text(0), "0"), (count_text(999), "999"), (count_text(1234), "1.23k"), (count_text(999_960), "1.00M"),
        (count_text(124_439_808), "124M"), (count_text(1.5577e9), "1.56B"), (bytes_text(512e6), "512 MB"),
        (bytes_text(1.25e9), "1.25 GB"), (bytes_text(12), "12 B"), (duration_text(7.4), "0:07"),
        (duration_text(59.6), "1:00"), (duration_text(3723), "1:02:03"), (duration_text(2 * 86400 + 60), "2d 0:01:00"),
    ],
)  # fmt: skip
def test_numbers_are_short(text: str, expected: str) -> None:
    assert text == expected


def test_a_sparkline_falls_with_the_loss() -> None:
    line = sparkline([(step, 100.0 / step) for step in range(1, 400)], 20)
    assert len(line) == 20 and line[0] == "█" and line[-1] == "▁"
    assert list(line) == sorted(line, reverse=True)
    assert sparkline([(1, 2.0), (2, 2.0)], 20) == "▁▁"


def test_the_history_behind_the_panel_stays_small() -> None:
    watch = ProgressPanel(100_000)
    for step in range(1, 20_001):
        watch.update(row(step))
    steps = [step for step, _ in watch.losses]
    assert 1000 <= len(steps) <= 2000 and steps[0] < 100 and steps[-1] > 19_900
    assert len({after - before for before, after in itertools.pairwise(steps)}) == 1, "no part of it counts more"


def test_the_final_table_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    final_table({"run": "runs/[red]a", "bits per byte": "2.721"})
    out, err = capsys.readouterr()
    assert out == "" and re.search(r"run +runs/\[red\]a", err) and re.search(r"bits per byte +2\.721", err)


def test_memory_of_the_process_now_and_at_its_peak() -> None:
    before, _ = memory_bytes(torch.device("cpu"))
    # From the system itself: an allocator may hand out pages that an earlier test freed and that count already.
    block = mmap.mmap(-1, 200_000_000)
    for _ in range(200):
        block.write(bytes(1_000_000))
    resident, peak_resident = memory_bytes(torch.device("cpu"))
    assert resident - before > 150e6 and peak_resident >= resident
    block.close()
    after, peak = memory_bytes(torch.device("cpu"))
    assert resident - after > 150e6 and peak >= peak_resident - 1e6
    assert 10e6 < after < 1e12, "bytes, not kilobytes or pages"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_a_gpu_is_the_allocators() -> None:
    device = torch.device("cuda")
    block = torch.zeros(10_000_000, device=device)
    now, peak = memory_bytes(device)
    assert 40e6 <= now <= peak
    del block
    assert memory_bytes(device)[0] <= now - 40e6


# Trackers.


def scalars(folder: RunFolder) -> tuple[dict[str, list[tuple[int, float]]], Any]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    return {name: [(e.step, round(e.value, 5)) for e in events.Scalars(name)] for name in tags["scalars"]}, events


def test_tensorboard_reads_back_each_measurement_once(folder: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    log = LogConfig(tensorboard=True)
    with TrainingMetrics(folder, log, 100, console=plain_console()[0]) as metrics:
        for step in (10, 20, 30):
            metrics.write(row(step))
        metrics.samples("To be\n# or not", 30)
    with TrainingMetrics(folder, log, 100, resume_step=20, console=plain_console()[0]) as metrics:
        metrics.write(row(30, **{"train/loss": 1.5}))
    curves, _ = scalars(folder)
    assert curves["train/loss"] == [(10, 3.99), (20, 3.98), (30, 1.5)]
    assert curves["tokens"] == [(10, 640), (20, 1280), (30, 1920)] and "step" not in curves


def test_tensorboard_shows_samples_as_they_are(folder: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    with TrainingMetrics(folder, LogConfig(tensorboard=True), 100, console=plain_console()[0]) as metrics:
        metrics.samples("To be\n# or not", 30)
    _, events = scalars(folder)
    (event,) = events.Tensors("samples/text_summary")
    assert event.step == 30 and event.tensor_proto.string_val[0] == b"    To be\n    # or not"


class FakeWandb:
    """A stand-in for a run at wandb that records its calls, and can be made to fail."""

    def __init__(self, failing: type[Exception] | None = None) -> None:
        self.starts: list[dict[str, Any]] = []
        self.logged: list[tuple[dict[str, Any], int | None]] = []
        self.metrics: list[tuple[str, str | None]] = []
        self.finished = 0
        self.failing = failing

    def init(self, **settings: Any) -> FakeWandb:
        print("a greeting")
        self.starts.append(settings)
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if self.failing:
            raise self.failing("the network is down\nwith details")
        self.logged.append((values, step))

    def finish(self) -> None:
        print("a farewell")
        self.finished += 1


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, fake: FakeWandb) -> types.ModuleType:
    module = types.ModuleType(name)
    content = {
        "init": fake.init,
        "Error": type("Error", (Exception,), {}),
        "Settings": lambda **s: s,
    }
    content["Html"] = lambda text: ("html", text)
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    fake = FakeWandb()
    pretend(monkeypatch, "wandb", fake)
    yield fake


def test_wandb_gets_everything_and_a_resumed_run_is_the_same_run(folder: RunFolder, wandb: FakeWandb) -> None:
    log, config = LogConfig(wandb=True, project="plays"), {"train": {"steps": 100}}
    with TrainingMetrics(folder, log, 100, config=config, console=plain_console()[0]) as metrics:
        metrics.write(row(10))
        metrics.samples("<i>", 10)
    with TrainingMetrics(folder, log, 100, resume_step=10, config=config, console=plain_console()[0]) as metrics:
        metrics.write(row(11))
    first, second = wandb.starts
    assert first == second, "the same id, project and configuration"
    assert re.fullmatch("[0-9a-f]{8}", first["id"]) and first["resume"] == "allow" and first["project"] == "plays"
    assert first["name"] == "a-run" and first["config"] == config and first["dir"] == str(folder.path)
    assert first["settings"] == {"console": "off"}, "or it would record each frame of the panel"
    assert wandb.logged == [
        (row(10), None),
        ({"samples": ("html", "<pre>&lt;i&gt;</pre>"), "step": 10}, None),
        (row(11), None),
    ]
    assert wandb.metrics[:2] == [("step", None), ("*", "step")] and wandb.finished == 2


def test_another_run_is_another_run_at_wandb(tmp_path: Path, wandb: FakeWandb) -> None:
    for name in ("one", "two", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
        with TrainingMetrics(RunFolder(tmp_path / name), LogConfig(wandb=True), 9, console=plain_console()[0]):
            pass
        (tmp_path / name / "metrics.jsonl").unlink()
    assert len({start["id"] for start in wandb.starts}) == 3, "a run begun anew in an old folder is a new one, too"


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_names_the_extra(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    with pytest.raises(ValueError, match=rf"log\.{name} is on.*pip install \"understudy\[track\]\""):
        TrainingMetrics(folder, LogConfig.model_validate({name: True}), 100)


@pytest.mark.parametrize("failing", [ConnectionError, RuntimeError, "its own"])
def test_a_tracker_that_fails_is_noted_once_and_training_continues(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, failing: Any
) -> None:
    pytest.importorskip("tensorboard")
    bad = FakeWandb()
    module = pretend(monkeypatch, "wandb", bad)
    bad.failing = module.Error if failing == "its own" else failing
    console, out = plain_console()
    with TrainingMetrics(folder, LogConfig(wandb=True, tensorboard=True), 100, console=console) as metrics:
        for step in (1, 2, 3):
            metrics.write(row(step))
            metrics.samples("text", step)
    assert out.getvalue().count("wandb failed (the network is down); training continues") == 1
    assert "details" not in out.getvalue()
    assert len(read_metrics(folder.metrics)) == 3
    assert [event.step for event in scalars(folder)[1].Scalars("train/loss")] == [1, 2, 3]


def test_a_defect_of_ours_is_not_taken_for_a_network(folder: RunFolder, wandb: FakeWandb) -> None:
    wandb.failing = TypeError
    with TrainingMetrics(folder, LogConfig(wandb=True), 100, console=plain_console()[0]) as metrics:
        with pytest.raises(TypeError):
            metrics.write(row(1))
        wandb.failing = None


def test_a_tracker_that_cannot_start_is_one_sentence(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pretend(monkeypatch, "wandb", FakeWandb())

    def refuse(**settings: Any) -> None:
        raise module.Error("no API key")

    monkeypatch.setattr(module, "init", refuse)
    with pytest.raises(ValueError, match=r"wandb could not be started \(no API key\).*leave log.wandb out"):
        TrainingMetrics(folder, LogConfig(wandb=True), 100, console=plain_console()[0])


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_real_terminal_is_noticed_and_a_pipe_too(folder: RunFolder) -> None:
    import pty

    main, side = pty.openpty()
    with os.fdopen(side, "w") as file:
        terminal = Console(file=file, width=80)
        pipe = Console(file=io.StringIO(), width=80, force_terminal=True)  # FORCE_COLOR in a log is no terminal
        with TrainingMetrics(folder, LogConfig(), 10, console=terminal) as metrics:
            metrics.write(row(1))
        with TrainingMetrics(folder, LogConfig(), 10, resume_step=1, console=pipe) as metrics:
            metrics.write(row(2))
    assert "╭─ a-run ─" in without_codes(os.read(main, 65536).decode())
    os.close(main)
    assert pipe.file.getvalue().startswith("step  2/10")  # type: ignore[attr-defined]
