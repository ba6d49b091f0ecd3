"""Training and validation text: one rule for each source, decided before encoding.

- own:  the source has its splits (the embedded corpus).
- tail: fewer than 100 documents. The last 10% of the characters of each document are for validation; of one
        long text, that is what nanoGPT does.
- hash: otherwise. A document is for validation when the BLAKE2b hash of its text, read as a fraction of the
        largest hash, is below the chosen fraction. Copies of a document fall on the same side, and so does a
        document whatever its neighbours. Of a document longer than one piece (about a million characters)
        the first piece is hashed. The fraction, unless given, is VAL_BYTES over the size of the source's files,
        at most LARGEST_FRACTION and at least SMALLEST_FRACTION (nanoGPT's for OpenWebText).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from understudy.data.progress import PreparationProgress, Report
from understudy.data.text.documents import DocumentPiece
from understudy.data.text.sources import Feed

FEW_DOCUMENTS = 100
TAIL_FRACTION = 0.1
VAL_BYTES = 10_000_000
LARGEST_FRACTION = 0.1
SMALLEST_FRACTION = 0.0005
TYPICAL_DOCUMENT_BYTES = 4096


@dataclass(frozen=True)
class Rule:
    """A feed's rule. `lengths`: for tail, the characters of every document of every part, empty ones included."""

    kind: str
    fraction: float | None = None
    lengths: tuple[tuple[int, ...], ...] = ()

    @property
    def val_fraction(self) -> float:
        """The share of the text that is validation text.

        Raises:
            ValueError: the rule has none.
        """
        if self.fraction is None:
            raise ValueError(f"the rule {self.kind} has no fraction")
        return self.fraction


@dataclass(frozen=True)
class Position:
    """A place in a feed: `piece` pieces of this part are done, and the parts before it held `documents`."""

    part: int = 0
    documents: int = 0
    piece: int = 0


@dataclass(frozen=True, slots=True)
class SplitItem:
    """One piece, divided. `texts`: up to two of (split, text, whether the document's text in that split
    ends).

    `ends`: the document ends here. `empty`: it is nothing but whitespace and was dropped. `after`: the place
    that follows. `offset`: see DocumentPiece.
    """

    texts: tuple[tuple[str, str, bool], ...]
    ends: bool
    empty: bool
    after: Position
    offset: int


def choose_rule(feed: Feed, fraction: float | None, limit: int | None, report: Report) -> tuple[Rule, int]:
    """A feed's rule, and how many documents with text it has (counted to 100 at most).

    Reads the feed until 100 documents were seen; where there are fewer, that is all of it, and each
    document's length is then known. In a small corpus bad input thus shows before anything is written.
    """
    if feed.parts and feed.parts[0].split is not None:
        return Rule("own"), FEW_DOCUMENTS
    lengths: list[list[int]] = []
    documents, filled, length, blank = 0, 0, 0, True
    total, before = sum(part.size for part in feed.parts), 0
    for i, part in enumerate(feed.parts):
        if documents == limit:
            break
        lengths.append([])
        for piece in feed.read(i):
            if documents == limit:
                break
            length += len(piece.text)
            blank = blank and not piece.text.strip()
            report(PreparationProgress("looking through the text", before + piece.offset, total))
            if piece.ends:
                lengths[-1].append(length)
                documents += 1
                filled += not blank
                length, blank = 0, True
            if filled == FEW_DOCUMENTS:
                return Rule("hash", fraction or default_fraction(total, limit)), filled
        before += part.size
    return Rule("tail", fraction or TAIL_FRACTION, tuple(tuple(part) for part in lengths)), filled


def default_fraction(size_bytes: int, limit: int | None) -> float:
    """The share of documents for validation where none was asked for; see the head of this file."""
    if limit is not None:
        size_bytes = min(size_bytes, limit * TYPICAL_DOCUMENT_BYTES)
    return min(LARGEST_FRACTION, max(SMALLEST_FRACTION, VAL_BYTES / max(1, size_bytes)))


def is_validation(text: str, fraction: float) -> bool:
    """Whether a document with this text is for validation, under the rule "hash"."""
    return text_hash(text) < fraction * 2.0**64


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, by which it falls on one side independent of its neighbours."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def divide(feed: Feed, rule: Rule, limit: int | None, start: Position) -> Iterator[SplitItem]:
    """The feed from `start` on, every piece assigned. Parts before it are not read; its own part is read again.

    `limit`: the most documents to read, of a feed without splits of its own.
    """
    documents = start.documents
    for i in range(start.part, len(feed.parts)):
        own_split = feed.parts[i].split
        if limit is not None and own_split is None and documents >= limit:
            return
        cursor = _Cursor(rule, rule.lengths[i] if rule.kind == "tail" else ())
        skip = start.piece if i == start.part else 0
        for number, piece in enumerate(feed.read(i), 1):
            if limit is not None and own_split is None and documents + cursor.document >= limit:
                return
            texts, empty = cursor.assign(piece, own_split)
            if number > skip:
                yield SplitItem(texts, piece.ends, empty, Position(i, documents, number), piece.offset)
        documents += cursor.document


class _Cursor:
    """The reader's place in the documents of a part: enough to assign the next piece."""

    def __init__(self, rule: Rule, lengths: tuple[int, ...]) -> None:
        self.rule = rule
        self.fraction = rule.fraction or 0.0  # the rule "own" has none and needs none
        self.lengths = lengths
        self.document = 0
        self.chars = 0
        self.split = "train"

    def assign(self, piece: DocumentPiece, own_split: str | None) -> tuple[tuple[tuple[str, str, bool], ...], bool]:
        """The piece's texts with their splits, and whether it is a whole document with nothing in it."""
        starts = self.chars == 0
        if starts and piece.ends and not piece.text.strip():
            self.document += 1
            return (), True
        texts: tuple[tuple[str, str, bool], ...]
        if self.rule.kind == "tail":
            texts = self._tail(piece)
        else:
            if own_split is not None:
                self.split = own_split
            elif starts:
                self.split = "val" if is_validation(piece.text, self.fraction) else "train"
            texts = ((self.split, piece.text, piece.ends),)
        self.chars = 0 if piece.ends else self.chars + len(piece.text)
        self.document += piece.ends
        return texts, False

    def _tail(self, piece: DocumentPiece) -> tuple[tuple[str, str, bool], ...]:
        """The piece cut where its document's validation text begins, if that is in it."""
        cut = max(0, int(self.lengths[self.document] * (1 - self.fraction)) - self.chars)
        head, tail = piece.text[:cut], piece.text[cut:]
        texts = [("train", head, len(head) == cut)] if head else []
        if tail:
            texts.append(("val", tail, piece.ends))
        return tuple(texts)


def training_sample(feeds: Sequence[Feed], rules: Sequence[Rule], limit: int | None, max_bytes: int) -> Iterator[str]:
    """About `max_bytes` of training text to train a tokenizer on: the same every time, and no validation text.

    The feeds share it equally. Local files each give their share from their beginning; a feed that is fetched,
    generated or limited gives its beginning, so that only its first files are needed.
    """
    for feed, rule in zip(feeds, rules):
        budget = max_bytes // len(feeds)
        spread = not feed.remote and limit is None and rule.kind != "own"
        total = max(1, sum(part.size for part in feed.parts))
        taken, documents, before = 0, 0, 0
        for i, part in enumerate(feed.parts):
            before += part.size
            allowed = budget * before // total if spread else budget
            if part.split == "val" or taken >= allowed:
                continue
            for item in divide(feed, rule, limit, Position(i, documents, 0)):
                if item.after.part != i:
                    break
                documents += item.ends
                for split, text, _ in item.texts:
                    if split == "train":
                        taken += len(text.encode("utf-8"))
                        yield text
                if taken >= allowed:
                    break


def distinct_documents(feeds: Sequence[Feed], most: int) -> int:
    """The number of different documents, counted up to `most`, by the hashes of their first pieces."""
    hashes: set[int] = set()
    for feed in feeds:
        for i in range(len(feed.parts)):
            begins = True
            for piece in feed.read(i):
                if begins and piece.text.strip():
                    hashes.add(text_hash(piece.text))
                    if len(hashes) >= most:
                        return most
                begins = piece.ends
    return len(hashes)
