"""Losses against formulas, Muon against the polar factor it approximates, schedules by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from understudy.config.model import ModelConfig
from understudy.config.run import OptimConfig
from understudy.losses import IGNORE, chunked_cross_entropy_sum, cross_entropy_sum
from understudy.model import GPT
from understudy.optim import Muon, build_optimizers, lr_factor, orthogonalise


def test_cross_entropy_is_a_sum_over_targets_that_count() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, -5.0]]])
    assert cross_entropy_sum(logits, torch.tensor([[0, IGNORE]])).item() == pytest.approx(math.log(4))
    assert cross_entropy_sum(logits, torch.tensor([[IGNORE, IGNORE]])).item() == 0


@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head_is_frozen", [False, True])
def test_chunked_loss_and_gradients_equal_the_whole(chunk: int, dtype: torch.dtype, head_is_frozen: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, 8, requires_grad=True)
    head = nn.Linear(8, 11).requires_grad_(not head_is_frozen)
    targets = torch.randint(0, 11, (2, 7))
    targets[0, 3] = IGNORE
    inputs = [hidden] if head_is_frozen else [hidden, head.weight, head.bias]

    def whole() -> torch.Tensor:
        return cross_entropy_sum(head(hidden), targets)

    def parts() -> torch.Tensor:
        return chunked_cross_entropy_sum(hidden, targets, head, chunk, head.parameters())

    results = []
    for loss in (whole, parts):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            value = loss()
        results.append((value, *torch.autograd.grad(value / 13, inputs)))
    with torch.no_grad():
        torch.testing.assert_close(parts(), cross_entropy_sum(head(hidden), targets))
    for a, b in zip(*results):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, **({} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}))


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_orthogonalise_approaches_the_polar_factor(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    got = orthogonalise(matrices, 5)
    assert (got - u @ v).abs().max() < 0.15
    singular = torch.linalg.svdvals(got)
    assert singular.min() > 0.75 and singular.max() < 1.25


def test_muon_orthogonalises_the_parts_of_a_matrix_by_themselves() -> None:
    torch.manual_seed(0)
    whole = nn.Parameter(torch.zeros(12, 4))
    whole.grad = torch.randn(12, 4)
    Muon([{"params": [whole], "splits": [4, 4, 4], "lr": 1.0}], lr=1.0).step()
    for part, grad in zip(whole.detach().split(4), whole.grad.split(4)):
        torch.testing.assert_close(-part, orthogonalise(grad[None])[0], atol=1e-4, rtol=1e-3)


def test_every_parameter_is_in_one_group_and_vectors_never_decay() -> None:
    config = ModelConfig(
        family="qwen3", vocab_size=65, n_layers=2, tied=False, ngram_orders=(2,), value_embeddings=True
    )
    model = GPT(config)
    for name in ("adamw", "muon"):
        optimizers = build_optimizers(model, OptimConfig(name=name, weight_decay=0.3))
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        listed = [n for group in groups for n in group["names"]]
        assert sorted(listed) == sorted(n for n, _ in model.named_parameters())
        for group in groups:
            if any(p.ndim < 2 for p in group["params"]):
                assert group["weight_decay"] == 0 and all(p.ndim < 2 for p in group["params"])
    muon = build_optimizers(model, OptimConfig(name="muon"))[0]
    names = [n for group in muon.param_groups for n in group["names"]]
    assert all(n.startswith("blocks.") and "embedding" not in n for n in names) and len(names) == 2 * 4


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_optimisers_change_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=65, n_layers=2, d_model=32, context_length=16))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizers = build_optimizers(model, OptimConfig(name=name, lr=1e-2))
    model(torch.randint(0, 65, (2, 16))).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert not [n for n, p in model.named_parameters() if torch.equal(p, before[n])]


def factors(steps: int, **settings: object) -> list[float]:
    config = OptimConfig.model_validate(settings)
    return [lr_factor(config, step, steps) for step in range(steps + 1)]


def test_schedules_by_hand() -> None:
    cosine = factors(12, schedule="cosine", warmup_steps=2, min_lr_fraction=0.1)
    assert cosine[:3] == [0.5, 1.0, 1.0] and cosine[7] == pytest.approx(0.55) and cosine[12] == pytest.approx(0.1)
    linear = factors(10, schedule="linear")
    assert linear[0] == 1 and linear[5] == 0.5 and linear[10] == 0
    wsd = factors(10, schedule="wsd", decay_fraction=0.4)
    assert wsd[:7] == [1.0] * 7 and wsd[8] == pytest.approx(0.5) and wsd[10] == 0
    assert factors(5, schedule="constant", warmup_steps=0) == [1.0] * 6
