"""Training that is stopped or killed and resumed, by one process or two, takes the same steps to the bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import Forked, run_python, run_two
from understudy.config.load import dump_config
from understudy.run import RunFolder, read_metrics, read_tensors
from understudy.stages.table import run_stage
from understudy.train.runner import check_resume


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    at = folder.checkpoint("latest")
    return read_tensors(at / "model.safetensors") | read_tensors(at / "training.safetensors")


def losses(folder: RunFolder) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in read_metrics(folder.metrics)}


HARD = {
    "model__dropout": 0.2,
    "optim__ema": 0.9,
    "model__ngram_orders": "[2]",
    "model__ngram_dropout": 0.2,
    "train__micro_batch_size": 4,
}


@pytest.mark.parametrize("settings", [{}, HARD], ids=["plain", "dropout-ema-ngrams"])
def test_a_run_stopped_at_any_step_resumes_to_the_same_bits(small_config: Any, tmp_path: Path, settings: dict) -> None:
    whole = RunFolder(tmp_path / "whole")
    run_stage(small_config(**settings), whole)
    for stop in (3, 6):
        folder = RunFolder(tmp_path / f"stopped{stop}")
        run_stage(small_config(train__stop_at_tokens=stop * 8 * 16, **settings), folder)
        assert folder.steps()[-1] == stop
        saved = folder.config()
        run_stage(check_resume(saved, small_config(**settings)), folder, resume=True)
        assert losses(folder) == losses(whole)
        for name, tensor in weights(whole).items():
            assert torch.equal(tensor, weights(folder)[name]), name


KILLED = """
import os, random, signal, sys, threading, time
from pathlib import Path
from understudy.cli import main

metrics, lines = Path("runs/killed/metrics.jsonl"), int(sys.argv[1])
def watch():
    while not metrics.exists() or metrics.read_bytes().count(b"\\n") < lines:
        time.sleep(0.001)
    time.sleep(random.random() / 50)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
main(["pretrain", "c.yaml", "--run", "killed"])
"""
"""It kills itself: one who watches from outside can come too late on a busy machine."""


def test_killed_at_a_random_moment_and_resumed_gives_the_same_bits(small_config: Any, tmp_path: Path) -> None:
    config = small_config(train__steps=60, checkpoint__every_steps=5, eval__every_steps=20)
    (tmp_path / "c.yaml").write_text(dump_config(config))
    folder, whole = RunFolder(tmp_path / "runs/killed"), RunFolder(tmp_path / "runs/whole")
    assert run_python(["-c", KILLED, str(random.randrange(6, 50))], tmp_path).returncode == -signal.SIGKILL
    assert folder.steps() and folder.steps()[-1] < 60
    run_stage(folder.config(), folder, resume=True)
    run_stage(config, whole)
    assert losses(folder) == losses(whole) and list(losses(whole)) == list(range(1, 61))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(folder)[name]), name


def test_a_run_stopped_before_its_first_checkpoint_begins_again(small_config: Any, tmp_path: Path) -> None:
    whole, folder = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    run_stage(small_config(), whole)
    run_stage(small_config(train__stop_at_tokens=128), folder)
    shutil.rmtree(folder.checkpoints)
    run_stage(small_config(), folder, resume=True)
    assert losses(folder) == losses(whole)


def test_ctrl_c_saves_and_exits_with_130(small_config: Any, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(dump_config(small_config(train__steps=100000, checkpoint__every_steps=0)))
    process = Forked(["-m", "understudy", "pretrain", "c.yaml", "--run", "r"], tmp_path)
    folder = RunFolder(tmp_path / "runs/r")
    while not folder.metrics.exists() or not read_metrics(folder.metrics):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130 and "--resume" in done.stderr and "Traceback" not in done.stderr
    assert folder.steps()[-1] == read_metrics(folder.metrics)[-1]["step"]


@pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not tested on Windows")
def test_one_process_then_two_give_the_losses_and_weights_of_one(small_config: Any, tmp_path: Path) -> None:
    config = small_config(train__micro_batch_size=2, optim__name="adamw")
    one, two = RunFolder(tmp_path / "runs/one"), RunFolder(tmp_path / "runs/two")
    run_stage(config, one)
    run_stage(small_config(train__micro_batch_size=2, optim__name="adamw", train__stop_at_tokens=2 * 128), two)
    words = ["pretrain", "--run-name", "two", "--resume", "--train.stop_at_tokens", "null"]
    run_two(["-m", "understudy", *words], tmp_path)
    for row, other in zip(read_metrics(one.metrics), read_metrics(two.metrics), strict=True):
        assert (row["step"], row["tokens"]) == (other["step"], other["tokens"])
        assert row["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)
        assert ("val/loss" in row) == ("val/loss" in other) or row["step"] == 2
        if "val/loss" in row:
            assert row["val/loss"] == pytest.approx(other["val/loss"], rel=1e-5)
    a, b = (read_tensors(folder.checkpoint() / "model.safetensors") for folder in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


LEAVE = """
import weakref
import torch
from understudy.runtime import start_runtime
with start_runtime("cpu") as runtime:
    group = weakref.ref(torch.distributed.group.WORLD)
    torch.optim.AdamW([torch.ones(2, requires_grad=True)])
    runtime.all_sum(torch.ones(2))
assert group() is None
"""


def test_processes_that_have_left_each_other_hold_no_threads(tmp_path: Path) -> None:
    """Else gloo's threads free tensors while Python ends, and abort a process in twenty. Started by the real `torchrun`."""
    (tmp_path / "leave.py").write_text(LEAVE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, "leave.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
