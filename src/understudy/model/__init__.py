"""Models: a GPT in two families and a bigram table, built from a :class:`ModelConfig`."""

from understudy.config import ModelConfig
from understudy.model.bigram import Bigram
from understudy.model.gpt import GPT
from understudy.model.kv_cache import KVCache
from understudy.model.lora import merge_lora

__all__ = ["GPT", "Bigram", "KVCache", "build_model", "merge_lora"]


def build_model(config: ModelConfig) -> GPT | Bigram:
    """The model a configuration describes, freshly initialised from the current random state."""
    return Bigram(config) if config.family == "bigram" else GPT(config)
