"""Verifiers: the table of true scores, and tasks as rewards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from understudy.data.chat.prompts import Prompt, open_prompts
from understudy.evaluation.tasks import find_task
from understudy.rewards.verifiers import VERIFIERS, true_score, verifier_of


def prompt(**fields: Any) -> Prompt:
    return Prompt(({"role": "user", "content": "?"},), **({"check": None, "answer": None, "category": ""} | fields))


def test_a_prompt_names_its_verifier(tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"{i}?"}], "answer": "It is 7 dozen, so 84.", "task": task}
        for i, task in enumerate(["gsm8k", "number", "exact"] * 8)
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [*open_prompts(path, "train"), *open_prompts(path, "val")]
    assert {p.task for p in prompts} == {"gsm8k", "number", "exact"}
    for p in prompts:
        assert true_score(p, "The answer is $84.00.") == float(p.task != "exact")
        assert true_score(p, "it is 7 dozen, so 84") == 1.0


def test_without_a_task_the_answer_decides() -> None:
    assert verifier_of(prompt(answer="1,000")) is verifier_of(prompt(answer="so #### 4")) is VERIFIERS["number"]
    assert verifier_of(prompt(answer="Paris")) is VERIFIERS["exact"]
    assert verifier_of(prompt()) is None and math.isnan(true_score(prompt(), "x"))


def test_mistakes_are_not_scored() -> None:
    for fields, problem in (
        ({"task": "gsm9k", "answer": "1"}, "no verifier is called 'gsm9k'; a prompt's task is one of hamlet, gsm8k"),
        ({"task": "gsm8k"}, "a prompt with the task 'gsm8k' needs an 'answer'"),
        ({"task": "gsm8k", "answer": "none"}, "the answer 'none' has no number"),
        ({"task": "hamlet", "answer": "1"}, "needs a 'check'"),
    ):
        with pytest.raises(ValueError, match=problem):
            true_score(prompt(**fields), "there is none")


def test_the_score_of_a_task_is_the_reward_of_its_prompts() -> None:
    task = find_task("hamlet")
    for example in task.examples("train", 16):
        for answer in (example.answer, "I would rather talk of cheese."):
            assert true_score(task.as_prompt(example), answer) == task.score(example, answer)
