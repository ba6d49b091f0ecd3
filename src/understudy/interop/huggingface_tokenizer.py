"""Our tokenizers as Hugging Face's two files, which `transformers`, vLLM and others read without code of ours.

Not the way back, which is tokenizer/load.py's, and not the model's weights.

The ids are those of `Tokenizer.encode` for every text that spells no special token: there Hugging Face reads control,
and `Tokenizer.encode` text. A character that a character tokenizer lacks is refused there too, by an exception.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from understudy.tokenizer import END_OF_TEXT, SPLIT_PATTERNS, BPETokenizer, CharTokenizer, Tokenizer
from understudy.tokenizer.bpe import byte_characters
from understudy.tokenizer.chat import CHAT_TEMPLATE, END, speaks_chat

Json = dict[str, Any]


def save_huggingface_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json into a folder, made where it is missing; both or neither.

    Args:
        context_length: what transformers calls model_max_length; left out of the files when None.

    Raises:
        ValueError: a special token is written as an ordinary one is, so that the files could not tell them apart.
    """
    write_together(folder, {
        "tokenizer.json": tokenizer_document(tokenizer),
        "tokenizer_config.json": config_document(tokenizer, context_length),
    })  # fmt: skip


def tokenizer_document(tokenizer: Tokenizer) -> Json:
    """What tokenizer.json holds.

    Raises:
        ValueError: see :func:`save_huggingface_tokenizer`.
    """
    assert isinstance(tokenizer, BPETokenizer | CharTokenizer), f"no rows for a tokenizer of kind {tokenizer.kind}"
    parts = _bpe(tokenizer) if isinstance(tokenizer, BPETokenizer) else _characters(tokenizer)
    vocabulary = parts["model"]["vocab"]
    for name, id in tokenizer.special_tokens.items():
        if name in vocabulary:
            raise ValueError(
                f"the special token {name!r} is how Hugging Face's files spell an ordinary token: train with another name"
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
    """What tokenizer_config.json holds: which tokens end a text, and how a conversation is written."""
    document: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if context_length is not None:
        document["model_max_length"] = context_length
    if speaks_chat(tokenizer):
        document |= {"eos_token": END, "chat_template": CHAT_TEMPLATE}
    elif tokenizer.eot_id is not None:
        document["eos_token"] = END_OF_TEXT
    return document


def _bpe(tokenizer: BPETokenizer) -> Json:
    """Bytes are spelled by visible characters, and merges by the spellings of their halves, as in our own file."""
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
    """Every character is a word of its own. The model's unknown token has no id: a character that is missing is an
    exception, where BPE without merges would leave it out and say nothing."""
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
    """Write JSON files so that a failure leaves none of them half-written and the old ones as they were."""
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
