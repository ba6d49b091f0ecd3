"""Text to ids and back: characters, byte-level BPE trained here, and GPT-2's own vocabulary.

Importing this package loads only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from understudy.tokenizer.base import END_OF_TEXT, StreamDecoder, Tokenizer
from understudy.tokenizer.bpe import SPLIT_PATTERNS, BPETokenizer, train_bpe
from understudy.tokenizer.char import CharTokenizer, train_char
from understudy.tokenizer.load import gpt2_tokenizer, load_tokenizer

__all__ = [
    "END_OF_TEXT",
    "SPLIT_PATTERNS",
    "BPETokenizer",
    "CharTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "gpt2_tokenizer",
    "load_tokenizer",
    "train_tokenizer",
]


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    vocab_size: int | None = None,
    pattern: str = "gpt2",
    special_tokens: Sequence[str] | None = None,
) -> Tokenizer:
    """A tokenizer made from texts, which are read once, one at a time.

    kind: "char" or "bpe". vocab_size: for bpe, special tokens included (None: 4,096, or fewer where the text gives no
    more); characters have the size they have.
    pattern: for bpe, a row of SPLIT_PATTERNS. special_tokens: their names; None for `<|endoftext|>` with
    bpe and none with characters.
    Raises ValueError for settings that the kind does not have, and for text that does not suffice.

    >>> train_tokenizer("char", ["to be"]).vocab_size
    5
    >>> train_tokenizer("bpe", ["to be or not to be"], vocab_size=259).decode([72, 78])
    'io'
    """
    if kind == "char":
        if vocab_size is not None or pattern != "gpt2":
            raise ValueError("characters have no vocab_size or pattern to set: leave them out, or use bpe")
        return train_char(texts, special_tokens or ())
    if kind == "bpe":
        names = (END_OF_TEXT,) if special_tokens is None else special_tokens
        return train_bpe(texts, vocab_size, pattern, names)
    raise ValueError(f"no tokenizer of kind {kind!r} can be trained: choose char or bpe")
