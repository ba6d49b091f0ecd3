"""The command `serve`: the OpenAI-compatible API and the playground, with feedback."""

from __future__ import annotations

import argparse
from pathlib import Path

from understudy.commands import Arguments, check_least, shared_arguments

WEIGHTS = ("fp32", "fp16", "bf16", "int8")


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    shared_arguments(parser, "run", nargs="+")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: %(default)s)")
    add("--port", type=int, default=8000, metavar="N", help="default %(default)s; 0 takes a free one")
    add("--api-key-file", type=Path, metavar="FILE", help="a file with the key that requests must have")
    add("--api-key", metavar="KEY", help="the key itself; others on this machine can see it")
    add(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a host name that a proxy passes on; may be repeated",
    )  # fmt: skip
    shared_arguments(parser, "--checkpoint", "--device")
    add("--weights", choices=WEIGHTS, help="precision of the weights (default: fp32 on a CPU, bf16 on a GPU)")
    add("--max-rows", type=int, default=8, metavar="N", help="answers generated at once (default: 8)")
    add("--queue", type=int, default=64, metavar="N", help="requests that may wait (default: 64)")
    add("--max-body", type=int, metavar="BYTES", help="largest body of a request (default: 1 MiB)")
    add("--max-prompt", type=int, metavar="TOKENS", help="longest prompt (default: the model's context)")
    add("--max-tokens", type=int, metavar="TOKENS", help="longest answer (default: the model's context)")
    add("--timeout", type=float, metavar="SECONDS", help="for one answer (default: 120)")
    add(
        "--feedback", metavar="URL",
        help="where answers and judgements are kept: sqlite:///PATH, postgresql://..., or none (default: "
        "sqlite:///runs/feedback.db)",
    )  # fmt: skip
    add("--no-ui", action="store_true", help="serve the API without the playground")
    add("--open", action="store_true", help="open the playground in a browser")


def serve(arguments: Arguments) -> None:
    check_least(1, max_rows=arguments.max_rows, queue=arguments.queue, max_body=arguments.max_body)
    check_least(1, max_prompt=arguments.max_prompt, max_tokens=arguments.max_tokens)
    if not 0 <= arguments.port <= 65535:
        raise ValueError(f"--port is {arguments.port}; give a number from 0 to 65535")
    if arguments.timeout is not None and not 0 < arguments.timeout < float("inf"):
        raise ValueError(f"--timeout is {arguments.timeout}; give a number of seconds above 0")
    if arguments.open and arguments.no_ui:
        raise ValueError("--open needs the playground, which --no-ui turns off; leave out one of them")
    key = _key(arguments)

    from understudy.feedback.store import default_url
    from understudy.serve.served import Limits
    from understudy.serve.server import ServeOptions
    from understudy.serve.server import serve as start

    given = {
        "body_bytes": arguments.max_body, "prompt_tokens": arguments.max_prompt,
        "max_tokens": arguments.max_tokens, "seconds": arguments.timeout,
    }  # fmt: skip
    feedback = None if arguments.feedback == "none" else arguments.feedback or default_url()
    start(ServeOptions(
        arguments.run, arguments.host, arguments.port, key, arguments.allow_host, arguments.checkpoint,
        arguments.device, arguments.weights, arguments.max_rows, arguments.queue,
        Limits(**{name: value for name, value in given.items() if value is not None}), feedback,
        not arguments.no_ui, arguments.open,
    ))  # fmt: skip


def _key(arguments: Arguments) -> str | None:
    if arguments.api_key is not None and arguments.api_key_file is not None:
        raise ValueError("--api-key and --api-key-file both give a key; leave out one of them")
    key: str | None = arguments.api_key
    if arguments.api_key_file is not None:
        try:
            key = arguments.api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise ValueError(f"the key's file {arguments.api_key_file} cannot be read ({error})") from None
    if key is not None and (not key or not all("!" <= char <= "~" for char in key)):
        raise ValueError("the key is empty or has a character that no header can carry; use letters, digits, - and _")
    return key
