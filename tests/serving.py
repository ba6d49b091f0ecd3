"""Servers for tests: tiny runs with random weights, on a free port, in this process or another."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import uvicorn
from openai import OpenAI

from align_runs import saved_run
from understudy.config.model import ModelConfig
from understudy.inference.batching import BatchEngine
from understudy.inference.requests import Completion, CompletionChunk, FinishReason, SequenceRequest
from understudy.model import GPT
from understudy.run import Run
from understudy.serve.api import build_app
from understudy.serve.connections import server_config
from understudy.serve.served import Served, ServedRun
from understudy.tokenizer import Tokenizer, train_tokenizer
from understudy.tokenizer.chat import with_chat_tokens

TEXT = "Sam found the purse at the school. Who found the purse? assistant\nuser\nsystem\n"


def small_tokenizer(chat: bool = True) -> Tokenizer:
    tokenizer = train_tokenizer("bpe", [TEXT * 4], vocab_size=290).with_special_tokens(["<|endoftext|>"])
    return with_chat_tokens(tokenizer) if chat else tokenizer


def make_run(
    path: Path,
    chat: bool = True,
    stage: str = "",
    seed: int = 0,
    context_length: int = 128,
    padding: int = 0,
    **more: Any,
) -> Run:
    """The folder of a run with random weights, its vocabulary padded by some ids that the tokenizer lacks; ``more`` fields of
    its model's configuration."""
    tokenizer = small_tokenizer(chat)
    shape = {
        "family": "qwen3", "context_length": context_length, "n_layers": 1, "n_heads": 2, "d_model": 16,
        "vocab_size": tokenizer.vocab_size + padding,
    } | more  # fmt: skip
    torch.manual_seed(seed)
    model = GPT(ModelConfig(**shape))  # type: ignore[arg-type]
    return saved_run(path, model, tokenizer, stage or ("sft" if chat else "pretrain"))


def complete(engine: BatchEngine, request: SequenceRequest) -> Completion:
    """Submit one request and wait for its completion."""
    ended, reasons = threading.Event(), list[FinishReason]()

    def on_chunk(chunk: CompletionChunk) -> None:
        if chunk.finish_reason is not None:
            reasons.append(chunk.finish_reason)
            ended.set()

    handle = engine.submit(request, on_chunk)
    ended.wait()
    return dataclasses.replace(handle.completion(), finish_reason=reasons[0])


def served_run(run: Run, seconds_per_step: float = 0.0, **engine: Any) -> ServedRun:
    """A run with an engine, not started, whose steps can be slowed down."""
    model: Any = run.model
    if seconds_per_step:
        logits = model.logits

        def slowly(hidden: torch.Tensor) -> torch.Tensor:
            time.sleep(seconds_per_step)
            return logits(hidden)

        model.logits = slowly
    return ServedRun(
        run.path.name, run.step, run.state["weights_sha256"], run.tokenizer, model.config.context_length,
        BatchEngine(model, run.tokenizer, **engine), model,
    )  # fmt: skip


class Quiet(uvicorn.Server):
    """Leaves the signals of the test's process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def serving(served: Served, pages: bool = False) -> Iterator[str]:
    """A server in a thread, with the playground where ``pages`` are wanted; gives its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = build_app(served)
    if pages:
        from understudy.serve.playground.page import mount

        mount(app, served)
    server = Quiet(server_config(app, dataclasses.replace(served.limits, seconds=0)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    with contextlib.ExitStack() as engines:
        for run in served.runs.values():
            engines.enter_context(run.engine)
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def client(url: str, key: str = "none", **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=300, **options)


def wait_until(true: Any, seconds: float = 300) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.02)


@contextlib.contextmanager
def command(
    *words: str, folder: Path, open_files: int | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`understudy serve` in another process, which may open ``open_files``; yields the process and the URL."""
    limit = [] if open_files is None else ["bash", "-c", f'ulimit -n {open_files}; exec "$@"', "bash"]
    process = subprocess.Popen(
        [*limit, sys.executable, "-m", "understudy", "serve", *words], cwd=folder, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        output = ""
        while not (match := re.search(r"(http://\S+)/v1", output)):
            line = process.stderr.readline()
            assert line, f"it ended: {output}"
            output += line
        yield process, match[1]
    finally:
        process.kill()
        process.wait()


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def raw(url: str, request: bytes, seconds: float = 120) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; the status, headers and body of the response."""
    with socket.create_connection(address_of(url), timeout=seconds) as connection:
        connection.sendall(request)
        response = b""
        while chunk := connection.recv(65536):
            response += chunk
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


def post(
    url: str, path: str, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """POST JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Host": url.removeprefix("http://"), "Content-Type": "application/json", "Connection": "close"}
    given |= {"Content-Length": str(len(data))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    status, response_headers, content = raw(url, f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data)
    return status, response_headers, json.loads(content)


def get(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    given = {"Host": url.removeprefix("http://"), "Connection": "close"} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return raw(url, f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
