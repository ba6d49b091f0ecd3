"""Generating text: whole characters, stop strings wherever tokens split them, and a stream that is the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.config.model import ModelConfig
from understudy.inference.generate import generate, generate_text, stream_text
from understudy.inference.requests import Completion, CompletionText
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT, Bigram
from understudy.tokenizer import Tokenizer, train_tokenizer


class Chunks:
    """A tokenizer whose tokens are given pieces of bytes, however odd."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def token_bytes(self, id: int) -> bytes:
        return self.pieces[id]


def written(pieces: list[bytes], stop: list[str]) -> tuple[list[str], CompletionText]:
    """The text shown at each piece, and the completion at the end."""
    text = CompletionText(Chunks(pieces), stop, ())  # type: ignore[arg-type]
    shown: list[str] = []
    for token in range(len(pieces)):
        shown.append(text.push(token, 0.0))
        if text.stopped:
            return shown, text
    return [*shown, text.finish()], text


def cut_at_first_stop(text: str, stop: list[str]) -> str:
    """The definition: letter by letter, until the text ends with a stop string; the longest of those goes."""
    for end in range(len(text) + 1):
        if complete := [len(one) for one in stop if text[:end].endswith(one)]:
            return text[: end - max(complete)]
    return text


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_over_any_tokens(pieces: list[str], stop: list[str]) -> None:
    whole = "".join(pieces)
    shown, text = written([piece.encode() for piece in pieces], stop)
    assert "".join(shown) == text.completion().text == cut_at_first_stop(whole, stop)
    assert text.stopped == any(one in whole for one in stop)
    # the text held back on the way is no more than the longest beginning of a stop string
    for end in range(1, len(shown)):
        seen, so_far = "".join(shown[:end]), "".join(pieces[:end])
        if so_far.startswith(seen) and not any(one in so_far for one in stop):
            tail = so_far[len(seen) :]
            assert tail == "" or any(one.startswith(tail) and one != tail for one in stop)


def test_stop_strings_by_hand() -> None:
    assert written([b"Hamlet: to be\nOph", b"elia", b": my lord"], ["\nOphelia:"])[0] == ["Hamlet: to be", "", ""]
    assert written([b"a\nOph", b"inally"], ["\nOphelia:"])[0] == ["a", "\nOphinally", ""]
    assert written([b"a\nOph"], ["\nOphelia:"])[0] == ["a", "\nOph"]
    assert written([b"xabc"], ["abc", "b"])[0] == ["xa"]  # b is complete before abc is
    assert written([b"xabc"], ["bc", "abc", "c"])[0] == ["x"]
    assert written([b"end."], "d.")[0] == ["en"]  # type: ignore[arg-type]  # one string is no list of letters


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12), st.data())
def test_characters_are_never_split(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)])]
    shown, _ = written(pieces, [])
    assert "".join(shown) == text
    assert all(set(piece) <= set(text) for piece in shown)  # no replacement for half a character


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=2), max_size=8))
def test_broken_bytes_are_replaced_as_decode_does(pieces: list[bytes]) -> None:
    shown, _ = written(pieces, [])
    assert "".join(shown) == b"".join(pieces).decode(errors="replace")


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    """Hardly more than single bytes, so that a random model writes broken characters all the time."""
    return train_tokenizer("bpe", ["to be or not to be, that is the question"], vocab_size=260)


def random_model(tokenizer: Tokenizer, context_length: int = 24) -> GPT:
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size, context_length=context_length, n_layers=2, n_heads=2, d_model=32
    )
    return GPT(shape).eval()


def chain(tokenizer: Tokenizer, ids: list[int]) -> Bigram:
    """A model that says just this, each token leading to the next and the last to the first."""
    assert len(set(ids)) == len(ids), "each token needs one successor"
    model = Bigram(ModelConfig(family="bigram", vocab_size=tokenizer.vocab_size))
    with torch.no_grad():
        for one, following in zip(ids, [*ids[1:], ids[0]]):
            model.table.weight[one, following] = 100.0
    return model


@pytest.mark.parametrize("stop", [[], ["e", " t"]])
def test_a_stream_is_the_whole_text(bytewise: Tokenizer, stop: list[str]) -> None:
    model, how = random_model(bytewise), SamplingSettings(seed=8)
    [whole] = generate_text(model, bytewise, ["to be"], 200, how, stop)
    pieces = list(stream_text(model, bytewise, "to be", 200, how, stop))
    assert "".join(pieces) == whole.text
    assert "" not in pieces
    assert len(pieces) > 3
    if not stop:
        generated = [token for token in whole.tokens if token != bytewise.eot_id]
        assert whole.text == bytewise.decode(generated)


def test_a_batch_of_texts(bytewise: Tokenizer) -> None:
    """Prompts of different lengths, beyond the context too, give the same as alone; rows end by themselves."""
    model = random_model(bytewise)
    greedy = SamplingSettings(temperature=0, repetition_penalty=1.5)
    prompts = ["to be", "", "q", "that is the question, or is it not the question at all?"]
    together = generate_text(model, bytewise, prompts, 40, greedy, stop=["e", "\x00"])
    assert together == [
        generate_text(model, bytewise, [prompt], 40, greedy, stop=["e", "\x00"])[0] for prompt in prompts
    ]
    assert all(len(one.tokens) == len(one.logprobs) for one in together)
    assert set(together[0].logprobs) == {0.0}  # greedy leaves no choice
    assert generate_text(model, bytewise, [], 40) == []


def test_a_completion_in_full() -> None:
    tokenizer = train_tokenizer("char", ["to be\n"])
    model = chain(tokenizer, tokenizer.encode("to be"))
    how = SamplingSettings(temperature=0)
    assert generate_text(model, tokenizer, ["t"], 4, how) == [
        Completion("o be", tokenizer.encode("o be"), [0.0] * 4, "length")
    ]
    assert generate_text(model, tokenizer, ["t", "b"], 9, how, stop="eto") == [
        Completion("o b", tokenizer.encode("o beto"), [0.0] * 6, "stop"),
        Completion("", tokenizer.encode("eto"), [0.0] * 3, "stop"),
    ]
    assert generate_text(model, tokenizer, ["t"], 0, how) == [Completion("", [], [], "length")]


def test_logprobs_are_of_the_distribution_sampled_from(bytewise: Tokenizer) -> None:
    model = random_model(bytewise)
    how = SamplingSettings(temperature=0.7, top_k=5, seed=2)
    [got] = generate_text(model, bytewise, ["to be"], 6, how)
    ids = bytewise.encode("to be")
    with torch.no_grad():
        logits = model(torch.tensor([ids + got.tokens]))[0, len(ids) - 1 : -1] / 0.7
    fifth = logits.topk(5).values[:, -1:]
    expected = logits.masked_fill(logits < fifth, -torch.inf).log_softmax(-1)
    assert got.logprobs == pytest.approx(expected[range(6), got.tokens].tolist(), abs=1e-4)


def test_multibyte_characters_come_whole(bytewise: Tokenizer) -> None:
    text = "é☃𝄞"
    ids = bytewise.encode(text)
    assert len(ids) > len(text)
    model = chain(bytewise, [bytewise.encode("q")[0], *ids])
    assert list(stream_text(model, bytewise, "q", len(ids), SamplingSettings(temperature=0))) == list(text)
    # cut inside the last one, as the length demands: shown as what it is, at the end only
    assert list(stream_text(model, bytewise, "q", len(ids) - 1, SamplingSettings(temperature=0))) == ["é", "☃", "�"]


def test_the_end_of_text_token_ends_a_text(bytewise: Tokenizer) -> None:
    end = bytewise.eot_id
    assert end is not None
    model = chain(bytewise, [*bytewise.encode("z"), *bytewise.encode("ax"), end])
    how = SamplingSettings(temperature=0)
    ids = bytewise.encode("ax")
    [done] = generate_text(model, bytewise, ["z"], 9, how)
    assert done == Completion("ax", [*ids, end], [0.0] * 3, "stop")
    assert list(stream_text(model, bytewise, "z", 9, how)) == ["a", "x"]
    # a beginning of a stop string that is not completed is text
    assert generate_text(model, bytewise, ["z"], 9, how, stop="xy")[0].text == "ax"


def test_empty_prompts(bytewise: Tokenizer) -> None:
    how = SamplingSettings(temperature=0)
    assert bytewise.eot_id is not None
    model = chain(bytewise, [bytewise.eot_id, *bytewise.encode("b")])
    assert generate_text(model, bytewise, [""], 1, how)[0].text == "b"
    lines = train_tokenizer("char", ["ab\n"])
    assert generate_text(chain(lines, lines.encode("\na")), lines, [""], 1, how)[0].text == "a"
    letters = train_tokenizer("char", ["ab"])
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate_text(chain(letters, [0, 1]), letters, ["a", ""], 1, how)


def test_mistakes_are_raised_before_the_first_piece(bytewise: Tokenizer) -> None:
    model = random_model(bytewise)
    with pytest.raises(ValueError, match="stop string is empty"):
        stream_text(model, bytewise, "to be", 5, stop=["a", ""])
    with pytest.raises(ValueError, match="max_new_tokens is -2"):
        stream_text(model, bytewise, "to be", -2)
    small = random_model(train_tokenizer("char", ["ab"]))
    with pytest.raises(ValueError, match="outside the vocabulary of 2; encode with the run's"):
        stream_text(small, bytewise, "to be", 5)


def test_a_stream_may_be_left(bytewise: Tokenizer) -> None:
    model = random_model(bytewise).train()
    stream = stream_text(model, bytewise, "to be", 10**9, SamplingSettings(seed=1))
    assert next(stream)
    del stream
    assert model.training
    assert len(generate(model, [[1]], 3)[0]) == 4
