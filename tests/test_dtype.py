"""The precision that ``train.dtype auto`` chooses."""

from __future__ import annotations

import pytest
import torch

from understudy import runtime
from understudy.runtime import choose_dtype, cpu_bf16_speedup

CPU = torch.device("cpu")


@pytest.mark.parametrize(("speedup", "dtype"), [(0.5, torch.float32), (1.9, torch.bfloat16)])
def test_bf16_is_chosen_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, speedup: float, dtype: torch.dtype) -> None:
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(runtime, "cpu_bf16_speedup", lambda: speedup)
    chosen, reason = choose_dtype(CPU)
    assert chosen == dtype
    assert f"{speedup} times the speed of fp32" in reason
    assert choose_dtype(CPU, "bf16") == (torch.bfloat16, "asked for")


def test_emulated_bf16_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure() -> float:
        raise AssertionError("emulated products take seconds")

    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(runtime, "cpu_bf16_speedup", measure)
    assert choose_dtype(CPU) == (torch.float32, "this cpu has no bf16 units")


def test_the_measurement_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    cpu_bf16_speedup.cache_clear()
    assert 0 < cpu_bf16_speedup() < 100
    assert torch.get_num_threads() == threads
