"""EleutherAI's harness, by its OpenAI-compatible model, on our server: as accurate as our own evaluation."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from serving import TEXT, make_run, served_run, serving
from understudy.cli import main
from understudy.interop.huggingface_tokenizer import save_huggingface_tokenizer
from understudy.serve.served import Served

VILLAGE: dict[str, Any] = {
    "task": "village", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}  # fmt: skip


def questions(path: Path, number: int = 30) -> Path:
    dice, words = random.Random(5), sorted(set(TEXT.replace("\n", " ").split()))
    rows = []
    for _ in range(number):
        choices = [" ".join(dice.sample(words, dice.randrange(1, 5))) for _ in range(3)]
        rows.append(
            {"question": " ".join(dice.sample(words, 3)) + "?", "choices": choices, "answer": dice.randrange(3)}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_lm_eval_asks_our_server_and_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed; it comes with `pip install 'understudy[eval]'`")
    pytest.importorskip("tenacity", reason="lm-eval's model for servers comes with `pip install 'lm-eval[api]'`")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import lm_eval
    from lm_eval.tasks import TaskManager

    run = make_run(tmp_path / "base", chat=False)
    path = questions(tmp_path / "village.jsonl")
    save_huggingface_tokenizer(run.tokenizer, tmp_path / "tokenizer", 128)
    (tmp_path / "tasks").mkdir()
    task = VILLAGE | {"dataset_kwargs": {"data_files": {"test": str(path)}}}
    (tmp_path / "tasks/village.yaml").write_text(json.dumps(task))  # JSON is YAML
    with serving(Served({"base": served_run(run)})) as url:
        given = {
            "model": "base", "base_url": f"{url}/v1/completions", "tokenizer": str(tmp_path / "tokenizer"),
            "tokenizer_backend": "huggingface", "max_length": 128, "num_concurrent": 2,
        }  # fmt: skip
        manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
        evaluation = lm_eval.simple_evaluate(
            "local-completions", given, tasks=["village"], task_manager=manager, batch_size=4
        )
    assert evaluation is not None
    theirs = evaluation["results"]["village"]
    assert main(["evaluate", str(run.path), "--tasks", str(path), "--device", "cpu"]) == 0
    ours = json.loads((run.path / "evaluation_tasks.json").read_text())["village"]["metrics"]
    assert theirs["acc,none"] == ours["accuracy"]["value"]
    assert theirs["acc_norm,none"] == ours["accuracy_normalised"]["value"]
    assert 0 < theirs["acc,none"] < 1
