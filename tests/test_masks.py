"""Attention contexts: each gives the hidden states of one document at a time, by every kernel that computes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from understudy.config.model import ModelConfig
from understudy.losses import PADDING
from understudy.model import GPT, KVCache, attention, masks
from understudy.model.attention import dot_product_attention
from understudy.model.masks import AttentionContext, cached, causal, dense_mask, document_mask, packed, prefix_shared

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2"},
    "qwen3": {"family": "qwen3", "n_kv_heads": 1},
    "short convolutions": {"family": "lfm2", "conv_layers": (0,), "n_kv_heads": 1},
    "all options": {
        "family": "qwen3", "key_shift": True, "ngram_orders": (2, 3), "ngram_buckets": 64, "value_embeddings": True,
    },
}  # fmt: skip
LENGTHS = [[7, 9, 3], [12, 8], [20]]
"""Of the documents of each row; the remainder of 20 is padding."""
PREFIXES = [(6, [4, 5, 3]), (9, [7, 0])]
"""For each row, the length of the prefix and of the branches that continue it."""


def model_of(shape: dict[str, Any], **more: Any) -> GPT:
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "context_length": 20, "n_layers": 2, "n_heads": 2, "d_model": 32} | more
    model = GPT(ModelConfig(**sizes, **shape))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def random_tokens(*shape: int) -> Tensor:
    return torch.randint(0, 30, shape, generator=torch.Generator().manual_seed(1))


def packed_rows() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Tokens and documents (3, 20), and the places in 3 x 20 of each document."""
    documents, places = torch.full((3, 20), PADDING), []
    for row, lengths in enumerate(LENGTHS):
        ends = torch.tensor(lengths).cumsum(0).tolist()
        for number, (length, end) in enumerate(zip(lengths, ends)):
            documents[row, end - length : end] = number
            places.append(torch.arange(end - length, end) + 20 * row)
    return random_tokens(3, 20), documents, places


def prefix_rows() -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Tokens, documents and branch ids (2, 18), and the places in 2 x 18 of each prefix with one of its branches."""
    documents, branch_ids, places = torch.full((2, 18), PADDING), torch.zeros(2, 18, dtype=torch.long), []
    for row, (prefix, branches) in enumerate(PREFIXES):
        end = prefix + sum(branches)
        documents[row, :end], end = 0, prefix
        for number, length in enumerate(branches, 1):
            branch_ids[row, end : end + length] = number
            places.append(torch.cat((torch.arange(prefix), torch.arange(end, end + length))) + 18 * row)
            end += length
    return random_tokens(2, 18), documents, branch_ids, places


def one_at_a_time(model: GPT, tokens: Tensor, places: list[Tensor]) -> Tensor:
    return torch.cat([model.hidden(tokens.flatten()[document][None])[0] for document in places])


def gradient(model: GPT, states: Tensor) -> Tensor:
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    parameters = [p for p in model.parameters() if p.requires_grad]
    computed = torch.autograd.grad((states * weights).sum(), parameters, retain_graph=True, allow_unused=True)
    return torch.cat([g.flatten() for g in computed if g is not None])


def under_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where lengths of documents are not at hand, on a GPU and while compiling."""
    monkeypatch.setattr(masks, "divide", lambda documents: None)


def block_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, by FlexAttention's own computation on the CPU."""
    under_a_mask(monkeypatch)

    def build(mask_mod: Any, documents: Tensor) -> BlockMask:
        return create_block_mask(mask_mod, len(documents), None, *documents.shape[1:] * 2, "cpu")

    monkeypatch.setattr(masks, "build_mask", build)
    monkeypatch.setattr(attention, "compiled_flex_attention", lambda: flex_attention)


def one_document_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pass


KERNELS: list[Callable[[pytest.MonkeyPatch], None]] = [one_document_at_a_time, under_a_mask]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_packed_rows_are_documents_one_at_a_time(
    shape: dict[str, Any], kernel: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(monkeypatch)
    model, (tokens, documents, places) = model_of(shape), packed_rows()
    expected = one_at_a_time(model, tokens, places)
    together = model.hidden(tokens, packed(documents)).flatten(0, 1)[torch.cat(places)]
    selected = model.hidden(tokens, packed(documents, torch.cat(places)))
    for states in (together, selected):
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(gradient(model, states), gradient(model, expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_shared_prefixes_are_documents_one_at_a_time(
    shape: dict[str, Any], kernel: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(monkeypatch)
    model, (tokens, documents, branch_ids, places) = model_of(shape), prefix_rows()
    expected = one_at_a_time(model, tokens, places)
    states = model.hidden(tokens, prefix_shared(documents, branch_ids, torch.cat(places)))
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient(model, states), gradient(model, expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@torch.no_grad()
def test_cached_steps_are_whole_rows(shape: dict[str, Any]) -> None:
    model, tokens = model_of(shape), random_tokens(3, 20)
    cache, steps = KVCache(model.shape, 3), []
    for start, end in ((0, 7), (7, 8), (8, 12), (12, 20)):
        last = torch.arange(3) * (end - start) + end - start - 1
        steps.append(model.hidden(tokens[:, start:end], cached(cache, end - start, last)))
    expected = model.hidden(tokens)[:, [6, 7, 11, 19]]
    torch.testing.assert_close(torch.stack(steps, 1), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n_heads", (2, 4), ids=("heads of 16", "heads of 8, which FlexAttention does not take"))
@pytest.mark.parametrize("shape", [SHAPES["gpt2"], SHAPES["all options"]], ids=("gpt2", "all options"))
@torch.no_grad()
def test_block_masks_are_dense_masks(shape: dict[str, Any], n_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention on a CPU has no backward pass; test_flex_attention_trains_on_cuda has."""
    model = model_of(shape, n_heads=n_heads)
    tokens, documents, _ = packed_rows()
    more_tokens, more_documents, branch_ids, places = prefix_rows()
    calls = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return flex_attention(*args, **kwargs)

    expected = model.hidden(tokens, packed(documents)), one_at_a_time(model, more_tokens, places)
    block_masked(monkeypatch)
    monkeypatch.setattr(attention, "compiled_flex_attention", lambda: spy)
    context = packed(documents)
    assert isinstance(context.mask, BlockMask)
    real = documents != PADDING
    torch.testing.assert_close(model.hidden(tokens, context)[real], expected[0][real], atol=1e-5, rtol=1e-4)
    states = model.hidden(more_tokens, prefix_shared(more_documents, branch_ids, torch.cat(places)))
    torch.testing.assert_close(states, expected[1], atol=1e-5, rtol=1e-4)
    assert len(calls) == (4 if n_heads == 2 else 0)


def test_the_dense_mask_equals_the_mask_function() -> None:
    _, documents, branch_ids, _ = prefix_rows()
    computed = dense_mask(document_mask(documents, branch_ids), 2, 18, documents.device)
    for b in range(2):
        for q in range(18):
            for k in range(18):
                sees = branch_ids[b, k] in (0, branch_ids[b, q])
                assert computed[b, 0, q, k] == (k <= q and documents[b, q] == documents[b, k] and sees), (b, q, k)


def test_rows_of_one_document_each_are_plainly_causal() -> None:
    documents = torch.tensor([[0] * 6, [4] * 3 + [PADDING] * 3])
    assert packed(documents) == causal()
    assert prefix_shared(documents[:1], torch.tensor([[0, 0, 1, 1, 1, 1]])) == causal()


def test_a_context_is_not_changed_by_a_forward() -> None:
    model, (tokens, documents, _) = model_of(SHAPES["all options"]), packed_rows()
    context = packed(documents)
    fields = {field.name: getattr(context, field.name) for field in dataclasses.fields(AttentionContext)}
    first = model.hidden(tokens, context)
    assert all(getattr(context, name) is value for name, value in fields.items())
    assert torch.equal(model.hidden(tokens, context), first)


def test_contexts_are_compiled_in_one_graph() -> None:
    model, (tokens, documents, _) = model_of(SHAPES["all options"]), packed_rows()

    def states(tokens: Tensor, documents: Tensor) -> Tensor:
        return model.hidden(tokens, packed(documents, torch.arange(5)))

    compiled = torch.compile(states, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens, documents), states(tokens, documents), atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("compiled", (False, True))
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_flex_attention_trains_on_cuda(shape: dict[str, Any], compiled: bool) -> None:
    model, (tokens, documents, branch_ids, places) = model_of(shape), prefix_rows()
    expected = one_at_a_time(model, tokens, places)
    wanted = gradient(model, expected)
    model, place = model.cuda(), torch.cat(places).cuda()

    def forward(tokens: Tensor, documents: Tensor, branch_ids: Tensor) -> Tensor:
        context = prefix_shared(documents, branch_ids, place)
        assert isinstance(context.mask, BlockMask)
        return model.hidden(tokens, context)

    call = torch.compile(forward) if compiled else forward
    states = call(tokens.cuda(), documents.cuda(), branch_ids.cuda()).cpu()
    torch.testing.assert_close(states, expected, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(gradient(model, states).cpu(), wanted, atol=2e-2, rtol=2e-2)


def test_long_documents_in_bf16_are_computed_in_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new shape of a product is compiled, so lengths are rounded up; the result is that of each document alone."""
    torch.manual_seed(0)
    lengths = [130, 201, 150]
    q, k, v = (torch.randn(1, heads, sum(lengths), 16, dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2, 2))
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    seen = []

    def recorded(*arguments: torch.Tensor | None) -> torch.Tensor:
        seen.append(arguments[0].shape[2])  # type: ignore[union-attr]
        return dot_product_attention(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "dot_product_attention", recorded)
    result = attention.attend(q, k, v, packed(documents))
    assert seen == [192, 256, 192]
    alone = [dot_product_attention(*parts, None) for parts in zip(*(x.split(lengths, dim=2) for x in (q, k, v)))]
    torch.testing.assert_close(result, torch.cat(alone, dim=2), atol=2e-2, rtol=2e-2)
    for ours, expected in zip(
        torch.autograd.grad(result.float().sin().sum(), (q, k, v)),
        torch.autograd.grad(torch.cat(alone, dim=2).float().sin().sum(), (q, k, v)),
    ):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, expected, atol=5e-2, rtol=5e-2)
