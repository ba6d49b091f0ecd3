"""The validation loss: intervals, the mode of the model, and results that are not finite."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from test_model import make
from understudy.cli import main
from understudy.console import print_json
from understudy.evaluation.loss import evaluate_loss, loss_over
from understudy.files import read_json
from understudy.model.weights import sha256_of_weights
from understudy.run import RunFolder
from understudy.runtime import Runtime
from understudy.stages.table import run_stage

CPU = Runtime(torch.device("cpu"))


def test_one_window_has_no_interval() -> None:
    tokens = np.arange(17) % 50
    one, two = (evaluate_loss(make("gpt2"), tokens, length, 4, CPU, text_bytes=40) for length in (16, 8))
    assert (one.loss_low, one.loss_high, one.bits_per_byte_low, one.bits_per_byte_high) == (None,) * 4
    assert two.loss_low is not None and two.loss_high is not None and two.loss_low < two.loss < two.loss_high
    assert one.bits_per_byte == pytest.approx(one.loss * 16 / 40 / math.log(2))


def test_every_part_of_the_model_returns_to_its_mode() -> None:
    model = make("gpt2").train()
    model.blocks[0].eval()
    before = [module.training for module in model.modules()]
    rows = torch.randint(0, 50, (2, 16))
    loss_over(model, [{"tokens": rows, "targets": rows}], CPU)
    assert [module.training for module in model.modules()] == before


@pytest.fixture
def trained(small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "runs/small")
    run_stage(small_config(), folder)
    return folder


def test_evaluate_prints_and_saves_a_single_window_without_an_interval(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "one"
    shutil.copytree(trained.config().data.path, data)
    for words in (["--data", str(data), "--json"], ["--data", str(data)], []):
        capsys.readouterr()
        assert main(["evaluate", "small", *words]) == 0
    assert "95% interval" in capsys.readouterr().err
    assert read_json(trained.path / "evaluation.json")["checkpoint"] == "8"


def test_a_loss_that_is_not_finite_gives_a_sentence_and_no_json(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in trained.checkpoints.glob("step_*/model.safetensors"):
        weights = load_file(path)
        weights["norm.weight"].fill_(3e38)
        weights["token_embedding.weight"].mul_(1e4)
        save_file(weights, path)
        state = read_json(path.with_name("state.json")) | {"weights_sha256": sha256_of_weights(weights)}
        path.with_name("state.json").write_text(json.dumps(state))
    capsys.readouterr()
    assert main(["evaluate", "small", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "is not finite" in err and "--checkpoint" in err and err.count("\n") == 1
    assert not (trained.path / "evaluation.json").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_number_that_is_not_finite(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        print_json({"loss": [value]})
    assert capsys.readouterr().out == ""
