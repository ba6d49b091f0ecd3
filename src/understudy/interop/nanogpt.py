"""nanoGPT's ckpt.pt, read without running what a pickle may hold, and written.

A checkpoint of nanoGPT knows no tokenizer; one of characters is in the meta.pkl of its data. What is written continues
with its `sample.py`, and holds no state of an optimiser to resume training with. Not here: names of weights (names.py).
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.model import ModelConfig
from understudy.interop.huggingface import only_tensors, read_pickled, tidy_tensors
from understudy.interop.names import from_theirs, to_theirs
from understudy.interop.proof import EXACT, Proof
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
"""What torch.compile puts before names."""


def write_nanogpt(run: Run, proof: Proof, folder: Path) -> list[str]:
    """Write ckpt.pt, with meta.pkl for characters and else our tokenizer.json, and return what was found when the
    checkpoint was read again."""
    import torch

    from understudy.model import build_model, merge_lora
    from understudy.run import load_weights

    merge_lora(run.model)
    config = plain_shape(run, bias=False)
    theirs = to_theirs(plain_weights(run, config), config, "nanogpt")
    theirs["lm_head.weight"] = theirs["transformer.wte.weight"]
    best = run.state.get("best_loss")
    checkpoint = {
        "model": theirs,
        "model_args": {theirs_: getattr(config, ours) for ours, theirs_ in FIELDS.items()},
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
    model = build_model(ModelConfig(**shape)).eval()
    load_weights(model, weights, folder / "ckpt.pt")
    difference = proof.compare(lambda prompt: model(prompt)[0], EXACT, "our reader")
    return [f"read again, the checkpoint gives logits within {difference:.1g} of ours"]


def read_nanogpt(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings of the model in a checkpoint, and its weights by our names.

    Raises:
        ValueError: it is missing, damaged, would execute code, or is no checkpoint of nanoGPT's.
    """
    content = read_pickled(path)
    arguments, tensors = content.get("model_args"), content.get("model")
    if not isinstance(arguments, dict) or not isinstance(tensors, dict):
        raise ValueError(f"{path} is no checkpoint of nanoGPT's: it has no model_args and model")
    arguments = {"dropout": 0.0, "bias": True} | arguments
    if missing := [theirs for theirs in FIELDS.values() if theirs not in arguments]:
        raise ValueError(f"{path} does not say what {missing[0]} is; it is damaged, or of another kind")
    shape = {"family": "gpt2", "activation": "gelu"} | {ours: arguments[theirs] for ours, theirs in FIELDS.items()}
    config = model_config(shape, path)
    tensors = {name.removeprefix(COMPILED): tensor for name, tensor in only_tensors(tensors, path).items()}
    return shape, from_theirs(tidy_tensors(tensors, config, path), config, "nanogpt", path)


def read_characters(path: Path) -> CharTokenizer:
    """The tokenizer in nanoGPT's meta.pkl.

    Raises:
        ValueError: it holds anything but numbers, texts and tables, or its characters are not numbered in their order.
    """
    try:
        meta = _Plain(io.BytesIO(path.read_bytes())).load()
        table = {int(id): str(character) for id, character in meta["itos"].items()}
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is not read: it is no meta.pkl of nanoGPT's characters ({error})") from error
    characters = [table.get(id, "") for id in range(len(table))]
    if characters != sorted(set(characters)) or any(len(each) != 1 for each in characters):
        raise ValueError(f"{path} does not number its characters in the order of Unicode, as tokenizers here do")
    return CharTokenizer("".join(characters), {})


class _Plain(pickle.Unpickler):
    """Of a pickle only what needs no name of any code: without names nothing can be called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it would run {module}.{name}")
