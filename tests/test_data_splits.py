"""The rules of validation: independence of the order, and resuming anywhere."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from understudy.data.sources import Feed, Part
from understudy.data.text import documents, encoding
from understudy.data.text.documents import split_document
from understudy.data.text.encoding import EncodingState, batches
from understudy.data.text.splits import (
    Rule,
    SplitItem,
    choose_rule,
    default_fraction,
    divide,
    is_validation,
    training_sample,
)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PIECE_CHARS", 50)


def feed_of(*files: list[str], split: tuple[str | None, ...] = (), remote: bool = False) -> Feed:
    """A feed that lies in memory; every list of documents is a part."""
    splits = split or (None,) * len(files)
    parts = [Part(f"f{i}", sum(map(len, docs)), None, splits[i]) for i, docs in enumerate(files)]

    def read(i: int):
        return (piece for n, text in enumerate(files[i]) for piece in split_document(text, n))

    return Feed("memory", tuple(parts), read, remote=remote)


def choose(feed: Feed, fraction: float | None = None, limit: int | None = None) -> tuple[Rule, int]:
    return choose_rule(feed, fraction, limit, lambda progress: None)


def texts(items: list[SplitItem], split: str) -> list[str]:
    """The documents of a split, from the pieces."""
    whole, piece_text = [], ""
    for item in items:
        for name, text, _, ends in item.texts:
            if name == split:
                piece_text += text
                if ends:
                    whole.append(piece_text)
                    piece_text = ""
    assert piece_text == ""
    return whole


def everything(feed: Feed, rule: Rule, limit: int | None = None) -> list[SplitItem]:
    items: list[SplitItem] = []
    for part in range(len(feed.parts)):
        items += divide(feed, rule, part, limit, sum(item.ends for item in items))
    return items


def test_one_long_text_gives_its_last_tenth() -> None:
    text = "".join(f"word{i} " for i in range(333))
    rule, documents = choose(feed_of([text]))
    assert (rule.kind, rule.fraction, documents) == ("tail", 0.1, 1)
    items = everything(feed_of([text]), rule)
    at = int(len(text) * 0.9)
    assert texts(items, "train") == [text[:at]] and texts(items, "val") == [text[at:]]


@pytest.mark.parametrize("length", [2, 9, 10, 11, 49, 50, 51, 55, 56, 499, 500, 501, 1000])
def test_the_tail_at_every_kind_of_border(length: int) -> None:
    text = "x" * length
    items = everything(feed_of([text, text]), choose(feed_of([text, text]))[0])
    at = int(length * 0.9)
    assert texts(items, "train") == [text[:at]] * 2 and texts(items, "val") == [text[at:]] * 2


def test_few_documents_give_the_tail_of_each() -> None:
    feed = feed_of(["a" * 100, " \n"], ["b" * 200])
    rule, documents = choose(feed)
    assert rule.lengths == ((100, 2), (200,)) and documents == 2
    items = everything(feed, rule)
    assert texts(items, "val") == ["a" * 10, "b" * 20]
    assert [item.empty for item in items].count(True) == 1


def test_many_documents_go_by_their_hash() -> None:
    docs = [f"document {i} " * (1 + i % 20) for i in range(1000)]
    rule, documents = choose(feed_of(docs))
    assert (rule.kind, rule.fraction, documents) == ("hash", 0.1, 100)
    items = everything(feed_of(docs), rule)
    val, train = texts(items, "val"), texts(items, "train")
    assert Counter(val + train) == Counter(docs)
    assert 60 < len(val) < 140
    moved = everything(feed_of(docs[500:], docs[:500]), rule)
    assert set(texts(moved, "val")) == set(val), "neither order nor file matters"
    twice = everything(feed_of(docs + docs), rule)
    assert not set(texts(twice, "val")) & set(texts(twice, "train")), "copies never straddle the splits"


def test_a_source_s_own_splits_are_kept() -> None:
    feed = feed_of(["a", "b"], ["c"], split=("train", "val"))
    rule, _ = choose(feed)
    assert rule == Rule("own")
    items = everything(feed, rule)
    assert texts(items, "train") == ["a", "b"] and texts(items, "val") == ["c"]


@pytest.mark.parametrize("items", [3, 4096])
def test_reading_can_resume_anywhere(items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH_ITEMS", items)
    docs = [f"{i} " * (1 + 31 * i % 47) for i in range(20)]
    for feed in (feed_of(docs[:8], [], docs[8:]), feed_of(docs[:2] * 45, docs)):
        rule, _ = choose(feed, 0.2)
        for limit in (None, 11 if rule.kind == "tail" else 104):
            rule, _ = choose(feed, 0.2, limit)
            whole = list(batches([feed], [rule], limit, EncodingState()))
            assert {batch.position[1] for batch in whole} == set(range(1 if items > 3 else 0, len(feed.parts) + 1))
            for n, batch in enumerate(whole, 1):
                state = EncodingState(*batch.position)
                assert list(batches([feed], [rule], limit, state)) == whole[n:]


def test_limit_counts_documents() -> None:
    docs = [f"document {i}" for i in range(300)]
    feed = feed_of(docs[:90], docs[90:])
    rule, _ = choose(feed, None, 50)
    assert rule.kind == "tail"
    assert sum(item.ends for item in everything(feed, rule, 50)) == 50
    rule, _ = choose(feed, None, 120)
    assert rule.kind == "hash"
    assert sum(item.ends for item in everything(feed, rule, 120)) == 120


def test_a_limit_spares_the_files_that_are_not_needed() -> None:
    docs = [f"document {i}" for i in range(60)]
    for limit in (60, 59):
        read: list[int] = []
        feed = feed_of(docs, docs, docs)
        counted = dataclasses.replace(feed, read=lambda i, feed=feed, read=read: read.append(i) or feed.read(i))
        rule, _ = choose(counted, None, limit)
        assert sum(item.ends for item in everything(counted, rule, limit)) == limit
        assert list(training_sample([counted], [rule], limit, 10**6))
        assert set(read) == {0}


def test_the_share_for_validation() -> None:
    assert default_fraction(1_000_000, None) == 0.1
    assert default_fraction(1_000_000_000, None) == 0.01
    assert default_fraction(40_000_000_000, None) == 0.0005
    assert default_fraction(40_000_000_000, 1000) == 0.1, "a limit makes a large corpus small"
    share = sum(is_validation(f"text {i}", 0.25) for i in range(4000)) / 4000
    assert 0.22 < share < 0.28


def test_the_sample_for_a_tokenizer_is_training_text_from_every_file() -> None:
    docs = [[f"file {f} document number {i:03d} of sixty" for i in range(60)] for f in range(5)]
    feed = feed_of(*docs)
    rule, _ = choose(feed)
    sample = list(training_sample([feed], [rule], None, 2000))
    assert 1500 < sum(map(len, sample)) < 2600
    assert {text.split()[1] for text in sample} == set("01234")
    assert not set(sample) & set(texts(everything(feed, rule), "val"))
    assert sample == list(training_sample([feed], [rule], None, 2000))
    everything_in = list(training_sample([feed], [rule], None, 10**9))
    assert everything_in == [t for item in everything(feed, rule) for s, t, _, _ in item.texts if s == "train"]
    first = list(training_sample([feed_of(*docs, remote=True)], [rule], None, 1000))
    assert {text.split()[1] for text in first} == {"0"}, "of what must be fetched only the beginning"
