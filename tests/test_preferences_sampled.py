"""Preferences from a run's own answers: reproducible, ordered by the true score, chosen with the stated errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy import annotators as sampled_preferences
from understudy.annotators import Sampling
from understudy.cli import main
from understudy.config.load import build_config
from understudy.config.model import ModelConfig
from understudy.data.chat.preferences import open_preferences
from understudy.data.chat.prepare import ChatSummary, prepare_conversations
from understudy.data.generated import CORPORA
from understudy.hamlet.conversations import question
from understudy.hamlet.preferences import ANNOTATORS, choose
from understudy.model import GPT
from understudy.model.weights import weights_of
from understudy.run import RunFolder, load_run, save_run
from understudy.tokenizer import train_tokenizer
from understudy.tokenizer.chat import with_chat_tokens


def write_run(path: Path, chat: bool = True) -> RunFolder:
    """A run with random weights that writes letters; its answers are short, for the end of a message is likely."""
    tokenizer = train_tokenizer("bpe", ["user assistant system Who has a cup? The mill."] * 9, 290)
    tokenizer = with_chat_tokens(tokenizer) if chat else tokenizer
    shape = {"context_length": 320, "n_layers": 1, "n_heads": 1, "d_model": 8, "vocab_size": tokenizer.vocab_size}
    torch.manual_seed(0)
    model = GPT(ModelConfig(**shape))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    folder = RunFolder(path)
    config = build_config({"stage": "pretrain", "model": shape, "data": {"path": "x"}})
    save_run(folder, config, tokenizer, weights_of(model), {"stage": "sft"}, step=3)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs") / "chat")


@pytest.fixture(autouse=True)
def judged_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model is never right, so an answer is good here when its length is even; and short, to be quick."""
    by_length = replace(CORPORA["hamlet"], score=lambda check, answer: float(len(answer) % 2 == 0))
    monkeypatch.setitem(CORPORA, "hamlet", by_length)
    monkeypatch.setattr(sampled_preferences, "ANSWER_TOKENS", 4)
    monkeypatch.setattr(sampled_preferences, "BATCH_ANSWERS", 16)


def prepare(run: RunFolder, out: Path, limit: int = 12, **sampling: Any) -> ChatSummary:
    settings = Sampling(str(run.path), **sampling)
    return prepare_conversations(["hamlet"], out, kind="preferences", limit=limit, sampling=settings)


def test_answers_of_a_run_become_pairs(run: RunFolder, tmp_path: Path) -> None:
    summary = prepare(run, tmp_path / "out", limit=24)
    questions = {json.dumps(question(0, i, "train", "preference")[0]): i for i in range(24)}
    lines = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) > 20
    for line in lines:
        index = questions[json.dumps(line["prompt"])]
        assert line["category"] == question(0, index, "train", "preference")[1].category
        assert line["truth"] in ([1.0, 0.0], [0.0, 1.0]) and line["annotator"] in ANNOTATORS
        assert line["truth"] == [float(len(line[side][0]["content"]) % 2 == 0) for side in ("chosen", "rejected")]
    opened = open_preferences(tmp_path / "out", "train")
    assert opened.pairs == len(lines)
    for each in opened:
        assert len({answer[0]["content"] for answer in each.answers}) == len(each.answers) <= 4
        assert {each.truths[p.chosen] for p in each.pairs} | {each.truths[p.rejected] for p in each.pairs} == {0.0, 1.0}
    [source] = summary.manifest["sources"]
    sampled = source["sampled"]
    assert (sampled["run"], sampled["step"], sampled["weights_sha256"]) == (
        str(run.path),
        3,
        load_run(run.path).state["weights_sha256"],
    )
    assert sampled["settings"]["annotators"] == ANNOTATORS and sampled["settings"]["answers"] == 4
    alike, answered = sampled["train"]["alike"], 24 - sampled["train"]["too_long"]
    assert sampled["train"]["prompts"] == 24 and 0 < len(opened) == answered - alike
    assert f"train: {alike} of {answered} prompts ({alike / answered:.0%}) have no two answers" in str(summary)
    too_long = sum(sampled[split]["too_long"] for split in ("train", "val"))
    assert source["dropped"]["prompt too long for the run"] == too_long > 0


def test_the_same_request_gives_the_same_bytes_and_is_done_once(run: RunFolder, tmp_path: Path) -> None:
    files = [prepare(run, tmp_path / name).folder / "train.jsonl" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert prepare(run, tmp_path / "a").status == "already prepared"
    more = prepare(run, tmp_path / "c", limit=16).folder / "train.jsonl"
    assert more.read_bytes().startswith(files[0].read_bytes()), "more prompts, the same answers to the first"
    with pytest.raises(ValueError, match="prepared otherwise"):
        prepare(run, tmp_path / "a", temperature=0.5)


def test_pairs_of_equal_score_are_counted_or_become_ties(run: RunFolder, tmp_path: Path) -> None:
    [left_out] = prepare(run, tmp_path / "a").manifest["sources"]
    prepare(run, tmp_path / "b", ties=True)
    pairs = [
        (pair, [comparison.truths[number] for number in (pair.chosen, pair.rejected)])
        for split in ("train", "val")
        for comparison in open_preferences(tmp_path / "b", split)
        for pair in comparison.pairs
    ]
    alike = [pair for pair, (chosen_score, rejected_score) in pairs if chosen_score == rejected_score]
    assert len(alike) == left_out["dropped"]["pair of equally good answers"] > 0
    assert len(pairs) - len(alike) == left_out["train"] + left_out["val"]
    assert not any(pair.tie for pair, (chosen_score, rejected_score) in pairs if chosen_score != rejected_score)
    preferred_in_error = sum(not pair.tie for pair in alike)
    assert 0 < preferred_in_error < 0.3 * len(alike)


def test_the_right_answer_is_compared_too_where_that_is_asked_for(run: RunFolder, tmp_path: Path) -> None:
    questions = [question(0, i, "train", "preference") for i in range(12)]
    right = {json.dumps(messages): turn.answer for messages, turn in questions}

    def with_the_right_one(folder: Path, **sampling: Any) -> int:
        prepare(run, folder, **sampling)
        lines = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
        printed = ((line["prompt"], line[side][0]["content"]) for line in lines for side in ("chosen", "rejected"))
        return len({json.dumps(prompt) for prompt, text in printed if text == right[json.dumps(prompt)]})

    assert with_the_right_one(tmp_path / "a", corrected=True) > 3
    assert with_the_right_one(tmp_path / "b") == 0


def test_annotators_err_as_often_as_stated() -> None:
    chosen = [choose(0, "train", i, 0, 1) for i in range(6000)]
    for name, rate in ANNOTATORS.items():
        mistakes = [is_right for annotator, is_right in chosen if annotator == name]
        assert 1800 < len(mistakes) < 2200 and abs(mistakes.count(False) / len(mistakes) - rate) < 0.02


def test_cut_off_it_leaves_nothing(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(check: dict[str, Any], answer: str) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(CORPORA, "hamlet", replace(CORPORA["hamlet"], score=interrupted))
        with pytest.raises(KeyboardInterrupt):
            prepare(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["prepare", "hamlet", "--kind", "preferences", "--from", str(run.path), "--limit", "12"]
    assert main([*command, "--answers", "3", "--temperature", "0.9"]) == 0
    assert "have no two answers of different true score" in capsys.readouterr().err
    assert len(open_preferences(Path("data/chat-preferences"), "val")) > 3
    write_run(tmp_path / "base", chat=False)
    for options, sentence in (
        (["--answers", "1"], "answers is 1; give 2 to 9"),
        (["--temperature", "0"], "temperature is 0.0; give a number above 0"),
        (["--from", "nobody"], "there is no run 'nobody'"),
        (["--from", "base", "--out", "x"], "has no chat tokens and cannot answer"),
        (["--val-fraction", "0.1"], "hamlet has its own validation split"),
    ):
        assert main([*command, *options]) == 2
        printed = capsys.readouterr().err.strip().splitlines()
        assert len(printed) == 1 and sentence in printed[0], printed
    assert not (tmp_path / "x").exists()
