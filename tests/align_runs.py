"""Tiny runs for the stages after finetuning: an assistant that knows eight letters, prompts, preferences, and a
function that trains by the command line. conftest.py imports the fixtures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.cli import main
from understudy.config.load import build_config
from understudy.config.model import ModelConfig
from understudy.model import GPT, Bigram, build_model
from understudy.model.weights import weights_of
from understudy.run import Run, RunFolder, load_run, save_run
from understudy.tokenizer import Tokenizer, train_tokenizer
from understudy.tokenizer.chat import with_chat_tokens

LETTERS = "abcdefgh"
RIGHT_ANSWERS = {"a": "b", "c": "d"}  # questions and right answers; one of the two is for validation


@pytest.fixture(scope="module")
def sft_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return beginner(tmp_path_factory.mktemp("runs") / "start")


def beginner(path: Path, seed: int = 0) -> Run:
    """An assistant with random weights that knows eight letters and how to end."""
    tokenizer = with_chat_tokens(train_tokenizer("char", ["user assistant system\n" + LETTERS]))
    shape = {
        "family": "qwen3", "context_length": 32, "n_layers": 1, "n_heads": 2, "d_model": 16,
        "vocab_size": tokenizer.vocab_size,
    }  # fmt: skip
    torch.manual_seed(seed)
    return finished_run(path, ModelConfig(**shape), tokenizer, "sft")  # type: ignore[arg-type]


def finished_run(path: Path, shape: ModelConfig, tokenizer: Tokenizer, stage: str = "pretrain") -> Run:
    """A run with the weights that a model of this shape begins with."""
    return saved_run(path, build_model(shape), tokenizer, stage)


def saved_run(path: Path, model: GPT | Bigram, tokenizer: Tokenizer, stage: str) -> Run:
    """The folder of a run that ended with this model, as training would have written it."""
    folder, shape = RunFolder(path), model.config
    about = {"stage": stage, "data": {"sha256": "x"}}
    tree = {"stage": stage, "model": shape.model_dump(exclude_none=True), "data": {"path": "x"}}
    config = build_config(tree | ({"init_from": "x"} if shape.lora else {}))
    save_run(folder, config, tokenizer, weights_of(model), about, step=1)
    return load_run(folder.path)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    rows = [{"prompt": [{"role": "user", "content": a}], "answer": b, "category": a} for a, b in RIGHT_ANSWERS.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 26 pairs of the right letter with each other one the right one is preferred in 19: by a reward of
    log(19 / 7), which is 1. Between wrong ones it is even."""
    path = tmp_path_factory.mktemp("data") / "preferences.jsonl"
    rows = []
    for question, right in RIGHT_ANSWERS.items():
        for wrong in LETTERS.replace(right, ""):
            for chosen, rejected, times in ((right, wrong, 19), (wrong, right, 7)):
                rows += [pair(question, chosen, rejected)] * times
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def judgements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judgements of each answer to both questions: the right letter is desirable, every other one is not."""
    path = tmp_path_factory.mktemp("data") / "judgements.jsonl"
    rows = [
        judged(question, letter, letter == right) for question, right in RIGHT_ANSWERS.items() for letter in LETTERS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judged(question: str, answer: str, label: bool) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "label": label,
    }


def pair(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    answers = {"chosen": chosen, "rejected": rejected}
    return {
        "prompt": [{"role": "user", "content": question}],
        **{name: [{"role": "assistant", "content": text}] for name, text in answers.items()},
    }


QUIET = {"eval__every_steps": 0, "checkpoint__every_steps": 0}
COMMON = {
    "optim.name": "adamw", "optim.lr": "3e-2", "optim.weight_decay": "0", "optim.schedule": "linear",
    "log.samples": "0", "log.every_steps": "5", "log.plot": "false", "train.dtype": "fp32",
}  # fmt: skip


def run(stage: str, name: Path, sft_run: Run, data: Path, *options: str, seed: int = 0, **settings: Any) -> Run:
    """Train by the command line, with a preset written here."""
    preset = name.parent / f"{name.name}.yaml"
    preset.parent.mkdir(parents=True, exist_ok=True)
    preset.write_text(f"stage: {stage}\ndata: {{path: {data}}}\n")
    given = COMMON | {key.replace("__", "."): str(value) for key, value in settings.items()}
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    origin = ["--resume"] if "--resume" in options else ["--init-from", str(sft_run.path)]
    others = [option for option in options if option != "--resume"]
    assert main([stage, str(preset), "--run", str(name), *origin, "--seed", str(seed), *others, *words]) == 0
    return load_run(name, "latest")


@pytest.fixture(scope="module")
def reward_run(sft_run: Run, preferences: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A reward model that knows the right letters."""
    where = tmp_path_factory.mktemp("reward") / "judge"
    return run("reward", where, sft_run, preferences, train__steps=40, train__batch_size=1, **QUIET)
