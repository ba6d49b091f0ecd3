"""A step of one token compiled: nearly the same logits, the same bits in every batch, and a sentence where it fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from understudy.config.model import ModelConfig
from understudy.inference import prepare_for_inference
from understudy.inference.compiled import TRACED, RowsLinear, RowsNorm, RowsPart, pack_int8, unpack_int8
from understudy.inference.quantize import is_prepared
from understudy.model import GPT, Bigram, KVCache
from understudy.serve.server import ServeOptions, prepared

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here, which compiles the step")
ERROR = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 2e-2, "int8": 2e-2}


def small_model(**more: Any) -> GPT:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 61, "context_length": 32, "n_layers": 2, "n_heads": 2, "d_model": 32}
    model = GPT(ModelConfig(**(shape | more)))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.15)
    return model.eval()


def as_compiled(layer: nn.Module, x: Tensor) -> Tensor:
    token = TRACED.set(True)
    try:
        found = layer(x)
    finally:
        TRACED.reset(token)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("width", [32, 30])
@pytest.mark.parametrize("weights", ERROR)
@torch.no_grad()
def test_what_is_compiled_and_what_reads_prompts_are_the_layer(weights: str, width: int) -> None:
    torch.manual_seed(1)
    layer, x = nn.Linear(width, 24), torch.randn(3, 2, width)
    expected, own = layer(x), RowsLinear(layer, weights)
    for found in (own(x), as_compiled(own, x)):
        assert found.shape == expected.shape
        assert float((found - expected).std() / expected.std()) < ERROR[weights]
    torch.testing.assert_close(own(x), as_compiled(own, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        as_compiled(RowsLinear(nn.Linear(width, 5, bias=False), weights), torch.zeros(1, width)), torch.zeros(1, 5)
    )


@torch.no_grad()
def test_norms_as_sums() -> None:
    torch.manual_seed(1)
    x = 3 * torch.randn(4, 1, 16) + 1
    for norm in (nn.LayerNorm(16), nn.LayerNorm(16, bias=False), nn.RMSNorm(16, eps=1e-6), nn.RMSNorm(16)):
        nn.init.normal_(norm.weight)
        torch.testing.assert_close(RowsNorm(norm)(x), norm(x))  # type: ignore[arg-type]


def test_int8_is_within_half_a_step_and_reads_back() -> None:
    torch.manual_seed(1)
    weight = torch.cat((torch.randn(50, 64), torch.tensor([[1.0, -1.0] * 32, [0.0] * 64])))
    packed, scales = pack_int8(weight)
    assert packed.shape == (52, 16) and packed.element_size() == 4
    found = torch.cat(unpack_int8(packed), dim=1) * scales[:, None]
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    inside = weight.abs() < 126 * step  # the largest may be cut by what lies below them
    assert bool(((found - weight).abs() <= 0.5001 * step + 1e-12)[inside].all())
    assert bool(((found - weight).abs() <= 1.0001 * step + 1e-12).all())


@needs_compiler
def test_a_row_has_the_same_bits_in_every_batch() -> None:
    torch.manual_seed(1)
    layer, x, compiled = RowsLinear(nn.Linear(32, 24), "int8"), torch.randn(7, 1, 32), dict[Any, Any]()
    with torch.inference_mode():
        part = RowsPart(layer, RowsLinear.forward, [x[:3]], 7, compiled)
        assert sorted(part.compiled) == [1, 3]
        together = part(x)  # three, three, and one
        torch.testing.assert_close(together, layer(x), rtol=1e-4, atol=1e-5)
        for rows in ([0], [2], [1, 4], [6, 5, 3], [3, 2, 1, 0]):
            assert torch.equal(part(x[rows]), together[rows])
        assert torch.equal(part(x.repeat(2, 1, 1)), layer(x.repeat(2, 1, 1)))  # more than it is for
    again = RowsPart(RowsLinear(nn.Linear(32, 24), "int8"), RowsLinear.forward, [x[:3]], 7, compiled)
    assert len(compiled) == 1 and again.compiled is part.compiled


@needs_compiler
def test_a_compiled_model_gives_the_logits() -> None:
    model = small_model(family="portable", n_kv_heads=1, activation="swiglu", value_embeddings=True)
    tokens = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    own = prepare_for_inference(model, "int8", rows=1, compiled=True)
    assert is_prepared(own) and isinstance(own, GPT) and not is_prepared(model)
    with torch.inference_mode():
        expected, whole, cache = model(tokens), own(tokens), KVCache(model.config, 2)
        steps = [own.hidden(tokens[1:, p : p + 1], cache.pick([1], [p])) for p in range(9)]
        alone = torch.cat([own.logits(step[:, -1]) for step in steps])
    for found, wanted in ((whole, expected), (alone, expected[1])):
        assert float((found - wanted).std() / wanted.std()) < 2 * ERROR["int8"]
    torch.testing.assert_close(alone, whole[1], rtol=1e-4, atol=1e-4)
    assert not torch.equal(alone, whole[1])  # other code indeed


def test_without_a_compiler_it_is_said_and_served_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch._inductor.config as inductor

    class ARun:
        model = small_model(d_model=24)  # a shape that nothing else has compiled
        path = Path("runs/someone")

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ValueError, match="cannot be compiled here"):
        prepare_for_inference(ARun.model, compiled=True)
    with pytest.raises(ValueError, match="only steps of a GPT on a CPU"):
        prepare_for_inference(Bigram(ModelConfig(family="bigram", vocab_size=5)), compiled=True)
    model = prepared(ARun(), ServeOptions([], compile=True))  # type: ignore[arg-type]
    assert is_prepared(model) and "someone is served uncompiled" in capsys.readouterr().err
