"""Starting and stopping a server: runs and their engines, the socket, signals, draining.

At the first SIGINT or SIGTERM the socket closes, running and waiting requests are completed, event streams of open pages are
closed, and the program ends with status 0; at the second signal the remaining requests are cancelled. Not here: routes
(api.py), command-line options (commands/serving.py), limits on connections (connections.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

import uvicorn
from fastapi import FastAPI

from understudy.evaluation.compare import suggested_questions
from understudy.feedback.store import FeedbackStore
from understudy.inference.batching import BatchEngine
from understudy.inference.quantize import default_weights, prepare_for_inference
from understudy.run import RunFolder, load_run, refuse_reward_model
from understudy.runtime import choose_device
from understudy.serve.api import build_app
from understudy.serve.connections import server_config
from understudy.serve.served import LOOPBACK_NAMES, Limits, Served, ServedRun

SILENT_SECONDS = 30
"""Time a client may leave sent data unacknowledged before the kernel closes the connection (Linux)."""


@dataclass(frozen=True)
class ServeOptions:
    """Options of `understudy serve`."""

    runs: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    allowed_hosts: Sequence[str] = ()
    """Host names besides those of loopback, for a proxy."""
    checkpoint: str = "best"
    device: str = "auto"
    weights: str | None = None
    """fp32, fp16, bf16 or int8; None chooses by device (inference/quantize.py)."""
    max_rows: int = 8
    queue_limit: int = 64
    limits: Limits = field(default_factory=Limits)
    feedback: str | None = None
    """URL of the feedback database; None stores nothing."""
    ui: bool = True
    open_browser: bool = False


def serve(options: ServeOptions) -> None:
    """Serve until a signal, then drain.

    Raises:
        ValueError: a reachable address without a key, a run that cannot be served, a port in use.
    """
    hosts = check_reachability(options)
    listening = bind(options.host, options.port)
    with contextlib.ExitStack() as stack:
        stack.callback(listening.close)
        store = stack.enter_context(FeedbackStore(options.feedback)) if options.feedback else None
        runs = load_runs(options)
        served = Served(runs, store, options.key, options.limits, hosts)
        app = build_app(served)
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        pages = options.ui and mount_playground(app, served)
        for run in runs.values():
            stack.enter_context(run.engine)
        server = Server(server_config(app, options.limits), served, address, pages, options.open_browser)
        server.run(sockets=[listening])
        for run in runs.values():
            run.engine.close(drain=not server.force_exit)


def check_reachability(options: ServeOptions) -> frozenset[str] | None:
    """The host names that requests may use, None for any.

    Raises:
        ValueError: other machines could reach the server, and there is no key.
    """
    local = is_loopback(options.host)
    if options.key is None and not (local and not options.allowed_hosts):
        where = f"--host {options.host}" if not local else f"--allow-host {options.allowed_hosts[0]}"
        raise ValueError(
            f"{where} lets other machines reach the server, and there is no key; give one with --api-key-file FILE, or serve on 127.0.0.1"
        )
    if not local:
        return None
    return LOOPBACK_NAMES | {options.host.lower()} | {name.lower() for name in options.allowed_hosts}


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address; of names only `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet.

    Raises:
        ValueError: no such address, or a port in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ValueError(f"--host {host} is no address of this machine ({error})") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ValueError(f"port {port} of {host} cannot be used ({error.strerror}); choose another --port") from None
    return listening


def load_runs(options: ServeOptions) -> dict[str, ServedRun]:
    """The runs by folder name, each with an engine that is not started.

    Raises:
        ValueError: a run that cannot be loaded, a reward model, two runs of one name.
    """
    runs: dict[str, ServedRun] = {}
    device, _ = choose_device(options.device)
    for given in options.runs:
        run = load_run(given, options.checkpoint, str(device))
        refuse_reward_model(run)
        if (name := run.path.resolve().name) in runs:
            raise ValueError(f"two runs are called {name}; serve one of them, or rename a folder")
        model = prepare_for_inference(run.model, options.weights or default_weights(device), options.max_rows)
        engine = BatchEngine(model, run.tokenizer, max_rows=options.max_rows, queue_limit=options.queue_limit)
        changed = RunFolder(run.path).checkpoint(str(run.step)).stat().st_mtime
        runs[name] = ServedRun(
            name, run.step, run.state["weights_sha256"], run.tokenizer, run.config.model.context_length, engine,
            run.model if device.type == "cpu" else model, int(changed), suggested_questions(run.path),
        )  # fmt: skip
    return runs


def mount_playground(app: FastAPI, served: Served) -> bool:
    """Mount the playground, if Gradio is installed; returns whether it is."""
    try:
        from understudy.serve.playground.page import mount
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        say("the playground needs Gradio; install it with `pip install 'understudy[ui]'`, or use --no-ui")
        return False
    mount(app, served)
    return True


class Server(uvicorn.Server):
    """uvicorn's server; prints its address when it is ready, and ends with status 0 after a signal."""

    def __init__(self, config: uvicorn.Config, served: Served, address: str, pages: bool, open_browser: bool) -> None:
        super().__init__(config)
        self.served, self.address, self.pages, self.open_browser = served, address, pages, open_browser

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        say("accepting no new requests; waiting for the running ones (interrupt again to cancel them)")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        names = ", ".join(f"{run.name} (step {run.step})" for run in self.served.runs.values())
        say(f"serving {names} at {self.address}/v1" + (f"; the playground is {self.address}/" if self.pages else ""))
        if self.open_browser:
            await asyncio.to_thread(webbrowser.open, self.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.create_task(self._close_page_streams())
        await super().shutdown(sockets)
        closing.cancel()

    async def _close_page_streams(self) -> None:
        """Close the event streams of open pages once no request runs; the shutdown would wait for them."""
        while any(stats.running + stats.waiting for stats in (r.engine.stats() for r in self.served.runs.values())):
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)  # for the last chunks to be sent
        for connection in list(self.server_state.connections):
            scope, transport = getattr(connection, "scope", None), getattr(connection, "transport", None)
            if transport is not None and not (scope or {}).get("path", "").startswith("/v1/"):
                transport.close()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
