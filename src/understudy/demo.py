"""The whole path in one command: the embedded stories, a tokenizer, a GPT, its loss, its writing, and a report.

It calls what the commands call, in their order, and keeps what is already done.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from understudy.data.prepare import prepare, progress_bars
from understudy.data.shards import open_split
from understudy.evaluate.loss import evaluate_loss
from understudy.evaluate.report import write_report
from understudy.inference.engine import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.run import RunFolder, load_run, run_path
from understudy.runtime import start_runtime
from understudy.settings import load_config
from understudy.train.stages import pretrain, save_evaluation

PROMPTS = ("One morning,", "Once there was", '"Where is')


def run_demo(name: str, fresh: bool = False) -> None:
    """Prepare, train, evaluate, sample and report into runs/NAME.

    Raises:
        Interrupted: a signal asked to stop; the same command goes on later.
    """
    began = time.perf_counter()
    config = load_config("hamlet")
    folder = RunFolder(run_path(name))
    if fresh and folder.path.exists():
        shutil.rmtree(folder.path)
    _say(f"1 of 5  prepare: the stories of a village, split into pieces of words ({config.data.path})")
    with progress_bars() as report:
        data = prepare(
            [config.data.source or "hamlet"], Path(config.data.path), config.tokenizer.kind or "bpe",
            config.tokenizer.vocab_size, report=report,
        )  # fmt: skip
    _say(str(data))
    _say(f"2 of 5  pretrain: a GPT learns to write them ({folder.path})")
    if folder.exists() and folder.steps() and folder.steps()[-1] >= config.train.steps:
        _say("        it is trained already; --fresh trains it again")
    else:
        pretrain(folder.config() if folder.exists() else config, folder, resume=folder.exists())
    _say("3 of 5  evaluate: stories it never saw, told by people it never met")
    run = load_run(folder.path)
    val = open_split(Path(config.data.path), "val", run.config.model.vocab_size)
    with start_runtime() as runtime:
        result = evaluate_loss(
            run.model.to(runtime.device), val.tokens, run.config.model.context_length, 16, runtime, val.bytes
        )
    save_evaluation(folder, result, str(run.step))
    _say(f"        loss {result.loss:.3f} a token, {result.bits_per_byte:.3f} bits a byte of text")
    _say("4 of 5  sample: how it goes on by itself")
    completions = generate_text(run.model, run.tokenizer, PROMPTS, 120, SamplingSettings(temperature=0.7, seed=7))
    for prompt, completion in zip(PROMPTS, completions):
        print(f"\n{prompt}{completion.text.rstrip()}")
    page = write_report([folder.path], folder.path / "report.html")
    _say(f"\n5 of 5  report: {page}")
    _say(f"The demo took {(time.perf_counter() - began) / 60:.1f} minutes. Go on with:")
    program = "understudy" if shutil.which("understudy") else sys.argv[0]  # `make` leaves it in .venv/bin
    _say(f'    {program} sample {name} --prompt "One morning, Marta the baker"')


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
