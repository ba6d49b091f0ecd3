"""The harness's own reader of Hugging Face's folders and our evaluation, on the same questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from test_evaluate_tasks import VILLAGE, questions
from test_interop_huggingface import randomised, shape
from understudy.cli import main
from understudy.interop.export import export_run
from understudy.tokenizer import train_tokenizer


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_lm_eval_of_an_export_agrees_with_ours(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed; it comes with `pip install 'understudy[eval]'`")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.chdir(tmp_path)
    import lm_eval
    from lm_eval.tasks import TaskManager

    path = questions(tmp_path / "q.jsonl")
    tokenizer = train_tokenizer("bpe", [path.read_text()], 300)
    run = randomised(tmp_path / "runs" / "small", shape(family, vocab_size=300, context_length=64), tokenizer)
    export_run(run, "hf", tmp_path / "exported")
    # The exported weights, which the test changed, are evaluated.
    from understudy.model.weights import weights_of
    from understudy.run import RunFolder, save_run

    save_run(RunFolder(run.path), run.config, tokenizer, weights_of(run.model), {}, run.step)
    Path("tasks").mkdir()
    Path("tasks/village.yaml").write_text(VILLAGE.replace("FILE", str(path)))
    manager = TaskManager(include_path="tasks", include_defaults=False)
    done = lm_eval.simple_evaluate(
        model="hf", model_args="pretrained=exported,dtype=float32", tasks=["village"], task_manager=manager,
        device="cpu", bootstrap_iters=0,
    )  # fmt: skip
    theirs = done["results"]["village"]
    assert main(["evaluate", "small", "--tasks", "q.jsonl", "--device", "cpu"]) == 0
    ours = json.loads((run.path / "evaluation_tasks.json").read_text())["q"]["metrics"]
    assert theirs["acc,none"] == ours["accuracy"]["value"]
    assert theirs["acc_norm,none"] == ours["accuracy_normalised"]["value"]
    assert 0 < theirs["acc,none"] < 1, "a comparison that could fail"
