"""Refusal of models that this machine cannot hold, before they are read."""

from __future__ import annotations

from pathlib import Path


def check_fits_memory(source: Path, weight_bytes: int) -> None:
    """Refuse weights that take more than this machine's memory.

    Args:
        weight_bytes: of all weights in fp32, as a model computes with them.

    Raises:
        ValueError: names both sizes.
    """
    import psutil

    memory = psutil.virtual_memory().total
    if weight_bytes > memory:
        raise ValueError(
            f"the weights of {source} take {weight_bytes / 1e9:,.0f} GB in fp32, and this machine has {memory / 1e9:,.0f} GB "
            "of memory; import a smaller model"
        )
