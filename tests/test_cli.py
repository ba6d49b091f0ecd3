"""The command line as people meet it: every mistake is one sentence and status 2, and JSON is JSON."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.cli import main, parse
from understudy.config.load import dump_config
from understudy.run import RunFolder
from understudy.stages.table import run_stage


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(small_config: Any, tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs/small")
    run_stage(small_config(), folder)
    return folder


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("understudy: "), err
    return err


def prepared(text: str, *more: str) -> tuple[str, ...]:
    Path("t.txt").write_text(text, encoding="utf-8")
    return ("prepare", "t.txt", "--tokenizer", "char", "--out", "d", *more)


def test_mistakes_with_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing.txt" in complaint(capsys, "prepare", "nothing.txt", "--out", "d")
    assert "empty" in complaint(capsys, *prepared(""))
    Path("b.txt").write_bytes(b"ab\0\xff" * 100)
    assert "b.txt" in complaint(capsys, "prepare", "b.txt", "--tokenizer", "char", "--out", "d")
    assert "shakespear" in complaint(capsys, "prepare", "shakespear", "--out", "d")
    assert "--preset" in complaint(capsys, "prepare")
    assert not Path("d").exists() or not list(Path("d").glob("*.bin"))


def test_mistakes_with_presets_and_settings(capsys: pytest.CaptureFixture[str], char_data: Path) -> None:
    data = ("--data", str(char_data))
    assert "did you mean shakespeare-char" in complaint(capsys, "pretrain", "shakespear-char")
    assert "did you mean train.steps?" in complaint(capsys, "pretrain", "gpt2", "--train.stesp", "5")
    assert "did you mean --run" in complaint(capsys, "pretrain", "gpt2", "--rnu", "x")
    assert "valid integer" in complaint(capsys, "pretrain", "gpt2", "--train.steps", "many")
    assert "greater than or equal to 1" in complaint(capsys, "pretrain", "gpt2", "--model.n_layers", "-2")
    assert "does not divide" in complaint(capsys, "pretrain", "gpt2", "--model.n_heads", "7")
    assert "would be ignored" in complaint(capsys, "pretrain", "gpt2", "--optim.momentum", "0.9")
    assert "needs a value" in complaint(capsys, "pretrain", "gpt2", "--train.steps")
    assert "prepare" in complaint(capsys, "pretrain", "shakespeare-char-cpu")
    assert "fewer than" in complaint(capsys, "pretrain", "shakespeare-char-cpu", *data, "--model.context_length", "1e6")
    assert "gpt2 is set" in complaint(capsys, "pretrain", "gpt2", *data, "--tokenizer.kind", "gpt2")
    if not torch.cuda.is_available():
        assert "PyTorch sees none" in complaint(capsys, "pretrain", "shakespeare-char-cpu", *data, "--device", "cuda")
    assert "not known" in complaint(capsys, "pretrain", "shakespeare-char-cpu", *data, "--device", "abacus")
    assert "needs a GPU" in complaint(capsys, "pretrain", "shakespeare-char-cpu", *data, "--train.dtype", "fp16")
    assert "to resume" in complaint(capsys, "pretrain", "gpt2", "--resume")
    assert "no run 'nobody'" in complaint(capsys, "pretrain", "gpt2", "--init-from", "nobody")
    assert not Path("runs").exists()


def test_mistakes_with_runs(capsys: pytest.CaptureFixture[str], trained: RunFolder) -> None:
    assert "there is no run 'smal'; runs here: small" in complaint(capsys, "sample", "smal")
    assert "has no checkpoint 77" in complaint(capsys, "sample", "small", "--checkpoint", "77")
    assert "temperature" in complaint(capsys, "sample", "small", "--temperature", "-1")
    assert "top_k" in complaint(capsys, "sample", "small", "--top-k", "0")
    assert "number from 1" in complaint(capsys, "sample", "small", "--num", "0")
    assert "é" in complaint(capsys, "sample", "small", "--prompt", "café")
    assert "1 to 16" in complaint(capsys, "evaluate", "small", "--context", "17")
    for name in ("model.safetensors", "tokenizer.json", "config.yaml"):
        path = trained.checkpoint("best") / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 3])
        complaint(capsys, "sample", "small")
        path.write_bytes(whole)
    assert main(["sample", "small", "--tokens", "4"]) == 0


def test_tokens_outside_the_vocabulary_are_refused(capsys: pytest.CaptureFixture[str], char_data: Path) -> None:
    """nanoGPT's files carry no manifest, so their content is checked."""
    import numpy as np

    Path("nano").mkdir()
    for split in ("train", "val"):
        np.arange(2000, dtype="<u2").tofile(f"nano/{split}.bin")
    Path("nano/input.txt").write_text("abc")
    sentence = complaint(capsys, "pretrain", "shakespeare-char-cpu", "--data", "nano")
    assert "outside the model's vocabulary of 3" in sentence


def test_a_run_in_use_is_left_alone(capsys: pytest.CaptureFixture[str], trained: RunFolder, small_config: Any) -> None:
    Path("c.yaml").write_text(dump_config(small_config()))
    before = sorted(p.name for p in trained.path.rglob("*"))
    assert "already holds a run" in complaint(capsys, "pretrain", "c.yaml", "--run", "small")
    assert sorted(p.name for p in trained.path.rglob("*")) == sorted(before)


def test_json_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str], trained: RunFolder) -> None:
    def document(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    evaluation = document("evaluate", "small")
    assert evaluation["loss_low"] < evaluation["loss"] < evaluation["loss_high"] and evaluation["bits_per_byte"] > 0
    assert len(document("sample", "small", "--num", "2", "--tokens", "5")["samples"]) == 2
    assert "shakespeare-char" in document("presets") and document("presets", "gpt2")["model"]["n_layers"] == 12
    assert document("doctor", "gpt2")["plan"]["parameters"] == 124_475_904
    bench = document(
        "bench", "shakespeare-char-cpu", "--seconds", "0.2", "--model.n_layers", "1", "--model.d_model", "32"
    )
    assert bench["train_tokens_per_second"] > 0 and 0 < bench["share_of_peak"] < 2


def test_the_same_seed_samples_the_same_text(capsys: pytest.CaptureFixture[str], trained: RunFolder) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        capsys.readouterr()
        assert main(["sample", "small", "--seed", seed, "--tokens", "30", "--prompt", "the"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("the")


def test_prepare_writes_its_summary_and_does_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(prepared("to be or not to be\n" * 50))) == 0
    before = {p.name: p.read_bytes() for p in Path("d").iterdir() if p.is_file()}
    assert main(list(prepared("to be or not to be\n" * 50))) == 0
    assert "already prepared" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in Path("d").iterdir() if p.is_file()} == before
    assert {"train.bin", "val.bin", "manifest.json", "tokenizer.json"} <= before.keys()


def test_tokenizers_are_trained_compared_and_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.txt").write_text("the cat and the hat and the bat " * 40)
    for size in ("258", "268"):
        assert main(["tokenizer", "train", "t.txt", "--vocab-size", size, "--out", f"{size}.json"]) == 0
    capsys.readouterr()
    assert main(["tokenizer", "compare", "258.json", "268.json", "--text", "t.txt", "--json"]) == 0
    small, large = json.loads(capsys.readouterr().out)
    assert small["bytes_per_token"] < large["bytes_per_token"]
    assert main(["tokenizer", "inspect", "268.json", "the cat", "--json"]) == 0
    assert "".join(eval(p["text"]) for p in json.loads(capsys.readouterr().out)) == "the cat"


def test_help_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "understudy", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "pretrain" in done.stdout
    assert subprocess.run([sys.executable, "-m", "understudy"], capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "understudy: the disk is full"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "understudy: the disk quota is used up"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "understudy: the disk is read-only"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/file"), "understudy: a/file: the disk is full"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a/file"), "understudy: a/file: Permission denied"),
    ],
)
def test_a_disk_that_cannot_be_written_is_one_sentence(
    error: OSError, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("understudy.config.load.preset_summaries", fail)
    assert complaint(capsys, "presets").startswith(words)


def test_an_error_of_the_system_that_is_no_users_mistake_stays_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.ECONNRESET, "reset")

    monkeypatch.setattr("understudy.config.load.preset_summaries", fail)
    with pytest.raises(OSError, match="reset"):
        main(["presets"])


def test_a_full_disk_at_the_start_of_training(
    small_config: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path("c.yaml").write_text(dump_config(small_config()))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert "the disk is full; make room" in complaint(capsys, "pretrain", "c.yaml", "--run", "small")
    assert main(["pretrain", "c.yaml", "--run", "small"]) == 0


def test_the_same_setting_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("pretrain", "gpt2", "--data", "a", "--data.path", "b")
    assert "--data and --data.path are the same setting" in complaint(capsys, *words)


def test_the_advice_names_a_run_elsewhere_by_its_path(
    small_config: Any, char_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text(dump_config(small_config()))
    assert main(["pretrain", "c.yaml", "--run", "far/run"]) == 0
    advice = capsys.readouterr().err.split("next")[-1].split()
    assert advice == ["understudy", "sample", "far/run"]
    assert main([*advice[1:], "--tokens", "2"]) == 0


def test_a_run_does_not_start_from_a_reward_model(
    reward_run: Any, small_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, preset in (("sft", "sft"), ("dpo", "hamlet-dpo"), ("grpo", "hamlet-grpo")):
        words = (stage, preset, "--init-from", str(reward_run.path), "--run", "new")
        assert "gives scores and generates no text" in complaint(capsys, *words)


def test_settings_are_listed_with_their_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--settings", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["train.steps"] == {
        "name": "train.steps", "type": "whole number from 1", "default": "1000",
        "description": "Optimiser steps, over which the schedule runs.",
    }  # fmt: skip
    assert main(["presets", "--settings"]) == 0
    assert "train.steps  (whole number from 1; default 1000)\n    Optimiser steps" in capsys.readouterr().out


def test_sources_may_stand_between_options() -> None:
    assert parse(["prepare", "a.txt", "--out", "x", "b.txt", "--force", "c.txt"]).sources == ["a.txt", "b.txt", "c.txt"]
    with pytest.raises(ValueError, match="does not take '--nothing'"):
        parse(["prepare", "a.txt", "--force", "b.txt", "--nothing", "c.txt"])
