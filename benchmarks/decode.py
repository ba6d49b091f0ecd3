"""Tokens a second of the GPT-2 124M shape with random weights: ours beside transformers and llama.cpp, one stream and eight.

    python benchmarks/decode.py [--llama PYTHON] [--rounds 3] [--run RUN] [--out benchmarks/results/decode.json]

One stream continues a prompt of 64 tokens by 256, greedily; every contender in turn, in each round. `--llama` names a
Python that has llama-cpp-python and gguf. Ours answers through BatchEngine, as the server does. `--run` names a trained
run, whose validation loss is measured with each kind of weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plain import publish
from understudy.config.model import ModelConfig
from understudy.inference.batching import BatchEngine
from understudy.inference.quantize import WEIGHTS, prepare_for_inference
from understudy.inference.requests import CompletionChunk, SequenceRequest
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT

PROMPT, NEW, STREAMS, VOCAB = 64, 256, 8, 50257


class Numbers:
    """A stand-in for a tokenizer: only the model is measured."""

    vocab_size = VOCAB

    def token_bytes(self, id: int) -> bytes:
        return b"x"


def prompt_of(stream: int) -> list[int]:
    return torch.randint(0, VOCAB, (PROMPT,), generator=torch.Generator().manual_seed(stream)).tolist()


def answer(model: GPT, streams: int) -> float:
    """Tokens a second of all streams together, prompts included in the time."""
    left = threading.Semaphore(0)

    def on_chunk(piece: CompletionChunk) -> None:
        if piece.finish_reason:
            left.release()

    with BatchEngine(model, Numbers(), max_rows=STREAMS) as engine:  # type: ignore[arg-type]
        start = time.perf_counter()
        for stream in range(streams):
            engine.submit(SequenceRequest(prompt_of(stream), NEW, SamplingSettings(temperature=0)), on_chunk)
        for _ in range(streams):
            left.acquire()
        return streams * NEW / (time.perf_counter() - start)


def transformers_side() -> Callable[[], float]:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    tokens = torch.tensor([prompt_of(0)])
    how = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            found = model.generate(tokens, attention_mask=torch.ones_like(tokens), **how)
        assert found.shape[1] == PROMPT + NEW
        return NEW / (time.perf_counter() - start)

    return run


class Llama:
    """llama-cpp-python in a process of its own, which writes and loads random weights and then answers lines."""

    def __init__(self, python: str) -> None:
        side = Path(__file__).with_name("llama_side.py")
        arguments = [python, str(side), str(torch.get_num_threads()), str(NEW), json.dumps(prompt_of(0))]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self.ask()["version"]

    def ask(self, kind: str | None = None) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        if kind is not None:
            self.process.stdin.write(kind + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("llama_side.py ended; what it said is above")
        return json.loads(line)


def losses(name: str) -> dict[str, Any]:
    """The validation loss of a trained run with each kind of weights, and how much it rose over fp32."""
    from understudy.evaluation.run_evaluation import evaluate_split
    from understudy.run import load_run
    from understudy.runtime import Runtime

    run, found = load_run(name), {}
    for weights in WEIGHTS:
        prepared = dataclasses.replace(run, model=prepare_for_inference(run.model, weights, 1))
        found[weights] = evaluate_split(prepared, Runtime(torch.device("cpu"))).as_dict()
    as_trained = evaluate_split(run, Runtime(torch.device("cpu"))).as_dict()["loss"]
    return {
        "run": Path(name).name, "loss_as_trained": as_trained,
        "loss": {weights: each["loss"] for weights, each in found.items()},
        "rise": {weights: each["loss"] - as_trained for weights, each in found.items()},
        "interval_of_loss": [found["fp32"]["loss_low"], found["fp32"]["loss_high"]],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    contenders: dict[str, Callable[[], float]] = {"transformers fp32": transformers_side()}
    if arguments.llama:
        llama = Llama(arguments.llama)
        results["llama-cpp-python"] = llama.version
        for kind in ("f32", "f16", "q8_0"):
            contenders[f"llama.cpp {kind}"] = lambda kind=kind: llama.ask(kind)["tokens_per_second"]  # type: ignore[misc]
    config = ModelConfig(family="gpt2", vocab_size=VOCAB, context_length=1024, n_layers=12, n_heads=12, d_model=768)
    model = GPT(config)
    results["seconds_to_prepare"] = {}
    for weights in WEIGHTS:
        name = f"ours {weights}"
        start = time.perf_counter()
        prepared = prepare_for_inference(model, weights, STREAMS)
        assert isinstance(prepared, GPT)
        results["seconds_to_prepare"][name] = time.perf_counter() - start
        for streams in (1, STREAMS):
            run = partial(answer, prepared, streams)
            contenders[name if streams == 1 else f"{name}, {streams} streams"] = run
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name, contender in contenders.items():
            rates[name].append(contender())
            print(f"round {number + 1}: {name}: {rates[name][-1]:.1f} tokens/s", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    results |= {"tokens_per_second": medians, "rounds": rates}
    ours = [name for name in medians if name.startswith("ours") and "streams" not in name]
    results["over_transformers"] = {name: medians[name] / medians["transformers fp32"] for name in ours}
    results["streams_over_one"] = {
        name: medians[f"{name}, {STREAMS} streams"] / medians[name]
        for name in ours
        if f"{name}, {STREAMS} streams" in medians
    }
    if arguments.run:
        results["quality"] = losses(arguments.run)
    publish(results, arguments.out)


if __name__ == "__main__":
    main()
