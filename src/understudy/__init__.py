"""Understudy trains your own ChatGPT, from raw text to a chat window that learns from its users.

Public names are imported when they are first used, so that `understudy --help` does not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.config.load import load_config as load_config
    from understudy.config.model import ModelConfig as ModelConfig
    from understudy.config.run import RunConfig as RunConfig
    from understudy.inference.generate import generate as generate
    from understudy.inference.generate import generate_text as generate_text
    from understudy.inference.generate import stream_text as stream_text
    from understudy.model import GPT as GPT
    from understudy.model import Bigram as Bigram
    from understudy.model import build_model as build_model
    from understudy.run import Run as Run
    from understudy.run import load_run as load_run
    from understudy.tokenizer import load_tokenizer as load_tokenizer

__version__ = "0.1.0"

_MODULES = {
    "ModelConfig": "config.model", "RunConfig": "config.run", "load_config": "config.load",
    "generate": "inference.generate", "generate_text": "inference.generate", "stream_text": "inference.generate",
    "GPT": "model", "Bigram": "model", "build_model": "model",
    "Run": "run", "load_run": "run",
    "load_tokenizer": "tokenizer",
}  # fmt: skip
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"understudy.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
