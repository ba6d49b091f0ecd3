"""Copies and near copies of documents, and repeated sentences: signatures of single documents, and what they share.

Exact: the same text, but for white space at both ends. MinHash (Broder 1997) as in FineWeb: 5-word shingles, 14 bands of 8
hashes; of two documents whose shingles overlap by the share s, the probability to be recognised is 1 - (1 - s^8)^14, which
is 0.56 at 0.70 and 0.92 at 0.80. Sentences as in C4: a span of three sentences that occurred before is removed. The
signatures are datatrove's. The first document of a group stays, and validation text comes before training text.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from understudy.data.quality.filters import WordSplitter
from understudy.data.quality.settings import load_quality_library
from understudy.data.text.splits import text_hash

SHINGLES_AT_ONCE = 1 << 13
LEAST_WORDS_LEFT = 50
LEAST_SENTENCES_LEFT = 3
SENTENCES_AT_ONCE = 1 << 24
SENTENCE = np.dtype([("hash", "<u8"), ("doc", "<u8"), ("sentence", "<u4")])


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of a document.

    Attributes:
        exact: hash of the text.
        bands: hash of each band of MinHashes, shape (14,); zeros for a text of fewer than 5 words.
        sentences: hash of each span of three sentences and the number of its first, shape (S, 2).
    """

    exact: int
    bands: np.ndarray
    sentences: np.ndarray


class Signer:
    """Makes signatures. `dedup`: rows of settings.DEDUP. `words`: None where only "exact" is asked for."""

    def __init__(self, dedup: Sequence[str], words: WordSplitter | None) -> None:
        # The steps of datatrove want a folder to write to, and nothing is written here.
        folder = tempfile.gettempdir()
        self._minhash = self._sentences = None
        if "minhash" in dedup and words is not None:
            minhash = load_quality_library("datatrove.pipeline.dedup.minhash")
            self._minhash = minhash.MinhashDedupSignature(folder, language=words.tokenizer)
        if "sentence" in dedup and words is not None:
            dedup_module = load_quality_library("datatrove.pipeline.dedup.sentence_dedup")
            self._document = load_quality_library("datatrove.data").Document
            self._sentences = dedup_module.SentenceDedupSignature(
                folder, config=dedup_module.SentDedupConfig(), language=words.tokenizer
            )

    def sign(self, text: str) -> Signature:
        bands = np.zeros(0, np.uint64) if self._minhash is None else self.bands(text)
        spans = [] if self._sentences is None else self._sentences.get_hashes(self._document(text=text, id=""), 0)
        sentences = np.array([(value, number) for value, _, number in spans], np.uint64).reshape(-1, 2)
        return Signature(text_hash(text.strip()), bands, sentences)

    def bands(self, text: str) -> np.ndarray:
        """Hash of each band, shape (14,); zeros for a text without shingles."""
        assert self._minhash is not None
        shingles = self._minhash.get_shingles(text)
        config = self._minhash.config
        if not len(shingles):
            return np.zeros(config.num_buckets, np.uint64)
        least: np.ndarray | None = None
        # In parts: a long document has millions of shingles, each with 112 hashes.
        for start in range(0, len(shingles), SHINGLES_AT_ONCE):
            part = np.array(self._minhash.get_signature(shingles[start : start + SHINGLES_AT_ONCE]), np.uint64)
            least = part if least is None else np.minimum(least, part)
        assert least is not None
        digests = (hashlib.blake2b(band.astype("<u8").tobytes(), digest_size=8).digest() for band in least)
        return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)

    def shingles(self, text: str) -> np.ndarray:
        """The 64-bit hashes of the different shingles of a text, sorted, shape (N,)."""
        assert self._minhash is not None
        return np.unique(self._minhash.get_shingles(text))

    def similarity(self, first: str, second: str) -> float:
        """The Jaccard similarity of the shingles of two texts."""
        a, b = self.shingles(first), self.shingles(second)
        shared = len(np.intersect1d(a, b, assume_unique=True))
        return shared / max(1, len(a) + len(b) - shared)


class SentenceRemover:
    """Removes spans of sentences from a document, by datatrove's rules."""

    def __init__(self, words: WordSplitter) -> None:
        dedup = load_quality_library("datatrove.pipeline.dedup.sentence_dedup")
        self._document = load_quality_library("datatrove.data").Document
        self._filter = dedup.SentenceDedupFilter(
            tempfile.gettempdir(), dedup.SentDedupConfig(), language=words.tokenizer
        )
        self._words = words

    def remove(self, text: str, spans: np.ndarray) -> str | None:
        """The text without the spans that begin at these sentences; None if too little is left."""
        left, _ = self._filter.remove_dup_sentences(self._document(text=text, id=""), spans)
        words = self._words.tokenizer
        if len(words.word_tokenize(left)) < LEAST_WORDS_LEFT or len(words.span_tokenize(left)) < LEAST_SENTENCES_LEFT:
            return None
        return str(left)


def first_of_equals(keys: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Of each document the one of lowest rank with the same key, shape (N,)."""
    order = np.lexsort((rank, keys))
    starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]]) if len(keys) else np.zeros(0, np.int64)
    first = np.empty(len(keys), np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.r_[starts, len(keys)]))
    return first


def first_of_groups(columns: Iterator[np.ndarray], rank: np.ndarray) -> np.ndarray:
    """Of each document the one of lowest rank in its group, shape (N,). Documents with an equal key in a column are in one
    group, and so are those joined by a third. A key of 0 is none."""
    parent = np.arange(len(rank))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for keys in columns:
        first = first_of_equals(keys, rank)
        for i in np.flatnonzero((first != np.arange(len(first))) & (keys != 0)):
            a, b = root(int(first[i])), root(int(i))
            if a != b:
                low, high = (a, b) if rank[a] < rank[b] else (b, a)
                parent[high] = low
    return np.array([root(i) for i in range(len(parent))], np.int64)


def repeated_spans(blocks: Sequence[np.ndarray], rank: np.ndarray) -> np.ndarray:
    """The spans that occurred in a document of lower rank, or earlier in their own: rows of SENTENCE, in no order.

    Args:
        blocks: rows of SENTENCE of all documents.
        rank: of each document.
    """
    total = sum(len(block) for block in blocks)
    shares = max(1, -(-total // SENTENCES_AT_ONCE))
    found = []
    for share in range(shares):  # each a range of hashes, so that the memory is bounded
        rows = np.concatenate([np.zeros(0, SENTENCE), *(block[block["hash"] % shares == share] for block in blocks)])
        order = np.lexsort((rows["sentence"], rank[rows["doc"]], rows["hash"]))
        rows = rows[order]
        found.append(rows[1:][rows["hash"][1:] == rows["hash"][:-1]])
    return np.concatenate(found)
