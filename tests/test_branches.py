"""Documents with a shared prefix give the same hidden states together as alone; only selected places are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from understudy.config.model import ModelConfig
from understudy.data.chat.packing import build_prefix_trees, pack_prefix_trees
from understudy.losses import PADDING
from understudy.model import GPT
from understudy.model.masks import AttentionContext, causal, divide, prefix_shared

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2"},
    "qwen3": {"family": "qwen3", "n_kv_heads": 1},
    "shifted keys": {"family": "qwen3", "key_shift": True},
    "short convolutions": {"family": "lfm2", "conv_layers": (0,), "n_kv_heads": 1},
    "n-grams": {"family": "qwen3", "ngram_orders": (2, 3), "ngram_buckets": 64, "value_embeddings": True},
}
COMMON = [5, 6, 7, 8]
DOCUMENTS = [(COMMON, [1, 2, 3]), ([9, 9], [4]), (COMMON, [3, 2]), (COMMON, []), ([9, 9], [4, 4, 5, 6, 7, 1, 2])]


def model_of(shape: dict[str, Any]) -> GPT:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=12, context_length=10, n_layers=2, n_heads=2, d_model=16, **shape))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def laid_out(batch: Any, places: list[torch.Tensor]) -> tuple[torch.Tensor, AttentionContext]:
    return batch["tokens"], prefix_shared(batch["documents"], batch["branch_ids"], torch.cat(places))


@pytest.mark.parametrize("per_document", (True, False), ids=("one by one", "under a mask"))
@pytest.mark.parametrize("documents", (DOCUMENTS, DOCUMENTS[:2], [([1, 2], [3]), ([4, 5], [6, 7])]))
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_packed_documents_equal_single_documents(
    shape: dict[str, Any], documents: list[Any], per_document: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(shape)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: not per_document)
    batch, places = pack_prefix_trees(documents, 10)
    weights = torch.randn(sum(map(len, places)), 16)

    def gradient(states: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        (states * weights).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    alone = torch.cat([model.hidden(torch.tensor([[*a, *b]]))[0, len(a) - 1 :] for a, b in documents])
    wanted = gradient(alone)
    together = model.hidden(*laid_out(batch, places))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient(together), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("documents", (DOCUMENTS, [([1, 2], [3]), ([4, 5, 4, 5], [6, 7])]))
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_packed_documents_equal_single_documents_in_bf16(shape: dict[str, Any], documents: list[Any]) -> None:
    model = model_of(shape)
    batch, places = pack_prefix_trees(documents, 10)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            together = model.hidden(*laid_out(batch, places))
        alone = torch.cat([model.hidden(torch.tensor([[*a, *b]]))[0, len(a) - 1 :] for a, b in documents])
    assert float((together - alone).abs().mean()) < 0.004


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_selected_states_equal_those_of_all(shape: dict[str, Any]) -> None:
    model, tokens, at = model_of(shape), torch.randint(0, 12, (3, 7)), torch.tensor([0, 6, 7, 20, 20])
    torch.testing.assert_close(model.hidden(tokens, causal(at)), model.hidden(tokens).flatten(0, 1)[at])


def test_rows_are_divided_where_documents_begin() -> None:
    rows = [
        [0, 0, 0, 1, 1, PADDING],
        [2, 2, 2, 3, 3, 3],
        [0, 0, PADDING, PADDING, PADDING, PADDING],
        [4, 5, 5, 5, 5, 5],
    ]
    assert divide(torch.tensor(rows)) == [(2, [3, 3]), (1, [6]), (1, [1, 5])]


def test_shared_prefixes_are_laid_out_once() -> None:
    batch, places = pack_prefix_trees(DOCUMENTS, 10)
    assert int((batch["documents"] != PADDING).sum()) == len(COMMON) + 5 + 2 + 8
    read = batch["tokens"].flatten()
    for (beginning, suffix), place in zip(DOCUMENTS, places):
        assert read[place].tolist() == [beginning[-1], *suffix]
    trees = build_prefix_trees(DOCUMENTS, 8)  # two of the common beginning fit a tree, and the third, being empty
    assert [len(tree) for tree in trees] == [7, 6, 3, 2 + 7]
    assert [tree.members for tree in trees] == [[0], [2, 3], [1], [4]]


def test_a_row_may_hold_more_padding_than_the_context_is_long() -> None:
    model = model_of(SHAPES["qwen3"])
    tokens, documents = torch.zeros(1, 14, dtype=torch.long), torch.full((1, 14), PADDING)
    documents[0, :2] = 0
    context = prefix_shared(documents, torch.zeros_like(tokens), torch.tensor([0, 1]))
    states = model.hidden(tokens, context)
    torch.testing.assert_close(states, model.hidden(tokens[:, :2])[0])
