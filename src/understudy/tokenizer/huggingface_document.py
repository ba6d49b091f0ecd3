"""The content of a Hugging Face tokenizer.json: checked, brought into one spelling, and what its parts mean.

The tokenizer itself is in huggingface.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from understudy.tokenizer.bpe import SPLIT_PATTERNS, byte_characters

Json = dict[str, Any]

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SPACE = "\u2581"
"""How SentencePiece writes a space."""
KNOWN_SPLITS = (
    *SPLIT_PATTERNS.values(),
    SPLIT_PATTERNS["gpt4"].replace(r"\p{N}{1,3}", r"\p{N}"),  # Qwen's
)


def token_text(value: Any) -> str:
    """The name of a token, as tokenizer_config.json holds it: text, or an object with its content; else empty."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def tidy(document: Mapping[str, Any], settings: Mapping[str, Any]) -> Json:
    """The document in one spelling: merges as "left right" where neither has a space, every added token with its
    flags, and among them the special tokens that only the settings name."""
    model = document.get("model")
    model = model if isinstance(model, dict) else {}
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise ValueError(f"its model is {kind}, and only BPE can be used here")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise ValueError(f"its model uses {option}, which is not done here")
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not all(type(k) is str and type(v) is int for k, v in vocabulary.items()):
        raise ValueError("its table from tokens to ids is missing or holds something else")
    added = document.get("added_tokens") or []
    if not isinstance(added, list):
        raise ValueError("its added tokens are not a list")
    added = [_checked(token) for token in added]
    if not isinstance(merges, list) or (not merges and len(vocabulary) > 256 + len(added)):
        raise ValueError("its model has no merges, without which BPE cannot encode")
    merges = [
        merge if isinstance(merge, str) and merge.count(" ") == 1 else _merge(number, merge)
        for number, merge in enumerate(merges)
    ]
    extra = [settings.get(name) for name in NAMED_TOKENS]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        named = settings.get(name) or []
        extra += list(named.values() if isinstance(named, dict) else named)
    present = {token["content"] for token in added}
    for name in dict.fromkeys(map(token_text, extra)):
        if name in vocabulary and name not in present:
            added.append(added_token(name, vocabulary[name]))
    added.sort(key=lambda token: token["id"])
    ids = {token["id"] for token in added} | set(vocabulary.values())
    if not vocabulary or min(ids) < 0 or max(ids) > 4 * len(ids) + 1024:
        raise ValueError("its ids are not those of a vocabulary: they have gaps larger than it")
    post_processor = document.get("post_processor")
    if post_processor is None:  # only then the settings decide, as in transformers
        if settings.get("add_eos_token"):
            raise ValueError("it adds its eos token to every text (add_eos_token), which is not done here")
        bos = token_text(settings.get("bos_token"))
        if settings.get("add_bos_token") and bos in present | vocabulary.keys():
            post_processor = begin_with(bos, next(token["id"] for token in added if token["content"] == bos))
    return {
        **document,
        "post_processor": post_processor,
        "model": {**model, "type": "BPE", "vocab": vocabulary, "merges": merges},
        "added_tokens": added,
    }


def _merge(number: int, merge: Any) -> str | list[str]:
    match merge.split(" ") if isinstance(merge, str) else merge:
        case [str(left), str(right)]:
            return [left, right] if " " in left + right else f"{left} {right}"
    raise ValueError(f"its merge {number} is not a pair of tokens: {merge!r}")


def _checked(token: Any) -> Json:
    match token:
        case {"id": int(id), "content": str(name)} if name:
            flags = {name: bool(token.get(name)) for name in ("single_word", "lstrip", "rstrip", "special")}
            return {
                "id": id,
                "content": name,
                **flags,
                "normalized": bool(token.get("normalized", not flags["special"])),
            }
    raise ValueError(f"its added token {token!r} lacks an id or a name")


def added_token(name: str, id: int) -> Json:
    return _checked({"id": id, "content": name, "special": True})


def begin_with(name: str, id: int) -> Json:
    """A post-processor that puts one token before a text."""
    begin, text = {"SpecialToken": {"id": name, "type_id": 0}}, [{"Sequence": {"id": x, "type_id": 0}} for x in "AB"]
    return {
        "type": "TemplateProcessing", "single": [begin, text[0]], "pair": [begin, *text],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
    }  # fmt: skip


def byte_reader(document: Json) -> Callable[[str], bytes]:
    """A function from the spelling of an ordinary token to its bytes.

    Raises ValueError for a decoder that is neither byte-level nor SentencePiece's.
    """
    decoder = document.get("decoder")
    steps = steps_of(decoder, "decoders") or steps_of(document.get("pre_tokenizer"), "pretokenizers")[-1:]
    kinds = [type_of(step) for step in steps]
    if kinds == ["ByteLevel"]:
        byte_of = {character: byte for byte, character in byte_characters().items()}

        def byte_level(name: str) -> bytes:
            try:
                return bytes(map(byte_of.__getitem__, name))
            except KeyError:  # the library does the same
                return name.encode()

        return byte_level
    if kinds and set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        byte = re.compile(r"<0x([0-9A-Fa-f]{2})>")

        def sentencepiece(name: str) -> bytes:
            found = byte.fullmatch(name) if "ByteFallback" in kinds else None
            return bytes.fromhex(found[1]) if found else name.replace(SPACE, " ").encode()

        return sentencepiece
    raise ValueError(f"its decoder is {type_of(decoder)}, and only those of byte-level BPE and SentencePiece are known")


def added_before(step: Any) -> Iterator[str]:
    """The names of tokens that a post-processor puts before a text.

    Raises ValueError where it adds others.
    """
    match step:
        case {"type": "ByteLevel"}:  # moves offsets only
            return
        case {"type": "Sequence", "processors": list(steps)}:
            for inner in steps:
                yield from added_before(inner)
            return
        case {"type": "TemplateProcessing", "single": list(pieces)}:
            kinds = [next(iter(piece)) if isinstance(piece, dict) and piece else None for piece in pieces]
            if kinds[-1:] == ["Sequence"] and set(kinds[:-1]) <= {"SpecialToken"}:
                for piece in pieces[:-1]:
                    yield from _template_token(step, str(piece["SpecialToken"].get("id")))
                return
            names = [
                str(piece["SpecialToken"].get("id")) for kind, piece in zip(kinds, pieces) if kind == "SpecialToken"
            ]
            raise ValueError(f"its post-processor adds {', '.join(names)} after a text, which is not done here")
    raise ValueError(f"its post-processor is {type_of(step)}, which is not done here")


def _template_token(step: Json, name: str) -> Sequence[str]:
    """The tokens that a name in a TemplateProcessing stands for."""
    entry = step.get("special_tokens", {}).get(name)
    return entry["tokens"] if isinstance(entry, dict) and isinstance(entry.get("tokens"), list) else [name]


def strips_space(step: Json) -> bool:
    """Whether a step of the decoder takes the space away with which a whole text begins."""
    if type_of(step) == "Metaspace":
        return step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True) is not False
    return type_of(step) == "Strip" and step.get("content") == " " and step.get("start") == 1


def cuttable(document: Json) -> bool:
    """Whether `BPETokenizer.safe_cut` finds places where this tokenizer's words end whatever follows."""
    normal = all(type_of(step) == "NFC" for step in steps_of(document.get("normalizer"), "normalizers"))
    whole = all(
        not any(map(str.isspace, token["content"])) and not (token["lstrip"] or token["rstrip"] or token["single_word"])
        for token in document["added_tokens"] if not token["special"]
    )  # fmt: skip
    match steps_of(document.get("pre_tokenizer"), "pretokenizers"):
        case [*digits, {"type": "ByteLevel"} as to_bytes] if to_bytes.get("use_regex", True):
            known = all(type_of(step) == "Digits" for step in digits)
        case [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False} as to_bytes,
        ]:
            known = regex in KNOWN_SPLITS
        case _:
            return False
    return normal and whole and known and not to_bytes.get("add_prefix_space")


def steps_of(part: Any, name: str) -> list[Any]:
    """The steps of a normaliser, pre-tokenizer or decoder: those of a Sequence, itself, or none."""
    if type_of(part) == "Sequence":
        return list(part.get(name) or [])
    return [] if part is None else [part]


def type_of(step: Any) -> str:
    return str(step.get("type")) if isinstance(step, dict) else str(step)
