"""Token files that stay in an object store: the same tokens and batches, checked, within a limit of the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from understudy.cli import main
from understudy.data.loader import Windows
from understudy.data.mixture import MixedWindows, Phase
from understudy.data.store import Store
from understudy.data.text import chunks
from understudy.data.text.chunks import ChunkDigests, ChunkedTokens, file_digests
from understudy.data.text.prepare import merge, prepare, prepare_task
from understudy.data.text.shards import data_folder, open_split
from understudy.run import load_run

CONTEXT = 16
TEXT = "".join(f"On day {i} the miller walks to the mill and counts {i * 7 % 91} sacks.\n" for i in range(900))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 256)
    monkeypatch.setattr(chunks, "WHOLE_BYTES", 4096)
    monkeypatch.setattr(chunks, "PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Text of 58 KB prepared with characters: a token file above the limit, and a validation split of its own above it."""
    (tmp_path / "a.txt").write_text(TEXT)
    prepare([str(tmp_path / "a.txt")], "memory://bucket/data", "char", cache=tmp_path / "cache-of-prepare")
    prepare([str(tmp_path / "a.txt")], tmp_path / "local", "char")
    yield "memory://bucket/data"
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def opened(bucket: str, cache: Path) -> ChunkedTokens:
    tokens = open_split(data_folder(bucket, cache), "train", 100).tokens
    assert isinstance(tokens, ChunkedTokens)
    return tokens


def test_digests_do_not_depend_on_the_blocks(tmp_path: Path) -> None:
    content = np.arange(6000, dtype="<u2").tobytes()
    (tmp_path / "a.bin").write_bytes(content)
    whole = file_digests(tmp_path / "a.bin")
    assert len(whole) == 8 * -(-len(content) // 256)
    for size in (1, 100, 256, 1000):
        digests = ChunkDigests()
        for start in range(0, len(content), size):
            digests.update(content[start : start + size])
        assert digests.digests() == whole
    (tmp_path / "a.bin").write_bytes(content[:4096])
    assert file_digests(tmp_path / "a.bin") == b""


def test_one_process_and_tasks_write_the_same_digests(bucket: str, tmp_path: Path) -> None:
    store = Store(bucket)
    local = {name: (tmp_path / "local" / name).read_bytes() for name in ("train.chunks", "val.chunks", "manifest.json")}
    assert {name: store.read(name) for name in local} == local
    for out in (str(tmp_path / "tasks"), "memory://bucket/tasks"):
        for task in (2, 0, 1):
            prepare_task([str(tmp_path / "a.txt")], out, 3, task, tokenizer="char", cache=tmp_path / "c")
        merge(out, tmp_path / "c")
        assert {name: Store(out).read(name) for name in local} == local
    (tmp_path / "a.txt").write_text(TEXT[:1500])
    prepare([str(tmp_path / "a.txt")], tmp_path / "local", "char", force=True)
    prepare([str(tmp_path / "a.txt")], bucket, "char", force=True, cache=tmp_path / "c")
    assert not list((tmp_path / "local").glob("*.chunks")) and store.read("train.chunks") is None


def test_tokens_are_those_of_the_file(bucket: str, tmp_path: Path) -> None:
    tokens, mapped = opened(bucket, tmp_path / "cache"), open_split(tmp_path / "local", "train").tokens
    assert len(tokens) == len(mapped) and tokens.shape == mapped.shape
    assert tokens[:] is tokens and not tokens.fetched_bytes
    for part in (
        slice(0, 1),
        slice(127, 129),
        slice(100, 1000),
        slice(-5, None),
        slice(128, 128),
        slice(len(mapped) - 3, 10**9),
    ):
        np.testing.assert_array_equal(tokens[part], mapped[part])
    assert tokens.fetched_bytes < mapped.nbytes / 2, "only what was asked for, and a little of what follows"
    np.testing.assert_array_equal(np.asarray(tokens, np.int64), mapped)
    again = opened(bucket, tmp_path / "cache")
    np.testing.assert_array_equal(again[100:1000], mapped[100:1000])
    assert not again.fetched_bytes, "they are on the disk"


def test_batches_are_the_same_and_only_their_chunks_are_fetched(bucket: str, tmp_path: Path) -> None:
    tokens, mapped = opened(bucket, tmp_path / "cache"), open_split(tmp_path / "local", "train").tokens
    ours, theirs = (Windows(array, CONTEXT, seed=3) for array in (tokens, mapped))
    assert ours.fetched and not theirs.fetched
    ours.prefetch(40, 8)
    fetched = tokens.fetched_bytes
    assert 0 < fetched <= 8 * 2 * 256
    for first, size in ((40, 8), (0, 5), (ours.per_epoch - 3, 9)):
        for name, block in ours.batch(first, size).items():
            assert (block == theirs.batch(first, size)[name]).all()
        assert first != 40 or tokens.fetched_bytes == fetched, "a batch that was fetched before asks for nothing"
    phases = [Phase(0, (0.5, 0.5))]
    mixed = MixedWindows([ours, theirs], phases, seed=1)
    expected = MixedWindows([theirs, theirs], phases, seed=1).batch(90, 20)
    mixed.prefetch(90, 20)
    fetched = tokens.fetched_bytes
    assert mixed.fetched and (mixed.batch(90, 20)["tokens"] == expected["tokens"]).all()
    assert tokens.fetched_bytes == fetched


def test_the_disk_is_bounded_and_damage_is_noticed(bucket: str, tmp_path: Path) -> None:
    mapped = open_split(tmp_path / "local", "train").tokens
    first = opened(bucket, tmp_path / "cache")
    small = ChunkedTokens(first.url, first.dtype, len(first), first.digests, tmp_path / "small", most_bytes=5000)
    for start in range(0, 20_000, 500):
        np.testing.assert_array_equal(small[start : start + 500], mapped[start : start + 500])
        assert sum(path.stat().st_size for path in (tmp_path / "small").rglob("*") if path.is_file()) <= 5000 + 16 * 256
    stored = sorted(path for path in (tmp_path / "small").rglob("*") if path.is_file())
    stored[-1].write_bytes(b"damaged")
    np.testing.assert_array_equal(small[19_000:20_000], mapped[19_000:20_000])
    content = bytearray(Store(bucket).read("train.bin") or b"")
    content[30_000] ^= 1
    Store(bucket).write("train.bin", bytes(content))
    with pytest.raises(ValueError, match=r"train\.bin is damaged or was replaced since training began \(chunk 117 has"):
        small[15_000 - 20 : 15_000 + 20]


def test_a_request_that_fails_is_tried_again(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = opened(bucket, tmp_path / "cache")
    failures = iter([True, True, False])
    get = tokens._filesystem.cat_file

    def flaky(*arguments: Any) -> bytes:
        if next(failures, True):
            raise ConnectionResetError("connection reset")
        return get(*arguments)

    monkeypatch.setattr(tokens._filesystem, "cat_file", flaky)
    np.testing.assert_array_equal(tokens[0:50], open_split(tmp_path / "local", "train").tokens[0:50])
    with pytest.raises(ValueError, match=r"memory://bucket/data/train\.bin could not be used \(connection reset\)"):
        tokens[9000:9050]


def test_threads_share_a_folder(bucket: str, tmp_path: Path) -> None:
    mapped = open_split(tmp_path / "local", "train").tokens
    readers = [opened(bucket, tmp_path / "cache") for _ in range(4)]
    wrong: list[int] = []

    def read(number: int) -> None:
        for start in range(0, len(mapped) - 50, 997):
            if not (readers[number][start : start + 50] == mapped[start : start + 50]).all():
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not list((tmp_path / "cache").rglob(".0*"))


def test_data_that_changed_leave_no_old_chunks(bucket: str, tmp_path: Path) -> None:
    opened(bucket, tmp_path / "cache")[0:50]
    folder = data_folder(bucket, tmp_path / "cache")
    (tmp_path / "a.txt").write_text(TEXT + "And so on.\n")
    prepare([str(tmp_path / "a.txt")], bucket, "char", force=True, cache=tmp_path / "c")
    opened(bucket, tmp_path / "cache")[0:50]
    assert len([path for path in folder.iterdir() if path.name.startswith("chunks-")]) == 1
    assert not list(folder.glob("train.bin"))


SETTINGS = """
model: {family: llama, n_layers: 1, n_heads: 2, d_model: 16, context_length: 16}
train: {steps: 9, batch_size: 4, micro_batch_size: 2, bigram_start: false}
eval: {every_steps: 3, max_tokens: 300}
checkpoint: {every_steps: 3}
log: {samples: 0, plot: false}
"""


def test_training_from_a_store_gives_the_same_bits_and_resumes(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in (("local", "local"), ("remote", bucket)):
        (tmp_path / f"{name}.yaml").write_text(f"data: {{path: '{data}'}}\n{SETTINGS}")
    assert main(["pretrain", "local.yaml", "--run", "local"]) == 0
    assert main(["pretrain", "remote.yaml", "--run", "remote", "--train.stop_at_tokens", "300"]) == 0
    assert main(["pretrain", "remote.yaml", "--run", "remote", "--resume"]) == 0
    local, remote = (load_run(tmp_path / "runs" / name, "latest").model.state_dict() for name in ("local", "remote"))
    assert all((weight == remote[name]).all() for name, weight in local.items())
    stores = tmp_path / "data/.cache/stores"
    fetched = sum(path.stat().st_size for path in stores.rglob("chunks-*/*/*"))
    size = sum(path.stat().st_size for path in (tmp_path / "local").glob("*.bin"))
    assert not list(stores.rglob("*.bin")) and 0 < fetched < size / 2
    assert main(["evaluate", "remote"]) == 0
