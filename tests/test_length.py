"""The length of a training in minutes, tokens or epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from understudy.config.load import apply_overrides, build_config, read_preset
from understudy.run import RunFolder
from understudy.stages.table import run_stage
from understudy.train.length import StepCost, fit_batch, plan_length, with_length
from understudy.train.runner import check_resume


def config(preset: str, **overrides: Any) -> Any:
    named = {name.replace("__", "."): str(value) for name, value in overrides.items()}
    return build_config(apply_overrides(read_preset(preset), named))


@pytest.mark.parametrize(
    "words", [{"train__minutes": 1, "train__epochs": 2}, {"train__tokens": 5, "train__minutes": 2}]
)
def test_two_lengths_are_refused_by_name(words: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="both set the length"):
        config("hamlet", **words)


def test_a_length_replaces_that_of_the_preset() -> None:
    assert config("sft").train.epochs == 3
    assert config("sft", train__steps=20).train.epochs is None
    minutes = config("sft", train__minutes=2).train
    assert minutes.epochs is None and minutes.minutes == 2


def test_minutes_become_steps_by_the_measured_speed_and_intervals_keep_their_share() -> None:
    before = config("hamlet-chat", train__minutes=1, train__micro_batch_size=4)  # 1250 steps, evaluated every 625
    planned, line = plan_length(before, StepCost(0.5, 3000.0), epoch_samples=100)
    assert planned.train.steps == 120 and planned.eval.every_steps == planned.checkpoint.every_steps == 60
    assert planned.train.minutes is None and planned.train.batch_size == 8
    assert "train.minutes 1: 120 steps, 360k tokens, 9.6 epochs, about 1:00 at 6,000 tokens/s" in line


def test_tokens_and_epochs_become_steps() -> None:
    cost = StepCost(0.5, 3000.0)
    by_tokens, _ = plan_length(config("hamlet-chat", train__tokens=900_000), cost, 100)
    by_epochs, _ = plan_length(config("hamlet-chat", train__epochs=8), cost, 1000)
    assert by_tokens.train.steps == 300 and by_epochs.train.steps == 1000
    assert plan_length(config("sft"), cost, 10)[0].train.steps == 50, "three times ten samples would teach nothing"


@pytest.mark.parametrize(("minutes", "batch_tokens"), [(7, 8192), (0.5, 2048)])
def test_a_short_pretraining_takes_smaller_batches(minutes: float, batch_tokens: int) -> None:
    """Of 2,048 tokens at least. Learning rates stay: Muon's best does not follow the batch."""
    before = config("portable", train__minutes=minutes, train__micro_batch_size=8)
    smaller = fit_batch(before, StepCost(14.0, 131072.0), 2)
    assert smaller.train.batch_size * 512 == batch_tokens and smaller.optim == before.optim
    assert smaller.train.batch_size // 2 % smaller.train.micro_batch_size == 0


def test_evaluations_take_a_small_share_of_the_minutes() -> None:
    """In all a 20th of 7 minutes, at a third of the time that training takes for a token."""
    before = config("portable", train__minutes=7, train__batch_size=8)
    planned, _ = plan_length(before, StepCost(0.8, 4096.0), 10_000)
    evaluations = -(-planned.train.steps // planned.eval.every_steps)
    assert planned.eval.max_tokens * evaluations == pytest.approx(7 * 60 * 0.05 * 3 * 4096 / 0.8, rel=0.01)
    given = config("portable", train__minutes=7, eval__max_tokens=5000)
    assert plan_length(given, StepCost(0.8, 4096.0), 10_000)[0].eval.max_tokens == 5000


def test_steps_of_a_rollout_stage_are_whole_iterations() -> None:
    before = config("grpo-instructions", train__minutes=1)  # four steps an iteration
    planned, _ = plan_length(before, StepCost(13.0, 900.0), 32_000)
    for number in (planned.train.steps, planned.eval.every_steps, planned.checkpoint.every_steps):
        assert number == 4
    assert with_length(before, 1).train.steps == 4


def test_a_resumed_run_keeps_its_steps_and_refuses_another_length(small_config: Any, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run_stage(small_config(train__tokens=2000), folder)
    saved, length = folder.config(), folder.record()["length"]
    assert saved.train.steps * saved.train.batch_size * 16 == pytest.approx(2000, rel=0.1)
    assert check_resume(saved, small_config(train__tokens=2000), length).train.steps == saved.train.steps
    with pytest.raises(ValueError, match=r"length was train.tokens 2000 and is now train.tokens 3000"):
        check_resume(saved, small_config(train__tokens=3000), length)
