"""Nothing of a record is lost silently: every format with every field that could change its meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from test_conversation_data import turn, write_jsonl
from understudy.cli import main
from understudy.config.load import load_config
from understudy.config.stages import STAGES
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.formats import read_formatted
from understudy.data.chat.messages import MEDIA_FIELDS, STRAY_FIELDS, SYSTEM_FIELDS, TOOLS_FIELDS
from understudy.data.chat.packing import render_set
from understudy.data.chat.prepare import KINDS, prepare_conversations
from understudy.tokenizer import train_tokenizer
from understudy.tokenizer.chat import render, with_chat_tokens

RECORDS: dict[str, dict[str, dict[str, Any]]] = {
    "conversations": {
        "messages": {"messages": turn("Hi", "Hello.")},
        "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        "squad": {"context": "C", "question": "Hi", "answers": {"text": ["Hello."]}},
        "seed-tasks": {"instruction": "Hi", "instances": [{"input": "", "output": "Hello."}]},
        "dolly": {"instruction": "Hi", "context": "", "response": "Hello."},
        "alpaca": {"instruction": "Hi", "input": "", "output": "Hello."},
        "gsm8k": {"question": "Hi", "answer": "One. #### 1"},
        "question-answer": {"question": "Hi", "answer": "Hello."},
        "pairs": {"prompt": "Hi", "completion": "Hello."},
        "chatgpt": {"mapping": {"a": {"parent": None, "message": None}, "b": {"parent": "a", "message": {
            "author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Hi"]}}}, "c": {"parent": "b", "message": {
            "author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["Hello."]}}}}, "current_node": "c"},
        "open-webui": {"chat": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}},
        "claude": {"chat_messages": [{"sender": "human", "text": "Hi"}, {"sender": "assistant", "text": "Hello."}]},
        "oasst": {"message_tree_id": "1", "prompt": {"role": "prompter", "text": "Hi", "replies": [
            {"role": "assistant", "text": "Hello."}]}},
        "function-calls": {"query": "Hi", "answers": [{"name": "w", "arguments": {}}], "tools": "[]"},
    },
    "preferences": {
        "ultrafeedback": {"instruction": "Hi", "completions": [
            {"response": "Hello.", "overall_score": 2.0}, {"response": "No.", "overall_score": 1.0}]},
        "scored": {"prompt": "Hi", "answers": [{"text": "Hello.", "score": 2.0}, {"text": "No.", "score": 1.0}]},
        "binarized": {"prompt": "Hi", "chosen": "Hello.", "rejected": "No.", "score_chosen": 2.0, "score_rejected": 1.0},
        "pairs": {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."},
        "hh": {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
        "oasst": {"message_tree_id": "1", "prompt": {"role": "prompter", "text": "Hi", "replies": [
            {"role": "assistant", "text": "Hello.", "rank": 0}, {"role": "assistant", "text": "No.", "rank": 1}]}},
    },
    "judgements": {
        "kto": {"prompt": "Hi", "completion": "Hello.", "label": True},
        "pairs": {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."},
    },
    "prompts": {"prompts": {"prompt": "Hi", "answer": "Hello."}},
}  # fmt: skip
RECORDS["prompts"] |= RECORDS["conversations"]
FORMATS = {name: kind.formats for name, kind in KINDS.items()}
EVERY = [(kind, name) for kind, formats in FORMATS.items() for name, row in formats.items() if row.gather is None]
"""Formats of one record a line; those that gather several are in test_conversation_data.py and test_preferences.py."""
ASKED = {"conversations": "messages", "preferences": "prompt", "judgements": "prompt", "prompts": "prompt"}
HISTORY = [["Where?", "Here."], ["When?", "Now."]]
EARLIER = [*turn("Where?", "Here."), *turn("When?", "Now.")]


def read(tmp_path: Path, kind: str, name: str, **fields: Any) -> tuple[list[Any], list[str], tuple[str, ...]]:
    """The messages of a record with these further fields, the reasons where it is dropped, and its unused fields."""
    path = write_jsonl(tmp_path / "a.jsonl", [RECORDS[kind][name] | fields])
    rows = list(read_formatted(KINDS[kind], path, name))
    if (kind, name) == ("judgements", "pairs"):  # a record is two judgements of the same prompt
        rows = rows[:1]
    unused = tuple(field for row in rows for field in row.unused)
    return [row.record[ASKED[kind]] for row in rows if row.record], [row.reason for row in rows if row.reason], unused


def test_every_format_is_in_the_table() -> None:
    assert {kind: set(records) for kind, records in RECORDS.items()} == {
        kind: {name for name, row in formats.items() if row.gather is None} for kind, formats in FORMATS.items()
    }


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_fields_that_change_the_meaning_are_used(tmp_path: Path, kind: str, name: str) -> None:
    [plain], _, unused = read(tmp_path, kind, name)
    assert unused == ()
    for field in SYSTEM_FIELDS:
        [messages], _, unused = read(tmp_path, kind, name, **{field: "Be brief."})
        assert messages == [{"role": "system", "content": "Be brief."}, *plain] and unused == ()
    for history in (HISTORY, EARLIER):
        [messages], _, unused = read(tmp_path, kind, name, system="Be brief.", history=history)
        assert messages == [{"role": "system", "content": "Be brief."}, *EARLIER, *plain] and unused == ()
    for field, value in (("label", True), ("weight", 1), ("system", " "), ("history", []), ("tools", "[]")):
        [messages], reasons, unused = read(tmp_path, kind, name, **{field: value})
        assert messages == plain and not reasons and unused == ()
    for field in (*TOOLS_FIELDS, "chat_template_kwargs"):
        given = {"xml_tools": [json.dumps({"name": "w"})]} if field == "chat_template_kwargs" else [{"name": "w"}]
        [messages], reasons, unused = read(
            tmp_path, kind, name, **{field: given, "tools" if field == "functions" else "x": []}
        )
        assert messages == [{"role": "system", "content": "", "tools": [WEATHER_TOOL]}, *plain] and unused == ()


WEATHER_TOOL = {"type": "function", "function": {"name": "w"}}


REFUSED = [
    ({"label": False}, "label false"),
    ({"label": "False"}, "label false"),
    ({"weight": 0}, "weight 0"),
    ({"weight": 0.5}, "weight of a record other than 0 and 1"),
    ({"history": "yesterday"}, "'history' is not a list of pairs"),
    ({"system": {"text": "x"}}, "'system' is not text"),
    ({"system": "x", "system_prompt": "y"}, "two different system messages"),
    *(({field: [{"name": "w"}]}, "tool call outside of a message") for field in STRAY_FIELDS),
    ({"tools": [{"description": "x"}]}, "list of tools that cannot be read"),
    (
        {"tools": [{"name": "w"}], "chat_template_kwargs": {"custom_instructions": 3}, "history": 3},
        "'history' is not a list",
    ),
    *(({field: ["a.png"]}, "media") for field in MEDIA_FIELDS),
]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_fields_that_cannot_be_used_drop_the_record_by_their_name(tmp_path: Path, kind: str, name: str) -> None:
    for fields, reason in REFUSED:
        if kind == "judgements" and "label" in fields:
            continue  # which is what they say
        rows, reasons, _ = read(tmp_path, kind, name, **fields)
        assert rows == [] and len(reasons) == 1 and reason in reasons[0], (fields, reasons)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_other_fields_are_counted(tmp_path: Path, kind: str, name: str) -> None:
    _, _, unused = read(tmp_path, kind, name, id="7", topic="x", empty=None)
    assert unused == ("id", "topic")


def says(content: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function", "function": {"name": "w", "arguments": {"a": 1}}}
MESSAGES: list[tuple[list[dict[str, Any]], list[dict[str, Any]] | str]] = [
    ([{"role": "developer", "content": "Be brief."}, USER, says("Yes.")],
     [{"role": "system", "content": "Be brief."}, USER, says("Yes.")]),
    ([{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, says("Yes.")],
     [USER, says("Yes.")]),
    ([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes."}], [USER, says("Yes.")]),
    ([USER, says("No.", weight=0), USER, says("Yes.", weight=1)], [USER, says("No.", weight=0), USER, says("Yes.")]),
    ([USER, says("No.", train=False), USER, says("Yes.")], [USER, says("No.", weight=0), USER, says("Yes.")]),
    ([USER, says(3)], [USER, says("3")]),
    ([USER, says("No.", weight=0)], "every answer has weight 0"),
    ([USER, says("No.", weight=0.5)], "weight of a message other than 0 and 1"),
    ([USER, says(None, tool_calls=[{"id": "c", "type": "function", "function": {"name": "w", "arguments": '{"a": 1}'}}]),
      {"role": "tool", "tool_call_id": "c", "name": "w", "content": "x"}, says("Yes.")],
     [USER, says("", tool_calls=[{"id": "c", **CALL}]), {"role": "tool", "content": "x", "name": "w", "tool_call_id": "c"},
      says("Yes.")]),
    ([USER, says(None, function_call={"name": "w", "arguments": {"a": 1, "b": None}})], [USER, says("", tool_calls=[CALL])]),
    ([USER, {"role": "function_call", "content": '{"name": "w", "parameters": {"a": 1}}'},
      {"role": "observation", "content": {"sun": True}}, says("Yes.")],
     [USER, says("", tool_calls=[CALL]), {"role": "tool", "content": '{"sun": true}'}, says("Yes.")]),
    ([{"role": "system", "content": "", "tools": '[{"name": "w"}]'}, USER, says("Yes.")],
     [{"role": "system", "content": "", "tools": [WEATHER_TOOL]}, USER, says("Yes.")]),
    ([USER, says(None, tool_calls=[{"id": "c"}])], "tool call without a name"),
    ([USER, {"role": "function_call", "content": "{}"}, {"role": "observation", "content": "x"}], "tool call without a name"),
    ([USER, says(None, function_call={"name": "w", "arguments": "sun"})], "arguments are no JSON object"),
    ([USER | {"tool_calls": [{"name": "w"}]}, says("Yes.")], "tool call in a message of the user"),
    ([USER | {"tools": [{"name": "w"}]}, says("Yes.")], "list of tools in a message of the user"),
    ([USER, says("Wait."), {"role": "observation", "content": "x"}], "turns out of order"),
    ([USER | {"content": {"a": 1}}, says("Yes.")], "'content' is not text but an object"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, says("Yes.")], "parts that are no text"),
    ([USER, says("Yes."), {"role": "narrator", "content": "x"}], "message from 'narrator'"),
]  # fmt: skip


@pytest.mark.parametrize("field", ["messages", "conversations"])
@pytest.mark.parametrize(("messages", "expected"), MESSAGES)
def test_messages_however_they_are_spelled(
    tmp_path: Path, field: str, messages: list[dict[str, Any]], expected: list[dict[str, Any]] | str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{field: messages}])
    [row] = read_formatted(KINDS["conversations"], path)
    if isinstance(expected, str):
        assert row.record is None and expected in row.reason
    else:
        assert row.record is not None and row.record["messages"] == expected


def test_keys_of_messages_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [USER | {"name": "Ada"}, says("Yes.", reasoning="x")]}])
    [row] = read_formatted(KINDS["conversations"], path)
    assert row.unused == ("messages.name", "messages.reasoning")


def test_calls_of_a_prepared_conversation_are_trained(tmp_path: Path) -> None:
    tool = {"name": "sky", "parameters": {"type": "object"}}
    records = [
        {"messages": [{"role": "user", "content": f"{n}?"}, says(None, function_call={"name": "sky", "arguments": f'{{"n": {n}}}'}),
                      {"role": "function", "name": "sky", "content": "blue"}, says("It is blue.")],
         "functions": [tool], "system": "Be brief."}
        for n in range(30)
    ]  # fmt: skip
    [source] = prepare_conversations([str(write_jsonl(tmp_path / "a.jsonl", records))], tmp_path / "out").manifest[
        "sources"
    ]
    assert source["dropped"] == {} and source["unused_fields"] == {}
    opened = open_conversations(tmp_path / "out", "train")
    tokenizer = with_chat_tokens(train_tokenizer("bpe", ["user assistant system tool"] * 9, 270))
    rows = render_set([opened[0]["messages"]], tokenizer, 1000)
    assert tokenizer.decode(rows.tokens[rows.mask].tolist()) == (
        '<tool_call>\n{"name": "sky", "arguments": {"n": 0}}\n</tool_call><|im_end|>It is blue.<|im_end|>'
    )
    text = tokenizer.decode(rows.tokens.tolist())
    assert text.startswith('<|im_start|>system\nBe brief.\n\nTools:\n{"type": "function", "function": {"name": "sky"')
    assert "<|im_start|>tool\nblue<|im_end|>" in text


def test_an_answer_with_weight_0_is_masked() -> None:
    tokenizer = with_chat_tokens(train_tokenizer("bpe", ["user assistant system"] * 9, 270))
    messages = [USER, says("No.", weight=0), USER, says("Yes.", weight=1)]
    rendered = render(tokenizer, messages)
    assert tokenizer.decode([t for t, m in zip(rendered.tokens, rendered.mask) if m]) == "Yes.<|im_end|>"
    rows = render_set([messages], tokenizer, 200)
    assert int(rows.mask.sum()) == sum(rendered.mask)
    with pytest.raises(ValueError, match="message 2 has the weight 2"):
        render(tokenizer, [USER, says("No.", weight=2)])


def test_one_bad_row_never_stops_all_and_each_reason_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [{"messages": turn(f"Question {i}?", f"Answer {i}."), "id": i} for i in range(12)]
    bad = [
        {"instruction": "x", "output": "y"},
        {"messages": "hello"},
        {"messages": [USER, says(None, tool_calls=[{"id": "c"}])]},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", [bad[0], *good, *bad[1:]])
    out = tmp_path / "out"
    assert main(["prepare", str(path), "--kind", "conversations", "--format", "messages", "--out", str(out)]) == 0
    shown = capsys.readouterr().err
    [source] = json.loads((out / "manifest.json").read_text())["sources"]
    assert source["train"] + source["val"] == 12 and sum(source["dropped"].values()) == 3
    assert source["unused_fields"] == {"id": 11} or source["unused_fields"] == {"id": 12}
    for reason, count in source["dropped"].items():
        assert f"dropped, {reason}: {count}" in shown
    assert "fields not used: id (1" in shown and "tool call without a name" in source["dropped"]
    assert f"dropped, tool call without a name: 1 (first: {path} line 15)" in shown
    assert source["dropped_at"]["tool call without a name"] == [f"{path} line 15"]
    write_jsonl(path, bad[2:])
    assert main(["prepare", str(path), "--kind", "conversations", "--out", str(tmp_path / "none")]) == 2
    sentence = f"a has no conversations to train on (tool call without a name: 1; first at {path} line 1)"
    assert sentence in capsys.readouterr().err


def test_a_single_file_is_read_with_the_same_care(tmp_path: Path) -> None:
    records = [{"messages": turn(f"{i}?", "Yes."), "system": "Be brief."} for i in range(40)]
    opened = open_conversations(write_jsonl(tmp_path / "a.jsonl", records), "train")
    assert opened[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    records[7]["label"] = False
    with pytest.raises(ValueError, match="line 8 is no conversation to train on: label false"):
        list(open_conversations(write_jsonl(tmp_path / "a.jsonl", records), "train"))


def test_fields_kept_beside_messages_do_not_repeat_the_context(tmp_path: Path) -> None:
    records = [{"messages": turn(f"{i}?", "Yes."), "system": "Be brief.", "note": i} for i in range(40)]
    prepare_conversations([str(write_jsonl(tmp_path / "a.jsonl", records))], tmp_path / "out")
    first = json.loads((tmp_path / "out" / "train.jsonl").read_text("utf-8").splitlines()[0])
    assert set(first) == {"messages", "note", "source"}
    again = prepare_conversations([str(tmp_path / "out" / "train.jsonl")], tmp_path / "again").manifest["sources"][0]
    assert again["dropped"] == {}


def test_every_preset_prepares_the_kind_of_data_that_its_stage_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import understudy
    from understudy.commands import data

    kinds: dict[str, str] = {}
    monkeypatch.setattr(data, "_prepare_text", lambda arguments, config: kinds.update({name: "text"}))
    monkeypatch.setattr(data, "_prepare_conversations", lambda arguments: kinds.update({name: arguments.kind}))
    names = sorted(path.stem for path in (Path(understudy.__file__).parent / "presets").glob("*.yaml"))
    prepared = []
    for name in names:
        config = load_config(name)
        if config.data.source is None:
            continue
        assert main(["prepare", "--preset", name]) == 0
        assert kinds[name] == STAGES[config.stage].data
        prepared.append(config.stage)
    assert {"pretrain", "sft", "reward", "dpo", "ppo", "grpo"} <= set(prepared)
