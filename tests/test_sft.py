"""Finetuning on conversations: rows, masks, packing, growing, adapters, resuming."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from understudy.cli import main
from understudy.config.load import build_config
from understudy.config.model import LoraConfig, ModelConfig
from understudy.data.chat.packing import PackedRows, all_rows, collate, pack_best_fit, render_set
from understudy.losses import IGNORE, PADDING
from understudy.model import GPT, merge_lora
from understudy.model.masks import packed
from understudy.run import Run, RunFolder, load_run, read_metrics, read_tensors
from understudy.stages.table import run_stage
from understudy.tokenizer import Tokenizer, train_tokenizer
from understudy.tokenizer.chat import CHAT_TOKENS, end_ids, render, with_chat_tokens
from understudy.train.init_from import model_from_parent, start_from
from understudy.train.objective import NextToken

NAMES, THINGS = ["Sam", "Ann", "Bob", "Tim", "Eva", "Max"], ["cup", "hat", "bell", "ring", "kite"]


def talk(number: int, turns: int = 1) -> list[dict[str, str]]:
    """A small conversation, each number another one."""
    name, thing = NAMES[number % 6], THINGS[number // 6 % 5]
    pairs = ((f"{name} has a {thing}. Who has it?", f"{name} has the {thing}."), ("What is it?", f"It is a {thing}."))
    messages = []
    for turn in range(turns):
        for role, content in zip(("user", "assistant"), pairs[turn % 2]):
            messages.append({"role": role, "content": content})
    return messages


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return with_chat_tokens(train_tokenizer("bpe", ["user assistant system Sam has a cup. Who? It is"] * 9, 290))


def shape(family: str, **more: Any) -> ModelConfig:
    return ModelConfig(family=family, vocab_size=292, context_length=160, n_layers=2, n_heads=2, d_model=32, **more)


@pytest.mark.parametrize(
    "family,more",
    [
        ("gpt2", {}),
        ("qwen3", {}),
        ("qwen3", {"ngram_orders": (2, 3)}),
        ("qwen3", {"key_shift": True}),
        ("lfm2", {"conv_layers": (0,)}),
    ],
)
def test_a_packed_conversation_is_read_as_if_alone(tokenizer: Tokenizer, family: str, more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = GPT(shape(family, **more)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # n-gram tables start at zero
    conversations = render_set([talk(3), talk(8), talk(11)], tokenizer, 160)
    batch = collate([[0, 1, 2]], conversations, 160)
    together = model(batch["tokens"], packed(batch["documents"]))[0]
    for number in range(3):
        inputs, _ = conversations.row(number)
        alone = model(torch.from_numpy(inputs)[None])[0]
        torch.testing.assert_close(together[batch["documents"][0] == number], alone, atol=2e-5, rtol=1e-4)


def gradients(model: GPT, batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    objective = NextToken(model)
    count = sum(objective.count(batch) for batch in batches)
    model.zero_grad()
    for batch in batches:
        (objective(batch)[0] / count).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_eight_at_once_one_by_one_and_packed_give_the_same_gradients(tokenizer: Tokenizer) -> None:
    torch.manual_seed(1)
    model = GPT(shape("qwen3"))
    conversations = render_set([talk(n, 1 + n % 2) for n in range(8)], tokenizer, 160)
    at_once = [collate([[n] for n in range(8)], conversations, 160)]
    one_by_one = [collate([[n]], conversations, 160) for n in range(8)]
    packed = list(all_rows(conversations, 160, 4))
    assert sum(len(batch["tokens"]) for batch in packed) < 8
    wanted = gradients(model, at_once)
    assert max(float(g.abs().max()) for g in wanted.values()) > 1e-3
    for batches in (one_by_one, packed):
        for name, positions in gradients(model, batches).items():
            torch.testing.assert_close(positions, wanted[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_answer_and_its_end_are_trained_on(tokenizer: Tokenizer) -> None:
    conversations = render_set([talk(2, 2)], tokenizer, 160)
    _, targets = conversations.row(0)
    end = tokenizer.special_tokens[CHAT_TOKENS[1]]
    learnt = [int(token) for token in targets if token != IGNORE]
    assert learnt.count(end) == 2
    assert tokenizer.decode([t for t in learnt if t != end]) == "Bob has the cup.It is a cup."


def test_every_row_has_a_target_and_every_conversation_comes_once_an_epoch(tokenizer: Tokenizer) -> None:
    conversations = render_set([talk(n, 1 + n % 4) for n in range(30)], tokenizer, 160)
    rows = PackedRows(conversations, 160, seed=5)
    for epoch in (0, 1):
        assert sorted(n for row in rows.epoch(epoch) for n in row) == list(range(len(conversations)))
    assert rows.epoch(0) != rows.epoch(1)
    batch = rows.batch(0, len(rows.epoch(0)) + 3)
    assert ((batch["targets"] != IGNORE).sum(1) > 0).all()
    assert ((batch["documents"] != PADDING) | (batch["targets"] == IGNORE)).all()
    again = PackedRows(conversations, 160, seed=5).batch(7, 2)
    assert torch.equal(again["tokens"], batch["tokens"][7:9])


def test_rows_keep_one_epoch_and_give_any_sample(tokenizer: Tokenizer) -> None:
    conversations = render_set([talk(n, 1 + n % 4) for n in range(30)], tokenizer, 160)
    in_order, anywhere = (PackedRows(conversations, 160, seed=5) for _ in range(2))
    expected = [in_order.batch(sample, 1)["tokens"] for sample in range(60)]
    assert len({len(in_order.epoch(epoch)) for epoch in range(4)}) > 1, "epochs of different lengths"
    for sample in (59, 0, 31, 17, 58):
        assert torch.equal(anywhere.batch(sample, 1)["tokens"], expected[sample])
    tracemalloc.start()
    in_order.batch(200, 1)
    early = tracemalloc.get_traced_memory()[0]
    in_order.batch(1200, 1)
    grown = tracemalloc.get_traced_memory()[0] - early
    tracemalloc.stop()
    assert grown < 20_000, f"80 epochs later it holds {grown:,} bytes more"


def test_best_fit_fills_the_fullest_row_that_has_room() -> None:
    assert pack_best_fit(np.array([6, 5, 4, 5, 3]), 10) == [[0, 2], [1, 3], [4]]
    assert pack_best_fit(np.array([7, 6, 3]), 10) == [[0, 2], [1]]


def test_weights_are_how_often_an_epoch_shows_a_conversation(tokenizer: Tokenizer) -> None:
    weights = np.array([3.0] * 10 + [0.5] * 20)
    rows = PackedRows(render_set([talk(n) for n in range(30)], tokenizer, 160, weights=weights), 160, seed=1)
    shown = [np.bincount([n for row in rows.epoch(e) for n in row], minlength=30) for e in range(40)]
    assert all((times[:10] == 3).all() for times in shown)
    halves = np.array(shown)[:, 10:]
    assert set(np.unique(halves)) == {0, 1} and 0.4 < halves.mean() < 0.6
    assert (halves[0] != halves[1]).any()


def test_too_long_conversations_are_cut_at_a_turn_inside_or_dropped_and_counted(tokenizer: Tokenizer) -> None:
    long_question = [{"role": "user", "content": "Sam has " * 300}, {"role": "assistant", "content": "It is Sam."}]
    long_answer = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Sam has " * 300}]
    unanswered = [{"role": "user", "content": "Who?"}]
    everything = [talk(1), talk(2, 40), long_question, long_answer, unanswered]
    cut = render_set(everything, tokenizer, 160)
    assert cut.counts.__dict__ == {
        "conversations": 5, "whole": 1, "cut_at_a_turn": 1, "cut_inside": 2, "too_long": 0, "without_answer": 1,
        "refused_by_the_chat_template": 0,
    }  # fmt: skip
    assert (np.diff(cut.starts) <= 161).all()
    end = tokenizer.special_tokens[CHAT_TOKENS[1]]
    _, targets = cut.row(1)
    assert targets[-1] == end, "cut at a turn, the end of the last answer is trained on"
    _, targets = cut.row(2)
    assert tokenizer.decode([t for t in targets if t not in (IGNORE, end)]) == "It is Sam." and targets[-1] == end
    _, targets = cut.row(3)
    assert (targets != IGNORE).sum() > 48 and end not in targets
    dropped = render_set(everything, tokenizer, 160, "drop")
    assert (dropped.counts.too_long, len(dropped)) == (3, 1)
    with pytest.raises(ValueError, match=r"no conversation is left to train on .*1 too long"):
        render_set([talk(2, 40)], tokenizer, 160, "drop")
    with pytest.raises(ValueError, match=r"of the validation split fits .*more data or a larger --val-fraction"):
        render_set([talk(2, 40)], tokenizer, 160, "drop", split="val")


def test_the_first_conversations_of_a_set(tokenizer: Tokenizer) -> None:
    whole = render_set([talk(n) for n in range(9)], tokenizer, 160)
    few = whole.limit(int(whole.starts[4]) + 3)
    assert len(few) == 4 and len(few.tokens) == whole.starts[4] and (few.row(3)[0] == whole.row(3)[0]).all()
    assert len(whole.limit(1)) == 1 and whole.limit(None) is whole


# ---- runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A base run of a few steps, on text with a BPE."""
    from understudy.data.text.prepare import prepare

    folder = tmp_path_factory.mktemp("base")
    text = "\n".join(message["content"] for n in range(30) for message in talk(n, 2)) * 8
    (folder / "text.txt").write_text(text)
    prepare([str(folder / "text.txt")], folder / "data", "bpe", 290)
    (folder / "talks.jsonl").write_text("".join(json.dumps({"messages": talk(n, 2)}) + "\n" for n in range(30)))
    config = build_config({
        "model": {"family": "qwen3", "context_length": 160, "n_layers": 2, "n_heads": 2, "d_model": 32},
        "data": {"path": str(folder / "data")},
        "train": {"steps": 4, "batch_size": 4}, "log": {"samples": 0},
    })  # fmt: skip
    run = RunFolder(folder / "run")
    run_stage(config, run)
    return run


def sft_config(base: RunFolder, parent: Run, **more: Any) -> Any:
    lora = more.pop("lora", None)
    raw = {"context_length": more.pop("context_length", 160)} | ({"lora": lora} if lora else {})
    tree = {
        "stage": "sft", "init_from": str(base.path),
        "model": model_from_parent(raw, parent.config.model, with_chat_tokens(parent.tokenizer)),
        "data": {"path": str(more.pop("data", base.path.parent / "talks.jsonl"))},
        "optim": {"lr": 3e-3, "schedule": "constant"},
        "train": {"steps": 6, "batch_size": 4, **more}, "checkpoint": {"every_steps": 3}, "log": {"every_steps": 1, "plot": False},
        "eval": {"every_steps": 3},
    }  # fmt: skip
    return build_config(tree)


def test_finetuning_starts_from_the_base_and_learns_to_answer(base: RunFolder, tmp_path: Path) -> None:
    parent = load_run(base.path)
    folder = RunFolder(tmp_path / "chat")
    result = run_stage(sft_config(base, parent, steps=60), folder, parent=parent)
    rows = read_metrics(folder.metrics)
    assert result.final.loss < 0.6 * rows[0]["train/loss"]
    run = load_run(folder.path)
    assert run.tokenizer.special_tokens.keys() >= set(CHAT_TOKENS) and end_ids(run.tokenizer)
    about = folder.record()
    assert about["stage"] == "sft" and about["parent"]["sha256"] == parent.state["weights_sha256"]
    assert about["data"]["train_conversations"] + about["data"]["val_conversations"] == 30
    assert (folder.path / "samples").is_dir() and "assistant: " in next((folder.path / "samples").iterdir()).read_text()
    first = PackedRows(render_set([talk(0)], run.tokenizer, 160), 160, 0)
    assert rows[0]["tokens"] < 4 * 160 and first.batch(0, 1)["tokens"].shape == (1, 160), "padding is not counted"


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_stopped_finetuning_resumes_to_the_same_bits(base: RunFolder, tmp_path: Path, lora: Any) -> None:
    parent = load_run(base.path)
    config = sft_config(base, parent, lora=lora)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    run_stage(config, whole, parent=parent)
    stopped = config.model_copy(update={"train": config.train.model_copy(update={"stop_at_tokens": 600})})
    run_stage(stopped, parts, parent=load_run(base.path))
    assert parts.steps()[-1] < 6
    run_stage(config, parts, resume=True)
    for name in ("model.safetensors", "training.safetensors"):
        one, two = (read_tensors(folder.checkpoint("6") / name) for folder in (whole, parts))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name
    losses = [{r["step"]: r["train/loss"] for r in read_metrics(f.metrics)} for f in (whole, parts)]
    assert losses[0] == losses[1]


def test_killed_before_its_first_checkpoint_it_begins_again_from_its_parent(base: RunFolder, tmp_path: Path) -> None:
    parent = load_run(base.path)
    config = sft_config(base, parent)
    whole, again = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "again")
    run_stage(config, whole, parent=parent)
    shutil.copytree(whole.path, again.path, ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl"))
    run_stage(again.config(), again, resume=True)
    one, two = (read_tensors(folder.checkpoint("6") / "model.safetensors") for folder in (whole, again))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_command_that_started_it_resumes_it_with_or_without_its_parent(
    base: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    talks = str(base.path.parent / "talks.jsonl")
    start = ["sft", "sft", "--data", talks, "--run", "chat", "--optim.schedule", "constant", "--train.batch_size", "4"]
    assert main([*start, "--init-from", str(base.path), "--train.steps", "4", "--train.stop_at_tokens", "1"]) == 0
    for more in ([], ["--init-from", str(base.path)]):
        assert main([*start, *more, "--train.steps", "4", "--resume"]) == 0
    assert RunFolder(tmp_path / "runs/chat").steps()[-1] == 4
    capsys.readouterr()
    assert main([*start, "--train.steps", "4", "--resume", "--init-from", "other"]) == 2
    assert "did not start from" in capsys.readouterr().err


def test_a_context_of_64_trains_on_conversations_of_2000_tokens(base: RunFolder, tmp_path: Path) -> None:
    parent = load_run(base.path)
    tokenizer = with_chat_tokens(parent.tokenizer)
    talks = [talk(n, 80) if n % 2 else [
        {"role": "user", "content": "Sam has a cup. " * 400}, {"role": "assistant", "content": "It is a cup. " * 100},
    ] for n in range(24)]  # fmt: skip
    assert min(len(render(tokenizer, messages).tokens) for messages in talks) > 1500
    (tmp_path / "long.jsonl").write_text("".join(json.dumps({"messages": m}) + "\n" for m in talks))
    folder = RunFolder(tmp_path / "long")
    config = sft_config(base, parent, data=tmp_path / "long.jsonl", context_length=64, steps=12)
    result = run_stage(config, folder, parent=parent)
    assert result.progress.step == 12 and np.isfinite(result.final.loss)
    assert all(np.isfinite(row["train/loss"]) for row in read_metrics(folder.metrics))
    counts = folder.record()["data"]["counts"]["train"]
    assert counts["cut_at_a_turn"] and counts["cut_inside"] and counts["conversations"] >= 20


def test_new_tokens_start_as_the_mean_and_everything_else_as_it_was(base: RunFolder) -> None:
    parent = load_run(base.path)
    tokenizer = with_chat_tokens(parent.tokenizer)
    config = ModelConfig(**model_from_parent({}, parent.config.model, tokenizer))
    model = GPT(config)
    [note] = start_from(model, parent, tokenizer)
    assert "<|im_start|> and <|im_end|> added" in note and config.vocab_size == 292
    old, new = parent.model.token_embedding.weight, model.token_embedding.weight
    assert torch.equal(new[:290], old[:290])
    torch.testing.assert_close(new[290], old[:290].mean(0))
    tokens = torch.randint(0, 290, (2, 20))
    torch.testing.assert_close(model(tokens)[..., :290], parent.model(tokens), atol=1e-5, rtol=1e-5)


def test_adapters_start_as_nothing_learn_alone_and_merge_exactly() -> None:
    torch.manual_seed(0)
    plain = GPT(shape("qwen3"))
    adapted = GPT(shape("qwen3", lora=LoraConfig(rank=4, targets=("qkv", "down"))))
    weights = dict(plain.named_parameters())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora" not in name:
                parameter.copy_(weights[name])
    tokens = torch.randint(0, 290, (2, 20))
    assert torch.equal(adapted(tokens), plain(tokens))
    learning = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(learning) == 2 * 2 * 2 and all("qkv.lora" in n or "down.lora" in n for n in learning)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(std=0.1)
    changed = adapted(tokens)
    assert not torch.allclose(changed, plain(tokens), atol=1e-2)
    merge_lora(adapted)
    assert {n: p.shape for n, p in adapted.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    torch.testing.assert_close(adapted(tokens), changed, atol=1e-5, rtol=1e-4)


def test_adapters_leave_the_base_untouched_and_the_new_tokens_learn(base: RunFolder, tmp_path: Path) -> None:
    parent = load_run(base.path)
    folder = RunFolder(tmp_path / "lora")
    run_stage(sft_config(base, parent, lora={"rank": 4}), folder, parent=parent)
    before = dict(load_run(base.path).model.named_parameters())
    after = dict(load_run(folder.path, "latest").model.named_parameters())
    bf16 = {
        name: weight.bfloat16().float() for name, weight in before.items()
    }  # frozen weights, if that is computed in
    changed = {
        name for name in before
        if "embedding" not in name and not any(torch.equal(each[name], after[name]) for each in (before, bf16))
    }  # fmt: skip
    assert not changed, "adapted weights stay unchanged"
    assert any(name.endswith("lora_b") and after[name].abs().max() > 0 for name in after)
    rows = after["token_embedding.weight"][290:292]
    assert not torch.equal(rows[0], rows[1]), "tokens that came new are learnt"
    about = folder.record()
    assert about["trained_parameters"] < about["parameters"]
    child = GPT(ModelConfig(**model_from_parent({}, load_run(folder.path).config.model)))
    start_from(child, load_run(folder.path, "latest"), load_run(folder.path).tokenizer)
    tokens = torch.randint(0, 290, (1, 9))
    torch.testing.assert_close(child(tokens), load_run(folder.path, "latest").model(tokens), atol=1e-5, rtol=1e-4)
