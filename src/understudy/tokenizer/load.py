"""Load a tokenizer from a file or folder: ours, Hugging Face's tokenizer.json, or GPT-2's two files.

A tokenizer.json that our byte-level BPE reproduces exactly becomes one, which is faster and has our chat format; every
other BPE is used as it is (huggingface.py), with the settings and the chat template beside it. Other models (WordPiece,
Unigram) are refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.tokenizer.base import END_OF_TEXT, FILE_FORMAT, Tokenizer
from understudy.tokenizer.bpe import SPLIT_PATTERNS, BPETokenizer, byte_characters, pairs_of
from understudy.tokenizer.char import CharTokenizer
from understudy.tokenizer.chat import CHAT_TEMPLATE, END
from understudy.tokenizer.huggingface import HuggingFaceTokenizer

FILE_NAME = "tokenizer.json"
# The merges and the ids of GPT-2, under OpenAI's names and under Hugging Face's.
GPT2_FILES = (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json"))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a file, or in a folder with tokenizer.json or with vocab.bpe and encoder.json.

    Raises ValueError, naming the file, when there is none, when it is damaged, and when our tokenizers cannot reproduce
    it.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if file.is_file():
        return _named(file, _from_document, _read_json(file), file)
    pair = _gpt2_files(path)
    if pair is None and (path / "tokenizer.model").is_file():
        raise ValueError(
            f"{path} holds its tokenizer as tokenizer.model only; make a tokenizer.json of it with transformers: "
            f"AutoTokenizer.from_pretrained({str(path)!r}).save_pretrained({str(path)!r})"
        )
    if pair is None:
        wanted = f"{FILE_NAME}, or a folder with it, or with vocab.bpe and encoder.json"
        raise ValueError(f"there is no tokenizer at {path}: give a {wanted}")
    return _from_gpt2_files(*pair)


def gpt2_tokenizer(folder: Path) -> BPETokenizer:
    """GPT-2's own tokenizer, 50257 tokens, from a folder with vocab.bpe and encoder.json.

    Raises ValueError when the files are missing, damaged, or of another vocabulary.
    """
    pair = _gpt2_files(Path(folder))
    if pair is None:
        raise ValueError(f"{folder} does not hold GPT-2's vocabulary: it needs vocab.bpe and encoder.json")
    tokenizer = _from_gpt2_files(*pair)
    if (tokenizer.vocab_size, tokenizer.eot_id) != (50257, 50256):
        raise ValueError(
            f"{folder} holds {tokenizer.vocab_size} tokens and not GPT-2's 50257: load it as a tokenizer by "
            "its path, or fetch GPT-2's files again"
        )
    return tokenizer


def _from_document(document: Any, file: Path) -> Tokenizer:
    if not isinstance(document, dict):
        raise ValueError("this is not a tokenizer file: it should hold one JSON object")
    if document.get("format") == FILE_FORMAT:
        return _from_our_document(document)
    if isinstance(document.get("model"), dict):
        return _from_huggingface(document, file.parent)
    raise ValueError("this is not a tokenizer file: neither Understudy's nor Hugging Face's")


def _from_our_document(document: dict[str, Any]) -> Tokenizer:
    if document.get("version") != 1:
        raise ValueError(f"this tokenizer file has version {document.get('version')}, and only 1 is known")
    match document:
        case {"kind": "char", "characters": str(characters), "special_tokens": special_tokens}:
            return CharTokenizer(characters, _table_of_ids(special_tokens))
        case {"kind": "bpe", "pattern": str(pattern), "merges": merges, "special_tokens": special_tokens}:
            ids = document.get("ids")
            if ids is not None and not (isinstance(ids, list) and all(type(id) is int for id in ids)):
                raise ValueError("its ids are not a list of whole numbers")
            return BPETokenizer(pairs_of(_halves(merges)), pattern, _table_of_ids(special_tokens), ids)
        case {"kind": "huggingface", "tokenizer": dict(inner), "settings": dict(settings), "end_tokens": list(ends)}:
            return HuggingFaceTokenizer(inner, settings, document.get("chat_template"), ends)
    raise ValueError(f"this tokenizer file of kind {document.get('kind')!r} is damaged: a field is missing")


def _from_huggingface(document: dict[str, Any], folder: Path) -> Tokenizer:
    """A tokenizer.json, with what stands beside it."""
    settings = {**_beside(folder / "special_tokens_map.json"), **_beside(folder / "tokenizer_config.json")}
    generation = _beside(folder / "generation_config.json").get("eos_token_id")
    ends = [id for id in (generation if isinstance(generation, list) else [generation]) if type(id) is int]
    tokenizer = HuggingFaceTokenizer(document, settings, _chat_template(folder, settings), ends)
    return _as_ours(tokenizer) or tokenizer


def _as_ours(tokenizer: HuggingFaceTokenizer) -> BPETokenizer | None:
    """The same tokenizer as byte-level BPE of our own, if there is one."""
    document, model = tokenizer.document, tokenizer.document["model"]
    special, flags = tokenizer.special_tokens, ("single_word", "lstrip", "rstrip")
    plain = all(token["special"] and not any(token[flag] for flag in flags) for token in document["added_tokens"])
    own_ends = {special.get(END_OF_TEXT), special.get(END)}
    if (
        document.get("normalizer") is not None
        or any(model.get(option) for option in ("byte_fallback", "ignore_merges"))
        or not plain
        or tokenizer.prefix_ids
        or not set(tokenizer.end_tokens) <= own_ends
        or tokenizer.chat_template not in (None, CHAT_TEMPLATE)
    ):
        return None
    try:
        pattern = _pattern_of(document.get("pre_tokenizer"))
        return _from_vocabulary(model["vocab"], model["merges"], special, pattern)
    except ValueError:
        return None


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The Jinja source beside a tokenizer.json: a file, or a setting, which may be a list of named ones.

    Raises ValueError for something else.
    """
    file = folder / "chat_template.jinja"
    template = _read_text(file) if file.is_file() else settings.get("chat_template")
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default", next(iter(named.values()), None))
    if template is None or isinstance(template, str):
        return template
    raise ValueError("the chat template beside it is no text: it is damaged")


def _beside(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty without the file."""
    document = _read_json(file) if file.is_file() else {}
    if isinstance(document, dict):
        return document
    raise ValueError(f"{file.name} beside it holds no JSON object: it is damaged")


def _pattern_of(pre_tokenizer: Any) -> str:
    """The name of the pattern by which a Hugging Face tokenizer splits.

    Raises ValueError for others than ours.
    """
    known = {regex: name for name, regex in SPLIT_PATTERNS.items()}
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            if pre_tokenizer.get("use_regex", True):
                return "gpt2"
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
            ],
        } if regex in known:
            return known[regex]
    raise ValueError("it splits text otherwise than ours")


def _from_gpt2_files(merges_file: Path, ids_file: Path) -> BPETokenizer:
    lines = _read_text(merges_file).split("\n")
    merges = [line for line in lines[lines[0].startswith("#version:") :] if line]
    vocabulary = _read_json(ids_file)
    if not isinstance(vocabulary, dict):
        raise ValueError(f"{ids_file}: this should be one JSON object, from tokens to ids")
    special_tokens = {END_OF_TEXT: vocabulary[END_OF_TEXT]} if END_OF_TEXT in vocabulary else {}
    both = f"{merges_file} with {ids_file.name}"
    return _named(both, _from_vocabulary, vocabulary, merges, special_tokens, "gpt2")


def _from_vocabulary(vocabulary: Any, merges: Any, special_tokens: Mapping[str, int], pattern: str) -> BPETokenizer:
    """Merges give the order, `vocabulary` the ids; it must hold the bytes, the merges and nothing else."""
    vocabulary, halves = _table_of_ids(vocabulary), list(_halves(merges))
    pairs = pairs_of(halves)
    tokens = [*byte_characters().values(), *(left + right for left, right in halves)]
    if unknown := next((token for token in tokens if token not in vocabulary), None):
        raise ValueError(f"the token {unknown!r} has no id: this is not a whole byte-level vocabulary")
    unmade = vocabulary.keys() - special_tokens.keys() - set(tokens)
    if unmade:
        raise ValueError(f"no merge makes the token {min(unmade)!r}, nor is it a special token")
    tokenizer = BPETokenizer(pairs, pattern, special_tokens, [vocabulary[token] for token in tokens])
    _check_reachable(tokens, halves)
    return tokenizer


def _check_reachable(tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
    """Refuse a vocabulary with a token whose bytes encode to other tokens: libraries would disagree about it."""
    from tokenizers import models

    reference = models.BPE({token: rank for rank, token in enumerate(tokens)}, merges)
    for rank, token in enumerate(tokens):
        if [piece.id for piece in reference.tokenize(token)] != [rank]:
            raise ValueError(
                f"its merge {rank - 256} makes {token!r}, which earlier merges keep from ever being made: "
                "this vocabulary was not trained as byte-level BPE"
            )


def _halves(merges: Any) -> Iterable[tuple[str, str]]:
    """Merges as files hold them, "left right" or [left, right]."""
    if not isinstance(merges, list):
        raise ValueError("its merges are not a list")
    for i, merge in enumerate(merges):
        match merge.split(" ") if isinstance(merge, str) else merge:
            case [str(left), str(right)]:
                yield left, right
            case _:
                raise ValueError(f"its merge {i} is not a pair of tokens: {merge!r}")


def _table_of_ids(table: Any) -> dict[str, int]:
    if isinstance(table, dict) and all(type(k) is str and type(v) is int for k, v in table.items()):
        return table
    raise ValueError("a table from tokens to ids is missing or holds something else")


def _gpt2_files(folder: Path) -> tuple[Path, Path] | None:
    for merges, ids in GPT2_FILES:
        if (folder / merges).is_file() and (folder / ids).is_file():
            return folder / merges, folder / ids
    return None


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: this is not a tokenizer: it is not UTF-8 text") from None


def _read_json(file: Path) -> Any:
    text = _read_text(file)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}"
        raise ValueError(f"{file}: this is not JSON at {where}: it is damaged or cut short") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, or too many brackets
        raise ValueError(f"{file}: this is not a tokenizer: it is damaged ({error})") from None


def _named(file: Path | str, build: Any, *arguments: Any) -> Any:
    """build(*arguments), with the file's name before the message of its error."""
    try:
        return build(*arguments)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    except (AttributeError, LookupError, TypeError) as error:  # a field that holds something else than it should
        raise ValueError(f"{file}: it is damaged ({error})") from error
