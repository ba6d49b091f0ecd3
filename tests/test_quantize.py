"""Models made ready to answer: nearly the same logits, the same bits in every batch, and the trained model untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from understudy.config.model import LoraConfig, ModelConfig
from understudy.inference import quantize
from understudy.inference.quantize import (
    WEIGHTS,
    BatchInvariantLinear,
    Int8Linear,
    equal_calls,
    in_calls,
    is_prepared,
    prepare_for_inference,
    rows_per_call,
)
from understudy.model import GPT, KVCache
from understudy.model.masks import cached

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2"},
    "qwen3": {"family": "qwen3", "n_kv_heads": 2, "activation": "swiglu"},
}
ERROR = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 2e-2, "int8": 4e-2}
"""Of logits, as a share of their spread; 2 to 4 times the errors of random models of this size."""


def small_model(shape: str = "gpt2", **more: Any) -> GPT:
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(vocab_size=61, context_length=32, n_layers=2, n_heads=2, d_model=32, **SHAPES[shape], **more)
    )
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.15)
    return model.eval()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_stay_and_rows_do_not_depend_on_their_batch(shape: str, weights: str) -> None:
    model, tokens = small_model(shape), torch.randint(0, 61, (5, 9), generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare_for_inference(model, weights, rows=5)
    assert is_prepared(prepared) and not is_prepared(model)
    expected, computed = model(tokens), prepared(tokens)
    assert computed.dtype == torch.float32
    assert float((computed - expected).std() / expected.std()) < ERROR[weights]
    assert weights == "fp32" or not torch.equal(computed, expected)

    def one_by_one(rows: list[int]) -> Tensor:
        cache = KVCache(model.shape, 5)
        steps = [
            prepared(tokens[rows, place : place + 1], cached(cache.pick(rows, [place] * len(rows)), 1))
            for place in range(9)
        ]
        return torch.cat(steps, 1)

    if weights in ("fp16", "bf16"):  # whose products nothing is promised of
        return
    together = one_by_one([0, 1, 2, 3, 4])
    for rows in ([0], [3], [2, 4], [4, 1, 0], [3, 2, 1, 0]):
        assert torch.equal(one_by_one(rows), together[rows])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_int8_rounds_by_output_and_multiplies_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]]))
    whole = Int8Linear(layer)
    assert whole.numbers.dtype == torch.int8
    assert whole.numbers.tolist() == [[64, -127], [127, 64], [0, 0]]
    torch.testing.assert_close(whole.numbers * whole.scales[:, None], layer.weight.detach(), rtol=0, atol=0.01)
    monkeypatch.setattr(quantize, "BLOCK_NUMBERS", 4)
    blocks, x = Int8Linear(layer), torch.randn(2, 7, 2)
    assert (whole.block_rows, blocks.block_rows) == (1 << 16, 2)
    torch.testing.assert_close(blocks(x), whole(x))
    torch.testing.assert_close(whole(x), layer(x), rtol=0, atol=0.05)


def test_int8_weights_take_a_byte_each() -> None:
    model = small_model()
    prepared = prepare_for_inference(model, "int8")
    numbers = sum(buffer.numel() for buffer in prepared.buffers() if buffer.dtype == torch.int8)
    linear = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    assert numbers == linear


def test_a_score_head_stays_as_it_is() -> None:
    model = small_model(score_head=True)
    prepared = prepare_for_inference(model, "int8")
    assert prepared.score.weight is model.score.weight  # type: ignore[union-attr]


def test_only_calls_that_give_equal_bits_go_together() -> None:
    """Kernels made to misbehave: by the number of rows, by the place in the call, by the other rows."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert equal_calls(lambda x: x, x) == [[1, 2, 3, 4, 6]]
    assert equal_calls(lambda x: x + (len(x) > 2) * 1e-3, x) == [[1, 2], [3, 4, 6]]
    assert equal_calls(lambda x: x + torch.arange(len(x))[:, None] * 1e-3, x) == [[1]]
    assert equal_calls(lambda x: x / x.abs().max(), x) == [[1]]


def test_of_numbers_of_rows_that_agree_the_fewest_calls_are_taken() -> None:
    layer = nn.Linear(4, 4)
    assert rows_per_call(lambda x: x * 2, 4, 6) == [1, 2, 3, 4, 6, 6]
    assert rows_per_call(lambda x: x + (len(x) > 1) * 1e-3, 4, 6) == [2, 2, 3, 4, 6, 6]
    assert rows_per_call(lambda x: x + torch.arange(len(x))[:, None] * 1e-3, 4, 6) == [1] * 6
    assert len(rows_per_call(layer, 4, 5)) == 5


def test_calls_are_filled_up_and_cut() -> None:
    given = []

    def kernel(x: Tensor) -> Tensor:
        given.append(len(x))
        return x * 2

    x = torch.arange(5.0)[:, None]
    assert in_calls(kernel, x, 4)[:, 0].tolist() == [0, 2, 4, 6, 8] and given == [4, 4]
    layer = BatchInvariantLinear(kernel, [3, 3, 3])  # type: ignore[arg-type]
    given.clear()
    assert [layer(torch.ones(n, 1, 1)).shape for n in (0, 1, 3, 7)] == [(0, 1, 1), (1, 1, 1), (3, 1, 1), (7, 1, 1)]
    assert given == [0, 3, 3, 7]


def test_adapters_are_merged_in_the_copy_only() -> None:
    model = small_model(lora=LoraConfig(rank=2))
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter)
    tokens = torch.randint(0, 61, (1, 9))
    with torch.no_grad():
        before = model(tokens)
        prepared = prepare_for_inference(model)
        torch.testing.assert_close(prepared(tokens), before, rtol=1e-4, atol=1e-4)
        assert torch.equal(model(tokens), before)


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of fp32, fp16, bf16, int8"):
        prepare_for_inference(small_model(), "int4")
