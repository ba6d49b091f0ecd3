"""Chat templates of other projects: ids as in transformers, masks as by hand, refusals, and finetuning by them.

The templates here are written for these tests, each with what published ones do; those of SmolLM2 are read from
UNDERSTUDY_TEST_MODELS.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from align_runs import saved_run
from foreign_tokenizers import real_models, small_folder
from understudy.cli import main
from understudy.config.model import ModelConfig
from understudy.data.chat.packing import render_set
from understudy.data.chat.pair_rows import encode_completion, encode_preferences
from understudy.data.chat.preferences import Pair, PreferenceComparison
from understudy.model import build_model
from understudy.run import load_run
from understudy.tokenizer import Tokenizer, load_tokenizer, sandbox
from understudy.tokenizer.base import token_texts
from understudy.tokenizer.chat import (
    CHAT_TEMPLATE,
    Message,
    RefusedConversation,
    chat_template,
    end_ids,
    fit,
    read_template,
    render,
    render_each,
    speaks_chat,
    with_chat_template,
    with_chat_tokens,
)

DEFAULT_SYSTEM = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
You are made for tests<|im_end|>
' }}{% endif %}{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
HEADERS = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set rules = messages[0].content | trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set rules = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nDate: 26 Jul 2024\\n\\n' + rules + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
THINKING = """\
{%- set ns = namespace(last=0) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set thought, said = '', message.content %}
        {%- if '</think>' in said %}
            {%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set said = said.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last %}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}
        {{- said + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
INSTRUCTIONS = """\
{%- if messages[0].role == 'system' %}
    {%- set rules, turns = messages[0].content + '\\n\\n', messages[1:] %}
{%- else %}
    {%- set rules, turns = '', messages %}
{%- endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + (rules if loop.last or loop.index0 == turns | length - 2 else '') + message.content.strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message.content.strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""
TURNS = """\
{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if message.role == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message.role %}{% endif %}
{{ '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""
GENERATION = """\
{% for message in messages %}
{% if message.role == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}

{% else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}{% if loop.index > 99 %}{% break %}{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""
TEMPLATES = {  # and the tokenizer of each
    "default system": (DEFAULT_SYSTEM, "digits"),
    "headers": (HEADERS, "llama3"),
    "thinking": (THINKING, "qwen"),
    "instructions": (INSTRUCTIONS, "prepend"),
    "instructions, metaspace": (INSTRUCTIONS, "metaspace"),
    "turns": (TURNS, "gemma"),
    "generation": (GENERATION, "qwen"),
}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


@pytest.fixture(scope="module", params=TEMPLATES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with a template, here and in transformers."""
    template, name = TEMPLATES[request.param]
    return both(small_folder(name, tmp_path_factory.mktemp("template"), template))


def both(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast.from_pretrained(folder)

    def apply(messages: list[Message], reply: bool) -> list[int] | None:
        from jinja2 import TemplateError

        try:
            return list(other.apply_chat_template(messages, add_generation_prompt=reply, return_dict=False))
        except TemplateError:
            return None

    return load_tokenizer(folder), apply


def made(name: str, folder: Path) -> Tokenizer:
    template, tokenizer = TEMPLATES[name]
    return load_tokenizer(small_folder(tokenizer, folder, template))


def talks(count: int) -> list[list[Message]]:
    drawn = random.Random(3)
    pieces = [
        "Sam",
        " has",
        " it.",
        "\n",
        "  ",
        "é",
        "数",
        "🙂",
        "12",
        "<|",
        "\u00a0",
        "<think>",
        "</think>",
        "a\n\n",
        "'s",
        "{{ x }}",
    ]

    def content() -> str:
        return "".join(drawn.choice(pieces) for _ in range(drawn.randrange(9)))

    conversations = []
    for _ in range(count):
        turns = [(user, assistant)[n % 2](content()) for n in range(drawn.randrange(1, 6))]
        conversations.append([system(content())] * drawn.randrange(2) + turns)
    return conversations


def compare(ours: Tokenizer, theirs: Any, count: int) -> None:
    rendered = 0
    for messages in talks(count):
        for reply in (False, True):
            if not reply or messages[-1]["role"] == "user":
                expected = theirs(messages, reply)
                try:
                    tokens = render(ours, messages, reply).tokens
                except RefusedConversation:
                    tokens = None
                assert tokens == expected, messages
                rendered += tokens is not None
    assert rendered > count / 3


def test_the_ids_are_those_of_transformers(pair: Any) -> None:
    compare(*pair, 60)


def test_the_ids_of_smollm2_are_those_of_transformers() -> None:
    ours, theirs = both(real_models("smollm2-hf"))
    compare(ours, theirs, 60)
    shown = marked(ours, [user("Hi"), assistant("Hello.")])
    assert shown.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained")
    assert shown.endswith("<|im_start|>assistant\n«Hello.<|im_end|>»\n")


# ---- the loss mask ---------------------------------------------------------------------------------------


def marked(tokenizer: Tokenizer, messages: list[Message]) -> str:
    """The text with what is trained on in brackets."""
    rendered = render(tokenizer, messages)
    pieces = zip(token_texts(tokenizer, rendered.tokens), rendered.mask, strict=True)
    return "".join(f"«{piece}»" if trained else piece for piece, trained in pieces).replace("»«", "")


TALK = [user(" Hi "), assistant(" Hello\n"), user("And?"), assistant("Bye.")]
MASKS = {
    "default system": (
        "<|im_start|>system\nYou are made for tests<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
        "<|im_start|>assistant\n« Hello\n<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n"
        "<|im_start|>assistant\n«Bye.<|im_end|>»\n"
    ),
    "headers": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nDate: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "«Hello<|eot_id|>»<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Bye.<|eot_id|>»"
    ),
    "thinking": (  # the last answer as it is sampled: with an empty thought
        "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n« Hello\n<|im_end|>»\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nBye.<|im_end|>»\n"
    ),
    "instructions": "<s> [INST] Hi [/INST]« Hello </s>» [INST] And? [/INST]« Bye. </s>»",
    "instructions, metaspace": "<s>[INST] Hi [/INST]« Hello </s>»[INST] And? [/INST]« Bye. </s>»",
    "turns": (
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n«Hello<end_of_turn>»\n"
        "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n«Bye.<end_of_turn>»\n"
    ),
    "generation": (
        "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n« Hello\n<|im_end|>»\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«Bye.<|im_end|>»\n"
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_mask_is_from_the_prompts_end_to_the_end_token(name: str, tmp_path: Path) -> None:
    ours = made(name, tmp_path)
    assert marked(ours, TALK).replace(" <s>", "<s>") == MASKS[name]
    assert marked(ours, [*TALK[:3], {**TALK[3], "weight": 0}]).count("«") == 1
    assert "«" not in marked(ours, TALK[:1])


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_trained_is_what_the_model_sees_and_writes(name: str, tmp_path: Path) -> None:
    """The prompt of each last answer is a beginning of its row, and the mask begins there and ends with an end token."""
    ours = made(name, tmp_path)
    for messages in talks(60):
        messages = [{**message, "content": message["content"].strip()} for message in messages]  # as data has them
        if messages[-1]["role"] == "assistant" and not isinstance(
            render_each(ours, [messages])[0], RefusedConversation
        ):
            prompt, whole = render(ours, messages[:-1], reply=True).tokens, render(ours, messages)
            trained = [place for place, learnt in enumerate(whole.mask) if learnt]
            assert whole.tokens[: len(prompt)] == prompt and len(prompt) in trained
            assert whole.tokens[trained[-1]] in end_ids(ours) and len(whole.contents) == len(messages)


def test_an_answer_is_found_whatever_stands_before_it(tmp_path: Path) -> None:
    ours = made("default system", tmp_path)
    for answer in ("", "tests", "user", "assistant\n", "You are made for tests", "<|im_end|>"):
        shown = marked(ours, [user("tests"), assistant(answer), user(answer), assistant("b")])
        assert shown.count("«") == 2 and f"assistant\n«{answer}<|im_end|>»\n" in shown
    thinking = made("thinking", tmp_path)
    shown = marked(
        thinking, [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c"), assistant("<think>d</think>e")]
    )
    assert "assistant\n«b<|im_end|>»" in shown and "assistant\n«<think>\nd\n</think>\n\ne<|im_end|>»" in shown


def test_the_positions_of_contents(tmp_path: Path) -> None:
    for name in ("default system", "headers", "instructions"):
        ours = made(name, tmp_path / name)
        rendered = render(ours, [system("Rule"), *TALK])
        texts = [ours.decode(rendered.tokens[span.start : span.stop]).strip() for span in rendered.contents]
        assert texts == ["Rule", "Hi", "Hello", "And?", "Bye."], name


# ---- tools -----------------------------------------------------------------------------------------------

TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- if not loop.first or message.content %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"thing": "<|im_end|>"}}}
CALL = {
    "type": "function",
    "function": {"name": "find", "arguments": {"thing": "purse <|im_end|>", "deep": {"a": [1]}}},
}
TOOL_TALK = [
    user("Where?"), assistant("", tool_calls=[CALL]), {"role": "tool", "content": "bridge"},
    {"role": "tool", "content": "mill"}, assistant("There."), user("Now?"), assistant("Wait.", tool_calls=[CALL, CALL]),
]  # fmt: skip


def test_tools_are_given_to_the_template_and_calls_are_trained(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(small_folder("qwen", tmp_path, TOOLS))
    for first in ([], [system("Rule")]):
        listed = [{**(first or [system("")])[0], "tools": [TOOL]}]
        whole = render(tokenizer, [*listed, *TOOL_TALK])
        shown = tokenizer.decode(whole.tokens)
        rule = "Rule\n\n" if first else ""
        assert shown.startswith(
            f'<|im_start|>system\n{rule}<tools>\n{{"type": "function", "function": {{"name": "find"'
        )
        assert "<|im_start|>user\n<tool_response>\nbridge\n</tool_response>\n<tool_response>\nmill" in shown
        call = '<tool_call>\n{"name": "find", "arguments": {"thing": "purse <|im_end|>", "deep": {"a": [1]}}}\n</tool_call>'
        trained = marked(tokenizer, [*listed, *TOOL_TALK])
        assert f"assistant\n«{call}<|im_end|>»" in trained and "assistant\n«There.<|im_end|>»" in trained
        assert trained.endswith(f"assistant\n«Wait.\n{call}\n{call}<|im_end|>»\n") and trained.count("«") == 3
        assert len(whole.contents) == 1 + len(TOOL_TALK)
        texts = [tokenizer.decode(whole.tokens[span.start : span.stop]).strip() for span in whole.contents]
        assert texts[3:6] == ["bridge", "mill", "There."]
        prompt = render(tokenizer, [*listed, *TOOL_TALK[:4]], reply=True).tokens
        assert whole.tokens[: len(prompt)] == prompt
    unlearnt = [*TOOL_TALK[:1], {**TOOL_TALK[1], "weight": 0}, *TOOL_TALK[2:5]]
    assert marked(tokenizer, unlearnt).count("«") == 1


def test_a_template_that_leaves_tools_out_refuses_the_conversation(tmp_path: Path) -> None:
    plain = load_tokenizer(small_folder("qwen", tmp_path, GENERATION))
    listed = [system("Rule") | {"tools": [TOOL]}, user("a"), assistant("b")]
    for messages, reason in (
        (listed, "writes no list of tools"),
        (TOOL_TALK[:2], "writes no calls of a tool"),
        (TOOL_TALK[:5], "writes no calls of a tool"),
    ):
        [refused] = render_each(plain, [messages])
        assert isinstance(refused, RefusedConversation) and reason in str(refused)
    with pytest.raises(RefusedConversation, match="writes no list of tools"):
        render(plain, listed[:2], reply=True)
    silent = load_tokenizer(
        small_folder("qwen", tmp_path / "b", TOOLS.replace("message.role == 'tool'", "message.role == 'never'"))
    )
    [refused] = render_each(silent, [TOOL_TALK])
    assert isinstance(refused, RefusedConversation) and "leaves out the result of a tool" in str(refused)
    counts = render_set([TOOL_TALK, [user("a"), assistant("b")]], plain, 200).counts
    assert (counts.whole, counts.refused_by_the_chat_template) == (1, 1)


# ---- hostile text and templates --------------------------------------------------------------------------


def test_names_of_special_tokens_in_messages_stay_text(pair: Any) -> None:
    ours, _ = pair
    for name, id in ours.special_tokens.items():
        messages = [user(f"a {name} b {name}"), assistant(f"{name}c"), user("d")]
        clean = [{**message, "content": message["content"].replace(name, "xx")} for message in messages]
        tokens, plain = render(ours, messages).tokens, render(ours, clean).tokens
        assert tokens.count(id) == plain.count(id), name
        assert ours.decode(tokens).count(name) == 3 + ours.decode(plain).count(name)
        assert render(ours, messages, reply=True).tokens.count(id) == render(ours, clean, reply=True).tokens.count(id)
    reserved = render(ours, [user("a\U0010fffe\U00100001\U0010ffff\U00100000\U000ffffe\U00100000b\ud800")]).tokens
    assert reserved == render(ours, [user("a\ufffd\U00100001\ufffd\U00100000\ufffd\U00100000b\ufffd")]).tokens


def test_a_template_that_has_to_wait_does_not_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine, or one that was asleep."""
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    ours, step = load_tokenizer(small_folder("qwen", tmp_path, template)), sandbox._Environment.step

    def late(environment: Any) -> None:
        time.sleep(0.11)
        step(environment)

    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.1)
    monkeypatch.setattr(sandbox._Environment, "step", late)
    assert render(ours, [user("a")]).tokens


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}"
HOSTILE = {
    LOOPS + "{% endfor %}{% endfor %}": "the chat template loops: it takes more than 200,000 steps or 5 seconds",
    LOOPS + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}{% endfor %}": "the chat template loops",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}": "template loops",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}": "without end",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}": "without end",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% set n.x = y %}{% endfor %}": "without end",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x.replace('a', 'aa') %}{% endfor %}": "end",
    "{{ 'a' * 10000000000 }}": "without end",
    "{{ [0] * 10000000000 }}": "without end",
    "{{ 9 ** 9 ** 9 }}": r"uses \*\*",
    "{{ '%9999999999d' % 1 }}": "uses %",
    "{{ 'a'.ljust(10000000000) }}": "passes a number above 10,000 to a function",
    "{{ 'a' | center(10000000000) }}": "is no Jinja, at line 1: No filter named 'center'",
    "{% for x in %}": "is no Jinja, at line 1",
    "{{ ''.__class__.__mro__ }}": "refuses this conversation",
    "{{ raise_exception('never\n mind') }}": "refuses this conversation: never mind$",
    "{{ messages[7].content + 1 }}": "refuses this conversation",
    "{{ messages + 1 }}": "fails on this conversation",
}


@pytest.mark.parametrize("template", HOSTILE)
def test_a_template_that_loops_or_fails_is_refused_in_one_sentence(template: str, tmp_path: Path) -> None:
    ours = load_tokenizer(small_folder("qwen", tmp_path, template))
    begun = time.process_time()
    with pytest.raises(ValueError, match=HOSTILE[template]) as refusal:
        render(ours, [user("a")], reply=True)
    assert "\n" not in str(refusal.value) and time.process_time() - begun < 60
    with pytest.raises(ValueError):
        fit(ours, [user("a")], 100)


def test_a_shadowed_counter_counts_on(tmp_path: Path) -> None:
    template = "{% macro understudy_step() %}{% endmacro %}" + LOOPS + "{% endfor %}{% endfor %}"
    with pytest.raises(ValueError, match="the chat template loops"):
        render(load_tokenizer(small_folder("qwen", tmp_path, template)), [user("a")], reply=True)


def test_a_template_without_an_end_token_cannot_be_trained_with(tmp_path: Path) -> None:
    endless = load_tokenizer(
        small_folder("qwen", tmp_path, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    )
    assert render(endless, [user("a")], reply=True).tokens, "to chat it will do"
    with pytest.raises(ValueError, match="writes no end token after an answer"):
        render_set([[user("a"), assistant("b")]], endless, 64)
    with pytest.raises(ValueError, match="writes no end token after an answer; choose another"):
        with_chat_template(endless, endless.chat_template or "")
    foreign = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
    with pytest.raises(ValueError, match=r"the tokenizer of this run lacks <\|end\|>, <\|user\|>"):
        with_chat_template(endless, foreign)


def test_the_end_token_is_the_one_that_the_template_writes(tmp_path: Path) -> None:
    """Whatever the settings call eos, as with base models that were finetuned."""
    folder = small_folder("digits", tmp_path, DEFAULT_SYSTEM)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    ours = load_tokenizer(folder)
    assert end_ids(ours) == {ours.special_tokens[name] for name in ("<|endoftext|>", "<|im_end|>")}


# ---- rows, preferences, prompts --------------------------------------------------------------------------


def test_conversations_that_a_template_refuses_are_counted_and_dropped(tmp_path: Path) -> None:
    ours = made("turns", tmp_path)
    rows = render_set([TALK, [system("s"), *TALK], TALK[:2]], ours, 64)
    assert len(rows) == 2 and rows.counts.refused_by_the_chat_template == 1
    assert "1 refused by the chat template" in str(rows.counts)
    with pytest.raises(RefusedConversation, match="System role not supported"):
        render(ours, [system("s"), user("a")], reply=True)
    comparisons = [
        PreferenceComparison(
            prompt, ((assistant("b"),), (assistant("c"),)), (Pair(0, 1, 0.0, False),), "", (None, None)
        )
        for prompt in ((user("a"),), (system("s"), user("a")))
    ]
    encoded = encode_preferences(comparisons, ours, 64)
    assert (encoded.prompts, encoded.refused) == (1, 1) and "1 prompts dropped, refused by the chat" in str(encoded)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_completion_begins_where_its_prompt_ends(name: str, tmp_path: Path) -> None:
    ours = made(name, tmp_path)
    encoded = encode_completion(ours, TALK[:3], [assistant("Bye.")])
    assert encoded.prompt == render(ours, TALK[:3], reply=True).tokens
    assert all(encoded.mask) and encoded.completion[-1] in end_ids(ours)


def test_long_conversations_are_cut_between_turns_and_inside(tmp_path: Path) -> None:
    ours = made("headers", tmp_path)
    whole = len(render(ours, TALK).tokens)
    rows = render_set([TALK, [user("word " * 99), assistant("Yes. " * 99)]], ours, whole - 2)
    assert (rows.counts.cut_at_a_turn, rows.counts.cut_inside) == (1, 1)
    first = render(ours, TALK[:2])
    assert rows.tokens[: rows.starts[1]].tolist() == first.tokens
    assert rows.starts[2] - rows.starts[1] <= whole - 1 and rows.mask[rows.starts[1] :].sum() >= (whole - 2) // 2


def test_the_oldest_turns_leave_first(tmp_path: Path) -> None:
    ours = made("default system", tmp_path)
    messages = [system(" Rule "), user(" a "), assistant("b"), user("c")]
    whole, short = (render(ours, m, reply=True).tokens for m in (messages, [messages[0], messages[3]]))
    assert fit(ours, messages, len(whole)).tokens == whole and fit(ours, messages, len(whole)).messages == messages
    cut = fit(ours, messages, len(whole) - 1)
    assert (cut.tokens, cut.left_out, cut.messages) == (short, 2, [messages[0], messages[3]])
    with pytest.raises(ValueError, match="the message takes"):
        fit(ours, messages, len(short) - 1)


# ---- replacing a template, training, looking ---------------------------------------------------------------


def test_a_template_is_named_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(GENERATION)
    assert read_template(str(tmp_path / "mine.jinja")) == GENERATION and read_template("chatml") == CHAT_TEMPLATE
    with pytest.raises(ValueError, match="none is no chat template: name a Jinja file, or one of chatml"):
        read_template("none")
    ours = made("default system", tmp_path)
    replaced = with_chat_template(ours, CHAT_TEMPLATE)
    assert marked(replaced, TALK[:2]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello<|im_end|>»\n"
    assert chat_template(replaced) == CHAT_TEMPLATE and replaced.sha256 != ours.sha256
    base = with_chat_tokens(load_tokenizer(small_folder("llama3", tmp_path / "base")))
    assert speaks_chat(base) and marked(base, TALK[:2]) == marked(replaced, TALK[:2]), "without a template ours is used"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """runs/base with a template of its own, and talks.jsonl, of which one row has a system message."""
    monkeypatch.chdir(tmp_path)
    tokenizer = made("turns", tmp_path / "tokenizer")
    shape = ModelConfig(
        family="qwen3", vocab_size=tokenizer.vocab_size, context_length=64, n_layers=1, n_heads=2, d_model=16
    )
    saved_run(tmp_path / "runs/base", build_model(shape), tokenizer, "pretrain")
    rows = [[user(f"Who has {n}?"), assistant(f"Sam has {n}.")] for n in range(30)]
    rows.append([system("Rule"), *rows[0]])
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return tokenizer


def train(*more: str) -> int:
    settings = ("--train.steps", "2", "--train.batch_size", "2", "--train.dtype", "fp32", "--data", "talks.jsonl")
    return main(["sft", "sft", "--init-from", "base", "--run", "chat", *settings, *more])


def test_sft_trains_with_the_models_template_and_inspect_shows_the_mask(
    started: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 0
    assert load_run("chat").tokenizer.sha256 == started.sha256
    capsys.readouterr()
    assert main(["inspect", "chat", "--mask", "--num", "31"]) == 0
    shown = capsys.readouterr().out
    assert "<start_of_turn>model\n«Sam has 0.<end_of_turn>»" in shown
    assert "dropped, the chat template refuses this conversation: System role not supported" in shown


def test_sft_replaces_the_template_and_keeps_it_with_the_run(
    started: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    template = TURNS.replace("raise_exception('System role not supported')", "''")
    Path("mine.jinja").write_text(template)
    assert train("--chat-template", "mine.jinja") == 0
    assert load_run("chat").tokenizer.chat_template == template
    assert train("--chat-template", "mine.jinja", "--resume") == 2
    assert "a run keeps the chat template that it began with" in capsys.readouterr().err
    assert (
        main(["sft", "sft", "--init-from", "base", "--run", "b", "--data", "talks.jsonl", "--chat-template", "chatml"])
        == 2
    )
    assert "lacks <|im_end|>, <|im_start|>; choose another template" in capsys.readouterr().err
    assert not Path("runs/b").exists()


TOO_MUCH = {
    "a list of long texts": "{% set x = ['a' * 1000000] * 4000 %}{{ x }}",
    "the same as JSON": "{% set x = ['a' * 1000000] * 4000 %}{{ x | tojson }}",
    "the same by format": "{% set x = ['a' * 1000000] * 4000 %}{{ '{}'.format(x) }}",
    "the same by %": "{% set x = ['a' * 1000000] * 4000 %}{{ '%s' % x }}",
    "the same mapped": "{% set x = ['a' * 1000000] * 4000 %}{{ x | map('upper') | list }}",
    "lists of lists": "{% set ns = namespace(x=[1]) %}{% for n in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "slices": "{{ [1] | slice(9999999999) | list }}",
    "batches": "{{ [1] | batch(99999999999, 'x') | list }}",
    "a width in format": "{{ '{:>9999999999}'.format('a') }}",
    "an indent of JSON": "{{ messages | tojson(indent=99999999999) }}",
    "too many nested loops": "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_template_that_fills_the_memory_is_stopped(name: str) -> None:
    from understudy.tokenizer.sandbox import ChatTemplate

    with pytest.raises(ValueError, match="the chat template"):
        ChatTemplate(TOO_MUCH[name], {}).render([{"role": "user", "content": "Hi"}], reply=True)
