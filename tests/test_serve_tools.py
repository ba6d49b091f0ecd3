"""Tools and forms of answers through the official client of OpenAI: choices, streams, templates of other models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

pytest.importorskip("llguidance", reason="constrained decoding needs the extra structured")

from foreign_tokenizers import small_folder
from serving import client, make_run, served_run, serving, small_tokenizer
from test_chat_templates import GENERATION, TOOLS
from test_constraint import accepts
from understudy.feedback.store import FeedbackStore
from understudy.inference import constraint
from understudy.serve.openai.schemas import ChatRequest
from understudy.serve.openai.tools import ToolCallReader, tool_constraint
from understudy.serve.served import Served
from understudy.tokenizer import Tokenizer, load_tokenizer
from understudy.tokenizer.tool_calls import tool_call_format

ASKED: Any = [{"role": "user", "content": "Who found the purse?"}]
FIND: Any = {
    "type": "function",
    "function": {
        "name": "find", "description": "Find a thing.", "strict": True,
        "parameters": {
            "type": "object", "properties": {"deep": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
            "required": ["deep", "n"], "additionalProperties": False,
        },
    },
}  # fmt: skip
REST: Any = {"type": "function", "function": {"name": "rest", "description": None}}


@pytest.fixture(scope="module")
def api(store: FeedbackStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    run = make_run(tmp_path_factory.mktemp("runs") / "tiny", context_length=1024)
    with serving(Served({"tiny": served_run(run)}, store)) as url:
        yield client(url)


def chat(api: OpenAI, **options: Any) -> Any:
    return api.chat.completions.create(**{"model": "tiny", "messages": ASKED, "max_tokens": 300, "seed": 3} | options)


def test_a_required_call_has_valid_arguments(api: OpenAI, store: FeedbackStore) -> None:
    seen = set()
    answer = chat(api, tools=[FIND, REST], tool_choice="required", parallel_tool_calls=False, n=6)
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        [call] = choice.message.tool_calls
        arguments = json.loads(call.function.arguments)
        seen.add(call.function.name)
        if call.function.name == "find":
            assert list(arguments) == ["deep", "n"] and arguments["n"] in (1, 2, 3)
        else:
            assert arguments == {}
    assert store.answer(answer.id.removeprefix("chatcmpl-")) is None, "the store holds texts"
    assert seen == {"find", "rest"}


def test_a_named_function_is_called_once(api: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "rest"}}
    answer = chat(api, tools=[FIND, REST], tool_choice=choice)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["rest"]


def test_a_stream_has_the_same_calls_in_pieces(api: OpenAI) -> None:
    """Each call begins with its id and name, and its arguments follow."""
    options = {"tools": [FIND, REST], "tool_choice": "required", "n": 6, "max_tokens": 160, "temperature": 0.5}
    calls: list[dict[int, list[str]]] = [{} for _ in range(6)]
    reasons = [""] * 6
    for chunk in chat(api, **options, stream=True):
        [choice] = chunk.choices
        reasons[choice.index] = choice.finish_reason
        for piece in choice.delta.tool_calls or ():
            pieces = calls[choice.index].setdefault(piece.index, [])
            if not pieces:
                assert piece.id and piece.type == "function" and piece.function.arguments == ""
                pieces.append(piece.function.name)
            else:
                assert piece.id is None and piece.function.name is None
                pieces.append(piece.function.arguments)
    whole = chat(api, **options).choices
    expected = [[[c.function.name, c.function.arguments] for c in choice.message.tool_calls] for choice in whole]
    assert [[[name, "".join(more)] for name, *more in each.values()] for each in calls] == expected
    assert reasons == [choice.finish_reason for choice in whole] and "tool_calls" in reasons
    assert max(map(len, expected)) > 1, "an answer may have several calls"


def test_the_clients_own_helpers_read_the_answers(api: OpenAI) -> None:
    class Place(BaseModel):
        name: bool
        levels: list[bool]

    parsed = api.chat.completions.parse(
        model="tiny", messages=ASKED, response_format=Place, max_tokens=300, seed=1, temperature=0.5
    )
    assert isinstance(parsed.choices[0].message.parsed, Place)
    with api.chat.completions.stream(
        model="tiny", messages=ASKED, tools=[FIND], tool_choice="required", max_tokens=300, seed=2
    ) as stream:
        kinds = {each.type for each in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments["n"] in (1, 2, 3)  # type: ignore[index,call-overload]


def test_results_of_tools_are_given_to_the_model(api: OpenAI, store: FeedbackStore) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"deep": true, "n": 1}'}}
    turns = [
        {"role": "system", "content": "Be kind."}, *ASKED, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "under the bridge"},
    ]  # fmt: skip
    answer = chat(api, messages=turns, tools=[FIND], tool_choice="none", max_tokens=5)
    assert answer.choices[0].message.tool_calls is None
    record = store.answer(answer.id.removeprefix("chatcmpl-"))
    assert record is not None
    assert record.prompt[2]["tool_calls"][0]["function"] == {"name": "find", "arguments": {"deep": True, "n": 1}}
    assert record.prompt[3] == {"role": "tool", "content": "under the bridge", "tool_call_id": "c1", "name": "find"}
    assert "tools" not in record.prompt[0]
    unread = chat(api, messages=turns, max_tokens=5).usage.prompt_tokens
    assert chat(api, messages=turns, tools=[FIND], max_tokens=5).usage.prompt_tokens > unread + 20


def test_an_answer_that_is_cut_has_what_was_written(api: OpenAI) -> None:
    answer = chat(api, tools=[FIND], tool_choice="required", max_tokens=45)
    assert answer.choices[0].finish_reason == "length"
    for call in answer.choices[0].message.tool_calls or ():
        assert '{"deep": '.startswith(call.function.arguments[:9])


def test_json_without_a_schema(api: OpenAI) -> None:
    for seed in range(3):
        answer = chat(api, response_format={"type": "json_object"}, max_tokens=900, temperature=0, seed=seed)
        choice = answer.choices[0]
        assert choice.message.content.startswith("{")
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)


JSON_SCHEMA = {"name": "x", "schema": {"type": "object"}}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function"}]}, "tools.0.function is missing"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tools": [FIND, FIND]}, "two functions of the same name"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}]}, 'type "object"'),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"$ref": "x:y"}}}]}, ""),
    ({"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(200)]}, "tools: "),
    ({"tool_choice": "required"}, "tool_choice is required; give tools"),
    ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}, "tools": [FIND]}, "none of the tools"),
    ({"tool_choice": "sometimes", "tools": [FIND]}, "tool_choice"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format has a json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "hat"}}}}, "hat"),
    ({"response_format": {"type": "json_object"}, "tools": [FIND]}, "beside tools"),
    ({"messages": [*ASKED, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}, *ASKED]},
     "not the text of a JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_a_mistake_with_tools_is_named(api: OpenAI, options: dict[str, Any], message: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(api, **options)
    assert message in refused.value.body["message"]  # type: ignore[index]
    assert (refused.value.param or "").split(".")[0] in options


def test_without_the_library_one_sentence_says_what_to_install(api: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint.importlib.util, "find_spec", lambda name: None)
    for options in ({"response_format": {"type": "json_object"}}, {"tools": [FIND]}):
        with pytest.raises(openai.BadRequestError, match=r"pip install 'understudy\[structured\]'"):
            chat(api, **options)
    assert chat(api, tools=[FIND], tool_choice="none", response_format={"type": "text"}, max_tokens=3).choices


LLAMA = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
    {%- if loop.first and tools %}{%- for tool in tools %}{{- tool | tojson }}{{- '\\n\\n' }}{%- endfor %}{%- endif %}
    {%- if message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception('one call at once') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", ' }}{{- '"parameters": ' }}{{- call.arguments | tojson }}{{- '}' }}
    {%- else %}{{- message.content | trim }}{%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
MISTRAL = """\
{{- bos_token }}
{%- if tools %}{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{- '[INST] ' + message.content + ' [/INST]' }}
    {%- elif message.tool_calls %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {%- if call.id | length != 9 %}{{- raise_exception('ids have nine characters') }}{%- endif %}
            {{- '{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}{{- ', ' }}{%- endif %}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif message.role == 'assistant' %}{{- ' ' + message.content + eos_token }}
    {%- elif message.role == 'tool' %}{{- '[TOOL_RESULTS] ' + message.content + '[/TOOL_RESULTS]' }}{%- endif %}
{%- endfor %}
"""
FIRST, SECOND = '{"deep": true, "n": 2}', '{"deep": false, "n": 1}'
HERMES_CALL = '<tool_call>\n{{"name": "find", "arguments": {}}}\n</tool_call>'
MISTRAL_CALL = '{{"name": "find", "arguments": {}, "id": "a1b2c3d4e"}}'
WRITTEN = {  # answers with one call and with two, and texts that are no call
    "ours": (
        HERMES_CALL.format(FIRST), HERMES_CALL.format(FIRST) + "\n" + HERMES_CALL.format(SECOND),
        ["Sam", "", "a {\"name\": \"find\"} b", "<tool", "<|im_end|>"],
    ),
    "qwen": (
        HERMES_CALL.format(FIRST), HERMES_CALL.format(FIRST) + "\n" + HERMES_CALL.format(SECOND), ["Sam", "", "< tool_call>"],
    ),
    "llama": (f'{{"name": "find", "parameters": {FIRST}}}', None, ["Sam", "", 'Sam {"name": "find"}']),
    "mistral": (
        f"[TOOL_CALLS] [{MISTRAL_CALL.format(FIRST)}]",
        f"[TOOL_CALLS] [{MISTRAL_CALL.format(FIRST)}, {MISTRAL_CALL.format(SECOND)}]", ["Sam", "", '[{"name": "find"'],
    ),
}  # fmt: skip


def tokenizer_of(name: str, folder: Path) -> Tokenizer:
    if name == "ours":
        return small_tokenizer()
    if name == "mistral":
        tokenizer = load_tokenizer(small_folder("metaspace", folder, MISTRAL))
        return tokenizer.with_special_tokens(["[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"])
    return load_tokenizer(
        small_folder("qwen" if name == "qwen" else "llama3", folder, TOOLS if name == "qwen" else LLAMA)
    )


def request(**options: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": ASKED, "tools": [FIND, REST]} | options)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_chat_template_tells_how_calls_are_written(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(name, tmp_path)
    one, two, texts = WRITTEN[name]
    form, auto = tool_constraint(tokenizer, request())
    assert accepts(auto, tokenizer, one)
    assert all(accepts(auto, tokenizer, text) for text in texts)
    assert not accepts(auto, tokenizer, one.replace('"n": 2', '"n": 7'))
    assert not accepts(auto, tokenizer, one.replace("find", "lose"))
    assert (two is None) == (form.separator is None)
    if two is not None:
        assert accepts(auto, tokenizer, two)
        _, single = tool_constraint(tokenizer, request(parallel_tool_calls=False))
        assert not accepts(single, tokenizer, two)
        if name in ("ours", "qwen"):
            assert accepts(auto, tokenizer, "Sam\n" + one)
    _, required = tool_constraint(tokenizer, request(tool_choice="required"))
    assert accepts(required, tokenizer, one) and not accepts(required, tokenizer, "Sam")


@pytest.mark.parametrize("name", WRITTEN)
def test_calls_are_read_from_text_however_it_comes(name: str, tmp_path: Path) -> None:
    form = tool_call_format(tokenizer_of(name, tmp_path))
    one, two, texts = WRITTEN[name]
    tricky = '{"s": "a\\"}] \\\\", "l": [{"x": {}}]}'
    written = [(one, "", [FIRST]), (one.replace(FIRST, tricky), "", [tricky])] + [(text, text, []) for text in texts]
    if two is not None:
        written += [(two, "", [FIRST, SECOND])]
    if name in ("ours", "qwen"):
        written += [("Sam.\n" + one, "Sam.", [FIRST]), (one[:60], "", [FIRST[: 60 - one.index("{", 20)]])]
    for text, content, arguments in written:
        for size in (1, 3, 1000):
            reader = ToolCallReader(form)
            parts = [text[place : place + size] for place in range(0, len(text), size)]
            pieces = [piece for part in parts for piece in reader.push(part)] + list(reader.push("", last=True))
            assert (reader.content, [call.arguments for call in reader.calls]) == (content, arguments), (text, size)
            assert "".join(text for number, text in pieces if number is None) == content
            assert {call.name for call in reader.calls} <= {"find"}
            begun = [number for number, text in pieces if number is not None and not text]
            assert begun == list(range(len(arguments)))


def test_templates_without_tools_or_of_another_form_are_refused(tmp_path: Path) -> None:
    plain = load_tokenizer(small_folder("qwen", tmp_path / "a", GENERATION))
    with pytest.raises(ValueError, match="writes no list of tools"):
        tool_constraint(plain, request())
    other = load_tokenizer(small_folder("qwen", tmp_path / "b", TOOLS.replace('"name"', '"function"')))
    with pytest.raises(ValueError, match="in a form that this server does not read"):
        tool_constraint(other, request())
