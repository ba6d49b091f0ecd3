"""Memory of two training steps, measured in fresh processes, beside what `understudy doctor` plans for them.

    python benchmarks/memory.py

Measured is the process's peak above what it held before the model was built, on a CPU with one thread.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys

CASES: tuple[tuple[str, dict[str, str], int], ...] = (
    ("shakespeare-char", {}, 16),
    ("hamlet", {}, 16),
    ("gpt2", {"model.n_layers": "3", "model.d_model": "384"}, 2),
    ("gpt2", {"model.n_layers": "6", "model.d_model": "384", "train.activation_checkpointing": "true"}, 4),
    ("shakespeare-bpe", {}, 32),
)


def peak_bytes() -> int:
    """The most this process has held, on Linux and macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(preset: str, overrides: dict[str, str], micro: int) -> None:
    import torch

    from plain import plain_update
    from understudy.bench import random_batch
    from understudy.config.load import load_config
    from understudy.model import build_model
    from understudy.optim import build_optimizers
    from understudy.train.memory import plan_memory, with_vocabulary
    from understudy.train.objective import NextToken

    torch.set_num_threads(1)
    config = with_vocabulary(load_config(preset, overrides))
    before = peak_bytes()
    model = build_model(config.model)
    model.set_activation_checkpointing(config.train.activation_checkpointing)
    objective, optimizers = NextToken(model, config.train.loss_chunk_tokens), build_optimizers(model, config.optim)
    batch = random_batch(config, micro)
    for _ in range(2):
        plain_update(objective(batch)[0], model, optimizers)
    measured, planned = peak_bytes() - before, plan_memory(config, micro).total_bytes
    print(f"{preset} {overrides or ''} micro-batch {micro}: measured {measured >> 20} MiB, planned {planned >> 20} MiB")


if __name__ == "__main__":
    for case in CASES:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=case)
        process.start()
        process.join()
