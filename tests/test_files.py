"""Files and the terminal: atomic writes, output paths, and control characters."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from align_runs import saved_run
from understudy import files
from understudy.cli import main
from understudy.config.model import ModelConfig
from understudy.files import check_output_path, write_bytes
from understudy.model import Bigram
from understudy.tokenizer import train_tokenizer


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, barrier, problems = tmp_path / "result.json", threading.Barrier(2), []
    monkeypatch.setattr(files, "flush", lambda partial: barrier.wait(20))  # both have written, none has renamed

    def write(content: bytes) -> None:
        try:
            write_bytes(path, content)
        except OSError as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(content * 1000,)) for content in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and path.read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(partial: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a", b"content")
    assert not list(tmp_path.iterdir())


def test_outputs_replace_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("new", "file", "new/deeper"):
        check_output_path(tmp_path / name)
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(ValueError, match=f"{path} is no regular file; choose"):
            check_output_path(path)


@pytest.mark.parametrize("num", ["1", "2"])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_sample_writes_no_control_characters_to_a_terminal(
    terminal: bool, num: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = train_tokenizer("char", ["\x1b[2J"])
    shape: dict[str, Any] = {"family": "bigram", "context_length": 8, "vocab_size": tokenizer.vocab_size}
    run = saved_run(tmp_path / "run", Bigram(ModelConfig(**shape)), tokenizer, "pretrain")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert main(["sample", str(run.path), "--prompt", "\x1b", "--tokens", "60", "--seed", "1", "--num", num]) == 0
    out = capsys.readouterr().out
    assert ("\x1b" in out) != terminal and ("\N{REPLACEMENT CHARACTER}" in out) == terminal
