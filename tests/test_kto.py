"""KTO: the loss and its reference point by hand, the mismatched rows of a step, and the optimum of a problem with a known one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import LETTERS, QUIET, RIGHT_ANSWERS, beginner, judged, run
from understudy.cli import main
from understudy.config.align import KTOConfig
from understudy.data.chat.judgement_rows import (
    EncodedJudgements,
    JudgementRows,
    MismatchedRows,
    encode_judgements,
    mismatched,
    mismatched_split,
)
from understudy.data.chat.judgements import open_judgements
from understudy.data.chat.pair_rows import EncodedCompletion
from understudy.losses import kto_loss
from understudy.model import GPT, as_gpt
from understudy.model.weights import weights_of
from understudy.run import Run, RunFolder, load_run, read_metrics
from understudy.runtime import Runtime
from understudy.stages.kto import JudgementBatches, reference_point, weight_advice
from understudy.tokenizer.chat import render
from understudy.train.stage import StageContext


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_kto_by_hand() -> None:
    logratios, desirable = torch.tensor([2.0, 2.0, -1.0, 0.5]), torch.tensor([True, False, False, True])
    losses = kto_loss(logratios, desirable, 0.5, beta=0.4, desirable_weight=1.5, undesirable_weight=0.25)
    # beta (logratio - kl) is 0.6, 0.6, -0.6 and 0
    expected = [1.5 * (1 - sigmoid(0.6)), 0.25 * (1 - sigmoid(-0.6)), 0.25 * (1 - sigmoid(0.6)), 1.5 / 2]
    assert losses.tolist() == pytest.approx(expected)


def test_the_gradient_of_kto_raises_what_is_desirable_and_passes_the_reference_point_by() -> None:
    logratios, kl = torch.zeros(2, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    kto_loss(logratios, torch.tensor([True, False]), kl, beta=0.5, undesirable_weight=3.0).sum().backward()
    slope = 0.5 * sigmoid(0.15) * (1 - sigmoid(0.15))
    assert logratios.grad is not None and logratios.grad.tolist() == pytest.approx([-slope, 3 * slope])
    assert kl.grad is None


def test_the_reference_point_is_a_mean_and_never_negative() -> None:
    assert reference_point(torch.tensor(3.0), 2).item() == 1.5
    assert reference_point(torch.tensor(-3.0), 2).item() == 0


# ---- mismatched rows ------------------------------------------------------------------------------------------------


def row(number: int, prompt_tokens: int = 2, completion_tokens: int = 1) -> EncodedCompletion:
    """Prompts of the tokens 10, 11, ... and completions of 20, 21, ..."""
    return EncodedCompletion(
        [10 + number] * prompt_tokens, [20 + number] * completion_tokens, [True] * completion_tokens
    )


def rows_of(count: int) -> JudgementRows:
    judgements = EncodedJudgements(completions=[row(n) for n in range(count)], labels=[True] * count)
    return JudgementRows(judgements, 8, seed=5, reference_logprobs=torch.zeros(count))


def test_each_prompt_of_a_step_meets_the_completion_of_the_next_row_of_the_step() -> None:
    rows, size = rows_of(9), 4
    for step in range(5):  # steps go on over the ends of epochs
        numbers = [rows.index(step * size + place) for place in range(size)]
        batch = MismatchedRows(rows, size).batch(step * size, size)
        starts = batch["places"] - 1
        assert batch["tokens"].flatten()[starts].tolist() == [10 + number for number in numbers]
        assert batch["targets"].tolist() == [20 + number for number in (*numbers[1:], numbers[0])]
        parts = [MismatchedRows(rows, size).batch(step * size + place, 1) for place in range(size)]
        assert torch.cat([part["targets"] for part in parts]).tolist() == batch["targets"].tolist()


def test_a_prompt_that_does_not_fit_with_another_completion_loses_its_first_tokens() -> None:
    long = EncodedCompletion([1, 2, 3, 4], [5], [True])
    pair = mismatched(long, row(0, completion_tokens=6), 8)
    assert (pair.prompt, pair.completion) == ([3, 4], [20] * 6)
    assert mismatched(long, row(0), 8).prompt == long.prompt


def test_prompts_of_validation_meet_completions_half_of_the_split_away() -> None:
    pairs = mismatched_split([row(n) for n in range(5)], 8)
    assert [(pair.prompt[0] - 10, pair.completion[0] - 20) for pair in pairs] == [
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 0),
        (4, 1),
    ]
    assert mismatched_split([row(0)], 8) == [row(0)]


@pytest.fixture
def liked(tmp_path: Path) -> Path:
    """Judgements of people who like the answer b to anything. Learning them raises the KL."""
    rows = [judged(question, "b", True) for question in LETTERS for _ in range(2)] + [judged("a", "c", False)]
    path = tmp_path / "liked.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    return path


def test_the_kl_of_a_step_is_that_of_its_mismatched_pairs_one_by_one(sft_run: Run, liked: Path, tmp_path: Path) -> None:
    options = {"train__batch_size": 4, "train__micro_batch_size": 2, "optim__lr": "3e-2", "train__steps": 6}
    trained = run("kto", tmp_path / "run", sft_run, liked, **options, **QUIET)
    policy, reference = as_gpt(trained.model), as_gpt(sft_run.model)
    context = StageContext(trained.config, RunFolder(trained.path), Runtime(torch.device("cpu")), policy, None)
    encoded = encode_judgements(open_judgements(liked, "train"), trained.tokenizer, 32)
    rows = JudgementRows(encoded, 32, 7, torch.zeros(len(encoded.labels)))

    def logprob(model: GPT, completion: EncodedCompletion) -> float:
        tokens = torch.tensor(completion.prompt + completion.completion)
        with torch.no_grad():
            logprobs = model(tokens[None])[0, len(completion.prompt) - 1 : -1].log_softmax(-1)
        return float(logprobs.gather(-1, tokens[len(completion.prompt) :, None]).sum())

    positive = 0
    for step in range(4):
        batches = JudgementBatches(rows, context).batches(step)
        numbers = [rows.index(4 * step + place) for place in range(4)]
        pairs = [
            EncodedCompletion(encoded.completions[a].prompt, encoded.completions[b].completion, [])
            for a, b in zip(numbers, (*numbers[1:], numbers[0]))
        ]
        mean = sum(logprob(policy, pair) - logprob(reference, pair) for pair in pairs) / 4
        assert len(batches) == 2 and all(not batch["kl"].requires_grad for batch in batches)
        assert [float(batch["kl"]) for batch in batches] == pytest.approx([max(0, mean)] * 2, abs=1e-4)
        positive += mean > 0
    assert positive, "no estimate is positive, so that nothing is tested"


def test_a_step_does_not_depend_on_its_micro_batches(sft_run: Run, liked: Path, tmp_path: Path) -> None:
    options = {"train__batch_size": 8, "train__steps": 6, "log__every_steps": 1, "optim__eps": "1e-4", **QUIET}
    weights, rows = [], []
    for micro in (8, 1):
        trained = run("kto", tmp_path / f"{micro}", sft_run, liked, train__micro_batch_size=micro, **options)
        weights.append(weights_of(trained.model))
        rows.append([line for line in read_metrics(trained.path / "metrics.jsonl") if "train/kl" in line])
    for name in ("train/loss", "train/kl", "train/accuracy", "grad_norm"):
        whole, parts = ([line[name] for line in lines] for lines in rows)
        assert parts == pytest.approx(whole, rel=1e-3, abs=1e-5), name
    assert rows[0][0]["train/kl"] == 0 < rows[0][-1]["train/kl"]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-4, rtol=1e-3)


# ---- training -------------------------------------------------------------------------------------------------------


def share(trained: Run, question: str, letter: str) -> float:
    """The probability that an answer begins with the letter, given that it begins with one of the eight."""
    prompt = render(trained.tokenizer, [{"role": "user", "content": question}], reply=True).tokens
    with torch.no_grad():
        logits = as_gpt(trained.model)(torch.tensor([prompt]))[0, -1]
    chances = {letter: float(logits.softmax(-1)[trained.tokenizer.encode(letter)[0]]) for letter in LETTERS}
    return chances[letter] / sum(chances.values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kto_finds_the_answer_that_most_find_desirable(seed: int, tmp_path: Path) -> None:
    """The loss of a completion falls without end towards the label that most of its judgements have. So of eight answers the
    one that 3 of 4 judge desirable comes to have all the probability, where DPO would stop at a finite log-ratio."""
    start = beginner(tmp_path / "start", seed)
    rows = [
        judged(question, letter, (letter == right) != (vote == 0))
        for question, right in RIGHT_ANSWERS.items() for letter in LETTERS for vote in range(4)
    ]  # fmt: skip
    data = tmp_path / "judged.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in rows))
    trained = run("kto", tmp_path / "run", start, data, seed=seed, train__batch_size=32, train__steps=24, kto__beta=0.5,
                  kto__desirable_weight=2.0, **QUIET)  # fmt: skip
    [question] = {judgement.prompt[0]["content"] for judgement in open_judgements(data, "train")}
    right = RIGHT_ANSWERS[question]
    assert share(start, question, right) < 0.3 < 0.99 < share(trained, question, right)
    before, last = (read_metrics(trained.path / "metrics.jsonl")[place] for place in (0, -1))
    assert before["step"] == 0 and before["val/kl"] == 0
    assert last["train/accuracy"] == pytest.approx(0.75), "the share of the majority"


def test_the_weights_of_the_labels_are_those_of_the_loss(sft_run: Run, judgements: Path, tmp_path: Path) -> None:
    options = {"kto__desirable_weight": 3.0, "kto__undesirable_weight": 0.5, "train__batch_size": 8, "train__steps": 1}
    trained = run("kto", tmp_path / "run", sft_run, judgements, **options, **QUIET)
    before, first = read_metrics(trained.path / "metrics.jsonl")
    expected = (1 * 3.0 + 7 * 0.5) / 8 / 2  # one of eight answers is right, and each value is one half
    assert [before["val/loss"], first["train/loss"]] == pytest.approx([expected] * 2, abs=1e-4)


def test_labels_that_are_out_of_balance_are_named_with_a_weight_that_balances_them() -> None:
    assert weight_advice(KTOConfig(), 40, 30) == [] == weight_advice(KTOConfig(desirable_weight=3.0), 10, 30)
    [many] = weight_advice(KTOConfig(), 90, 30)
    assert "3 times the weight" in many and "kto.undesirable_weight 3 gives" in many
    assert weight_advice(KTOConfig(undesirable_weight=3.0), 90, 30) == []
    [few] = weight_advice(KTOConfig(), 10, 40)
    assert "kto.desirable_weight 4 gives" in few and weight_advice(KTOConfig(desirable_weight=4.0), 10, 40) == []
    assert "are undesirable" in weight_advice(KTOConfig(), 0, 9)[0]


@pytest.mark.parametrize(("options", "lines", "message"), [
    ({"train.batch_size": "1"}, None, "train.batch_size 1 leaves kto no second completion"),
    ({"kto.beta": "0"}, None, "kto.beta"),
    ({"dpo.beta": "0.2"}, None, "dpo would be ignored by the stage kto"),
    ({}, 2, "leaves 1 judgement to train on; kto needs 2 or more"),
])  # fmt: skip
def test_what_kto_cannot_learn_from_is_refused_in_one_sentence(
    options: dict[str, str], lines: int | None, message: str, sft_run: Run, judgements: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = judgements
    if lines:
        data = tmp_path / "few.jsonl"
        data.write_text("".join(json.dumps(judged(letter, "b", True)) + "\n" for letter in LETTERS[:lines]))
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"stage: kto\ndata: {{path: {data}}}\n")
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert main(["kto", str(preset), "--run", str(tmp_path / "run"), "--init-from", str(sft_run.path), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_run_of_kto_is_evaluated_by_tasks_and_reported(
    sft_run: Run, judgements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"train__batch_size": 4, "train__steps": 2, **QUIET}
    trained = run("kto", tmp_path / "run", sft_run, judgements, **options)
    assert load_run(trained.path).config.info.generates
    assert main(["evaluate", str(trained.path), "--device", "cpu"]) == 2
    assert "was trained on judgements, which have no loss per token; name --tasks" in capsys.readouterr().err
    assert main(["report", str(trained.path)]) == 0
    assert "log-ratio of desirable completions" in (trained.path / "report.html").read_text()
