"""The precision to generate in: weights are converted once, and not for each token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from serving import complete, make_run
from understudy.config.model import ModelConfig
from understudy.inference.batching import BatchEngine
from understudy.inference.generate import generate, generate_text
from understudy.inference.quantize import default_weights, model_for_generation
from understudy.inference.requests import SequenceRequest
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT

SMALL = {"vocab_size": 65, "context_length": 64, "n_layers": 2, "n_heads": 2, "d_model": 32}


def casts_of_weights(model: GPT, run: Any) -> int:
    """How often a call converts a weight matrix."""
    shapes = {tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim == 2}
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
        run()
    events = trace.key_averages(group_by_input_shape=True)
    return sum(
        event.count for event in events if event.key == "aten::_to_copy" and tuple(event.input_shapes[0]) in shapes
    )


def test_autocast_converts_each_weight_once(tmp_path: Any) -> None:
    model, new = GPT(ModelConfig(**SMALL)), 20  # type: ignore[arg-type]
    matrices = sum(parameter.ndim == 2 for parameter in model.parameters())
    run = make_run(tmp_path / "run")
    settings = SamplingSettings(seed=1)
    for calls in (
        lambda: generate(model, [[1, 2]], new, autocast=torch.bfloat16),
        lambda: generate_text(model, run.tokenizer, [[1, 2]], new, settings, autocast=torch.bfloat16),
    ):
        assert 0 < casts_of_weights(model, calls) <= matrices


def test_the_default_is_fp32_where_there_is_no_gpu() -> None:
    model = GPT(ModelConfig(**SMALL))  # type: ignore[arg-type]
    assert default_weights(torch.device("cpu")) == default_weights(torch.device("mps")) == "fp32"
    assert model_for_generation(model) is model
    converted = model_for_generation(model, "bf16")
    assert converted is not model and model.head.weight.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_generates_with_weights_in_16_bits(tmp_path: Any) -> None:
    run = make_run(tmp_path / "run")
    trained = run.model.cuda()
    model = model_for_generation(trained)
    assert {parameter.dtype for parameter in model.parameters()} <= {torch.bfloat16, torch.float16}
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    with BatchEngine(model, run.tokenizer) as engine:
        request = SequenceRequest(run.tokenizer.encode("Sam found"), 40, SamplingSettings(seed=1), logprobs=3)
        first, second = complete(engine, request), complete(engine, request)
        assert first.tokens == second.tokens and len(first.tokens) > 1
    [alone] = generate_text(model, run.tokenizer, ["Sam found"], 40, SamplingSettings(seed=1))
    assert alone.text
