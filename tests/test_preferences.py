"""Preferences: every format becomes pairs, no prompt is on both sides, and written pairs are read back unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.cli import main
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.preferences import (
    FORMATS,
    MOST_ANSWERS,
    Pair,
    PreferenceComparison,
    open_preferences,
    read_preferences,
)
from understudy.data.chat.prepare import prepare_conversations
from understudy.data.request import parse_sources


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": [user(prompt)], "chosen": [says(chosen)], "rejected": [says(rejected)], **more}


def rated(prompt: str, chosen: str, rejected: str, high: float, low: float) -> dict[str, Any]:
    tie = {"tie": True} if high == low else {}
    return pair(prompt, chosen, rejected, rating_chosen=high, rating_rejected=low, **tie)


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def read(tmp_path: Path, *records: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The pairs in a file of these records, and why others were dropped."""
    rows = list(read_preferences(write_jsonl(tmp_path / "a.jsonl", list(records))))
    return [row.record for row in rows if row.record], [row.reason for row in rows if row.reason]


def many(n: int) -> list[dict[str, Any]]:
    """`n` pairs, two to a prompt."""
    return [pair(f"Question {i // 2}?", f"Good {i}.", "Bad.") for i in range(n)]


ASKED = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Who\nare you?\n\nAssistant: "
GREETED = [user("Hi"), says("Hello."), user("Who\nare you?")]
READ: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("pairs", pair(" Hi ", "Hello.", "Go.", tie=True, annotator="a", note=3),
     [pair("Hi", "Hello.", "Go.", tie=True, annotator="a", note=3)]),
    ("pairs", {"prompt": "Hi", "chosen": " Hello.", "rejected": "Go."}, [pair("Hi", "Hello.", "Go.")]),
    ("pairs", {"prompt": "Hi", "chosen": [user("Hi "), says("Yes.")], "rejected": [user("Hi"), says("No.")]},
     [pair("Hi", "Yes.", "No.")]),
    ("binarized", {"prompt": "Hi", "prompt_id": "7", "chosen": [user("Hi"), says("Yes.")], "score_chosen": 8.5,
                   "rejected": [user("Hi"), says("No.")], "score_rejected": 6.0, "messages": [user("Hi"), says("Yes.")]},
     [rated("Hi", "Yes.", "No.", 8.5, 6.0)]),
    ("binarized", {"prompt": "Hi", "chosen": "Yes.", "rejected": "No.", "score_chosen": 5.0, "score_rejected": 5.0},
     [rated("Hi", "Yes.", "No.", 5.0, 5.0)]),
    ("hh", {"chosen": ASKED + "A robot.", "rejected": ASKED + "None of your concern."},
     [{"prompt": GREETED, "chosen": [says("A robot.")], "rejected": [says("None of your concern.")]}]),
    ("hh", {"chosen": [user("Hi"), says("Yes."), user("More"), says("Yes!")], "rejected": [user("Hi"), says("No.")]},
     [{"prompt": [user("Hi")], "chosen": [says("Yes."), user("More"), says("Yes!")], "rejected": [says("No.")]}]),
    ("ultrafeedback", {"source": "flan", "instruction": "Hi", "models": ["x", "y"], "completions": [
        {"model": "x", "response": "No.", "overall_score": 6.0, "fine-grained_score": 3.0},
        {"model": "y", "response": "Yes.", "overall_score": 8.0, "fine-grained_score": 2.0},
        {"model": "z", "response": "Eh.", "overall_score": None, "fine-grained_score": 6.0},
    ]}, [rated("Hi", "Yes.", "No.", 8.0, 6.0), rated("Hi", "No.", "Eh.", 6.0, 6.0), rated("Hi", "Yes.", "Eh.", 8.0, 6.0)]),
    ("scored", {"prompt": [user("Hi")], "category": "hello", "answers": [
        {"text": "Yes.", "score": 1}, {"text": "No.", "score": 3},
    ]}, [rated("Hi", "No.", "Yes.", 3, 1) | {"category": "hello"}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "expected"), READ)
def test_every_format(tmp_path: Path, name: str, record: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert next(row.name for row in FORMATS.values() if row.fits(record)) == name
    assert read(tmp_path, record, record) == (expected * 2, [])
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    assert [row.record for row in read_preferences(tmp_path / "a.parquet")] == expected


def test_every_format_was_tried() -> None:
    gathered = {name for name, row in FORMATS.items() if row.gather}
    assert {name for name, _, _ in READ} | gathered | {"oasst"} == set(FORMATS)


def test_judgements_of_single_answers_become_pairs(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "Hi", "completion": "No.", "label": False}, {"prompt": "Bye", "completion": "Bye.", "label": True},
        {"prompt": "Hi", "completion": [says("Yes.")], "label": True, "id": 1}, {"prompt": "Hi", "completion": "Go.", "label": 0},
        {"prompt": [user("Hi")], "completion": "Yes.", "label": "true", "system": "Be kind."},
        {"prompt": "Hi", "completion": "Yes.", "label": True}, {"prompt": "Hi", "completion": "Eh.", "label": "maybe"},
        {"prompt": "Hi", "completion": "Old.", "label": True, "weight": 0},
    ]  # fmt: skip
    rows = list(read_preferences(write_jsonl(tmp_path / "a.jsonl", records)))
    assert [row.record for row in rows if row.record] == [pair("Hi", "Yes.", "No."), pair("Hi", "Yes.", "Go.")]
    unpaired = "no answer with the other label to the same prompt"
    assert [row.reason for row in rows if row.reason] == [
        "label that is not true or false", "weight 0", "answer given twice", unpaired, unpaired
    ]  # fmt: skip
    assert [name for row in rows for name in row.unused] == ["id"]
    many = [{"prompt": f"{n // 2}?", "completion": f"{n}", "label": n % 2 == 0} for n in range(80)]
    summary = prepare_conversations(
        [str(write_jsonl(tmp_path / "b.jsonl", many))], tmp_path / "out", kind="preferences"
    )
    assert sum(split["preferences"] for split in summary.manifest["splits"].values()) == 40
    alone = write_jsonl(tmp_path / "c.jsonl", many[::2])
    with pytest.raises(ValueError, match=rf"c has no preferences to train on \({unpaired}: 40"):
        prepare_conversations([str(alone)], tmp_path / "x", kind="preferences")


def test_ranked_answers_of_a_tree_become_pairs(tmp_path: Path) -> None:
    from test_conversation_data import flat_tree, nested

    flat = [
        *flat_tree(),
        {"message_id": "k", "parent_id": "a", "role": "assistant", "text": "Third.", "rank": 2, "lang": ""},
    ]
    expected = [pair("Hi", "First.", "Second."), pair("Hi", "First.", "Third."), pair("Hi", "Second.", "Third.")]
    rows = list(read_preferences(write_jsonl(tmp_path / "a.jsonl", flat)))
    assert [row.record for row in rows if row.record] == expected
    tree = {"message_tree_id": "a", "prompt": nested(flat, "a")}
    pairs, reasons = read(tmp_path, tree)
    assert pairs == expected and reasons == ["fewer than two ranked answers"] * 3


def test_answers_that_differ_in_their_calls_are_different(tmp_path: Path) -> None:
    def calls(name: str) -> list[dict[str, Any]]:
        function = {"name": name, "arguments": {}}
        return [says("") | {"tool_calls": [{"type": "function", "function": function}]}]

    record = {"prompt": "Hi", "chosen": calls("a"), "rejected": calls("b"), "tools": [{"name": "a"}]}
    [found], reasons = read(tmp_path, record)
    assert reasons == [] and found["chosen"] == calls("a") and found["prompt"][0]["tools"][0]["function"]["name"] == "a"
    assert read(tmp_path, record | {"rejected": calls("a")})[1] == ["chosen equals rejected"]
    lines = [{key: found[key] for key in ("prompt", "chosen", "rejected")}, pair("Other?", "A", "B")]
    opened = [open_preferences(write_jsonl(tmp_path / "b.jsonl", lines), split) for split in ("train", "val")]
    assert {len(comparison.answers) for half in opened for comparison in half} == {2}


DROPPED: list[tuple[dict[str, Any], list[str]]] = [
    (pair("Hi", "Yes. ", "Yes."), ["chosen equals rejected"]),
    (pair("Hi", " ", "Yes."), ["empty answer"]),
    (pair(" ", "Yes.", "No."), ["empty message"]),
    ({"prompt": None, "chosen": "Yes.", "rejected": "No."}, ["no prompt"]),
    (pair("Hi", "Yes.", "No.") | {"rejected": []}, ["no answer"]),
    (pair("Hi", "Yes.", "No.") | {"prompt": [user("Hi"), says("Hm.")]}, ["turns out of order"]),
    (pair("Hi", "Yes.", "No.") | {"chosen": [says("Yes."), user("Why?")]}, ["turns out of order"]),
    (pair("Hi", "Yes.", "No.") | {"chosen": [user("Bye"), says("Yes.")]}, ["answer to another prompt"]),
    (pair("Hi", "Yes.", "No.", rating_chosen=1, rating_rejected=2), ["rated the other way round"]),
]
HH_DROPPED: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hm\n\nAssistant: No."},
        ["no common prompt"],
    ),
    ({"chosen": ASKED, "rejected": ASKED + "x"}, ["empty answer"]),
    ({"chosen": ASKED + "x", "rejected": ASKED + "x"}, ["chosen equals rejected"]),
]
SCORED_DROPPED: list[tuple[dict[str, Any], list[str]]] = [
    ({"prompt": "Hi", "answers": [{"text": "a", "score": 1}]}, ["fewer than two answers"]),
    ({"prompt": "Hi", "answers": [{"text": "a", "score": 1}, {"text": "", "score": 1}, {"text": "b"},
                                  {"text": "a ", "score": 2}]},
     ["empty answer", "answer without a score", "answer given twice", "fewer than two answers"]),
]  # fmt: skip


@pytest.mark.parametrize("cases", [DROPPED, HH_DROPPED, SCORED_DROPPED], ids=["pairs", "hh", "scored"])
def test_dropped_pairs_have_a_reason(tmp_path: Path, cases: list[tuple[dict[str, Any], list[str]]]) -> None:
    for record, reasons in cases:
        assert read(tmp_path, record) == ([], reasons)


def test_a_ranking_is_all_its_pairs_up_to_a_number_of_answers(tmp_path: Path) -> None:
    answers = [{"text": f"Answer {i}", "score": i} for i in range(12)]
    pairs, reasons = read(tmp_path, {"prompt": "Hi", "answers": answers})
    assert len(pairs) == MOST_ANSWERS * (MOST_ANSWERS - 1) // 2 == 36
    assert reasons == ["answer after the first 9"] * 3
    assert all(item["rating_chosen"] > item["rating_rejected"] for item in pairs)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (
            {"body": "x"},
            "line 1 has the fields body, which no format has; name its fields with --columns FIELD=NAME; the formats are ultrafeedback",
        ),
        (
            {"chosen": "Hi", "rejected": "x"},
            "no preferences to train on .the field 'chosen' does not begin with 'Human:'",
        ),
        (pair("x", "y", "z") | {"prompt": 3}, "'prompt' is neither text nor a list of messages but a number"),
        (pair("x", "y", "z") | {"prompt": [{"role": "x", "content": "y"}]}, "message from 'x'"),
        (pair("x", "y", "z", tie="yes"), "the field 'tie' is not true or false but a string"),
        (pair("x", "y", "z", rating_chosen=3), "there is a rating of one answer alone"),
        (pair("x", "y", "z", rating_chosen="3", rating_rejected=1), "'rating_chosen' is not a number but a string"),
        (pair("x", "y", "z", truth=[1]), r"'truth' is not of the form \[score of chosen, score of rejected\]"),
        ({"prompt": "x", "answers": ["y"]}, "the field 'answers' is not a list of objects"),
        ({"instruction": "x", "completions": [{"response": [3]}]}, "the field 'response' is not text but a list"),
    ],
)
def test_files_without_preferences_are_refused_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], sentence: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [record])
    with pytest.raises(ValueError, match=sentence):
        prepare_conversations([str(path)], tmp_path / "out", kind="preferences")
    assert not (tmp_path / "out").exists()
    assert main(["prepare", str(path), "--kind", "preferences", "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


# The folder.


def prompts_in(folder: Path) -> list[set[str]]:
    files = [folder / f"{split}.jsonl" for split in ("train", "val")]
    return [{json.dumps(json.loads(line)["prompt"]) for line in file.read_text("utf-8").splitlines()} for file in files]


def test_a_folder_is_divided_by_prompt_and_counts_dropped_pairs(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*many(200), pair("Q", "Same.", "Same.")])
    other = write_jsonl(tmp_path / "b.jsonl", [{"chosen": f"\n\nHuman: Question {i}?\n\nAssistant: Yes.",
                                                "rejected": f"\n\nHuman: Question {i}?\n\nAssistant: No."}
                                               for i in range(100)])  # fmt: skip
    summary = prepare_conversations([str(path), str(other)], tmp_path / "out", kind="preferences", val_fraction=0.3)
    assert summary.manifest["sources"][0]["dropped"] == {"chosen equals rejected": 1}
    assert "dropped, chosen equals rejected: 1" in str(summary)
    train, val = prompts_in(tmp_path / "out")
    assert len(train) + len(val) == 100 and 15 < len(val) < 45 and not train & val
    opened = [open_preferences(tmp_path / "out", split) for split in ("train", "val")]
    assert [len(item) for item in opened] == [len(train), len(val)]
    assert sum(item.pairs for item in opened) == 300
    assert all(len(comparison.pairs) == 3 for item in opened for comparison in item), (
        "lines of both files come together"
    )
    with pytest.raises(ValueError, match="holds preferences: prepare it with --kind conversations"):
        open_conversations(tmp_path / "out", "train")


def test_no_prompt_is_on_both_sides_even_where_files_name_their_splits(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", many(20))
    write_jsonl(folder / "test.jsonl", [pair("Question 3?", "Good.", "Bad."), pair("New?", "Good.", "Bad.")])
    summary = prepare_conversations([str(folder)], tmp_path / "out", kind="preferences")
    train, val = prompts_in(tmp_path / "out")
    assert (len(train), len(val)) == (9, 2) and not train & val
    [source] = summary.manifest["sources"]
    assert (source["train"], source["val"], source["dropped"]) == (18, 2, {"prompt that is for validation": 2})
    assert open_preferences(tmp_path / "out", "train").pairs == 18


def test_names_and_weights(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(40))
    for sources, sentence in (
        (["gsm8k"], "gsm8k is a source of conversations, not of preferences: add --kind conversations"),
        (["ultrafedback"], "did you mean 'ultrafeedback'"),
        ([f"{path}@2"], r"the weight of .*a.jsonl would do nothing: an epoch shows preferences once; leave @2 out"),
    ):
        with pytest.raises(ValueError, match=sentence):
            prepare_conversations(sources, tmp_path / "out", kind="preferences")
    known = parse_sources(["hh", "hf:o/n"], "preferences", lambda progress: None)
    assert [source.name for source in known] == ["hh", "hf:o/n"]


# For the trainer.


def test_lines_of_one_prompt_come_together(tmp_path: Path) -> None:
    lines = [
        pair("First?", "A", "B", rating_chosen=5, rating_rejected=3.5, truth=[1, 0], category="sum"),
        pair("Second?", "A", "B"),
        pair("First?", "C", "A", rating_chosen=2, rating_rejected=2, tie=True),
        pair("First?", "B", "A", annotator="hasty"),
    ]
    opened = [open_preferences(write_jsonl(tmp_path / "a.jsonl", lines), split) for split in ("train", "val")]
    by_prompt = {item.prompt[0]["content"]: item for half in opened for item in half}
    answers = tuple((says(text),) for text in "ABC")
    pairs = (Pair(0, 1, 1.5, False), Pair(2, 0, 0.0, True), Pair(1, 0, 0.0, False))
    assert by_prompt["First?"] == PreferenceComparison((user("First?"),), answers, pairs, "sum", (1.0, 0.0, None))
    assert by_prompt["Second?"] == PreferenceComparison(
        (user("Second?"),), answers[:2], (Pair(0, 1, 0.0, False),), "", (None, None)
    )
    assert [len(half) for half in opened] == [1, 1] and sorted(half.pairs for half in opened) == [1, 3]
    assert [half[0] for half in opened] == [next(iter(half)) for half in opened]


def test_a_single_file_is_divided_as_a_folder_is_and_in_order(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", many(200))
    prepare_conversations([str(path)], tmp_path / "out", kind="preferences")
    for split in ("train", "val"):
        of_file, of_folder = open_preferences(path, split), open_preferences(tmp_path / "out", split)
        assert list(of_file) == list(of_folder) and (of_file.path, of_file.split) == (path, split)
        numbers = [int(item.prompt[0]["content"].split()[1][:-1]) for item in of_file]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([{"prompt": "x", "answers": []}], "line 1 has no chosen but the fields prompt, answers: `understudy prepare"),
        (
            [{"prompt": "x", "chosen": "y", "rejected": "z"}],
            "line 1 is no preference to train on: the field 'prompt' is not a list of",
        ),
        ([pair("x", "y", "y")], r"line 1 cannot be trained on \(chosen equals rejected\): remove it"),
        (many(2), "has 1 different prompts: 2 are needed"),
    ],
)
def test_a_file_that_cannot_be_trained_on(tmp_path: Path, records: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_preferences(write_jsonl(tmp_path / "a.jsonl", records), "train")


def test_hamlets_own_pairs_have_their_truth(tmp_path: Path) -> None:
    prepare_conversations(["hamlet"], tmp_path / "out", kind="preferences", limit=60)
    opened = open_preferences(tmp_path / "out", "train")
    truths = [tuple(item.truths[number] for number in (p.chosen, p.rejected)) for item in opened for p in item.pairs]
    assert len(truths) == opened.pairs == 60
    assert set(truths) == {(1.0, 0.0), (0.0, 1.0)} and truths.count((0.0, 1.0)) < 20, "annotators err now and then"
    assert all(item.category for item in opened)
