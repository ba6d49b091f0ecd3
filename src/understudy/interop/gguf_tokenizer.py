"""Tokenizers in GGUF's metadata, read and written: vocabulary, merges, splitting, special tokens, chat template.

llama.cpp splits text by code of its own and names the splitting of a file in `tokenizer.ggml.pre`; SPLITTERS has the same
splittings as Hugging Face's files write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.interop.huggingface_tokenizer import tokenizer_document
from understudy.tokenizer import END_OF_TEXT, SPLIT_PATTERNS, BPETokenizer, Tokenizer
from understudy.tokenizer.chat import chat_template, end_ids, speaks_chat
from understudy.tokenizer.huggingface import HuggingFaceTokenizer
from understudy.tokenizer.huggingface_document import SPACE, begin_with

Json = dict[str, Any]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's kinds of tokens."""
MOST_CHARACTERS = 1000
"""Of a token; longer ones would take endless work."""


def _split(pattern: str) -> list[Json]:
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    ]


GPT2_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
QWEN_PATTERN = SPLIT_PATTERNS["gpt4"].replace(r"\p{N}{1,3}", r"\p{N}")
SPLITTERS: dict[str, list[Json]] = {
    "gpt-2": [GPT2_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, GPT2_BYTES],
    "llama-bpe": _split(SPLIT_PATTERNS["gpt4"]),
    "qwen2": _split(QWEN_PATTERN),
}
"""llama.cpp's names of splittings, and the pre-tokenizers that do the same."""
NORMALIZERS: dict[str, Json | None] = {"qwen2": {"type": "NFC"}}
ALIASES = dict.fromkeys(("llama3", "llama-v3", "smaug-bpe", "smollm3", "lfm2"), "llama-bpe")
"""Further names of the same splittings."""
IGNORING_MERGES = ("llama-bpe",)
"""Splittings under which llama.cpp takes a word that is a token as it is."""


# ---- Reading --------------------------------------------------------------------------------------------------------


def read_tokenizer(metadata: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """The tokenizer of a GGUF file, with its chat template.

    Raises:
        ValueError: there is none, or it encodes in a way that is not known here.
    """
    kind, tokens = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError("it has no tokenizer")
    kinds = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    for field in ("merges", "scores", "token_type"):
        if not isinstance(metadata.get(f"tokenizer.ggml.{field}"), list | None):
            raise ValueError(f"its tokenizer.ggml.{field} is no list; it is damaged")
    if not isinstance(metadata.get("tokenizer.chat_template"), str | None):
        raise ValueError("its chat template is no text; it is damaged")
    if longest := next((token for token in tokens if len(token) > MOST_CHARACTERS), None):
        raise ValueError(f"its token {longest[:20]!r}... has {len(longest):,} characters; it is damaged")
    if len(kinds) != len(tokens):
        raise ValueError(f"it has {len(tokens):,} tokens and {len(kinds):,} kinds of tokens; it is damaged")
    last = max((id for id, token_kind in enumerate(kinds) if token_kind != UNUSED), default=-1)
    tokens, kinds = tokens[: last + 1], kinds[: last + 1]  # rows that pad the embedding have no tokens
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError("two of its tokens are spelled alike; it is damaged")
    if kind == "gpt2":
        parts = _byte_level(metadata, vocabulary)
    elif kind == "llama":
        parts = _sentencepiece(metadata, vocabulary)
    else:
        raise ValueError(f"its tokenizer is of kind {kind!r}; gpt2 and llama can be imported")
    settings = {
        f"{name}_token": tokens[id]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if isinstance(id := metadata.get(f"tokenizer.ggml.{key}_token_id"), int) and 0 <= id < len(tokens)
    }
    adds_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")) and "bos_token" in settings
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [_added(id, tokens[id], kinds[id]) for id in range(len(tokens)) if kinds[id] in (CONTROL, USER_DEFINED)],
        "post_processor": begin_with(settings["bos_token"], vocabulary[settings["bos_token"]]) if adds_bos else None,
        **parts,
    }  # fmt: skip
    template = metadata.get("tokenizer.chat_template")
    ends = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    return HuggingFaceTokenizer(document, settings, template, [id for id in ends if isinstance(id, int)])


def _byte_level(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> Json:
    """Normaliser, pre-tokenizer, model and decoder of byte-level BPE."""
    name = str(metadata.get("tokenizer.ggml.pre", "gpt-2"))
    name = ALIASES.get(name, name)
    if name not in SPLITTERS:
        raise ValueError(f"it splits text as {name!r}, which is not known here; known are {', '.join(SPLITTERS)}")
    merges = metadata.get("tokenizer.ggml.merges")
    if not merges:
        raise ValueError("its tokenizer has no merges, without which BPE cannot encode")
    return {
        "normalizer": NORMALIZERS.get(name),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITTERS[name]},
        "model": _bpe(vocabulary, merges, ignore_merges=name in IGNORING_MERGES),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }


def _sentencepiece(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> Json:
    """The same of SentencePiece's BPE. The files have no merges: the pair whose token has the best score merges first."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(vocabulary):
        raise ValueError("its tokenizer has no score for each token; it is damaged")
    pairs: list[tuple[float, int, tuple[str, str]]] = []
    for token, id in vocabulary.items():
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in halves if pair[0] in vocabulary and pair[1] in vocabulary]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        pairs += [(-scores[id], len(pairs) + number, pair) for number, pair in enumerate(known)]
    merges = [list(pair) for *_, pair in sorted(pairs)]
    prefix = [{"type": "Prepend", "prepend": SPACE}] if metadata.get("tokenizer.ggml.add_space_prefix", True) else []
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*prefix, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}],
        },
        "pre_tokenizer": None,
        "model": _bpe(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
        ]},
    }  # fmt: skip


def _bpe(vocabulary: dict[str, int], merges: Sequence[Any], **options: Any) -> Json:
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": list(merges),
    } | options  # fmt: skip


def _added(id: int, name: str, kind: int) -> Json:
    return {
        "id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": kind == CONTROL,
    }  # fmt: skip


# ---- Writing --------------------------------------------------------------------------------------------------------


def splitter_name(tokenizer: Tokenizer) -> str:
    """llama.cpp's name of the splitting of a tokenizer.

    Raises:
        ValueError: it has none, so that llama.cpp would give other ids.
    """
    document = tokenizer_document(tokenizer)
    step = document.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    normalizer = document.get("normalizer")
    for name, known in [*SPLITTERS.items(), ("gpt-2", _split(SPLIT_PATTERNS["gpt2"]))]:
        if _plain(steps) == _plain(known) and normalizer in (None, NORMALIZERS.get(name)):
            return name
    raise ValueError("llama.cpp has no name for how its tokenizer splits text; use --format hf")


def _plain(steps: Sequence[Json]) -> list[Json]:
    """Steps without the settings that move offsets only."""
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that GGUF cannot hold.

    Raises:
        ValueError: one of characters, one without an end-of-text token, or a splitting that llama.cpp lacks.
    """
    if not isinstance(tokenizer, BPETokenizer | HuggingFaceTokenizer):
        raise ValueError(
            "it has a character tokenizer, and GGUF holds BPE only; train a run with that, or use --format hf"
        )
    if tokenizer.eot_id is None and not end_ids(tokenizer):
        raise ValueError(
            f"its tokenizer has no token that ends a text, and GGUF needs one; train one with {END_OF_TEXT}"
        )
    if isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer_document(tokenizer)["model"].get("byte_fallback"):
        raise ValueError(
            "its tokenizer is SentencePiece's, whose scores GGUF needs and tokenizer.json lacks; use --format hf"
        )
    splitter_name(tokenizer)


def add_tokenizer(writer: Any, tokenizer: Tokenizer, rows: int) -> None:
    """Add the vocabulary, spelled as in Hugging Face's files, the special tokens and the chat template.

    Args:
        rows: of the token embedding; ids that the tokenizer lacks are written as unused tokens.
    """
    document = tokenizer_document(tokenizer)
    model = document["model"]
    added = {token["id"]: token for token in document["added_tokens"]}
    spelled = {id: name for name, id in model["vocab"].items()} | {id: token["content"] for id, token in added.items()}
    kinds = {id: CONTROL if token["special"] else USER_DEFINED for id, token in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter_name(tokenizer))
    writer.add_token_list([spelled.get(id, f"[PAD{id}]") for id in range(rows)])
    writer.add_token_types([kinds.get(id, NORMAL if id in spelled else UNUSED) for id in range(rows)])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    ends = end_ids(tokenizer)
    end = next((id for id in sorted(ends) if id != tokenizer.eot_id), tokenizer.eot_id)
    begin = (
        tokenizer.prefix_ids[0] if tokenizer.prefix_ids else tokenizer.eot_id if tokenizer.eot_id is not None else end
    )
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(bool(tokenizer.prefix_ids))
    if speaks_chat(tokenizer):
        writer.add_eot_token_id(end)
        writer.add_chat_template(chat_template(tokenizer))
