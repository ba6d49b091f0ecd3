"""Byte-level BPE tokenizer, trained by `tokenizers` and encoded by `tiktoken`. tests/bpe_reference.py spells both out.

The idea (Gage 1994; Sennrich et al. 2016, arXiv:1508.07909; over bytes, Radford et al. 2019). A text is
cut into words by a regular expression, and a word starts as its UTF-8 bytes: 256 tokens, so nothing is
ever unknown. The most frequent pair of neighbouring tokens within words becomes a token, again and again. The
vocabulary is the 256 bytes and then the pairs, in the order in which they were merged.

Ranks count bytes and merges only (byte order as in `byte_characters`, merge i is 256 + i). Ids are ranks, unless a
vocabulary numbers its tokens otherwise.

`tiktoken` may encode for the following reason: it merges the neighbours whose joined bytes have the lowest rank, whichever pair
the merge was learned from. In a vocabulary where the bytes of every token encode to this token, that is the
same thing; training makes only these vocabularies, and `load.py` refuses others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from understudy.tokenizer.base import Tokenizer, clean, numbered, split_at

if TYPE_CHECKING:
    import tiktoken

    from understudy.tokenizer.base import Ids

# How a text is cut into words. Written so that Rust's fancy-regex (tiktoken), Oniguruma (tokenizers) and
# Python's regex read the same: no possessive {1,3}+, which Oniguruma takes for a repeat, and no $.
# `tiktoken` ships a rewritten GPT-4 pattern that keeps "\n  " at the very end of a text in one word; the
# one below is the one in circulation (Hugging Face, llama.cpp) and gives "\n", "  ".
SPLIT_PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

# A pair that was seen once is a coincidence.
DEFAULT_VOCAB_SIZE = 4096
MIN_PAIR_COUNT = 2

Pair = tuple[int, int]
# `tiktoken`'s regex gives up (and panics) somewhere between 300,000 and 1,000,000 blanks in a row. Words of
# at least this many are encoded apart.
LONG_BLANK = 50_000
NEVER = "\0"
# `tokenizers` trains in time quadratic in the length of a word (100,000 letters: 8 s), so training sees a
# run of this many characters without a blank, or blanks only, as several words.
LONGEST_TRAINING_RUN = 1000
TRAINING_PART = 100_000


def byte_characters() -> dict[int, str]:
    """A visible character for each byte, in the order of their ids: GPT-2's way to write tokens as text.

    Bytes that print in Latin-1 stand for themselves and come first; the others borrow the characters from
    U+0100 on. So a space is written Ġ (U+0120).
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


class BPETokenizer(Tokenizer):
    """Byte-level BPE: any text has ids, and they decode to the same text.

    merges: pairs of ranks. pattern: a row of SPLIT_PATTERNS. ids: where this
    vocabulary numbers its 256 bytes and merges otherwise, their ids in that order; None for 0, 1, 2, ...
    Raises ValueError for merges that name later tokens or make the same token twice.
    """

    kind = "bpe"
    # Between a letter and a blank, and after a line break that is the only blank: both patterns end a word
    # there, look no further back, and would end it there too if the text ended.
    safe_cut = re.compile(r"[A-Za-z](?=\s)|\S\n(?=\S)")

    def __init__(
        self,
        merges: Sequence[Pair],
        pattern: str,
        special_tokens: Mapping[str, int],
        ids: Sequence[int] | None = None,
    ) -> None:
        check_pattern(pattern)
        tokens = [bytes([byte]) for byte in byte_characters()]
        for i, (left, right) in enumerate(merges):
            if not (0 <= left < 256 + i and 0 <= right < 256 + i):
                raise ValueError(f"merge {i} joins tokens {left} and {right}, and only {256 + i} exist by then")
            tokens.append(tokens[left] + tokens[right])
        self._rank_of = {token: rank for rank, token in enumerate(tokens)}
        if len(self._rank_of) != len(tokens):
            twice = next(token for rank, token in enumerate(tokens) if self._rank_of[token] != rank)
            raise ValueError(f"two merges make the same token, {twice!r}")
        if ids is not None and len(ids) != len(tokens):
            raise ValueError(f"{len(ids)} ids are given for {len(tokens)} tokens")
        super().__init__(numbered(tokens, special_tokens, ids), special_tokens)
        self.merges = list(merges)
        self.pattern = pattern
        self.ids = None if ids is None or list(ids) == list(range(len(tokens))) else list(ids)

    def to_document(self) -> dict[str, Any]:
        spelled = list(byte_characters().values())
        lines = []
        for left, right in self.merges:
            lines.append(f"{spelled[left]} {spelled[right]}")
            spelled.append(spelled[left] + spelled[right])
        document = {"pattern": self.pattern, "merges": lines, "special_tokens": self.special_tokens}
        return document if self.ids is None else document | {"ids": self.ids}

    def _with_special_table(self, special_tokens: dict[str, int]) -> Self:
        return type(self)(self.merges, self.pattern, special_tokens, self.ids)

    def _encode_part(self, text: str) -> Ids:
        import numpy as np

        text = clean(text)
        # A run of LONG_BLANK covers one of these windows entirely; most are dismissed at their first letter.
        window = LONG_BLANK // 2
        if any(text[at : at + window].isspace() for at in range(0, len(text) - window + 1, window)):
            array: Ids = np.concatenate(list(self._around_long_blanks(text)))
        else:
            array = _ranks(self._engine, text)
        return array if self.ids is None else self._id_of_rank[array]

    def _around_long_blanks(self, text: str) -> Iterator[Ids]:
        """Ranks, part by part, of a text that may hold more consecutive blanks than the regex engine can match."""
        import regex

        done = 0
        for word in regex.finditer(SPLIT_PATTERNS[self.pattern], text):
            if word.end() - word.start() >= LONG_BLANK and word[0].isspace():
                yield _ranks(self._engine, text[done : word.start()])
                yield _ranks(self._one_word_engine, word[0])
                done = word.end()
        yield _ranks(self._engine, text[done:])

    @cached_property
    def _engine(self) -> tiktoken.Encoding:
        return self._new_engine(SPLIT_PATTERNS[self.pattern])

    @cached_property
    def _one_word_engine(self) -> tiktoken.Encoding:
        return self._new_engine("(?s:.+)")

    def _new_engine(self, pattern: str) -> tiktoken.Encoding:
        import tiktoken

        # Special tokens stay out of it, so that their names in a text are plain text. Of none at all the engine's search
        # would stop at every character of the text, so it has one, which `_ranks` never lets it use.
        never = {NEVER: len(self._rank_of)}
        return tiktoken.Encoding("", pat_str=pattern, mergeable_ranks=self._rank_of, special_tokens=never)

    @cached_property
    def _id_of_rank(self) -> Ids:
        import numpy as np

        return np.array(self.ids, dtype=np.uint32)


def _ranks(engine: tiktoken.Encoding, text: str) -> Ids:
    """The ranks of a text. An array, because a list of numbers is built and read by one thread at a time."""
    return engine.encode_to_numpy(text, disallowed_special=())


def train_bpe(
    texts: Iterable[str], vocab_size: int | None, pattern: str, special_tokens: Sequence[str]
) -> BPETokenizer:
    """A vocabulary of 256 bytes, merges learned from the texts, and special tokens.

    vocab_size: the exact number of all tokens; None for DEFAULT_VOCAB_SIZE, or what a smaller text gives.

    The texts are read once, one at a time; only the counts of words are held.
    Raises ValueError when the size is too small for the bytes, or too large for the texts.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    check_pattern(pattern)
    special_tokens = list(dict.fromkeys(special_tokens))
    smallest = 256 + len(special_tokens)
    wanted = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
    if wanted < smallest:
        raise ValueError(
            f"a vocabulary of {wanted} tokens is too small: 256 bytes and {len(special_tokens)} special"
            f" tokens need {smallest}"
        )
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERNS[pattern]), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=wanted - len(special_tokens),
        min_frequency=MIN_PAIR_COUNT,
        initial_alphabet=list(byte_characters().values()),
        show_progress=False,
    )
    learner.train_from_iterator(training_parts(texts), trainer)
    # The library has no other way to hand over its merges than the JSON of the whole tokenizer.
    merges = pairs_of(json.loads(learner.to_str())["model"]["merges"])
    if vocab_size is not None and smallest + len(merges) < vocab_size:
        raise ValueError(
            f"the text has too few repeated pairs for a vocabulary of {vocab_size} tokens: ask for "
            f"{smallest + len(merges)} or less, or give more text"
        )
    return BPETokenizer(merges, pattern, {}).with_special_tokens(special_tokens)


def training_parts(texts: Iterable[str]) -> Iterator[str]:
    """The texts, cut for training: between words where there are any, and within endless words."""
    endless = re.compile(rf"\S{{{LONGEST_TRAINING_RUN}}}|\s{{{LONGEST_TRAINING_RUN}}}")
    for text in texts:
        for part in split_at(BPETokenizer.safe_cut, clean(text), TRAINING_PART):
            for start, end in pairwise([0, *(run.end() for run in endless.finditer(part)), len(part)]):
                yield part[start:end]


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a splitting pattern that is not in the table."""
    if pattern not in SPLIT_PATTERNS:
        raise ValueError(f"there is no splitting pattern {pattern!r}: choose one of {', '.join(SPLIT_PATTERNS)}")


def pairs_of(halves: Iterable[Sequence[str]]) -> list[Pair]:
    """Merges, as pairs of tokens in their visible spelling, as pairs of ranks."""
    rank_of = {char: rank for rank, char in enumerate(byte_characters().values())}
    pairs: list[Pair] = []
    for i, (left, right) in enumerate(halves):
        if left not in rank_of or right not in rank_of:
            raise ValueError(f"its merge {i} joins {left!r} and {right!r}, and one does not exist by then")
        pairs.append((rank_of[left], rank_of[right]))
        rank_of[left + right] = 256 + i
    return pairs
