"""Tokenizers of other projects: a Hugging Face tokenizer.json with a BPE model, encoded by `tokenizers` as it is.

Byte-level vocabularies (GPT-2, Llama 3, Qwen, SmolLM2) and those made by SentencePiece (Llama 2, Mistral, Gemma), with
their normaliser, splitting and added tokens. The files are read in load.py.

In a text the name of a special token is text, while in a conversation the template writes the token itself. So the
library is given other names for them: two characters, of which the first, SEAL, stands in no text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from understudy.tokenizer.base import END_OF_TEXT, Tokenizer, clean
from understudy.tokenizer.bpe import BPETokenizer
from understudy.tokenizer.huggingface_document import (
    NAMED_TOKENS,
    Json,
    added_before,
    added_token,
    byte_reader,
    cuttable,
    steps_of,
    strips_space,
    tidy,
    token_text,
)

if TYPE_CHECKING:
    import tokenizers

    from understudy.tokenizer.base import Ids

SEAL, QUOTE, MARK = "\U0010fffe", "\U0010ffff", "\U000ffffe"
"""Characters that Unicode reserves for use inside a program. Each begins a pair whose second character counts from
FIRST. They stand for a special token, the name of one in a message (template.py), and the edge of a message."""
FIRST = 0x100000
RESERVED = re.compile(f"[{SEAL}{QUOTE}{MARK}]")

END_NAMES = (END_OF_TEXT, "<|end_of_text|>")
"""Names of tokens that separate documents, where an eos token ends a message."""
NOT_KEPT = ("chat_template", "added_tokens_decoder", "auto_map", "tokenizer_class", "name_or_path", "tokenizer_file")
"""Settings of tokenizer_config.json that say nothing which tokenizer.json and a run do not."""


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
        self.document = tidy(document, self.settings)
        self._engine = _sealed_engine(self.document)
        vocabulary = self.document["model"]["vocab"]
        added = {token["content"]: token["id"] for token in self.document["added_tokens"]}
        special = {token["content"]: token["id"] for token in self.document["added_tokens"] if token["special"]}
        spelled = dict(sorted((id, name) for name, id in vocabulary.items()))
        to_bytes = byte_reader(self.document)
        texts = {id: to_bytes(name) for id, name in spelled.items()} | {id: name.encode() for name, id in added.items()}
        super().__init__([texts.get(id, b"") for id in range(max(texts) + 1)], special)
        self.chat_template = chat_template
        ids = (special.get(end) if isinstance(end, str) else end for end in (*end_tokens, self._named("eos_token")))
        self.end_tokens = tuple(sorted({id for id in ids if id is not None and 0 <= id < self.vocab_size}))
        self.prefix_ids = self._prefix()
        self._cuttable = cuttable(self.document)
        self.begins_with_space = any(map(strips_space, steps_of(self.document.get("decoder"), "decoders")))

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
            if found[0] != QUOTE:
                return SEAL + chr(FIRST + number[found])
            place = ord(found[-1]) - FIRST
            return names[place] if place < len(names) else "\ufffd"  # a template cut the pair apart

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
        return re.compile("|".join([f"{QUOTE}[{chr(FIRST)}-\U0010ffff]?", *map(re.escape, longest_first)]))

    def _named(self, name: str) -> str:
        return str(self.settings.get(name, ""))

    def _encode_part(self, text: str) -> Ids:
        return self._encode_parts([text], 1)[0]

    def _encode_parts(self, parts: list[str], threads: int | None) -> list[Ids]:
        import numpy as np

        texts = [RESERVED.sub("\ufffd", clean(part)) for part in parts]  # the library has threads of its own
        encoded = self._engine.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encoded]

    def with_special_tokens(self, names: Iterable[str]) -> Self:
        """This tokenizer with more special tokens: after its own, or one of its tokens that were not special so far."""
        table = {token["content"]: token for token in self.document["added_tokens"]}
        vocabulary, size = self.document["model"]["vocab"], self.vocab_size
        for name in names:
            if name not in self.special_tokens:
                known = table[name]["id"] if name in table else vocabulary.get(name)
                table[name] = added_token(name, size if known is None else known)
                size += known is None
        document = self.document | {"added_tokens": list(table.values())}
        return type(self)(document, self.settings, self.chat_template, self.end_tokens)

    def _with_special_table(self, special_tokens: dict[str, int]) -> Self:
        raise NotImplementedError("with_special_tokens does it")

    def _prefix(self) -> tuple[int, ...]:
        """The ids that the post-processor puts before a text."""
        post_processor = self.document.get("post_processor")
        names = [] if post_processor is None else list(added_before(post_processor))
        if missing := next((name for name in names if name not in self.special_tokens), None):
            raise ValueError(f"it puts {missing} before every text, which is none of its special tokens")
        return tuple(self.special_tokens[name] for name in names)


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
