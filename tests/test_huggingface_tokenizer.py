"""The files written for transformers: the same ids, both ways, whatever the text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.interop import huggingface_tokenizer
from understudy.interop.huggingface_tokenizer import save_huggingface_tokenizer
from understudy.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, gpt2_tokenizer, load_tokenizer, train_tokenizer
from understudy.tokenizer.chat import with_chat_tokens

SAMPLE = ["Who found the purse? Sam found it, didn't he? 1234 naïve 数えた \r\n\n\t  x"] * 9
# Small beside Unicode, so that a text often has characters twice, and those that splitting looks at.
CHARACTERS = "".join(sorted(set("\0\n\r\t  'aAsStTre19Éé\u0301\u0085\u200b\u2028数가🙂.!<|>_")))
PIECES = ("'s", "'S", "don't", "\n\n  \n", "  two", "1234567", "\r\n", "<|", "|>", " \n ")


def theirs(tokenizer: Tokenizer, folder: Path) -> Any:
    from transformers import AutoTokenizer

    save_huggingface_tokenizer(tokenizer, folder)
    return AutoTokenizer.from_pretrained(folder)


def renumbered() -> BPETokenizer:
    """A vocabulary whose ids are not in the order of its merges, with special tokens among them."""
    plain = train_tokenizer("bpe", SAMPLE, 280, special_tokens=[])
    assert isinstance(plain, BPETokenizer)
    ids = [(7 * n + 3) % 281 for n in range(281)]
    return BPETokenizer(plain.merges, "gpt2", {"<|endoftext|>": ids[280]}, ids[:280])


KINDS = {
    "gpt2": lambda: train_tokenizer("bpe", SAMPLE, 300),
    "gpt4": lambda: train_tokenizer("bpe", SAMPLE, 300, "gpt4"),
    "renumbered": renumbered,
    "char": lambda: CharTokenizer(CHARACTERS, {}),
    "bytes": lambda: train_tokenizer("bpe", SAMPLE, 256, special_tokens=[]),
}


@pytest.fixture(scope="module", params=[*KINDS, "gpt2 with chat", "gpt4 with chat", "char with chat"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    kind, _, chat = request.param.partition(" ")
    ours = KINDS[kind]()
    ours = with_chat_tokens(ours) if chat else ours
    return ours, theirs(ours, tmp_path_factory.mktemp("huggingface"))


known = st.lists(st.sampled_from([*CHARACTERS, *(p for p in PIECES if set(p) <= set(CHARACTERS))]), max_size=40)
wild = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=8)


@settings(max_examples=40, deadline=None)
@given(known=known, wild=wild)
def test_the_ids_are_the_same_and_decode_to_the_same(pair: Any, known: list[str], wild: list[str]) -> None:
    ours, other = pair
    for pieces in [known] + [wild] * (ours.kind == "bpe"):
        text = re.sub(r"<\|\w+\|>", "", "".join(pieces))  # names of special tokens are control there
        ids = ours.encode(text)
        assert other(text)["input_ids"] == ids
        assert other.decode(ids) == text
        if ids:
            assert other.decode(ids[1:]) == ours.decode(ids[1:])


def test_every_id_has_its_bytes_and_every_special_token_its_id(pair: Any) -> None:
    ours, other = pair
    assert len(other) == ours.vocab_size
    assert {name: other.convert_tokens_to_ids(name) for name in ours.special_tokens} == ours.special_tokens
    assert [other.decode([id]) for id in range(ours.vocab_size)] == [ours.decode([id]) for id in range(ours.vocab_size)]
    for name, id in ours.special_tokens.items():
        assert other(f"a{name}a")["input_ids"][1:-1] == [id], "there, unlike here, its name is control"


def test_a_character_that_is_missing_is_refused_there_too(tmp_path: Path) -> None:
    ours = train_tokenizer("char", ["banana"])
    other = theirs(ours, tmp_path)
    assert other("nab")["input_ids"] == ours.encode("nab")
    with pytest.raises(Exception, match="Missing"):  # of no class of its own
        other("nabx")


def test_gpt2s_vocabulary_keeps_its_ids(real_data: Path, tmp_path: Path) -> None:
    ours = gpt2_tokenizer(real_data / "gpt2")
    other = theirs(ours, tmp_path)
    text = (real_data / "tinyshakespeare.txt").read_text("utf-8")[:50_000] + " naïve 数えた🙂\t\r\n  x"
    assert other(text)["input_ids"] == ours.encode(text)
    assert len(other) == 50257 and other.eos_token_id == 50256


@pytest.mark.parametrize("model_type", ["gpt2", "qwen3"])
@pytest.mark.parametrize("kind", ["gpt4", "char"])
def test_a_model_beside_the_files_does_not_change_them(kind: str, model_type: str, tmp_path: Path) -> None:
    """transformers chooses a tokenizer by the model's type at times, and then splits otherwise."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours = KINDS[kind]()
    text = "a1! \n Éé\u0301 's  1234" if kind == "gpt4" else "a1! \n Éé\u0301 's"
    assert theirs(ours, tmp_path)(text)["input_ids"] == ours.encode(text)


@pytest.mark.parametrize("kind", ["gpt2", "gpt4", "renumbered", "bytes"])
def test_written_files_are_read_back_as_the_same_tokenizer(kind: str, tmp_path: Path) -> None:
    ours = KINDS[kind]()
    save_huggingface_tokenizer(ours, tmp_path)
    assert load_tokenizer(tmp_path).sha256 == ours.sha256


def test_the_configuration_has_end_tokens_and_a_chat_template(tmp_path: Path) -> None:
    def config(tokenizer: Tokenizer, *more: int) -> dict[str, Any]:
        save_huggingface_tokenizer(tokenizer, tmp_path / "new" / "folder", *more)
        return json.loads((tmp_path / "new" / "folder" / "tokenizer_config.json").read_text())

    base = train_tokenizer("bpe", SAMPLE, 270)
    assert config(base)["eos_token"] == "<|endoftext|>"
    assert not config(base).keys() & {"chat_template", "model_max_length"}
    assert config(base, 512)["model_max_length"] == 512
    chat = config(with_chat_tokens(base))
    assert chat["eos_token"] == "<|im_end|>" and "<|im_start|>" in chat["chat_template"]
    assert "eos_token" not in config(KINDS["char"]())


def test_a_special_token_spelled_like_an_ordinary_one_is_refused(tmp_path: Path) -> None:
    confusing = train_tokenizer("bpe", SAMPLE, 270).with_special_tokens(["Ġ"])  # how the files spell a space
    with pytest.raises(ValueError, match=r"the special token 'Ġ' is spelled as an ordinary token"):
        save_huggingface_tokenizer(confusing, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_huggingface_tokenizer(KINDS["gpt2"](), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"tokenizer.json", "tokenizer_config.json"}
    write, written = Path.write_text, []

    def full_disk(path: Path, *arguments: Any, **options: Any) -> int:
        written.append(path)
        if len(written) == 2:
            write(path, "{")
            raise OSError(28, "No space left on device", str(path))
        return write(path, *arguments, **options)

    monkeypatch.setattr(huggingface_tokenizer.Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_huggingface_tokenizer(KINDS["gpt4"](), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
