"""Character tokenizers, and the methods of base.py that all tokenizers share."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.tokenizer import END_OF_TEXT, CharTokenizer, StreamDecoder, load_tokenizer, train_tokenizer

UNICODE = st.text(st.characters(codec="utf-8"), max_size=40)
WITH_SURROGATES = st.text(max_size=20) | st.text(st.sampled_from("a\ud800\ud83d\ude00\udfff"), max_size=9)


def test_tiny_shakespeare_has_nanogpts_65_ids() -> None:
    data = os.environ.get("UNDERSTUDY_TEST_DATA")
    if not data:
        pytest.skip("UNDERSTUDY_TEST_DATA is not set: it should name a folder with tinyshakespeare.txt")
    text = (Path(data) / "tinyshakespeare.txt").read_text()
    tokenizer = train_tokenizer("char", [text])
    assert tokenizer.vocab_size == 65
    ids = tokenizer.encode_batch([text])[0]
    assert ids.dtype == np.uint32
    assert ids[:8].tolist() == [18, 47, 56, 57, 58, 1, 15, 47]  # "First Ci" in nanoGPT's train.bin
    assert tokenizer.decode(ids) == text


@given(UNICODE.filter(bool), st.data())
@settings(deadline=None)
def test_ids_are_places_in_the_sorted_alphabet(alphabet: str, data: st.DataObject) -> None:
    tokenizer = train_tokenizer("char", alphabet)
    text = data.draw(st.text(st.sampled_from(alphabet)))
    assert tokenizer.encode(text) == [sorted(set(alphabet)).index(char) for char in text]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_come_after_the_characters_and_are_plain_text_in_texts() -> None:
    tokenizer = train_tokenizer("char", [END_OF_TEXT + "!"], special_tokens=[END_OF_TEXT])
    assert tokenizer.special_tokens == {END_OF_TEXT: tokenizer.vocab_size - 1}
    assert tokenizer.eot_id == tokenizer.vocab_size - 1
    assert len(tokenizer.encode(END_OF_TEXT)) == len(END_OF_TEXT)
    assert tokenizer.decode([tokenizer.encode("!")[0], tokenizer.vocab_size - 1]) == "!" + END_OF_TEXT
    assert train_tokenizer("char", ["ab"]).eot_id is None


def test_special_tokens_can_be_added_and_keep_their_ids() -> None:
    one = train_tokenizer("char", ["ab"], special_tokens=["<|x|>"])
    more = one.with_special_tokens(["<|y|>", "<|x|>", "<|z|>"])
    assert more.special_tokens == {"<|x|>": 2, "<|y|>": 3, "<|z|>": 4}
    assert (more.vocab_size, one.vocab_size) == (5, 3)
    assert more.sha256 != one.sha256
    for name in ("", "a", "\ud800"):
        with pytest.raises(ValueError, match="special token"):
            one.with_special_tokens([name])


@pytest.mark.parametrize("stranger", ["é", "Ý", "\x00", "😀", "b\ud800"])
def test_an_unknown_character_is_named(stranger: str) -> None:
    tokenizer = train_tokenizer("char", ["abc xyz"])
    with pytest.raises(ValueError, match=r"U\+(00E9|00DD|0000|1F600|FFFD).* 7 .*take it out"):
        tokenizer.encode("abc" + stranger)


@given(WITH_SURROGATES)
@settings(deadline=None)
def test_lone_surrogates_count_as_replacement_characters(text: str) -> None:
    legal = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    tokenizer = train_tokenizer("char", [text, "a"])
    assert tokenizer.encode(text) == tokenizer.encode(legal)
    assert tokenizer.decode(tokenizer.encode(text)) == legal


def test_long_texts_are_shared_among_threads_in_order() -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(3_000_000))
    tokenizer = train_tokenizer("char", ["abcdefghijklmnopqrstuvwxyz"])
    texts = [text, "", text[5:200_000], "b"]
    assert [len(part) for part in tokenizer.split(text)] == [1 << 20, 1 << 20, 3_000_000 - (1 << 21)]
    for threads in (1, 3):
        ids = tokenizer.encode_batch(texts, threads=threads)
        assert [len(array) for array in ids] == [len(text) for text in texts]
        assert (ids[0] == np.arange(3_000_000) % 26).all()
        assert (ids[2] == np.arange(5, 200_000) % 26).all()
        assert ids[3].tolist() == [1]


@pytest.mark.parametrize("ids", [[-1], [0, 2], np.array([2]), [1 << 70], [0.5], [[0]]])
def test_decode_refuses_invalid_ids(ids: list[int]) -> None:
    tokenizer = train_tokenizer("char", ["ab"])
    with pytest.raises(ValueError, match=r"id (-1|2) is outside the vocabulary of 2|whole numbers"):
        tokenizer.decode(ids)
    with pytest.raises(ValueError, match="id 2 is outside the vocabulary of 2 tokens"):
        tokenizer.token_bytes(2)


def test_decode_takes_lists_arrays_and_nothing() -> None:
    tokenizer = train_tokenizer("char", ["ab"])
    assert tokenizer.decode([]) == tokenizer.decode(np.array([])) == ""
    assert tokenizer.decode(np.array([1, 0], dtype=np.uint16)) == tokenizer.decode([1, 0]) == "ba"


def test_the_file_is_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("char", ['"\\\n\t\x00 é😀\u2028'], special_tokens=[END_OF_TEXT])
    tokenizer.save(tmp_path / "tokenizer.json")
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    assert hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest() == tokenizer.sha256
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(path)
        assert isinstance(loaded, CharTokenizer)
        assert loaded.sha256 == tokenizer.sha256
        assert loaded.special_tokens == tokenizer.special_tokens
        assert loaded.encode("é\n") == tokenizer.encode("é\n")


def test_the_stream_decoder_waits_for_whole_characters_only() -> None:
    tokenizer = train_tokenizer("char", ["aé"])
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(tokenizer.encode("é")), decoder.push([]), decoder.finish()] == ["é", "", ""]


def test_a_tokenizer_can_be_sent_to_another_process() -> None:
    tokenizer = train_tokenizer("char", ["ab"])
    tokenizer.encode("a")
    assert pickle.loads(pickle.dumps(tokenizer)).encode("ba") == [1, 0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "char", "texts": []},
        {"kind": "char", "texts": ["", ""]},
        {"kind": "char", "texts": ["a"], "vocab_size": 10},
        {"kind": "char", "texts": ["a"], "pattern": "gpt4"},
        {"kind": "word", "texts": ["a"]},
    ],
)
def test_training_refuses_settings_it_would_ignore(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"no text|leave them out|choose char or bpe"):
        train_tokenizer(**arguments)


def test_importing_tokenizers_loads_no_library() -> None:
    heavy = "numpy torch regex tiktoken tokenizers rich pydantic"
    code = f"import sys, understudy.tokenizer; print([m for m in '{heavy}'.split() if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "[]", result.stderr
