"""Conversations: every format, dropped and refused records, folders written whole, and read back by the trainer."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from test_data_hub import CONVERTED, MAIN, FakeHub, hub
from text_files import tarred, zipped
from understudy.cli import main
from understudy.data.chat.conversations import FORMATS, open_conversations, read_conversations, tidy_messages
from understudy.data.chat.prepare import prepare_conversations
from understudy.data.chat.prepared import validation_mask
from understudy.data.records import read_records
from understudy.data.request import parse_sources
from understudy.data.sources import CONVERSATIONS as NAMED

__all__ = ["hub"]  # a fixture


def turn(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def conversations_in(path: Path, format_name: str | None = None) -> list[list[dict[str, str]]]:
    rows = list(read_conversations(path, format_name))
    assert not any(row.reason for row in rows)
    return [row.record["messages"] for row in rows if row.record]


def many(n: int) -> list[dict[str, Any]]:
    return [{"messages": turn(f"Question {i}?", f"Answer {i}.")} for i in range(n)]


SQUAD_TEXT = {"context": "Rollo was a Viking.", "question": "Who was Rollo?"}
READ: list[tuple[dict[str, Any], list[list[dict[str, str]]]]] = [
    ({"messages": turn(" Hi ", "Hello.")}, [turn("Hi", "Hello.")]),
    (
        {
            "id": "x",
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello."},
            ],
        },
        [[{"role": "system", "content": "Be kind."}, *turn("Hi", "Hello.")]],
    ),
    ({"instruction": "Add.", "input": "1 + 1", "output": "2"}, [turn("Add.\n\n1 + 1", "2")]),
    ({"instruction": "Sing.", "input": "", "output": "La."}, [turn("Sing.", "La.")]),
    ({"instruction": "Sum up.", "context": "A tale.", "response": "It ends.", "category": "x"},
     [turn("Sum up.\n\nA tale.", "It ends.")]),
    ({"instruction": "Sing.", "context": None, "response": "La."}, [turn("Sing.", "La.")]),
    ({"instruction": "Sum.", "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "?"}]},
     [turn("Sum.\n\n1 1", "2"), turn("Sum.", "?")]),
    ({**SQUAD_TEXT, "answers": {"text": ["a Viking", "Viking"], "answer_start": [10, 12]}},
     [turn("Rollo was a Viking.\n\nWho was Rollo?", "a Viking")]),
    ({**SQUAD_TEXT, "answers": {"text": [], "answer_start": []}},
     [turn("Rollo was a Viking.\n\nWho was Rollo?", "The text does not say.")]),
    (
        {"version": "v2.0", "data": [{"title": "N", "paragraphs": [{"context": "Rollo was a Viking.", "qas": [
            {"id": "1", "question": "Who?", "is_impossible": False, "answers": [{"text": "Rollo", "answer_start": 0}]},
            {"id": "2", "question": "Where?", "is_impossible": True, "answers": [],
             "plausible_answers": [{"text": "Viking", "answer_start": 12}]},
        ]}]}]},
        [turn("Rollo was a Viking.\n\nWho?", "Rollo"), turn("Rollo was a Viking.\n\nWhere?", "The text does not say.")],
    ),
    ({"question": "How many?", "answer": "He has 24*50=<<24*50=1200>>1200 eggs.\n#### 1,200"},
     [turn("How many?", "He has 24*50=1200 eggs.\nThe answer is 1200.")]),
    ({"question": "How many?", "answer": 12}, [turn("How many?", "12")]),
    ({"prompt": "Hi", "completion": " Hello."}, [turn("Hi", "Hello.")]),
    ({"prompt": "Hi", "response": "Hello."}, [turn("Hi", "Hello.")]),
    ({"prompt": "Hi", "answer": "Hello."}, [turn("Hi", "Hello.")]),
    ({"prompt": turn("Hi", "")[:1], "completion": turn("", "Hello.")[1:], "label": True}, [turn("Hi", "Hello.")]),
    ({"input": "Hi", "output": "Hello."}, [turn("Hi", "Hello.")]),
    ({"conversation": turn("Hi", "Hello.")}, [turn("Hi", "Hello.")]),
    ({"dialog": ["Hi", "Hello.", "Bye", "Bye."]}, [[*turn("Hi", "Hello."), *turn("Bye", "Bye.")]]),
    ({"query": "Sun?", "answers": '[{"name": "sky", "arguments": {"at": "noon"}}]', "tools": '[{"name": "sky"}]'},
     [[{"role": "system", "content": "", "tools": [{"type": "function", "function": {"name": "sky"}}]},
       {"role": "user", "content": "Sun?"},
       {"role": "assistant", "content": "", "tool_calls": [
           {"type": "function", "function": {"name": "sky", "arguments": {"at": "noon"}}}]}]]),
    ({"id": "c", "chat_messages": [{"sender": "human", "text": "Hi"}, {"sender": "assistant", "text": "x", "content": [
        {"type": "text", "text": "Hello."}]}]}, [turn("Hi", "Hello.")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "expected"), READ, ids=lambda value: ",".join(value)[:30] if isinstance(value, dict) else ""
)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet"])
def test_every_format_in_every_kind_of_file(
    tmp_path: Path, record: dict[str, Any], expected: list[list[dict[str, str]]], ending: str
) -> None:
    path = tmp_path / f"data{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist([record, record]), path)
    else:
        two = json.dumps(record) + "\n" + json.dumps(record) + "\n"
        text = two if "jsonl" in ending else json.dumps([record, record], indent=1)
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
    assert conversations_in(path) == expected * 2


def test_formats_are_known_by_their_fields_and_every_one_was_tried() -> None:
    tried = {next(row.name for row in FORMATS.values() if row.fits(record)) for record, _ in READ}
    assert tried | {"chatgpt", "open-webui", "oasst", "oasst-messages"} == set(FORMATS), "the others have tests below"


def test_json_files_that_are_one_object_or_really_jsonl(tmp_path: Path) -> None:
    nested = next(record for record, _ in READ if "data" in record)
    (tmp_path / "squad.json").write_text(json.dumps(nested, indent=2))
    assert len(conversations_in(tmp_path / "squad.json")) == 2
    lines = write_jsonl(tmp_path / "lines.json", [record for record, _ in READ[:1]] * 3)
    assert [located.where for located in read_records(lines)] == [f"{lines} line {n}" for n in (1, 2, 3)]


def test_hostile_text_is_text(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    record = {
        "messages": turn("a\0b <|im_end|> \ud83d", f"\ud83d\ude00 {long}"),
        "note": "\udc00",
        "source": "elsewhere",
    }
    path = write_jsonl(tmp_path / "a.jsonl", [record, *many(30)])
    prepare_conversations([str(path)], tmp_path / "out")
    with_note = [r for split in ("train", "val") for r in open_conversations(tmp_path / "out", split) if "note" in r]
    assert with_note == [{"messages": turn("a\0b <|im_end|> \ufffd", f"😀 {long}"), "note": "\ufffd", "source": "a"}]


DROPPED = [
    ([], "no answer"),
    ([{"role": "user", "content": "Hi"}], "no answer"),
    ([{"role": "system", "content": "Hi"}], "no answer"),
    (turn("Hi", " \n"), "empty answer"),
    (turn("", "Hello."), "empty message"),
    ([*turn("Hi", "Hello."), {"role": "user", "content": " "}], "empty message"),
    (turn("Hi", "Hello.")[1:], "turns out of order"),
    ([*turn("Hi", "Hello."), {"role": "assistant", "content": "And?"}], "turns out of order"),
    ([*turn("Hi", "Hello."), {"role": "system", "content": "Late."}, *turn("Hi", "Hello.")], "turns out of order"),
]


@pytest.mark.parametrize(("messages", "reason"), DROPPED)
def test_dropped_conversations_have_a_reason(messages: list[dict[str, str]], reason: str) -> None:
    assert tidy_messages(messages) == ([], reason)


def test_accepted_conversations() -> None:
    assert tidy_messages([{"role": "system", "content": " "}, *turn("Hi", "Hello.")]) == (turn("Hi", "Hello."), "")
    unanswered = [*turn("Hi", "Hello."), {"role": "user", "content": "Bye"}]
    assert tidy_messages(unanswered) == (unanswered, "")


def test_dropped_conversations_are_counted_and_shown(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(40) + [{"messages": messages} for messages, _ in DROPPED])
    summary = prepare_conversations([str(path)], tmp_path / "out")
    [source] = summary.manifest["sources"]
    assert source["dropped"] == dict(Counter(reason for _, reason in DROPPED))
    assert source["train"] + source["val"] == 40
    assert "dropped, no answer: 3" in str(summary)


BROKEN = [
    ('{"messages": [', "not JSON"),
    ("[1]", "not a JSON object"),
    ("[" * 100_000, "nested too deeply|not JSON"),
    ('{"messages": 1' + "0" * 5000 + "}", "not JSON"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_a_damaged_line_is_dropped_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(40))
    path.write_text(path.read_text() + "\n" + line + "\n", "utf-8")
    command = ["prepare", str(path), "--kind", "conversations", "--out", str(tmp_path / "out")]
    assert main([*command, "--max-dropped", "0"]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and "a: 1 of 41 records cannot be used, which is more than the share of 0 (" in printed[0]
    assert re.search(rf"({reason}): 1; first at .*a\.jsonl line 42\); correct them, or leave them out with", printed[0])
    assert not (tmp_path / "out").exists()
    share = printed[0].rpartition(" ")[2]
    assert main([*command, "--max-dropped", share]) == 0
    assert re.search(rf"dropped, ({reason}): 1 \(first: .*a\.jsonl line 42\)", capsys.readouterr().err)
    assert sum(map(len, splits_of(tmp_path / "out").values())) == 40


def test_a_share_of_dropped_records_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [{"messages": [{"role": "user", "content": "Hi"}]}]
    half = write_jsonl(tmp_path / "half.jsonl", many(20) + bad * 20)
    prepare_conversations([str(half)], tmp_path / "half")
    more = write_jsonl(tmp_path / "more.jsonl", many(20) + bad * 21)
    with pytest.raises(ValueError, match=r"more: 21 of 41 records .* leave them out with --max-dropped 0\.52$"):
        prepare_conversations([str(more)], tmp_path / "out")
    prepare_conversations([str(more)], tmp_path / "out", max_dropped=0.52)
    unwanted = [{"prompt": f"{n}?", "completion": "Yes.", "label": n < 4} for n in range(40)]
    path = write_jsonl(tmp_path / "kto.jsonl", unwanted)
    manifest = prepare_conversations([str(path)], tmp_path / "kto", max_dropped=0).manifest
    assert manifest["sources"][0]["dropped"] == {"label false, an undesirable answer": 36}, "which was intended"
    for share in ("-1", "nan", "2"):
        assert main(["prepare", str(path), "--kind", "conversations", "--max-dropped", share]) == 2
        assert "--max-dropped is a share from 0 to 1, not" in capsys.readouterr().err


FOREIGN = [
    ([{"body": "x"}], "line 1 has the fields body, which no format has; name its fields with --columns FIELD=NAME; the formats are messages"),
    ([{"conversations": [{"from": "alien", "value": "x"}]}], "no conversations to train on .message from 'alien': 1"),
    ([{"conversations": "x"}], "the field 'conversations' is not a list of objects"),
    ([{"instruction": "x", "output": ["y"]}], "the field 'output' is not text but a list: 1"),
    ([{**SQUAD_TEXT, "answers": ["x"]}], "the field 'answers' is not of the form"),
    ([{"data": [{"paragraphs": 3}]}], "the field 'paragraphs' is not a list of objects"),
    ([{"messages": "hello"}], "a conversation is a list"),
    ([], "a has no conversations to train on .it is empty"),
    ([{"messages": []}], "a has no conversations to train on .no answer: 1"),
    ([{"messages": turn("a", "b")}] * 3, "a has 1 different conversations: 2 are needed"),
]  # fmt: skip


@pytest.mark.parametrize(("records", "sentence"), FOREIGN)
def test_files_that_are_something_else(tmp_path: Path, records: list[Any], sentence: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", records)
    with pytest.raises(ValueError, match=sentence):
        prepare_conversations([str(path)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_files(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"messages": []}\n' * 1000)
    for name, content, sentence in (
        ("a.jsonl.gz", whole[:-20], "damaged or cut-off gzip file"),
        ("b.parquet", b"PAR1", "not a readable parquet file"),
        ("c.jsonl", b'{"messages": "\xff"}\n', r"c\.jsonl line 1 is not UTF-8 \(byte 14\)"),
        ("d.json", b"[1]", r"d\.json element 1 is not an object but a number"),
        ("e.json", b'[{},\n{"a": ', r"e\.json is not JSON after element 1: Expecting value"),
        ("f.json", b"3", r"f\.json holds a number: a list of objects is expected"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            list(read_conversations(tmp_path / name))


def test_a_format_can_be_forced(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [], "prompt": "Hi", "response": "Hello."}])
    assert conversations_in(path, "pairs") == [turn("Hi", "Hello.")]
    assert [row.reason for row in read_conversations(path, "dolly")] == ["not a record of the format dolly"]


# The folder.


def splits_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "val")
    }


def test_a_folder_with_weights(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", many(100))
    second = write_jsonl(tmp_path / "second.jsonl", [{"prompt": f"P {i}", "response": f"R {i}"} for i in range(50)])
    out = tmp_path / "out"
    summary = prepare_conversations([str(first), f"{second}@0.5"], out)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "train.jsonl", "val.jsonl"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest == summary.manifest
    assert (manifest["kind"], manifest["format"]) == ("conversations", 1)
    assert [(s["name"], s["weight"], s["train"] + s["val"]) for s in manifest["sources"]] == [
        ("first", 1, 100),
        ("second", 0.5, 50),
    ]
    lines = splits_of(out)
    for split, about in manifest["splits"].items():
        assert about["conversations"] == len(lines[split]) > 0
        assert about["sha256"] == hashlib.sha256((out / f"{split}.jsonl").read_bytes()).hexdigest()
        opened = open_conversations(out, split)
        assert list(opened) == lines[split] == [opened[i] for i in range(len(opened))]
        assert opened.weights.tolist() == [{"first": 1.0, "second": 0.5}[r["source"]] for r in lines[split]]
        assert (opened.sha256, opened.path, opened.split) == (about["sha256"], out, split)


def test_the_split_does_not_depend_on_order_or_company(tmp_path: Path) -> None:
    records = many(300)
    one = write_jsonl(tmp_path / "one.jsonl", records)
    other = write_jsonl(tmp_path / "other.jsonl", [{"extra": 1, **r} for r in records[::-1][:200]])
    prepare_conversations([str(one)], tmp_path / "a", val_fraction=0.2)
    prepare_conversations([str(other)], tmp_path / "b", val_fraction=0.2)
    a, b = ({r["messages"][0]["content"] for r in splits_of(tmp_path / x)["val"]} for x in "ab")
    assert 30 < len(a) < 90
    assert b == a - {f"Question {i}?" for i in range(100)}


def test_one_on_each_side_at_least() -> None:
    hashes = np.array([2**63, 2**63, 2**64 - 1], dtype=np.uint64)
    assert validation_mask(hashes, 0.05, "x").tolist() == [True, True, False]
    assert validation_mask(np.array([1, 2, 3], dtype=np.uint64), 0.05, "x").tolist() == [True, True, False]
    assert validation_mask(np.array([1, 2**63], dtype=np.uint64), 0.05, "x").tolist() == [True, False]


def test_again_is_done_other_is_refused_and_force_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_jsonl(tmp_path / "a.jsonl", many(60)), tmp_path / "out"
    command = ["prepare", str(path), "--kind", "conversations", "--out", str(out)]
    assert main(command) == 0
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.iterdir()}
    assert main(command) == 0 and "already prepared" in capsys.readouterr().err
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.iterdir()} == before
    assert main([*command, "--limit", "30"]) == 2
    assert "prepared otherwise (other limit)" in capsys.readouterr().err
    assert main([*command, "--limit", "30", "--force", "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert sum(split["conversations"] for split in manifest["splits"].values()) == 30
    (out / "val.jsonl").write_text("")
    assert main([*command, "--limit", "30"]) == 2
    assert "val.jsonl has 0 bytes where its manifest says" in capsys.readouterr().err


def test_a_failure_leaves_the_former_data(tmp_path: Path) -> None:
    path, out = write_jsonl(tmp_path / "a.jsonl", many(60)), tmp_path / "out"
    prepare_conversations([str(path)], out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    path.write_text(path.read_text() + "{", "utf-8")
    with pytest.raises(ValueError, match=r"a: 1 of 61 records cannot be used, .*not JSON: 1; first at .* line 61"):
        prepare_conversations([str(path)], out, force=True, max_dropped=0)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_cut_off_while_files_are_renamed(tmp_path: Path) -> None:
    path, out = write_jsonl(tmp_path / "a.jsonl", many(60)), tmp_path / "out"
    prepare_conversations([str(path)], out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    (out / ".partial").mkdir()
    for name in ("val.jsonl", "manifest.json"):
        (out / name).rename(out / ".partial" / name)
    with pytest.raises(ValueError, match="is not finished: run the same prepare command again"):
        open_conversations(out, "train")
    assert prepare_conversations([str(path)], out).status == "prepared"
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_other_people_s_files_are_left_alone(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(60))
    write_jsonl(tmp_path / "train.jsonl", many(1))
    with pytest.raises(ValueError, match="holds files that were not made here"):
        prepare_conversations([str(path)], tmp_path)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "train.bin").write_bytes(b"12")
    with pytest.raises(ValueError, match="holds text as tokens"):
        prepare_conversations([str(path)], tmp_path / "tokens", force=True)
    with pytest.raises(ValueError, match="is a file: give --out a folder"):
        prepare_conversations([str(path)], path)


def test_folders_whose_files_name_their_splits(tmp_path: Path) -> None:
    folder = tmp_path / "math"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", many(20))
    write_jsonl(folder / "test.jsonl", [{"messages": turn("T?", "T.")}])
    (folder / "readme.md").write_text("x")
    summary = prepare_conversations([str(folder)], tmp_path / "a")
    [source] = summary.manifest["sources"]
    assert (source["name"], source["train"], source["val"], source["left_out"]) == ("math", 20, 1, {".md": 1})
    with pytest.raises(ValueError, match="math has its own validation split"):
        prepare_conversations([str(folder)], tmp_path / "x", val_fraction=0.1)
    write_jsonl(folder / "validation.jsonl", [{"messages": turn("V?", "V.")}])
    summary = prepare_conversations([str(folder)], tmp_path / "b", limit=5)
    assert [r["messages"][0]["content"] for r in splits_of(tmp_path / "b")["val"]] == ["V?"]
    assert summary.manifest["sources"][0]["train"] == 5
    assert "files left out, for testing: 1" in str(summary)
    # One file by itself is divided, whatever it is called.
    assert prepare_conversations([str(folder / "train.jsonl")], tmp_path / "c").manifest["sources"][0]["val"] > 0


def test_sources_and_their_names(tmp_path: Path) -> None:
    def names(*arguments: str) -> list[tuple[str, float]]:
        return [(s.name, s.weight) for s in parse_sources(arguments, "conversations", lambda progress: None)]

    (tmp_path / "b").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.md").write_text("x")
    one, two = (str(write_jsonl(tmp_path / name, many(2))) for name in ("a.jsonl", "b/a.jsonl"))
    at = str(write_jsonl(tmp_path / "b" / "c@2", []).rename(tmp_path / "b" / "c@2.jsonl"))
    assert names("gsm8k@2", "hf:o/n:config@0.25", one, at) == [
        ("gsm8k", 2),
        ("hf:o/n:config", 0.25),
        ("a", 1),
        ("c@2", 1),
    ]
    assert names(one, two) == [(one, 1), (two, 1)]
    for arguments, sentence in (
        ([], "nothing to prepare"),
        (["gsm8k", "gsm8k@2"], "named twice"),
        ([one, str(tmp_path / "*.jsonl")], "is in two sources"),
        ([f"{one}@0"], "must be a number above 0, not 0"),
        ([f"{one}@nan"], "must be a number above 0, not nan"),
        (["gsm8"], "'gsm8' is neither a file .* did you mean 'gsm8k'"),
        (["shakespeare"], "shakespeare is a source of text, not of conversations: add --kind text"),
        (["hf:o/n#text"], "the field of hf:o/n#text would do nothing"),
        ([str(tmp_path / "*.md")], "the glob .* matches nothing"),
        (["TinyStorys"], "did you mean 'tinystories', with --kind text"),
        ([str(tmp_path / "d")], "has no file ending in .json, .jsonl"),
        ([__file__], "it has the ending .py"),
    ):
        with pytest.raises(ValueError, match=sentence):
            names(*arguments)


REFUSED = [
    (["--tokenizer", "bpe"], "--tokenizer does nothing with --kind conversations"),
    (["--vocab-size", "300"], "--vocab-size does nothing"),
    (["--pattern", "gpt2"], "--pattern does nothing"),
    (["--field", "text"], "--field does nothing"),
    (["--workers", "2"], "--workers does nothing"),
    (["--seed", "3"], "seed=3 would do nothing"),
    (["--limit", "0"], "limit must be at least 1"),
    (["--val-fraction", "0.9"], "val_fraction must be above 0"),
    (["--format", "yaml"], "no format 'yaml': choose one of messages"),
    (["--kind", "preferences", "--format", "dolly"], "no format 'dolly': choose one of ultrafeedback"),
    (["--answers", "3"], "--answers does nothing without --from RUN"),
    (["--temperature", "1"], "--temperature does nothing without --from RUN"),
    (["--from", "chat"], "the run chat would do nothing for conversations of"),
    (["--kind", "preferences", "--from", "chat"], "the run chat would do nothing for preferences of"),
    (["--kind", "stories"], "stories are hamlet's"),
    (["--kind", "text", "--format", "alpaca"], "--format does nothing with --kind text"),
    (["--kind", "text", "--from", "chat"], "--from does nothing with --kind text"),
    (["--kind", "text", "--columns", "question=a"], "--columns does nothing with --kind text"),
    (["--kind", "text", "--max-dropped", "1"], "--max-dropped does nothing with --kind text"),
    (["--columns", "question"], "--columns question is not of the form question=COLUMN,answer=COLUMN"),
    (
        ["--columns", "frage=question"],
        "--columns names frage, which no format of conversations has: choose from a, ai, answer",
    ),
    (["--val", "nothing.jsonl"], "no such file or folder: nothing.jsonl"),
]


@pytest.mark.parametrize(
    ("options", "sentence"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_options_without_effect_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(60))
    command = ["prepare", str(path), "--kind", "conversations", "--out", str(tmp_path / "out"), *options]
    assert main(command) == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_source_of_conversations_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "gsm8k"]) == 2
    assert "gsm8k is a source of conversations, not of text: add --kind conversations" in capsys.readouterr().err
    assert main(["prepare", "hh"]) == 2
    assert "hh is a source of preferences, not of text: add --kind preferences" in capsys.readouterr().err


def test_a_preset_of_a_later_stage_sets_folder_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", many(60))
    (tmp_path / "mine.yaml").write_text("stage: sft\ndata: {source: a.jsonl, path: talk}\n")
    assert main(["prepare", "--preset", "mine.yaml"]) == 0
    assert len(open_conversations(Path("talk"), "train")) > 40


def test_a_name_for_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", many(60))
    assert prepare_conversations(["a.jsonl"]).folder == Path("data/a-conversations")
    with pytest.raises(ValueError, match="have no common name"):
        prepare_conversations(["*.jsonl"])


# Exports of chat applications, and trees.


def chatgpt(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A conversation as ChatGPT exports it, these messages its current branch, with another branch beside it."""
    nodes: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": ["0"]}}
    for n, message in enumerate(messages):
        nodes[str(n)] = {
            "id": str(n),
            "parent": str(n - 1) if n else "root",
            "children": [str(n + 1)],
            "message": message,
        }
    return {"title": "T", "mapping": nodes, "current_node": str(len(messages) - 1), **more}


def said(role: str, text: str, kind: str = "text", **more: Any) -> dict[str, Any]:
    content = (
        {"content_type": kind, "text": text}
        if kind in ("code", "thoughts")
        else {"content_type": kind, "parts": [text]}
    )
    return {"author": {"role": role, "name": None}, "content": content, "recipient": "all", "weight": 1.0, **more}


def rows_of_file(path: Path, **options: Any) -> tuple[list[Any], list[str], list[str]]:
    """The conversations of a file, the reasons of dropped ones, and what is not used."""
    rows = list(read_conversations(path, **options))
    return ([row.record["messages"] for row in rows if row.record], [row.reason for row in rows if row.reason],
            sorted({name for row in rows for name in row.unused}))  # fmt: skip


HIDDEN = {"metadata": {"is_visually_hidden_from_conversation": True}}


def test_chatgpts_export_without_a_current_node_ends_with_the_latest_message(tmp_path: Path) -> None:
    first, second = (
        chatgpt(said("user", "Hi", create_time=1.0), said("assistant", "One.", create_time=2.0)) for _ in range(2)
    )
    for record, later in ((first, 3.0), (second, 1.5)):
        record["mapping"]["other"] = {"parent": "0", "message": said("assistant", "Two.", create_time=later)}
        del record["current_node"]
    third = chatgpt(said("user", "Hi"), said("assistant", "One."), current_node=None)
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([first, second, third, {"mapping": {}}, {"mapping": {"a": {"parent": "a"}}}]))
    read, reasons, unused = rows_of_file(path)
    assert read == [turn("Hi", "Two."), turn("Hi", "One."), turn("Hi", "One.")]
    assert unused == ["other branches", "title"] and len(reasons) == 2


def test_chatgpts_export_is_read_along_the_current_branch(tmp_path: Path) -> None:
    image = {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "What is this?"]}
    voice = {"content_type": "multimodal_text", "parts": [{"content_type": "audio_asset_pointer"},
                                                          {"content_type": "audio_transcription", "text": "Hi"}]}  # fmt: skip
    tool = {"author": {"role": "tool", "name": "python"}, "content": {"content_type": "execution_output", "text": "4"}}
    plain = chatgpt(
        said("system", "", **HIDDEN), said("user", "My name is Ada.", "user_editable_context", **HIDDEN), said("user", "Hi"),
        said("assistant", "hm", "thoughts"), said("assistant", "Hello."), said("assistant", "And you?"), said("user", "Bye"),
    )  # fmt: skip
    plain["mapping"]["other"] = {"parent": "2", "message": said("assistant", "Go."), "children": []}
    records = [
        plain,
        chatgpt(said("user", "2+2?"), said("assistant", "sum()", "code", recipient="python"), tool, said("assistant", "4."),
                said("user", "Sky?"), said("assistant", '{"at": "noon"}', recipient="sky"), tool, said("assistant", "Blue.")),
        chatgpt({**said("user", ""), "content": voice}, said("assistant", "No.", weight=0), said("user", "Hi"), said("assistant", "Yes.")),
        chatgpt({**said("user", ""), "content": image}, said("assistant", "A cat.")),
        chatgpt(said("narrator", "x")),
        {**chatgpt(said("user", "x")), "current_node": "lost"},
    ]  # fmt: skip
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(records), "utf-8")
    read, reasons, unused = rows_of_file(path)
    calls = [{"type": "function", "function": {"name": "python", "arguments": {"input": "sum()"}}},
             {"type": "function", "function": {"name": "sky", "arguments": {"at": "noon"}}}]  # fmt: skip
    result = {"role": "tool", "content": "4", "name": "python"}
    assert read == [
        turn("Hi", "Hello.\n\nAnd you?"),
        [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "", "tool_calls": calls[:1]}, result,
         {"role": "assistant", "content": "4."}, {"role": "user", "content": "Sky?"},
         {"role": "assistant", "content": "", "tool_calls": calls[1:]}, result, {"role": "assistant", "content": "Blue."}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No.", "weight": 0}, *turn("Hi", "Yes.")],
    ]  # fmt: skip
    assert reasons == ["media (image_asset_pointer)", "message from 'narrator'", "messages that are no tree"]
    assert unused == [
        "mapping: audio_asset_pointer",
        "mapping: thoughts",
        "mapping: user_editable_context",
        "other branches",
        "title",
    ]


def test_open_webuis_export(tmp_path: Path) -> None:
    def message(id: str, parent: str | None, role: str, content: str, **more: Any) -> dict[str, Any]:
        return {"id": id, "parentId": parent, "role": role, "content": content, **more}

    nodes = [
        message("1", None, "user", "Hi"), message("2", "1", "assistant", "Go.", annotation={"rating": -1}),
        message("3", "2", "user", "Please?", files=[{"type": "file"}]),
        message("4", "3", "assistant", '<details type="reasoning" done="true">hm</details>\nHello.', annotation={"rating": 1}),
        message("5", "4", "user", "Bye"), message("6", "5", "assistant", "", error={"content": "x"}),
        message("7", "1", "assistant", "Another."),
    ]  # fmt: skip
    chat = {
        "title": "T",
        "params": {"system": "Be kind."},
        "history": {"messages": {n["id"]: n for n in nodes}, "currentId": "6"},
    }
    image = {
        "messages": [
            {"role": "user", "content": "x", "files": [{"type": "image"}]},
            {"role": "assistant", "content": "y"},
        ]
    }
    shown = {"messages": [*turn("x", '<details type="tool_calls">...</details>')]}
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([{"id": "a", "chat": chat}, {"chat": image}, {"chat": shown}, {"chat": 3}]), "utf-8")
    read, reasons, unused = rows_of_file(path)
    assert read == [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
                     {"role": "assistant", "content": "Go.", "weight": 0}, *turn("Please?", "Hello.")]]  # fmt: skip
    assert reasons == ["media (field 'files')", "tool call that is only shown", "the field 'chat' is not an object"]
    assert unused == ["chat: failed answer", "chat: files", "chat: reasoning", "id", "other branches"]


def test_claudes_export_names_what_it_leaves_out(tmp_path: Path) -> None:
    answer = {
        "sender": "assistant",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes."}],
    }
    used = {"sender": "assistant", "content": [{"type": "tool_use", "name": "w"}]}
    asked = {"sender": "human", "text": "Hi", "attachments": [{"file_name": "a.txt"}]}
    path = write_jsonl(tmp_path / "a.jsonl", [{"chat_messages": [asked, answer]}, {"chat_messages": [asked, used]}])
    read, reasons, unused = rows_of_file(path)
    assert (read, reasons) == ([turn("Hi", "Yes.")], ["tool call that is only shown"])
    assert unused == ["chat_messages: files", "chat_messages: thinking"]


def flat_tree() -> list[dict[str, Any]]:
    """A tree as single messages, out of order, one without its parent and two that are each other's."""

    def message(id: str, parent: str | None, role: str, text: str, **more: Any) -> dict[str, Any]:
        return {
            "message_id": id,
            "parent_id": parent,
            "role": role,
            "text": text,
            "rank": None,
            "deleted": False,
            "lang": "en",
            **more,
        }

    return [
        message("b", "a", "assistant", "Second.", rank=1), message("a", None, "prompter", "Hi"),
        message("c", "a", "assistant", "First.", rank=0), message("d", "a", "assistant", "Bad.", deleted=True),
        message("e", "c", "prompter", "More?"), message("f", "e", "assistant", "More."),
        message("g", "c", "prompter", "Less?"), message("h", "g", "assistant", "Less."),
        message("i", "c", "prompter", "Nobody?"), message("x", "lost", "assistant", "x"),
        message("y", "z", "assistant", "y"), message("z", "y", "prompter", "z"), message("j", None, "prompter", "Alone?"),
    ]  # fmt: skip


def nested(records: list[dict[str, Any]], id: str) -> dict[str, Any]:
    [node] = [record for record in records if record["message_id"] == id]
    return {**node, "replies": [nested(records, r["message_id"]) for r in records if r["parent_id"] == id]}


BRANCHES = [
    [*turn("Hi", "First."), *turn("More?", "More.")],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "First.", "weight": 0},
        *turn("Less?", "Less."),
    ],
]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_trees_give_their_best_answers_once(tmp_path: Path, ending: str) -> None:
    records, path = flat_tree(), tmp_path / f"a{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        write_jsonl(path, records)
    rows = list(read_conversations(path))
    assert [row.record["messages"] for row in rows if row.record] == BRANCHES
    lost = "message whose parent is not in the file"
    assert Counter(row.reason for row in rows if row.reason) == {lost: 3, "answer of a lower rank": 1, "no answer": 1}
    assert [row.intended for row in rows if row.reason == "answer of a lower rank"] == [True]
    assert Counter(name for row in rows for name in row.unused) == {"lang": len(records)}
    trees = [{"message_tree_id": id, "tree_state": "ready", "prompt": nested(records, id)} for id in ("a", "j")]
    path = write_jsonl(tmp_path / "trees.jsonl", trees)
    assert rows_of_file(path) == (BRANCHES, ["answer of a lower rank", "no answer"], ["tree_state"])


# Tables and archives.


QUESTIONS = "".join(f'"Where is house {n}?","By bridge {n}."\n' for n in range(30))


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("question,answer", None),
        ("\ufeff Question ,ANSWER", None),
        ("Prompt,Response", None),
        ("instruction,output", None),
        ("input,output", None),
        ("Q,A", None),
        ("user,assistant", None),
        ("Frage,Antwort", "question=Frage,answer=antwort"),
        ("Where is it?,There.", "question=1,answer=2"),
        ("Wo?,Da.", "prompt=1,completion=2"),
    ],
)
def test_a_table_of_questions_and_answers(tmp_path: Path, header: str, columns: str | None) -> None:
    path = tmp_path / "qa.csv"
    path.write_text(f"{header}\n{QUESTIONS}", "utf-8")
    summary = prepare_conversations([str(path)], tmp_path / "out", columns=columns)
    records = [r["messages"] for half in splits_of(tmp_path / "out").values() for r in half]
    assert turn("Where is house 7?", "By bridge 7.") in records
    numbered = columns is not None and "1" in columns
    assert len(records) == 30 + numbered and summary.manifest["sources"][0]["dropped"] == {}
    prompts = prepare_conversations([str(path)], tmp_path / "p", kind="prompts", columns=columns)
    assert sum(split["prompts"] for split in prompts.manifest["splits"].values()) == 30 + numbered
    line = json.loads((tmp_path / "p" / "train.jsonl").read_text("utf-8").splitlines()[-1])
    assert set(line) == {"prompt", "answer", "source"} and line["answer"] == "By bridge 29."


def test_a_table_whose_columns_are_unknown_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "qa.csv"
    path.write_text(f"Frage,Antwort,Nummer\n{QUESTIONS}".replace('"\n', '",7\n'), "utf-8")
    command = ["prepare", str(path), "--kind", "conversations", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert (
        "row 2 has the fields frage, antwort, nummer, which no format has; name its columns with --columns" in printed
    )
    assert "question=COLUMN,answer=COLUMN, by numbers from 1 if it has no header" in printed
    assert main([*command, "--columns", "question=Frage,answer=Antwort"]) == 0
    assert "fields not used: nummer (30)" in capsys.readouterr().err
    assert main([*command, "--force", "--columns", "question=Frage,answer=Nix"]) == 2
    assert "has no field 'nix'" in capsys.readouterr().err
    nested = write_jsonl(tmp_path / "n.jsonl", [{"t": {"q": f"Q{n}", "a": f"A{n}"}, "id": n} for n in range(30)])
    assert (
        main(["prepare", str(nested), *command[2:-1], str(tmp_path / "n"), "--columns", "question=t.q,answer=t.a"]) == 0
    )
    assert splits_of(tmp_path / "n")["train"][0]["messages"] == turn("Q0", "A0")


def test_messages_written_as_json_in_a_cell(tmp_path: Path) -> None:
    lines = ["messages"] + [json.dumps(json.dumps(turn(f"Say {n}", f"{n}."))).replace('\\"', '""') for n in range(4)]
    (tmp_path / "a.csv").write_text("\n".join(lines), "utf-8")
    assert rows_of_file(tmp_path / "a.csv")[0] == [turn(f"Say {n}", f"{n}.") for n in range(4)]


def test_archives_of_conversations(tmp_path: Path) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in many(30))
    export = json.dumps([chatgpt(said("user", f"Hi {n}"), said("assistant", "Hello.")) for n in range(30)])
    members = {"user.json": '{"id": "u"}', "chat.html": "<html>", "conversations.json": export, "a/talks.jsonl.gz": gzip.compress(lines.encode()),
               "README.md": "x", "bad.jsonl": "{", "inner.zip": zipped({"more.csv": "question,answer\nA?,B.\n"})}  # fmt: skip
    (tmp_path / "export.zip").write_bytes(zipped(members))
    (tmp_path / "export.tar.gz").write_bytes(tarred(members, "w:gz"))
    for name in ("export.zip", "export.tar.gz"):
        out = tmp_path / f"out-{name}"
        summary = prepare_conversations([str(tmp_path / name)], out)
        [source] = summary.manifest["sources"]
        assert source["train"] + source["val"] == 61 and source["dropped"] == {}
        assert source["left_out"] == {".html": 1, ".md": 1, "without conversations": 1}
        assert len(source["failed"]) == 1 and "bad.jsonl line 1 is not JSON" in source["failed"][0]
        assert "not read to its end" in str(summary) and "files left out, without conversations: 1" in str(summary)
    (tmp_path / "none.zip").write_bytes(zipped({"user.json": '{"id": "u"}'}))
    with pytest.raises(ValueError, match=r"user\.json line 1 has the fields id, which no format has"):
        prepare_conversations([str(tmp_path / "none.zip")], tmp_path / "x")
    (tmp_path / "page.zip").write_bytes(zipped({"a.html": "<html>"}))
    with pytest.raises(ValueError, match=r"page\.zip holds no file of records: they end in \.json"):
        prepare_conversations([str(tmp_path / "page.zip")], tmp_path / "x")
    (tmp_path / "out.zip").write_bytes(zipped({"../a.jsonl": lines}))
    with pytest.raises(ValueError, match="path leads out of the archive"):
        prepare_conversations([str(tmp_path / "out.zip")], tmp_path / "x")


def test_a_bad_file_among_others_does_not_stop_them(tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", many(30))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(many(1)[0]).encode() * 9000)[:-20])
    write_jsonl(folder / "c.jsonl", [{"body": "x"}])
    summary = prepare_conversations([str(folder)], tmp_path / "out")
    [source] = summary.manifest["sources"]
    assert source["train"] + source["val"] == 30 and source["left_out"] == {"without conversations": 1}
    assert len(source["failed"]) == 1 and "damaged or cut-off gzip file" in source["failed"][0]
    (folder / "a.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"talks has no conversations to train on \(.*c.jsonl line 1 has the fields body"
    ):
        prepare_conversations([str(folder)], tmp_path / "x")


# Validation files.


@pytest.mark.parametrize("kind", ["conversations", "preferences", "prompts"])
def test_files_for_validation_beside_every_kind_of_source(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    def record(n: int) -> dict[str, Any]:
        sides = {"chosen": f"Yes {n}.", "rejected": "No."} if kind == "preferences" else {"completion": f"Yes {n}."}
        return {"prompt": f"Question {n}?", **sides}

    hub.repos["o/n"] = {MAIN: {"data/train-0.parquet": table_of([record(n) for n in range(100, 120)])}}
    train = write_jsonl(tmp_path / "train.jsonl", [record(n) for n in range(30)])
    held = write_jsonl(tmp_path / "held.jsonl", [record(n) for n in (3, 200, 201)])
    options = {"kind": kind, "validation": [str(held)], "cache": tmp_path / "cache", "endpoint": hub.url}
    summary = prepare_conversations([str(train), "hf:o/n", "hamlet"], tmp_path / "out", limit=30, **options)
    counts = {s["name"]: (s["train"], s["val"]) for s in summary.manifest["sources"]}
    assert counts == {"train": (29, 0), "hf:o/n": (20, 0), "hamlet": (30, 0), "validation": (0, 3)}
    noun = "conversation" if kind == "conversations" else "prompt"
    assert summary.manifest["sources"][0]["dropped"] == {f"{noun} that is for validation": 1}
    assert len(splits_of(tmp_path / "out")["val"]) == 3
    assert (
        prepare_conversations([str(train), "hf:o/n", "hamlet"], tmp_path / "out", limit=30, **options).status
        == "already prepared"
    )
    command = ["prepare", str(train), "--kind", kind, "--val", str(held), "--out", str(tmp_path / "b")]
    assert main(command) == 0 and main([*command[:-1], str(tmp_path / "b"), "--val-fraction", "0.1"]) == 2
    assert "train has its own validation split" in capsys.readouterr().err
    assert main(["prepare", str(held), "--kind", kind, "--val", str(held), "--out", str(tmp_path / "c")]) == 2
    assert "every file is for validation" in capsys.readouterr().err
    folder = prepare_conversations([str(tmp_path / "*.jsonl")], tmp_path / "d", **options).manifest["sources"]
    assert [(s["train"], s["val"]) for s in folder] == [(29, 0), (0, 3)], "the glob names it too"


def test_named_datasets_leave_their_own_validation_split_out(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["openai/gsm8k"] = {
        MAIN: {"main/train-0.parquet": rows_of(["a", "b"]), "main/test-0.parquet": rows_of(["d"])}
    }
    held = write_jsonl(tmp_path / "held.jsonl", many(2))
    summary = prepare_conversations(
        ["gsm8k"], tmp_path / "out", validation=[str(held)], cache=tmp_path / "cache", endpoint=hub.url
    )
    assert hub.fetched == ["main/train-0.parquet"]
    assert [(s["name"], s["train"], s["val"]) for s in summary.manifest["sources"]] == [
        ("gsm8k", 2, 0),
        ("validation", 0, 2),
    ]


def test_files_given_one_by_one_keep_the_splits_of_their_names(tmp_path: Path) -> None:
    paths = [str(write_jsonl(tmp_path / f"{name}.jsonl", [{"messages": turn(f"{name} {n}?", "Yes.")} for n in range(9)]))
             for name in ("train", "validation", "test")]  # fmt: skip
    summary = prepare_conversations(paths, tmp_path / "a")
    assert [(s["name"], s["train"], s["val"]) for s in summary.manifest["sources"]] == [
        ("train", 9, 0),
        ("validation", 0, 9),
    ]
    assert summary.manifest["sources"][0]["left_out"] == {"for testing": 1}
    counts = prepare_conversations(["hamlet", *paths[::2]], tmp_path / "b", limit=5).manifest["sources"]
    assert [(s["name"], s["train"], s["val"]) for s in counts] == [("hamlet", 5, 5), ("train", 5, 0), ("test", 0, 5)]
    other = str(write_jsonl(tmp_path / "talks.jsonl", many(30)))
    mixed = prepare_conversations([paths[0], paths[2], other], tmp_path / "c").manifest["sources"]
    assert all(s["train"] for s in mixed), "one name tells nothing, so none does"


# Hamlet.


@pytest.mark.parametrize("kind", ["conversations", "preferences", "prompts"])
def test_hamlet_writes_every_kind_with_its_own_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    from understudy.hamlet.write import write_lines

    command = ["prepare", "hamlet", "--kind", kind, "--limit", "10", "--seed", "5", "--out", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert (manifest["kind"], manifest["seed"]) == (kind, 5)
    assert {split: about[kind] for split, about in manifest["splits"].items()} == {"train": 10, "val": 10}
    for split, lines in splits_of(tmp_path / "out").items():
        expected = [json.loads(line) for line in write_lines(kind, 5, split, 10)]  # type: ignore[arg-type]
        assert lines == [{**record, "source": "hamlet"} for record in expected]
    assert main(command) == 0 and "already prepared" in capsys.readouterr().err
    command[command.index("5")] = "6"
    assert main(command) == 2 and "prepared otherwise (other sources)" in capsys.readouterr().err
    assert main([*command, "--val-fraction", "0.1"]) == 2
    assert "hamlet has its own validation split" in capsys.readouterr().err
    path = tmp_path / "out" / "train.jsonl"
    if kind == "preferences":
        again = prepare_conversations([str(path)], tmp_path / "again", kind=kind).manifest["sources"]
        assert again[0]["dropped"] == {}


def test_hamlet_beside_files(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(60))
    summary = prepare_conversations([f"{path}@3", "hamlet"], tmp_path / "out", limit=40, val_fraction=0.2)
    opened = open_conversations(tmp_path / "out", "val")
    counts = [source["val"] for source in summary.manifest["sources"]]
    assert counts[1] == 40 and opened.weights.tolist() == [3.0] * counts[0] + [1.0] * 40
    assert "turns" in opened[len(opened) - 1]


# For the trainer.


def test_a_single_file_is_divided(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(200))
    train, val = (open_conversations(path, split) for split in ("train", "val"))
    assert len(train) + len(val) == 200 and 2 <= len(val) <= 25
    together = [r["messages"][0]["content"] for r in (*train, *val)]
    assert sorted(together) == sorted(f"Question {i}?" for i in range(200))
    assert train.weights.tolist() == [1.0] * len(train)
    assert train.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    prepare_conversations([str(path)], tmp_path / "out")
    assert [r["messages"] for r in open_conversations(tmp_path / "out", "val")] == [r["messages"] for r in val]
    assert len(open_conversations(write_jsonl(tmp_path / "b.jsonl", many(2)), "val")) == 1


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            ['{"instruction": "x", "output": "y"}'],
            "line 1 has no messages but the fields instruction, output: `understudy prepare",
        ),
        (['{"messages": [{"role": "user", "content": "x"}]}'], r"line 1 cannot be trained on \(no answer\): remove it"),
        (['{"messages": [{"role": "x", "content": "x"}]}'], "line 1 is no conversation to train on: message from 'x'"),
        (["", "{"], "line 2 is not JSON"),
        ([], "has 0 different conversations: 2 are needed"),
    ],
)
def test_a_single_file_that_cannot_be_trained_on(tmp_path: Path, lines: list[str], sentence: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=sentence):
        open_conversations(path, "train")


def test_things_that_are_no_conversations(tmp_path: Path, char_data: Path) -> None:
    with pytest.raises(ValueError, match=r"there are no conversations at .*nothing: make them with"):
        open_conversations(tmp_path / "nothing", "train")
    with pytest.raises(ValueError, match="holds no prepared conversations"):
        open_conversations(tmp_path, "train")
    with pytest.raises(ValueError, match="holds text as tokens, not conversations"):
        open_conversations(char_data, "train")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"is no \.jsonl file"):
        open_conversations(tmp_path / "a.json", "train")
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        open_conversations(tmp_path, "train")


# The hub.


def rows_of(texts: list[str]) -> bytes:
    return table_of([{"question": text, "answer": f"{text}\n#### 1"} for text in texts])


def table_of(records: list[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(records)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def test_named_datasets_come_with_their_splits(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["openai/gsm8k"] = {
        MAIN: {
            "main/train-00000-of-00001.parquet": rows_of(["a", "b", "c"]),
            "main/test-00000-of-00001.parquet": rows_of(["d"]),
            "socratic/train-00000-of-00001.parquet": rows_of(["e"]),
        }
    }
    summary = prepare_conversations(["gsm8k@2"], tmp_path / "out", cache=tmp_path / "cache", endpoint=hub.url)
    lines = splits_of(tmp_path / "out")
    assert [r["messages"][0]["content"] for r in lines["train"]] == ["a", "b", "c"]
    assert lines["val"] == [{"messages": turn("d", "d\nThe answer is 1."), "source": "gsm8k"}]
    [source] = summary.manifest["sources"]
    assert source["revision"] == MAIN and [part["split"] for part in source["parts"]] == ["train", "val"]
    hub.repos.clear()
    again = prepare_conversations(["gsm8k@2"], tmp_path / "out", endpoint=hub.url)
    assert again.status == "already prepared", "what is done needs no network"


def test_any_dataset_by_name_is_divided_and_moved_files_are_noticed(hub: FakeHub, tmp_path: Path) -> None:
    texts = rows_of([f"q{i}" for i in range(50)])
    hub.repos["o/n"] = {MAIN: {"a.tar": b""}, CONVERTED: {"default/train/0000.parquet": texts}}
    summary = prepare_conversations(["hf:o/n"], tmp_path / "out", val_fraction=0.3, cache=tmp_path, endpoint=hub.url)
    assert sum(split["conversations"] for split in summary.manifest["splits"].values()) == 50
    hub.repos["openai/gsm8k"] = {MAIN: {"a.tar": b""}, CONVERTED: {"default/train/0000.parquet": texts}}
    with pytest.raises(ValueError, match=r"openai/gsm8k no longer has files like main/train-\*\.parquet"):
        prepare_conversations(["gsm8k"], tmp_path / "x", cache=tmp_path, endpoint=hub.url)
    assert not (tmp_path / "x").exists()
    assert all(name in NAMED for name in ("gsm8k", "squad_v2", "dolly", "alpaca", "ultrachat", "hamlet"))


# Real data.


def test_gsm8k(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "gsm8k"
    if not folder.is_dir():
        pytest.skip("UNDERSTUDY_TEST_DATA has no gsm8k/")
    summary = prepare_conversations([str(folder)], tmp_path / "out")
    assert {k: v["conversations"] for k, v in summary.manifest["splits"].items()} == {"train": 7473, "val": 1319}
    for record, line in zip(open_conversations(tmp_path / "out", "val"), (folder / "test.jsonl").open(), strict=True):
        question, answer = record["messages"]
        given = json.loads(line)
        assert question["content"] == given["question"].strip()
        assert "<<" not in answer["content"] and "####" not in answer["content"]
        number = given["answer"].split("####")[1].strip().replace(",", "")
        assert answer["content"].endswith(f"\nThe answer is {number}.")


def test_seed_tasks(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "seed_tasks.jsonl"
    if not path.is_file():
        pytest.skip("UNDERSTUDY_TEST_DATA has no seed_tasks.jsonl")
    tasks = [json.loads(line) for line in path.open()]
    summary = prepare_conversations([str(path)], tmp_path / "out")
    assert sum(v["conversations"] for v in summary.manifest["splits"].values()) == len(tasks) == 175
    records = [r for split in ("train", "val") for r in open_conversations(tmp_path / "out", split)]
    questions = {record["messages"][0]["content"] for record in records}
    assert tasks[0]["instruction"] in questions
    assert f"{tasks[1]['instruction']}\n\n{tasks[1]['instances'][0]['input']}" in questions
