"""A request to `prepare`: its settings checked, and put into a form that two runs can compare.

Everything that decides a byte of the result is in a request's mapping and nothing else is: contents and not paths,
neither the number of workers nor the folder. Nothing is fetched or encoded here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.generated import CORPORA
from understudy.data.layout import check_ranges
from understudy.data.progress import Report
from understudy.data.text.documents import PIECE_CHARS, ReadingOptions
from understudy.data.text.shards import FORMAT
from understudy.data.text.sources import (
    GeneratedText,
    TextFiles,
    TextSource,
    identity,
    parse_sources,
    takes_field,
    takes_separator,
)
from understudy.tokenizer import SPLIT_PATTERNS, Tokenizer, load_tokenizer

TOKENIZERS = ("char", "bpe", "gpt2")
DEFAULT_VOCAB_SIZE = 4096
DEFAULT_PATTERN = "gpt2"


@dataclass(frozen=True)
class PrepareTextRequest:
    """Settings with their defaults filled in.

    Attributes:
        tokenizer: "char", "bpe", "gpt2" or a path; `vocab_size` and `pattern` are of "bpe" and unused otherwise.
        loaded: the tokenizer at a path.
        mapping: the settings that are compared with another request's, and written into the manifest.
    """

    sources: tuple[TextSource, ...]
    tokenizer: str
    vocab_size: int
    pattern: str
    reading: ReadingOptions
    val_fraction: float | None
    limit: int | None
    seed: int
    loaded: Tokenizer | None
    mapping: dict[str, Any]


def make_request(
    arguments: Sequence[str],
    tokenizer: str,
    vocab_size: int | None,
    pattern: str | None,
    field: str | None,
    val_fraction: float | None,
    limit: int | None,
    seed: int | None,
    report: Report,
    separator: str | None = None,
    piece_chars: int = PIECE_CHARS,
) -> PrepareTextRequest:
    """Look the sources up and check the settings; one that would do nothing is refused.

    Raises:
        ValueError: a source that is not there, a setting out of range, a setting without effect.
    """
    check_ranges(val_fraction, limit)
    _check_tokenizer(tokenizer, vocab_size, pattern)
    sources = tuple(parse_sources(arguments, report))
    if field is not None and not any(takes_field(source) for source in sources):
        raise ValueError(f"field={field!r} would do nothing: no file of records or hf: source was given; leave it out")
    if separator is not None and (not separator or not any(takes_separator(source) for source in sources)):
        raise ValueError(f"separator={separator!r} would do nothing: no .txt or .md file was given; leave it out")
    generated = [isinstance(source.origin, GeneratedText) for source in sources]
    if val_fraction is not None and all(generated):
        raise ValueError(f"val_fraction={val_fraction} would do nothing: {sources[0].name} has its own validation text")
    if seed is not None and not any(generated):
        raise ValueError(
            f"seed={seed} would do nothing: no generated source ({', '.join(CORPORA)}) was given; leave it out"
        )
    vocab_size, pattern, seed = vocab_size or DEFAULT_VOCAB_SIZE, pattern or DEFAULT_PATTERN, seed or 0
    loaded = None if tokenizer in TOKENIZERS else load_tokenizer(Path(tokenizer).expanduser())
    mapping = {
        "format": FORMAT,
        "sources": [identity(source, seed) for source in sources],
        "tokenizer": _tokenizer_identity(tokenizer, vocab_size, pattern, loaded),
        "field": field,
        "separator": separator,
        "val_fraction": val_fraction,
        "limit": limit,
    }
    # As it will be read back: tuples are lists in JSON.
    mapping = json.loads(json.dumps(mapping))
    return PrepareTextRequest(
        sources,
        tokenizer,
        vocab_size,
        pattern,
        ReadingOptions(field or "text", separator, piece_chars),
        val_fraction,
        limit,
        seed,
        loaded,
        mapping,
    )


def _check_tokenizer(tokenizer: str, vocab_size: int | None, pattern: str | None) -> None:
    if tokenizer != "bpe" and (vocab_size is not None or pattern is not None):
        setting = "vocab_size" if vocab_size is not None else "pattern"
        raise ValueError(
            f"{setting} is a setting of the tokenizer 'bpe' and does nothing for {tokenizer!r}: leave it out"
        )
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"vocab_size must be a positive number of tokens, not {vocab_size}")
    if pattern is not None and pattern not in SPLIT_PATTERNS:
        raise ValueError(f"no pattern {pattern!r}: choose one of {', '.join(SPLIT_PATTERNS)}")
    if tokenizer not in TOKENIZERS and not Path(tokenizer).expanduser().exists():
        raise ValueError(f"no tokenizer {tokenizer!r}: give 'char', 'bpe', 'gpt2', or the path of a tokenizer.json")


def _tokenizer_identity(tokenizer: str, vocab_size: int, pattern: str, loaded: Tokenizer | None) -> dict[str, Any]:
    if loaded is not None:
        return {"sha256": loaded.sha256}
    if tokenizer == "bpe":
        return {"name": tokenizer, "vocab_size": vocab_size, "pattern": pattern}
    return {"name": tokenizer}


def default_name(sources: Sequence[TextSource]) -> str:
    """The name of the data folder where the user gave none: that of the one source or file.

    Raises:
        ValueError: there are several.
    """
    origin = sources[0].origin
    one_file = isinstance(origin, TextFiles) and len(origin.found.files) == 1
    if len(sources) > 1 or (isinstance(origin, TextFiles) and not one_file):
        raise ValueError("several files or sources have no common name: give the folder of the data, --out FOLDER")
    if isinstance(origin, TextFiles):
        return origin.found.files[0].name.split(".")[0]
    return sources[0].name.removeprefix("hf:").split("#")[0].split("/")[-1].replace(":", "-")
