"""Prompts: read from files of prompts, of sums and of conversations, each on one side only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from understudy.data.chat.prepare import prepare_conversations
from understudy.data.chat.prompts import FORMATS, Prompt, open_prompts, read_prompts
from understudy.hamlet.checker import score


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


SUM = {"kind": "number", "value": 4}
READ: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prompt": " Hi ", "note": 1}, {"prompt": [user("Hi")]}),
    ({"prompt": [user("2 + 2?")], "check": SUM, "answer": " 4 ", "category": "sum"},
     {"prompt": [user("2 + 2?")], "check": SUM, "answer": "4", "category": "sum"}),
    ({"question": "How many?", "answer": "24*50=<<24*50=1200>>1200\n#### 1,200"},
     {"prompt": [user("How many?")], "answer": "1200"}),
    ({"messages": [user("Hi"), says("Hello."), user("Who?"), says("I.")]},
     {"prompt": [user("Hi"), says("Hello."), user("Who?")], "answer": "I."}),
    ({"messages": [user("Hi"), says("Hello."), user("Who?")]}, {"prompt": [user("Hi"), says("Hello."), user("Who?")]}),
    ({"instruction": "Sing.", "output": "La."}, {"prompt": [user("Sing.")], "answer": "La."}),
    ({"prompt": "2 + 2?", "answer": 4}, {"prompt": [user("2 + 2?")], "answer": "4"}),
    ({"question": "2 + 2?", "answer": 4.5}, {"prompt": [user("2 + 2?")], "answer": "4.5"}),
    ({"question": "2 + 2?"}, {"prompt": [user("2 + 2?")]}),
    ({"query": "2 + 2?", "response": "4"}, {"prompt": [user("2 + 2?")], "answer": "4"}),
    ({"prompt": "2 + 2?", "completion": "4"}, {"prompt": [user("2 + 2?")], "answer": "4"}),
    ({"messages": [user("Sum?"), says("") | {"tool_calls": [{"name": "add", "arguments": {}}]}, {"role": "tool", "content": "4"},
                   says("4.")]},
     {"prompt": [user("Sum?"), says("") | {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {}}}]},
                 {"role": "tool", "content": "4"}], "answer": "4."}),
    ({"message_tree_id": "1", "prompt": {"role": "prompter", "text": "Hi", "replies": [{"role": "assistant", "text": "Hello."}]}},
     {"prompt": [user("Hi")], "answer": "Hello."}),
]  # fmt: skip


@pytest.mark.parametrize(("record", "expected"), READ)
def test_prompts_of_every_origin(tmp_path: Path, record: dict[str, Any], expected: dict[str, Any]) -> None:
    rows = list(read_prompts(write_jsonl(tmp_path / "a.jsonl", [record])))
    assert [(row.record, row.reason) for row in rows] == [(expected, "")]


def test_all_fields_of_a_prompt_count_as_used(tmp_path: Path) -> None:
    record = {"prompt": "2 + 2?", "check": SUM, "answer": "4", "category": "sum", "task": "number"}
    [row] = read_prompts(write_jsonl(tmp_path / "a.jsonl", [record]))
    assert row.record == {**record, "prompt": [user("2 + 2?")]} and row.unused == ()


def test_dropped_prompts_have_a_reason(tmp_path: Path) -> None:
    records = [{"prompt": ""}, {"prompt": []}, {"prompt": [user("Hi"), says("Hello.")]}, {"prompt": None}]
    rows = list(read_prompts(write_jsonl(tmp_path / "a.jsonl", records)))
    assert [row.reason for row in rows] == ["empty message", "no prompt", "turns out of order", "no prompt"]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"body": "x"}, "has the fields body, which no format has; .* prompts .prompt."),
        ({"prompt": "x", "check": "y"}, "the field 'check' is not an object but a string"),
        ({"prompt": "x", "check": {"kind": "poem"}}, "unknown kind of check 'poem'"),
        ({"prompt": "x", "check": {"kind": "number"}}, "the check of kind 'number' is not complete"),
        ({"prompt": "x", "answer": [4]}, "the field 'answer' is not text but a list"),
    ],
)
def test_files_without_prompts_are_refused_and_leave_nothing(
    tmp_path: Path, record: dict[str, Any], sentence: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [record])
    with pytest.raises(ValueError, match=sentence):
        prepare_conversations([str(path)], tmp_path / "out", kind="prompts")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_prompts_is_divided_by_prompt(tmp_path: Path) -> None:
    records = [{"prompt": f"{i // 2} + 4?", "answer": str(i), "check": SUM, "category": "sum"} for i in range(200)]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    prepare_conversations([str(path)], tmp_path / "out", kind="prompts", val_fraction=0.3)
    train, val = (list(open_prompts(tmp_path / "out", split)) for split in ("train", "val"))
    questions = [{prompt.messages[0]["content"] for prompt in half} for half in (train, val)]
    assert len(train) + len(val) == 200 and 30 < len(val) < 90 and not questions[0] & questions[1]
    assert Prompt((user("7 + 4?"),), SUM, "15", "sum") in train + val
    of_file = [open_prompts(write_jsonl(tmp_path / "b.jsonl", [{"prompt": [user(str(i))]} for i in range(60)]), split)
               for split in ("train", "val")]  # fmt: skip
    assert sum(map(len, of_file)) == 60 and of_file[1][0] == next(iter(of_file[1]))
    assert of_file[0][0].check is None and of_file[0][0].answer is None and of_file[0][0].category == ""


def test_hamlets_prompts_bring_a_check_that_judges(tmp_path: Path) -> None:
    prepare_conversations(["hamlet"], tmp_path / "out", kind="prompts", limit=32)
    for prompt in open_prompts(tmp_path / "out", "train"):
        assert prompt.check and prompt.category and prompt.messages[-1]["role"] == "user"
        assert score(prompt.check, "") == 0.0


def test_every_format_of_conversations_can_be_asked() -> None:
    from understudy.data.chat.conversations import FORMATS as CONVERSATIONS

    assert set(FORMATS) == {*CONVERSATIONS, "prompts"}
