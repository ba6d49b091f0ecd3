"""nanoGPT's ckpt.pt, read without running code of the pickle, and written.

A checkpoint of nanoGPT holds no tokenizer; a character tokenizer is in the meta.pkl of its data. nanoGPT's `sample.py`
reads the written file; training cannot be resumed from it, because there is no state of an optimiser.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.model import ModelConfig
from understudy.interop.huggingface import PICKLE_ERRORS, check_layers, only_tensors, read_pickled, tidy_tensors
from understudy.interop.names import from_theirs, to_theirs
from understudy.interop.proof import EXACT, ReferenceOutputs
from understudy.interop.shapes import model_config, plain_shape, plain_weights
from understudy.tokenizer import CharTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.run import Run

FIELDS = {
    "vocab_size": "vocab_size", "context_length": "block_size", "n_layers": "n_layer", "n_heads": "n_head",
    "d_model": "n_embd", "dropout": "dropout", "bias": "bias",
}  # fmt: skip
COMPILED = "_orig_mod."
"""Prefix of weight names after torch.compile."""


def write_nanogpt(run: Run, reference: ReferenceOutputs, folder: Path) -> list[str]:
    """Write ckpt.pt, and meta.pkl for characters or else our tokenizer.json; returns a line for each check."""
    import torch

    from understudy.model import merge_lora

    merge_lora(run.model)
    config = plain_shape(run, bias=False)
    theirs = to_theirs(plain_weights(run, config), config, "nanogpt")
    theirs["lm_head.weight"] = theirs["transformer.wte.weight"]
    best = run.state.get("best_loss")
    checkpoint = {
        "model": theirs,
        "model_args": {theirs_: getattr(config, ours) for ours, theirs_ in FIELDS.items()}
        | {"vocab_size": config.resolve().rows_in_files},
        "iter_num": run.step,
        "best_val_loss": best if isinstance(best, float) else 1e9,
        "config": {"dataset": run.path.name},
    }
    torch.save(checkpoint, folder / "ckpt.pt")
    if isinstance(run.tokenizer, CharTokenizer) and not run.tokenizer.special_tokens:
        characters = dict(enumerate(run.tokenizer.characters))
        meta = {"vocab_size": len(characters), "itos": characters, "stoi": {c: i for i, c in characters.items()}}
        (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    else:
        run.tokenizer.save(folder / "tokenizer.json")
    shape, weights = read_nanogpt(folder / "ckpt.pt")
    difference = reference.compare_weights(ModelConfig(**shape), weights, folder / "ckpt.pt", EXACT, "our reader")
    return [f"read again, the checkpoint gives logits within {difference:.1g} of ours"]


def read_nanogpt(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model settings and the weights (by our names) of a checkpoint.

    Raises:
        ValueError: it is missing, damaged, would execute code, or is not nanoGPT's.
    """
    content = read_pickled(path)
    arguments, tensors = content.get("model_args"), content.get("model")
    if not isinstance(arguments, dict) or not isinstance(tensors, dict):
        raise ValueError(f"{path} is no checkpoint of nanoGPT: it has no model_args and model")
    arguments = {"dropout": 0.0, "bias": True} | arguments
    if missing := [theirs for theirs in FIELDS.values() if theirs not in arguments]:
        raise ValueError(f"{path} lacks {missing[0]} in model_args; it is damaged, or of another kind")
    shape = {"family": "gpt2", "activation": "gelu"} | {ours: arguments[theirs] for ours, theirs in FIELDS.items()}
    config = model_config(shape, path)
    tensors = {name.removeprefix(COMPILED): tensor for name, tensor in only_tensors(tensors, path).items()}
    check_layers(config, tensors, path)
    return shape, from_theirs(tidy_tensors(tensors, config, path), config, "nanogpt", path)


def read_characters(path: Path) -> CharTokenizer:
    """The tokenizer in nanoGPT's meta.pkl.

    Raises:
        ValueError: it is damaged, holds more than numbers, texts and tables, or numbers characters in another order.
    """
    try:
        meta = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        table = {int(id): str(character) for id, character in meta["itos"].items()}
    except PICKLE_ERRORS as error:
        raise ValueError(f"{path} is not read: it is no meta.pkl of nanoGPT's characters ({error})") from error
    characters = [table.get(id, "") for id in range(len(table))]
    if characters != sorted(set(characters)) or any(len(character) != 1 for character in characters):
        raise ValueError(f"{path} does not number its characters in the order of Unicode, as tokenizers here do")
    return CharTokenizer("".join(characters), {})


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler of numbers, texts and tables. It refuses every name of code, so that nothing can be called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it would run {module}.{name}")
