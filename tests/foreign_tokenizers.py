"""Tokenizers of other projects for tests: small ones of each shape, and real ones from UNDERSTUDY_TEST_MODELS."""

from __future__ import annotations

import base64
import json
import os
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from understudy.tokenizer.bpe import SPLIT_PATTERNS, byte_characters

TEXT = ["Who found the purse? Sam found it, didn't he? 1234 naïve 数えた 🙂\r\n\n\t  x éé ' 's "] * 9
QWEN_PATTERN = SPLIT_PATTERNS["gpt4"].replace(r"\p{N}{1,3}", r"\p{N}")
LLAMA3_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_level(
    pattern: str, special: tuple[str, ...], normalizer: Any = None, ignore_merges: bool = False, size: int = 420
) -> Tokenizer:
    """A small byte-level tokenizer, its special tokens after its own, as Llama 3's and Qwen's are."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = list(byte_characters().values())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def llama3() -> Tokenizer:
    """Llama 3's pattern, ignore_merges, and a post-processor that puts <|begin_of_text|> before a text."""
    tokenizer = byte_level(SPLIT_PATTERNS["gpt4"], LLAMA3_TOKENS, ignore_merges=True)
    begin = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin]),
        ]
    )
    return tokenizer


def qwen(thinks: bool = True) -> Tokenizer:
    """Qwen's pattern and NFC, with added tokens that are matched in every text."""
    tokenizer = byte_level(QWEN_PATTERN, CHATML_TOKENS, normalizers.NFC())
    if thinks:
        tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in ("<think>", "</think>")])
    return tokenizer


def sentencepiece(form: str) -> Tokenizer:
    """A vocabulary as SentencePiece makes them, with a token for each byte. `form`: "prepend" (Llama 2: the normaliser
    writes spaces as U+2581), "metaspace" (the pre-tokenizer does), or "gemma" (no space before a text)."""
    special = ["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if form == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif form == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False,
        max_token_length=6,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT, trainer)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps if form == "gemma" else [*steps, decoders.Strip(" ", 1, 0)])
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def digits() -> Tokenizer:
    """SmolLM2's splitting, special tokens first, and bytes without an id."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = [character for byte, character in byte_characters().items() if byte not in (4, 6, 0xC0, 0xFF)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(CHATML_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


SMALL = {
    "llama3": llama3,
    "qwen": qwen,
    "digits": digits,
    "prepend": lambda: sentencepiece("prepend"),
    "metaspace": lambda: sentencepiece("metaspace"),
    "gemma": lambda: sentencepiece("gemma"),
}
SETTINGS = {
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "qwen": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False},
    "digits": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
    "prepend": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "metaspace": {
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False},
        "eos_token": "</s>",
        "unk_token": "<unk>",
    },
    "gemma": {"bos_token": "<s>", "eos_token": "</s>"},
}


@cache
def small_document(name: str) -> str:
    return str(SMALL[name]().to_str())


def small_folder(name: str, folder: Path, template: str | None = None) -> Path:
    """A folder of Hugging Face with one of the small tokenizers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(small_document(name), encoding="utf-8")
    settings = {**SETTINGS[name], "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def real_models(name: str) -> Path:
    """A file or folder of UNDERSTUDY_TEST_MODELS; the test is skipped without it."""
    folder = os.environ.get("UNDERSTUDY_TEST_MODELS")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"UNDERSTUDY_TEST_MODELS names no folder with {name}")
    return Path(folder) / name


def qwen_folder(file: Path, folder: Path) -> Path:
    """Qwen's vocabulary (base64 and rank, a token a line) as a folder of Hugging Face, with its pattern and NFC."""
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, file.read_text().splitlines())}
    characters = byte_characters()
    spelled = {token: "".join(characters[byte] for byte in token) for token in ranks}
    merges = [
        [spelled[half] for half in _halves(token, rank, ranks)] for token, rank in ranks.items() if len(token) > 1
    ]
    document = json.loads(small_document("qwen"))
    names = [*CHATML_TOKENS, "<tool_call>", "</tool_call>", "<think>", "</think>"]
    document["model"] |= {"vocab": {spelled[token]: rank for token, rank in ranks.items()}, "merges": merges}
    document["added_tokens"] = [
        {**document["added_tokens"][0], "id": len(ranks) + number, "content": name, "special": number < 3}
        for number, name in enumerate(names)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    settings = {**SETTINGS["qwen"], "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that earlier merges make of a token's bytes."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [(ranks.get(left + right, rank), number) for number, (left, right) in enumerate(pairwise(parts))]
        least, number = min(pairs)
        assert least < rank, token
        parts[number : number + 2] = [parts[number] + parts[number + 1]]
    return parts
