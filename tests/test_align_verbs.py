"""score, compare, best-of-n and evaluate after the later stages, and their parts of the report."""

from __future__ import annotations

import io
import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import QUIET, RIGHT_ANSWERS, pair, run
from understudy import runtime
from understudy.cli import main
from understudy.data.chat.preferences import open_preferences
from understudy.data.chat.prompts import Prompt
from understudy.evaluation import compare
from understudy.files import read_json
from understudy.model.weights import weights_of
from understudy.report.alignment import overoptimisation, reward_evidence
from understudy.report.report import write_report
from understudy.rewards.model import RewardModel
from understudy.run import Run, RunFolder, read_metrics, save_run
from understudy.runtime import start_runtime
from understudy.stages.best_of import expected_of_best
from understudy.train.console_panel import ProgressPanel


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def optimised(sft_run: Run, reward_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A ppo run, rewarded by the reward model, on prompts enough for intervals."""
    where = tmp_path_factory.mktemp("ppo")
    rows = [
        {"prompt": [{"role": "user", "content": a + x + y}], "answer": RIGHT_ANSWERS[a]}
        for a in RIGHT_ANSWERS
        for x in "abcdefgh"
        for y in "abcdefgh"
    ]
    settings = {
        "train__steps": 12, "train__batch_size": 16, "eval__every_steps": 6, "log__samples": 1, "log__sample_tokens": 2,
        "ppo__prompts": 16, "ppo__max_new_tokens": 2, "ppo__reward_model": reward_run.path, "checkpoint__every_steps": 6,
        "log__plot": True,
    }  # fmt: skip
    return run("ppo", where / "ppo", sft_run, write_lines(where / "prompts.jsonl", rows), **settings)


# ---- score ----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_reward_model(
    reward_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_runtime("cpu") as runtime:
        model = RewardModel(reward_run, runtime)
        given = {answer: model.conversations([conversation("a", answer)])[0] for answer in "bcd"}
    chosen, rejected = sorted("bc", key=given.__getitem__, reverse=True)
    scores = [given[answer] for answer in (chosen, rejected, "d")]
    rows: list[Any] = [
        {"messages": conversation("a", chosen)}, pair("a", chosen, rejected), pair("a", "d", chosen) | {"tie": True},
    ]  # fmt: skip
    path = write_lines(tmp_path / "lines.jsonl", rows)
    assert main(["score", str(reward_run.path), str(path), "--batch-size", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    right, wrong, other = (pytest.approx(score, abs=1e-5) for score in scores)
    assert result["scores"] == [
        {"line": 1, "score": right}, {"line": 2, "chosen": right, "rejected": wrong},
        {"line": 3, "chosen": other, "rejected": right},
    ]  # fmt: skip
    assert (result["accuracy"]["value"], result["accuracy"]["n"]) == (1.0, 1), "a tie is nobody's win"
    assert result["mean"]["value"] == pytest.approx((3 * scores[0] + scores[1] + scores[2]) / 5, abs=1e-5)

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert main(["score", str(reward_run.path), "-"]) == 0
    printed = capsys.readouterr()
    assert not printed.out and "100.0%" in printed.err and f"{scores[0]:.3f}" in printed.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"messages": [{"role": "user", "content": "a"}]}', "line 2 cannot be scored: it does not end with an answer"),
        ('{"prompt": []}', "line 2 cannot be scored: it has neither messages nor prompt, chosen and rejected"),
        (json.dumps(pair("a", "b", "b")), "line 2 cannot be scored: chosen equals rejected"),
        ("{", "line 2 is not JSON"),
    ],
)
def test_lines_that_cannot_be_scored_are_one_sentence(
    line: str, message: str, reward_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("\n" + line + "\n")
    assert main(["score", str(reward_run.path), str(path)]) == 2
    assert message in capsys.readouterr().err


# ---- compare --------------------------------------------------------------------------------------------------------

PROMPTS = [
    Prompt(({"role": "user", "content": a},), None, RIGHT_ANSWERS[a], a) for a in RIGHT_ANSWERS for _ in range(20)
]


def judged(judge: compare.Judge, first: list[str], second: list[str], sft_run: Run) -> compare.RunComparison:
    """A comparison of given answers."""
    pairs = compare.judge_answers(PROMPTS, first, second, judge)
    return compare.RunComparison(sft_run, sft_run, pairs, len(PROMPTS))


def test_a_comparison_is_blind_and_counts_for_the_second(sft_run: Run) -> None:
    right, wrong = [prompt.answer or "" for prompt in PROMPTS], ["h"] * 40
    mixed = [*right[:20], *wrong[20:]]
    output = judged(compare.by_verifier, wrong, mixed, sft_run).as_dict()
    assert (
        output["wins"],
        output["ties"],
        output["losses"],
        output["win_rate"],
    ) == (20, 20, 0, 0.75)
    assert 0.64 < output["low"] < 0.68 and 0.80 < output["high"] < 0.84 and output["p_value"] == pytest.approx(2**-19)
    assert [(name, category["win_rate"]) for name, category in output["categories"].items()] == [
        ("a", 1.0),
        ("c", 0.5),
    ]

    shown: list[str] = []
    output = judged(compare.by_person(lambda text: shown.append(text) or "1"), wrong, right, sft_run).as_dict()  # type: ignore[func-returns-value]
    assert 8 < output["wins"] < 32, "who always takes the first prefers neither run"
    assert output["ties"] == 0 and sum("\n1: h\n" in text for text in shown) == output["losses"]


def test_a_person_may_stop_and_the_judged_pairs_count(sft_run: Run) -> None:
    right, wrong = [prompt.answer or "" for prompt in PROMPTS], ["h"] * 40
    replies = iter(["1", "what?", "t", "2"])

    def ask(question: str) -> str:
        if (answer := next(replies, None)) is None:
            raise KeyboardInterrupt
        return answer

    output = judged(compare.by_person(ask), wrong, right, sft_run)
    assert [pair.points for pair in output.pairs].count(0.5) == 1 and len(output.pairs) == 3
    assert output.not_judged == 37
    with pytest.raises(ValueError, match="no pair of answers was judged"):
        judged(compare.by_person(lambda text: "q"), wrong, right, sft_run)


def test_judged_pairs_can_be_trained_on(
    sft_run: Run, optimised: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = [prompt.answer or "" for prompt in PROMPTS]
    answers = iter([["h"] * 40, ["", *right[1:]]])
    monkeypatch.setattr("understudy.evaluation.compare.answer_all", lambda *arguments, **options: next(answers))
    rows = [{"prompt": list(prompt.messages), "answer": prompt.answer} for prompt in PROMPTS]
    data, saved = write_lines(tmp_path / "prompts.jsonl", rows), tmp_path / "judged.jsonl"
    words = ["compare", str(sft_run.path), str(optimised.path), "--data", str(data), "--max-new-tokens", "2"]
    assert main([*words, "--limit", "30", "--save", str(saved), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert (
        output["wins"],
        output["ties"],
        output["n"],
        output["saved_pairs"],
    ) == (29, 1, 30, 29), "an empty one teaches nothing"
    known = [comparison for split in ("train", "val") for comparison in open_preferences(saved, split)]
    assert {c.prompt[0]["content"]: c.answers[c.pairs[0].chosen][0]["content"] for c in known} == RIGHT_ANSWERS
    assert known[0].truths[known[0].pairs[0].chosen] == 1.0
    assert main([*words, "--save", str(saved)]) == 2
    assert "must be the name of a new .jsonl file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reward-model", "x"], "would be ignored with --by checker"),
        (["--by", "reward"], "--by reward needs --reward-model RUN"),
        (["--limit", "0"], "a number from 1 is wanted"),
        (["--data", "PREFERENCES"], "have neither a check nor an answer"),
        (["--max-new-tokens", "31", "--data", "PROMPTS"], "no prompt leaves room for 31 tokens"),
        (["SECOND=JUDGE", "--data", "PROMPTS"], "does not answer"),
    ],
)
def test_impossible_comparisons_are_one_sentence(
    options: list[str], message: str, sft_run: Run, reward_run: Run, prompts: Path, preferences: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    second = reward_run if "SECOND=JUDGE" in options else sft_run
    paths = {"PREFERENCES": str(preferences), "PROMPTS": str(prompts)}
    words = [paths.get(word, word) for word in options if word != "SECOND=JUDGE"]
    assert main(["compare", str(sft_run.path), str(second.path), *words]) == 2
    assert message in capsys.readouterr().err


# ---- over-optimisation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_the_best_of_n_is_the_mean_over_all_ways_to_draw_n(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    reward, true_score = torch.rand(8, generator=generator), torch.rand(8, generator=generator)
    ways = list(itertools.combinations(range(8), n))
    best = [max(way, key=lambda i: float(reward[i])) for way in ways]
    assert expected_of_best(reward, true_score, n) == pytest.approx(
        sum(float(true_score[i]) for i in best) / len(ways), abs=1e-6
    )


def test_best_of_n_stands_beside_the_path_of_a_run(optimised: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = optimised.path
    settings = optimised.config.model_dump()
    [(run_line,), _] = [
        panel["lines"] for panel in overoptimisation(read_metrics(path / "metrics.jsonl"), {}, settings)
    ]
    assert run_line["names"] == ["step 0", "step 6", "step 12"] and run_line["x"][0] == 0 < run_line["x"][-1]
    (path / "overoptimisation.png").unlink()

    assert main(["best-of-n", str(path), "--most", "8", "--prompts", "4", "--json"]) == 0
    stored = read_json(path / "best_of_n.json")
    assert stored == json.loads(capsys.readouterr().out)
    rows = stored["rows"]
    assert [row["n"] for row in rows] == [1, 2, 4, 8] and rows[0]["kl"] == 0
    assert rows[3]["kl"] == pytest.approx(math.log(8) - 7 / 8)
    assert all(before["reward"] < after["reward"] for before, after in itertools.pairwise(rows))
    assert (path / "overoptimisation.png").read_bytes().startswith(b"\x89PNG")
    panels = overoptimisation(read_metrics(path / "metrics.jsonl"), stored, settings)
    assert [[line["label"] for line in panel["lines"]] for panel in panels] == [
        ["ppo", "best of n of the reference"]
    ] * 2
    assert panels[0]["lines"][1]["y"] == [row["reward"] for row in rows]
    assert "Over-optimisation" in (path / "report.html").read_text()


@pytest.mark.parametrize(
    ("which", "options", "message"),
    [
        ("reward_run", [], "only ppo and grpo optimise a reward"),
        ("optimised", ["--most", "6"], "a power of two from 2"),
        ("optimised", ["--prompts", "1"], "a number from 2"),
    ],
)
def test_best_of_n_refuses_other_runs_and_numbers(
    which: str, options: list[str], message: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["best-of-n", str(request.getfixturevalue(which).path), *options]) == 2
    assert message in capsys.readouterr().err


# ---- evaluate and report --------------------------------------------------------------------------------------------


def test_a_reward_model_saves_its_evaluation(
    reward_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: False)  # it was trained in fp32
    stored = read_json(reward_run.path / "evaluation_reward.json")
    assert stored["checkpoint"] == "40" and stored["pairs"] == 182
    last = read_metrics(reward_run.path / "metrics.jsonl")[-1]
    assert (stored["accuracy"], stored["loss"]) == (last["val/accuracy"], last["val/loss"])
    assert sum(row["pairs"] for row in stored["calibration"]) == 182
    assert main(["evaluate", str(reward_run.path), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["accuracy"], again["loss"]) == (
        stored["accuracy"],
        pytest.approx(stored["loss"], abs=1e-5),
    )

    output = reward_evidence(stored | {"scores": [[2.0, 1.0], [1.0, 0.0], [0.0, 0.5], [1.5, None]]})
    assert output is not None
    assert output["facts"]["accuracy (labels)"].startswith(share := f"{stored['accuracy']:.1%} [")
    calibration, scores = output["charts"]
    [line] = calibration["lines"]
    assert all(low <= y <= high for low, y, high in zip(line["low"], line["y"], line["high"]))
    assert [bar["label"] for bar in scores["bars"]] == ["answers (1)", "right answers (1)", "wrong answers (2)"]
    page = write_report([reward_run.path], tmp_path / "page.html").read_text()
    assert "Reward model" in page and share in page


@pytest.mark.parametrize("words", [["sample"], ["chat"], ["evaluate", "--tasks", "hamlet"]])
def test_a_reward_model_writes_nothing(words: list[str], reward_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([words[0], str(reward_run.path), *words[1:]]) == 2
    assert "gives scores and generates no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["score", "RUN", "PAIRS"], ["evaluate", "RUN"], ["ppo", "PRESET", "--run", "NEW", "--init-from", "START"]]
)
def test_scores_that_are_not_finite_are_refused(
    words: list[str], sft_run: Run, reward_run: Run, preferences: Path, prompts: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    broken = tmp_path / "broken"
    shutil.copytree(reward_run.path, broken)
    large = {"score.weight": 3e38, "norm.weight": 1e3}  # finite weights, scores that overflow
    weights = {
        name: torch.full_like(x, large[name]) if name in large else x
        for name, x in weights_of(reward_run.model).items()
    }
    save_run(RunFolder(broken), reward_run.config, reward_run.tokenizer, weights, {"stage": "reward"}, reward_run.step)
    preset = tmp_path / "preset.yaml"
    preset.write_text(
        f"stage: ppo\ndata: {{path: {prompts}}}\nppo: {{reward_model: {broken}, prompts: 2, max_new_tokens: 2}}\n"
        "train: {steps: 1, batch_size: 2}\n"
    )
    given = {"RUN": broken, "PAIRS": preferences, "PRESET": preset, "NEW": tmp_path / "new", "START": sft_run.path}
    assert main([str(given.get(word, word)) for word in words]) == 2
    err = capsys.readouterr().err
    assert "the reward model's scores are not finite" in err and "Traceback" not in err
    assert not list(tmp_path.glob("new/checkpoints/step_*"))


def test_answers_before_and_after_stand_side_by_side(optimised: Run, tmp_path: Path) -> None:
    samples = {step: (optimised.path / "samples" / f"step_{step}.txt").read_text() for step in (0, 12)}
    before, after = (text.partition("\nassistant: ")[2].strip() for text in samples.values())
    page = write_report([optimised.path], tmp_path / "page.html").read_text()
    texts = json.loads(page.partition('id="texts">')[2].partition("</script>")[0])[0]
    assert [sample["step"] for sample in texts] == [0, 6, 12]
    assert texts[0]["exchanges"][0][1:] == [before, None] and texts[2]["exchanges"][0][1:] == [after, before]
    charts = json.loads(page.partition('id="charts">')[2].partition("</script>")[0])
    assert charts["titles"]["train/reward"] == {"title": "reward", "kind": "number", "beside": "val/reward"}
    assert not any(name.endswith(("_low", "_high")) for name in charts["titles"])
    assert "validation reward" in page


def test_preferences_have_no_loss_a_token_but_conversations_have(
    sft_run: Run, preferences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = run("dpo", tmp_path / "dpo", sft_run, preferences, train__steps=1, train__batch_size=1, **QUIET)
    capsys.readouterr()
    assert main(["evaluate", str(trained.path)]) == 2
    assert "trained on preferences, which have no loss per token; name --tasks, or --data" in capsys.readouterr().err
    talk = write_lines(tmp_path / "talk.jsonl", [{"messages": conversation(a, "b")} for a in "abcdefgh"])
    assert main(["evaluate", str(trained.path), "--data", str(talk), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert 1 < output["loss"] < 6 and output["tokens"] >= 2, "near the uniform distribution over 20 tokens"


def test_progress_lines_show_few_metrics() -> None:
    watch = ProgressPanel(10)
    watch.update({
        "step": 1, "train_seconds": 1.0, "train/reward": 0.5, "train/kl": 1.25, "train/policy_loss": 0.1,
        "val/loss": 1.0, "val/true_score": 0.75, "val/true_score_low": 0.7, "accuracy/village": 0.5,
    })  # fmt: skip
    assert watch.line(evaluated=False).endswith("left  reward 0.5  kl 1.25  accuracy/village 0.5")
    assert watch.line(evaluated=True).endswith("left  reward 0.5  kl 1.25  val true score 0.75  accuracy/village 0.5")
