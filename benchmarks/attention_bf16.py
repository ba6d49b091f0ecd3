"""Attention of a CPU in bf16: PyTorch's SDPA beside what model/attention.py does there, in milliseconds.

    python benchmarks/attention_bf16.py --out benchmarks/results/attention_bf16.json

Only on a CPU with bf16 units (`understudy doctor` says) does this tell anything. Rows, heads, keys and width of a head are
given; all queries with their backward pass, causal, and one query a row as in answering. Medians of so many rounds, the
two taken in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.nn import functional as F

from plain import publish
from understudy.model.attention import dot_product_attention

TRAINING = [
    (64, 4, 47, 64), (32, 4, 94, 64), (16, 4, 192, 64), (16, 4, 256, 64), (8, 4, 384, 48), (4, 12, 512, 64), (4, 12, 1024, 64),
]  # fmt: skip
ANSWERING = [(64, 4, 40, 64), (64, 4, 200, 48), (8, 12, 1000, 64)]


def milliseconds(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 2):
        for name, call in contenders.items():
            began = time.perf_counter()
            call()
            if number >= 2:
                times[name].append((time.perf_counter() - began) * 1e3)
    return {name: round(statistics.median(each), 3) for name, each in times.items()}


def compared(rows: int, heads: int, keys: int, width: int, one_query: bool, rounds: int) -> dict[str, float]:
    q, k, v = (
        torch.randn(rows, n, heads, width, dtype=torch.bfloat16).transpose(1, 2).requires_grad_(not one_query)
        for n in (1 if one_query else keys, keys, keys)
    )
    weights = torch.randn_like(q)
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "sdpa": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=not one_query),
        "ours": lambda: dot_product_attention(q, k, v, None),
    }
    torch.testing.assert_close(calls["ours"](), calls["sdpa"](), atol=0.03, rtol=0.03)
    if not one_query:
        forward = dict(calls)
        calls = {name: lambda call=call: call().backward(weights) for name, call in forward.items()}  # type: ignore[misc]
    return milliseconds(calls, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = []
    for kind, shapes in (("training", TRAINING), ("answering", ANSWERING)):
        for shape in shapes:
            told = compared(*shape, kind == "answering", arguments.rounds)
            names = dict(zip(("rows", "heads", "keys", "width"), shape))
            found.append({"kind": kind, **names, **told, "sdpa_over_ours": round(told["sdpa"] / told["ours"], 2)})
    publish({"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": found}, arguments.out)


if __name__ == "__main__":
    main()
