"""Judgements of single completions as data: formats, labels, splits, and the other kinds that read the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.cli import main
from understudy.data.chat.conversations import read_conversations
from understudy.data.chat.judgements import LabelledCompletion, open_judgements, read_judgements
from understudy.data.chat.preferences import read_preferences
from understudy.data.chat.prepare import prepare_conversations
from understudy.hamlet.preferences import ANNOTATORS, judgement


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def judged(prompt: str, completion: str, label: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": [user(prompt)], "completion": [says(completion)], "label": label, **more}


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The judgements in a file, and why others were dropped."""
    rows = list(read_judgements(path))
    return [row.record for row in rows if row.record], [row.reason for row in rows if row.reason]


@pytest.mark.parametrize(("given", "expected"), [
    ({"prompt": " Hi ", "completion": "Hello.", "label": True}, [judged("Hi", "Hello.", True)]),
    ({"prompt": "Hi", "completion": "Go.", "label": False, "annotator": "ann", "note": 3},
     [judged("Hi", "Go.", False, annotator="ann")]),
    (judged("Hi", "Go.", 0), [judged("Hi", "Go.", False)]),  # TRL's conversational form
    ({"prompt": [{"role": "system", "content": "Be short."}, user("Hi")], "completion": [says("Hello.")], "label": "true"},
     [{"prompt": [{"role": "system", "content": "Be short."}, user("Hi")], "completion": [says("Hello.")], "label": True}]),
    ({"system": "Be short.", "prompt": "Hi", "completion": "Hello.", "label": 1},
     [{"prompt": [{"role": "system", "content": "Be short."}, user("Hi")], "completion": [says("Hello.")], "label": True}]),
    ({"prompt": "Hi", "chosen": "Hello.", "rejected": [user("Hi"), says("Go.")], "category": "manners"},
     [judged("Hi", "Hello.", True, category="manners"), judged("Hi", "Go.", False, category="manners")]),
])  # fmt: skip
def test_every_form_becomes_the_schema(given: dict[str, Any], expected: list[dict[str, Any]], tmp_path: Path) -> None:
    assert read(write_jsonl(tmp_path / "a.jsonl", [given])) == (expected, [])


def test_rows_that_cannot_be_used_are_counted_by_their_reason(tmp_path: Path) -> None:
    lines = [
        judged("Hi", "Hello.", True), judged("Hi", "Hello.", None), judged("Hi", "Hello.", "maybe"), judged("Hi", " ", True),
        {"prompt": "", "completion": "Hello.", "label": True}, {"prompt": None, "completion": "Hello.", "label": True},
        judged("Hi", "Hello.", True, weight=0), {"prompt": [says("Hi")], "completion": "Hello.", "label": True},
        {"prompt": "Hi", "completion": None, "label": True},
    ]  # fmt: skip
    kept, reasons = read(write_jsonl(tmp_path / "a.jsonl", lines))
    assert kept == [judged("Hi", "Hello.", True)]
    assert reasons == [
        "label that is not true or false", "label that is not true or false", "empty answer", "empty message",
        "no prompt", "weight 0", "turns out of order", "no answer",
    ]  # fmt: skip
    tie = {"prompt": "Hi", "chosen": "Yes.", "rejected": "No.", "tie": True}
    rows = list(read_judgements(write_jsonl(tmp_path / "ties.jsonl", [tie])))
    assert [(row.reason, row.intended) for row in rows] == [("a tie, which says nothing of either completion", True)]


def test_parquet_and_tables_are_read(tmp_path: Path) -> None:
    lines = [judged(f"Question {n}?", "Yes.", n % 2 == 0) for n in range(4)]
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == (lines, [])
    texts = "".join(f"Question {n}?,Yes.,{label}\n" for n, label in enumerate(("True", "false", "1", "0")))
    (tmp_path / "b.csv").write_text("Prompt,Completion,Label\n" + texts)
    kept, reasons = read(tmp_path / "b.csv")
    assert [line["label"] for line in kept] == [True, False, True, False] and not reasons
    (tmp_path / "c.csv").write_text("Frage,Antwort,Daumen\n" + texts)
    manifest = prepare_conversations(
        [str(tmp_path / "c.csv")], tmp_path / "c", "judgements", columns="prompt=Frage,completion=Antwort,label=Daumen"
    ).manifest
    assert sum(manifest["splits"][split]["judgements"] for split in ("train", "val")) == 4
    with pytest.raises(ValueError, match=r"--columns prompt=COLUMN,completion=COLUMN,label=COLUMN"):
        read(write_text(tmp_path / "d.csv", "a,b\n1,2\n"))


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_folder_and_a_file_hold_the_same_judgements_and_no_prompt_is_on_both_sides(tmp_path: Path) -> None:
    lines = [judged(f"Question {n // 2}?", f"Answer {n}.", n % 3 == 0) for n in range(60)]
    file = write_jsonl(tmp_path / "a.jsonl", lines)
    assert main(["prepare", str(file), "--kind", "judgements", "--out", str(tmp_path / "out")]) == 0
    prompts: list[set[str]] = []
    for split in ("train", "val"):
        of_file, of_folder = (list(open_judgements(path, split)) for path in (file, tmp_path / "out"))
        assert of_file == of_folder and of_file
        prompts.append({judgement.prompt[0]["content"] for judgement in of_file})
    assert not prompts[0] & prompts[1]
    [first] = [line for line in open_judgements(file, "train") if line.completion[0]["content"] == "Answer 3."] or [
        next(line for line in open_judgements(file, "val") if line.completion[0]["content"] == "Answer 3.")
    ]
    assert first == LabelledCompletion((user("Question 1?"),), (says("Answer 3."),), True)  # type: ignore[arg-type]


def test_a_line_that_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    lines = [judged(f"Question {n}?", "Yes.", True) for n in range(3)]
    for wrong, message in (
        (judged("Hi", "Yes.", "maybe"), "line 4 cannot be trained on (label that is not true or false)"),
        (
            {"prompt": "Hi", "completion": "Yes.", "label": True},
            "line 4 is no judgement to train on: the field 'prompt'",
        ),
        ({"prompt": [user("Hi")], "label": True}, "line 4 has no completion"),
    ):
        with pytest.raises(ValueError) as error:
            open_judgements(write_jsonl(tmp_path / "a.jsonl", [*lines, wrong]), "train")
        assert message in str(error.value)


def test_the_other_kinds_read_the_rows_of_kto_as_before(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [judged("Hi", "Hello.", True), judged("Hi", "Go.", False)])
    talks = list(read_conversations(file))
    assert [row.record and row.record["messages"] for row in talks] == [[user("Hi"), says("Hello.")], None]
    assert talks[1].reason == "label false, an undesirable answer" and talks[1].intended
    [pair] = [row.record for row in read_preferences(file)]
    assert pair == {"prompt": [user("Hi")], "chosen": [says("Hello.")], "rejected": [says("Go.")]}


def test_hamlet_has_judgements_by_annotators_who_err_at_known_rates(tmp_path: Path) -> None:
    assert main(["prepare", "hamlet", "--kind", "judgements", "--limit", "40", "--out", str(tmp_path / "out")]) == 0
    train = list(open_judgements(tmp_path / "out", "train"))
    assert len(train) == 40 and 10 < sum(line.desirable for line in train) < 30
    lines = [judgement(0, n, "train") for n in range(300)]
    assert {line["annotator"] for line in lines} == set(ANNOTATORS)
    assert judgement(0, 7, "train") == judgement(0, 7, "train") != judgement(1, 7, "train")
