"""Reading tokenizers: our files, GPT-2's, Hugging Face's, and refusals."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken.load
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe_reference import reference_ids
from understudy.tokenizer import END_OF_TEXT, BPETokenizer, gpt2_tokenizer, load_tokenizer, train_tokenizer
from understudy.tokenizer.bpe import SPLIT_PATTERNS, byte_characters

PROSE = "It's the bear's den, isn't it? The bears' 1234 dens!\n\n  They're there -- THE END. naïve café 😀😀 " * 3


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("UNDERSTUDY_TEST_DATA")
    if not folder:
        pytest.skip("UNDERSTUDY_TEST_DATA is not set: it should name a folder with gpt2/ and tinyshakespeare.txt")
    return Path(folder)


# Our own files.


@pytest.mark.parametrize("special_tokens", [[], [END_OF_TEXT, "<|ü|>"]])
@pytest.mark.parametrize("pattern", sorted(SPLIT_PATTERNS))
def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path: Path, pattern: str, special_tokens: list[str]) -> None:
    tokenizer = train_tokenizer("bpe", [PROSE], 290, pattern, special_tokens)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest() == tokenizer.sha256
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, BPETokenizer)
    assert (loaded.sha256, loaded.pattern) == (tokenizer.sha256, pattern)
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.encode(PROSE) == tokenizer.encode(PROSE)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_custom_numbering_is_saved(tmp_path: Path) -> None:
    tokenizer = BPETokenizer([(0, 1)], "gpt2", {END_OF_TEXT: 0}, ids=list(range(257, 0, -1)))
    tokenizer.save(tmp_path / "x.json")
    loaded = load_tokenizer(tmp_path / "x.json")
    assert loaded.sha256 == tokenizer.sha256
    assert loaded.encode('!"#') == tokenizer.encode('!"#') == [1, 255]


def test_equal_tokenizers_have_equal_hashes() -> None:
    one = BPETokenizer([(0, 1)], "gpt2", {"<|a|>": 257, "<|b|>": 258})
    assert BPETokenizer([(0, 1)], "gpt2", {"<|b|>": 258, "<|a|>": 257}).sha256 == one.sha256
    for other in (one.with_special_tokens(["<|c|>"]), BPETokenizer([(1, 0)], "gpt2", one.special_tokens)):
        assert other.sha256 != one.sha256
    assert BPETokenizer([(0, 1)], "gpt4", one.special_tokens).sha256 != one.sha256


def test_saving_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe", [PROSE], 290)
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(ValueError, match="is no regular file; choose"):
        tokenizer.save(tmp_path / "tokenizer.json")
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_file_cut_short_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = train_tokenizer("bpe", [PROSE], 270).to_json()
    file = tmp_path_factory.getbasetemp() / "cut.json"
    file.write_text(text[: data.draw(st.integers(0, len(text) - 3))], encoding="utf-8")
    with pytest.raises(ValueError, match=r"cut\.json: this is not JSON at line \d+: it is damaged or cut short"):
        load_tokenizer(file)


def changed(**changes: Any) -> str:
    document = json.loads(train_tokenizer("bpe", [PROSE], 270).to_json())
    return json.dumps({key: value for key, value in (document | changes).items() if value is not ...})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", "should hold one JSON object"),
        ('{"a": 1}', "neither Understudy's nor Hugging Face's"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (changed(version=2), "version 2, and only 1 is known"),
        (changed(kind="words"), "kind 'words' is damaged"),
        (changed(kind="char"), "kind 'char' is damaged"),
        (changed(pattern="gpt9"), "no splitting pattern 'gpt9'"),
        (changed(pattern=...), "kind 'bpe' is damaged"),
        (changed(merges={}), "merges are not a list"),
        (changed(merges=["a b c"]), "merge 0 is not a pair of tokens: 'a b c'"),
        (changed(merges=["a b", 7]), "merge 1 is not a pair of tokens: 7"),
        (changed(merges=["a bc"]), "merge 0 joins 'a' and 'bc', and one does not exist by then"),
        (changed(special_tokens={"<|x|>": 500}), "no id 269"),
        (changed(special_tokens={"<|x|>": "269"}), "table from tokens to ids"),
        (changed(special_tokens=None), "table from tokens to ids"),
        (changed(ids=[1, 2]), "2 ids are given for 269 tokens"),
        (changed(ids=["a"]), "ids are not a list of whole numbers"),
        (changed(kind="char", characters="ba", special_tokens={}), "must be sorted"),
        (changed(kind="char", characters="", special_tokens={}), "at least one character"),
    ],
)
def test_damaged_and_foreign_files_get_one_sentence(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=complaint) as refusal:
        load_tokenizer(tmp_path)
    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)


def test_a_place_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=f"there is no tokenizer at {path}: give a tokenizer.json"):
            load_tokenizer(path)
    with pytest.raises(ValueError, match=r"needs vocab\.bpe and encoder\.json"):
        gpt2_tokenizer(tmp_path)


# GPT-2's files.


def test_gpt2s_ids_are_openais(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    folder = data / "gpt2"
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    openai = tiktoken.Encoding(
        "gpt2",
        pat_str=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: 50256},
    )
    tokenizer = gpt2_tokenizer(folder)
    assert (tokenizer.vocab_size, tokenizer.eot_id, tokenizer.ids) == (50257, 50256, None)
    assert tokenizer.encode("hello world") == [31373, 995]
    assert [tokenizer.token_bytes(id) for id in range(50257)] == [
        openai.decode_single_token_bytes(id) for id in range(50257)
    ]
    text = (data / "tinyshakespeare.txt").read_text()
    for sample in (text, PROSE, "".join(map(chr, range(0x3000))), END_OF_TEXT, "x\n \n"):
        assert tokenizer.encode(sample) == openai.encode_ordinary(sample)
    assert reference_ids(tokenizer, text[:50_000]) == openai.encode_ordinary(text[:50_000])
    assert load_tokenizer(folder).sha256 == tokenizer.sha256


def write_gpt2_files(folder: Path, merges: list[str], vocabulary: dict[str, int]) -> Path:
    (folder / "vocab.bpe").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges), encoding="utf-8")
    (folder / "encoder.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return folder


def test_encoder_json_decides_the_ids(tmp_path: Path) -> None:
    tokens = [END_OF_TEXT, "vw", *byte_characters().values(), "vwx"]
    folder = write_gpt2_files(tmp_path, ["v w", "vw x"], {token: id for id, token in enumerate(tokens)})
    tokenizer = load_tokenizer(folder)
    assert isinstance(tokenizer, BPETokenizer)
    assert tokenizer.special_tokens == {END_OF_TEXT: 0}
    assert tokenizer.encode("vwx!vw") == reference_ids(tokenizer, "vwx!vw") == [258, 2, 1]
    assert tokenizer.decode([258, 2, 1]) == "vwx!vw"
    with pytest.raises(ValueError, match="holds 259 tokens and not GPT-2's 50257"):
        gpt2_tokenizer(folder)


@pytest.mark.parametrize(
    ("merges", "change", "complaint"),
    [
        (["a b"], {"ab": 300}, "no id 256"),
        (["a b"], {}, "the token 'ab' has no id"),
        (["a"], {}, "merge 0 is not a pair"),
        ([], {"stray": 256}, "no merge makes the token 'stray'"),
        # ab is always made before bc could be; abc, by this merge, never.
        (["a b", "b c", "a bc"], {"ab": 256, "bc": 257, "abc": 258}, "merge 2 makes 'abc', which earlier merges"),
    ],
)
def test_impossible_gpt2_files_are_refused(
    tmp_path: Path, merges: list[str], change: dict[str, int], complaint: str
) -> None:
    vocabulary = {char: id for id, char in enumerate(byte_characters().values())} | change
    with pytest.raises(ValueError, match=complaint):
        load_tokenizer(write_gpt2_files(tmp_path, merges, vocabulary))


# Hugging Face's files.


def huggingface(pattern: str, special_tokens: list[str]) -> tokenizers.Tokenizer:
    """Trained the way their users do: special tokens first, so that all other ids are shifted."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    to_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERNS["gpt4"]), "isolated")
    steps = [split, to_bytes]
    tokenizer.pre_tokenizer = to_bytes if pattern == "gpt2" else tokenizers.pre_tokenizers.Sequence(steps)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=special_tokens, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([PROSE], trainer)
    return tokenizer


@pytest.mark.parametrize("as_strings", [True, False])
@pytest.mark.parametrize("pattern", sorted(SPLIT_PATTERNS))
def test_a_huggingface_tokenizer_gives_its_ids(tmp_path: Path, pattern: str, as_strings: bool) -> None:
    theirs = huggingface(pattern, [END_OF_TEXT, "<|x|>"])
    document = json.loads(theirs.to_str())
    if as_strings:  # as older files have them
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    ours = load_tokenizer(tmp_path)
    assert ours.special_tokens == {END_OF_TEXT: 0, "<|x|>": 1}
    assert ours.vocab_size == theirs.get_vocab_size()
    text = PROSE + "\n  x\r\n\n ½ I'LL 日本語\t\t"
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.decode(theirs.encode(text).ids) == text
    ours.save(tmp_path / "ours.json")
    assert load_tokenizer(tmp_path / "ours.json").encode(text) == theirs.encode(text).ids


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def before(name: str) -> dict[str, Any]:
    """A post-processor that puts a token before a text."""
    pieces = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": pieces}


def after(name: str) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": before(name)["single"][::-1]}


def test_a_post_processor_that_adds_no_token_is_accepted(tmp_path: Path) -> None:
    document = json.loads(huggingface("gpt2", ["<|x|>"]).to_str())
    plain = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]}
    for step in (None, BYTE_LEVEL, plain, {"type": "Sequence", "processors": [BYTE_LEVEL, plain]}):
        (tmp_path / "tokenizer.json").write_text(json.dumps(document | {"post_processor": step}))
        assert load_tokenizer(tmp_path).encode("hello") == huggingface("gpt2", ["<|x|>"]).encode("hello").ids


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["model"].update(type="WordPiece"), "its model is WordPiece, and only BPE can be used"),
        (lambda d: d["model"].update(type="Unigram"), "its model is Unigram"),
        (lambda d: d["model"].update(dropout=0.1), "its model uses dropout"),
        (lambda d: d["model"].update(end_of_word_suffix="</w>"), "its model uses end_of_word_suffix"),
        (lambda d: d["model"].pop("merges"), "its model has no merges"),
        (lambda d: d["model"].update(merges=[]), "its model has no merges"),
        (lambda d: d["model"].update(merges=["a b c"]), "its merge 0 is not a pair of tokens: 'a b c'"),
        (lambda d: d["model"].update(vocab=[]), "table from tokens to ids"),
        (lambda d: d["model"]["vocab"].update(a=10**9), "gaps larger than it"),
        (lambda d: d["model"]["vocab"].pop("e"), "it is damaged, or newer than the library"),
        (lambda d: d.update(added_tokens=[{"id": 0}]), "its added token {'id': 0} lacks an id or a name"),
        (lambda d: d.update(added_tokens=3), "its added tokens are not a list"),
        (lambda d: d.update(pre_tokenizer={"type": "Woods"}), "it is damaged, or newer than the library"),
        (
            lambda d: d.update(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
            "its decoder is WordPiece, and only those",
        ),
        (lambda d: d.update(post_processor={"type": "RobertaProcessing"}), "its post-processor is RobertaProcessing"),
        (lambda d: d.update(post_processor=after("<|x|>")), r"its post-processor adds <\|x\|> after a text"),
        (lambda d: d.update(post_processor=before("<s>")), "it puts <s> before every text, which is none of its"),
    ],
)
def test_unsupported_huggingface_parts_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    document = json.loads(huggingface("gpt2", ["<|x|>"]).to_str())
    change(document)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=complaint) as refusal:
        load_tokenizer(tmp_path)
    assert "\n" not in str(refusal.value)
