"""Finetuning by adapters: frozen weights in bf16, one copy of them, and what a run saves."""

from __future__ import annotations

import torch

from test_interop_huggingface import shape
from understudy.config.model import LoraConfig
from understudy.model import GPT, merge_lora
from understudy.model.lora import hold_frozen_weights, without_lora


def adapted(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    model = GPT(shape("llama", lora=LoraConfig(rank=4)))
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            parameter.data.normal_(std=0.1)
    return model.eval()


def test_frozen_matrices_are_held_in_bf16_and_merge_in_fp32() -> None:
    model, tokens = adapted(), torch.randint(0, 292, (2, 9))
    before = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    hold_frozen_weights(model, torch.bfloat16)
    for name, parameter in model.named_parameters():
        half = not parameter.requires_grad and parameter.ndim > 1
        assert parameter.dtype == (torch.bfloat16 if half else torch.float32), name
        assert parameter.numel() * parameter.element_size() == before[name] // (2 if half else 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(tokens)
    merge_lora(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), expected.float(), atol=0.05, rtol=0.05)


def test_the_model_under_the_adapters_shares_its_weights() -> None:
    model, tokens = adapted(), torch.randint(0, 292, (2, 9))
    plain = without_lora(model)
    torch.manual_seed(0)
    alone = GPT(shape("llama")).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(tokens), alone(tokens), atol=0, rtol=0)
        assert (model(tokens) - alone(tokens)).abs().max() > 1e-3
    owned = {p.data_ptr() for p in model.parameters()}
    assert all(p.data_ptr() in owned for p in plain.parameters())
    assert not any("lora" in name for name, _ in plain.named_parameters())


def test_the_model_under_the_adapters_freezes_none_of_the_policy() -> None:
    torch.manual_seed(0)
    model = GPT(shape("llama", score_head=True, lora=LoraConfig(rank=2, embeddings=True)))
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    plain = without_lora(model).requires_grad_(False)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == before
    assert {"score.weight", "token_embedding.weight"} <= before and not any(p.requires_grad for p in plain.parameters())
