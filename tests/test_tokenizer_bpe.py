"""Byte-level BPE: our readable implementation, `tokenizers` and `tiktoken` must agree."""

import pickle
import sys
import unicodedata
from itertools import product

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpe_reference import count_words, encode_word, learn_merges, reference_ids, replace_pair
from understudy.tokenizer import END_OF_TEXT, SPLIT_PATTERNS, BPETokenizer, StreamDecoder, train_tokenizer
from understudy.tokenizer.bpe import byte_characters, train_bpe, training_parts

# Letters newer than some engine's Unicode are left out, as bpe_reference.py says; Python's own tables are older.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
TRICKY = [
    " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u0085", "\x1c", "\u200b", "'s", "'S", "'LL", "'\u017f", "'re",
    "'", "a", "Zz", "the", "é", "e\u0301\u0302", "\u0301", "नमस्ते", "ﬁ", "1", "1234", "٣", "½", "Ⅷ", "中文字", "語",
    "!", "?!", "-", "😀", "👩‍👩‍👧", "🇦🇺", "\x00", "\ufffd", "\u2028", END_OF_TEXT,
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(TRICKY) | CHARACTERS | st.text(CHARACTERS, max_size=8), max_size=12).map("".join)
# Few letters, so that pairs tie in frequency all the time.
CORPORA = st.lists(st.text(st.sampled_from("ab \n'sé1😀"), max_size=60), max_size=4)
PATTERNS = st.sampled_from(sorted(SPLIT_PATTERNS))
PROSE = "It's the bear's den, isn't it? The bears' 1234 dens!\n\n  They're there -- THE END. naïve café 😀😀 " * 3


def pairs_tokenizer(pattern: str) -> BPETokenizer:
    """A token for every two neighbouring bytes of some: its tokens of a text show where words end."""
    order = list(byte_characters())
    some = sorted({byte for text in TRICKY for byte in text.encode()} | set(b"abcdlrstvxyz"))
    merges = [(order.index(left), order.index(right)) for left, right in product(some, some)]
    return BPETokenizer(merges, pattern, {})


PAIRS = {pattern: pairs_tokenizer(pattern) for pattern in SPLIT_PATTERNS}
TRAINED = {pattern: train_bpe([PROSE], 300, pattern, [END_OF_TEXT]) for pattern in SPLIT_PATTERNS}


# The alphabet and the splitting.


def test_bytes_are_written_and_numbered_as_in_tokenizers() -> None:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    assert sorted(byte_characters().values()) == sorted(alphabet)
    assert list(byte_characters().values()) == sorted(alphabet)
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for char in "a \né":
        assert split.pre_tokenize_str(char)[0][0] == "".join(byte_characters()[byte] for byte in char.encode())


@pytest.mark.parametrize("characters", [r"\p{L}", r"\p{N}", r"\s", r"(?i:[sdmtlvre])"])
def test_engines_agree_on_every_assigned_character(characters: str) -> None:
    code_points = (chr(code) for code in range(sys.maxunicode + 1))
    text = "".join(char for char in code_points if unicodedata.category(char) not in ("Cs", "Cn"))
    expected = "".join(regex.findall(characters, text))
    bytes_only = {bytes([byte]): byte for byte in range(256)}
    rust = tiktoken.Encoding("", pat_str=characters, mergeable_ranks=bytes_only, special_tokens={})
    assert bytes(rust.encode_ordinary(text)).decode() == expected
    oniguruma = tokenizers.pre_tokenizers.Split(tokenizers.Regex(f"{characters}+"), "removed", invert=True)
    assert "".join(word for word, _ in oniguruma.pre_tokenize_str(text)) == expected


@given(PATTERNS, TEXTS)
@settings(deadline=None)
def test_engines_cut_words_alike(pattern: str, text: str) -> None:
    words = regex.findall(SPLIT_PATTERNS[pattern], text)
    assert "".join(words) == text
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERNS[pattern]), "isolated")
    assert [word for word, _ in split.pre_tokenize_str(text)] == words
    assert PAIRS[pattern].encode(text) == reference_ids(PAIRS[pattern], text)


def test_the_patterns_are_the_known_ones() -> None:
    text = "I'll SHOULDN'T  12345\n\n  x\r\ny!\n "
    words = {name: regex.findall(pattern, text) for name, pattern in SPLIT_PATTERNS.items()}
    assert words["gpt2"] == [
        "I", "'ll", " SHOULDN", "'", "T", " ", " 12345", "\n\n ", " x", "\r", "\n", "y", "!", "\n ",
    ]  # fmt: skip
    assert words["gpt4"] == [
        "I", "'ll", " SHOULDN", "'T", " ", " ", "123", "45", "\n\n", " ", " x", "\r\n", "y", "!\n", " ",
    ]  # fmt: skip


# Training.


def test_training_by_hand() -> None:
    # Counts in "abab": ab 2, ba 1. As "X X" with X = ab: then XX once a word, three times in all.
    merges = learn_merges({b"abab": 3, b"b": 9}, n_merges=5)
    order = list(byte_characters())
    assert merges == [(order.index(ord("a")), order.index(ord("b"))), (256, 256)]
    assert replace_pair([1, 1, 1, 2], (1, 1), 9) == [9, 1, 2]
    assert learn_merges({b"ab": 1, b"cd": 1}, n_merges=5) == []  # seen once only
    # Equal counts: the smaller left id first, then the smaller right id.
    a, b, c = (order.index(byte) for byte in b"abc")
    assert learn_merges({b"bc": 2, b"ac": 2, b"ab": 2}, n_merges=3) == [(a, b), (a, c), (b, c)]


@given(CORPORA, PATTERNS, st.integers(0, 60))
@example(["aaaa aaa aaaaa", "aaaaaaa"], "gpt2", 20)
@settings(deadline=None)
def test_our_merges_are_those_of_tokenizers(texts: list[str], pattern: str, wanted: int) -> None:
    merges = learn_merges(count_words(texts, pattern), wanted)
    trained = train_tokenizer("bpe", texts, 256 + len(merges), pattern, special_tokens=[])
    assert isinstance(trained, BPETokenizer)
    assert trained.merges == merges
    if len(merges) < wanted:
        with pytest.raises(ValueError, match=f"too few repeated pairs .* ask for {256 + len(merges)} or less"):
            train_tokenizer("bpe", texts, 256 + wanted, pattern, special_tokens=[])


@given(st.text(st.sampled_from("ab \n"), max_size=300), PATTERNS)
@settings(max_examples=30, deadline=None)
def test_cutting_texts_for_training_changes_no_word_count(text: str, pattern: str) -> None:
    text = f"x {text}\n" * 400
    assert count_words(training_parts([text]), pattern) == count_words([text], pattern)


def test_words_without_end_are_cut_for_training() -> None:
    # tokenizers alone needs hours for one word of a million letters.
    text = "ab" * 500_000
    trained = train_tokenizer("bpe", [text], 264)
    assert isinstance(trained, BPETokenizer)
    assert trained.merges == learn_merges(count_words(training_parts([text]), "gpt2"), 7)
    assert trained.token_bytes(262) == b"ab" * 64


def test_sizes_and_special_tokens() -> None:
    tokenizer = train_tokenizer("bpe", [PROSE], 300, special_tokens=[END_OF_TEXT, "<|x|>"])
    assert tokenizer.vocab_size == 300
    assert tokenizer.special_tokens == {END_OF_TEXT: 298, "<|x|>": 299}
    assert tokenizer.eot_id == 298
    more = tokenizer.with_special_tokens(["<|y|>"])
    assert more.special_tokens["<|y|>"] == 300
    assert more.encode(PROSE) == tokenizer.encode(PROSE)
    assert more.decode([300]) == "<|y|>"
    with pytest.raises(ValueError, match="257 tokens is too small: 256 bytes and 2 special tokens need 258"):
        train_tokenizer("bpe", [PROSE], 257, special_tokens=[END_OF_TEXT, "<|x|>"])
    assert 256 < train_tokenizer("bpe", [PROSE]).vocab_size < 4096  # what this text gives
    with pytest.raises(ValueError, match="no splitting pattern 'gpt5': choose one of gpt2, gpt4"):
        train_tokenizer("bpe", [PROSE], 300, pattern="gpt5")
    with pytest.raises(ValueError, match="ordinary token too"):
        tokenizer.with_special_tokens(["the"])


# Encoding and decoding.


def test_encoding_by_hand() -> None:
    # a b c with bc found before ab: bc is made first, though ab stands to its left.
    a, b, c = (list(byte_characters()).index(byte) for byte in b"abc")
    assert encode_word(b"abc", {(b, c): 256, (a, b): 257}) == [a, 256]
    assert encode_word(b"abc", {(a, b): 256, (b, c): 257}) == [256, c]
    assert encode_word(b"aaaaa", {(a, a): 256, (256, 256): 257}) == [257, a]
    # abc found before ab: when ab's turn comes, its a is taken, though abc and d make a pair that has an id.
    d = list(byte_characters()).index(ord("d"))
    assert encode_word(b"abcd", {(b, c): 256, (a, 256): 257, (a, b): 258, (257, d): 259}) == [259]
    assert encode_word(b"", {}) == []


@given(PATTERNS, TEXTS, CORPORA)
@settings(max_examples=150, deadline=None)
def test_our_ids_are_those_of_tiktoken(pattern: str, text: str, corpus: list[str]) -> None:
    merges = learn_merges(count_words([*corpus, text, text], pattern), 50)
    for tokenizer in (BPETokenizer(merges, pattern, {}), TRAINED[pattern]):
        ids = tokenizer.encode(text)
        assert ids == reference_ids(tokenizer, text)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@given(st.text(st.sampled_from("ab'\ud800\ud83d\ude00\udfff"), max_size=9), PATTERNS)
@settings(deadline=None)
def test_lone_surrogates_count_as_replacement_characters(text: str, pattern: str) -> None:
    tokenizer = TRAINED[pattern]
    legal = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.encode(text) == reference_ids(tokenizer, text) == tokenizer.encode(legal)
    assert tokenizer.decode(tokenizer.encode(text)) == legal
    assert train_tokenizer("bpe", [text + PROSE], 260).vocab_size == 260


@given(PATTERNS, st.lists(st.integers(0, 299)), st.lists(st.integers(0, 5)))
@settings(deadline=None)
def test_any_ids_decode_to_their_bytes_at_once_or_in_a_stream(pattern: str, ids: list[int], sizes: list[int]) -> None:
    tokenizer = TRAINED[pattern]
    text = tokenizer.decode(ids)
    assert text == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", errors="replace")
    decoder, shown, remaining = StreamDecoder(tokenizer), "", ids
    for size in sizes:
        shown += decoder.push(remaining[:size])
        assert text.startswith(shown)
        remaining = remaining[size:]
    assert shown + decoder.push(remaining) + decoder.finish() == text


def test_the_stream_shows_no_half_characters() -> None:
    tokenizer = TRAINED["gpt2"]
    decoder = StreamDecoder(tokenizer)
    shown = [decoder.push([id]) for id in tokenizer.encode("ऋ")]
    assert shown == ["", "", "ऋ"]
    assert decoder.push(tokenizer.encode("ऋ")[:2]) == ""
    assert decoder.finish() == "\ufffd"


def test_special_tokens_in_a_text_are_plain_text() -> None:
    tokenizer = TRAINED["gpt2"]
    ids = tokenizer.encode(f"a{END_OF_TEXT}b")
    assert tokenizer.eot_id not in ids
    assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b"
    assert tokenizer.decode([tokenizer.eot_id or 0]) == END_OF_TEXT


@given(PATTERNS, TEXTS, st.integers(1, 10))
@example("gpt2", "a\n\nb a  b a\n b a b\n c!\nd", 1)
@example("gpt4", "a\n\nb a  b a\n b a b\n c!\nd", 1)
@settings(max_examples=300, deadline=None)
def test_a_text_can_be_cut_where_split_cuts_it(pattern: str, text: str, size: int) -> None:
    text += text.replace("a", "b c\nd")
    tokenizer = PAIRS[pattern]
    expected = tokenizer.encode(text)
    parts = tokenizer.split(text, size)
    assert "".join(parts) == text
    assert [id for part in parts for id in tokenizer.encode(part)] == expected


def test_long_texts_are_cut_and_put_together_in_order() -> None:
    tokenizer = TRAINED["gpt2"]
    text = PROSE * 5000
    assert len(tokenizer.split(text)) > 1
    ids = tokenizer.encode_batch([text, "a", "", text], threads=2)
    assert ids[0].tolist() == ids[3].tolist() == reference_ids(tokenizer, text)
    assert [array.dtype for array in ids] == [np.dtype("uint32")] * 4
    assert (ids[1].tolist(), ids[2].tolist()) == (tokenizer.encode("a"), [])


@pytest.mark.parametrize("pattern", sorted(SPLIT_PATTERNS))
@pytest.mark.parametrize("unit", ["a", "!", " ", "\n", "\u3000\r"])
def test_a_megabyte_of_the_same_is_no_trouble(pattern: str, unit: str) -> None:
    # Blanks: tiktoken alone panics. All: it must not take quadratic time.
    tokenizer = TRAINED[pattern]
    text = f"x!{unit * (1_000_000 // len(unit))}y"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pattern", sorted(SPLIT_PATTERNS))
@pytest.mark.parametrize("blank", [" ", "\n", "\t\n"])
def test_long_blanks_get_the_ids_they_should(pattern: str, blank: str) -> None:
    tokenizer = PAIRS[pattern]
    run = blank * (55_000 // len(blank))
    text = f"a!{run}b {run}'x\t\t{'y' * 55_000}\n{run}"
    assert tokenizer.encode(text) == reference_ids(tokenizer, text)


def test_a_vocabulary_may_number_its_tokens_otherwise() -> None:
    usual = TRAINED["gpt2"]
    n = 256 + len(usual.merges)
    other = BPETokenizer(usual.merges, "gpt2", {END_OF_TEXT: 0}, ids=list(range(n, 0, -1)))
    assert other.encode(PROSE) == [n - id for id in usual.encode(PROSE)] == reference_ids(other, PROSE)
    assert other.decode(other.encode(PROSE)) == PROSE
    assert other.token_bytes(n) == usual.token_bytes(0)
    assert BPETokenizer(usual.merges, "gpt2", {END_OF_TEXT: n}, ids=list(range(n))).sha256 == usual.sha256


@pytest.mark.parametrize(
    ("merges", "special_tokens", "ids", "complaint"),
    [
        ([(0, 256)], {}, None, "merge 0 joins tokens 0 and 256, and only 256 exist"),
        ([(-1, 0)], {}, None, "merge 0 joins"),
        ([(0, 1), (0, 1)], {}, None, "two merges make the same token"),
        ([(0, 0), (0, 256), (256, 0)], {}, None, "two merges make the same token"),
        (
            [],
            {"<|x|>": 257},
            None,
            "257 tokens must use each id from 0 to 256 once, and this one has no id 256",
        ),
        ([], {"<|x|>": 3}, None, "no id 256"),
        ([], {}, [0] * 256, "no id 1"),
        ([], {}, [0], "1 ids are given for 256 tokens"),
    ],
)
def test_impossible_vocabularies_are_refused(merges, special_tokens, ids, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        BPETokenizer(merges, "gpt2", special_tokens, ids)


def test_a_tokenizer_can_be_sent_to_another_process() -> None:
    tokenizer = TRAINED["gpt4"]
    expected = tokenizer.encode(PROSE)
    assert pickle.loads(pickle.dumps(tokenizer)).encode(PROSE) == expected
