"""Several processes of this machine that train together, without `torchrun`.

They run the same command, and find each other by the variables that `torchrun` sets. On a CPU two processes with one thread
each train a small model faster than one process with two threads, which wait for each other at every operation.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

GRACE = 60.0
"""Seconds that the other processes get to end by themselves after one has failed."""
OK, INTERRUPTED = 0, 130


def start_together(count: int, words: Sequence[str], threads: int) -> int:
    """Run `understudy WORDS` in ``count`` processes, and wait for them. Only the first one prints, unless another fails.

    A signal to end is passed on; the processes then save their state.

    Args:
        threads: computing threads, which the processes share out.

    Returns:
        The exit status: that of the first process that failed, if one did.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    group = os.environ | {
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(max(1, threads // count)),
    }  # fmt: skip
    command = [sys.executable, "-m", "understudy", *words]
    with tempfile.TemporaryFile() as silent:
        processes = []
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:  # a terminal sends SIGINT to all of them
            signal.signal(number, lambda got, _: got == signal.SIGTERM and _end(processes))
        try:
            for rank in range(count):
                output = {} if rank == 0 else {"stdout": silent, "stderr": silent}
                ranked = group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                processes.append(subprocess.Popen(command, env=ranked, **output))
            status = _wait(processes)
        finally:
            for process in processes:
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        if status not in (OK, INTERRUPTED) and (processes[0].returncode <= 0 or processes[0].returncode == INTERRUPTED):
            _show(silent)  # the first one did not fail by itself
    return status


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all processes; those that go on long after one has failed are ended. Returns the first failure's status."""
    status, deadline = OK, float("inf")
    while None in [process.poll() for process in processes]:
        failed = [process.returncode for process in processes if process.returncode]
        if failed and status == OK:
            status, deadline = failed[0], time.monotonic() + GRACE
        if time.monotonic() > deadline:
            _end(processes)
            deadline += GRACE
        time.sleep(0.05)
    status = status or next((process.returncode for process in processes if process.returncode), OK)
    return status if status >= 0 else 1  # ended by a signal


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()


def _show(output: IO[bytes]) -> None:
    """Print what the processes that should not print have printed."""
    output.seek(0)
    sys.stderr.write(output.read()[-4000:].decode("utf-8", "replace"))
