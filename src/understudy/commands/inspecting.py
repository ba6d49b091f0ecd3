"""The verb `inspect`: its options. masking.py shows conversations (--mask), looking.py a prompt (--prompt)."""

from __future__ import annotations

import argparse
from pathlib import Path

from understudy.commands import Arguments, check_least, shared_arguments

NARROWEST = 20


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    shared_arguments(parser, "run")
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--mask", action="store_true", help="show the first conversations, with trained tokens marked")
    view.add_argument(
        "--prompt", metavar="TEXT",
        help="show probabilities, logit lens and attention of this text; - reads standard input. An assistant also "
        "answers it greedily",
    )  # fmt: skip
    add(
        "--data", type=Path, metavar="PATH",
        help="with --mask: a folder or .jsonl file of conversations (default: the run's training data)",
    )  # fmt: skip
    add(
        "--num", type=int, metavar="N",
        help="number of conversations or tokens to show (default: 3 conversations, 16 tokens)",
    )  # fmt: skip
    add("--width", type=int, metavar="N", help="columns of the text (default: the terminal's)")
    looking = parser.add_argument_group("with --prompt").add_argument
    looking("--plain", action="store_true", help="continue the prompt as text, also with an assistant")
    looking("--system", metavar="TEXT", help="a system message before the prompt")
    looking(
        "--tokens", type=int, metavar="N",
        help="maximum length of the greedy continuation (default: 60 for an assistant, else 0)",
    )  # fmt: skip
    looking("--at", type=int, metavar="N", help="show the attention at the position that predicts token N")
    looking("--out", type=Path, metavar="FILE", help="save a picture (.png)")
    shared_arguments(parser, "--checkpoint", "--device", "--json")


def inspect(arguments: Arguments) -> None:
    check_least(NARROWEST, width=arguments.width)
    check_least(1, num=arguments.num)
    if arguments.prompt is not None:
        from understudy.commands.looking import inspect_prompt

        if arguments.data is not None:
            raise ValueError("--data is for --mask; with --prompt, leave it out")
        inspect_prompt(arguments)
    elif arguments.mask:
        for name in ("plain", "system", "tokens", "at", "out"):
            if getattr(arguments, name) not in (None, False):
                raise ValueError(f"--{name} is for --prompt; with --mask, leave it out")
        from understudy.commands.masking import inspect_mask

        inspect_mask(arguments)
    else:
        raise ValueError(
            "add --mask to see which tokens of conversations are trained on, or --prompt TEXT to see how the model reads "
            "a text"
        )
