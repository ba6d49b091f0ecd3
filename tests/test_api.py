"""The Python functions do what the commands of their names do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import understudy
from understudy.config.stages import STAGES

TEXT = "Who found the purse? Sam found the purse, and Ben thanked him.\n"


def test_prepare_train_evaluate_and_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT * 20)
    understudy.prepare("text.txt", out="data/text", tokenizer="char", val_fraction=0.2)
    model = {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16}
    settings = {"model": model, "train": {"steps": 6, "batch_size": 4}, "eval": {"every_steps": 3}, "device": "cpu"}
    result = understudy.pretrain("shakespeare-char-cpu", run="small", data="data/text", seed=3, **settings)
    assert result.progress.step == 6
    assert result.metrics[-1]["step"] == 6
    assert "runs/small" in repr(result)
    run = result.load("latest")
    assert (run.step, run.config.train.seed, run.config.model.d_model) == (6, 3, 16)
    evaluated = understudy.evaluate("small", checkpoint="latest", device="cpu")
    assert evaluated.result.loss == pytest.approx(result.final.loss, abs=1e-4)
    with pytest.raises(ValueError, match="already holds a run"):
        understudy.pretrain("shakespeare-char-cpu", run="small", data="data/text", **settings)
    again = understudy.pretrain("shakespeare-char-cpu", run="small", data="data/text", seed=3, fresh=True, **settings)
    assert again.final.loss == result.final.loss
    for wrong, words in (
        ({"train": {"stepps": 1}}, "stepps"), ({"init_from": "small"}, "fresh would delete"), ({"resume": True}, "one of them"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            understudy.pretrain("shakespeare-char-cpu", run="small", data="data/text", fresh=True, **(settings | wrong))
        assert understudy.load_run("small", "latest").step == 6
    axes = understudy.plot_losses(result, again, labels=["first", "second"]).axes[0]
    assert axes.get_ylabel() == "loss (nats per token)"


def test_mistakes_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"train\.stepps"):
        understudy.pretrain("hamlet", train={"stepps": 3})
    with pytest.raises(ValueError, match="steps"):
        understudy.pretrain("hamlet", steps=3)
    with pytest.raises(ValueError, match="another stage"):
        understudy.sft("hamlet")
    with pytest.raises(ValueError, match="kind is 'texts'"):
        understudy.prepare("x.txt", kind="texts")
    with pytest.raises(ValueError, match="no run"):
        understudy.evaluate("nothing")


def test_every_stage_is_a_function_and_every_public_name_exists() -> None:
    for name in [*understudy.__all__, *STAGES]:
        assert callable(getattr(understudy, name)), name
        assert name in dir(understudy)
    assert "reward" in understudy.reward.__doc__
    with pytest.raises(AttributeError):
        understudy.no_such_name  # noqa: B018


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "bigram"])
def test_predict_is_the_likeliest_token_of_every_place_or_the_last(family: str) -> None:
    torch.manual_seed(0)
    shape = {} if family == "bigram" else {"n_layers": 2, "n_heads": 2, "d_model": 32, "dropout": 0.5}
    model = understudy.build_model(understudy.ModelConfig(family=family, vocab_size=20, context_length=8, **shape))
    tokens = torch.randint(20, (3, 8))
    every = understudy.predict(model, tokens)
    assert model.training
    assert torch.equal(every, model.eval()(tokens).argmax(-1))
    assert torch.equal(understudy.predict(model, tokens, targets=False), every[:, -1])
    assert torch.equal(understudy.predict(model, tokens[1]), every[1])
    assert understudy.predict(model, tokens[1], targets=False) == every[1, -1]
    for wrong in (
        torch.zeros(0, dtype=torch.long),
        torch.full((2,), 20),
        torch.zeros(2, 3),
        torch.zeros(1, 2, 3).long(),
    ):
        with pytest.raises(ValueError):
            understudy.predict(model, wrong)
