"""Run folders: damaged files are refused by name with advice that works, and only runs are deleted."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.cli import main
from understudy.config.load import dump_config
from understudy.demo import run_demo
from understudy.files import write_json
from understudy.model.weights import weights_of
from understudy.run import RunFolder, load_run, read_state, save_run
from understudy.stages.table import run_stage


@pytest.fixture
def folder(small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run with the checkpoints of steps 4, 6 and 8, in the current directory's runs/."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path("runs/small"))
    run_stage(small_config(optim__ema=0.5), folder)
    assert folder.steps() == [4, 6, 8]
    Path("small.yaml").write_text(dump_config(small_config(optim__ema=0.5)))
    return folder


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(bytes(content))


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("understudy: "), err
    return err


def test_one_flipped_bit_of_the_weights_is_refused_by_every_command(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.checkpoints.glob("step_*/model.safetensors"):
        flip_bit(path, 8 * path.stat().st_size - 2000)
    Path("child.yaml").write_text(Path("small.yaml").read_text())
    for words in (
        ["sample", "small"],
        ["evaluate", "small"],
        ["export", "small", "--format", "nanogpt"],
        ["pretrain", "small.yaml", "--resume"],
        ["pretrain", "child.yaml", "--init-from", "small"],
    ):
        assert "model.safetensors is damaged" in complaint(capsys, *words)
    assert not Path("runs/child").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
def test_any_flipped_bit_of_the_tensors_is_noticed_on_resume(
    name: str, folder: RunFolder, small_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder.checkpoint() / name
    whole = path.read_bytes()
    positions = random.Random(7).sample(range(8 * len(whole)), 12)
    for position in positions:
        flip_bit(path, position)
        assert name in complaint(capsys, "pretrain", "small.yaml", "--resume")
        path.write_bytes(whole)
    assert main(["pretrain", "small.yaml", "--resume"]) == 0


def test_the_advice_for_a_damaged_checkpoint_works(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    best = folder.checkpoint("best")
    (best / "model.safetensors").write_bytes(b"damaged")
    others = [step for step in folder.steps() if best.name != f"step_{step}"]
    sentence = complaint(capsys, "sample", "small", "--tokens", "2")
    assert f"remove the folder {best}" in sentence and f"--checkpoint {others[-1]}" in sentence
    assert main(["sample", "small", "--tokens", "2", "--checkpoint", str(others[-1])]) == 0
    shutil.rmtree(best)
    assert main(["sample", "small", "--tokens", "2"]) == 0
    assert main(["pretrain", "small.yaml", "--resume"]) == 0
    for step in folder.steps()[1:]:
        shutil.rmtree(folder.checkpoints / f"step_{step}")
    (folder.checkpoint() / "model.safetensors").unlink()
    assert "no other checkpoint" in complaint(capsys, "sample", "small", "--tokens", "2")


def test_weights_that_are_not_finite_are_refused_by_name(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run("small")
    weights = weights_of(run.model)
    weights["norm.weight"][3] = torch.inf
    save_run(folder, run.config, run.tokenizer, weights, {"stage": "pretrain"}, step=9)
    sentence = complaint(capsys, "sample", "small")
    assert "norm.weight" in sentence and "training diverged" in sentence and "--checkpoint 8" in sentence


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("state.json", None, "is missing or damaged"),
        ("state.json", b'{"step": 8', "is missing or damaged"),
        ("state.json", b"[" * 100_000, "is missing or damaged"),
        ("state.json", b'{"format": 2}', "has format 2"),
        ("state.json", b'{"format": 1, "step": "8"}', "lacks one of"),
        ("tokenizer.json", None, "tokenizer"),
        ("config.yaml", b"data: [", "not valid YAML"),
        ("config.yaml", None, "cannot be read"),
    ],
)
def test_other_damaged_files_of_a_checkpoint(
    name: str, content: bytes | None, words: str, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder.checkpoint("8") / name
    path.unlink() if content is None else path.write_bytes(content)
    assert words in complaint(capsys, "sample", "small", "--checkpoint", "8")
    assert main(["sample", "small", "--tokens", "2", "--checkpoint", "6"]) == 0


def test_a_state_without_required_fields(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = folder.checkpoint()
    state = read_state(checkpoint)
    write_json(checkpoint / "state.json", {name: value for name, value in state.items() if name != "tokens"})
    assert "lacks tokens" in complaint(capsys, "pretrain", "small.yaml", "--resume")


def test_a_damaged_pointer(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.checkpoints / "best").write_bytes(b"\xffabc")
    assert "checkpoints/best holds" in complaint(capsys, "sample", "small")
    (folder.checkpoints / "best").unlink()
    assert main(["sample", "small", "--tokens", "2"]) == 0


def test_a_fresh_demo_deletes_nothing_but_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("mine/notes.txt", "runs/plain/notes.txt", "runs/settings/config.yaml"):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text("stage: sft\n")
    for name, reason in (
        ("mine/", "outside runs/"), ("runs/../mine", "outside runs/"), ("plain", "not the folder of a run"),
        ("settings", "not the folder of a run"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"is not deleted, because it is {reason}"):
            run_demo(name, fresh=True)
    Path("runs/link").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="outside runs/"):
        run_demo("link", fresh=True)
    assert Path("mine/notes.txt").exists() and Path("runs/plain/notes.txt").exists()


def test_a_run_is_deleted_unless_it_is_being_trained(folder: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "runs/copy")
    shutil.copytree(folder.path, copy.path)
    with folder.locked(), pytest.raises(ValueError, match="is being written by"):
        RunFolder(folder.path).delete()
    copy.delete()
    assert not copy.path.exists() and folder.exists()
    (folder.path / "run.json").write_text(json.dumps({"name": "a package"}))
    with pytest.raises(ValueError, match="not the folder of a run"):
        folder.delete()


def test_a_run_is_named_as_commands_find_it(folder: RunFolder, tmp_path: Path) -> None:
    assert folder.as_argument() == "small"
    assert load_run(folder.as_argument()).path == folder.path
    other = RunFolder(tmp_path / "elsewhere/small")
    assert other.as_argument() == str(other.path)
