"""The loop and the pretrain stage: equal ways to cut a batch, refusals, plans of memory."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from processes import run_python
from understudy.cli import main
from understudy.config.load import build_config, load_config
from understudy.config.model import ModelConfig
from understudy.config.run import OptimConfig
from understudy.config.stages import STAGES
from understudy.data.loader import Windows
from understudy.evaluation.loss import LossResult
from understudy.losses import IGNORE
from understudy.model import GPT
from understudy.optim import build_optimizers
from understudy.run import Run, RunFolder, load_run, read_metrics
from understudy.runtime import Runtime, start_runtime
from understudy.stages import pretrain as pretraining
from understudy.stages.table import run_stage
from understudy.train.init_from import model_from_parent
from understudy.train.loop import RepeatedBatches, StepCallback, Trainer, TrainingProgress
from understudy.train.memory import MemoryPlan, other_models, plan_memory
from understudy.train.objective import NextToken
from understudy.train.runner import CHANGING_SHAPES, Interrupted, check_resume, compile_objective

CPU = Runtime(torch.device("cpu"))


class Recorder(StepCallback):
    """Records the metrics of each step."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def is_due(self, progress: TrainingProgress) -> bool:
        return True

    def after_step(self, progress: TrainingProgress, metrics: dict[str, float]) -> bool:
        self.metrics.append(metrics)
        return False


def step_once(cuts: list[int], chunk: int = 0) -> tuple[dict[str, torch.Tensor], float]:
    """One step on 8 windows of unequal length cut into micro-batches; the weights and loss after it."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=40, context_length=16, n_layers=1, n_heads=2, d_model=16))
    whole = Windows(np.arange(4000) % 37, 16, seed=5).batch(0, 8)
    for row in range(8):
        whole["targets"][row, 2 + row :] = IGNORE
    micro = [{k: v[a:b] for k, v in whole.items()} for a, b in zip([0, *cuts], [*cuts, 8])]
    trainer = Trainer(
        NextToken(model, chunk), build_optimizers(model, OptimConfig(lr=1e-2, eps=1e-3)), RepeatedBatches(micro),
        lambda step: 1.0, CPU, TrainingProgress(), 1, 1.0,
    )  # fmt: skip
    trainer.run(recorder := Recorder())
    return {n: p.detach() for n, p in model.named_parameters()}, recorder.metrics[-1]["train/loss"]


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6, 7], [1, 6], [4]])
def test_a_batch_cut_anyhow_gives_the_same_step(cuts: list[int]) -> None:
    (whole, loss), (parts, loss_of_parts) = step_once([]), step_once(cuts)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=2e-6, rtol=1e-5)


def test_a_chunked_loss_gives_the_same_step() -> None:
    (whole, loss), (chunked, chunked_loss) = step_once([]), step_once([], chunk=5)
    assert chunked_loss == pytest.approx(loss, rel=1e-5)
    for name in whole:
        torch.testing.assert_close(chunked[name], whole[name], atol=2e-6, rtol=1e-5)


def test_learning_beats_the_bigram_and_the_bigram_beats_chance(small_config: Any, tmp_path: Path) -> None:
    long = {"train__steps": 150, "eval__every_steps": 0, "checkpoint__every_steps": 0, "log__samples": 0}
    gpt = run_stage(small_config(optim__embedding_lr=0.02, **long), RunFolder(tmp_path / "gpt")).final
    bigram_config = small_config(**long).model_copy(
        update={"model": ModelConfig(family="bigram", context_length=16), "optim": OptimConfig(lr=0.1, weight_decay=0)}
    )
    bigram = run_stage(bigram_config, RunFolder(tmp_path / "bigram")).final
    assert gpt.loss < bigram.loss - 0.3 and bigram.loss < np.log(28) - 0.7
    assert gpt.loss_low is not None and gpt.loss_high is not None and gpt.loss_low < gpt.loss < gpt.loss_high


def test_stops_by_tokens_seconds_and_loss(small_config: Any, tmp_path: Path) -> None:
    by_tokens = run_stage(small_config(train__stop_at_tokens=300), RunFolder(tmp_path / "a"))
    assert by_tokens.progress.step == 3  # the first step at or past 300 tokens of 128 a step
    by_time = run_stage(small_config(train__steps=10**6, train__stop_at_seconds=0.2), RunFolder(tmp_path / "b"))
    assert by_time.progress.train_seconds >= 0.2 and by_time.progress.step < 10**5
    by_loss = run_stage(small_config(train__steps=10**6, train__stop_at_loss=3.2), RunFolder(tmp_path / "c"))
    assert by_loss.final.loss <= 3.2 and by_loss.progress.step % 4 == 0


def test_init_from_a_run_and_settings_that_may_differ(small_config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run_stage(small_config(), RunFolder(tmp_path / "runs/first"))
    parent = load_run("first", "latest")
    result = run_stage(
        small_config(optim__lr=1e-9, optim__embedding_lr=1e-9, optim__vector_lr=1e-9, train__steps=1),
        RunFolder(tmp_path / "runs/second"),
        parent=parent,
    )
    child, parent = load_run("second"), load_run("first", "latest")
    for (name, a), b in zip(parent.model.named_parameters(), child.model.parameters()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4, msg=name)
    assert result.folder.record()["parent"]["sha256"] == parent.state["weights_sha256"]
    with pytest.raises(ValueError, match="n_layers is 3"):
        model_from_parent({"n_layers": 3}, parent.config.model)
    assert model_from_parent({"dropout": 0.5}, parent.config.model)["dropout"] == 0.5
    with pytest.raises(ValueError, match="positions"):
        model_from_parent({"context_length": 64}, ModelConfig(vocab_size=9, context_length=32))


def test_folders_in_use_and_changed_settings_are_refused(small_config: Any, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    run_stage(small_config(), folder)
    with pytest.raises(ValueError, match="already holds a run"):
        run_stage(small_config(), folder)
    with pytest.raises(ValueError, match=r"optim.lr was 0.02 and is now 0.5"):
        check_resume(folder.config(), small_config(optim__lr=0.5))
    with folder.locked(), pytest.raises(ValueError, match="is being written by"):
        run_stage(folder.config(), RunFolder(folder.path), resume=True)


def test_damaged_checkpoints_are_refused_and_older_ones_still_work(small_config: Any, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    run_stage(small_config(), folder)
    newest = folder.checkpoint("latest")
    for name in ("model.safetensors", "training.safetensors"):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="damaged"):
            run_stage(folder.config(), folder, resume=True)
        (newest / name).write_bytes(whole)
    state = (newest / "state.json").read_text()
    (newest / "state.json").write_text(state[:40])
    with pytest.raises(ValueError, match="damaged"):
        load_run(folder.path, "latest")
    shutil.rmtree(newest)
    assert run_stage(folder.config(), folder, resume=True).progress.step == 8


def test_another_text_or_tokenizer_is_refused_on_resume(small_config: Any, tmp_path: Path, char_data: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    run_stage(small_config(train__stop_at_tokens=300), folder)
    other = tmp_path / "data"
    shutil.copytree(char_data, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["splits"]["train"]["sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="not what the run"):
        run_stage(small_config(data__path=other), folder, resume=True)


def test_a_full_disk_costs_no_finished_checkpoint(small_config: Any, tmp_path: Path) -> None:
    """A limit on file size stands in for the full disk: the second checkpoint cannot be written."""
    pytest.importorskip("resource", reason="limits on file size are a Unix thing")
    folder = RunFolder(tmp_path / "runs/r")
    run_stage(small_config(checkpoint__every_steps=4, train__stop_at_tokens=500), folder)
    before = {p.name: p.read_bytes() for p in folder.checkpoint().iterdir()}
    limited = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from understudy.cli import main
sys.exit(main(["pretrain", "--run", "r", "--resume", "--train.stop_at_tokens", "null"]))
"""
    done = run_python(["-c", limited], tmp_path)
    assert done.returncode == 2 and "could not be written" in done.stderr and "Traceback" not in done.stderr
    assert {p.name: p.read_bytes() for p in folder.checkpoint().iterdir()} == before
    assert not list(folder.checkpoints.glob(".partial*"))
    config = folder.config()
    unlimited = config.model_copy(update={"train": config.train.model_copy(update={"stop_at_tokens": None})})
    assert run_stage(unlimited, folder, resume=True).progress.step == 8


def test_old_checkpoints_go_and_the_best_stays(small_config: Any, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    run_stage(small_config(train__steps=20, eval__every_steps=4, checkpoint__keep=2, optim__lr=2.0), folder)
    best = min((row for row in read_metrics(folder.metrics) if "val/loss" in row), key=lambda row: row["val/loss"])
    assert folder.checkpoint("best").name == f"step_{best['step']}"
    assert set(folder.steps()) == {18, 20, best["step"]}


def test_a_best_loss_of_0_stays_the_best(small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of learning from rewards is the mean reward, negative, and 0 where nothing is right."""
    losses = iter([0.0, 0.2, 0.1])

    def evaluate(self: pretraining.Pretrain, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        return LossResult(next(losses), None, None, 1), {}

    monkeypatch.setattr(pretraining.Pretrain, "evaluate", evaluate)
    folder = RunFolder(tmp_path / "r")
    run_stage(small_config(train__steps=6, eval__every_steps=2), folder)
    assert folder.checkpoint("best").name == "step_2"


def test_a_signal_to_the_stage_raises_after_saving(
    small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bomb(Windows):
        def batch(self, first: int, size: int) -> Any:
            if first >= 24:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(first, size)

    monkeypatch.setattr(pretraining, "Windows", Bomb)
    with pytest.raises(Interrupted, match="saved"):
        run_stage(small_config(), RunFolder(tmp_path / "r"))
    assert RunFolder(tmp_path / "r").steps()[-1] in (3, 4)  # the batch is read while the step before is computed


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_is_refused(
    small_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    """Else a first loss of NaN would stay the best for ever."""
    monkeypatch.setattr(pretraining.Pretrain, "evaluate", lambda *_: (LossResult(loss, None, None, 1), {}))
    folder = RunFolder(tmp_path / "r")
    with pytest.raises(ValueError, match=f"the validation loss is {loss} at step 4"):
        run_stage(small_config(), folder)
    assert not (folder.checkpoints / "best").exists() and folder.steps() == [2]


def test_one_window_has_no_interval(small_config: Any, tmp_path: Path) -> None:
    def final(max_tokens: int) -> LossResult:
        config = small_config(train__steps=1, eval__every_steps=0, eval__max_tokens=max_tokens)
        return run_stage(config, RunFolder(tmp_path / str(max_tokens))).final

    one, two = final(17), final(33)
    assert (one.loss_low, one.loss_high) == (None, None) and one.loss > 0
    assert two.loss_low is not None and two.loss_high is not None and two.loss_low < two.loss < two.loss_high


@pytest.mark.parametrize(("name", "advice"), [
    ("a book.txt", "understudy prepare '{path}' --out 'data/a book' --tokenizer char`"),
    ("train.bin", "name its folder: --data {folder}"),
])  # fmt: skip
def test_a_file_given_as_data_gets_advice(small_config: Any, tmp_path: Path, name: str, advice: str) -> None:
    (path := tmp_path / name).write_text("It was a dark night.")
    with pytest.raises(ValueError, match=re.escape(advice.format(path=path, folder=tmp_path))):
        run_stage(small_config(data__path=path, tokenizer__kind="char"), RunFolder(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


# ---- the machine -----------------------------------------------------------------------------------------------------


def test_importing_sets_nothing_and_a_deterministic_runtime_sets_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; before = dict(os.environ); import understudy; assert before == dict(os.environ)"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with start_runtime("cpu"):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ and not torch.are_deterministic_algorithms_enabled()
    with start_runtime("cpu", deterministic=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with start_runtime("cpu", deterministic=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8", "the user's value stays"


def test_only_stages_whose_batches_have_one_shape_are_compiled() -> None:
    assert {name for name, info in STAGES.items() if info.fixed_shapes} == {"pretrain", "sft"}
    objective = NextToken(GPT(ModelConfig(vocab_size=40, context_length=16, n_layers=1, n_heads=2, d_model=16)))
    on_cuda = Runtime(torch.device("cuda"))
    assert compile_objective(objective, "auto", on_cuda, dict, fixed_shapes=False) == (None, CHANGING_SHAPES)
    assert compile_objective(objective, "auto", CPU, dict)[0] is None
    with pytest.raises(ValueError, match=r"train.compile is on, but the batches of dpo change their shape"):
        build_config({"stage": "dpo", "data": {"path": "x"}, "train": {"compile": "on"}})


def test_models_that_cannot_be_compiled_are_left_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fails(*_: Any) -> None:
        raise TorchDynamoException("no compiler here")

    objective = NextToken(GPT(ModelConfig(vocab_size=40, context_length=16, n_layers=1, n_heads=2, d_model=16)))
    batch = Windows(np.arange(400) % 37, 16, seed=5).batch(0, 2)
    for compiled, reason in (
        (fails, "no compiler here"),
        (WrongGradients(objective), "the compiled model's gradients are wrong"),
    ):
        monkeypatch.setattr(torch, "compile", lambda module, result=compiled: result)
        with pytest.raises(ValueError, match=rf"cannot be compiled here \({reason}\); use auto"):
            compile_objective(objective, "on", CPU, lambda: batch)
    assert torch.isfinite(objective(batch)[0])


class WrongGradients(nn.Module):
    def __init__(self, objective: NextToken) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        loss, sums = self.objective(batch)
        return loss + (self.objective.model.head.weight * float("nan")).sum() * 0, sums


def test_a_compiled_objective_takes_the_steps_of_the_plain_one() -> None:
    """With weights of zero at first, which the comparison of gradients must not leave changed."""
    settings = ModelConfig(
        family="qwen3", vocab_size=40, context_length=16, n_layers=1, n_heads=2, d_model=16, zero_init_projections=True
    )
    weights = []
    for mode in ("off", "on"):
        torch.manual_seed(0)
        objective = NextToken(GPT(settings))
        batch = Windows(np.arange(400) % 37, 16, seed=5).batch(0, 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
            compiled, _ = compile_objective(objective, mode, CPU, partial(dict, batch))
        assert (compiled is None) == (mode == "off")
        optimizers = build_optimizers(objective.model, load_config("shakespeare-char").optim)
        source = RepeatedBatches([batch])
        trainer = Trainer(
            objective, optimizers, source, lambda step: 1.0, CPU, TrainingProgress(), 3, compiled=compiled
        )
        trainer.run()
        weights.append(objective.model.head.weight.detach().clone())
    torch.testing.assert_close(*weights)


MODELS = {"family": "qwen3", "context_length": 32, "n_layers": 2, "n_heads": 2, "d_model": 32, "vocab_size": 64}


@pytest.mark.parametrize(("critic", "models"), [("head", 2), ("model", 3)])
def test_the_memory_plan_has_every_model_of_a_rollout(critic: str, models: int) -> None:
    """The policy and its reference model, a reward model, and a critic that is trained as the policy is."""

    def planned(stage: str, section: dict[str, Any]) -> MemoryPlan:
        tree = {"stage": stage, "model": MODELS, "data": {"path": "x"}, "init_from": "x"}
        return plan_memory(build_config(tree | ({stage: section} if section else {})), 2)

    one = sum(p.numel() for p in GPT(ModelConfig(**MODELS)).parameters())  # type: ignore[arg-type]
    checker = planned("ppo", {"critic": critic, "checker_weight": 1})
    scored = planned("ppo", {"critic": critic, "reward_model": "not there yet"})
    assert checker.weights_bytes == pytest.approx(4 * one * models, rel=0.01)
    assert scored.weights_bytes == pytest.approx(4 * one * (models + 1), rel=0.01)
    assert scored.gradients_bytes == pytest.approx(4 * one * (models - 1), rel=0.01)
    assert scored.optimizer_bytes == pytest.approx(8 * one * (models - 1), rel=0.01)
    sft, dpo = planned("sft", {}), planned("dpo", {})
    assert (
        dpo.activations_bytes == pytest.approx(2 * sft.activations_bytes, abs=2)
        and dpo.weights_bytes == sft.weights_bytes
    )


def test_the_memory_plan_has_the_conversations_of_ppo_ptx() -> None:
    """A row of conversations beside each completion: twice the activations of a context of each."""
    tree = {"stage": "ppo", "model": MODELS, "data": {"path": "x"}, "init_from": "x"}
    plain, mixed = (
        plan_memory(build_config(tree | {"ppo": {"checker_weight": 1} | ptx}), 2)
        for ptx in ({}, {"ptx_coefficient": 1, "ptx_data": "talk.jsonl"})
    )
    assert mixed.activations_bytes == pytest.approx(2 * plain.activations_bytes, abs=2)
    assert mixed.logits_bytes == 2 * plain.logits_bytes and mixed.weights_bytes == plain.weights_bytes


def test_the_memory_plan_reads_the_shape_of_the_reward_model(small_config: Any, tmp_path: Path) -> None:
    run_stage(small_config(train__steps=1), RunFolder(tmp_path / "judge"))
    shape = load_run(tmp_path / "judge").config.model
    config = build_config({
        "stage": "ppo", "model": MODELS, "data": {"path": "x"}, "init_from": "x",
        "ppo": {"critic": "reward", "reward_model": str(tmp_path / "judge")},
    })  # fmt: skip
    assert other_models(config) == [(config.model, False), (shape, False), (shape, True)]


def test_adapters_are_planned_without_gradients_of_frozen_weights() -> None:
    tree = {"stage": "dpo", "model": MODELS | {"lora": {"rank": 2}}, "data": {"path": "x"}, "init_from": "x"}
    plan = plan_memory(build_config(tree), 2)
    assert plan.gradients_bytes < plan.weights_bytes / 2


def test_doctor_plans_a_run_with_the_shape_of_its_parent(
    sft_run: Run, reward_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "preset.yaml").write_text("stage: ppo\ndata: {path: x}\nppo: {critic: reward}\n")
    words = ["--init-from", str(sft_run.path), "--ppo.reward_model", str(reward_run.path), "--device", "cpu", "--json"]
    assert main(["doctor", str(tmp_path / "preset.yaml"), *words]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    policy, reward = (sum(p.numel() for p in run.model.parameters()) for run in (sft_run, reward_run))
    assert plan["parameters"] == policy and plan["weights_bytes"] >= 4 * (2 * policy + 2 * reward)
