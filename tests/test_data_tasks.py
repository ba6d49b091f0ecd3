"""`prepare` as tasks: any number of them, in any order, killed at any moment, here or in an object store, gives the bytes of
one process."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from data_corpus import contents, corpus, run, small_batches, story
from understudy import files
from understudy.cli import main
from understudy.data import inputs, store
from understudy.data.fetch.download import UnavailableError
from understudy.data.store import Store
from understudy.data.text import encoding, work
from understudy.data.text.encoding import TaskSpan, share
from understudy.data.text.prepare import merge, prepare, prepare_task
from understudy.data.text.shards import data_folder, open_split, read_manifest
from understudy.data.text.work import done_tasks
from understudy.tokenizer import load_tokenizer

__all__ = ["corpus", "small_batches"]  # fixtures


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one file is the work of several tasks."""
    for module in (inputs, __import__("understudy.data.decoding", fromlist=[""])):
        monkeypatch.setattr(module, "BLOCK_BYTES", 500)


def tasks(corpus: Path, out: Path | str, number: int, order: list[int] | None = None, **settings: Any) -> None:
    for task in order or range(number):
        prepare_task([str(corpus)], out, number, task, **{"tokenizer": "char", **settings})


@pytest.mark.parametrize("number", [2, 5, 40])
@pytest.mark.parametrize("settings", [
    {}, {"limit": 200}, {"limit": 60, "val_fraction": 0.2}, {"tokenizer": "bpe", "vocab_size": 300, "val_fraction": 0.3},
])  # fmt: skip
def test_any_number_of_tasks_in_any_order(corpus: Path, tmp_path: Path, number: int, settings: dict[str, Any]) -> None:
    run(corpus, tmp_path / "whole", **settings)
    order = random.Random(number).sample(range(number), number)
    tasks(corpus, tmp_path / "out", number, order, **settings)
    assert read_manifest(tmp_path / "out") is None
    assert merge(tmp_path / "out").status == "prepared"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert merge(tmp_path / "out").status == "already prepared"


def test_few_long_texts_and_notes_of_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation text from the tail of each document, pieces of one document in several tasks, and reasons beyond those
    that are listed."""
    folder = tmp_path / "books"
    folder.mkdir()
    monkeypatch.setattr(encoding, "MOST_REASONS", 3)
    for i in range(4):
        (folder / f"{i}.txt").write_text("".join(story(j) for j in range(i, 60 + 20 * i)), "utf-8")
        (folder / f"{i}x.txt.gz").write_bytes(gzip.compress(b"x" * 5000)[: -9 - i])
        (folder / f"{i}y.jsonl").write_text('{"text": 1}\n{"txt": "a"}\n{"text": "good"}\n')
    pieces = 333
    run(folder, tmp_path / "whole", pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("understudy.data.text.documents.PIECE_CHARS", pieces)
        tasks(folder, tmp_path / "out", 9)
    merge(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    manifest = read_manifest(tmp_path / "out")
    assert manifest and "other reasons" in manifest.notes["failed"] and len(manifest.notes["failed"]) == 4


def test_a_generated_corpus_in_tasks(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tokenizer": "bpe", "vocab_size": 300, "limit": 60}
    prepare(["hamlet"], tmp_path / "whole", **settings)
    for task in (2, 0, 1):
        prepare_task(["hamlet"], tmp_path / "out", 3, task, **settings)
    merge(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_shares_are_everything_once() -> None:
    feed: Any = type("Feed", (), {"parts": [type("Part", (), {"size": size}) for size in (10, 0, 7, 1)]})
    spans = [share([feed], task, 4) for task in range(4)]
    assert spans[0].start == 0 and spans[-1].stop == float("inf")
    assert all(one.stop == other.start for one, other in itertools.pairwise(spans))
    assert TaskSpan(3, 5).overlaps(4, 9) and not TaskSpan(3, 5).overlaps(5, 9) and not TaskSpan(3, 5).overlaps(0, 2)


def test_the_share_of_a_task_is_all_that_it_encodes(corpus: Path, tmp_path: Path) -> None:
    tasks(corpus, tmp_path / "out", 4)
    sizes = [(tmp_path / "out" / work.task_folder(task) / "train.bin").stat().st_size for task in range(4)]
    assert sum(sizes) > 0 and max(sizes) < 0.6 * sum(sizes)


def in_child(body: Callable[[], object]) -> int:
    """Run in a forked process, and return its status: 0, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            body()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def ticks(at_tick: Callable[[int], None]) -> Iterator[None]:
    """A call of `at_tick` at every write, flush and renaming of this process."""
    count = 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **settings: Any) -> Any:
            nonlocal count
            count += 1
            at_tick(count)
            return function(*arguments, **settings)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding.TokenWriter, "_append", counted(encoding.TokenWriter._append))
        patch.setattr(files, "flush", counted(files.flush))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(os, "unlink", counted(os.unlink))
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(work, "_copy", counted(work._copy))
        yield


@pytest.mark.parametrize("workers", [1, 3])
def test_kill_9_at_many_moments(corpus: Path, tmp_path: Path, workers: int) -> None:
    run(corpus, tmp_path / "whole", tokenizer="bpe", vocab_size=300)
    number, settings = 6, {"tokenizer": "bpe", "vocab_size": 300, "workers": 1}

    def everything(out: Path, worker: int) -> None:
        for task in range(worker, number, workers):
            tasks(corpus, out, number, [task], **settings)
        if worker == 0 and len(done_tasks(Store(out))) == number:
            merge(out)

    def count(out: Path) -> None:
        with ticks(lambda tick: (tmp_path / "ticks").write_bytes(b"%d" % tick) and None):
            everything(out, 0)

    assert in_child(lambda: count(tmp_path / "counted")) == 0
    total = int((tmp_path / "ticks").read_text())
    assert total > 10
    for moment in range(1, total + 1, max(1, total // 10)):
        out = tmp_path / f"out-{moment}"

        def killed(out: Path = out, moment: int = moment) -> None:
            def kill(tick: int) -> None:
                if tick == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

            with ticks(kill):
                everything(out, 0)

        statuses = [in_child(killed)] + [in_child(lambda out=out, i=i: everything(out, i)) for i in range(1, workers)]
        assert statuses == [-signal.SIGKILL] + [0] * (workers - 1)
        assert in_child(lambda out=out: [everything(out, i) for i in range(workers)]) == 0
        if not (out / "manifest.json").exists() or (out / ".partial").exists():
            assert in_child(lambda out=out: merge(out)) == 0
        (out / ".lock").unlink(missing_ok=True)  # of a process that was killed when all else was done
        assert contents(out) == contents(tmp_path / "whole"), f"killed at {moment} of {total}"


def test_what_tasks_refuse(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="tasks are numbered from 0"):
        tasks(corpus, out, 3, [3])
    with pytest.raises(ValueError, match="one process needs no tasks"):
        tasks(corpus, out, 1)
    tasks(corpus, out, 3, [1])
    with pytest.raises(ValueError, match=r"2 of 3 tasks of .* are not done \(0, 2\)"):
        merge(out)
    with pytest.raises(ValueError, match="unfinished preparation in 3 tasks: give --tasks 3"):
        tasks(corpus, out, 4, [0])
    with pytest.raises(ValueError, match="unfinished preparation in 3 tasks"):
        run(corpus, out)
    with pytest.raises(ValueError, match=r"other limit"):
        tasks(corpus, out, 3, [0], limit=9)
    (corpus / "c.txt").write_text((corpus / "c.txt").read_text().replace("mill", "MILL"))
    with pytest.raises(ValueError, match=r"c\.txt has changed since this preparation was begun"):
        tasks(corpus, out, 3)
    with pytest.raises(ValueError, match="holds no tasks to merge"):
        merge(tmp_path / "nothing")


def test_damage_is_noticed(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tasks(corpus, out, 3)
    shard = out / work.task_folder(1) / "train.bin"
    good = shard.read_bytes()
    shard.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(ValueError, match=r"task-00001/train\.bin was changed or damaged .* run its task again"):
        merge(out)
    shutil.rmtree(shard.parent)
    tasks(corpus, out, 3)
    merge(out)
    run(corpus, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
    plan = out / "x" / ".partial" / "plan.json"
    tasks(corpus, out / "x", 3, [0])
    plan.write_text(plan.read_text().replace("a.jsonl", "b.jsonl"))
    with pytest.raises(ValueError, match=r"plan\.json is damaged"):
        tasks(corpus, out / "x", 3, [1])


def test_the_commands(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(corpus, tmp_path / "whole")
    out, command = tmp_path / "out", ["prepare", str(corpus), "--tokenizer", "char", "--tasks", "2"]
    assert main([*command]) == 2
    assert "--tasks needs --out" in capsys.readouterr().err
    command += ["--out", str(out)]
    assert main([*command, "--task", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 1
    assert main([*command, "--task", "0"]) == 0
    assert "2 of 2 are done; merge them: understudy prepare --merge" in capsys.readouterr().err
    assert main(["prepare", "--merge", str(out), "--seed", "1"]) == 2
    assert "--seed does nothing with --merge" in capsys.readouterr().err
    assert main(["prepare", "--merge", str(out)]) == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert main([*command, "--task", "0", "--executor", "ray"]) == 2
    assert main(["prepare", str(corpus), "--executor", "ray"]) == 2
    assert "does nothing without --tasks" in capsys.readouterr().err


# Object stores. memory:// is one of fsspec's, within this process.


@pytest.fixture
def bucket() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    yield "memory://bucket"
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def in_store(url: str) -> dict[str, bytes]:
    top = Store(url)
    return {name: top.read(name) or b"" for name in top.names("")}


def test_prepared_into_a_store_by_one_process_and_by_tasks(
    corpus: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(corpus, tmp_path / "whole")
    summary = prepare([str(corpus)], f"{bucket}/one", "char")
    assert summary.status == "prepared" and str(summary).startswith("memory://bucket/one: prepared")
    assert prepare([str(corpus)], f"{bucket}/one", "char").status == "already prepared"
    with pytest.raises(ValueError, match="prepared otherwise"):
        prepare([str(corpus)], f"{bucket}/one", "char", limit=3)
    tasks(corpus, f"{bucket}/many", 3, [2, 0], cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"1 of 3 tasks .* \(1\)"):
        merge(f"{bucket}/many", tmp_path / "cache")
    tasks(corpus, f"{bucket}/many", 3, [1, 2], cache=tmp_path / "another machine")
    merge(f"{bucket}/many", tmp_path / "a third machine")
    assert in_store(f"{bucket}/one") == in_store(f"{bucket}/many") == contents(tmp_path / "whole")


def test_sources_in_a_store(corpus: Path, tmp_path: Path, bucket: str) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(corpus) + "/", "/bucket/corpus/", recursive=True)
    filesystem.pipe_file("/bucket/corpus/.hidden", b"x")
    summary = prepare(["memory://bucket/corpus"], tmp_path / "out", "char")
    run(corpus, tmp_path / "whole")
    for split in ("train", "val"):
        np.testing.assert_array_equal(
            open_split(tmp_path / "out", split).tokens, open_split(tmp_path / "whole", split).tokens
        )
    parts = summary.manifest.sources[0]["parts"]
    assert [part["name"] for part in parts] == [
        f"memory://bucket/corpus/{name}" for name in ("a.jsonl", "b.jsonl.gz", "c.txt", "d.png")
    ]
    (tmp_path / "held-out.txt").write_text("Held out.")
    held = prepare(["memory://bucket/corpus"], tmp_path / "held", "char", validation=[str(tmp_path / "held-out.txt")])
    tokens = open_split(tmp_path / "held", "val").tokens
    assert load_tokenizer(tmp_path / "held").decode(tokens.tolist()).startswith("Held out.")
    assert held.manifest.splits["val"].documents == 1, "all of the source is training text"
    with pytest.raises(ValueError, match="holds no files"):
        prepare(["memory://bucket/nothing"], tmp_path / "no", "char")
    with pytest.raises(ValueError, match="can be a source of text, not of conversations"):
        main_error(["prepare", "memory://bucket/corpus", "--kind", "conversations", "--out", str(tmp_path / "c")])


def main_error(command: list[str]) -> None:
    from understudy.cli import parse

    arguments = parse(command)
    arguments.command(arguments)


def test_a_store_that_fails_keeps_finished_work(
    corpus: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(corpus) + "/", "/bucket/corpus/", recursive=True)
    run_settings = {"tokenizer": "bpe", "vocab_size": 300}
    prepare(["memory://bucket/corpus"], tmp_path / "whole", **run_settings)
    opened = type(filesystem)._open

    def away(self: Any, path: str, *arguments: Any, **settings: Any) -> Any:
        if path.endswith("b.jsonl.gz") and (tmp_path / "out" / ".partial").exists():
            raise ConnectionError("no route to host")
        return opened(self, path, *arguments, **settings)

    monkeypatch.setattr(type(filesystem), "_open", away)
    with pytest.raises(UnavailableError, match=r"memory://bucket/corpus/b\.jsonl\.gz could not be used"):
        prepare(["memory://bucket/corpus"], tmp_path / "out", **run_settings)
    monkeypatch.setattr(type(filesystem), "_open", opened)
    assert prepare(["memory://bucket/corpus"], tmp_path / "out", **run_settings).status == "continued"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_training_data_are_fetched_once_and_checked(
    corpus: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, tmp_path / "whole")
    for name, content in contents(tmp_path / "whole").items():
        Store(f"{bucket}/data").write(name, content)
    folder = data_folder(f"{bucket}/data", tmp_path / "cache")
    np.testing.assert_array_equal(open_split(folder, "train").tokens, open_split(tmp_path / "whole", "train").tokens)
    fetched: list[str] = []
    download = store.Store.download
    monkeypatch.setattr(
        store.Store, "download", lambda self, name, file: (fetched.append(name), download(self, name, file))
    )
    data_folder(f"{bucket}/data", tmp_path / "cache")
    assert fetched == ["manifest.json"]
    Store(f"{bucket}/data").write("val.bin", b"\0\0")
    with pytest.raises(ValueError, match=r"val\.bin has the SHA-256 .* prepare the data again"):
        data_folder(f"{bucket}/data", tmp_path / "other")
    with pytest.raises(ValueError, match="no data at memory://bucket/nothing"):
        data_folder("memory://bucket/nothing", tmp_path / "cache")


def test_unknown_stores(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is in no store that can be used"):
        Store("nosuch://x/y")
