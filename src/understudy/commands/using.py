"""Verbs that use a trained run: evaluate, sample, report."""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path

from understudy.commands import Arguments, print_json


def run_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    parser.add_argument("run", nargs="+" if several else None, metavar="RUN", help="a name under runs/, or a path")


def model_arguments(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), latest, or a step")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument("--data", metavar="PATH", help="another data folder than the one trained on")
    parser.add_argument("--split", default="val", choices=("train", "val"), help="which split (default: val)")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="length of the windows (default: the model's)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="windows in one forward")


def evaluate(arguments: Arguments) -> None:
    from understudy.data.shards import open_split
    from understudy.evaluate.loss import evaluate_loss
    from understudy.run import RunFolder, load_run
    from understudy.runtime import start_runtime
    from understudy.train.metrics import final_table
    from understudy.train.stages import save_evaluation

    run = load_run(arguments.run, arguments.checkpoint)
    limit = run.config.model.context_length
    context = limit if arguments.context is None else arguments.context
    if not 1 <= context <= limit:
        raise ValueError(f"--context is {context}; the model reads 1 to {limit} tokens")
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size is {arguments.batch_size}; a number from 1 is wanted")
    data = open_split(Path(arguments.data or run.config.data.path), arguments.split, run.config.model.vocab_size)
    if data.tokenizer_sha256 not in (None, run.tokenizer.sha256):
        raise ValueError(f"the data in {data.path} was prepared with another tokenizer than the run {run.path} has")
    with start_runtime(arguments.device) as runtime:
        result = evaluate_loss(
            run.model.to(runtime.device), data.tokens, context, arguments.batch_size, runtime, data.bytes
        )
    about = {"run": str(run.path), "step": run.step, "split": arguments.split, "context_length": context}
    if arguments.data is None and arguments.split == "val" and context == limit:
        save_evaluation(RunFolder(run.path), result, str(run.step))
    if arguments.json:
        print_json(about | result.as_dict())
        return
    rows = {name.replace("_", " "): str(value) for name, value in about.items()} | {
        "loss": f"{result.loss:.4f} (95% interval {result.loss_low:.4f} to {result.loss_high:.4f})",
        "perplexity": f"{result.perplexity:.3f}",
        "tokens": f"{result.tokens:,}",
    }
    if result.bits_per_byte is not None:
        low, high = result.bits_per_byte_low, result.bits_per_byte_high
        rows["bits per byte"] = f"{result.bits_per_byte:.4f} (95% interval {low:.4f} to {high:.4f})"
    final_table(rows)


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument("--prompt", default="\n", metavar="TEXT", help="what to continue; - reads standard input")
    parser.add_argument("--num", type=int, default=1, metavar="N", help="how many continuations")
    parser.add_argument("--tokens", type=int, default=300, metavar="N", help="at most so many new tokens")
    parser.add_argument(
        "--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest (default 0.8)"
    )
    parser.add_argument("--top-k", type=int, metavar="N", help="choose among the N likeliest")
    parser.add_argument(
        "--top-p", type=float, metavar="X", help="choose among the likeliest that hold X of the probability"
    )
    parser.add_argument(
        "--min-p", type=float, metavar="X", help="leave out tokens under X of the likeliest one's probability"
    )
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="over 1 discourages repetition"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")


def sample(arguments: Arguments) -> None:
    from understudy.inference.engine import generate_text, stream_text
    from understudy.inference.sampling import SamplingSettings
    from understudy.run import load_run
    from understudy.runtime import choose_device

    if arguments.num < 1 or arguments.tokens < 1:
        raise ValueError("--num and --tokens want a number from 1")
    settings = SamplingSettings(
        temperature=arguments.temperature, top_k=arguments.top_k, top_p=arguments.top_p, min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty, seed=arguments.seed,
    )  # fmt: skip
    device, _ = choose_device(arguments.device)
    run = load_run(arguments.run, arguments.checkpoint, str(device))
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if arguments.num == 1 and not arguments.json:
        pieces = stream_text(run.model, run.tokenizer, prompt, arguments.tokens, settings, arguments.stop)
        for piece in chain([prompt + next(pieces, "")], pieces):  # a prompt that cannot be read is refused unsaid
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = generate_text(
        run.model, run.tokenizer, [prompt] * arguments.num, arguments.tokens, settings, arguments.stop
    )
    if arguments.json:
        samples = [{"text": t.text, "tokens": len(t.tokens), "finish_reason": t.finish_reason} for t in texts]
        print_json({"run": str(run.path), "step": run.step, "prompt": prompt, "samples": samples})
        return
    print("\n---\n".join(prompt + t.text for t in texts))


def report_arguments(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser, several=True)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write the page (default: report.html in the first run)",
    )


def report(arguments: Arguments) -> None:
    from understudy.evaluate.report import write_report
    from understudy.run import find_run

    folders = [find_run(name).path for name in arguments.run]
    out = write_report(folders, arguments.out or folders[0] / "report.html")
    print(out)
