"""A data folder, opened: token files as they lie on the disk, and the manifest that describes them.

A data folder holds train.bin and val.bin (token ids one after another, little-endian, uint16 where the
vocabulary has at most 65,536 ids and uint32 otherwise, no header), manifest.json and tokenizer.json.
nanoGPT's folders, which have the two .bin files and at most a meta.pkl, are read too; a pickle is never
opened. Making batches of the tokens is loader.py's work, writing them prepare.py's.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data import layout
from understudy.data.layout import FORMAT, PARTIAL

TOKENIZER = "tokenizer.json"
SCAN_TOKENS = 1 << 24


@dataclass(frozen=True)
class SplitInfo:
    """Sizes of a split. `bytes`: of its text in UTF-8, the denominator of bits per byte; end-of-text tokens are among
    `tokens` and have no bytes. `sha256`: of the .bin file."""

    tokens: int
    bytes: int
    documents: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Description of a data folder.

    Attributes:
        request: the settings of the preparation, by which a second run knows that it is done.
        end_of_text_spelled: how often the text spells the end-of-text token.
    """

    tokenizer_sha256: str
    tokenizer_kind: str
    vocab_size: int
    eot_id: int | None
    dtype: str
    splits: dict[str, SplitInfo]
    sources: list[dict[str, Any]]
    request: dict[str, Any]
    empty_documents: int = 0
    end_of_text_spelled: int = 0
    seed: int = 0
    understudy: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class TokenData:
    """One split, mapped and not loaded: `tokens` has shape (N,) and may be many times the machine's memory.

    `path` is the data folder. `manifest`, `tokenizer_sha256` and `bytes` (the split's text in UTF-8 bytes)
    are None for folders that nanoGPT wrote.
    """

    path: Path
    split: str
    tokens: np.memmap
    dtype: np.dtype
    manifest: Manifest | None
    tokenizer_sha256: str | None
    bytes: int | None


def token_dtype(vocab_size: int) -> np.dtype:
    """The type of a token file: uint16 where every id fits, uint32 otherwise; little-endian on every
    machine."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a data folder; None where it has none.

    Raises:
        ValueError: the manifest is damaged, of a later format, or one of messages.
    """

    def parse(raw: dict[str, Any]) -> Manifest:
        if "kind" in raw:
            raise ValueError(f"{folder} holds {raw['kind']}, not text as tokens; name another folder")
        splits = {name: SplitInfo(**info) for name, info in raw.pop("splits").items()}
        manifest = Manifest(splits=splits, **raw)
        if manifest.dtype != token_dtype(manifest.vocab_size).name:
            raise TypeError(f"{manifest.dtype} for a vocabulary of {manifest.vocab_size}")
        return manifest

    return layout.read_manifest(folder, parse)


def open_split(path: Path, split: str, vocab_size: int | None = None) -> TokenData:
    """Open one split of a data folder. `vocab_size`: of the model that will read it, checked where given.

    Where a manifest vouches for the tokens its vocabulary is compared; otherwise every token is looked at
    once.

    Raises:
        ValueError: no such folder or split, a token file cut short or empty, tokens outside the vocabulary.
    """
    refuse_raw_file(path)
    if not path.is_dir():
        raise ValueError(f"no data folder at {path}: make it with `understudy prepare SOURCE --out {path}`")
    manifest = read_manifest(path)
    if manifest is None and (path / PARTIAL).is_dir():
        raise ValueError(f"the preparation of {path} is not finished: run the same prepare command again")
    file = path / f"{split}.bin"
    if not file.is_file():
        held = ", ".join(sorted(p.stem for p in path.glob("*.bin"))) or "no token files"
        raise ValueError(f"{path} has no split {split!r}; it holds {held}: prepare it again, or choose another split")
    info = manifest.splits.get(split) if manifest else None
    dtype = token_dtype(manifest.vocab_size) if manifest else np.dtype("<u2")
    _check_size(file, dtype, info)
    tokens = np.memmap(file, dtype=dtype, mode="r")
    if vocab_size is not None:
        _check_vocabulary(file, tokens, manifest, vocab_size)
    return TokenData(
        path=path,
        split=split,
        tokens=tokens,
        dtype=dtype,
        manifest=manifest,
        tokenizer_sha256=manifest.tokenizer_sha256 if manifest else None,
        bytes=info.bytes if info else None,
    )


def refuse_raw_file(path: Path, options: Sequence[str] = ()) -> None:
    """Refuse a file in place of a data folder.

    Args:
        options: of the `understudy prepare` that makes a fitting folder.

    Raises:
        ValueError: ``path`` is a file; the message names the folder, or the command that makes one.
    """
    if not path.is_file():
        return
    if path.suffix == ".bin":
        raise ValueError(f"{path} is a token file; name its folder: --data {path.parent}")
    folder = Path("data") / path.stem
    command = shlex.join(["understudy", "prepare", str(path), "--out", str(folder), *options])
    raise ValueError(f"{path} is a file, which must be prepared first: `{command}`, then train with --data {folder}")


def _check_size(file: Path, dtype: np.dtype, info: SplitInfo | None) -> None:
    size = file.stat().st_size
    if info is not None and size != info.tokens * dtype.itemsize:
        raise ValueError(
            f"{file} has {size:,} bytes where its manifest says {info.tokens * dtype.itemsize:,}: it was "
            "cut short or replaced; prepare the data again with --force"
        )
    if size == 0 or size % dtype.itemsize:
        raise ValueError(f"{file} has {size:,} bytes, no whole number of {dtype.name} tokens: it was cut short")


def _check_vocabulary(file: Path, tokens: np.memmap, manifest: Manifest | None, vocab_size: int) -> None:
    if manifest is not None:
        if manifest.vocab_size > vocab_size:
            raise ValueError(
                f"{file} was prepared with a vocabulary of {manifest.vocab_size:,} tokens and the model has "
                f"{vocab_size:,}: use the data's tokenizer for the model, or prepare the data with the "
                "model's"
            )
        return
    for start in range(0, len(tokens), SCAN_TOKENS):
        chunk = tokens[start : start + SCAN_TOKENS]
        largest = int(chunk.max())
        if largest >= vocab_size:
            at = start + int(chunk.argmax())
            raise ValueError(
                f"{file} holds token {largest:,} at position {at:,}, outside the model's vocabulary of "
                f"{vocab_size:,}: the data was made with another tokenizer"
            )
