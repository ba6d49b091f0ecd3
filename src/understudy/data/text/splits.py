"""Training and validation text: one rule for each source, decided before encoding.

- own:  the source has its splits (the embedded corpus).
- tail: fewer than 100 documents. The last 10% of the characters of each document are for validation; of one
        long text, this is nanoGPT's split.
- hash: otherwise. A document is for validation when the BLAKE2b hash of its text, read as a fraction of the
        largest hash, is below the chosen fraction. Copies of a document fall on the same side, and so does a
        document whatever its neighbours. Of a document longer than one piece (about a million characters)
        the first piece is hashed. The fraction, unless given, is VAL_BYTES over the size of the source's files,
        at most LARGEST_FRACTION and at least SMALLEST_FRACTION (nanoGPT's for OpenWebText).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from understudy.data.progress import PreparationProgress, Report
from understudy.data.sources import Feed
from understudy.data.text.documents import Note

FEW_DOCUMENTS = 100
TAIL_FRACTION = 0.1
VAL_BYTES = 10_000_000
LARGEST_FRACTION = 0.1
SMALLEST_FRACTION = 0.0005
TYPICAL_DOCUMENT_BYTES = 4096
HASHED_AT_ONCE_BYTES = 1 << 16


@dataclass(frozen=True)
class Rule:
    """A feed's rule. `lengths`: for tail, the characters of every document of every part, empty ones included.
    `uniform`: for hash, whether all documents that were looked at are the same."""

    kind: str
    fraction: float | None = None
    lengths: tuple[tuple[int, ...], ...] = ()
    uniform: bool = False


class SplitText(NamedTuple):
    """Text for one split. `begins`, `ends`: whether the document's text in that split begins and ends with it."""

    split: str
    text: str
    begins: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class SplitItem:
    """One piece, divided. `texts`: up to two.

    `ends`: the document ends here. `empty`: it is nothing but whitespace and was dropped. `offset`: see DocumentPiece.
    `note`: such an item has no text.
    """

    texts: tuple[SplitText, ...]
    ends: bool
    empty: bool
    offset: int
    note: Note | None = None


def choose_rule(
    feed: Feed, fraction: float | None, limit: int | None, report: Report, notes: list[Note] | None = None
) -> tuple[Rule, int]:
    """A feed's rule, and how many documents with text it has (counted to 100 at most).

    Reads the feed until 100 documents were seen; where there are fewer, that is all of it, and each
    document's length is then known. In a small corpus bad input thus shows before anything is written.
    """
    if feed.parts and feed.parts[0].split is not None:
        return Rule("own"), FEW_DOCUMENTS
    lengths: list[list[int]] = []
    documents, filled, length, blank = 0, 0, 0, True
    total, before = sum(part.size for part in feed.parts), 0
    beginnings: set[int] = set()
    for i, part in enumerate(feed.parts):
        if documents == limit:
            break
        lengths.append([])
        for piece in feed.read(i):
            if documents == limit:
                break
            if piece.note is not None:
                if notes is not None:
                    notes.append(piece.note)
                continue
            if not length:
                beginnings.add(text_hash(piece.text))
            length += len(piece.text)
            blank = blank and not piece.text.strip()
            report(PreparationProgress("looking through the text", before + piece.offset, total))
            if piece.ends:
                lengths[-1].append(length)
                documents += 1
                filled += not blank
                length, blank = 0, True
            if filled == FEW_DOCUMENTS:
                uniform = len(beginnings) == 1
                return Rule("hash", fraction or default_fraction(total, limit), uniform=uniform), filled
        before += part.size
    return Rule("tail", fraction or TAIL_FRACTION, tuple(tuple(part) for part in lengths)), filled


def default_fraction(size_bytes: int, limit: int | None) -> float:
    """The share of documents for validation by default; see the head of this file."""
    if limit is not None:
        size_bytes = min(size_bytes, limit * TYPICAL_DOCUMENT_BYTES)
    return min(LARGEST_FRACTION, max(SMALLEST_FRACTION, VAL_BYTES / max(1, size_bytes)))


def is_validation(text: str, fraction: float) -> bool:
    """Whether a document with this text is for validation, under the rule "hash"."""
    return text_hash(text) < fraction * 2.0**64


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, by which it falls on one side independent of its neighbours."""
    content = text.encode("utf-8")
    digest = hashlib.blake2b(digest_size=8)
    # `hashlib` hands the interpreter to other threads at every block of 2 KB or more, and gets it back late from those that
    # encode: of 4 KB a document, 94 us instead of 10 (2 cores).
    step = len(content) if len(content) > HASHED_AT_ONCE_BYTES else 2047
    for start in range(0, len(content), max(1, step)):
        digest.update(content[start : start + step])
    return int.from_bytes(digest.digest(), "big")


def divide(feed: Feed, rule: Rule, part: int, limit: int | None, documents: int) -> Iterator[SplitItem]:
    """One part of a feed, every piece assigned.

    Args:
        limit: the most documents to read, validation text of a feed with splits of its own aside.
        documents: the number of documents in the parts before.
    """
    own_split = feed.parts[part].split
    most = limit if limit is not None and own_split != "val" else math.inf
    if documents >= most:
        return
    chars, val_start, split, first = 0, 0, own_split or "train", documents  # the first three of the present document
    begun: set[str] = set()  # the splits in which the present document has text
    for piece in feed.read(part):
        if piece.note is not None:
            yield SplitItem((), False, False, piece.offset, piece.note)
            continue
        starts, blank = chars == 0, not piece.text.strip()
        if starts and rule.kind == "tail":
            val_start = int(rule.lengths[part][documents - first] * (1 - (rule.fraction or 0)))
        elif starts and rule.kind == "hash":
            split = "val" if is_validation(piece.text, rule.fraction or 0) else "train"
        if starts and piece.ends and blank:
            yield SplitItem((), True, True, piece.offset)
        elif rule.kind == "tail":
            cut = max(0, val_start - chars)
            head, tail = piece.text[:cut], piece.text[cut:]
            texts = (("train", head, len(head) == cut), ("val", tail, piece.ends))
            # The last piece of a long document may be empty, and still ends it.
            filled = [(split, text, ends) for split, text, ends in texts if text or (split == "val" and ends)]
            yield SplitItem(
                tuple(SplitText(split, text, split not in begun, ends) for split, text, ends in filled),
                piece.ends, False, piece.offset,
            )  # fmt: skip
            begun.update(split for split, _, _ in filled)
        else:
            yield SplitItem((SplitText(split, piece.text, not begun, piece.ends),), piece.ends, False, piece.offset)
            begun.add(split)
        if piece.ends:
            begun.clear()
        chars = 0 if piece.ends else chars + len(piece.text)
        documents += piece.ends
        if documents >= most:
            return


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
            for item in divide(feed, rule, i, limit, documents):
                documents += item.ends
                for part_text in item.texts:
                    if part_text.split == "train":
                        taken += len(part_text.text.encode("utf-8"))
                        yield part_text.text
                if taken >= allowed:
                    break
