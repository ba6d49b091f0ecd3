"""Opening data folders: ours, nanoGPT's, and damaged ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from understudy.data.text.shards import Manifest, SplitInfo, open_split, read_manifest, token_dtype

IDS = np.arange(1000) % 90


def nanogpt_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    IDS.astype("<u2").tofile(folder / "train.bin")
    IDS[:100].astype("<u2").tofile(folder / "val.bin")
    return folder


def our_folder(folder: Path, vocab_size: int = 90) -> Path:
    nanogpt_folder(folder)
    dtype = token_dtype(vocab_size)
    IDS.astype(dtype).tofile(folder / "train.bin")
    IDS[:100].astype(dtype).tofile(folder / "val.bin")
    manifest = Manifest(
        tokenizer_sha256="ab" * 32,
        tokenizer_kind="char",
        vocab_size=vocab_size,
        eot_id=None,
        dtype=dtype.name,
        splits={"train": SplitInfo(1000, 1234, 1, "cd"), "val": SplitInfo(100, 123, 1, "ef")},
        sources=[],
        request={},
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    assert read_manifest(folder) == manifest
    return folder


def test_our_folder(tmp_path: Path) -> None:
    data = open_split(our_folder(tmp_path), "train", vocab_size=90)
    assert isinstance(data.tokens, np.memmap) and data.tokens.tolist() == IDS.tolist()
    assert (data.tokenizer_sha256, data.bytes, data.tokens.dtype) == ("ab" * 32, 1234, np.dtype("<u2"))
    assert data.manifest is not None and data.manifest.splits["val"].tokens == 100
    assert open_split(our_folder(tmp_path, 70_000), "val").tokens.dtype == np.dtype("<u4")


def test_nanogpt_s_folder_and_never_its_pickle(tmp_path: Path) -> None:
    folder = nanogpt_folder(tmp_path)
    (folder / "meta.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    data = open_split(folder, "train", vocab_size=90)
    assert data.tokens.tolist() == IDS.tolist()
    assert (data.manifest, data.tokenizer_sha256, data.bytes) == (None, None, None)
    assert not (tmp_path / "ran").exists()


def test_the_type_of_a_token_file() -> None:
    assert token_dtype(1 << 16) == np.dtype("<u2") and token_dtype((1 << 16) + 1) == np.dtype("<u4")


def test_tokens_outside_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="prepared with a vocabulary of 90 tokens and the model has 89"):
        open_split(our_folder(tmp_path / "ours"), "train", vocab_size=89)
    monkeypatch.setattr("understudy.data.text.shards.SCAN_TOKENS", 64)
    folder = nanogpt_folder(tmp_path / "theirs")
    with pytest.raises(ValueError, match="holds token 89 at position 89, outside the model's vocabulary"):
        open_split(folder, "train", vocab_size=89)
    odd = IDS.copy()
    odd[-1] = 500
    odd.astype("<u2").tofile(folder / "train.bin")
    with pytest.raises(ValueError, match="holds token 500 at position 999"):
        open_split(folder, "train", vocab_size=90)


def test_a_file_cut_short(tmp_path: Path) -> None:
    for make, sentence in (
        (our_folder, "manifest says 2,000"),
        (nanogpt_folder, "no whole number of uint16"),
    ):
        folder = make(tmp_path / make.__name__)
        file = folder / "train.bin"
        file.write_bytes(file.read_bytes()[:-3])
        with pytest.raises(ValueError, match=sentence):
            open_split(folder, "train")
    (folder / "train.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="has 0 bytes"):
        open_split(folder, "train")


def test_missing_folders_and_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no data folder at .*: make it with `understudy prepare"):
        open_split(tmp_path / "none", "train")
    with pytest.raises(ValueError, match="has no split 'test'; it holds train, val"):
        open_split(our_folder(tmp_path), "test")


def test_an_unfinished_folder_is_no_nanogpt_folder(tmp_path: Path) -> None:
    (nanogpt_folder(tmp_path) / ".partial").mkdir()
    with pytest.raises(ValueError, match="is not finished: run the same prepare command again"):
        open_split(tmp_path, "train")


def test_a_damaged_manifest(tmp_path: Path) -> None:
    folder = our_folder(tmp_path)
    whole = (folder / "manifest.json").read_text()
    changes = [('"format": 1', '"format": 9'), ('"dtype"', '"d"'), ("uint16", "uint32")]
    for text in (whole[:100], "[]", "{}", *(whole.replace(old, new) for old, new in changes)):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="prepare the data again"):
            open_split(folder, "train")


def test_the_manifest_is_what_it_says() -> None:
    names = {field.name for field in dataclasses.fields(Manifest)}
    assert {"tokenizer_sha256", "vocab_size", "dtype", "splits", "sources", "request", "seed"} <= names
