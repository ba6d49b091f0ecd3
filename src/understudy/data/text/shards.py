"""A data folder, opened: token files as they lie on the disk, and the manifest that describes them.

A data folder holds train.bin and val.bin (token ids one after another, little-endian, uint16 where the vocabulary has at
most 65,536 ids and uint32 otherwise, no header), manifest.json and tokenizer.json. nanoGPT's folders, which have the two
.bin files and at most a meta.pkl, are read too; a pickle is never opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.config.run import RunConfig
from understudy.data import layout
from understudy.data.layout import CACHE, FORMAT, PARTIAL
from understudy.data.store import Store, fetched_folder, is_url
from understudy.data.text.chunks import ChunkedTokens, chunks_name
from understudy.files import write_text
from understudy.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

TOKENIZER = "tokenizer.json"
REMOTE = "remote.txt"
"""In a folder of the cache, the URL of the data."""
NANOGPT_TEXT = "input.txt"
ENDS_BYTES = 1 << 20
SCAN_TOKENS = 1 << 24


@dataclass
class SplitInfo:
    """Sizes of a split. `bytes`: of its text in UTF-8, the denominator of bits per byte; end-of-text tokens are among
    `tokens` and have no bytes. `documents`: those that end in it. `sha256`: of the .bin file. `chunks_sha256`: of the file
    with the digests of its chunks; empty for a small one, which has none."""

    tokens: int = 0
    bytes: int = 0
    documents: int = 0
    sha256: str = ""
    chunks_sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """Description of a data folder.

    Attributes:
        request: the settings of the preparation, by which a second run knows that it is done.
        end_of_text_spelled: how often the text spells the end-of-text token.
        quality: settings and counts of the cleaning; None where there was none.
        notes: what was dropped, failed, skipped and changed: of each the reasons, with their number and the first place.
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
    quality: dict[str, Any] | None = None
    notes: dict[str, dict[str, list[Any]]] = dataclasses.field(default_factory=dict)
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
    tokens: np.memmap | ChunkedTokens
    manifest: Manifest | None

    @property
    def tokenizer_sha256(self) -> str | None:
        return self.manifest.tokenizer_sha256 if self.manifest else None

    @property
    def bytes(self) -> int | None:
        return self.manifest.splits[self.split].bytes if self.manifest else None

    def sha256(self) -> str:
        """A hash that names the split. Folders without a manifest are named by size and both ends of the file."""
        if self.manifest:
            return self.manifest.splits[self.split].sha256
        assert not isinstance(self.tokens, ChunkedTokens), "only data with a manifest stay in a store"
        raw = self.tokens.view("u1")
        digest = hashlib.sha256(str(len(raw)).encode())
        digest.update(raw[:ENDS_BYTES].tobytes())
        digest.update(raw[-ENDS_BYTES:].tobytes())
        return digest.hexdigest()


def token_dtype(vocab_size: int) -> np.dtype:
    """The type of a token file: uint16 where every id fits, uint32 otherwise."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a data folder; None where it has none.

    Raises:
        ValueError: the manifest is damaged, of a later format, or one of messages.
    """
    return layout.read_manifest(folder, _parser(folder))


def _parser(folder: Path | str) -> Callable[[dict[str, Any]], Manifest]:
    def parse(raw: dict[str, Any]) -> Manifest:
        if "kind" in raw:
            raise ValueError(f"{folder} holds {raw['kind']}, not text as tokens; name another folder")
        splits = {name: SplitInfo(**info) for name, info in raw.pop("splits").items()}
        manifest = Manifest(splits=splits, **raw)
        if manifest.dtype != token_dtype(manifest.vocab_size).name:
            raise TypeError(f"{manifest.dtype} for a vocabulary of {manifest.vocab_size}")
        return manifest

    return parse


def stored_manifest(store: Store) -> Manifest | None:
    """The manifest of a data folder on the disk or in an object store; None where it has none."""
    content = store.read(layout.MANIFEST)
    return (
        None if content is None else layout.parse_manifest(content, f"{store}/{layout.MANIFEST}", _parser(str(store)))
    )


def open_split(path: Path, split: str, vocab_size: int | None = None) -> TokenData:
    """Open one split of a data folder. `vocab_size`: of the model that will read it, checked where given.

    Where a manifest vouches for the tokens its vocabulary is compared; otherwise every token is looked at once.

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
    if manifest is not None and (path / REMOTE).is_file() and (path / chunks_name(split)).is_file():
        if vocab_size is not None:
            _check_vocabulary_size(file, manifest, vocab_size)
        return TokenData(path, split, _open_chunked(path, split, manifest), manifest)
    if not file.is_file():
        held = ", ".join(sorted(p.stem for p in path.glob("*.bin"))) or "no token files"
        raise ValueError(f"{path} has no split {split!r}; it holds {held}: prepare it again, or choose another split")
    info = manifest.splits.get(split) if manifest else None
    dtype = token_dtype(manifest.vocab_size) if manifest else np.dtype("<u2")
    if info is not None:
        layout.check_size(file, info.tokens * dtype.itemsize)
    if (size := file.stat().st_size) == 0 or size % dtype.itemsize:
        raise ValueError(f"{file} has {size:,} bytes, no whole number of {dtype.name} tokens: it was cut short")
    tokens = np.memmap(file, dtype=dtype, mode="r")
    if vocab_size is not None:
        _check_vocabulary(file, tokens, manifest, vocab_size)
    return TokenData(path, split, tokens, manifest)


def _open_chunked(path: Path, split: str, manifest: Manifest) -> ChunkedTokens:
    """A split whose token file stays in an object store."""
    info, url = manifest.splits[split], (path / REMOTE).read_text("utf-8")
    digests, dtype = (path / chunks_name(split)).read_bytes(), token_dtype(manifest.vocab_size)
    return ChunkedTokens(f"{url}/{split}.bin", dtype, info.tokens, digests, path / _chunk_folder(info))


def _chunk_folder(info: SplitInfo) -> str:
    return f"chunks-{info.sha256[:16]}"


def refuse_raw_file(path: Path, options: Sequence[str] = ()) -> None:
    """Refuse a file in place of a data folder, with the command that makes one (`options`: of `prepare`).

    Raises:
        ValueError: ``path`` is a file.
    """
    if path.suffix == ".bin" and path.is_file():
        raise ValueError(f"{path} is a token file; name its folder: --data {path.parent}")
    if path.is_file():
        folder = Path("data") / path.stem
        command = shlex.join(["understudy", "prepare", str(path), "--out", str(folder), *options])
        raise ValueError(
            f"{path} is a file, which must be prepared first: `{command}`, then train with --data {folder}"
        )


def _check_vocabulary_size(file: Path, manifest: Manifest, vocab_size: int) -> None:
    if manifest.vocab_size > vocab_size:
        raise ValueError(
            f"{file} was prepared with a vocabulary of {manifest.vocab_size:,} tokens and the model has {vocab_size:,}: "
            "use the data's tokenizer for the model, or prepare the data with the model's"
        )


def _check_vocabulary(file: Path, tokens: np.memmap, manifest: Manifest | None, vocab_size: int) -> None:
    if manifest is not None:
        _check_vocabulary_size(file, manifest, vocab_size)
        return
    for start in range(0, len(tokens), SCAN_TOKENS):
        chunk = tokens[start : start + SCAN_TOKENS]
        if (largest := int(chunk.max())) >= vocab_size:
            raise ValueError(
                f"{file} holds token {largest:,} at position {start + int(chunk.argmax()):,}, outside the model's "
                f"vocabulary of {vocab_size:,}: the data was made with another tokenizer"
            )


def data_folder(path: str | Path, cache: Path = CACHE) -> Path:
    """The folder of a path or URL: of data in an object store a folder in the cache, with checked files.

    Large token files stay in the store, and are fetched chunk by chunk when they are read; small ones, and those without
    digests of their chunks, are fetched whole, once.

    Raises:
        UnavailableError: the store cannot be reached.
        ValueError: there is no data, or it is damaged.
    """
    if not is_url(path):
        return Path(path)
    manifest = stored_manifest(Store(str(path)))
    if manifest is None:
        raise ValueError(f"no data at {path}: make it with `understudy prepare SOURCE --out {path}`")
    hashes: dict[str, str | None] = {TOKENIZER: manifest.tokenizer_sha256, layout.MANIFEST: None}
    for split, info in manifest.splits.items():
        hashes |= {chunks_name(split): info.chunks_sha256} if info.chunks_sha256 else {f"{split}.bin": info.sha256}
    kept = (REMOTE, *(_chunk_folder(info) for info in manifest.splits.values()))
    folder = fetched_folder(str(path), cache, hashes, kept)
    if not (folder / REMOTE).is_file():
        write_text(folder / REMOTE, str(path).rstrip("/"))
    return folder


def data_tokenizer(config: RunConfig) -> Tokenizer:
    """The tokenizer the data was prepared with, which must be the kind the configuration expects.

    Raises:
        ValueError: another kind or size, or none beside the data.
    """
    path, wanted = data_folder(config.data.path), config.tokenizer
    refuse_raw_file(path, prepare_options(config))
    read_manifest(path)  # which refuses a folder of conversations
    tokenizer = _tokenizer_of(path, wanted.kind)
    kind = "gpt2" if tokenizer.kind == "bpe" and tokenizer.vocab_size == 50257 else tokenizer.kind
    again = f"; prepare it again with --tokenizer {wanted.kind}, or set tokenizer.kind to null to take that of the data"
    if wanted.kind not in (None, kind, tokenizer.kind):
        raise ValueError(f"the data in {path} was prepared with a {kind} tokenizer, and {wanted.kind} is set{again}")
    if wanted.vocab_size not in (None, tokenizer.vocab_size):
        raise ValueError(
            f"the tokenizer in {path} has {tokenizer.vocab_size} tokens, and tokenizer.vocab_size is "
            f"{wanted.vocab_size}; set it to null to take that of the data"
        )
    return tokenizer


def prepare_options(config: RunConfig) -> list[str]:
    """Options with which `understudy prepare` makes text data that fits the configuration."""
    kind, vocab_size = config.tokenizer.kind, config.tokenizer.vocab_size
    return (["--tokenizer", kind] if kind else []) + (["--vocab-size", str(vocab_size)] if vocab_size else [])


def _tokenizer_of(path: Path, kind: str | None) -> Tokenizer:
    """The folder's own tokenizer; nanoGPT's character folders keep their text beside the tokens instead."""
    if (path / TOKENIZER).exists() or (path / "vocab.bpe").exists():
        return load_tokenizer(path)
    if kind in (None, "char") and (path / NANOGPT_TEXT).exists():
        return train_tokenizer("char", [(path / NANOGPT_TEXT).read_text(encoding="utf-8")])
    raise ValueError(
        f"{path} holds tokens but no tokenizer; put a tokenizer.json beside them, GPT-2's vocab.bpe and encoder.json, or "
        f"for characters the {NANOGPT_TEXT} they were made of"
    )
