"""Embeddings and head that start as a bigram model of the training text."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from processes import run_two
from understudy.config.load import apply_overrides, build_config, read_preset
from understudy.config.model import ModelConfig
from understudy.model import GPT
from understudy.run import RunFolder, read_metrics, read_tensors
from understudy.runtime import start_runtime
from understudy.stages.table import train_preset
from understudy.train.bigram_start import start_from_bigrams

SETTINGS = {
    "tokenizer.kind": "char", "model.family": "llama", "model.tied": "false", "model.n_layers": "1", "model.n_heads": "2",
    "model.d_model": "16", "model.n_kv_heads": "2", "model.d_ff": "16", "model.context_length": "16", "model.conv_layers": "null",
    "train.batch_size": "4", "train.steps": "2", "train.device": "cpu", "eval.max_tokens": "500", "log.plot": "false",
    "log.samples": "0",
}  # fmt: skip


def chain(length: int, vocab_size: int, seed: int = 0) -> tuple[np.ndarray, float]:
    """Tokens of a Markov chain, and its entropy in nats a token."""
    generator = np.random.default_rng(seed)
    table = generator.dirichlet(np.full(vocab_size, 0.2), size=vocab_size)
    tokens = [0]
    for _ in range(length):
        tokens.append(int(generator.choice(vocab_size, p=table[tokens[-1]])))
    array = np.array(tokens)
    return array.astype(np.uint16), float(-np.log(table[array[:-1], array[1:]]).mean())


@pytest.mark.parametrize("family", ["gpt2", "llama", "lfm2"])
def test_the_loss_begins_near_the_best_of_a_bigram_model(family: str) -> None:
    tokens, entropy = chain(20_000, 40)
    conv = {"conv_layers": (0,)} if family == "lfm2" else {}
    torch.manual_seed(0)
    model = GPT(ModelConfig(
        family=family, vocab_size=40, context_length=32, n_layers=2, n_heads=2, d_model=32, tied=False,
        zero_init_projections=not conv, **conv,
    ))  # fmt: skip
    with start_runtime("cpu", "fp32") as runtime:
        loss = start_from_bigrams(model, [tokens[:10_000], tokens[10_000:]], runtime)
    assert all(parameter.grad is None for parameter in model.parameters())
    rows = torch.from_numpy(tokens[:3201].astype(np.int64))
    logits = model(rows[:-1].view(-1, 32))
    measured = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[1:]))
    assert loss < entropy + 0.35
    assert measured < entropy + (0.35 if not conv else 0.8)  # the copying heads of lfm2 add to it
    assert measured < math.log(40) - 0.5


def test_a_run_begins_with_it_and_counts_its_time(
    char_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    losses = {}
    for start in ("false", "true"):
        result = train_preset(
            "pretrain", "shakespeare-char-cpu", f"start-{start}",
            SETTINGS | {"data.path": str(char_data), "train.bigram_start": start, "optim.lr": "1e-5"},
        )  # fmt: skip
        losses[start] = result.final.loss
        seconds = result.progress.train_seconds
    assert losses["true"] < losses["false"] - 0.5
    assert seconds > 0


def test_a_resumed_run_and_two_processes_end_as_one_process(
    char_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = SETTINGS | {
        "data.path": str(char_data.resolve()), "train.bigram_start": "true", "train.steps": "4", "checkpoint.every_steps": "2",
        "train.micro_batch_size": "2", "train.dtype": "fp32",
    }  # fmt: skip
    stopped = {"train.stop_at_tokens": str(2 * 4 * 16)}
    one = train_preset("pretrain", "shakespeare-char-cpu", "one", settings).final.loss
    train_preset("pretrain", "shakespeare-char-cpu", "cut", settings | stopped)
    resumed = train_preset("pretrain", None, "cut", {"train.stop_at_tokens": "null"}, resume=True)
    a, b = (read_tensors(RunFolder(Path("runs") / name).checkpoint() / "model.safetensors") for name in ("one", "cut"))
    assert resumed.progress.step == 4 and all(torch.equal(a[name], b[name]) for name in a)
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    run_two(["-m", "understudy", "pretrain", "shakespeare-char-cpu", "--run-name", "two", *words], tmp_path)
    rows = read_metrics(RunFolder(Path("runs/two")).metrics)
    assert rows[-1]["val/loss"] == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model.tied": "true"}, "tied"),
    ],
)
def test_where_it_cannot_work_it_is_refused(changed: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        build_config(
            apply_overrides(read_preset("shakespeare-char-cpu"), SETTINGS | {"train.bigram_start": "true"} | changed)
        )
