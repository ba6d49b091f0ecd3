"""`inspect --mask`: the shown conversations are those that finetuning trains on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align_runs import saved_run
from serving import make_run
from understudy.cli import main
from understudy.config.load import build_config
from understudy.config.model import ModelConfig
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.packing import render_set
from understudy.model import Bigram
from understudy.run import RunFolder, load_run
from understudy.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from understudy.tokenizer.chat import Message, render, with_chat_tokens

CONTEXT = 64


def ask(question: str, *more: str) -> list[Message]:
    """A conversation of questions and answers by turns."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": content} for n, content in enumerate((question, *more))]


TALKS = [
    *(ask(f"Who has cup {n}?", f"Sam has it. {'é' * (n % 3)}") for n in range(9)),
    ask("A cup?", "A cup.", "And?", "It is a cup. " * 9),
    ask("Sam has a cup. " * 20, "Who?"),
    ask("Who <|im_end|> has it?", "Sam. " * 40),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/chat, which was finetuned on talks.jsonl; runs/drop, which leaves out long conversations; runs/base."""
    place = tmp_path_factory.mktemp("inspect")
    (place / "talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in TALKS))
    base = train_tokenizer("bpe", ["user assistant system Sam has a cup. Who? It is a cup"] * 9, 290)
    write_run(place / "runs/base", base, {"stage": "pretrain", "data": {"path": "text"}})
    for name, too_long in (("chat", "cut"), ("drop", "drop")):
        data = {"path": str(place / "talks.jsonl"), "too_long": too_long}
        write_run(place / "runs" / name, with_chat_tokens(base), {"stage": "sft", "init_from": "base", "data": data})
    make_run(place / "runs/tiny")
    return place


def write_run(path: Path, tokenizer: Tokenizer, tree: dict[str, Any]) -> None:
    """A run's folder without a checkpoint, of which nothing is needed here."""
    model = {"context_length": CONTEXT, "vocab_size": tokenizer.vocab_size, "n_layers": 1, "n_heads": 1, "d_model": 8}
    RunFolder(path).create(build_config(tree | {"model": model}), tokenizer, {"stage": tree["stage"]})


@pytest.fixture
def inspect(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in the folder with runs/; gives status, standard output and standard error."""
    monkeypatch.chdir(runs)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["inspect", *words])
        return status, *capsys.readouterr()

    return run


def too_long() -> int:
    """How many conversations of the training split need more than the context, and one target."""
    talks = (record["messages"] for record in open_conversations(Path("talks.jsonl"), "train"))
    return sum(len(render(load_tokenizer(Path("runs/chat")), talk).tokens) > CONTEXT + 1 for talk in talks)


def test_trained_tokens_stand_in_brackets(inspect: Any) -> None:
    status, out, err = inspect("chat", "--mask", "--num", "1")
    first = open_conversations(Path("talks.jsonl"), "train")[0]["messages"]
    assert (status, err) == (0, "")
    assert "\x1b" not in out and out.startswith("«trained on»  read only\n")
    assert (
        f"<|im_start|>user\n{first[0]['content']}<|im_end|>\n"
        f"<|im_start|>assistant\n«{first[1]['content']}<|im_end|>»\n"
    ) in out  # fmt: skip


def test_on_a_terminal_trained_tokens_have_a_colour(inspect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out, _ = inspect("chat", "--mask", "--num", "1")
    assert "«" not in out
    lines = out.splitlines()
    question, answer = (next(n for n, line in enumerate(lines) if word in line) + 1 for word in ("user", "istan"))
    assert "\x1b[30;42m" in lines[answer] and "102m" in lines[answer], "two shades, by turns"
    assert "42m" not in lines[question] and "102m" not in lines[question]
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, _ = inspect("chat", "--mask", "--num", "1")
    assert "42m" not in out and "«Sam" in out


def test_the_json_holds_the_rows_of_the_training(inspect: Any) -> None:
    status, out, _ = inspect("chat", "--mask", "--num", "99", "--json")
    document = json.loads(out)
    tokenizer = with_chat_tokens(
        train_tokenizer("bpe", ["user assistant system Sam has a cup. Who? It is a cup"] * 9, 290)
    )
    records = list(open_conversations(Path("talks.jsonl"), "train"))
    rows = render_set((r["messages"] for r in records), tokenizer, CONTEXT)
    shown = document["conversations"]
    assert status == 0 and len(shown) == len(records) == len(rows)
    assert np.concatenate([s["ids"] for s in shown]).tolist() == rows.tokens.tolist()
    assert np.concatenate([s["mask"] for s in shown]).tolist() == rows.mask.tolist()
    assert document["counts"]["tokens"] == len(rows.tokens)
    assert document["counts"]["trained_tokens"] == rows.mask.sum()
    for shown_row, record in zip(shown, records):
        whole = render(tokenizer, record["messages"]).tokens
        left_out, remaining = shown_row["left_out_before"], len(whole) - shown_row["left_out_after"]
        heads = [whole[:head] + whole[head + left_out : remaining] for head in range(20)]
        assert shown_row["ids"] in heads, "the omitted tokens follow the header"
        assert "".join(shown_row["texts"]) == tokenizer.decode(shown_row["ids"])
        assert [id >= 289 for id in shown_row["ids"]] == shown_row["special"], "and the markers a user types are text"
        assert (shown_row["fate"] == "whole") == (left_out + shown_row["left_out_after"] == 0)
    assert {s["fate"] for s in shown} == {"whole", "cut at a turn", "cut inside"}


def test_a_cut_says_how_much_is_left_out(inspect: Any) -> None:
    _, out, _ = inspect("chat", "--mask", "--num", "99")
    by_talk = out.split("\n── ")
    [at_a_turn] = [part for part in by_talk if "cut at a turn" in part]
    assert at_a_turn.count("«") == 1 and at_a_turn.rstrip().endswith("tokens left out]")
    before = next(part for part in by_talk if "cut inside" in part and "«Who?<|im_end|>»" in part)
    assert before.splitlines()[1].endswith("tokens left out]") and "[1 token left out]" in before
    assert f"cut             {too_long()} to 64 tokens" in out and "dropped         0" in out


def test_dropped_conversations_are_shown_and_counted(inspect: Any) -> None:
    _, out, _ = inspect("drop", "--mask", "--num", "99")
    dropped = [part for part in out.split("\n── ") if "dropped, too long, 0 of" in part]
    assert len(dropped) == too_long() > 1 and not any("«" in part for part in dropped)
    assert f"dropped         {too_long()}" in out


def test_a_base_run_is_shown_with_the_tokens_it_lacks(inspect: Any) -> None:
    status, out, err = inspect("base", "--mask", "--data", "talks.jsonl", "--json")
    assert status == 0 and "base run without chat tokens" in err
    assert out == inspect("chat", "--mask", "--json")[1].replace("runs/chat", "runs/base").replace(
        json.dumps(str(Path.cwd() / "talks.jsonl")), '"talks.jsonl"'
    )


def test_width_is_the_columns_of_the_text(inspect: Any) -> None:
    _, narrow, _ = inspect("chat", "--mask", "--num", "99", "--width", "30")
    _, wide, _ = inspect("chat", "--mask", "--num", "99")
    assert max(map(len, narrow.splitlines())) == 30 < max(map(len, wide.splitlines()))


def test_control_characters_do_not_reach_the_terminal(inspect: Any, tmp_path: Path) -> None:
    talks = [ask(f"\x1b[2J {n}", "\x9b5A\x00") for n in range(3)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    status, out, _ = inspect("chat", "--mask", "--data", str(tmp_path / "talks.jsonl"))
    assert status == 0 and not set(out) & {"\x1b", "\x9b", "\x00"}


@pytest.mark.parametrize(
    "words,complaint",
    [
        (["chat"], "add --mask to see"),
        (["chat", "--mask", "--num", "0"], "--num is 0; a number from 1"),
        (["chat", "--mask", "--width", "3"], "--width is 3; a number from 20"),
        (["nobody", "--mask"], "there is no run 'nobody'"),
        (["base", "--mask"], "was trained on text; name conversations to show with --data PATH"),
        (["chat", "--mask", "--data", "nowhere"], "no conversations at nowhere"),
        (["chat", "--mask", "--prompt", "a"], "--prompt: not allowed with argument --mask"),
        (["chat", "--mask", "--at", "1"], "--at is for --prompt"),
        (["chat", "--prompt", "a", "--data", "talks.jsonl"], "--data is for --mask"),
        (["tiny", "--prompt", " "], "the prompt is empty"),
        (["tiny", "--prompt", "Sam", "--at", "99"], "--at is 99; the text has the tokens 1 to"),
        (["tiny", "--prompt", "Sam " * 200], "give a shorter one"),
        (["tiny", "--prompt", "Sam", "--plain", "--system", "x"], "--system is for the prompt of an assistant"),
        (["tiny", "--prompt", "Sam", "--out", "nowhere/look.png"], "cannot be written"),
        (
            ["tiny", "--prompt", "Sam", "--out", "/dev/null"],
            "is no regular file; choose the name of a new or regular file",
        ),
        (["tiny", "--prompt", "S", "--plain", "--out", "look.png"], "a single token has no prediction to draw"),
    ],
)
def test_inputs_that_cannot_be_shown_are_refused_in_a_sentence(inspect: Any, words: list[str], complaint: str) -> None:
    status, out, err = inspect(*words)
    assert (status, out) == (2, "") and complaint in err and err.count("\n") == 1


def test_a_prompt_is_read_as_it_would_be_answered(inspect: Any) -> None:
    status, out, _ = inspect("tiny", "--prompt", "Who found it?", "--json", "--tokens", "6")
    run, document = load_run("tiny"), json.loads(out)
    prompt = render(run.tokenizer, [{"role": "user", "content": "Who found it?"}], reply=True).tokens
    ids = [row["id"] for row in document["tokens"]]
    assert status == 0 and ids[: document["prompt_tokens"]] == prompt and len(ids) <= len(prompt) + 6
    probabilities = run.model(torch.tensor([ids]))[0].softmax(-1)
    for t in range(1, len(ids)):
        row = document["tokens"][t]
        assert row["probability"] == pytest.approx(float(probabilities[t - 1, ids[t]].detach()), abs=1e-5)
        assert row["layers"][-1][2] == row["probability"] and len(row["layers"]) == 2
    greedy = probabilities.argmax(-1).tolist()
    assert ids[len(prompt) :] == greedy[len(prompt) - 1 : -1], "the added tokens are the likeliest"
    assert np.array(document["attention"]).shape == (1, 2, len(ids))
    assert np.array(document["attention"])[..., document["position"] + 1 :].sum() == 0


def test_plain_text_is_not_answered(inspect: Any) -> None:
    document = json.loads(inspect("tiny", "--prompt", "Sam found", "--plain", "--json")[1])
    assert [row["id"] for row in document["tokens"]] == load_run("tiny").tokenizer.encode("Sam found")


def test_a_look_is_printed_and_drawn(inspect: Any, tmp_path: Path) -> None:
    picture = tmp_path / "look.png"
    status, out, err = inspect(
        "tiny", "--prompt", "Sam\x1b[2J", "--out", str(picture), "--width", "100", "--tokens", "4"
    )
    assert status == 0 and "\x1b" not in out and f"the picture is {picture}" in err
    for part in ("Probability of each token", "Logit lens", "layer 1", "embedding", "Attention"):
        assert part in out
    assert picture.read_bytes().startswith(b"\x89PNG") and 10_000 < picture.stat().st_size < 200_000


def test_the_numbers_of_tokens_are_whole_on_a_narrow_terminal(inspect: Any) -> None:
    last = len(json.loads(inspect("tiny", "--prompt", "Who found it?", "--json", "--tokens", "6")[1])["tokens"]) - 1
    assert last > 9
    _, out, _ = inspect("tiny", "--prompt", "Who found it?", "--tokens", "6", "--width", "48")
    assert len(re.findall(rf"^ +{last} ", out, re.M)) == 2, "of the probabilities and of the lens"


def test_a_bigram_has_probabilities_only(inspect: Any, runs: Path) -> None:
    tokenizer = train_tokenizer("char", ["abc\n"], None)
    shape = {"family": "bigram", "context_length": 8, "vocab_size": 4}
    saved_run(runs / "runs/bigram", Bigram(ModelConfig(**shape)), tokenizer, "pretrain")
    status, out, _ = inspect("bigram", "--prompt", "abc")
    assert status == 0 and "25.0%" in out and "lens" not in out and "Attention" not in out
