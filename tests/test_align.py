"""The stages after finetuning: a problem whose best answer is known, the first ratio, resuming to the bit, bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align_runs import COMMON, LETTERS, QUIET, RIGHT_ANSWERS, beginner, pair, run
from processes import run_two
from understudy.cli import main
from understudy.config.align import DPOConfig, GRPOConfig, RewardConfig
from understudy.data.chat.pair_rows import collate_pairs, encode_preferences
from understudy.data.chat.preferences import open_preferences
from understudy.data.chat.prompts import Prompt, open_prompts
from understudy.model import GPT, as_gpt
from understudy.model.weights import weights_of
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import true_score
from understudy.run import Run, load_run, read_metrics
from understudy.runtime import start_runtime
from understudy.stages.completions import (
    EncodedPrompt,
    completion_logprobs,
    completion_mask,
    compute_per_token,
    encode_prompts,
    sample_completions,
    sampled_logprobs,
)
from understudy.stages.dpo import DirectPreference, summed_logprobs
from understudy.stages.preferences import evaluate_pairs
from understudy.stages.reward import PairwiseReward
from understudy.stages.rollout import RewardFunction
from understudy.tokenizer.chat import render
from understudy.train.objective import Objective

BETA = 0.25


def chance_of(run: Run, question: str) -> torch.Tensor:
    """Probabilities of the first token of an answer."""
    tokens = render(run.tokenizer, [{"role": "user", "content": question}], reply=True).tokens
    assert isinstance(run.model, GPT)
    with torch.no_grad():
        return run.model(torch.tensor([tokens]))[0, -1].softmax(-1)


def answer_chances(run: Run, question: str) -> dict[str, float]:
    """Log-probability of each letter as a whole answer, which is the letter and the end of turn."""
    assert isinstance(run.model, GPT)
    prompt = render(run.tokenizer, [{"role": "user", "content": question}], reply=True).tokens
    chances = {}
    for letter in LETTERS:
        answer = [*run.tokenizer.encode(letter), run.tokenizer.special_tokens["<|im_end|>"]]
        with torch.no_grad():
            logprobs = run.model(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1].log_softmax(-1)
        chances[letter] = float(logprobs[range(len(answer)), answer].sum())
    return chances


def best_chance(sft_run: Run, question: str) -> tuple[int, float]:
    """The right letter's id, and its probability under the policy that is best at a divergence cost of BETA:
    proportional to the start's times e to the reward over BETA."""
    right = sft_run.tokenizer.encode(RIGHT_ANSWERS[question])[0]
    before = float(chance_of(sft_run, question)[right])
    raised = before * math.exp(1 / BETA)
    return right, raised / (1 - before + raised)


BANDIT = {
    "checker_weight": 1,
    "reward_weight": 0,
    "missing_end_penalty": 0,
    "max_new_tokens": 1,
    "kl_coefficient": BETA,
}
STEPS = {"train__steps": 60, "eval__every_steps": 0, "checkpoint__every_steps": 0}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("ppo", {"prompts": 128, "kl_estimator": "k1", "whiten": False}),
        ("grpo", {"prompts": 16, "group_size": 8, "kl_estimator": "k2", "divide_by_spread": False,
                  "baseline": "leave_one_out"}),
    ],
)  # fmt: skip
def test_the_known_best_policy_is_found(
    stage: str, settings: dict[str, Any], seed: int, prompts: Path, tmp_path: Path
) -> None:
    sft_run = beginner(tmp_path / "start", seed)
    stage_options = {f"{stage}__{name}": value for name, value in (BANDIT | settings).items()}
    trained = run(stage, tmp_path / "run", sft_run, prompts, seed=seed, train__batch_size=128, **STEPS, **stage_options)
    [letter] = [prompt.messages[0]["content"] for prompt in open_prompts(prompts, "train")]
    right, best = best_chance(sft_run, letter)
    assert float(chance_of(sft_run, letter)[right]) < 0.1 < 0.3 < best < 0.9
    assert float(chance_of(trained, letter)[right]) == pytest.approx(best, abs=0.1)
    rows = read_metrics(trained.path / "metrics.jsonl")
    assert all(row["train/kl"] >= 0 for row in rows if "train/kl" in row)
    assert max(abs(row["train/first_ratio"] - 1) for row in rows if "train/first_ratio" in row) < 1e-4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dpo_finds_the_policy_that_the_preferences_come_from(seed: int, preferences: Path, tmp_path: Path) -> None:
    sft_run = beginner(tmp_path / "start", seed)
    trained = run("dpo", tmp_path / "run", sft_run, preferences, seed=seed, train__batch_size=1, dpo__beta=0.5, **STEPS)
    [question] = [comparison.prompt[0]["content"] for comparison in open_preferences(preferences, "train")]
    before, after = answer_chances(sft_run, question), answer_chances(trained, question)
    moved = {letter: after[letter] - before[letter] for letter in LETTERS}
    gained = moved.pop(RIGHT_ANSWERS[question])
    assert [gained - other for other in moved.values()] == pytest.approx([math.log(19 / 7) / 0.5] * 7, abs=0.05)


# ---- the same after an interruption ---------------------------------------------------------------------------------


LEARNING = {"missing_end_penalty": 0.5, "max_new_tokens": 3, "normalise_scores": True, "epochs": 2}


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("reward", {}),
        ("dpo", {}),
        ("ppo", LEARNING | {"prompts": 16, "critic": "model", "kl_target": 0.01, "kl_horizon": 50}),
        ("ppo", LEARNING | {"prompts": 8, "group_size": 2, "critic": "reward", "target_kl": 1e-7}),
        ("grpo", LEARNING | {"prompts": 4, "group_size": 4}),
    ],
)
def test_a_resumed_run_is_the_same_to_the_bit(
    stage: str,
    settings: dict[str, Any],
    sft_run: Run,
    reward_run: Run,
    prompts: Path,
    preferences: Path,
    tmp_path: Path,
) -> None:
    """Stopped half way and gone on with, and never stopped."""
    stage_options: dict[str, Any] = {f"{stage}__{name}": value for name, value in settings.items()}
    data = preferences
    if stage in ("ppo", "grpo"):
        data = prompts
        stage_options |= {f"{stage}__reward_model": reward_run.path}
    stage_options |= {
        "train__steps": 16, "train__batch_size": 8 if data == prompts else 2, "eval__every_steps": 8,
        "checkpoint__every_steps": 8, "checkpoint__keep": 3, "log__every_steps": 1,
    }  # fmt: skip
    whole = run(stage, tmp_path / "whole", sft_run, data, **stage_options)
    shutil.copytree(whole.path, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_16")
    for name in ("latest", "best"):
        (tmp_path / "cut" / "checkpoints" / name).write_text("8")
    resumed = run(stage, tmp_path / "cut", sft_run, data, "--resume", **stage_options)
    for name in ("model.safetensors", "training.safetensors"):
        first, second = (load_file(one_run.path / "checkpoints" / "step_16" / name) for one_run in (whole, resumed))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    for name in ("progress", "source", "step", "tokens", "best_loss"):
        assert whole.state.get(name) == resumed.state.get(name)
    measured = [
        [{k: v for k, v in row.items() if not any(word in k for word in ("second", "memory"))} for row in rows[9:]]
        for rows in (read_metrics(trained.path / "metrics.jsonl") for trained in (whole, resumed))
    ]
    assert measured[0] == measured[1] and measured[0][-1]["step"] == 16
    before, after = (load_file(whole.path / "checkpoints" / f"step_{n}" / "model.safetensors") for n in (8, 16))
    assert any(not torch.equal(before[key], after[key]) for key in before)  # it does learn something


def test_a_reward_model_with_adapters_learns(sft_run: Run, preferences: Path, tmp_path: Path) -> None:
    """Its score head starts at zero, and would let no gradient pass if it were frozen like the rest."""
    options = {"train__steps": 20, "train__batch_size": 1, "model__lora__rank": 4}
    trained = run("reward", tmp_path / "judge", sft_run, preferences, **options, **QUIET)
    lines = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < math.log(2) - 0.02, losses
    before, after = sft_run.model.state_dict(), trained.model.state_dict()
    assert after["score.weight"].abs().sum() > 0
    assert all(after[f"blocks.0.{layer}.lora_b"].abs().sum() > 0 for layer in ("attention.qkv", "mlp.down"))
    assert all(torch.equal(before[name], after[name]) for name in before), "the rest is frozen"


def test_a_reward_model_scores_the_right_letter_higher(reward_run: Run, preferences: Path) -> None:
    with start_runtime("cpu") as runtime:
        model = RewardModel(reward_run, runtime)
        [question] = [comparison.prompt[0]["content"] for comparison in open_preferences(preferences, "train")]
        scores = {
            letter: model.conversations(
                [[*pair(question, letter, "a")["prompt"], *pair(question, letter, "a")["chosen"]]]
            )[0]
            for letter in LETTERS
        }
    assert max(scores, key=lambda letter: scores[letter]) == RIGHT_ANSWERS[question]


# ---- agreement of sampling and training -------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rounding"), [("fp32", 1e-5), ("bf16", 4e-3)])
def test_sampled_and_read_log_probabilities_are_the_same(
    dtype: str, rounding: float, sft_run: Run, prompts: Path
) -> None:
    """The ratio of the first step is 1, at the temperature that answers were sampled at, whatever their lengths."""
    config = GRPOConfig(checker_weight=1, max_new_tokens=9, temperature=0.7)
    encoded = encode_prompts(open_prompts(prompts, "train"), sft_run.tokenizer, 20) * 5
    encoded = [EncodedPrompt(prompt.record, prompt.tokens[-9 + n :]) for n, prompt in enumerate(encoded)] * 8
    with start_runtime("cpu", dtype) as runtime:
        model = as_gpt(sft_run.model)
        completions = sample_completions(model, sft_run.tokenizer, encoded, config, 3, runtime)

        def logprobs(temperature: float) -> torch.Tensor:
            compute = partial(completion_logprobs, model, temperature=temperature)
            return compute_per_token(completions, compute, model, 32, runtime)

        computed, wrong = logprobs(0.7), logprobs(1.0)
    mask, old = completion_mask(completions), sampled_logprobs(completions)
    assert len({len(completion.tokens) for completion in completions}) > 1
    assert torch.allclose(computed, old, atol=rounding) and (old[mask] < 0).all() and (computed[~mask] == 0).all()
    assert float((computed - old)[mask].abs().mean()) < rounding / 20
    assert not torch.allclose(wrong, old, atol=0.1)


def test_evaluations_have_one_scale_whatever_was_sampled_before(sft_run: Run, reward_run: Run, prompts: Path) -> None:
    """Otherwise the best checkpoint would be one of the first, since the mean score rises as the policy improves."""
    config = GRPOConfig(
        reward_model=str(reward_run.path), normalise_scores=True, missing_end_penalty=0.5, max_new_tokens=3
    )
    with start_runtime("cpu") as runtime:
        reward = RewardFunction(config, runtime, RewardModel(reward_run, runtime))
        encoded = encode_prompts(open_prompts(prompts, "train"), sft_run.tokenizer, 20) * 16
        completions = sample_completions(as_gpt(sft_run.model), sft_run.tokenizer, encoded, config, 3, runtime)
        before, updated, after = reward(completions), reward(completions, update=True), reward(completions)
    assert torch.equal(before["reward"], after["reward"])
    assert torch.allclose(before["reward"], before["score"] - 0.5 * (1 - before["eos_rate"]))
    normalised = updated["reward"] + 0.5 * (1 - updated["eos_rate"])
    assert normalised.mean().abs() < 1e-5 and normalised.std(correction=0) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_the_gradient_does_not_depend_on_the_micro_batches(stage: str, sft_run: Run, preferences: Path) -> None:
    encoded = encode_preferences(open_preferences(preferences, "train"), sft_run.tokenizer, 32)
    unit = encoded.comparisons[0]
    units = [
        dataclasses.replace(unit, pairs=unit.pairs[k : k + 1 + 20 * k]) for k in range(4)
    ]  # prompts with one pair and with many
    shape = sft_run.config.model.model_copy(update={"score_head": stage == "reward"})
    torch.manual_seed(1)
    model = GPT(shape)
    objective: Objective = (
        PairwiseReward(model, RewardConfig()) if stage == "reward" else DirectPreference(model, DPOConfig())
    )
    if stage == "reward":
        torch.nn.init.normal_(model.score.weight)
    reference = torch.linspace(-9, -3, encoded.completions)

    def gradient(parts: list[list[Any]], context: int) -> torch.Tensor:
        batches = [collate_pairs(part, context, reference) for part in parts]
        count = sum(objective.count(batch) for batch in batches)
        model.zero_grad()
        for batch in batches:
            (objective(batch)[0] / count).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together = gradient([units], 32)
    assert together.abs().max() > 1e-3
    assert torch.allclose(gradient([[unit] for unit in units], 32), together, rtol=1e-4, atol=1e-5)
    longest = max(map(len, unit.completions))
    assert torch.allclose(gradient([units], longest), together, rtol=1e-4, atol=1e-5)  # a document in each row


def test_only_the_tokens_of_the_assistant_are_compared(sft_run: Run, tmp_path: Path) -> None:
    """In dialogues that part early the user's later words are context, as in finetuning."""

    def turns(*contents: str) -> list[dict[str, str]]:
        return [{"role": ("assistant", "user")[n % 2], "content": content} for n, content in enumerate(contents)]

    row = {"prompt": [{"role": "user", "content": "h"}], "chosen": turns("a", "gg", "b"), "rejected": turns("c")}
    rows = [row | {"prompt": [{"role": "user", "content": letter}]} for letter in LETTERS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    comparisons = open_preferences(tmp_path / "pairs.jsonl", "train")
    encoded = encode_preferences(comparisons, sft_run.tokenizer, 64)
    batch = collate_pairs(encoded.comparisons[:1], 64)
    texts = [sft_run.tokenizer.decode(batch["targets"][batch["completion_index"] == n].tolist()) for n in (0, 1)]
    assert texts == ["a<|im_end|>b<|im_end|>", "c<|im_end|>"]
    comparison, model = encoded.comparisons[0], GPT(sft_run.config.model.model_copy(update={"context_length": 64}))
    with torch.no_grad():
        logprobs = summed_logprobs(model, batch)
        for n, completion in enumerate(comparison.completions):
            tokens = torch.tensor(completion.prompt + completion.completion)
            rows_of = model(tokens[None])[0, len(completion.prompt) - 1 : -1].log_softmax(-1)
            one_run = rows_of.gather(1, tokens[len(completion.prompt) :, None])[:, 0]
            assert float(logprobs[n]) == pytest.approx(float(one_run[torch.tensor(completion.mask)].sum()), abs=1e-4)


def test_a_validation_split_that_does_not_fit_is_named(sft_run: Run, preferences: Path) -> None:
    with pytest.raises(ValueError, match=r"of the validation split fits .*more data or a larger --val-fraction"):
        encode_preferences(open_preferences(preferences, "val"), sft_run.tokenizer, 4, "val")
    with pytest.raises(ValueError, match="no preference is left to train on"):
        encode_preferences(open_preferences(preferences, "train"), sft_run.tokenizer, 4)


def test_pairs_are_evaluated_in_batches(sft_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair(f"{a}{b}", "a", "b") for a in LETTERS for b in LETTERS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoded = encode_preferences(open_preferences(tmp_path / "pairs.jsonl", "train"), sft_run.tokenizer, 32)
    model, reference = as_gpt(sft_run.model), torch.linspace(-9, -3, encoded.completions)
    objective, forwards = DirectPreference(model, DPOConfig()), []
    with start_runtime("cpu", "fp32") as runtime, model.token_embedding.register_forward_hook(
        lambda *_: forwards.append(1)
    ):  # fmt: skip
        alone, together = (evaluate_pairs(objective, encoded, 32, size, runtime, reference) for size in (1, 16))
    assert len(forwards) == encoded.prompts + -(-encoded.prompts // 16)
    assert alone.keys() == together.keys() >= {"loss", "accuracy", "chosen_logratio", "rejected_logratio"}
    for name, values in alone.items():
        assert together[name] == pytest.approx(values, abs=1e-4), name


def test_the_loss_of_dpo_begins_at_log_2(sft_run: Run, preferences: Path, tmp_path: Path) -> None:
    trained = run("dpo", tmp_path / "run", sft_run, preferences, train__steps=1, train__batch_size=1, **QUIET)
    before, first = read_metrics(trained.path / "metrics.jsonl")
    assert (before["step"], before["val/accuracy"]) == (0, 0.5)
    assert before["val/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("right", "message", "score"),
    [("72", "So they have 72 in all.", 1.0), ("72", "It is 71.", 0.0), ("3 and 4 #### 7", "7", 1.0), ("b", "bb", 0.0)],
)
def test_numeric_answers_are_compared_by_value(right: str, message: str, score: float) -> None:
    assert true_score(Prompt(({"role": "user", "content": "?"},), None, right, ""), message) == score


def test_samples_answer_the_prompts_that_are_asked_for(sft_run: Run, prompts: Path, tmp_path: Path) -> None:
    trained = run(
        "grpo", tmp_path / "run", sft_run, prompts, train__steps=1, train__batch_size=4, grpo__prompts=2,
        grpo__group_size=2, grpo__checker_weight=1, grpo__max_new_tokens=2, log__samples=1, log__prompts="[h]", **QUIET,
    )  # fmt: skip
    assert (trained.path / "samples" / "step_1.txt").read_text().startswith("user: h\nassistant:")


# ---- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("ppo", {}, "nothing is rewarded"),
        ("ppo", {"ppo.checker_weight": "1", "train.batch_size": "48"}, "does not divide the 64 answers"),
        (
            "grpo",
            {"grpo.checker_weight": "1", "train.batch_size": "64", "train.steps": "12"},
            "no multiple of the 8 steps",
        ),
        ("ppo", {"ppo.checker_weight": "1", "ppo.max_new_tokens": "31"}, "no prompt in"),
        ("ppo", {"ppo.reward_model": "START", "ppo.max_new_tokens": "3"}, "gives no scores"),
        ("dpo", {"dpo.loss": "ipo", "dpo.label_smoothing": "0.1"}, "would be ignored with dpo.loss ipo"),
        ("dpo", {"ppo.prompts": "3"}, "ppo would be ignored by the stage dpo"),
        ("dpo", {"train.loss_chunk_tokens": "64"}, "train.loss_chunk_tokens would be ignored by the stage dpo"),
        ("ppo", {"ppo.checker_weight": "1", "eval.batch_size": "2"}, "eval.batch_size would be ignored"),
        ("ppo", {"ppo.checker_weight": "1", "ppo.normalise_scores": "true"}, "normalise_scores would be ignored"),
        ("reward", {"log.prompts": "[a]"}, "log.prompts would be ignored by the stage reward"),
        ("grpo", {"grpo.checker_weight": "1", "grpo.kl_estimator": "k1"}, "k1"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(
    stage: str, options: dict[str, str], message: str, sft_run: Run, prompts: Path, preferences: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    preset = tmp_path / "preset.yaml"
    data = prompts if stage in ("ppo", "grpo") else preferences
    preset.write_text(f"stage: {stage}\ndata: {{path: {data}}}\n")
    given = {"train.steps": "16", "train.batch_size": "64", **QUIET_DOTTED} | options
    words = [w.replace("START", str(sft_run.path)) for key, value in given.items() for w in (f"--{key}", value)]
    status = main([stage, str(preset), "--run", str(tmp_path / "run"), "--init-from", str(sft_run.path), *words])
    err = capsys.readouterr().err
    assert status == 2 and message in err and "Traceback" not in err
    assert not list(tmp_path.glob("run/checkpoints/step_*"))


QUIET_DOTTED = {name.replace("__", "."): str(value) for name, value in QUIET.items()}


@pytest.mark.parametrize("unknown", ["train", "val"])
def test_a_checker_needs_to_know_all_answers(
    unknown: str, sft_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": [{"role": "user", "content": a + b}], "answer": RIGHT_ANSWERS[a]}
        for a in RIGHT_ANSWERS
        for b in LETTERS
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    of_split = [list(one_run.messages) for one_run in open_prompts(data, unknown)]
    for row in rows:
        if row["prompt"] in of_split:
            row["answer"] = None
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"stage: grpo\ndata: {{path: {data}}}\ngrpo: {{checker_weight: 1, max_new_tokens: 2}}\n")
    words = [word for name, value in QUIET_DOTTED.items() for word in (f"--{name}", value)]
    words += ["--train.steps", "16", "--run", str(tmp_path / "run"), "--init-from", str(sft_run.path)]
    assert main(["grpo", str(preset), *words]) == 2
    assert "checker_weight needs prompts with a check or an answer" in capsys.readouterr().err


def test_a_run_without_chat_tokens_is_refused(
    char_data: Path, preferences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [
        "--run", str(tmp_path / "base"), "--train.steps", "1", "--model.context_length", "16", "--model.n_layers", "1",
        "--model.n_heads", "1", "--model.d_model", "8", "--eval.max_tokens", "64", "--log.samples", "0",
    ]  # fmt: skip
    plain = tmp_path / "plain.yaml"
    plain.write_text(f"data: {{path: {char_data}}}\n")
    assert main(["pretrain", str(plain), *base]) == 0
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"stage: reward\ndata: {{path: {preferences}}}\n")
    capsys.readouterr()
    assert main(["reward", str(preset), "--run", str(tmp_path / "run"), "--init-from", str(tmp_path / "base")]) == 2
    assert "has no chat tokens yet" in capsys.readouterr().err


# ---- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not tested on Windows")
@pytest.mark.parametrize("stage", ["dpo", "ppo"])
def test_two_processes_work_together(
    stage: str, sft_run: Run, reward_run: Run, prompts: Path, preferences: Path, tmp_path: Path
) -> None:
    """They take the steps of one process; in ppo each asks its share of the prompts and gets the same answers."""
    settings: dict[str, Any] = {"train__steps": 4, "train__batch_size": 4, "train__micro_batch_size": 2, **QUIET}
    settings["optim__eps"] = 1e-4  # else rounding decides where a gradient is nearly zero
    data = preferences
    if stage == "ppo":
        data = prompts
        settings |= {
            "ppo__reward_model": reward_run.path, "ppo__prompts": 4, "ppo__group_size": 2, "ppo__max_new_tokens": 2,
            "ppo__critic": "model", "ppo__normalise_scores": True, "ppo__epochs": 2, "ppo__target_kl": 0.5,
            "train__batch_size": 8,  # all answers: smaller batches would be other shares of them
        }  # fmt: skip
    one = run(stage, tmp_path / "runs" / "one", sft_run, data, **settings)
    words = [
        w
        for k, v in (COMMON | {k.replace("__", "."): str(v) for k, v in settings.items()}).items()
        for w in (f"--{k}", v)
    ]
    origin = ["--init-from", str(sft_run.path), "--seed", "0"]
    run_two(["-m", "understudy", stage, "runs/one.yaml", "--run-name", "two", *origin, *words], tmp_path)
    two = load_run(tmp_path / "runs" / "two", "latest")
    rows = [read_metrics(one_run.path / "metrics.jsonl") for one_run in (one, two)]
    for name, weights in weights_of(one.model).items():
        torch.testing.assert_close(weights_of(two.model)[name], weights, atol=1e-5, rtol=1e-4)
    assert rows[0][-1]["train/loss"] == pytest.approx(rows[1][-1]["train/loss"], rel=1e-5, abs=1e-6)
    if stage == "ppo":
        assert rows[1][-1]["train/first_ratio"] == pytest.approx(1, abs=1e-4)
        for name in ("train/reward", "train/kl", "train/value_loss", "tokens"):
            assert rows[0][-1][name] == pytest.approx(rows[1][-1][name], rel=1e-4, abs=1e-6), name
        assert two.state["source"]["rewards"]["count"] == one.state["source"]["rewards"]["count"] == 16
