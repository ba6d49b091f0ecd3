"""Reward modelling, DPO, GRPO and PPO: prompts (or pairs) a second, ours beside TRL's, on the same work.

    python3 -m venv /tmp/trl-env
    /tmp/trl-env/bin/pip install trl==1.9.2 transformers==5.23.0 torch==2.13.0 requests
    python benchmarks/align_vs_trl.py --trl /tmp/trl-env/bin/python --out benchmarks/results/align_vs_trl.json

Both sides train the same GPT-2-shaped model from the same random weights on the same prompts and pairs of Hamlet, as
the same tokens, in batches of the same size, in the same precision with fused AdamW. A random model hardly ever ends an
answer, so that all answers are equally long. PPO has 64 prompts of 16 tokens, answers of 32, and four epochs of one
mini-batch; with the critic as a head on the policy, which TRL has not, ours is beside TRL with a critic of its own. Each
side is a process that trains on and on and waits between its rounds, which are taken in turn. A round is an epoch of the
pairs, or an iteration of sampling, scoring and learning from all prompts; it is timed from the end of one optimiser step
to the end of another. Start-up, the first round, and the log-probabilities of DPO's reference (computed beforehand by
both) are not counted.

With --dtype bf16 (for a CPU that has bf16 units) both keep weights of fp32 and compute in bf16; TRL's frozen models have
weights of bf16 then, since it computes in bf16 with nothing but what it trains, and TRL is also tried with all of its
weights in bf16, which it then trains as such. Its PPO doesn't pass on that it is told bf16, which is done for it here;
"as it comes" it computes in fp32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import understudy
from plain import publish
from trl_side import Rounds
from understudy.config.load import build_config
from understudy.config.model import ModelConfig
from understudy.data.chat.pair_rows import encode_completion
from understudy.data.chat.preferences import open_preferences
from understudy.data.chat.prompts import open_prompts
from understudy.files import write_json
from understudy.hamlet.conversations import prompts
from understudy.hamlet.preferences import preferences
from understudy.hamlet.stories import stories
from understudy.interop.export import export_run
from understudy.model import GPT, build_model
from understudy.model.weights import weights_of
from understudy.optim import build_optimizers
from understudy.run import Run, RunFolder, load_run, save_run
from understudy.runtime import DTYPES, Runtime
from understudy.stages.table import stage_class
from understudy.tokenizer import Tokenizer, train_tokenizer
from understudy.tokenizer.chat import render, with_chat_tokens
from understudy.train.init_from import config_from_parent, start_from
from understudy.train.loop import StepCallback, Trainer, TrainingProgress
from understudy.train.stage import StageContext

VOCABULARY, CONTEXT, LONGEST_PROMPT, ANSWER = 1024, 256, 128, 64
SHAPE: dict[str, Any] = {
    "family": "gpt2", "context_length": CONTEXT, "n_layers": 4, "n_heads": 4, "d_model": 256, "vocab_size": VOCABULARY,
    "dropout": 0.0,
}  # fmt: skip
OPTIM = {"lr": 1e-4, "betas": [0.9, 0.98], "weight_decay": 0.0, "grad_clip": 1.0}
SAMPLED: dict[str, Any] = {"max_new_tokens": ANSWER, "temperature": 1.0, "clip_low": 0.2, "clip_high": 0.2}
GRPO: dict[str, Any] = SAMPLED | {
    "prompts": 16,
    "group_size": 8,
    "epochs": 1,
    "kl_coefficient": 0.02,
    "kl_estimator": "k3",
}
PPO: dict[str, Any] = SAMPLED | {
    "prompts": 64, "epochs": 4, "max_new_tokens": 32, "kl_coefficient": 0.05, "kl_estimator": "k1", "critic": "model", "gamma": 1.0,
    "lam": 0.95, "value_coefficient": 0.5, "value_clip": 0.2,
}  # fmt: skip
STAGES: dict[str, dict[str, Any]] = {
    "reward": {"stage": "reward", "data": "pairs", "batch_size": 16, "micro_batch_size": 16, "settings": {}},
    "dpo": {"stage": "dpo", "data": "pairs", "batch_size": 16, "micro_batch_size": 16, "settings": {"beta": 0.1}},
    "grpo, a step a sampling": {
        "stage": "grpo", "data": "grouped", "batch_size": 128, "micro_batch_size": 32, "settings": GRPO,
    },
    "grpo, four steps a sampling": {
        "stage": "grpo", "data": "grouped", "batch_size": 32, "micro_batch_size": 32, "settings": GRPO,
    },
    "ppo": {"stage": "ppo", "data": "asked", "batch_size": 64, "micro_batch_size": 64, "settings": PPO},
    "ppo, critic as a head": {
        "stage": "ppo", "data": "asked", "batch_size": 64, "micro_batch_size": 64, "settings": PPO | {"critic": "head"},
    },
}  # fmt: skip
"""One row for each comparison; ``settings`` are those of our stage's section, which trl_side.py translates."""
COUNTS = {"pairs": 128, "grouped": GRPO["prompts"], "asked": PPO["prompts"]}


# ---- the work that both sides are given -----------------------------------------------------------------------------


def prepare(folder: Path, dtype: str) -> None:
    """Everything that both sides read: tokenizer, data, weights, and what the models make of them."""
    tokenizer = with_chat_tokens(train_tokenizer("bpe", islice(stories(0, "train"), 1500), VOCABULARY - 2))
    assert tokenizer.vocab_size == VOCABULARY, f"{tokenizer.vocab_size} tokens"
    write_prompts(folder, tokenizer)
    write_pairs(folder, tokenizer)
    torch.manual_seed(0)
    policy, judge = (GPT(ModelConfig(**SHAPE, score_head=scores)) for scores in (False, True))
    torch.nn.init.normal_(judge.score.weight, std=0.1)
    for name, model in (("policy", policy), ("judge", judge)):
        write_run(folder / name, model, tokenizer)
        export_run(load_run(folder / name), "hf", folder / f"hf-{name}")
    tokens = torch.randint(0, VOCABULARY, (2, 50))
    with torch.no_grad():
        expected = {"tokens": tokens, "logits": policy(tokens), "scores": judge.score(judge.hidden(tokens))}
    save(expected, folder / "expected.safetensors")
    for work in STAGES.values():
        answers = work["settings"].get("prompts", 0) * work["settings"].get("group_size", 1)
        learnt = answers * work["settings"].get("epochs", 1) or COUNTS[work["data"]]
        work["part_steps"] = learnt // work["batch_size"]
    write_json(folder / "plan.json", {"dtype": dtype, "optim": OPTIM, "stages": STAGES})


def write_prompts(folder: Path, tokenizer: Tokenizer) -> None:
    """Files of prompts, not too long or all equally short, and the tokens of those to train on."""
    sources = {"grouped": short(tokenizer, prompts(1, "train")), "asked": equally_short(tokenizer)}
    for name, source in sources.items():
        path = folder / f"{name}.jsonl"
        write_lines(path, source, COUNTS[name], open_prompts)
        tokens = [asked_tokens(tokenizer, list(prompt.messages)) for prompt in open_prompts(path, "train")]
        (folder / f"{name}.tokens.json").write_text(json.dumps(tokens))


def short(tokenizer: Tokenizer, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in rows if len(asked_tokens(tokenizer, row["prompt"])) <= LONGEST_PROMPT)


def equally_short(tokenizer: Tokenizer, length: int = 16) -> Iterator[dict[str, Any]]:
    """Prompts of exactly so many tokens: words that follow each other in stories, as many as that takes."""
    for story in stories(1, "train"):
        words = story.split()
        for first in range(len(words) - length):
            for count in range(1, length):
                messages = [{"role": "user", "content": " ".join(words[first : first + count])}]
                if len(asked_tokens(tokenizer, messages)) == length:
                    yield {"prompt": messages, "answer": words[first + count]}
                    break


def asked_tokens(tokenizer: Tokenizer, messages: Any) -> list[int]:
    return render(tokenizer, messages, reply=True).tokens


def write_pairs(folder: Path, tokenizer: Tokenizer) -> None:
    """A file of pairs, and the tokens of those to train on: each answer with its prompt, whose length stands beside."""
    path, found = folder / "pairs.jsonl", []
    write_lines(path, short(tokenizer, preferences(1, "train")), COUNTS["pairs"], open_preferences)
    for comparison in open_preferences(path, "train"):
        [pair] = comparison.pairs
        completions = [
            encode_completion(tokenizer, comparison.prompt, comparison.answers[k]) for k in (pair.chosen, pair.rejected)
        ]
        chosen, rejected = (encoded.prompt + encoded.completion for encoded in completions)
        assert max(len(chosen), len(rejected)) <= CONTEXT, "a pair that does not fit"
        found.append({"prompt": len(completions[0].prompt), "chosen": chosen, "rejected": rejected})
    (folder / "pairs.tokens.json").write_text(json.dumps(found))


def write_lines(
    path: Path, rows: Iterator[dict[str, Any]], count: int, opened: Callable[[Path, str], Sized]
) -> None:  # fmt: skip
    """Write rows with different prompts, as many as leave ``count`` to train on when some fall to validation."""
    different: dict[str, dict[str, Any]] = {}
    for row in rows:
        different.setdefault(json.dumps(row["prompt"]), row)
        if len(different) > count:
            path.write_text("".join(json.dumps(row) + "\n" for row in different.values()))
            if len(opened(path, "train")) == count:
                return


def write_run(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """A model as a run of ours, which the stages start from."""
    run, shape = RunFolder(folder), model.config.model_dump(mode="json", exclude_none=True)
    stage = "reward" if model.config.score_head else "sft"
    about = {"stage": stage, "data": {"sha256": "none"}, "parent": None}
    config = build_config({"stage": stage, "model": shape, "data": {"path": "none"}})
    save_run(run, config, tokenizer, weights_of(model), about, step=1)


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


# ---- our side -------------------------------------------------------------------------------------------------------


def ours(folder: Path, name: str, steps: int) -> None:
    """Train one stage, its rounds timed: what train/runner.py prepares, without evaluation, checkpoints or logs."""
    plan = json.loads((folder / "plan.json").read_text())
    rounds, runtime = Rounds(), Runtime(torch.device("cpu"), DTYPES[plan["dtype"]], seed=0)
    work, parent = plan["stages"][name], load_run(folder / "policy")
    settings = dict(work["settings"])
    if work["stage"] in ("grpo", "ppo"):
        settings["reward_model"] = str(folder / "judge")
    config = config_from_parent({
        "stage": work["stage"], "data": {"path": str(folder / f"{work['data']}.jsonl")}, work["stage"]: settings,
        "optim": OPTIM | {"schedule": "constant"}, "eval": {"every_steps": 0}, "checkpoint": {"every_steps": 0},
        "train": {
            "steps": steps, "batch_size": work["batch_size"], "micro_batch_size": work["micro_batch_size"], "seed": 0,
        },
    }, parent)  # fmt: skip
    torch.manual_seed(0)
    model = build_model(config.model)
    start_from(model, parent, parent.tokenizer)
    stage = stage_class(work["stage"])(config, parent.tokenizer)
    stage.setup(StageContext(config, created(folder, name, config, parent), runtime, model, parent))

    Trainer(
        stage.objective, [*build_optimizers(model, config.optim), *stage.extra_optimizers], stage.batches,
        lambda step: 1.0, runtime, TrainingProgress(), steps, config.optim.grad_clip,
    ).run(EndOfPart(rounds, work["part_steps"]))  # fmt: skip


@dataclass
class EndOfPart(StepCallback):
    """Ends a part of the rounds every so many steps."""

    rounds: Rounds
    part_steps: int

    def is_due(self, progress: TrainingProgress) -> bool:
        return progress.step % self.part_steps == 0

    def after_step(self, progress: TrainingProgress, metrics: dict[str, float]) -> bool:
        self.rounds.end_part(length=metrics.get("train/length", 0.0))
        return False


def created(folder: Path, name: str, config: Any, parent: Run) -> RunFolder:
    run = RunFolder(folder / "ours" / name.replace(", ", "-").replace(" ", "-"))
    origin = {"run": str(parent.path), "step": parent.step, "sha256": parent.state["weights_sha256"]}
    run.create(config, parent.tokenizer, {"stage": config.stage, "parent": origin})
    return run


# ---- both in turn ---------------------------------------------------------------------------------------------------


def compare(folder: Path, name: str, rounds: int, threads: int, dtype: str, trl: str) -> dict[str, Any]:
    """Rates of every contender in each round, and our median over the best of TRL's."""
    work, here = STAGES[name], Path(__file__).parent
    steps = str((rounds + 1) * work["part_steps"])
    theirs = [trl, str(here / "trl_side.py"), str(folder), name, steps]
    commands = {"ours": [sys.executable, __file__, "--side", str(folder), name, steps], "trl": theirs}
    if work["data"] == "pairs":
        commands["trl, by length"] = [*theirs, "--by-length"]
    if dtype == "bf16":
        commands["trl, weights of bf16"] = [*theirs, "--bf16-weights"]
        if work["stage"] == "ppo":
            commands["trl, as it comes"] = [*theirs, "--as-it-comes"]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"), "TRL_EXPERIMENTAL_SILENCE": "1",
    }  # fmt: skip
    replies: dict[str, list[dict[str, float]]] = {side: [] for side in commands}
    loads = []
    with contextlib.ExitStack() as stack:
        sides = {}
        for side, command in commands.items():
            log = stack.enter_context((folder / f"{name} {side}.log").open("w"))
            passed_on = dtype == "bf16" and side != "trl, as it comes"  # what its PPO is told and doesn't pass on
            told = environment | {"ACCELERATE_MIXED_PRECISION": "bf16" if passed_on else "no"}
            if side != "ours":
                told = {key: value for key, value in told.items() if key not in understudy.ENVIRONMENT}
            sides[side] = stack.enter_context(subprocess.Popen(
                command, env=told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            ))  # fmt: skip
        for side, process in sides.items():  # all start at once, and do their first round
            answer(process, folder / f"{name} {side}.log")
        for _ in range(rounds):
            loads.append(os.getloadavg()[0])
            for side, process in sides.items():
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
                replies[side].append(answer(process, folder / f"{name} {side}.log"))
        for process in sides.values():
            assert process.stdin
            process.stdin.close()
    rates = {side: [COUNTS[work["data"]] / reply["seconds"] for reply in each] for side, each in replies.items()}
    medians = {side: statistics.median(each) for side, each in rates.items()}
    lengths = {side: each[-1]["length"] for side, each in replies.items() if each[-1]["length"]}
    assert {reply["threads"] for each in replies.values() for reply in each} == {threads}
    best = max(rate for side, rate in medians.items() if side != "ours")
    kind = "pairs" if work["data"] == "pairs" else "prompts"
    return {
        f"{kind}_per_second": medians, "rounds": rates, "ours_over_best_trl": medians["ours"] / best,
        "tokens_of_an_answer": lengths, "load_before_rounds": loads,
        "peak_mib": {side: round(each[-1]["peak_bytes"] / 2**20) for side, each in replies.items()},
        "cpu_seconds": {side: [reply["cpu_seconds"] for reply in each] for side, each in replies.items()},
    }  # fmt: skip


def answer(process: subprocess.Popen[str], log: Path) -> dict[str, float]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a side ended early and said in {log}:\n{log.read_text()[-2000:]}")
    return json.loads(line)


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        return ours(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", default="/tmp/trl-env/bin/python", help="the interpreter of an environment with TRL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="of matrix products (default: fp32)")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    versions = "import torch, transformers, trl; print(torch.__version__, transformers.__version__, trl.__version__)"
    found = subprocess.run([arguments.trl, "-c", versions], capture_output=True, text=True, check=True).stdout.split()
    results: dict[str, Any] = {
        "threads": arguments.threads, "dtype": arguments.dtype, "torch": torch.__version__,
        "trl_environment": dict(zip(("torch", "transformers", "trl"), found)), "model": SHAPE, "optim": OPTIM,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch), arguments.dtype)
        for name in arguments.stages:
            compared = compare(Path(scratch), name, arguments.rounds, arguments.threads, arguments.dtype, arguments.trl)
            results[name] = STAGES[name] | compared
            publish(results, arguments.out)  # after each, so that a run that is broken off keeps what it has


if __name__ == "__main__":
    main()
