"""`prepare` interrupted in every way and run again: no byte of the result is another for it."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_corpus import contents, corpus, documents, run, small_batches, story
from processes import run_python
from understudy.data.fetch.download import UnavailableError
from understudy.data.progress import PreparationProgress
from understudy.data.text import encoding, plan
from understudy.data.text.shards import open_split
from understudy.tokenizer import load_tokenizer

__all__ = ["corpus", "small_batches"]  # fixtures


KILLED = """
import os, signal, sys
from pathlib import Path
from understudy.data.text import encoding
from understudy.data.text.prepare import prepare
encoding.BATCH_CHARS, encoding.JOURNAL_BYTES = 700, 2000
left = int(sys.argv[3])
def report(progress):
    global left
    left -= progress.stage == "encoding"
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
print(prepare([sys.argv[1]], Path(sys.argv[2]), tokenizer="bpe", vocab_size=300, report=report).status)
"""


def test_killed_and_continued_to_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "whole", tokenizer="bpe", vocab_size=300)

    def killed_after(batches: int) -> subprocess.CompletedProcess[str]:
        return run_python(["-c", KILLED, str(corpus), str(tmp_path / "out"), str(batches)], tmp_path)

    journal = tmp_path / "out" / ".partial" / "progress.json"
    assert killed_after(2).returncode == -signal.SIGKILL
    assert not journal.exists(), "it begins anew"
    assert killed_after(10).returncode == -signal.SIGKILL
    first = json.loads(journal.read_text())
    assert first["part"] == 0 and first["items"] > 0, "it goes on inside the first file"
    assert killed_after(20).returncode == -signal.SIGKILL
    second = json.loads(journal.read_text())
    assert (second["part"], second["items"]) > (first["part"], first["items"])
    with pytest.raises(ValueError, match="is not finished: run the same prepare command again"):
        open_split(tmp_path / "out", "train")
    done = killed_after(10**6)
    assert (done.returncode, done.stdout.strip()) == (0, "continued")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_interrupted_at_every_batch(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "whole")
    calls = 0

    def interrupt(progress: PreparationProgress) -> None:
        nonlocal calls
        calls += progress.stage == "encoding"
        if calls > 3 * interruptions:
            raise KeyboardInterrupt

    interruptions = 1
    while True:
        calls = 0
        try:
            assert run(corpus, tmp_path / "out", report=interrupt).status == "continued"
            break
        except KeyboardInterrupt:
            interruptions += 1
            assert interruptions < 100
    assert interruptions > 5
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_interrupted_within_one_long_text(tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("".join(story(i) for i in range(300)), "utf-8")
    run(text, tmp_path / "whole", piece_chars=333)
    first = True

    def interrupt(progress: PreparationProgress) -> None:
        nonlocal first
        if progress.stage == "encoding" and progress.done > 10_000 and first:
            first = False
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(text, tmp_path / "out", report=interrupt, piece_chars=333)
    assert run(text, tmp_path / "out", piece_chars=333).status == "continued"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    tokenizer = load_tokenizer(tmp_path / "out")
    decoded = [tokenizer.decode(open_split(tmp_path / "out", split).tokens) for split in ("train", "val")]
    assert "".join(decoded) == text.read_text("utf-8")


def test_a_full_disk_keeps_finished_work(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(corpus, tmp_path / "whole")
    append = encoding.TokenWriter._append
    written = 0

    def full(self: encoding.TokenWriter, split: str, ids: np.ndarray) -> None:
        nonlocal written
        written += len(ids)
        if written > 5000:
            self.files[split].write(b"half of a block")
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, split, ids)

    monkeypatch.setattr(encoding.TokenWriter, "_append", full)
    with pytest.raises(UnavailableError, match=r"the disk is full: .* run the same command again"):
        run(corpus, tmp_path / "out")
    monkeypatch.setattr(encoding.TokenWriter, "_append", append)
    assert run(corpus, tmp_path / "out").status == "continued"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_lost_network_keeps_finished_work(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(corpus, tmp_path / "whole", tokenizer="bpe", vocab_size=300)
    read_file = plan.read_file

    def away(path: Path, *arguments: Any) -> Any:
        if path.name == "b.jsonl.gz" and (tmp_path / "out" / ".partial").exists():
            raise UnavailableError("the hub could not be reached")
        return read_file(path, *arguments)

    monkeypatch.setattr(plan, "read_file", away)
    with pytest.raises(UnavailableError):
        run(corpus, tmp_path / "out", tokenizer="bpe", vocab_size=300)
    monkeypatch.setattr(plan, "read_file", read_file)
    assert run(corpus, tmp_path / "out", tokenizer="bpe", vocab_size=300).status == "continued"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("renamed", [0, 1, 3])
def test_killed_between_the_last_renames(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    run(corpus, tmp_path / "whole")
    run(corpus, tmp_path / "out", tokenizer="bpe", vocab_size=300)
    replace, moves = Path.replace, 0

    def stop(self: Path, target: Path) -> Path:
        nonlocal moves
        if self.parent.name == ".partial" and target.parent == tmp_path / "out":
            if moves == renamed:
                raise KeyboardInterrupt
            moves += 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out", force=True)
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(ValueError, match="is not finished"):
        open_split(tmp_path / "out", "train")
    assert run(corpus, tmp_path / "out", force=True).status == "continued"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_same_request_again_does_nothing_and_another_is_refused(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(corpus, out)
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    moved = corpus.rename(tmp_path / "moved")
    assert run(moved, out, workers=3).status == "already prepared", "neither paths nor workers count"
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    with pytest.raises(ValueError, match=r"prepared otherwise \(other val_fraction, limit\): .*--force"):
        run(moved, out, val_fraction=0.2, limit=200)
    (moved / "c.txt").write_text("something else", "utf-8")
    with pytest.raises(ValueError, match=r"\(other sources\)"):
        run(moved, out)
    assert run(moved, out, force=True).status == "prepared"
    assert "something else" in documents(out, "train") + documents(out, "val")


def test_an_unfinished_folder_is_kept_for_its_own_request(corpus: Path, tmp_path: Path) -> None:
    def interrupt(progress: PreparationProgress) -> None:
        if progress.stage == "encoding" and progress.tokens > 3000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out", report=interrupt)
    with pytest.raises(ValueError, match=r"unfinished preparation of another kind \(other limit\)"):
        run(corpus, tmp_path / "out", limit=200)
    assert run(corpus, tmp_path / "out", limit=200, force=True).status == "prepared"
    assert contents(tmp_path / "out")


def test_tokens_that_vanished_from_an_unfinished_folder(corpus: Path, tmp_path: Path) -> None:
    def interrupt(progress: PreparationProgress) -> None:
        if progress.tokens > 30_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out", report=interrupt)
    (tmp_path / "out" / ".partial" / "train.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train\.bin lost bytes since it was written"):
        run(corpus, tmp_path / "out")
    assert run(corpus, tmp_path / "out").status == "prepared"
