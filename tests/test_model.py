"""The models: causality, caches, gradients in every combination, and the arithmetic of their parts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from understudy.config.model import ModelConfig
from understudy.inference.lookinside import look_inside
from understudy.model import GPT, Bigram, KVCache, build_model
from understudy.model.attention import dot_product_attention
from understudy.model.masks import cached, causal
from understudy.model.positions import rope_table, rotate, shift_keys

TINY = {"vocab_size": 50, "context_length": 24, "n_layers": 2, "n_heads": 4, "d_model": 32}
RICH = {
    "ngram_orders": (2, 4),
    "ngram_buckets": 64,
    "value_embeddings": True,
    "key_shift": True,
    "logit_softcap": 5.0,
    "n_kv_heads": 2,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2"},
    "qwen3": {"family": "qwen3", "n_kv_heads": 2},
    "lfm2": {"family": "lfm2", "n_kv_heads": 2, "conv_layers": (0,), "conv_width": 4},
    "lfm2-rich": {"family": "lfm2", **RICH, "conv_layers": (1,)},
    "qwen3-rich": {"family": "qwen3", **RICH},
    "gpt2-rich": {"family": "gpt2", **RICH, "head_width": 12, "tied": False},
}


def make(name: str, **more: Any) -> GPT:
    torch.manual_seed(0)
    model = GPT(ModelConfig(**(TINY | SHAPES[name] | more)))
    with torch.no_grad():  # move away from the start, where n-gram tables are zero and norms are ones
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return model.eval()


def tokens(rows: int = 3, length: int = 20) -> torch.Tensor:
    return torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SHAPES)
def test_a_later_token_changes_no_earlier_logit(name: str) -> None:
    model, text = make(name), tokens()
    changed = text.clone()
    changed[:, 12:] = (changed[:, 12:] + 7) % 50
    before, after = model(text), model(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


@pytest.mark.parametrize("name", SHAPES)
def test_cached_equals_uncached_in_any_steps(name: str) -> None:
    model, text = make(name), tokens()
    cache = KVCache(model.shape, 3)
    parts = [model(text[:, a:b], cached(cache, b - a)) for a, b in itertools.pairwise((0, 7, 8, 9, 20))]
    torch.testing.assert_close(torch.cat(parts, 1), model(text), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_rows_of_different_length_share_a_cache(name: str) -> None:
    model, text = make(name), tokens()
    lengths, cache = [3, 9, 6], KVCache(model.shape, 3)
    model(text[:, :9], cached(cache, 9))
    cache.set_lengths(torch.tensor(lengths))
    got = model(text[:, 12:14], cached(cache, 2))
    for row, length in enumerate(lengths):
        alone = torch.cat((text[row : row + 1, :length], text[row : row + 1, 12:14]), 1)
        torch.testing.assert_close(got[row], model(alone)[0, -2:], atol=1e-5, rtol=1e-5)


OPTIONS = {
    "position": ("learned", "rope"),
    "norm": ("layernorm", "rmsnorm"),
    "activation": ("gelu", "gelu_tanh", "relu2", "swiglu"),
    "bias": (True, False),
    "qk_norm": (True, False),
    "tied": (True, False),
    "extras": (
        {},
        {"n_kv_heads": 1, "dropout": 0.2, "ngram_orders": (3,), "ngram_dropout": 0.3},
        {"value_embeddings": True, "logit_softcap": 10.0, "head_width": 6},
        {"key_shift": True, "head_width": 12, "n_kv_heads": 2},
        {"conv_layers": (0,), "dropout": 0.1},
    ),
}


def test_any_combination_of_options_trains_every_parameter() -> None:
    text = tokens(2, 8)
    for number, values in enumerate(itertools.product(*OPTIONS.values())):
        options = dict(zip(OPTIONS, values))
        extras = options.pop("extras")
        torch.manual_seed(number)
        model = build_model(ModelConfig(**TINY, **options, **extras))
        loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        assert loss.item() == pytest.approx(math.log(50), abs=0.5)
        loss.backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), (options, extras, name)
            assert p.grad.abs().sum() > 0, (options, extras, name)


def test_padding_rows_of_the_vocabulary_are_never_seen() -> None:
    model = make("gpt2", tied=False)
    assert model.head.weight.shape[0] == 64 and model(tokens()).shape == (3, 20, 50)
    model(tokens()).logsumexp(-1).sum().backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad[50:].abs().sum() == 0 and model.head.weight.grad[:50].abs().sum() > 0


def test_projections_into_the_stream_start_smaller_with_depth_or_at_zero() -> None:
    for layers in (2, 8):
        model = GPT(ModelConfig(vocab_size=50, n_layers=layers, d_model=128))
        for p in (model.blocks[0].attention.project.weight, model.blocks[0].mlp.down.weight):  # type: ignore[union-attr]
            assert p.std().item() == pytest.approx(0.02 / math.sqrt(2 * layers), rel=0.05)
    start = GPT(ModelConfig(vocab_size=50, zero_init_projections=True, tied=False))
    torch.testing.assert_close(start(tokens()), torch.zeros(3, 20, 50))


def test_shifted_keys_have_half_of_the_token_before_within_their_document() -> None:
    keys = torch.arange(1.0, 41.0).view(1, 1, 5, 8)
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    turned, still = [0, 1, 4, 5], [2, 3, 6, 7]
    for places, alone in ((None, (0,)), (positions, (0, 3))):
        shifted = shift_keys(keys, places)[0, 0]
        torch.testing.assert_close(shifted[:, turned], keys[0, 0][:, turned])
        for t in range(5):
            expected = torch.zeros(4) if t in alone else keys[0, 0, t - 1, still]
            torch.testing.assert_close(shifted[t, still], expected)


def test_a_new_model_with_shifted_keys_attends_after_earlier_copies() -> None:
    """Before any training, the last token's attention finds the token after its earlier copy more often than chance."""
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(
            family="qwen3", vocab_size=500, context_length=64, n_layers=1, n_heads=2, d_model=64, key_shift=True
        )
    )
    attention, computed = model.blocks[0].attention, 0.0
    for _ in range(50):
        text = torch.randperm(500)[:40][None]
        text[0, -1] = text[0, 10]
        x = model.blocks[0].attention_norm(model.token_embedding(text))
        q, k, _ = (part.unflatten(-1, (2, 32)).transpose(1, 2) for part in attention.qkv(x).split(attention.widths, -1))
        q, k = (
            rotate(norm(part), model.rope[:, :40])
            for norm, part in ((attention.query_norm, q), (attention.key_norm, k))
        )
        scores = (q[:, :, -1:] @ shift_keys(k, None).transpose(2, 3))[0, :, 0]  # (H, T)
        computed += (scores.argmax(-1) == 11).float().mean().item() / 50
    assert computed > 0.5


def test_rotary_scores_depend_on_distance_alone() -> None:
    table = rope_table(ModelConfig(family="qwen3", vocab_size=8, context_length=32, n_heads=1, d_model=8).resolve())
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def score(m: int, n: int) -> float:
        return (rotate(q, table[:, m : m + 1]) * rotate(k, table[:, n : n + 1])).sum().item()

    assert score(5, 2) == pytest.approx(score(25, 22), abs=1e-5)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)


def test_grouped_queries_equal_repeated_keys_and_values() -> None:
    grouped = make("qwen3", n_kv_heads=2)
    full = GPT(ModelConfig(**(TINY | {"family": "qwen3"}))).eval()
    weights = grouped.state_dict()
    for name in [n for n in weights if n.endswith("qkv.weight")]:
        q, k, v = weights[name].split([32, 16, 16])
        weights[name] = torch.cat([q, *(part.view(2, 8, 32).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v))])
    full.load_state_dict(weights)
    torch.testing.assert_close(full(tokens()), grouped(tokens()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("queries", "masked"), [(9, False), (9, True), (1, True), (1, False)])
def test_plain_products_in_bf16_are_the_attention_of_fp32(queries: int, masked: bool) -> None:
    """Attention on a CPU in bf16, grouped heads and gradients included, equals SDPA in fp32 up to rounding."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(3, heads, t, 8, requires_grad=True) for heads, t in ((4, queries), (2, 9), (2, 9)))
    mask = torch.rand(3, 1, queries, 9) < 0.6 if masked else None
    if mask is not None:
        mask[..., 0] = True
    computed = dot_product_attention(*(x.bfloat16() for x in (q, k, v)), mask)
    expected = F.scaled_dot_product_attention(q, k, v, mask, is_causal=queries > 1 and not masked, enable_gqa=True)
    assert computed.dtype == torch.bfloat16
    torch.testing.assert_close(computed.float(), expected, atol=0.02, rtol=0.02)
    weights = torch.randn(expected.shape)
    for ours, theirs in zip(
        torch.autograd.grad((computed.float() * weights).sum(), (q, k, v)),
        torch.autograd.grad((expected * weights).sum(), (q, k, v)),
    ):
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)


def test_scores_are_of_fp32_where_products_are_of_bf16() -> None:
    model, hidden = make("gpt2", score_head=True), torch.randn(5, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        computed = model.score(hidden)
    assert computed.abs().sum() > 0 and torch.equal(computed, model.score(hidden))


def test_activation_checkpointing_changes_no_gradient() -> None:
    grads = []
    for on in (False, True):
        model = make("qwen3-rich").train()
        model.set_activation_checkpointing(on)
        model(tokens()).square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*grads):
        torch.testing.assert_close(plain, checkpointed)


def test_ngram_dropout_drops_while_training_only() -> None:
    model = make("gpt2-rich", ngram_dropout=0.5)
    assert torch.equal(model(tokens()), model(tokens()))
    model.train()
    first, second = (model.ngram_embedding(tokens(), causal()) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    mean = torch.stack([model.ngram_embedding(tokens(), causal()) for _ in range(400)]).mean(0)
    torch.testing.assert_close(mean, model.eval().ngram_embedding(tokens(), causal()), atol=0.03, rtol=0)


def test_too_many_tokens_are_refused_with_and_without_a_cache() -> None:
    model = make("gpt2")
    with pytest.raises(ValueError, match="25 tokens do not fit the context of 24"):
        model(tokens(1, 25))
    cache = KVCache(model.shape, 1, max_tokens=10)
    model(tokens(1, 8), cached(cache, 8))
    with pytest.raises(ValueError, match="11 tokens"):
        cached(cache, 3)


def test_the_bigram_sees_one_token() -> None:
    model = build_model(ModelConfig(family="bigram", vocab_size=50))
    assert isinstance(model, Bigram)
    torch.nn.init.normal_(model.table.weight)
    text = tokens()
    assert torch.equal(model(text)[0, 5], model(text[:1, 5:6])[0, 0]) and model(text).shape == (3, 20, 50)


def test_flops_count_the_products_of_gpt2() -> None:
    config = ModelConfig(vocab_size=50257, context_length=1024, n_layers=12, n_heads=12, d_model=768)
    with torch.device("meta"):
        flops = GPT(config).flops_per_token()
    assert flops == 6 * (12 * 12 * 768**2 + 50304 * 768) + 12 * 12 * 768 * 1024


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"conv_layers": (0, 1)}, "leave one to attention"),
        ({"conv_layers": (0,), "no_rope_layers": (0,)}, "is a convolution and has no positions"),
        ({"conv_layers": (0,), "value_embeddings": True}, "which are all convolutions"),
        ({"lora": {"targets": ("gates",)}}, "the model has no convolutions"),
        ({"conv_width": 4}, "conv_width"),
    ],
)
def test_convolutions_that_would_be_ignored_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ModelConfig(family="lfm2", vocab_size=50, n_layers=2, **options)


def test_a_convolution_starts_as_the_token_before_and_keys_look_for_it() -> None:
    """The second layer's heads attend to the token after an earlier copy of their own token, untrained."""
    torch.manual_seed(0)
    config = ModelConfig(
        family="lfm2", vocab_size=500, context_length=64, n_layers=2, n_heads=4, d_model=128, conv_layers=(0,)
    )
    text = torch.randperm(500)[:20].repeat(2)[None]
    with torch.no_grad():
        look = look_inside(GPT(config).eval(), text[0].tolist())
    weights = look.attention[1].mean(0)  # (T, T)
    copied = torch.stack([weights[query, query - 19] for query in range(21, 40)]).mean()
    assert not look.attention[0].any() and copied > 3 / 40
