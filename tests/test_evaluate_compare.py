"""`compare`: which prompts it uses, and warnings about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align_runs import beginner, pair
from understudy.cli import main
from understudy.config.load import build_config, dump_config
from understudy.config.stages import STAGES
from understudy.evaluation.compare import comparison_prompts, count_trained, suggested_questions, task_of_run
from understudy.files import write_json, write_text
from understudy.hamlet.write import write_lines
from understudy.run import RunFolder


def trained_on(folder: Path, stage: str = "sft", **data: Any) -> Path:
    """A run that was trained by a stage on some data."""
    run = beginner(folder)
    tree = {"stage": stage, "model": run.model.config.model_dump(exclude_none=True), "data": {"path": "x"} | data}
    if STAGES[stage].rollout:
        tree |= {
            stage: {"checker_weight": 1},
            "train": {"steps": 16},
            "eval": {"every_steps": 16},
            "checkpoint": {"every_steps": 16},
        }
    write_text(run.path / "config.yaml", dump_config(build_config(tree)))
    return run.path


@pytest.fixture
def hamlet(tmp_path: Path) -> Path:
    """A run that was trained on Hamlet's conversations."""
    return trained_on(tmp_path / "runs/hamlet", source="hamlet")


def test_default_prompts_are_neither_trained_on_nor_choose_a_checkpoint(hamlet: Path) -> None:
    compared = {json.dumps(prompt.messages) for prompt in comparison_prompts([hamlet, hamlet], None, 200, True)}
    assert len(compared) >= 199, "two greetings may be the same"
    for split, count in (("val", 500), ("train", 500)):
        lines = map(json.loads, write_lines("prompts", 0, split, count))  # type: ignore[arg-type]
        assert not compared & {json.dumps(line["prompt"]) for line in lines}, split


def test_the_lineage_decides_which_task_belongs_to_a_run(hamlet: Path, tmp_path: Path) -> None:
    child = beginner(tmp_path / "runs/child").path
    assert task_of_run(child) is None
    write_json(child / "run.json", RunFolder(child).record() | {"parent": {"run": str(hamlet), "step": 1}})
    assert task_of_run(child).name == "hamlet"  # type: ignore[union-attr]
    assert "Who are you?" in suggested_questions(child)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("stage: nothing")
    write_json(child / "run.json", RunFolder(child).record() | {"parent": {"run": str(tmp_path / "broken"), "step": 1}})
    assert suggested_questions(child) == (), "a damaged record of a parent keeps no run from being served"


def test_a_run_without_a_task_needs_data(hamlet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = beginner(tmp_path / "runs/other").path
    assert main(["compare", str(hamlet), str(other)]) == 2
    err = capsys.readouterr().err
    assert f"no default prompts for the run {other}" in err and "--data PATH" in err and err.count("\n") == 1


@pytest.mark.parametrize("kind", ["sft", "dpo", "ppo"])
def test_prompts_that_were_trained_on_are_counted(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def user(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    letters = "abcdefgh"
    rows: dict[str, Any] = {
        "sft": [{"messages": [*user(a), {"role": "assistant", "content": "b"}]} for a in letters],
        "dpo": [pair(a, "b", "c") for a in letters],
        "ppo": [{"prompt": user(a), "answer": "b"} for a in letters],
    }
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[kind]))
    run = trained_on(tmp_path / "runs/run", kind, path=str(data))
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps({"prompt": user(a), "answer": "b"}) + "\n" for a in "abcdefghhg"))
    prompts = comparison_prompts([run], str(path), 100, True)
    assert len(prompts) == 10 and 7 <= count_trained(prompts, [run]) < 10, "one in 20, and one at least, is validation"
    data.unlink()
    assert count_trained(prompts, [run]) == 0


def test_compare_warns_of_prompts_that_were_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "prompts.jsonl"
    rows = [{"prompt": [{"role": "user", "content": a}], "answer": "b"} for a in "abcdefgh"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = trained_on(tmp_path / "runs/run", "grpo", path=str(data))
    words = ["compare", str(run), str(run), "--data", str(data), "--max-new-tokens", "2"]
    assert main(words) == 0
    assert "warning: the runs were trained on 7 of these 8 prompts" in capsys.readouterr().err
    assert main([*words, "--json", "--limit", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["low"], result["high"], result["n"]) == (None, None, 1)
    assert result["second"]["run"] == str(run) and len(result["rows"]) == 1
