"""`--processes N`: one command that trains in several processes as it would in one, and ends as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from understudy import processes
from understudy.cli import main
from understudy.config.load import dump_config
from understudy.processes import start_together
from understudy.run import RunFolder, read_metrics

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not tested on Windows")


@pytest.fixture
def config(small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    settings = {"train__batch_size": 8, "log__every_steps": 5, "log__samples": 0, "train__dtype": "fp32"}
    Path("small.yaml").write_text(dump_config(small_config(**settings)))
    return Path("small.yaml")


def test_two_processes_train_as_one(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(config), "--run", "two", "--processes", "2"]) == 0
    printed = capfd.readouterr()
    assert main(["pretrain", str(config), "--run", "one", "--processes", "1"]) == 0
    one, two = (read_metrics(RunFolder(Path("runs") / name).metrics) for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for name in ("train/loss", "val/loss", "tokens"):
        assert [row[name] for row in two if name in row] == pytest.approx(
            [row[name] for row in one if name in row], rel=1e-4
        )
    alone = capfd.readouterr()
    assert printed.err.count("validation loss") == alone.err.count("validation loss") > 0


def test_a_mistake_is_one_sentence_and_status_2(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", str(config), "--run", "two", "--processes", "2", "--train.batch_size", "7"]
    assert main(words) == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("understudy: ")]
    assert "train.batch_size 7 cannot be shared by 2 processes" in line and not Path("runs/two").exists()


def test_processes_beside_torchruns_are_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main(["pretrain", str(config), "--processes", "2"]) == 2
    assert "this is one of 4 processes; leave --processes out" in capfd.readouterr().err
    assert main(["pretrain", str(config), "--processes", "0"]) == 2


def test_a_signal_stops_all_of_them_with_their_state_saved(config: Path) -> None:
    words = [
        "pretrain",
        str(config),
        "--run",
        "long",
        "--processes",
        "2",
        "--train.steps",
        "100000",
        "--eval.every_steps",
        "0",
    ]
    training = subprocess.Popen([sys.executable, "-m", "understudy", *words], stderr=subprocess.PIPE, text=True)
    metrics = RunFolder(Path("runs/long")).metrics
    deadline = time.monotonic() + 120
    while not (metrics.exists() and read_metrics(metrics)) and time.monotonic() < deadline:
        time.sleep(0.1)
    training.send_signal(signal.SIGTERM)
    _, errors = training.communicate(timeout=120)
    assert training.returncode == 130, errors
    assert errors.count("it is saved") == 1 and RunFolder(Path("runs/long")).steps()


def test_one_that_dies_takes_the_others_with_it_and_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "understudy.py").write_text(
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1':\n    sys.exit('the second has no memory left')\n"
        "time.sleep(600)\n"
    )
    monkeypatch.chdir(tmp_path)  # `python -m` looks here first
    monkeypatch.setattr(processes, "GRACE", 0.2)
    began = time.monotonic()
    assert start_together(2, [], 2) == 1
    assert time.monotonic() - began < 60
    assert "the second has no memory left" in capfd.readouterr().err
