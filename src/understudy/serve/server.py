"""Starting and stopping a server: runs and their engines, the socket, signals, draining.

At the first SIGINT or SIGTERM the socket closes, what is being answered or waits is answered to its end, pages that only
listen are let go, and the program ends with status 0; at the second what is left is given up. Not here: routes
(api.py), the options (commands/serving.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import socket
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI

from understudy.commands import refuse_reward_model
from understudy.inference.batching import BatchEngine
from understudy.inference.quantize import prepare_for_inference
from understudy.run import RunFolder, load_run
from understudy.runtime import choose_device, choose_dtype
from understudy.serve.api import build_app
from understudy.serve.feedback import FeedbackStore
from understudy.serve.served import LOOPBACK_NAMES, Limits, Served, ServedRun

SILENT_SECONDS = 30
"""How long a connection may leave what was sent unread before the kernel closes it, where it can."""


@dataclass(frozen=True)
class ServeOptions:
    """What `understudy serve` was told."""

    runs: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    allowed_hosts: Sequence[str] = ()
    """Names beside loopback's that a proxy passes on."""
    checkpoint: str = "best"
    device: str = "auto"
    weights: str = "fp32"
    max_rows: int = 8
    queue_limit: int = 64
    limits: Limits = field(default_factory=Limits)
    feedback: str | None = None
    """The URL of the store's database; None keeps nothing."""
    ui: bool = True
    open_browser: bool = False


def serve(options: ServeOptions) -> None:
    """Serve until a signal, then drain.

    Raises:
        ValueError: an address without the key it needs, a run that cannot be served, a port that is taken.
    """
    hosts = check_reachability(options)
    listening = bind(options.host, options.port)
    with contextlib.ExitStack() as stack:
        stack.callback(listening.close)
        store = stack.enter_context(FeedbackStore(options.feedback)) if options.feedback else None
        runs = load_runs(options)
        served = Served(runs, store, options.key, options.limits, hosts)
        app = build_app(served)
        address = url_of(options.host, listening.getsockname()[1])
        pages = options.ui and mount_playground(app, served)
        for run in runs.values():
            stack.enter_context(run.engine)
        server = Server(uvicorn.Config(
            app, log_level="warning", access_log=False, ws="none", server_header=False, lifespan="on",
            proxy_headers=False, timeout_keep_alive=30, timeout_graceful_shutdown=int(options.limits.seconds) + 5,
        ), served, address, pages, options.open_browser)  # fmt: skip
        server.run(sockets=[listening])
        for run in runs.values():
            run.engine.close(drain=not server.force_exit)


def check_reachability(options: ServeOptions) -> frozenset[str] | None:
    """The names that requests may call the server by, None for any.

    Raises:
        ValueError: others than this machine could reach it, and there is no key.
    """
    local = is_loopback(options.host)
    if options.key is None and not (local and not options.allowed_hosts):
        where = f"--host {options.host}" if not local else f"--allow-host {options.allowed_hosts[0]}"
        raise ValueError(
            f"{where} lets other machines in, and there is no key; give one with --api-key-file FILE, or serve on 127.0.0.1"
        )
    if not local:
        return None
    return LOOPBACK_NAMES | {options.host.lower()} | {name.lower() for name in options.allowed_hosts}


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; a name is only where it is `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound, not yet listening.

    Raises:
        ValueError: no such address, or a port that is taken or not allowed.
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
        raise ValueError(f"port {port} of {host} cannot be had ({error.strerror}); choose another --port") from None
    return listening


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def load_runs(options: ServeOptions) -> dict[str, ServedRun]:
    """The runs by the names of their folders, each with an engine that is not started.

    Raises:
        ValueError: a run that cannot be loaded or only gives scores; two of the same name.
    """
    runs: dict[str, ServedRun] = {}
    device, _ = choose_device(options.device)
    for name in options.runs:
        run = load_served_run(name, options, device)
        if run.name in runs:
            raise ValueError(f"two runs are called {run.name}; serve one of them, or rename a folder")
        runs[run.name] = run
    return runs


def load_served_run(name: str, options: ServeOptions, device: torch.device) -> ServedRun:
    run = load_run(name, options.checkpoint, str(device))
    refuse_reward_model(run)
    model, autocast = run.model, None
    if options.weights != "fp32":  # else the engine sees to it
        model = prepare_for_inference(run.model, options.weights, options.max_rows)
    if options.weights == "fp32" and device.type == "cuda" and (dtype := choose_dtype(device)[0]) != torch.float32:
        autocast = dtype
    engine = BatchEngine(
        model, run.tokenizer, max_rows=options.max_rows, queue_limit=options.queue_limit, autocast=autocast
    )
    changed = RunFolder(run.path).checkpoint(str(run.step)).stat().st_mtime
    return ServedRun(
        run.path.resolve().name, run.step, run.state["weights_sha256"], run.tokenizer,
        run.config.model.context_length, engine, run.model, autocast, int(changed),
    )  # fmt: skip


def mount_playground(app: FastAPI, served: Served) -> bool:
    """Put the playground on the app, where Gradio is installed; whether it is."""
    if importlib.util.find_spec("gradio") is None:
        say("there is no playground without Gradio; install it with `pip install 'understudy[ui]'`, or say --no-ui")
        return False
    from understudy.serve.playground import mount

    mount(app, served)
    return True


class Server(uvicorn.Server):
    """uvicorn's, which says when it is ready, and ends with status 0 after a signal instead of by that signal."""

    def __init__(self, config: uvicorn.Config, served: Served, address: str, pages: bool, open_browser: bool) -> None:
        super().__init__(config)
        self.served, self.address, self.pages, self.open_browser = served, address, pages, open_browser

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        say("no new requests are taken; what is being answered is answered to its end (once more: give it up)")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        names = ", ".join(f"{run.name} (step {run.step})" for run in self.served.runs.values())
        say(f"serving {names} at {self.address}/v1" + (f"; the playground is {self.address}/" if self.pages else ""))
        if self.open_browser:
            await asyncio.to_thread(webbrowser.open, self.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        letting_go = asyncio.create_task(self._let_pages_go())
        await super().shutdown(sockets)
        letting_go.cancel()

    async def _let_pages_go(self) -> None:
        """Close what an open page keeps open to hear of its server: it would wait for it, and the server for the page."""
        while any(stats.running + stats.waiting for stats in (r.engine.stats() for r in self.served.runs.values())):
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)  # for the last words to be sent
        for connection in list(self.server_state.connections):
            scope, transport = getattr(connection, "scope", None), getattr(connection, "transport", None)
            if transport is not None and not (scope or {}).get("path", "").startswith("/v1/"):
                transport.close()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
