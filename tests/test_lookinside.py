"""Inspection of a forward pass: each shown weight and number is the one that the model computed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from test_model import SHAPES, make, tokens
from understudy.config.model import ModelConfig
from understudy.inference.lookinside import heads_off, look_inside, visible
from understudy.model import GPT, Bigram

TEXT = tokens(1)[0].tolist()


@pytest.mark.parametrize("name", SHAPES)
def test_attention_weights_sum_the_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    summed: list[tuple[torch.Tensor, torch.Tensor]] = []
    plain = F.scaled_dot_product_attention

    def spy(q: Any, k: Any, v: Any, **more: Any) -> torch.Tensor:
        out = plain(q, k, v, **more)
        summed.append((v, out))
        return out

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    model = make(name)
    look = look_inside(model, TEXT)
    layers = [layer for layer in range(2) if layer not in model.shape.conv_layers]
    assert len(summed) == len(layers) and look.attention.shape == (2, 4, 20, 20)
    for weights, (v, out) in zip(look.attention[layers], summed):
        grouped = v[0].repeat_interleave(4 // v.shape[1], dim=0)  # (H, T, K)
        torch.testing.assert_close(weights @ grouped, out[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(look.attention[layers].sum(-1), torch.ones(len(layers), 4, 20))
    assert not look.attention[list(model.shape.conv_layers)].any()
    assert (look.attention.triu(1) == 0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_probabilities_and_the_last_row_of_the_lens_are_the_models_own(name: str) -> None:
    model = make(name)
    logprobs = model(torch.tensor([TEXT]))[0].log_softmax(-1)
    look = look_inside(model, TEXT, alternatives=3)
    assert look.following.tolist() == [*TEXT[1:], int(logprobs[-1].argmax())]
    torch.testing.assert_close(look.logprobs, logprobs.gather(1, look.following[:, None])[:, 0])
    torch.testing.assert_close(look.guesses.logprobs, logprobs.topk(3).values)
    assert torch.equal(look.guesses.tokens, logprobs.topk(3).indices)
    assert look.lens.tokens.shape == (3, 20, 3)
    assert torch.equal(look.lens_logprobs[-1], look.logprobs) and torch.equal(look.lens.tokens[-1], look.guesses.tokens)


def test_the_lens_ends_the_model_after_each_layer() -> None:
    model, whole = make("qwen3"), look_inside(make("qwen3"), TEXT)
    for layers in (0, 1):
        model.blocks = make("qwen3").blocks[:layers]
        ended = model(torch.tensor([TEXT]))[0].log_softmax(-1)
        torch.testing.assert_close(whole.lens_logprobs[layers], ended.gather(1, whole.following[:, None])[:, 0])


def test_looking_changes_nothing() -> None:
    model = make("qwen3-rich")
    before = model(torch.tensor([TEXT]))
    look_inside(model, TEXT)
    assert torch.equal(model(torch.tensor([TEXT])), before)


@pytest.mark.parametrize("name", SHAPES)
def test_a_head_that_is_off_adds_nothing(name: str) -> None:
    model, row = make(name), torch.tensor([TEXT])
    before, look = model(row), look_inside(model, TEXT)
    width, layer = model.shape.head_width, 0 if 1 in model.shape.conv_layers else 1
    with heads_off(model, [(layer, 0), (layer, 2)]):
        without, shown = model(row), look_inside(model, TEXT)
    assert torch.equal(model(row), before)  # and then all is as it was
    assert torch.equal(shown.attention, look.attention)
    torch.testing.assert_close(shown.logprobs[:-1], without[0].log_softmax(-1)[:-1].gather(1, row[0, 1:, None])[:, 0])
    with torch.no_grad():
        for head in (0, 2):
            model.blocks[layer].attention.project.weight[:, head * width : (head + 1) * width] = 0
    torch.testing.assert_close(model(row), without)
    assert not torch.allclose(before, without)


def test_heads_that_are_off_are_checked_and_come_back_after_an_error() -> None:
    model, row = make("gpt2"), torch.tensor([TEXT])
    before = model(row)
    with pytest.raises(ValueError, match="2 layers with 4 heads"), heads_off(model, [(0, 1), (2, 0)]):
        pass
    with pytest.raises(ValueError, match="is a short convolution"), heads_off(make("lfm2"), [(0, 0)]):
        pass
    with pytest.raises(KeyError), heads_off(model, [(0, 0)]):
        raise KeyError
    with heads_off(model, []):
        assert torch.equal(model(row), before)
    assert torch.equal(model(row), before)


def test_a_bigram_has_probabilities_and_no_layers() -> None:
    model = Bigram(ModelConfig(family="bigram", vocab_size=9, context_length=4))
    with torch.no_grad():
        model.table.weight[3, 5] = math.log(8.0)
    look = look_inside(model, [1, 3, 5], alternatives=20)
    assert look.attention.shape == (0, 0, 3, 3) and look.lens.tokens.shape == (1, 3, 9)
    assert look.logprobs[:2].exp().tolist() == pytest.approx([1 / 9, 0.5]) and look.guesses.tokens[1, 0] == 5


@pytest.mark.parametrize(
    "row,complaint", [([], "is empty"), ([50], "token 50"), ([0] * 25, "25 tokens do not fit the context of 24")]
)
def test_unreadable_tokens_are_refused(row: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        look_inside(make("gpt2"), row)


def test_white_space_is_made_visible() -> None:
    assert [visible(text) for text in (" the", "a b", "\n", "  ", "it \t", "")] == [
        "␣the", "a b", "↵", "␣␣", "it ⇥", "",
    ]  # fmt: skip


def test_ids_beyond_the_tokenizers_vocabulary_are_no_alternatives() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=300, context_length=16, n_layers=1, n_heads=2, d_model=16)).eval()
    look = look_inside(model, [1, 2, 3], vocab_size=20)
    assert int(look.lens.tokens.max()) < 20 and int(look.following.max()) < 20
