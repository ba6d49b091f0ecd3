"""Models: a GPT in two families and a bigram table, built from a :class:`ModelConfig`."""

from understudy.config.model import ModelConfig
from understudy.model.bigram import Bigram
from understudy.model.gpt import GPT
from understudy.model.kv_cache import KVCache
from understudy.model.lora import merge_lora

__all__ = ["GPT", "Bigram", "KVCache", "as_gpt", "build_model", "merge_lora"]


def build_model(config: ModelConfig) -> GPT | Bigram:
    """The model a configuration describes, freshly initialised from the current random state."""
    return Bigram(config) if config.family == "bigram" else GPT(config)


def as_gpt(model: object) -> GPT:
    """The model as a GPT, for code that needs hidden states.

    Raises:
        ValueError: it is a bigram.
    """
    if not isinstance(model, GPT):
        raise ValueError("a bigram model sees one token, so it cannot follow a conversation; start from a GPT")
    return model
