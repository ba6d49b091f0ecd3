"""The ladder, the check of exercises, and the execution of notebooks."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from test_cli import complaint
from understudy import api
from understudy.bench import TrainingSpeed
from understudy.cli import main, parse
from understudy.config.load import read_preset
from understudy.config.stages import STAGES
from understudy.evaluation.tasks import hamlet as hamlet_tasks
from understudy.learn import ladder
from understudy.learn.ladder import LADDER, Step
from understudy.run import RunFolder

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def half_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of half the reference speed."""
    rates = [ladder.REFERENCE_SPEED / 2]
    monkeypatch.setattr(ladder, "measure_training", lambda *_: TrainingSpeed(None, 1, "off", rates))


def document(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


# ---- the ladder ------------------------------------------------------------------------------------------------------


def test_the_table_is_well_formed() -> None:
    assert [step.number for step in LADDER] == list(range(1, len(LADDER) + 1))
    assert len({step.name for step in LADDER}) == len(LADDER)
    folders: dict[str, Any] = {}
    for step in LADDER:
        assert step.low < step.expected < step.high
        assert 0 < step.seconds <= 90
        assert all(earlier.number < step.number for earlier in step.earlier)
        assert step.data.kind == STAGES[step.stage].data
        assert folders.setdefault(step.data.out, step.data) == step.data
        assert re.fullmatch(r"[A-Z][^.]+\.", step.teaches), step.teaches


@pytest.mark.parametrize("step", LADDER, ids=lambda step: step.name)
def test_the_commands_of_a_step_do_what_it_does(step: Step) -> None:
    prepare, train, measure = (parse(command.split()[1:]) for command in step.commands())
    assert str(prepare.out) == train.data == step.data.out and (prepare.kind or "text") == step.data.kind
    assert {name: getattr(prepare, name) for name in step.data.options} == step.data.options
    assert (train.command_name, train.preset, train.run) == (step.stage, step.preset, step.run)
    assert train.init_from == (LADDER[step.start - 1].run if step.start else None)
    assert train.overrides == api.dotted(step.all_settings())
    assert (read_preset(step.preset).get("stage") or "pretrain") == step.stage
    if step.reward:
        assert train.overrides[f"{step.stage}.reward_model"] == LADDER[step.reward - 1].run
    assert step.run in (getattr(measure, "run", None), getattr(measure, "second", None))


def test_the_tutorial_has_the_table() -> None:
    page = (ROOT / "docs" / "tutorial" / "README.md").read_text(encoding="utf-8")
    for step in LADDER:
        assert f"| {step.number}. {step.name} | `understudy learn run {step.number}` | {step.teaches} |\n" in page


@pytest.mark.usefixtures("half_speed")
def test_the_list_has_the_time_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    steps = document(capsys, "learn")["steps"]
    assert [row["seconds"] for row in steps] == [2 * step.seconds for step in LADDER]
    assert not any(row["done"] for row in steps)
    assert main(["learn"]) == 0
    text = capsys.readouterr().out
    for row in steps:
        assert all(f"    $ {command}\n" in f"{text}\n" for command in row["commands"])


def test_the_shortest_step_is_inside_its_band(capsys: pytest.CaptureFixture[str]) -> None:
    """`.ci/run` runs the next two."""
    first = document(capsys, "learn", "run", "1")
    assert first["inside"] and first["trained"] and first["planned_seconds"] > 0
    assert main(["learn", "run", "1"]) == 0
    assert "it was trained before" in capsys.readouterr().err
    again = document(capsys, "learn", "run", "1")
    assert not again["trained"] and again["value"] == pytest.approx(first["value"], abs=1e-6)
    assert document(capsys, "learn")["steps"][0]["done"]


def short(step: Step, **changes: Any) -> Step:
    """The step with few settings of its size: two optimiser steps of a model of one small layer."""
    settings: dict[str, Any] = {name: dict(section) for name, section in step.settings.items()}
    settings["train"] = settings.get("train", {}) | {
        "steps": 2,
        "batch_size": 4,
        "micro_batch_size": 4,
        "dtype": "fp32",
    }
    settings["optim"] = settings.get("optim", {}) | {"warmup_steps": 0}
    settings["log"] = {"samples": 1, "sample_tokens": 4, "plot": False}
    if STAGES[step.stage].parent == "optional":
        settings["model"] = {"n_layers": 2, "d_model": 32, "n_heads": 2, "n_kv_heads": 2}
    if STAGES[step.stage].rollout:
        section = {"prompts": 2, "group_size": 2, "max_new_tokens": 4, "eval_prompts": 2}
        settings[step.stage] = settings.get(step.stage, {}) | section
    options = dict(step.data.options) | {"limit": 60}
    if "vocab_size" in options:
        options["vocab_size"] = 320
        settings["tokenizer"] = {"vocab_size": 320}
    data = replace(step.data, options=options)
    return replace(step, **{"settings": settings, "data": data} | changes)


@pytest.mark.slow
@pytest.mark.usefixtures("half_speed")
def test_a_missing_step_is_run_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All steps above the two short ones, on small sizes."""
    steps = (*LADDER[:2], *(short(step, low=-1.0, high=100.0) for step in LADDER[2:]))
    monkeypatch.setattr(ladder, "LADDER", steps)
    monkeypatch.setattr(ladder, "COMPARED_PROMPTS", 4)
    monkeypatch.setattr(hamlet_tasks, "PER_CATEGORY", 1)
    [last] = [step for step in steps if step.reward]
    assert main(["learn", "run", str(last.number)]) == 0
    told = re.findall(r"step (\d+) needs the run of step (\d+)", capsys.readouterr().err)
    start, reward = last.start, last.reward
    assert told == [(str(start), str(steps[start - 1].start)), (str(last.number), str(start)),
                    (str(last.number), str(reward))]  # fmt: skip
    for step in steps[2:]:
        assert main(["learn", "run", str(step.number)]) == 0
        assert "needs the run" not in capsys.readouterr().err
        assert step.is_done()


@pytest.mark.usefixtures("half_speed")
def test_a_result_outside_the_band_is_status_1_and_fresh_trains_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = short(LADDER[2], number=1, low=0.0, expected=0.1, high=0.2)
    monkeypatch.setattr(ladder, "LADDER", (step,))
    assert not document(capsys, "learn", "run", "1", status=1)["inside"]
    of_the_first = RunFolder(Path("runs") / step.run).path / "note.txt"
    of_the_first.write_text("in the folder of the first run")
    assert main(["learn", "run", "1"]) == 1 and of_the_first.exists()
    assert "OUTSIDE" in capsys.readouterr().err
    assert main(["learn", "run", "1", "--fresh"]) == 1
    assert not step.train() and not of_the_first.exists()


def test_a_wrong_step_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"choose one of 1 to {len(LADDER)}" in complaint(capsys, "learn", "run", "0")
    assert "invalid int" in complaint(capsys, "learn", "run", "ppo")
    assert "invalid choice" in complaint(capsys, "learn", "climb")
    assert not Path("runs").exists()


# ---- exercises -------------------------------------------------------------------------------------------------------

BLANK = "def double(x):\n    raise NotImplementedError\n"
DONE = "def double(x):\n    return 2 * x\n"


def check_double(double: Any) -> None:
    assert double(3) == 6, f"double(3) is {double(3)}; it must be 6"


@pytest.fixture
def lesson(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fourth lesson of one exercise."""
    module = ModuleType("understudy.learn.lesson_04")
    module.check_double = check_double  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def notebook(path: Path, *cells: str, tags: tuple[str, ...] = ("exercise",)) -> Path:
    """Write a notebook whose code cells are exercises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"cell_type": "code", "id": f"c{number}", "metadata": {"tags": list(tags)}, "source": source.splitlines(True),
         "outputs": [], "execution_count": None}
        for number, source in enumerate(cells)
    ]  # fmt: skip
    path.write_text(json.dumps({"cells": rows, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.usefixtures("lesson")
def test_exercises_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    notebook(Path("notebooks/04_bpe.ipynb"), BLANK)
    assert main(["learn", "check", "4"]) == 1
    assert "double: not yet" in capsys.readouterr().out
    mine = str(notebook(Path("mine.ipynb"), "%matplotlib inline\n" + DONE))
    assert document(capsys, "learn", "check", "4", mine) == [{"name": "double", "right": True, "problem": None}]
    Path("mine.py").write_text(DONE.replace("2", "3"))
    [answer] = document(capsys, "learn", "check", "4", "mine.py", status=1)
    assert answer["problem"].startswith("double(3) is 9; it must be 6")


@pytest.mark.usefixtures("lesson")
def test_mistakes_with_exercises_are_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no notebook 12" in complaint(capsys, "learn", "check", "12")
    assert "name your file" in complaint(capsys, "learn", "check", "4")
    assert "cannot be read" in complaint(capsys, "learn", "check", "4", "nothing.py")
    Path("text.ipynb").write_text("no JSON")
    assert "is not a notebook" in complaint(capsys, "learn", "check", "4", "text.ipynb")
    Path("wrong.py").write_text("1 / 0")
    assert "ZeroDivisionError" in complaint(capsys, "learn", "check", "4", "wrong.py")


@pytest.mark.usefixtures("lesson")
def test_notebooks_are_executed_and_their_exercises_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nbclient", reason="nbclient comes with `pip install 'understudy[notebooks]'`")
    pytest.importorskip("ipykernel", reason="ipykernel comes with `pip install 'understudy[notebooks]'`")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import run_notebooks

    good = notebook(tmp_path / "notebooks/04_good.ipynb", BLANK, "import os; print(os.getcwd(), os.listdir())")
    notebook(tmp_path / "notebooks/05_bad.ipynb", BLANK, "x = 1 / 0")
    monkeypatch.setattr(run_notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(run_notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(run_notebooks, "check_exercises", lambda path: [])
    monkeypatch.setattr(sys, "argv", ["run_notebooks", "--save", "--out", str(tmp_path / "out")])
    assert run_notebooks.main() == 1
    shown = capsys.readouterr().err
    assert "notebooks/05_bad.ipynb: cell 2 raised ZeroDivisionError: division by zero" in shown
    assert "04_good: " in shown and "04_good.ipynb:" not in shown
    [_, cell] = json.loads(good.read_text())["cells"]
    assert "".join(cell["outputs"][0]["text"]).endswith(" []\n") and "execution" not in cell["metadata"]
    assert (tmp_path / "out/05_bad.ipynb").exists()


@pytest.mark.usefixtures("lesson")
def test_blank_exercises_must_fail_and_solutions_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="nbclient comes with `pip install 'understudy[notebooks]'`")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from run_notebooks import check_exercises

    path = notebook(tmp_path / "notebooks/04_bpe.ipynb", BLANK)
    assert "04.py cannot be read" in check_exercises(path)[0]
    solution = tmp_path / "notebooks/solutions/04.py"
    solution.parent.mkdir()
    solution.write_text(DONE)
    assert check_exercises(path) == []
    solution.write_text(BLANK)
    notebook(path, DONE)
    early, late = check_exercises(path)
    assert early == "04_bpe.ipynb: double is right before it is done" and "solutions/04.py: double: not yet" in late
