"""Inference: sampling from a trained model, as tokens or as text, whole or in a stream, alone or many requests at once."""

from understudy.inference.batching import BatchEngine, RequestHandle, complete
from understudy.inference.completion import Completion
from understudy.inference.generate import continue_rows, generate, generate_text, stream_text
from understudy.inference.quantize import WEIGHTS, prepare_for_inference
from understudy.inference.requests import CompletionChunk, EngineStats, QueueFull, SequenceRequest, TokenLogprob
from understudy.inference.sampling import SamplingSettings, next_token_logprobs, sample

__all__ = [
    "WEIGHTS",
    "BatchEngine",
    "Completion",
    "CompletionChunk",
    "EngineStats",
    "QueueFull",
    "RequestHandle",
    "SamplingSettings",
    "SequenceRequest",
    "TokenLogprob",
    "complete",
    "continue_rows",
    "generate",
    "generate_text",
    "next_token_logprobs",
    "prepare_for_inference",
    "sample",
    "stream_text",
]
