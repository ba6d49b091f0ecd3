"""A data folder as a run sees it: the tokenizer it was prepared with, and the hash that names its text.

shards.py reads the token files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from understudy.config.run import RunConfig
from understudy.data.text.shards import TOKENIZER, TokenData, read_manifest, refuse_raw_file
from understudy.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

NANOGPT_TEXT = "input.txt"
ENDS_BYTES = 1 << 20


def data_tokenizer(config: RunConfig) -> Tokenizer:
    """The tokenizer the data was prepared with, which must be the kind the configuration expects.

    Raises:
        ValueError: another kind or size, or none beside the data.
    """
    path, wanted = Path(config.data.path), config.tokenizer
    refuse_raw_file(path, prepare_options(config))
    read_manifest(path)  # which refuses a folder of conversations
    tokenizer = _tokenizer_of(path, wanted.kind)
    kind = "gpt2" if tokenizer.kind == "bpe" and tokenizer.vocab_size == 50257 else tokenizer.kind
    again = f"; prepare it again with --tokenizer {wanted.kind}, or set tokenizer.kind to null to take that of the data"
    if wanted.kind not in (None, kind, tokenizer.kind):
        raise ValueError(f"the data in {path} was prepared with a {kind} tokenizer, and {wanted.kind} is set{again}")
    if wanted.vocab_size not in (None, tokenizer.vocab_size):
        raise ValueError(
            f"the tokenizer in {path} has {tokenizer.vocab_size} tokens, and tokenizer.vocab_size is "
            f"{wanted.vocab_size}; set it to null to take that of the data"
        )
    return tokenizer


def prepare_options(config: RunConfig) -> list[str]:
    """Options with which `understudy prepare` makes text data that fits the configuration."""
    kind, vocab_size = config.tokenizer.kind, config.tokenizer.vocab_size
    return (["--tokenizer", kind] if kind else []) + (["--vocab-size", str(vocab_size)] if vocab_size else [])


def _tokenizer_of(path: Path, kind: str | None) -> Tokenizer:
    """The folder's own tokenizer; nanoGPT's character folders keep their text beside the tokens instead."""
    if (path / TOKENIZER).exists() or (path / "vocab.bpe").exists():
        return load_tokenizer(path)
    if kind == "char" and (path / NANOGPT_TEXT).exists():
        return train_tokenizer("char", [(path / NANOGPT_TEXT).read_text(encoding="utf-8")])
    raise ValueError(
        f"{path} holds tokens but no tokenizer; put a tokenizer.json beside them, GPT-2's vocab.bpe and encoder.json, or "
        f"for characters the {NANOGPT_TEXT} they were made of"
    )


def text_sha256(data: TokenData) -> str:
    """A hash that names a split. Folders without a manifest are named by size and both ends of the file."""
    if data.manifest:
        return data.manifest.splits[data.split].sha256
    raw = data.tokens.view("u1")
    digest = hashlib.sha256(str(len(raw)).encode())
    digest.update(raw[:ENDS_BYTES].tobytes())
    digest.update(raw[-ENDS_BYTES:].tobytes())
    return digest.hexdigest()
