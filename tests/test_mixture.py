"""Mixtures of data sets: exact shares, each window once an epoch, the same samples however a run is divided."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy.cli import main
from understudy.config.load import build_config, dump_config, load_config
from understudy.data.loader import Windows
from understudy.data.mixture import MixedWindows, Phase
from understudy.evaluation.loss import LossResult, pooled
from understudy.run import load_run

CONTEXT = 8


def mixture(*phases: Phase, seed: int = 1) -> MixedWindows:
    sizes = (900, 4100, 20_000)
    parts = [Windows(np.arange(size) + 100_000 * n, CONTEXT, seed) for n, size in enumerate(sizes)]
    return MixedWindows(parts, phases, seed)


def test_shares_are_exact_and_samples_follow_one_another() -> None:
    rows = mixture(Phase(0, (7, 2, 1)), Phase(10_000, (0, 1, 1)), Phase(10_300, (1, 1, 0)))
    seen: Counter[int] = Counter()
    for sample in range(11_500):
        if sample == 10_000:
            assert [seen[n] for n in range(3)] == [7000, 2000, 1000]
        if sample % 77 == 0:
            assert rows.drawn(sample).tolist() == [seen[n] for n in range(3)]
        part, index = rows.locate(sample)
        assert index == seen[part], "the next window of this part"
        assert not (10_000 <= sample < 10_300 and part == 0) and not (sample >= 10_300 and part == 2)
        seen[part] += 1


def test_rounding_loses_no_sample() -> None:
    counts = Phase(0, (1, 1, 1)).counts()
    assert sorted(counts) == [333, 333, 334]
    assert Phase(0, (0.9996, 0.0004)).counts().tolist() == [1000, 0]


def test_a_batch_is_that_of_its_samples_however_it_is_cut() -> None:
    rows = mixture(Phase(0, (1, 1, 2)), Phase(40, (3, 0, 1)))
    whole = rows.batch(30, 24)
    halves = [rows.batch(30, 12), mixture(Phase(0, (1, 1, 2)), Phase(40, (3, 0, 1))).batch(42, 12)]
    for name in ("tokens", "targets"):
        assert torch.equal(whole[name], torch.cat([half[name] for half in halves]))
    assert {int(row[0]) // 100_000 for row in whole["tokens"]} == {0, 1, 2}
    other = mixture(Phase(0, (1, 1, 2)), seed=2).batch(30, 24)
    assert not torch.equal(whole["tokens"], other["tokens"])


def test_the_pooled_loss_is_that_of_all_tokens() -> None:
    a, b = LossResult(2.0, 1.9, 2.1, 100, 1.0, 0.95, 1.05), LossResult(4.0, 3.5, 4.5, 300, 1.5, 1.3, 1.7)
    both = pooled([a, b])
    assert both.loss == pytest.approx(3.5) and both.tokens == 400
    assert both.loss_high == pytest.approx(3.5 + ((0.25 * 0.1) ** 2 + (0.75 * 0.5) ** 2) ** 0.5)
    nats, text_bytes = 100 * 2 + 300 * 4, 100 * 2 / np.log(2) / 1.0 + 300 * 4 / np.log(2) / 1.5
    assert both.bits_per_byte == pytest.approx(nats / np.log(2) / text_bytes)
    assert pooled([a, LossResult(4.0, None, None, 300)]).loss_low is None


SETTINGS = """
model: {family: llama, n_layers: 1, n_heads: 2, d_model: 16, context_length: 16}
data:
  - {path: a, weight: 3}
  - {path: b, weight: {0: 1, 6: 6}}
train: {steps: 12, batch_size: 4, micro_batch_size: 2}
eval: {every_steps: 6}
checkpoint: {every_steps: 3}
log: {samples: 0, plot: false}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("".join(f"the number {n} follows {n - 1}. " for n in range(300)))
    Path("b.txt").write_text("".join(f"a cat saw dog {n} and ran home. " for n in range(300)))
    Path("mix.yaml").write_text(SETTINGS)
    assert main(["tokenizer", "train", "a.txt", "b.txt", "--vocab-size", "270", "--out", "t.json"]) == 0
    for name in "ab":
        assert main(["prepare", f"{name}.txt", "--tokenizer", "t.json", "--out", name]) == 0
    return tmp_path


def test_a_mixture_is_trained_reported_by_source_and_resumed_to_the_same_bits(folder: Path) -> None:
    assert main(["pretrain", "mix.yaml", "--run", "whole"]) == 0
    assert main(["pretrain", "mix.yaml", "--run", "cut", "--train.stop_at_tokens", "500"]) == 0
    assert main(["pretrain", "mix.yaml", "--run", "cut", "--resume", "--train.micro_batch_size", "4"]) == 0
    whole, cut = (load_run(folder / "runs" / name, "latest").model.state_dict() for name in ("whole", "cut"))
    for name, weight in whole.items():
        torch.testing.assert_close(weight, cut[name], atol=1e-5, rtol=1e-4)
    last = json.loads((folder / "runs/whole/metrics.jsonl").read_text().splitlines()[-1])
    assert min(last["val/loss/a"], last["val/loss/b"]) < last["val/loss"] < max(last["val/loss/a"], last["val/loss/b"])
    assert main(["evaluate", "whole"]) == 0


def test_a_mixture_is_saved_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {"data": [{"path": "a", "weight": {"0": 1, "6": 0}}, {"path": "b"}]}
    config = build_config(tree)
    assert config.data.path == "a" and config.data.phase_steps() == [0, 6]
    assert [part.weight_at(7) for part in config.data.mixture or ()] == [0, 1]
    Path("saved.yaml").write_text(dump_config(config))
    assert load_config("saved.yaml") == config
    assert load_config("saved.yaml", {"data.path": "c"}).data.mixture is None


@pytest.mark.parametrize(("data", "sentence"), [
    ([{"path": "a"}, {"path": "a"}], "data.mixture names a folder twice"),
    ([{"path": "a", "weight": 0}], "data.mixture.0.weight"),
    ([{"path": "a", "weight": {3: 1}}], "the weights of a begin at step 3; give one for step 0"),
    ([{"path": "a", "weight": {0: 1, 5: 0}}], "a step at which all weights are 0"),
    ({"path": "b", "mixture": [{"path": "a"}]}, "data.path and data.mixture both say what to train on"),
])  # fmt: skip
def test_mixtures_that_cannot_be_are_refused(data: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_config({"data": data})


def test_data_of_other_tokenizers_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "b.txt", "--vocab-size", "265", "--out", "b", "--force"]) == 0
    assert main(["pretrain", "mix.yaml", "--run", "r"]) == 2
    assert "the data in b was prepared with another tokenizer than that in a" in capsys.readouterr().err
