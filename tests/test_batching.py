"""Many requests at once: each as if it were alone, coming and going at any step, in memory that is planned."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from serving import complete
from understudy.config.model import ModelConfig
from understudy.inference.batching import BatchEngine, RequestHandle
from understudy.inference.generate import generate_text
from understudy.inference.quantize import prepare_for_inference
from understudy.inference.requests import CompletionChunk, QueueFull, SequenceRequest, TokenLogprob
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT, Bigram, build_model
from understudy.tokenizer import Tokenizer, train_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz .,!?-\n"
CONTEXT = 48
EXTRAS = {"value_embeddings": True, "key_shift": True, "ngram_orders": (2, 3), "ngram_buckets": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2"},
    "qwen3": {"family": "qwen3", "n_kv_heads": 2, "activation": "relu2", **EXTRAS},
    "lfm2": {"family": "lfm2", "n_kv_heads": 2, "conv_layers": (0,)},
    "bigram": {"family": "bigram"},
}
GREEDY = SamplingSettings(temperature=0)
HOWS = (
    SamplingSettings(seed=1),
    SamplingSettings(0.7, top_k=5, seed=2),
    SamplingSettings(1.3, top_p=0.8, repetition_penalty=1.5, seed=3),
    SamplingSettings(min_p=0.1, repetition_penalty=1.2, seed=4),
)


def small_model(shape: str = "gpt2") -> GPT | Bigram:
    torch.manual_seed(0)
    sizes = {} if shape == "bigram" else {"n_layers": 2, "n_heads": 4, "d_model": 32}
    model = build_model(ModelConfig(vocab_size=len(LETTERS), context_length=CONTEXT, **sizes, **SHAPES[shape]))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("char", [LETTERS])


class Listener:
    """The chunks of one request."""

    def __init__(self, on_each: Callable[[CompletionChunk], None] = lambda piece: None) -> None:
        self.pieces: list[CompletionChunk] = []
        self.ended, self.on_each = threading.Event(), on_each

    def __call__(self, piece: CompletionChunk) -> None:
        assert not self.ended.is_set(), "nothing follows the last piece"
        self.pieces.append(piece)
        self.on_each(piece)
        if piece.finish_reason:
            self.ended.set()

    def wait(self) -> list[CompletionChunk]:
        assert self.ended.wait(30), "the request never ended"
        return self.pieces

    @property
    def tokens(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.tokens]


def prompts_of(seed: int, number: int, most: int = 30) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, len(LETTERS), random.integers(1, most + 1)).tolist() for _ in range(number)]


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_are_those_of_each_request_alone(shape: str, tokenizer: Tokenizer) -> None:
    model = small_model(shape)
    requests = [SequenceRequest(tokens, 12, HOWS[n % 4], stop=("q",)) for n, tokens in enumerate(prompts_of(1, 10))]
    with BatchEngine(model, tokenizer, max_rows=3, prefill_tokens=8) as engine:
        listeners = [Listener() for _ in requests]
        tickets = [engine.submit(*each) for each in zip(requests, listeners)]
        for request, one, ticket in zip(requests, listeners, tickets):
            pieces, completion = one.wait(), ticket.completion()
            [expected] = generate_text(model, tokenizer, [list(request.tokens)], 12, request.settings, request.stop)
            assert "".join(piece.text for piece in pieces) == completion.text == expected.text
            assert one.tokens == completion.tokens == expected.tokens
            assert pieces[-1].finish_reason == expected.finish_reason
            assert completion.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        stats = engine.stats()
    assert (stats.running, stats.waiting, stats.slots) == (0, 0, 3)
    assert sum(stats.requests_finished.values()) == 10
    assert stats.tokens_generated == sum(len(one.tokens) for one in listeners)
    assert stats.prompt_tokens == sum(len(request.tokens) for request in requests)


@pytest.mark.parametrize(
    ("shape", "weights"), [("gpt2", "fp32"), ("qwen3", "fp32"), ("bigram", "fp32"), ("gpt2", "int8")]
)
def test_the_same_seed_gives_the_same_bits_whatever_else_runs(shape: str, weights: str, tokenizer: Tokenizer) -> None:
    """Beside others that come, go, and share prefixes, each answer and each log-probability is the same as alone."""
    model = prepare_for_inference(small_model(shape), weights, rows=5)
    begun = prompts_of(5, 3, 25)
    random = np.random.default_rng(0)
    requests = [
        SequenceRequest([*begun[n % 3], *tokens], 10, SamplingSettings(1 + n % 2 / 2, top_p=0.95, seed=n), logprobs=2)
        for n, tokens in enumerate(prompts_of(2, 18, 12))
    ]
    alone: list[list[CompletionChunk]] = []
    for request in requests:
        with BatchEngine(model, tokenizer, max_rows=5, prefill_tokens=8) as engine:
            listener = Listener()
            engine.submit(request, listener)
            alone.append(listener.wait())
    with BatchEngine(model, tokenizer, max_rows=5, prefill_tokens=8, queue_limit=1000) as engine:
        noise: list[RequestHandle] = []
        beside = []
        for request in requests:
            for tokens in prompts_of(int(random.integers(1e6)), 3, 12):
                noise_settings = SamplingSettings(
                    random.choice([0.0, 0.8, 1.2]), repetition_penalty=random.choice([1.0, 1.3])
                )
                noise.append(engine.submit(SequenceRequest([*begun[0], *tokens], 10, noise_settings), Listener()))
            beside.append(Listener(lambda piece: noise[int(random.integers(len(noise)))].cancel()))
            engine.submit(request, beside[-1])
        for listener, expected in zip(beside, alone):
            assert listener.wait() == expected
    finished = engine.stats().requests_finished
    assert finished["cancelled"] > 3 and finished["length"] >= 18


def test_the_next_turn_computes_only_new_tokens(tokenizer: Tokenizer) -> None:
    model = small_model()
    first, more, other = prompts_of(3, 1, 9)[0] * 2, [5, 6, 7], [1] * 9
    with BatchEngine(model, tokenizer, max_rows=2, prefill_tokens=4) as engine:
        answer = complete(engine, SequenceRequest(first, 8, GREEDY)).tokens
        complete(engine, SequenceRequest(other, 3, GREEDY))  # another conversation, in the other row
        turn = [*first, *answer, *more]
        again = complete(engine, SequenceRequest(turn, 5, GREEDY))
        # the answer's last token was never read
        assert engine.stats().prompt_tokens_reused == len(first) + len(answer) - 1
        complete(engine, SequenceRequest(turn, 5, SamplingSettings(seed=1)))
        reused = engine.stats().prompt_tokens_reused - len(first) - len(answer) + 1
        assert reused == len(first) // 4 * 4, "with a seed: whole chunks that were read as a prompt"
    [expected] = generate_text(model, tokenizer, [turn], 5, GREEDY)
    assert again.tokens == expected.tokens


def test_a_long_prompt_does_not_stop_the_others(tokenizer: Tokenizer) -> None:
    """Between two chunks of a long prompt, everyone else gets a token, and a short prompt begins to answer."""
    model, order = small_model(), list[str]()
    whole = model.hidden

    def hidden(tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        if tokens.shape[1] > 1:
            order.append(f"chunk {tokens.shape[1]}")
        return whole(tokens, cache)

    model.hidden = hidden  # type: ignore[method-assign, assignment]
    started = threading.Event()

    def talk(piece: CompletionChunk) -> None:
        order.append("token")
        started.set()

    with BatchEngine(model, tokenizer, max_rows=3, prefill_tokens=8) as engine:
        talking = Listener(talk)
        engine.submit(SequenceRequest([1], 40, GREEDY), talking)
        started.wait(10)
        long, short = Listener(lambda piece: order.append("long")), Listener(lambda piece: order.append("short"))
        with engine._wake:  # both before the next step
            engine.submit(SequenceRequest([2] * 40, 1, GREEDY), long)
            engine.submit(SequenceRequest([3] * 3, 1, GREEDY), short)
        for one in (long, short, talking):
            one.wait()
    chunks = [place for place, event in enumerate(order) if event == "chunk 8"]
    assert len(chunks) == 5
    assert all("token" in order[a:b] for a, b in pairwise(chunks))
    assert order.index("short") < order.index("long")


def test_logprobs_are_the_models_own(tokenizer: Tokenizer) -> None:
    model, prompt = small_model(), prompts_of(4, 1)[0] + [1, 2, 3]
    listener = Listener()
    with BatchEngine(model, tokenizer, prefill_tokens=4) as engine:
        complete(
            engine, SequenceRequest(prompt, 1)
        )  # what is left of it is not used: every token of the prompt is asked for
        how = SamplingSettings(0.5, top_k=3, seed=1)
        engine.submit(SequenceRequest(prompt, 6, how, logprobs=3, prompt_logprobs=0), listener)
        pieces = listener.wait()
    with torch.no_grad():
        expected = model(torch.tensor([prompt + listener.tokens]))[0].log_softmax(-1)
    prompt_logprobs = pieces[0].prompt_logprobs
    assert [one.token for one in prompt_logprobs] == prompt[1:] and all(one.top == () for one in prompt_logprobs)
    assert [one.logprob for one in prompt_logprobs] == pytest.approx(
        [expected[place, token].item() for place, token in enumerate(prompt[1:])], abs=1e-4
    )
    assert not any(piece.prompt_logprobs for piece in pieces[1:])
    for place, piece in enumerate(pieces):
        [one] = piece.logprobs
        row = expected[len(prompt) - 1 + place]
        assert isinstance(one, TokenLogprob) and piece.tokens == (one.token,)
        assert one.logprob == pytest.approx(row[one.token].item(), abs=1e-4)
        assert [token for token, _ in one.top] == row.topk(3).indices.tolist()


def test_text_ends_before_a_stop_string_and_at_end_tokens(tokenizer: Tokenizer) -> None:
    model, prompt = small_model(), [3, 4, 5]
    [whole] = generate_text(model, tokenizer, [prompt], 20, SamplingSettings(seed=9))
    stop, end = whole.text[6:9], whole.tokens[12]
    with BatchEngine(model, tokenizer) as engine:
        listener = Listener()
        engine.submit(SequenceRequest(prompt, 20, SamplingSettings(seed=9), stop=(stop,)), listener)
        assert listener.wait()[-1].finish_reason == "stop"
        assert "".join(piece.text for piece in listener.pieces) == whole.text[: whole.text.index(stop)]
        ended = complete(engine, SequenceRequest(prompt, 20, SamplingSettings(seed=9), end_ids=[end]))
        assert ended.finish_reason == "stop" and ended.tokens == whole.tokens[: whole.tokens.index(end) + 1]
        assert complete(engine, SequenceRequest(prompt, 0)).finish_reason == "length"


@pytest.fixture
def stalled(tokenizer: Tokenizer) -> Iterator[tuple[BatchEngine, Listener, RequestHandle]]:
    """An engine of one row, taken by an answer that waits for the test's signal."""
    gate = threading.Event()

    def hold(piece: CompletionChunk) -> None:
        gate.wait(30)

    listener = Listener(hold)
    with BatchEngine(small_model(), tokenizer, max_rows=1, queue_limit=2) as engine:
        ticket = engine.submit(SequenceRequest([1], 40, GREEDY), listener)
        while not listener.pieces:
            time.sleep(0.001)
        listener.gate = gate  # type: ignore[attr-defined]
        yield engine, listener, ticket
        gate.set()


def test_cancelling_frees_the_slot_and_the_queue_is_bounded(stalled: Any) -> None:
    engine, first, ticket = stalled
    waiting, late = Listener(), Listener()
    cancelled = engine.submit(SequenceRequest([2], 5, GREEDY), waiting)
    engine.submit(SequenceRequest([3], 5, GREEDY, timeout=0.01), late)
    assert engine.stats().waiting == 2
    with pytest.raises(QueueFull) as full:
        engine.submit(SequenceRequest([2], 5, GREEDY), Listener())
    assert full.value.retry_after >= 1
    time.sleep(0.02)
    cancelled.cancel()
    ticket.cancel()
    first.gate.set()
    assert first.wait()[-1].finish_reason == "cancelled" and len(first.tokens) < 40
    assert waiting.wait() == [CompletionChunk("", finish_reason="cancelled")]
    assert late.wait() == [CompletionChunk("", finish_reason="timeout")]
    assert complete(engine, SequenceRequest([4], 3, GREEDY)).finish_reason == "length"
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)


def test_closing_drains_or_ends_at_once(tokenizer: Tokenizer) -> None:
    for drain in (True, False):
        with BatchEngine(small_model(), tokenizer, max_rows=1) as engine:
            listeners = [Listener() for _ in range(3)]
            for one in listeners:
                engine.submit(SequenceRequest([1], 40, GREEDY), one)
            engine.close(drain)
            reasons = [one.wait()[-1].finish_reason for one in listeners]
            assert reasons == ["length"] * 3 if drain else reasons[1:] == ["cancelled"] * 2
            with pytest.raises(RuntimeError, match="not running"):
                engine.submit(SequenceRequest([1], 1), Listener())


def test_logits_that_are_not_finite_end_only_their_row(tokenizer: Tokenizer) -> None:
    model = small_model()
    model.token_embedding.weight.data[7] = math.nan  # and every row's logit for 7 with it, the head being tied
    model.head.weight = torch.nn.Parameter(model.token_embedding.weight.data.nan_to_num())
    with BatchEngine(model, tokenizer, max_rows=4) as engine:
        good, bad = Listener(), Listener()
        engine.submit(SequenceRequest([1, 2], 20, GREEDY, end_ids=[]), good)
        engine.submit(SequenceRequest([1, 7], 20, GREEDY), bad)
        assert bad.wait() == [CompletionChunk("", finish_reason="error")]
        assert good.wait()[-1].finish_reason in ("length", "error")
        assert len(good.tokens) > 0
        complete(engine, SequenceRequest([1, 7, 2], 1, GREEDY))
        assert engine.stats().prompt_tokens_reused == 0 or 7 not in good.tokens


def test_a_request_that_raises_while_sampling_fails_alone(tokenizer: Tokenizer) -> None:
    broken = SamplingSettings(temperature=1, top_k=3, seed=1)
    object.__setattr__(broken, "top_k", 2.5)  # no whole number: torch refuses it, and SamplingSettings does not
    with BatchEngine(small_model(), tokenizer, max_rows=2) as engine:
        good = Listener()
        engine.submit(SequenceRequest([1], 40, GREEDY), good)
        assert complete(engine, SequenceRequest([2], 5, broken)).finish_reason == "error"
        assert complete(engine, SequenceRequest([2], 5, GREEDY)).finish_reason == "length"
        assert good.wait()[-1].finish_reason == "length" and engine.is_open
        assert engine.stats().requests_finished == {"error": 1, "length": 2}


def test_a_forward_that_raises_ends_the_sequences_in_it_and_not_the_engine(tokenizer: Tokenizer) -> None:
    model = small_model()
    hidden, failing, started = model.hidden, threading.Event(), threading.Event()

    def fail(*inputs: Any) -> torch.Tensor:
        if failing.is_set():
            failing.clear()
            raise ZeroDivisionError
        return hidden(*inputs)

    model.hidden = fail  # type: ignore[method-assign, assignment]
    with BatchEngine(model, tokenizer, max_rows=1) as engine:
        running, waiting = Listener(lambda chunk: started.set()), Listener()
        engine.submit(SequenceRequest([1], 40, GREEDY), running)
        engine.submit(SequenceRequest([1], 40, GREEDY), waiting)
        started.wait(10)
        failing.set()
        assert running.wait()[-1].finish_reason == "error" and waiting.wait()[-1].finish_reason == "length"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lost_device_closes_the_engine(tokenizer: Tokenizer) -> None:
    model = small_model()

    def lost(*inputs: Any) -> torch.Tensor:
        raise torch.AcceleratorError("the device is lost")

    model.hidden = lost  # type: ignore[method-assign, assignment]
    with BatchEngine(model, tokenizer) as engine:
        listener = Listener()
        engine.submit(SequenceRequest([1], 40, GREEDY), listener)
        assert listener.wait()[-1].finish_reason == "error"
        engine._thread.join(10)  # type: ignore[union-attr]
        assert not engine.is_open
        with pytest.raises(RuntimeError):
            engine.submit(SequenceRequest([1], 1), Listener())


@pytest.mark.parametrize("temperature", [0.0, 1000.0])
def test_ids_beyond_the_tokenizers_vocabulary_are_never_sampled(tokenizer: Tokenizer, temperature: float) -> None:
    torch.manual_seed(0)
    size = tokenizer.vocab_size + 200
    model = build_model(ModelConfig(vocab_size=size, context_length=CONTEXT, n_layers=1, n_heads=2, d_model=16)).eval()
    settings = SamplingSettings(temperature, repetition_penalty=1.1, seed=1)
    request = SequenceRequest([1, 2], 40, settings, logprobs=3, prompt_logprobs=300)
    with BatchEngine(model, tokenizer) as engine:
        listener = Listener()
        engine.submit(request, listener)
        chunks = listener.wait()
        with pytest.raises(ValueError, match=f"outside the vocabulary of {tokenizer.vocab_size}"):
            engine.submit(dataclasses.replace(request, tokens=[tokenizer.vocab_size]), Listener())
    assert chunks[-1].finish_reason == "length" and max(listener.tokens) < tokenizer.vocab_size
    entries = [entry for chunk in chunks for entry in (*chunk.logprobs, *chunk.prompt_logprobs)]
    assert all(token < tokenizer.vocab_size for entry in entries for token, _ in entry.top)
    [alone] = generate_text(model, tokenizer, [[1, 2]], 40, settings)
    assert alone.tokens == listener.tokens
    with pytest.raises(ValueError, match="outside the vocabulary"):
        generate_text(model, tokenizer, [[tokenizer.vocab_size]], 4, settings)


def test_one_that_no_longer_listens_stops_only_its_own_request(tokenizer: Tokenizer) -> None:
    def closed(piece: CompletionChunk) -> None:
        raise RuntimeError("Event loop is closed")

    with BatchEngine(small_model(), tokenizer) as engine:
        engine.submit(SequenceRequest([1], 40, GREEDY), closed)
        assert len(complete(engine, SequenceRequest([2], 5, GREEDY)).tokens) == 5
        while engine.stats().running:
            time.sleep(0.001)
        assert engine.stats().requests_finished == {"cancelled": 1, "length": 1}


def test_memory_is_planned(tokenizer: Tokenizer) -> None:
    model = small_model()
    row_bytes = 2 * 2 * 32 * CONTEXT * 4
    assert BatchEngine(model, tokenizer).stats().cache_bytes == 8 * row_bytes


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SequenceRequest([1] * 40, 9), "exceed the context"),
        (SequenceRequest([], 1), "is empty"),
        (SequenceRequest([99], 1), "outside the vocabulary"),
        (SequenceRequest([1], -1), "max_new_tokens"),
        (SequenceRequest([1], 1, stop=("",)), "stop string is empty"),
        (SequenceRequest([1], 1, logprobs=-1), "log-probabilities is below 0"),
    ],
)
def test_requests_that_cannot_be_answered_are_refused(
    request_: SequenceRequest, message: str, tokenizer: Tokenizer
) -> None:
    with BatchEngine(small_model(), tokenizer) as engine, pytest.raises(ValueError, match=message):
        engine.submit(request_, Listener())
