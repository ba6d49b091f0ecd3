"""Tokenizers as the two files of Hugging Face; one that came from there goes out as it came in. Reading such files is in
tokenizer/load.py.

The ids are those of `Tokenizer.encode`, except for a text that contains the name of a special token: Hugging Face's
tokenizers encode it as that token, and `Tokenizer.encode` as ordinary text. An unknown character raises an exception
there too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from understudy.tokenizer import END_OF_TEXT, SPLIT_PATTERNS, BPETokenizer, CharTokenizer, Tokenizer
from understudy.tokenizer.bpe import byte_characters
from understudy.tokenizer.chat import END, chat_template, speaks_chat
from understudy.tokenizer.huggingface import HuggingFaceTokenizer

Json = dict[str, Any]


def save_huggingface_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json into a folder, both or neither.

    Args:
        context_length: written as model_max_length, unless None.

    Raises:
        ValueError: a special token and an ordinary one have the same spelling.
    """
    write_together(folder, {
        "tokenizer.json": tokenizer_document(tokenizer),
        "tokenizer_config.json": config_document(tokenizer, context_length),
    })  # fmt: skip


def tokenizer_document(tokenizer: Tokenizer) -> Json:
    """The content of tokenizer.json.

    Raises:
        ValueError: see :func:`save_huggingface_tokenizer`.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        model = tokenizer.document["model"]
        by_id = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
        return tokenizer.document | {"model": model | {"vocab": by_id}}
    if isinstance(tokenizer, BPETokenizer):
        parts = _bpe(tokenizer)
    elif isinstance(tokenizer, CharTokenizer):
        parts = _characters(tokenizer)
    else:
        raise TypeError(f"Hugging Face's files hold no tokenizer of kind {tokenizer.kind}")
    vocabulary = parts["model"]["vocab"]
    for name, id in tokenizer.special_tokens.items():
        if name in vocabulary:
            raise ValueError(
                f"the special token {name!r} is spelled as an ordinary token in Hugging Face's files: train with another name"
            )
        vocabulary[name] = id
    added = [
        {
            "id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }
        for name, id in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    ]  # fmt: skip
    nothing = {"truncation": None, "padding": None, "normalizer": None, "post_processor": None}
    return {"version": "1.0", "added_tokens": added, **nothing, **parts}


def config_document(tokenizer: Tokenizer, context_length: int | None = None) -> Json:
    """The content of tokenizer_config.json: end tokens and chat template."""
    document: Json = {"clean_up_tokenization_spaces": False}
    if isinstance(tokenizer, HuggingFaceTokenizer):
        document |= tokenizer.settings
    document["tokenizer_class"] = "PreTrainedTokenizerFast"  # reads tokenizer.json as it is
    if context_length is not None:
        document["model_max_length"] = context_length
    if speaks_chat(tokenizer):
        document["chat_template"] = chat_template(tokenizer)
    if speaks_chat(tokenizer) and tokenizer.chat_template is None:
        document["eos_token"] = END
    elif tokenizer.eot_id is not None:
        document.setdefault("eos_token", END_OF_TEXT)
    return document


def _bpe(tokenizer: BPETokenizer) -> Json:
    """Byte-level BPE. Bytes are spelled by visible characters, and merges by their halves, as in our own file."""
    spelled = list(byte_characters().values())
    merges = []
    for left, right in tokenizer.merges:
        merges.append([spelled[left], spelled[right]])
        spelled.append(spelled[left] + spelled[right])
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [_split(SPLIT_PATTERNS[tokenizer.pattern]), to_bytes],
        },
        "decoder": to_bytes,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": dict(zip(spelled, range(len(spelled)) if tokenizer.ids is None else tokenizer.ids)),
            "merges": merges,
        },
    }  # fmt: skip


def _characters(tokenizer: CharTokenizer) -> Json:
    """One token per character. The unknown token has no id, so that an unknown character raises an exception; BPE
    without merges would drop it silently."""
    return {
        "pre_tokenizer": _split(r"[\s\S]"),
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {character: id for id, character in enumerate(tokenizer.characters)},
            "unk_token": "",
        },
    }


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def write_together(folder: Path, documents: dict[str, Json]) -> None:
    """Write several JSON files. If one cannot be written, none is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f".{name}.{os.getpid()}.partial" for name in documents}
    try:
        for name, document in documents.items():
            partial[name].write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        for name, path in partial.items():
            path.replace(folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
