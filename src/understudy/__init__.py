"""Understudy trains your own ChatGPT, from raw text to a chat window that learns from its users.

Public names are imported when they are first used, so that `understudy --help` does not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.api import compare as compare
    from understudy.api import evaluate as evaluate
    from understudy.api import plot_losses as plot_losses
    from understudy.api import prepare as prepare
    from understudy.chat.session import Chat as Chat
    from understudy.config.load import load_config as load_config
    from understudy.config.model import ModelConfig as ModelConfig
    from understudy.config.run import RunConfig as RunConfig
    from understudy.inference.generate import generate as generate
    from understudy.inference.generate import generate_text as generate_text
    from understudy.inference.generate import predict as predict
    from understudy.inference.generate import stream_text as stream_text
    from understudy.inference.lookinside import heads_off as heads_off
    from understudy.inference.lookinside import look_inside as look_inside
    from understudy.inference.sampling import SamplingSettings as SamplingSettings
    from understudy.interop.export import export_run as export_run
    from understudy.interop.imports import import_model as import_model
    from understudy.model import GPT as GPT
    from understudy.model import Bigram as Bigram
    from understudy.model import build_model as build_model
    from understudy.run import Run as Run
    from understudy.run import load_run as load_run
    from understudy.tokenizer import load_tokenizer as load_tokenizer
    from understudy.tokenizer import train_tokenizer as train_tokenizer

__version__ = "0.1.0"

_MODULES = {
    "prepare": "api", "evaluate": "api", "compare": "api", "plot_losses": "api",
    "ModelConfig": "config.model", "RunConfig": "config.run", "load_config": "config.load",
    "generate": "inference.generate", "generate_text": "inference.generate", "stream_text": "inference.generate",
    "predict": "inference.generate", "SamplingSettings": "inference.sampling", "look_inside": "inference.lookinside",
    "heads_off": "inference.lookinside", "Chat": "chat.session",
    "GPT": "model", "Bigram": "model", "build_model": "model",
    "Run": "run", "load_run": "run",
    "load_tokenizer": "tokenizer", "train_tokenizer": "tokenizer",
    "import_model": "interop.imports", "export_run": "interop.export",
}  # fmt: skip
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"understudy.{_MODULES[name]}"), name)
    if name in _stages():
        return import_module("understudy.api").stage_function(name)
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_stages(), "__version__"]


def _stages() -> list[str]:
    """Names of the stages, each of which is a function too: `understudy.pretrain`."""
    return list(import_module("understudy.config.stages").STAGES)
