"""The server as the official client of OpenAI sees it: chat, streams, completions, probabilities, seeds, errors."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from openai import OpenAI

from serving import client, get, make_run, post, served_run, serving
from understudy.feedback.store import FeedbackStore
from understudy.inference.generate import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.run import Run
from understudy.serve.openai.plan import plan_chat
from understudy.serve.openai.schemas import ChatRequest, CompletionRequest
from understudy.serve.served import Limits, Served
from understudy.tokenizer.chat import end_ids, render

ASKED: Any = [{"role": "user", "content": "Who found the purse?"}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def url(run: Run, store: FeedbackStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = make_run(tmp_path_factory.mktemp("runs") / "base", chat=False)
    with serving(Served({"tiny": served_run(run), "base": served_run(base)}, store)) as url:
        yield url


@pytest.fixture(scope="module")
def api(url: str) -> OpenAI:
    return client(url)


def chat(api: OpenAI, **options: Any) -> Any:
    return api.chat.completions.create(**{"model": "tiny", "messages": ASKED, "max_tokens": 12, "seed": 3} | options)


def complete(api: OpenAI, **options: Any) -> Any:
    return api.completions.create(**{"model": "tiny", "prompt": "Sam found", "max_tokens": 12, "seed": 3} | options)


def expected(run: Run, prompt: str | list[int], seed: int = 3, tokens: int = 12, **settings: Any) -> str:
    [completion] = generate_text(
        run.model,
        run.tokenizer,
        [prompt],
        tokens,
        SamplingSettings(seed=seed, **settings),
        end_ids=end_ids(run.tokenizer),
    )
    return completion.text


def test_models(api: OpenAI, run: Run) -> None:
    assert [model.id for model in api.models.list()] == ["tiny", "base"]
    model: Any = api.models.retrieve("tiny")
    assert (model.object, model.context_length, model.weights_sha256) == ("model", 128, run.state["weights_sha256"])


def test_a_chat_answers_as_the_run(api: OpenAI, run: Run) -> None:
    answer = chat(api)
    prompt = render(run.tokenizer, ASKED, reply=True).tokens
    assert answer.choices[0].message.content == expected(run, prompt)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens == len(prompt) and 1 <= answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (answer.model, answer.system_fingerprint) == ("tiny", run.state["weights_sha256"])
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "Who found "}, {"type": "text", "text": "the purse?"}]}
    ]
    assert chat(api, messages=parts).choices[0].message.content == answer.choices[0].message.content


def test_earlier_turns_are_not_computed_again(api: OpenAI, run: Run) -> None:
    prompt_tokens = [{"role": "user", "content": "What did Polly bring to the old mill, and who saw it?"}]
    first = chat(api, messages=prompt_tokens, seed=openai.NOT_GIVEN)
    turns = [*prompt_tokens, {"role": "assistant", "content": first.choices[0].message.content}, *ASKED]
    again, read = (
        chat(api, messages=turns, seed=openai.NOT_GIVEN),
        render(run.tokenizer, prompt_tokens, reply=True).tokens,
    )
    assert 0 <= first.usage.prompt_tokens_details.cached_tokens < len(read)
    assert len(read) <= again.usage.prompt_tokens_details.cached_tokens < again.usage.prompt_tokens
    several = complete(api, prompt=["Lily", "Lily"], n=2, seed=openai.NOT_GIVEN).usage
    assert several.prompt_tokens_details.cached_tokens < several.prompt_tokens


def test_a_stream_is_the_same_answer_in_pieces(api: OpenAI) -> None:
    whole = chat(api, logprobs=True, top_logprobs=2)
    chunks = list(chat(api, stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2))
    with_choices = [chunk for chunk in chunks if chunk.choices]
    assert with_choices[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in with_choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in with_choices][-1] == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    streamed = [t for c in with_choices if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert streamed == whole.choices[0].logprobs.content and all(chunk.usage is None for chunk in with_choices)


def test_several_answers_have_different_seeds(api: OpenAI) -> None:
    contents = [choice.message.content for choice in chat(api, n=3).choices]
    assert contents == [chat(api, seed=seed).choices[0].message.content for seed in (3, 4, 5)]
    assert len(set(contents)) == 3
    streamed = ["", "", ""]
    for chunk in chat(api, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == contents


def test_stop_strings_end_an_answer_unshown(api: OpenAI) -> None:
    whole = complete(api, temperature=0, max_tokens=40).choices[0].text
    stop = whole[4:6]
    for answer in (
        complete(api, temperature=0, max_tokens=40, stop=stop),
        complete(api, temperature=0, max_tokens=40, stop=["§", stop]),
    ):
        assert answer.choices[0].text == whole[: whole.index(stop)] and answer.choices[0].finish_reason == "stop"


def test_settings_reach_the_sampler(api: OpenAI, run: Run) -> None:
    extra = {"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.3}
    given = complete(api, temperature=0.7, top_p=0.9, extra_body=extra).choices[0].text
    assert given == expected(run, "Sam found", temperature=0.7, top_p=0.9, **extra)


def test_completions_of_texts_and_tokens(api: OpenAI, run: Run) -> None:
    answer = complete(api)
    assert answer.choices[0].text == expected(run, "Sam found")
    tokens = run.tokenizer.encode("Sam found")
    assert complete(api, prompt=tokens).choices[0].text == answer.choices[0].text
    several = complete(api, prompt=["Sam found", "Who"], n=2)
    texts = [choice.text for choice in several.choices]
    assert texts == [expected(run, prompt, seed) for prompt in ("Sam found", "Who") for seed in (3, 4)]
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert complete(api, prompt=[tokens, tokens]).choices[1].text == answer.choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in complete(api, stream=True))
    assert streamed == answer.choices[0].text
    assert complete(api, echo=True).choices[0].text == "Sam found" + answer.choices[0].text
    assert len(api.completions.create(model="tiny", prompt="Sam", seed=1, temperature=0).choices[0].text) > 0
    assert complete(api, model="base").choices[0].text


@torch.no_grad()
def test_echoed_probabilities_are_the_models(api: OpenAI, run: Run) -> None:
    """As lm_eval asks for them."""
    tokens = run.tokenizer.encode("Sam found the purse")
    expected_logprobs = run.model(torch.tensor([tokens]))[0].log_softmax(-1)
    for stream in (False, True):
        for most in (0, 1):
            answer = complete(api, prompt=tokens, echo=True, logprobs=1, max_tokens=most, temperature=0, stream=stream)
            found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            for part in answer if stream else [answer]:
                for name, values in found.items():
                    values += getattr(part.choices[0].logprobs, name)
            assert found["token_logprobs"][0] is None and len(found["tokens"]) == len(tokens) + most
            for place, token in enumerate(tokens[1:]):
                logprob = found["token_logprobs"][place + 1]
                assert logprob == pytest.approx(float(expected_logprobs[place, token]), abs=1e-4)
                assert max(found["top_logprobs"][place + 1].values()) == pytest.approx(
                    float(expected_logprobs[place].max()), abs=1e-4
                )
            assert "".join(found["tokens"][: len(tokens)]) == "Sam found the purse"
            assert found["text_offset"][1] == len(found["tokens"][0])
            if most:
                assert found["token_logprobs"][-1] == pytest.approx(float(expected_logprobs[-1].max()), abs=1e-4)


def test_probabilities_of_an_answer(api: OpenAI) -> None:
    answer = chat(api, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert (
        b"".join(bytes(token.bytes) for token in content).decode(errors="replace") == answer.choices[0].message.content
    )
    for token in content:
        assert len(token.top_logprobs) == 3 and token.logprob <= token.top_logprobs[0].logprob
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.0001
    assert chat(api, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    assert chat(api).choices[0].logprobs is None
    legacy = complete(api, logprobs=2).choices[0].logprobs
    assert len(legacy.tokens) == len(legacy.token_logprobs) and all(2 <= len(top) <= 3 for top in legacy.top_logprobs)


def test_a_long_conversation_loses_its_oldest_turns_and_says_so(api: OpenAI) -> None:
    turns = [{"role": role, "content": "Sam found the purse at the school. " * 2} for role in ("user", "assistant")]
    prompt_tokens = [{"role": "system", "content": "Who?"}, *turns, *turns, *turns, *turns, *ASKED]
    answer = chat(api, messages=prompt_tokens)
    assert answer.messages_left_out in (2, 4, 6, 8) and answer.usage.prompt_tokens <= 128
    assert chat(api).messages_left_out == 0
    with pytest.raises(openai.BadRequestError) as refused:
        chat(api, messages=[{"role": "user", "content": "Sam found the purse. " * 90}])
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "messages"


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "../tiny"}, "model_not_found", "there is no model '../tiny' here; choose one of tiny, base"),
    ({"model": "base"}, "model_not_chat", "was not finetuned to answer"),
    ({"messages": []}, "invalid_value", "a conversation is a list"),
    ({"messages": [{"role": "assistant", "content": "Sam"}]}, "invalid_value", "does not end with a message from"),
    ({"messages": [{"role": "tool", "content": "Sam"}]}, "invalid_value", "is the result of a tool and follows nothing"),
    ({"messages": [*ASKED, {"role": "assistant", "content": "Sam"}]}, "invalid_value", "does not end with a message"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "invalid_value", "the part is an image; this"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "invalid_value", "the part is audio; this"),
    ({"messages": [{"role": "user", "content": None}]}, "invalid_value", "messages.0.content: give a text"),
    ({"messages": [{"role": "user"}]}, "missing_parameter", "messages.0.content is missing"),
    ({"temperature": -1}, "invalid_value", "temperature is -1"),
    ({"temperature": "hot"}, "invalid_value", "temperature"),
    ({"top_p": 0}, "invalid_value", "top_p is 0"),
    ({"extra_body": {"top_k": -2}}, "invalid_value", "top_k is -2"),
    ({"extra_body": {"top_k": False}}, "invalid_value", "top_k"),
    ({"store": True}, "invalid_value", "store is true; this server accepts only false or null"),
    ({"modalities": ["text", "audio"]}, "invalid_value", "accepts only [\"text\"] or null"),
    ({"service_tier": "priority"}, "invalid_value", 'accepts only "auto" or "default" or null'),
    ({"extra_body": {"repetition_penalty": 1e-40}}, "invalid_value", "repetition_penalty is 1e-40"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens is 0"),
    ({"n": 0}, "invalid_value", "n: "),
    ({"n": 1000}, "invalid_value", "one request gets at most"),
    ({"n": 10**4299}, "invalid_value", "n: "),
    ({"seed": -2}, "invalid_value", "seed"),
    ({"stop": ["a"] * 17}, "invalid_value", "stop: give at most"),
    ({"top_logprobs": 2}, "invalid_value", "logprobs=true"),
    ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
    ({"frequency_penalty": 0.5}, "invalid_value", "frequency_penalty is 0.5; this server accepts only 0"),
    ({"logit_bias": {"5": 1}}, "invalid_value", "logit_bias is"),
    ({"functions": [{"name": "f"}]}, "invalid_value", "functions is"),
    ({"web_search_options": {}}, "invalid_value", "web_search_options is {}; this server accepts only null"),
    ({"extra_body": {"moderation": {"model": "x"}}}, "invalid_value", "moderation is"),
    ({"extra_body": {"temprature": 1}}, "unknown_parameter", "temprature is unknown"),
    ({"stream_options": {"include_usage": True}}, "invalid_value", "stream=true"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "code", "message"), MISTAKES)
def test_a_mistake_is_named(api: OpenAI, options: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        chat(api, **options)
    assert refused.value.status_code == (404 if code == "model_not_found" else 400)
    assert refused.value.code == code and message in refused.value.body["message"]  # type: ignore[index]
    assert (refused.value.param or "").split(".")[0] in {*options, *options.get("extra_body", {})}
    assert refused.value.type == "invalid_request_error"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **keys}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


CALL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CALLED = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}]
ORDERS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    ([user("Sam?"), user("Who?")], [user("Sam?\n\nWho?")]),
    ([user("Sam?"), user(" "), user("Who?")], [user("Sam?\n\nWho?")]),
    ([assistant("Hello."), user("Who?")], [assistant("Hello."), user("Who?")]),
    ([system("Be kind."), assistant("Hello."), user("Who?")], [system("Be kind."), assistant("Hello."), user("Who?")]),
    ([system("A."), system("B."), user("Who?")], [system("A.\n\nB."), user("Who?")]),
    ([system("A."), {"role": "developer", "content": "B."}, user("Who?")], [system("A.\n\nB."), user("Who?")]),
    (
        [user("Sam?"), assistant("Sam."), system("Be brief."), user("Who?")],
        [system("Be brief."), user("Sam?"), assistant("Sam."), user("Who?")],
    ),
    ([user("Sam?"), system("A."), user("Who?")], [system("A."), user("Sam?\n\nWho?")]),
    (
        [user("Sam?"), assistant("Sam"), assistant("found it."), user("Who?")],
        [user("Sam?"), assistant("Sam\n\nfound it."), user("Who?")],
    ),
    (
        [user("Sam?"), assistant(None, tool_calls=CALL), user("Who?")],
        [user("Sam?"), assistant("", tool_calls=CALLED), user("Who?")],
    ),
    (
        [user("Sam?"), assistant("Wait."), {"role": "assistant", "tool_calls": CALL}, user("Who?")],
        [user("Sam?"), assistant("Wait.", tool_calls=CALLED), user("Who?")],
    ),
    ([user("Sam?"), assistant(None, tool_calls=None), user("Who?")], [user("Sam?"), assistant(""), user("Who?")]),
    (
        [user("Sam?"), assistant(None, tool_calls=CALL), {"role": "tool", "content": "Ed", "tool_call_id": "c"}],
        [
            user("Sam?"), assistant("", tool_calls=CALLED),
            {"role": "tool", "content": "Ed", "tool_call_id": "c", "name": "f"},
        ],
    ),
    (
        [{"role": "user", "content": [{"type": "text", "text": "Who?", "cache_control": {"type": "ephemeral"}}]}],
        [user("Who?")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "prompt"), ORDERS)
def test_any_order_of_roles_is_answered(
    api: OpenAI, store: FeedbackStore, sent: list[dict[str, Any]], prompt: list[dict[str, Any]]
) -> None:
    """The model is given the order of its chat format."""
    answer = chat(api, messages=sent)
    record = store.answer(answer.id.removeprefix("chatcmpl-"))
    assert record is not None and record.prompt == prompt


@pytest.mark.parametrize(
    "options",
    [
        {"store": False}, {"parallel_tool_calls": True}, {"service_tier": "auto"}, {"modalities": ["text"]},
        {"function_call": None}, {"function_call": "none"}, {"audio": None}, {"tools": []}, {"tool_choice": "auto"},
        {"max_tokens": -1}, {"max_completion_tokens": -1, "max_tokens": 12}, {"top_k": -1}, {"top_k": 0}, {"seed": -1},
        {"stop": ""}, {"stop": [""]}, {"stop": []}, {"temperature": None}, {"n": None}, {"logit_bias": {}},
        {"presence_penalty": 0}, {"stream_options": None}, {"stream_options": {"include_usage": False}},
        {"reasoning_effort": None}, {"verbosity": "medium"}, {"prediction": None}, {"user": None}, {"nobody_knows": None},
        {"response_format": {"type": "text"}}, {"response_format": None}, {"tool_choice": "none"}, {"tools": None},
        {"parallel_tool_calls": False}, {"metadata": {"a": "b"}}, {"prompt_cache_options": {"mode": "implicit"}},
    ],
)  # fmt: skip
def test_parameters_without_effect_are_accepted(url: str, options: dict[str, Any]) -> None:
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 3, "seed": 3} | options
    assert post(url, "/v1/chat/completions", body)[0] == 200
    if set(options) <= {"max_tokens", "top_k", "seed", "stop", "temperature", "logit_bias", "stream_options"}:
        assert (
            post(url, "/v1/completions", {"model": "tiny", "prompt": "Sam", "n": 2, "best_of": 2} | options)[0] == 200
        )


def test_every_parameter_of_the_official_client_is_known(api: OpenAI) -> None:
    """So that a value which changes nothing is accepted, and any other is refused with what is accepted."""
    for call, kind in ((api.chat.completions.create, ChatRequest), (api.completions.create, CompletionRequest)):
        of_the_client = {"extra_headers", "extra_query", "extra_body", "timeout"}
        parameters = {*inspect.signature(call).parameters} - of_the_client
        assert len(parameters) > 15 and not parameters - {*kind.model_fields, *kind.without_effect}


def test_ids_beyond_the_tokenizers_vocabulary(tmp_path: Path) -> None:
    """A padded vocabulary is never sampled nor accepted, and the server continues."""
    run = make_run(tmp_path / "tiny", padding=200)
    with serving(Served({"tiny": served_run(run)})) as url:
        padded = {"model": "tiny", "prompt": [run.tokenizer.vocab_size], "max_tokens": 1, "echo": True, "logprobs": 1}
        assert post(url, "/v1/completions", padded)[0] == 400
        hot = {"model": "tiny", "prompt": "Sam", "max_tokens": 60, "temperature": 1000, "seed": 1, "logprobs": 20}
        for _ in range(2):
            assert post(url, "/v1/completions", hot)[0] == 200
        chat_body = {"model": "tiny", "messages": ASKED, "temperature": 1000, "logprobs": True, "top_logprobs": 20}
        assert post(url, "/v1/chat/completions", chat_body)[0] == 200


def test_a_message_is_encoded_once(run: Run) -> None:
    encoded: list[str] = []
    served = served_run(run)
    encode_batch = run.tokenizer.encode_batch

    def count(texts: Any) -> Any:
        encoded.extend(texts)
        return encode_batch(texts)

    run.tokenizer.encode_batch = count  # type: ignore[method-assign]
    try:
        plan_chat(served, ChatRequest(model="tiny", messages=ASKED), Limits())
    finally:
        del run.tokenizer.encode_batch
    assert encoded.count(ASKED[0]["content"]) == 1


def test_mistakes_with_completions(api: OpenAI) -> None:
    for options, message in (
        ({"prompt": [100_000]}, "is outside the vocabulary"), ({"prompt": [-1]}, "is outside the vocabulary"),
        ({"prompt": []}, "one or more"), ({"max_tokens": 1000}, "context holds 128"), ({"best_of": 3}, "best_of"),
        ({"prompt": "Sam " * 200}, "send a shorter one"), ({"suffix": "x"}, "suffix"), ({"prompt": [[1], "a"]}, "prompt"),
        ({"max_tokens": 0}, "an answer has 1 or more"), ({"logprobs": 50}, "logprobs"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            complete(api, **options)
        assert message in refused.value.body["message"]  # type: ignore[index]
        assert refused.value.param in options, "a name of the API, without the types that it may have"


def test_errors_of_every_kind_have_one_shape(url: str) -> None:
    for status, response_headers in (
        (404, get(url, "/nothing")), (404, get(url, "/v1/models/..%2F..%2Fetc")), (405, get(url, "/v1/feedback")),
        (400, post(url, "/v1/completions", b"{")), (400, post(url, "/v1/completions", b"[" * 100_000)),
        (400, post(url, "/v1/completions", b'{"seed": ' + b"9" * 10_000 + b"}")), (400, post(url, "/v1/completions", b"")),
        (400, post(url, "/v1/completions", [1])), (400, post(url, "/v1/completions", b"\xff\xfe")),
        (400, post(url, "/v1/completions", {"model": "tiny"}, {"Content-Type": "text/plain"})),
    ):  # fmt: skip
        body: Any = response_headers[2] if isinstance(response_headers[2], dict) else json.loads(response_headers[2])
        assert response_headers[0] == status, response_headers
        assert set(body["error"]) == {"message", "type", "param", "code"} and body["error"]["message"]


def test_answers_are_stored_and_judged(api: OpenAI, url: str, store: FeedbackStore, run: Run) -> None:
    answers = [chat(api, n=2, extra_body={"conversation_id": "c1"})]
    for chunk in chat(api, stream=True, extra_body={"conversation_id": "c1"}):
        streamed = chunk.id
    ids = [answers[0].id.removeprefix("chatcmpl-")]
    ids += [f"{ids[0]}-1", streamed.removeprefix("chatcmpl-")]
    stored = [answer for answer in store.answers() if answer.conversation_id == "c1"]
    assert [record.id for record in stored] == ids
    assert stored[0].text == answers[0].choices[0].message.content and stored[0].prompt == ASKED
    assert (stored[1].run, stored[1].weights_sha256) == ("tiny", run.state["weights_sha256"])
    assert stored[1].settings["seed"] == 4 and stored[1].settings["max_new_tokens"] == 12
    thumb = {"kind": "thumb", "answer_id": answers[0].id, "value": 1, "annotator": "ann"}
    assert post(url, "/v1/feedback", thumb)[0] == 201
    comparison = {"kind": "comparison", "answer_id": ids[0], "other_answer_id": ids[1], "value": -1}
    status, _, saved = post(url, "/v1/feedback", comparison)
    assert status == 201 and saved["status"] == "saved"
    assert [j.id for j in store.judgements() if j.kind == "comparison"] == [saved["id"]]
    assert post(url, "/v1/feedback", thumb | {"value": 0})[0] == 201
    assert [j.kind for j in store.judgements()] == ["comparison"], "the thumb was taken back"
    for wrong in (thumb | {"answer_id": "nobody"}, thumb | {"value": 7}, thumb | {"kind": "hug"}, {"kind": "thumb"}):
        status, _, body = post(url, "/v1/feedback", wrong)
        assert status == 400 and body["error"]["message"]


def test_metrics_count(api: OpenAI, url: str) -> None:
    chat(api)
    text = get(url, "/metrics")[2].decode()
    assert 'understudy_requests_total{route="/v1/chat/completions",status="200"}' in text
    assert 'understudy_time_to_first_token_seconds_count{model="tiny"}' in text
    assert (
        'understudy_sequences_running{model="tiny"} 0.0' in text
        and 'understudy_generated_tokens_total{model="tiny"}' in text
    )
    get(url, "/a/path/of/anyone")
    text = get(url, "/metrics")[2].decode()
    assert "anyone" not in text and 'understudy_requests_total{route="other",status="404"}' in text
    assert get(url, "/health")[0] == 200
