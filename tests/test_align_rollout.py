"""The iteration of reinforcement learning: its five calls, metrics over mixed prompts and processes, dropout, adapters."""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import COMMON, LETTERS, QUIET, RIGHT_ANSWERS, run, saved_run
from processes import run_two
from understudy.cli import main
from understudy.config.load import build_config
from understudy.config.model import ModelConfig
from understudy.model import as_gpt, build_model
from understudy.run import Run, load_run, read_metrics
from understudy.runtime import Runtime
from understudy.stages.completions import SampledCompletion
from understudy.stages.grpo import GRPO, GRPOSource
from understudy.stages.ppo import PPOSource
from understudy.stages.rollout import MetricMeans, RewardFunction, RolloutModels, RolloutSource


def test_an_iteration_reads_as_five_calls() -> None:
    function = ast.parse(textwrap.dedent(inspect.getsource(RolloutSource.collect))).body[0]
    assert isinstance(function, ast.FunctionDef)
    calls = []
    for statement in function.body[1:]:  # after the docstring
        assert isinstance(statement, ast.Assign | ast.Return) and isinstance(statement.value, ast.Call)
        assert isinstance(statement.value.func, ast.Attribute)
        calls.append(statement.value.func.attr)
    assert calls == ["sample", "score", "logprobs", "advantages", "mini_batches"]


@pytest.mark.parametrize("source", [PPOSource, GRPOSource])
def test_ppo_and_grpo_differ_in_one_method(source: type[RolloutSource]) -> None:
    added = {"mini_batches"} if source is PPOSource else set()  # PPO-ptx adds conversations to them
    assert {name for name in vars(source) if not name.startswith("_")} == {"advantages"} | added
    assert RolloutSource.__abstractmethods__ == {"advantages"}


# ---- metrics ----------------------------------------------------------------------------------------------------------


def test_a_mean_is_over_the_values_that_are_known() -> None:
    metrics, runtime = MetricMeans(), Runtime(torch.device("cpu"))
    metrics.add_values("true_score", torch.tensor([1.0, math.nan]))
    metrics.add_values("true_score", torch.tensor([math.nan, math.nan]))
    metrics.add_values("true_score", torch.tensor([0.5, 0.0]))
    metrics.add_values("score", torch.tensor([math.nan]))
    metrics.add("value", 6.0, 4)
    assert metrics.pop(runtime) == {"true_score": 0.5, "value": 1.5}
    assert metrics.pop(runtime) == {}


@pytest.fixture
def mixed_prompts(tmp_path: Path) -> Path:
    """Prompts of which one in two has an answer."""
    path = tmp_path / "mixed.jsonl"
    rows: list[dict[str, Any]] = [{"prompt": [{"role": "user", "content": a + b}]} for a in LETTERS for b in LETTERS]
    for row in rows[::2]:
        row["answer"] = row["prompt"][0]["content"][1]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


MIXED = {
    "train__steps": 16, "train__batch_size": 2, "log__every_steps": 16, "grpo__prompts": 2, "grpo__group_size": 2,
    "grpo__max_new_tokens": 1, "grpo__eval_prompts": 3, "optim__lr": 1e-6, **QUIET,
}  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not tested on Windows")
def test_prompts_with_and_without_answers_on_two_processes(
    sft_run: Run, reward_run: Run, mixed_prompts: Path, tmp_path: Path
) -> None:
    """The true score is a mean over the prompts that have an answer, and evaluations are those of one process."""
    settings = MIXED | {"grpo__reward_model": reward_run.path}
    one = run("grpo", tmp_path / "runs" / "one", sft_run, mixed_prompts, **settings)
    options = COMMON | {name.replace("__", "."): str(value) for name, value in settings.items()}
    words = ["-m", "understudy", "grpo", "runs/one.yaml", "--run-name", "two", "--init-from", str(sft_run.path)]
    run_two([*words, "--seed", "0", *(w for name, value in options.items() for w in (f"--{name}", value))], tmp_path)
    first, second = (
        read_metrics(trained.path / "metrics.jsonl") for trained in (one, load_run(tmp_path / "runs" / "two", "latest"))
    )
    assert 0 < first[-1]["train/true_score"] == pytest.approx(second[-1]["train/true_score"])
    before = [{name: value for name, value in rows[0].items() if name.startswith("val/")} for rows in (first, second)]
    assert "val/true_score" in before[0] and before[0] == pytest.approx(before[1], abs=1e-6)


class OneOfTwo(Runtime):
    """A process of two whose reductions are left out."""

    def all_sum(self, value: torch.Tensor) -> torch.Tensor:
        return value


class RecordedReward(RewardFunction):
    """A reward function that keeps the completions it is given."""

    def __call__(self, completions: Any, update: bool = False) -> dict[str, torch.Tensor]:
        self.completions: list[SampledCompletion] = completions
        return super().__call__(completions, update)


def test_an_evaluation_is_shared_by_the_processes(sft_run: Run, prompts: Path, tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": [{"role": "user", "content": a + b}], "answer": RIGHT_ANSWERS[a]}
        for a in RIGHT_ANSWERS
        for b in LETTERS * 4
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {"stage": "grpo", "data": {"path": str(data)}, "grpo": {"checker_weight": 1, "max_new_tokens": 3}}
    shape = sft_run.config.model.model_dump(exclude_none=True)
    config = build_config(
        tree
        | {
            "model": shape,
            "init_from": "x",
            "eval": {"every_steps": 0},
            "checkpoint": {"every_steps": 0},
            "train": {"steps": 16},
        }
    )

    def evaluated(runtime: Runtime) -> tuple[list[str], dict[str, float]]:
        stage = GRPO(config, sft_run.tokenizer)
        reward = RecordedReward(stage.rollout_config, runtime, None)
        stage.runtime = runtime
        stage.models = RolloutModels(as_gpt(sft_run.model), as_gpt(sft_run.model), reward)
        _, metrics = stage.evaluate(1)
        return [completion.text for completion in reward.completions], metrics

    cpu = torch.device("cpu")
    whole, metrics = evaluated(Runtime(cpu))
    halves = [evaluated(OneOfTwo(cpu, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(whole) > 2 and [len(texts) for texts, _ in halves] == [len(whole) // 2, (len(whole) + 1) // 2]
    assert halves[0][0] + halves[1][0] == whole
    total = sum(share["val/length"] for _, share in halves)
    assert total == pytest.approx(metrics["val/length"])


# ---- dropout ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_dropout(sft_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An assistant that was trained with adapters, and with dropout everywhere."""
    shape = sft_run.config.model.model_dump(exclude_none=True) | {
        "dropout": 0.2, "ngram_orders": [2], "ngram_buckets": 64, "ngram_dropout": 0.2,
        "lora": {"rank": 2, "dropout": 0.2},
    }  # fmt: skip
    torch.manual_seed(0)
    config = ModelConfig(**shape)
    return saved_run(tmp_path_factory.mktemp("runs") / "dropout", build_model(config), sft_run.tokenizer, "sft")


@pytest.mark.parametrize("adapters", [{}, {"model__lora__rank": 2}])
@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_the_first_ratio_is_1_whatever_dropout_the_parent_had(
    stage: str, adapters: dict[str, Any], with_dropout: Run, prompts: Path, tmp_path: Path
) -> None:
    settings = {
        f"{stage}__checker_weight": 1,
        f"{stage}__prompts": 8,
        f"{stage}__group_size": 2,
        f"{stage}__max_new_tokens": 3,
    }
    trained = run(
        stage, tmp_path / "run", with_dropout, prompts, train__steps=2, train__batch_size=16, log__every_steps=1,
        **QUIET, **settings, **adapters,
    )  # fmt: skip
    ratios = [row["train/first_ratio"] for row in read_metrics(trained.path / "metrics.jsonl")[1:]]
    assert ratios == pytest.approx([1, 1], abs=1e-4)
    assert (trained.config.model.dropout, trained.config.model.ngram_dropout) == (0, 0)


@pytest.mark.parametrize("adapters", [{}, {"model__lora__rank": 2}])
def test_dpo_starts_at_log_2_whatever_dropout_the_parent_had(
    adapters: dict[str, Any], with_dropout: Run, preferences: Path, tmp_path: Path
) -> None:
    trained = run(
        "dpo", tmp_path / "run", with_dropout, preferences, train__steps=1, train__batch_size=1, **QUIET, **adapters
    )
    first = read_metrics(trained.path / "metrics.jsonl")[-1]
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("stage", ["reward", "dpo", "kto", "ppo", "grpo"])
@pytest.mark.parametrize("setting", ["model.dropout", "model.ngram_dropout", "model.lora.dropout"])
def test_dropout_is_refused_by_name(
    stage: str, setting: str, with_dropout: Run, prompts: Path, preferences: Path, judgements: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    preset = tmp_path / "preset.yaml"
    is_rollout = stage in ("ppo", "grpo")
    data = prompts if is_rollout else judgements if stage == "kto" else preferences
    preset.write_text(f"stage: {stage}\ndata: {{path: {data}}}\n")
    words = [f"--{stage}.checker_weight", "1"] if is_rollout else []
    words += ["--model.lora.rank", "2"] if "lora" in setting else []
    words += ["--run", str(tmp_path / "run"), "--init-from", str(with_dropout.path), f"--{setting}", "0.2"]
    assert main([stage, str(preset), *words]) == 2
    assert f"{setting} is 0.2, but {stage}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---- adapters -----------------------------------------------------------------------------------------------------------


def test_the_score_head_of_ppo_learns_beside_adapters(
    sft_run: Run, reward_run: Run, prompts: Path, tmp_path: Path
) -> None:
    trained = run(
        "ppo", tmp_path / "run", sft_run, prompts, train__steps=20, train__batch_size=16, log__every_steps=1,
        model__lora__rank=2, ppo__reward_model=reward_run.path, ppo__prompts=16, ppo__max_new_tokens=2, **QUIET,
    )  # fmt: skip
    rows = read_metrics(trained.path / "metrics.jsonl")[1:]
    assert rows[0]["train/value"] == 0 != rows[-1]["train/value"]
    assert rows[-1]["train/value_loss"] < 0.7 * rows[0]["train/value_loss"]
    assert any(row["train/explained_variance"] != 0 for row in rows[1:])
