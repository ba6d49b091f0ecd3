"""Several processes: values measured on one are agreed upon, work is shared, and results are those of one process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align_runs import run
from processes import run_python, run_two
from understudy.config.load import dump_config
from understudy.run import Run, RunFolder, read_metrics
from understudy.runtime import Runtime
from understudy.stages.table import run_stage
from understudy.train.memory import USABLE, plan_memory

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not tested on Windows")

AGREE = """
import dataclasses, pathlib, sys
import torch, torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_pre_hook
from understudy.config.load import load_config
from understudy.run import RunFolder
from understudy.runtime import agree_on_dtype
from understudy.stages.table import stage_class
from understudy.train.runner import train

calls, calls_at_step, timeouts = [], [], []
all_reduce, init_process_group = dist.all_reduce, dist.init_process_group
dist.all_reduce = lambda *args, **named: (calls.append(1), all_reduce(*args, **named))[1]
dist.init_process_group = lambda *args, **named: (timeouts.append(named["timeout"]), init_process_group(*args, **named))[1]
register_optimizer_step_pre_hook(lambda optimizer, *_: calls_at_step.append((id(optimizer), len(calls))))

def free(runtime):
    mixed = dataclasses.replace(runtime, dtype=[torch.bfloat16, torch.float16][runtime.rank])
    assert agree_on_dtype(mixed).dtype == torch.float32 and agree_on_dtype(runtime) is runtime
    assert runtime.gather_shards(list(range(7))[runtime.rank :: 2]) == list(range(7))
    return [10**12, int(sys.argv[1])][runtime.rank]

config = load_config("config.yaml")
folder = RunFolder(pathlib.Path("runs/two"))
train(stage_class("pretrain")(config, None), config, folder, measure_free_bytes=free)
before_each = [count for optimizer, count in calls_at_step if optimizer == calls_at_step[0][0]]
between = [after - before for before, after in zip(before_each, before_each[1:])]
assert between == [1] * 7, f"all-reduces between steps: {between}"
assert [timeout.total_seconds() > 600 for timeout in timeouts] == [True]
"""


def test_processes_agree_on_the_micro_batch_and_reduce_once_a_step(small_config: Any, tmp_path: Path) -> None:
    """One process has little memory free; were each to choose for itself, windows would be evaluated twice or never."""
    settings = {
        "train__batch_size": 16, "log__every_steps": 9, "log__samples": 0, "eval__every_steps": 0,
        "checkpoint__every_steps": 0, "train__dtype": "fp32",
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(dump_config(small_config(**settings)))
    (tmp_path / "agree.py").write_text(AGREE)
    shape = small_config().model.model_copy(update={"vocab_size": 30})
    config = small_config(**settings).model_copy(update={"model": shape})
    run_two(["agree.py", str(int(plan_memory(config, 3).total_bytes / USABLE))], tmp_path)
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "runs/two")
    assert two.config().train.micro_batch_size == 2
    run_stage(small_config(train__micro_batch_size=2, **settings), one)
    for name in ("train/loss", "val/loss", "tokens"):
        expected, computed = (read_metrics(folder.metrics)[-1][name] for folder in (one, two))
        assert computed == pytest.approx(expected, rel=1e-5), name


COUNTED = """
import json, os, sys
import torch
from understudy.cli import main

read = []
def count(module, inputs):
    if isinstance(module, torch.nn.Embedding):
        read.append(inputs[0].numel())
torch.nn.modules.module.register_module_forward_pre_hook(count)
status = main(sys.argv[1:])
json.dump(sum(read), open(f"read.{os.environ.get('RANK', 'one')}", "w"))
sys.exit(status)
"""


@pytest.mark.parametrize("stage", ["reward", "dpo", "kto"])
def test_evaluation_is_shared_and_equals_one_process(
    stage: str, sft_run: Run, preferences: Path, judgements: Path, tmp_path: Path
) -> None:
    words = [
        stage, "preset.yaml", "--init-from", str(sft_run.path), "--train.dtype", "fp32", "--train.steps", "1",
        "--train.batch_size", "4", "--train.micro_batch_size", "1", "--eval.batch_size", "1", "--device", "cpu",
    ]  # fmt: skip
    data = judgements if stage == "kto" else preferences
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    (tmp_path / "data.jsonl").write_text(
        "".join(
            json.dumps(row | {"prompt": [{"role": "user", "content": word}]}) + "\n"
            for word in ("a", "b", "c", "d", "ab", "ba", "ca", "da", "aa", "bb") for row in rows[:4]
        )
    )  # fmt: skip
    log = "log: {prompts: [a, b, c], sample_tokens: 5}\n" if stage == "dpo" else ""
    (tmp_path / "preset.yaml").write_text(f"stage: {stage}\ndata: {{path: data.jsonl}}\n{log}")
    (tmp_path / "counted.py").write_text(COUNTED)
    run_two(["counted.py", *words, "--run-name", "two"], tmp_path)
    done = run_python(["counted.py", *words, "--run", "one"], tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = (RunFolder(tmp_path / "runs" / name) for name in ("one", "two"))
    for expected, computed in zip(read_metrics(one.metrics), read_metrics(two.metrics), strict=True):
        for name in (name for name in expected if name.startswith(("val/", "train/"))):
            assert computed[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
    assert [p.read_text() for p in sorted(one.samples.iterdir())] == [
        p.read_text() for p in sorted(two.samples.iterdir())
    ]
    if stage != "reward":
        logprobs = [load_file(folder.path / "reference.safetensors") for folder in (one, two)]
        assert all(torch.equal(logprobs[0][split], logprobs[1][split]) for split in logprobs[0])
    read = {name: json.loads((tmp_path / f"read.{name}").read_text()) for name in ("one", "0", "1")}
    assert max(read["0"], read["1"]) < 0.7 * read["one"], read


TASK = """
import json, os, sys
from understudy.evaluation.runner import run_task
from understudy.evaluation.task import Example, Task
from understudy.run import load_run
from understudy.runtime import start_runtime

class Letters(Task):
    name = "letters"
    max_new_tokens = 3
    def examples(self, split="val", limit=None):
        return [Example(str(n), "b", ({"role": "user", "content": "abcd"[n % 4] * (1 + n)},), choices=("a", "b", "c"))
                for n in range(7)][:limit]

class Texts(Task):
    name, kind, metric = "texts", "loss", "loss"
    def examples(self, split="val", limit=None):
        return [Example(str(n), "", text="abc" * (n + 1)) for n in range(5)]

run, results = load_run(sys.argv[1]), []
with start_runtime("cpu", "fp32") as runtime:
    for kind in ("answer", "choice"):
        task = Letters()
        task.kind = kind
        results.append(run_task(task, run.model, run.tokenizer, runtime, batch_size=2))
    results.append(run_task(Texts(), run.model, run.tokenizer, runtime, batch_size=2))
    if runtime.is_main:
        json.dump([[r.as_dict(), r.examples] for r in results], open(f"tasks.{runtime.world_size}", "w"))
"""


def test_tasks_are_shared_and_equal_one_process(sft_run: Run, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    run_two(["task.py", str(sft_run.path)], tmp_path)
    run_python(["task.py", str(sft_run.path)], tmp_path)
    one, two = (json.loads((tmp_path / f"tasks.{n}").read_text()) for n in (1, 2))

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: rounded(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [rounded(inner) for inner in value]
        return round(value, 4) if isinstance(value, float) else value

    assert rounded(one) == rounded(two) and len(one[0][1]) == 7


def test_shards_come_together_in_order() -> None:
    assert Runtime(torch.device("cpu")).gather_shards([3, 1]) == [3, 1]


def test_dpo_resumed_with_more_validation_computes_its_reference_again(
    sft_run: Run, preferences: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in preferences.read_text().splitlines()]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(
        json.dumps(row | {"prompt": [{"role": "user", "content": f"{a}{b}{c}"}]}) + "\n"
        for a in "abcd" for b in "abcd" for c in "abcd" for row in rows[:1]
    ))  # fmt: skip
    options = {"train__batch_size": 2, "train__steps": 4, "eval__every_steps": 2, "checkpoint__every_steps": 2}
    run("dpo", tmp_path / "run", sft_run, data, eval__max_tokens=20, train__stop_at_tokens=1, **options)
    before = load_file(tmp_path / "run" / "reference.safetensors")
    resumed = run("dpo", tmp_path / "run", sft_run, data, "--resume", eval__max_tokens=2000, **options)
    after = load_file(tmp_path / "run" / "reference.safetensors")
    assert len(before["val"]) < len(after["val"]) and torch.equal(before["train"], after["train"])
    assert [row["step"] for row in read_metrics(resumed.path / "metrics.jsonl") if "val/loss" in row][-1] == 4
