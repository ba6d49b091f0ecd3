"""Tokenizers of other projects, used as they are: the ids of transformers, and their bytes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreign_tokenizers import SMALL, qwen_folder, real_models, small_document, small_folder
from understudy.data.text.prepare import prepare
from understudy.inference.generate import encode_prompt
from understudy.inference.requests import CompletionText
from understudy.interop.huggingface_tokenizer import save_huggingface_tokenizer
from understudy.tokenizer import BPETokenizer, StreamDecoder, load_tokenizer
from understudy.tokenizer.chat import CHAT_TEMPLATE, end_ids, speaks_chat, with_chat_tokens
from understudy.tokenizer.huggingface import RESERVED, HuggingFaceTokenizer

PIECES = (
    "'s", "'S", " don't", "\n\n  \n", "  two", "1234567", " 12 3", "3.14", "\r\n", "<|", "|>", " \n ", "\t", "é", "e\u0301",
    "数え", "🙂", "👩‍👩‍👧", "the ", " purse", "\u00a0", "\u2028", "\u0085", "\ufeff", "▁", "<0x0A>", "</", "s>", "<think>",
    "</think>", "x" * 40, " " * 30, "\0", "İ", "ﬁ", "Å", "각", "\u1100\u1161\u11a8", "٣٤", "½", "{}", "ſ", "ẞ", "\U000f0000",
)  # fmt: skip
RANGES = ((32, 127), (160, 0x3000), (0x3000, 0xD800), (0x10000, 0x1FFFF))


def fuzzed(count: int, seed: int = 7) -> list[str]:
    """Texts of pieces that splitting and normalising look at, of any characters, and of words."""
    drawn = random.Random(seed)

    def piece() -> str:
        kind = drawn.random()
        if kind < 0.55:
            return drawn.choice(PIECES)
        if kind < 0.8:
            return "".join(chr(drawn.randrange(*drawn.choice(RANGES))) for _ in range(drawn.randrange(1, 8)))
        word = "".join(drawn.choice("abcdefghiklmnoprstuvwyzABC") for _ in range(drawn.randrange(1, 9)))
        return drawn.choice((" ", "")) + word

    return [RESERVED.sub("", "".join(piece() for _ in range(drawn.randrange(25)))) for _ in range(count)]


def theirs(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def compare(folder: Path, count: int) -> None:
    """The same ids and texts as there, in one call, one by one and in parts."""
    ours, other = load_tokenizer(folder), theirs(folder)
    assert isinstance(ours, HuggingFaceTokenizer)
    special = re.compile("|".join(map(re.escape, ours.special_tokens)))
    texts = [text for text in fuzzed(count) if not special.search(text)]  # there their names are control
    for text, array in zip(texts, ours.encode_batch(texts)):
        ids = array.tolist()
        assert [*ours.prefix_ids, *ids] == other(text)["input_ids"], text
        assert ours.encode_prompt(text) == other(text)["input_ids"]
        assert ours.decode(ids) == other.decode(ids, clean_up_tokenization_spaces=False)
        decoder = StreamDecoder(ours, begins=True)
        assert "".join(decoder.push([id]) for id in ids) + decoder.finish() == ours.decode(ids)
        assert [id for part in ours.split(text, 5) for id in ours.encode(part)] == ids
    assert ours.vocab_size == len(other)


@pytest.mark.parametrize("name", SMALL)
def test_the_ids_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    compare(small_folder(name, tmp_path), 300)


def test_the_ids_of_smollm2_are_those_of_transformers() -> None:
    folder = real_models("smollm2-hf")
    compare(folder, 150)
    ours = load_tokenizer(folder)
    assert (ours.kind, ours.vocab_size, ours.eot_id, end_ids(ours)) == ("huggingface", 49152, 0, {0, 2})


def test_the_ids_of_qwen_are_those_of_transformers(tmp_path: Path) -> None:
    folder = qwen_folder(real_models("qwen.tiktoken"), tmp_path)
    compare(folder, 150)
    ours = load_tokenizer(folder)
    assert ours.encode("e\u0301") == ours.encode("é"), "NFC"
    assert ours.encode("<think>") == [151648] and len(ours.encode("<|im_end|>")) > 1


@pytest.mark.parametrize("name", SMALL)
def test_names_of_special_tokens_stay_text(name: str, tmp_path: Path) -> None:
    ours = load_tokenizer(small_folder(name, tmp_path))
    for special, id in ours.special_tokens.items():
        ids = ours.encode(f"a{special}b {special}")
        assert not set(ids) & set(ours.special_tokens.values()) - {ours.special_tokens.get("<unk>")}
        assert ours.decode(ids) == f"a{special}b {special}"
        assert ours.decode([id]) == special and ours.token_bytes(id) == special.encode()


def test_characters_that_unicode_reserves_count_as_unknown(tmp_path: Path) -> None:
    ours = load_tokenizer(small_folder("qwen", tmp_path))
    assert ours.encode("a\U0010fffe\U00100000b") == ours.encode("a\ufffd\U00100000b")
    assert ours.encode("a\ud800b") == ours.encode("a\ufffdb")


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_tokenizer_is_the_same_tokenizer(name: str, tmp_path: Path) -> None:
    ours = load_tokenizer(small_folder(name, tmp_path, "{{ messages }}"))
    ours.save(tmp_path / "saved.json")
    again = load_tokenizer(tmp_path / "saved.json")
    assert isinstance(ours, HuggingFaceTokenizer) and isinstance(again, HuggingFaceTokenizer)
    assert again.sha256 == ours.sha256
    for field in ("special_tokens", "prefix_ids", "end_tokens", "chat_template", "token_names", "eot_id", "vocab_size"):
        assert getattr(again, field) == getattr(ours, field), field
    assert again.encode(fuzzed(3)[2]) == ours.encode(fuzzed(3)[2])
    assert load_tokenizer(small_folder(name, tmp_path, "{{ other }}")).sha256 != ours.sha256


@pytest.mark.parametrize(
    "name,model_type", [*((name, kind) for name in SMALL for kind in ("llama", "qwen3")), ("qwen", "qwen2")]
)
def test_an_exported_tokenizer_is_the_one_that_came_in(name: str, model_type: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = load_tokenizer(small_folder(name, tmp_path / "in", "{{ bos_token }}{{ messages[0].content }}"))
    save_huggingface_tokenizer(ours, tmp_path / "out", 512)
    (tmp_path / "out" / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert load_tokenizer(tmp_path / "out").encode("Sam 12") == ours.encode("Sam 12")
    other = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in fuzzed(20):
        if not any(name in text for name in ours.special_tokens):
            assert other(text)["input_ids"] == ours.encode_prompt(text)
    assert other.chat_template == "{{ bos_token }}{{ messages[0].content }}" and other.model_max_length == 512
    assert isinstance(ours, HuggingFaceTokenizer) and ours.token_names.items() <= other.special_tokens_map.items()


def changed(folder: Path, **changes: Any) -> Path:
    """A small folder with other fields in its tokenizer.json."""
    document = json.loads(small_document("digits")) | changes
    small_folder("digits", folder)
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return folder


def beside(folder: Path, name: str, document: Any) -> Path:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_a_setting_puts_a_token_before_texts_where_no_post_processor_does(tmp_path: Path) -> None:
    folder = small_folder("digits", tmp_path)
    settings = {"bos_token": "<|im_start|>", "add_bos_token": True, "eos_token": "<|im_end|>"}
    ours = load_tokenizer(beside(folder, "tokenizer_config.json", settings))
    assert ours.prefix_ids == (1,)
    save_huggingface_tokenizer(ours, tmp_path / "out")
    assert theirs(tmp_path / "out")("Sam")["input_ids"] == ours.encode_prompt("Sam") == [1, *ours.encode("Sam")]
    with pytest.raises(ValueError, match=r"adds its eos token to every text \(add_eos_token\)"):
        load_tokenizer(beside(folder, "tokenizer_config.json", settings | {"add_eos_token": True}))


def test_prompts_and_documents_begin_with_the_prefix(tmp_path: Path) -> None:
    ours = load_tokenizer(small_folder("llama3", tmp_path / "llama3"))
    [begin] = ours.prefix_ids
    assert encode_prompt(ours, "Sam") == [begin, *ours.encode("Sam")] and encode_prompt(ours, "") == [begin]
    texts = [f"Sam has {n} cups." for n in range(150)]  # more than are cut for validation
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    folder = prepare([str(tmp_path / "texts.jsonl")], tmp_path / "data", str(tmp_path / "llama3")).folder
    tokens = [id for split in ("train", "val") for id in np.fromfile(folder / f"{split}.bin", dtype=np.uint16).tolist()]
    written = sorted((begin, *ours.encode(text), ours.eot_id) for text in texts)
    starts = [place for place, id in enumerate(tokens) if id == begin]
    assert sorted(tuple(tokens[a:b]) for a, b in zip(starts, [*starts[1:], len(tokens)])) == written


def test_end_tokens_come_from_the_generation_settings(tmp_path: Path) -> None:
    folder = small_folder("llama3", tmp_path)
    assert end_ids(load_tokenizer(folder)) == {312, 315}, "<|end_of_text|> and the eos token"
    assert 313 in end_ids(load_tokenizer(beside(folder, "generation_config.json", {"eos_token_id": [313, 10**6]})))
    ours = HuggingFaceTokenizer(json.loads(small_document("llama3")), {}, None, ["<|eot_id|>", 313])
    assert ours.end_tokens == (313, 315)


def test_a_base_model_gets_the_tokens_of_our_chat_format(tmp_path: Path) -> None:
    base = load_tokenizer(small_folder("gemma", tmp_path))
    chat = with_chat_tokens(base)
    assert not speaks_chat(base) and speaks_chat(chat) and with_chat_tokens(chat) is chat
    size = base.vocab_size
    assert {name: chat.special_tokens[name] for name in ("<|im_start|>", "<|im_end|>")} == {
        "<|im_start|>": size, "<|im_end|>": size + 1,
    }  # fmt: skip
    assert chat.encode("Sam <|im_end|>") == base.encode("Sam <|im_end|>") and size + 1 in end_ids(chat)
    save_huggingface_tokenizer(chat, tmp_path / "out")
    other = theirs(tmp_path / "out")
    assert (other.eos_token_id, other.chat_template) == (size + 1, CHAT_TEMPLATE)
    vocabulary = json.loads(small_document("gemma"))["model"]["vocab"]
    word = next(name for name, id in vocabulary.items() if name.isalpha() and base.encode(name) == [id])
    [id], known = base.encode(word), base.with_special_tokens([word, "<|x|>"])  # the first is a token already
    assert (known.special_tokens[word], known.special_tokens["<|x|>"]) == (id, size)
    assert id not in known.encode(word) and known.decode(known.encode(word)) == word


def test_what_is_ours_stays_ours_unless_it_brings_a_template(real_data: Path, tmp_path: Path) -> None:
    ours = load_tokenizer(real_data / "gpt2")
    save_huggingface_tokenizer(with_chat_tokens(ours), tmp_path)
    assert isinstance(load_tokenizer(tmp_path), BPETokenizer)
    beside(tmp_path, "chat_template.jinja", "{{ messages[0].content }}<|im_end|>")
    assert load_tokenizer(tmp_path).kind == "huggingface"


def test_ids_may_have_gaps(tmp_path: Path) -> None:
    document = json.loads(small_document("qwen"))
    for token in document["added_tokens"]:
        token["id"] += 40
    ours = load_tokenizer(changed(tmp_path, **document))
    first = ours.special_tokens["<|endoftext|>"]
    assert ours.vocab_size == first + 5 and ours.token_bytes(first - 1) == b"" and ours.decode([first - 1]) == ""
    assert ours.encode("<think>Sam") == [first + 3, *ours.encode("Sam")]
    assert ours.with_special_tokens(["<|x|>"]).special_tokens["<|x|>"] == ours.vocab_size


def test_special_tokens_that_only_the_settings_name_are_special(tmp_path: Path) -> None:
    document = json.loads(small_document("prepend"))
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] != "</s>"]
    folder = small_folder("prepend", tmp_path)
    ours = load_tokenizer(beside(folder, "tokenizer.json", document))
    assert ours.special_tokens["</s>"] == 2 and 2 not in ours.encode("a</s>")
    (folder / "tokenizer_config.json").unlink()
    beside(folder, "special_tokens_map.json", {"eos_token": {"content": "</s>"}})
    assert load_tokenizer(folder).special_tokens["</s>"] == 2


def test_damaged_files_beside_it_are_named(tmp_path: Path) -> None:
    folder = small_folder("digits", tmp_path / "a")
    for name in ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json"):
        before = (folder / name).read_bytes() if (folder / name).exists() else b"{}"
        for content in ("{", "[]"):
            with pytest.raises(ValueError, match=name):
                load_tokenizer(beside(folder, name, content))
        (folder / name).write_bytes(before)
    with pytest.raises(ValueError, match="the chat template beside it is no text"):
        load_tokenizer(beside(folder, "tokenizer_config.json", {"chat_template": 3}))
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]
    assert load_tokenizer(beside(folder, "tokenizer_config.json", {"chat_template": named})).chat_template == "y"
    beside(folder, "chat_template.jinja", "z")
    assert load_tokenizer(folder).chat_template == "z"
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"as tokenizer\.model only; make a tokenizer\.json of it"):
        load_tokenizer(beside(tmp_path / "b", "tokenizer.model", "x").resolve())


def test_an_answer_begins_without_the_space_of_its_first_token(tmp_path: Path) -> None:
    """A continued text keeps it."""
    ours = load_tokenizer(small_folder("metaspace", tmp_path))
    for answer, shown in ((True, "Who found 🙂?"), (False, " Who found 🙂?")):
        text = CompletionText(ours, (), {2}, answer)
        pieces = [text.push(id, 0.0) for id in (*ours.encode("Who found 🙂?"), 2)]
        assert "".join(pieces) == shown and text.stopped and "\ufffd" not in shown
