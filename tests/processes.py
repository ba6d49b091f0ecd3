"""Programs in processes of their own, forked from one that has imported PyTorch: starting one takes no seconds.

Where the start or the end of Python is what is tested, tests start it anew by subprocess.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PRELOADED = ["torch", "torch._dynamo", "understudy.stages.table", "understudy.commands.training", "processes"]


class Forked:
    """A running `python WORDS`: its arguments are `-m MODULE ...`, `-c CODE ...` or `FILE ...`.

    Args:
        environment: further variables. With another PYTHONPATH the modules of our package are imported anew from there.
    """

    def __init__(self, words: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            context.set_forkserver_preload(PRELOADED)
        self.words, self.output = words, Path(tempfile.mkdtemp(prefix="forked-"))
        everything = dict(os.environ) | dict(environment or {})
        anew = everything.get("PYTHONPATH", "") != os.environ.get("PYTHONPATH", "")
        self.process = context.Process(target=_run, args=(words, str(folder), everything, str(self.output), anew))
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def printed(self, name: str = "out") -> str:
        """What it has printed so far, to standard output or as `err` to standard error."""
        path = self.output / name
        return path.read_text(errors="replace") if path.exists() else ""

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """The exit status and what was printed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.send_signal(signal.SIGKILL)
            self.process.join()
        done = subprocess.CompletedProcess(self.words, self.process.exitcode or 0, self.printed(), self.printed("err"))
        shutil.rmtree(self.output)
        return done


def run_python(
    words: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return Forked(words, folder, environment).wait()


def run_two(words: list[str], folder: Path) -> None:
    """Run a program in two processes of one group, as `torchrun` does; both have to succeed."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [Forked(words, folder, group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in (0, 1)]
    ended = [process.wait() for process in both]  # one that failed leaves the other waiting without a word
    shown = "\n".join(
        f"process {rank} ended with {done.returncode}: {done.stderr[-4000:]}" for rank, done in enumerate(ended)
    )
    assert all(done.returncode == 0 for done in ended), shown


def free_port() -> int:
    """A port that stays free until a process listens on it: no system gives those below 32768 to others by itself."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _run(words: list[str], folder: str, environment: dict[str, str], output: str, anew: bool) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    import torch

    torch.set_num_threads(1)
    if anew:
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
        for name in [name for name in sys.modules if name.partition(".")[0] == "understudy"]:
            del sys.modules[name]
    sys.argv = words[1:] if words[0] in ("-m", "-c") else words
    if words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
