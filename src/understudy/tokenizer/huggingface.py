"""Tokenizers of other projects: a Hugging Face tokenizer.json with a BPE model, encoded by `tokenizers` as it is.

Byte-level vocabularies (GPT-2, Llama 3, Qwen, SmolLM2) and those made by SentencePiece (Llama 2, Mistral, Gemma), with
their normaliser, splitting and added tokens. The files are read in load.py.

In a text the name of a special token is text, while in a conversation the template writes the token itself. So the
library is given other names for them: two characters, of which the first, SEAL, stands in no text.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from understudy.tokenizer.base import END_OF_TEXT, Tokenizer, clean
from understudy.tokenizer.bpe import SPLIT_PATTERNS, BPETokenizer, byte_characters

if TYPE_CHECKING:
    import tokenizers

    from understudy.tokenizer.base import Ids

Json = dict[str, Any]

SEAL, QUOTE, MARK = "\U0010fffe", "\U0010ffff", "\U000ffffe"
"""Characters that Unicode reserves for use inside a program. Each begins a pair whose second character counts from
FIRST. They stand for a special token, the name of one in a message (template.py), and the edge of a message."""
FIRST = 0x100000
RESERVED = re.compile(f"[{SEAL}{QUOTE}{MARK}]")

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
END_NAMES = (END_OF_TEXT, "<|end_of_text|>")
"""Names of tokens that separate documents, where an eos token ends a message."""
NOT_KEPT = ("chat_template", "added_tokens_decoder", "auto_map", "tokenizer_class", "name_or_path", "tokenizer_file")
"""Settings of tokenizer_config.json that say nothing which tokenizer.json and a run do not."""
SPACE = "\u2581"
"""How SentencePiece writes a space."""
KNOWN_SPLITS = (
    *SPLIT_PATTERNS.values(),
    SPLIT_PATTERNS["gpt4"].replace(r"\p{N}{1,3}", r"\p{N}"),  # Qwen's
)


class RefusedConversation(ValueError):
    """The chat template of a tokenizer does not take this conversation, such as one with a system message."""


class HuggingFaceTokenizer(Tokenizer):
    """A BPE tokenizer of Hugging Face, with its chat template.

    Args:
        document: the content of tokenizer.json.
        settings: the content of tokenizer_config.json.
        chat_template: Jinja source, or None where it comes without.
        end_tokens: ids or names of the tokens that end what its model writes; the eos token is one anyway.

    Raises:
        ValueError: no BPE model, a part that is damaged or that has no counterpart here.
    """

    kind = "huggingface"
    safe_cut = BPETokenizer.safe_cut

    def __init__(
        self,
        document: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
        end_tokens: Iterable[int | str] = (),
    ) -> None:
        kept = {key: value for key, value in (settings or {}).items() if key not in NOT_KEPT}
        self.settings = kept | {name: text for name in NAMED_TOKENS if (text := token_text(kept.get(name)))}
        self.document = _tidy(document, self.settings)
        self._engine = _sealed_engine(self.document)
        vocabulary = self.document["model"]["vocab"]
        added = {token["content"]: token["id"] for token in self.document["added_tokens"]}
        special = {token["content"]: token["id"] for token in self.document["added_tokens"] if token["special"]}
        spelled = dict(sorted((id, name) for name, id in vocabulary.items()))
        to_bytes = _byte_reader(self.document)
        texts = {id: to_bytes(name) for id, name in spelled.items()} | {id: name.encode() for name, id in added.items()}
        super().__init__([texts.get(id, b"") for id in range(max(texts) + 1)], special)
        self.chat_template = chat_template
        ids = (special.get(end) if isinstance(end, str) else end for end in (*end_tokens, self._named("eos_token")))
        self.end_tokens = tuple(sorted({id for id in ids if id is not None and 0 <= id < self.vocab_size}))
        self.prefix_ids = self._prefix()
        self._cuttable = _cuttable(self.document)
        self.begins_with_space = any(map(_strips_space, _steps(self.document.get("decoder"), "decoders")))

    @property
    def eot_id(self) -> int | None:
        """The id of the token between documents: `<|endoftext|>`, else the eos token."""
        names = (*END_NAMES, self._named("eos_token"))
        return next((self.special_tokens[name] for name in names if name in self.special_tokens), None)

    @property
    def token_names(self) -> dict[str, str]:
        """The named special tokens, such as bos_token, as a template sees them."""
        return {name: self.settings[name] for name in NAMED_TOKENS if name in self.settings}

    @property
    def added_names(self) -> list[str]:
        """The names of all added tokens, special or not."""
        return [token["content"] for token in self.document["added_tokens"]]

    def to_document(self) -> dict[str, Any]:
        return {
            "tokenizer": self.document, "settings": self.settings, "chat_template": self.chat_template,
            "end_tokens": list(self.end_tokens),
        }  # fmt: skip

    def with_chat_template(self, template: str | None) -> Self:
        """The same vocabulary with another template."""
        return type(self)(self.document, self.settings, template, self.end_tokens)

    def split(self, text: str, part_size: int = 1 << 20) -> list[str]:
        return super().split(text, part_size) if self._cuttable else [text]

    def decode(self, ids: Sequence[int] | Any) -> str:
        text = super().decode(ids)
        return text.removeprefix(" ") if self.begins_with_space else text

    def encode_sealed(self, texts: Sequence[str]) -> list[Any]:
        """Texts in which special tokens are written as `seal` writes them, with the offsets of their tokens."""
        return list(self._engine.encode_batch(list(texts), add_special_tokens=False))

    def seal(self, text: str) -> str:
        """The text with the pair of each special token's name in its place, and quoted names as names."""
        names, number = self._names, self._number

        def replaced(match: re.Match[str]) -> str:
            found = match[0]
            return names[ord(found[1]) - FIRST] if found[0] == QUOTE else SEAL + chr(FIRST + number[found])

        return self._name_or_quote.sub(replaced, text)

    def quote(self, text: str) -> str:
        """The text, in which names of special tokens stay text when it is sealed; reserved characters as U+FFFD."""
        text = RESERVED.sub("\ufffd", clean(text))
        return self._name_or_quote.sub(lambda match: QUOTE + chr(FIRST + self._number[match[0]]), text)

    @cached_property
    def _names(self) -> list[str]:
        return list(self.special_tokens)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._names)}

    @cached_property
    def _name_or_quote(self) -> re.Pattern[str]:
        longest_first = sorted(self._names, key=len, reverse=True)
        return re.compile("|".join([f"{QUOTE}.", *map(re.escape, longest_first)]))

    def _named(self, name: str) -> str:
        return str(self.settings.get(name, ""))

    def _encode_part(self, text: str) -> Ids:
        return self._encode_parts([text], 1)[0]

    def _encode_parts(self, parts: list[str], threads: int | None) -> list[Ids]:
        import numpy as np

        texts = [RESERVED.sub("\ufffd", clean(part)) for part in parts]  # the library has threads of its own
        encoded = self._engine.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encoded]

    def _with_special_table(self, special_tokens: dict[str, int]) -> Self:
        document = copy.copy(self.document)
        new = [(name, id) for name, id in special_tokens.items() if name not in self.special_tokens]
        known = {token["content"] for token in document["added_tokens"]} | document["model"]["vocab"].keys()
        if taken := next((name for name, _ in new if name in known), None):
            raise ValueError(f"the special token {taken!r} is an ordinary token too: choose another name")
        document["added_tokens"] = [*document["added_tokens"], *(_added_token(name, id) for name, id in new)]
        return type(self)(document, self.settings, self.chat_template, self.end_tokens)

    def _prefix(self) -> tuple[int, ...]:
        """The ids that the post-processor puts before a text."""
        post_processor = self.document.get("post_processor")
        names = [] if post_processor is None else list(_added_before(post_processor))
        if missing := next((name for name in names if name not in self.special_tokens), None):
            raise ValueError(f"it puts {missing} before every text, which is none of its special tokens")
        return tuple(self.special_tokens[name] for name in names)


def token_text(value: Any) -> str:
    """The name of a token, as tokenizer_config.json holds it: text, or an object with its content; else empty."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _tidy(document: Mapping[str, Any], settings: Mapping[str, Any]) -> Json:
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
    merges = [_merge(number, merge) for number, merge in enumerate(merges)]
    extra = [settings.get(name) for name in NAMED_TOKENS]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        named = settings.get(name) or []
        extra += list(named.values() if isinstance(named, dict) else named)
    present = {token["content"] for token in added}
    for name in dict.fromkeys(map(token_text, extra)):
        if name in vocabulary and name not in present:
            added.append(_added_token(name, vocabulary[name]))
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
            post_processor = _begin_with(bos, next(token["id"] for token in added if token["content"] == bos))
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


def _added_token(name: str, id: int) -> Json:
    return _checked({"id": id, "content": name, "special": True})


def _begin_with(name: str, id: int) -> Json:
    """A post-processor that puts one token before a text."""
    begin, text = {"SpecialToken": {"id": name, "type_id": 0}}, [{"Sequence": {"id": x, "type_id": 0}} for x in "AB"]
    return {
        "type": "TemplateProcessing", "single": [begin, text[0]], "pair": [begin, *text],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
    }  # fmt: skip


def _sealed_engine(document: Json) -> tokenizers.Tokenizer:
    """The library's tokenizer, in which special tokens have names that no text spells, and every token its id."""
    from tokenizers import Tokenizer as Engine

    special = [token["content"] for token in document["added_tokens"] if token["special"]]
    sealed = {name: SEAL + chr(FIRST + number) for number, name in enumerate(special)}
    model = document["model"]
    # The library numbers added tokens as it likes, unless the vocabulary has them.
    table = model["vocab"] | {token["content"]: token["id"] for token in document["added_tokens"]}
    renamed = {sealed.get(name, name): id for name, id in table.items()}
    merges = model["merges"]
    if sealed.keys() & model["vocab"].keys():
        merges = [merge for merge in merges if not sealed.keys() & {*_halves(merge), "".join(_halves(merge))}]
    unknown = model.get("unk_token")
    document = document | {
        "model": model | {"vocab": renamed, "merges": merges, "unk_token": sealed.get(unknown, unknown)},
        "added_tokens": [
            token | {"content": sealed.get(token["content"], token["content"])} for token in document["added_tokens"]
        ],
        "post_processor": None, "truncation": None, "padding": None,
    }  # fmt: skip
    try:
        return Engine.from_str(json.dumps(document))
    except Exception as error:  # the library has no class of its own
        raise ValueError(
            f"it is damaged, or newer than the library `tokenizers` here: {' '.join(str(error).split())}"
        ) from error


def _halves(merge: Any) -> Sequence[str]:
    return merge.split(" ", 1) if isinstance(merge, str) else merge


def _byte_reader(document: Json) -> Any:
    """A function from the spelling of an ordinary token to its bytes.

    Raises ValueError for a decoder that is neither byte-level nor SentencePiece's.
    """
    decoder = document.get("decoder")
    steps = _steps(decoder, "decoders") or _steps(document.get("pre_tokenizer"), "pretokenizers")[-1:]
    kinds = [_type(step) for step in steps]
    if kinds == ["ByteLevel"]:
        byte_of = {character: byte for byte, character in byte_characters().items()}

        def byte_level(name: str) -> bytes:
            try:
                return bytes([byte_of[character] for character in name])
            except KeyError:  # the library does the same
                return name.encode()

        return byte_level
    if kinds and set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        byte = re.compile(r"<0x([0-9A-Fa-f]{2})>")

        def sentencepiece(name: str) -> bytes:
            found = byte.fullmatch(name) if "ByteFallback" in kinds else None
            return bytes.fromhex(found[1]) if found else name.replace(SPACE, " ").encode()

        return sentencepiece
    raise ValueError(f"its decoder is {_type(decoder)}, and only those of byte-level BPE and SentencePiece are known")


def _added_before(step: Any) -> Iterator[str]:
    """The names of tokens that a post-processor puts before a text.

    Raises ValueError where it adds others.
    """
    match step:
        case {"type": "ByteLevel"}:  # moves offsets only
            return
        case {"type": "Sequence", "processors": list(steps)}:
            for inner in steps:
                yield from _added_before(inner)
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
    raise ValueError(f"its post-processor is {_type(step)}, which is not done here")


def _template_token(step: Json, name: str) -> Sequence[str]:
    """The tokens that a name in a TemplateProcessing stands for."""
    entry = step.get("special_tokens", {}).get(name)
    return entry["tokens"] if isinstance(entry, dict) and isinstance(entry.get("tokens"), list) else [name]


def _strips_space(step: Json) -> bool:
    """Whether a step of the decoder takes the space away with which a whole text begins."""
    if _type(step) == "Metaspace":
        return step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True) is not False
    return _type(step) == "Strip" and step.get("content") == " " and step.get("start") == 1


def _cuttable(document: Json) -> bool:
    """Whether `BPETokenizer.safe_cut` finds places where this tokenizer's words end whatever follows."""
    normal = all(_type(step) == "NFC" for step in _steps(document.get("normalizer"), "normalizers"))
    whole = all(
        not any(map(str.isspace, token["content"])) and not (token["lstrip"] or token["rstrip"] or token["single_word"])
        for token in document["added_tokens"] if not token["special"]
    )  # fmt: skip
    match _steps(document.get("pre_tokenizer"), "pretokenizers"):
        case [*digits, {"type": "ByteLevel"} as to_bytes] if to_bytes.get("use_regex", True):
            known = all(_type(step) == "Digits" for step in digits)
        case [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False} as to_bytes,
        ]:
            known = regex in KNOWN_SPLITS
        case _:
            return False
    return normal and whole and known and not to_bytes.get("add_prefix_space")


def _steps(part: Any, name: str) -> list[Any]:
    """The steps of a normaliser, pre-tokenizer or decoder: those of a Sequence, itself, or none."""
    if _type(part) == "Sequence":
        return list(part.get(name) or [])
    return [] if part is None else [part]


def _type(step: Any) -> str:
    return str(step.get("type")) if isinstance(step, dict) else str(step)
