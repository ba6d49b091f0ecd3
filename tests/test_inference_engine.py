"""Generating tokens: with a cache as without one, together as alone, and past the end of the context."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import understudy
from understudy.config.model import ModelConfig
from understudy.inference.generate import continue_rows, generate
from understudy.inference.sampling import (
    SamplingSettings,
    draw_uniforms,
    next_token_logprobs,
    row_generators,
    sample,
    seen_tokens,
)
from understudy.model import GPT, Bigram, build_model
from understudy.model.masks import AttentionContext

CONTEXT, VOCAB = 12, 37
SMALL = {"vocab_size": VOCAB, "context_length": CONTEXT, "n_layers": 3, "n_heads": 4, "d_model": 32}
EXTRAS = {"value_embeddings": True, "key_shift": True, "ngram_orders": (2, 3), "ngram_buckets": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2", **SMALL},
    "gpt2 with extras": {"family": "gpt2", "logit_softcap": 15.0, **EXTRAS, **SMALL},
    "qwen3": {"family": "qwen3", **SMALL},
    "qwen3 with extras": {"family": "qwen3", "n_kv_heads": 2, "activation": "relu2", **EXTRAS, **SMALL},
    "bigram": {"family": "bigram", "vocab_size": VOCAB, "context_length": CONTEXT},
}


def decided_model(shape: str = "gpt2", **more: Any) -> GPT | Bigram:
    """A random model with weights so large that its input matters and rounding does not."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**{**SHAPES[shape], **more}))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def plainly(
    model: GPT | Bigram, prompt: list[int], new: int, how: SamplingSettings, row: int = 0
) -> list[tuple[int, float]]:
    """The definition: no cache, no batch. The window is read whole for each token, and halved when it is full."""
    [generator] = row_generators(how.seed, [row])
    window, everything, sampled = prompt[-CONTEXT:], list(prompt), []
    for _ in range(new):
        logits = model(torch.tensor([window]))[:, -1]
        logprobs = next_token_logprobs(logits, how, seen_tokens([everything], logits))
        token = int(sample(logprobs, draw_uniforms([generator])))
        sampled.append((token, logprobs[0, token].item()))
        everything.append(token)
        window = [*window, token]
        if len(window) > CONTEXT:
            window = window[-(CONTEXT // 2) :]
    return sampled


def in_batch(
    model: GPT | Bigram, prompts: list[list[int]], new: int, how: SamplingSettings
) -> list[list[tuple[int, float]]]:
    rows: list[list[tuple[int, float]]] = [[] for _ in prompts]
    for row, token, logprob in continue_rows(model, prompts, new, how):
        rows[row].append((token, logprob))
    return rows


class Read(NamedTuple):
    """One forward of the engine."""

    shape: tuple[int, ...]
    held: int
    room: int
    cache_dtype: torch.dtype
    grad: bool


def watch(model: GPT | Bigram, monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    """Note every forward of the model from now on."""
    reads, hidden = [], model.hidden

    def noting(tokens: Tensor, context: AttentionContext) -> Tensor:
        shape, cache = tuple(tokens.shape), context.cache
        assert cache is not None
        reads.append(Read(shape, cache.longest, cache.max_tokens, cache.keys.dtype, torch.is_grad_enabled()))
        return hidden(tokens, context)

    monkeypatch.setattr(model, "hidden", noting)
    return reads


RAGGED = [[5], [1, 2, 3, 4, 5, 6, 7], list(range(CONTEXT)), list(range(30, 10, -1)), [9, 9]]
"""Prompts of one token, some, the whole context, more than that."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "how",
    [SamplingSettings(temperature=0), SamplingSettings(1.3, 20, 0.95, 0.01, 1.2, seed=11)],
    ids=["greedy", "sampled"],
)
def test_cached_ragged_batch_equals_plain_reading(shape: str, how: SamplingSettings) -> None:
    """For more than two contexts, so that every row is read again at its own times."""
    model, new = decided_model(shape), 2 * CONTEXT + 5
    for row, (got, prompt) in enumerate(zip(in_batch(model, RAGGED, new, how), RAGGED)):
        expected = plainly(model, prompt, new, how, row)
        assert [token for token, _ in got] == [token for token, _ in expected]
        assert [logprob for _, logprob in got] == pytest.approx([logprob for _, logprob in expected], abs=1e-3)


@pytest.mark.parametrize("context_length", [1, 2, 3, 4, 5])
def test_tiny_contexts(context_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "CONTEXT", context_length)
    model, greedy = decided_model("gpt2", context_length=context_length), SamplingSettings(temperature=0)
    if context_length > 1:
        expected = [token for token, _ in plainly(model, [7, 8, 9], 9, greedy)]
        assert generate(model, [[7, 8, 9]], 9, temperature=0) == [[7, 8, 9, *expected]]
    else:  # half of one is still one token
        assert len(generate(model, [[7, 8, 9]], 9, temperature=0)[0]) == 12


def test_a_prompt_may_fill_the_context() -> None:
    """No token of it is lost for the first new one, and the longest that fits is not read twice."""
    model = decided_model()
    prompt = list(range(CONTEXT))
    with torch.no_grad():
        first = int(model(torch.tensor([prompt]))[0, -1].argmax())
    assert generate(model, [prompt], 1, temperature=0) == [[*prompt, first]]
    assert generate(model, [[30, 31, *prompt]], 1, temperature=0) == [[30, 31, *prompt, first]]


def test_each_token_costs_one_position(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decided_model()
    reads = watch(model, monkeypatch)
    generate(model, [[1, 2, 3], [4]], 5)
    assert [read.shape for read in reads] == [(2, 3), (2, 1), (2, 1), (2, 1), (2, 1)]  # the last token is not read
    assert {read.room for read in reads} == {3 + 4}
    reads.clear()
    generate(model, [list(range(CONTEXT - 1)), [4]], 4)
    again = (1, CONTEXT // 2 - 1)  # the full row alone
    assert [read.shape for read in reads] == [(2, CONTEXT - 1), (2, 1), again, (2, 1), (2, 1)]


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decided_model()
    alone = generate(model, RAGGED, 20, seed=5, repetition_penalty=1.1)
    stop = alone[2][len(RAGGED[2]) + 3]  # a token inside the third row's answer
    reads = watch(model, monkeypatch)
    stopped = generate(model, RAGGED, 20, seed=5, repetition_penalty=1.1, stop_tokens=[stop])
    for prompt, whole, row in zip(RAGGED, alone, stopped):
        new = whole[len(prompt) :]
        end = new.index(stop) + 1 if stop in new else len(new)
        assert row == whole[: len(prompt) + end]
    assert len(stopped[2]) < len(alone[2])
    assert min(read.shape[0] for read in reads if read.shape[1] == 1) < len(RAGGED)


def test_a_long_row_takes_its_keys_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, finished = decided_model(), {0}
    reads = watch(model, monkeypatch)
    assert len(list(continue_rows(model, [list(range(9)), [1]], 3, SamplingSettings(), finished))) == 4
    assert [(read.shape, read.held) for read in reads] == [((2, 9), 0), ((1, 1), 1), ((1, 1), 2)]


def test_equal_prompts_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, how, prompts = decided_model(), SamplingSettings(seed=2), [[1, 2, 3], [4], [1, 2, 3], [1, 2, 3], [4]]
    expected = [plainly(model, prompt, 20, how, row) for row, prompt in enumerate(prompts)]
    reads = watch(model, monkeypatch)
    for got, alone in zip(in_batch(model, prompts, 20, how), expected):
        assert [token for token, _ in got] == [token for token, _ in alone]
    assert [read.shape for read in reads[:2]] == [(2, 3), (5, 1)]


def test_the_loop_ends_when_all_rows_have() -> None:
    model = decided_model()
    finished: set[int] = set()
    got = []
    for row, token, _ in continue_rows(model, [[1], [2]], 50, SamplingSettings(seed=0), finished):
        got.append((row, token))
        finished.add(row)
    assert [row for row, _ in got] == [0, 1]


def test_seeds() -> None:
    model = decided_model()
    once = generate(model, RAGGED, 15, seed=3)
    assert once == generate(model, RAGGED, 15, seed=3)
    assert once != generate(model, RAGGED, 15, seed=4)
    assert generate(model, RAGGED, 15) != generate(model, RAGGED, 15)
    # a row says the same whoever is beside it, and equal rows differ
    assert generate(model, [RAGGED[0], [1], [2, 3, 4]], 15, seed=3)[0] == once[0]
    same = generate(model, [[1], [1], [1]], 15, seed=3)
    assert len({tuple(row) for row in same}) == 3


def test_sampled_frequencies_are_the_model_s() -> None:
    model = Bigram(ModelConfig(family="bigram", vocab_size=5, context_length=8))
    probabilities = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
    with torch.no_grad():
        model.table.weight[2, :5] = probabilities.log()
    rows = 4000
    drawn = generate(model, torch.full((rows, 1), 2), 1, seed=1)[:, 1]
    share = torch.bincount(drawn, minlength=5) / rows
    assert (share - probabilities).abs().max() < 4 * (0.25 / rows) ** 0.5


def test_forms_in_and_out() -> None:
    model = decided_model()
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32)
    out = generate(model, tokens, 4, seed=2)
    assert isinstance(out, Tensor)
    assert out.dtype == torch.long
    assert out.tolist() == generate(model, tokens.tolist(), 4, seed=2)
    assert out[:, :3].tolist() == tokens.tolist()
    assert generate(model, tokens, 0).tolist() == tokens.tolist()
    assert generate(model, tokens[:0], 4).shape == (0, 3)
    empty: list[list[int]] = []
    assert generate(model, empty, 4) == []
    prompts = [[1, 2], [3]]
    generate(model, prompts, 4)
    assert prompts == [[1, 2], [3]]


def test_stopped_rows_of_a_tensor_are_filled_up() -> None:
    model = decided_model()
    tokens = torch.tensor([[1], [2], [3]])
    whole = generate(model, tokens, 30, seed=2)
    stop = int(whole[0, 5])
    out = generate(model, tokens, 30, seed=2, stop_tokens=(stop,))
    for row in range(3):
        places = (whole[row, 1:] == stop).nonzero()
        end = int(places[0]) + 2 if len(places) else whole.shape[1]
        assert out[row, :end].tolist() == whole[row, :end].tolist()
        assert (out[row, end:] == stop).all()


@pytest.mark.parametrize(
    ("tokens", "how", "says"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1, VOCAB]], {}, f"token {VOCAB} of prompt 0 is outside the vocabulary of {VOCAB}"),
        ([[-1]], {}, "token -1 of prompt 0"),
        ([1, 2], {}, r"such as \[tokens\]"),
        (torch.tensor([1, 2]), {}, r"\(2,\); give whole numbers \(B, T\)"),
        (torch.zeros(1, 2), {}, "torch.float32"),
        (torch.zeros(2, 0, dtype=torch.long), {}, "prompt 0 is empty"),
        ([[1]], {"max_new_tokens": -1}, "max_new_tokens is -1"),
        ([[1]], {"top_k": 0}, "top_k is 0"),
    ],
)
def test_refused(tokens: Any, how: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generate(decided_model(), tokens, **{"max_new_tokens": 3, **how})


def test_damaged_weights_are_noticed() -> None:
    model = decided_model()
    with torch.no_grad():
        next(model.parameters())[3] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="not finite"):
            generate(model, [[3]], 3, temperature=temperature)


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes, gradients and PyTorch's random state; and dropout does not act."""
    model = decided_model("gpt2", dropout=0.5)
    assert isinstance(model, GPT)
    expected = generate(model, RAGGED, 5, seed=1)
    reads = watch(model, monkeypatch)
    model.train()
    model.blocks[1].eval()  # as when part of a model is frozen
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    for _, _, logprob in continue_rows(model, [[1]], 2, SamplingSettings()):
        assert torch.is_grad_enabled()  # between the steps, at the caller's
        assert isinstance(logprob, float)
    assert generate(model, RAGGED, 5, seed=1) == expected
    dropped = continue_rows(model, [[1]], 5, SamplingSettings())
    next(dropped)
    del dropped
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert {read.grad for read in reads} == {False}


@pytest.mark.parametrize("shape", ["gpt2", "qwen3 with extras"])
def test_autocast_is_the_precision_of_training(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decided_model(shape)
    reads, products = watch(model, monkeypatch), list[torch.dtype]()
    model.get_submodule("blocks.0.mlp.up").register_forward_hook(
        lambda module, inputs, output: products.append(output.dtype)
    )
    prompt = [1, 2, 3, 4]
    [(_, token, logprob)] = continue_rows(model, [prompt], 1, SamplingSettings(seed=0), (), torch.bfloat16)
    generate(model, [prompt], 2 * CONTEXT, autocast=torch.bfloat16)
    assert set(products) == {read.cache_dtype for read in reads} == {torch.bfloat16}
    monkeypatch.undo()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.tensor([prompt]))[0, -1].float()
    assert logprob == pytest.approx(logits.log_softmax(-1)[token].item(), abs=1e-2)


def test_every_exported_name_can_be_imported() -> None:
    assert all(getattr(understudy, name) is not None for name in understudy.__all__)


@pytest.mark.parametrize("penalty", [1e-40, 0, 0.009, 101, math.inf, math.nan])
def test_a_repetition_penalty_that_would_overflow_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match="repetition_penalty is"):
        SamplingSettings(repetition_penalty=penalty)
