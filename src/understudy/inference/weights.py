"""The precision of the weights that a trained run generates with. Not here: the conversion (quantize.py)."""

from __future__ import annotations

import torch

from understudy.inference.generate import Model
from understudy.inference.quantize import prepare_for_inference
from understudy.runtime import DTYPES, choose_dtype


def default_weights(device: torch.device) -> str:
    """``bf16`` on CUDA (``fp16`` without bf16 units), else ``fp32``."""
    if device.type != "cuda":
        return "fp32"
    dtype, _ = choose_dtype(device)
    return next(name for name, value in DTYPES.items() if value == dtype)


def model_for_generation(model: Model, weights: str | None = None) -> Model:
    """The model to sample text with. Its weights are converted once, and not in each step as autocast would.

    Args:
        weights: fp32, fp16, bf16 or int8; None is :func:`default_weights` of the model's device.

    Returns:
        ``model`` itself for fp32, else a converted copy.
    """
    weights = weights or default_weights(next(model.parameters()).device)
    return model if weights == "fp32" else prepare_for_inference(model, weights)
