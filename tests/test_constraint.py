"""Constrained decoding: every answer matches its schema, hostile schemas cost little, and other requests go on."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks the answers")
pytest.importorskip("llguidance", reason="constrained decoding needs the extra structured")

from foreign_tokenizers import SMALL as SMALL_TOKENIZERS  # noqa: E402
from foreign_tokenizers import small_folder  # noqa: E402
from serving import complete, make_run, small_tokenizer  # noqa: E402
from understudy.cli import main  # noqa: E402
from understudy.inference.batching import BatchEngine  # noqa: E402
from understudy.inference.constraint import OutputConstraint, json_constraint  # noqa: E402
from understudy.inference.generate import generate_text, stream_text  # noqa: E402
from understudy.inference.requests import CompletionChunk, SequenceRequest  # noqa: E402
from understudy.inference.sampling import SamplingSettings  # noqa: E402
from understudy.run import Run  # noqa: E402
from understudy.tokenizer import Tokenizer, load_tokenizer, train_tokenizer  # noqa: E402
from understudy.tokenizer.chat import CHAT_TEMPLATE, end_ids  # noqa: E402

SMALL = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"],
         "additionalProperties": False}  # fmt: skip
KINDS: list[dict[str, Any]] = [
    {"type": "boolean"},
    {"type": "string", "maxLength": 3},
    {"enum": ["purse", "mill", 3, None]},
    {"type": "integer", "minimum": -5, "maximum": 500},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-C]{2}-[0-9]$"}]},
    {"const": "Sam"},
]


def schema(size: int) -> dict[str, Any]:
    """A schema that grows with its size: more properties, and more levels."""
    fields = {f"f{n}": KINDS[(size + n) % len(KINDS)] for n in range(1 + size % 2)}
    inner = {"inner": schema(size - 25)} if size >= 25 else {}
    return {
        "type": "object", "properties": fields | inner, "required": [*fields, *inner], "additionalProperties": False
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", context_length=512)


def test_a_hundred_schemas_give_a_hundred_valid_answers_of_an_untrained_model(run: Run) -> None:
    ends = end_ids(run.tokenizer)
    answers: dict[int, list[CompletionChunk]] = {size: [] for size in range(100)}
    with BatchEngine(run.model, run.tokenizer, max_rows=32, queue_limit=100) as engine:
        for size, pieces in answers.items():
            constraint = json_constraint(run.tokenizer, schema(size), ends)
            settings = SamplingSettings([0.0, 1.0, 2.0][size % 3], seed=size)
            engine.submit(
                SequenceRequest([1 + size], 500, settings, end_ids=ends, constraint=constraint), pieces.append
            )
    for size, pieces in answers.items():
        assert pieces[-1].finish_reason == "stop"
        jsonschema.validate(json.loads("".join(piece.text for piece in pieces)), schema(size))


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_any_tokenizer_can_be_constrained(kind: str, run: Run) -> None:
    """One without an end token too, and with penalties and filters on the constrained distribution."""
    letters = "".join(map(chr, range(32, 127)))
    tokenizer = run.tokenizer if kind == "bpe" else train_tokenizer("char", [letters])
    model = run.model  # of a larger vocabulary
    settings = SamplingSettings(1.2, top_k=3, top_p=0.9, min_p=0.01, repetition_penalty=1.3, seed=1)
    constraint = json_constraint(tokenizer, SMALL)
    completions = generate_text(model, tokenizer, [[1], [2]], 60, settings, constraint=constraint)
    for completion in completions:
        assert completion.finish_reason == "stop" and 0 <= json.loads(completion.text)["n"] < 100
    streamed = "".join(stream_text(model, tokenizer, [1], 60, settings, constraint=constraint))
    assert streamed == completions[0].text


def test_a_constraint_does_not_change_the_requests_beside_it(run: Run) -> None:
    plain = SequenceRequest([5, 6], 20, SamplingSettings(seed=7), logprobs=2)
    with BatchEngine(run.model, run.tokenizer, max_rows=3) as engine:
        alone = complete(engine, plain)
        constraint = json_constraint(run.tokenizer, SMALL)  # without end tokens
        pieces: list[list[CompletionChunk]] = [[] for _ in range(4)]
        for seed, ones in enumerate(pieces):
            request = SequenceRequest([1], 30, SamplingSettings(seed=seed), constraint=constraint)
            engine.submit(request, ones.append)
        assert complete(engine, plain) == alone
    for ones in pieces:
        assert ones[-1].finish_reason == "stop", "it ends where nothing can follow"
        assert 0 <= json.loads("".join(piece.text for piece in ones))["n"] < 100


def test_a_constraint_that_fails_ends_its_own_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = json_constraint(run.tokenizer, SMALL)
    state = constraint.start()
    monkeypatch.setattr(type(state), "mask", lambda self, logits: 1 / 0)
    pieces: list[CompletionChunk] = []
    plain = SequenceRequest([5, 6], 20, SamplingSettings(seed=7))
    with BatchEngine(run.model, run.tokenizer) as engine:
        engine.submit(SequenceRequest([1], 30, constraint=constraint), pieces.append)
        assert complete(engine, plain).finish_reason == "length"
    assert [piece.finish_reason for piece in pieces] == ["error"]


REFUSED: list[tuple[Any, str]] = [
    ([], "the schema is not a JSON object"),
    ({"type": "nothing"}, "nothing"),
    ({"type": "string", "pattern": "("}, "regex"),
    ({"$ref": "https://example.org/schema"}, "."),
    ({"unevaluatedProperties": False, "type": "object"}, "the schema cannot be followed: .*unevaluatedProperties"),
    ({"enum": ["x" * 200_000]}, "characters"),
    (False, "."),
]  # fmt: skip


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_schemas_that_cannot_be_followed_are_refused(given: Any, words: str, run: Run) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        json_constraint(run.tokenizer, given)
    assert "\n" not in str(refused.value)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        value = {"type": "array", "items": value}
    return value


HOSTILE: list[dict[str, Any]] = [
    nested(100_000),
    {"type": "string", "pattern": "^(" * 200 + "a" + ")*" * 200 + "$"},
    {"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"},
    {"type": "string", "pattern": "^(a|b)*a" + "(a|b)" * 400 + "$"},
    {"type": "string", "minLength": 10**9, "maxLength": 2 * 10**9},
    {"type": "array", "items": {"type": "integer"}, "minItems": 10**8},
    {"allOf": [{"anyOf": [{"type": "string", "pattern": f"^x{n}[a-z]*{m}"} for m in range(20)]} for n in range(20)]},
    {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 50}}, "$ref": "#/$defs/a"},
    {"properties": {f"p{n}": {"type": "string", "pattern": f"[a-z]{{{n},}}x"} for n in range(1500)}, "type": "object"},
    {"enum": [f"{n:05}" for n in range(9000)]},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_schema_costs_bounded_time_and_memory(number: int, run: Run) -> None:
    """It is refused, or answered token by token."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        constraint = json_constraint(run.tokenizer, HOSTILE[number], end_ids(run.tokenizer))
        generate_text(run.model, run.tokenizer, [[1]], 20, SamplingSettings(seed=1), constraint=constraint)
    except ValueError as refused:
        assert str(refused)
    assert time.process_time() - begun < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "in KiB"


def accepts(constraint: OutputConstraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text is an answer that the constraint allows; of the allowed tokens the longest is taken."""
    state, rest, blank = constraint.start(), text.encode(), torch.zeros(1, tokenizer.vocab_size)
    while rest:
        allowed = (state.mask(blank)[0] == 0).nonzero()[:, 0].tolist()
        fitting = [id for id in allowed if tokenizer.token_bytes(id) and rest.startswith(tokenizer.token_bytes(id))]
        if not fitting:
            return False
        token = max(fitting, key=lambda id: len(tokenizer.token_bytes(id)))
        state.advance(token)
        rest = rest[len(tokenizer.token_bytes(token)) :]
    return state.complete or bool((state.mask(blank)[0, sorted(end_ids(tokenizer))] == 0).all())


@pytest.mark.parametrize("name", SMALL_TOKENIZERS)
def test_tokenizers_of_other_projects_can_be_constrained(name: str, tmp_path: Path) -> None:
    """Those that begin a text with a space, or normalise it, too."""
    tokenizer = load_tokenizer(small_folder(name, tmp_path, CHAT_TEMPLATE))
    schema = {
        "type": "object", "properties": {"naïve": {"type": "string"}, "e\u0301": {"const": "  x"}},
        "required": ["naïve", "e\u0301"],
    }  # fmt: skip
    constraint = json_constraint(tokenizer, schema, end_ids(tokenizer))
    assert accepts(constraint, tokenizer, '{"naïve": " 数 \\n", "e\u0301": "  x"}')
    assert not accepts(constraint, tokenizer, '{"naïve": 1')


def test_text_of_a_special_token_is_text() -> None:
    tokenizer = small_tokenizer()
    constraint = json_constraint(tokenizer, {"type": "string"}, end_ids(tokenizer))
    assert accepts(constraint, tokenizer, '"<|im_end|> Sam"')
    state = constraint.start()
    state.advance(tokenizer.encode('"')[0])
    allowed = state.mask(torch.zeros(1, tokenizer.vocab_size))[0] == 0
    assert not any(allowed[id] for id in tokenizer.special_tokens.values()) and int(allowed.sum()) > 100


def test_sample_follows_a_schema(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SMALL))
    words = ["sample", str(run.path), "--tokens", "60", "--seed", "1", "--json-schema", str(file)]
    assert main([*words, "--prompt", "Sam: "]) == 0
    shown = capsys.readouterr().out
    assert 0 <= json.loads(shown.removeprefix("Sam: "))["n"] < 100
    assert main([*words, "--num", "2", "--json"]) == 0
    for sample in json.loads(capsys.readouterr().out)["samples"]:
        jsonschema.validate(json.loads(sample["text"]), SMALL)
    for content, reason in (("{", "cannot be read as a JSON schema"), ('{"type": "hat"}', "hat")):
        file.write_text(content)
        assert main(words) == 2
        assert reason in capsys.readouterr().err
