"""Inference: sampling from a trained model, as tokens or as text, whole or in a stream."""

from understudy.inference.engine import Completion, continue_rows, generate, generate_text, stream_text
from understudy.inference.sampling import SamplingSettings, next_token_logprobs, sample

__all__ = [
    "Completion",
    "SamplingSettings",
    "continue_rows",
    "generate",
    "generate_text",
    "next_token_logprobs",
    "sample",
    "stream_text",
]
