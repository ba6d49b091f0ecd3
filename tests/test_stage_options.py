"""Every option works in every stage or is refused by name: each cell of stage × option trains, or is refused with a reason.

A cell trains when its loss is finite and moves, and when every parameter that is meant to learn has changed.
`pytest -n0 -s tests/test_stage_options.py` prints the table.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import LETTERS, finished_run
from processes import run_two
from understudy.cli import main
from understudy.config.stages import STAGES
from understudy.run import Run, RunFolder, load_run, read_metrics, read_tensors

STEPS = 4
BASE: dict[str, Any] = {
    "optim.name": "adamw", "optim.lr": 1e-2, "optim.weight_decay": 0.0, "optim.schedule": "constant",
    "train.steps": STEPS, "train.batch_size": 4, "train.dtype": "fp32", "eval.every_steps": 0,
    "checkpoint.every_steps": 0, "log.every_steps": 1, "log.samples": 0, "log.plot": "false",
}  # fmt: skip
ROLLOUT = {"prompts": 2, "max_new_tokens": 4, "eval_prompts": 2, "missing_end_penalty": 1.0}
OWN: dict[str, dict[str, Any]] = {
    "ppo": {f"ppo.{name}": value for name, value in (ROLLOUT | {"group_size": 2}).items()},
    "grpo": {f"grpo.{name}": value for name, value in (ROLLOUT | {"group_size": 2}).items()},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "LoRA": {"model.lora.rank": 2},
    "dropout": {"model.dropout": 0.2},
    "LoRA dropout": {"model.lora.rank": 2, "model.lora.dropout": 0.2},
    "bf16": {"train.dtype": "bf16"},
    "accumulation": {"train.micro_batch_size": 2},
    "no packing": {"data.pack": "false"},
    "too long: drop": {"data.too_long": "drop"},
    "chunked loss": {"train.loss_chunk_tokens": 8},
    "recomputed activations": {"train.activation_checkpointing": "true"},
    "averaged weights": {"optim.ema": 0.5},
    "Muon": {"optim.name": "muon"},
    "clipping": {"optim.grad_clip": 0.1},
    "deterministic": {"train.deterministic": "true"},
    "bigram start": {"train.bigram_start": "true"},  # pretrain says that it keeps its weights
    "eval tokens": {"eval.max_tokens": 40},
    "eval batch": {"eval.batch_size": 2},
    "untied, more heads": {},  # replaced by a parent of that shape
}
REFUSED = {
    **{
        (stage, option): "model.dropout" for stage in ("reward", "dpo", "kto", "ppo", "grpo") for option in ("dropout",)
    },
    **{(stage, "LoRA dropout"): "model.lora.dropout" for stage in ("reward", "dpo", "kto", "ppo", "grpo")},
    **{(stage, "too long: drop"): "data.too_long" for stage in STAGES if stage != "sft"},
    **{(stage, "chunked loss"): "train.loss_chunk_tokens" for stage in ("reward", "dpo", "kto", "ppo", "grpo")},
    **{(stage, "bigram start"): "train.bigram_start" for stage in STAGES if stage != "pretrain"},
    **{(stage, "no packing"): "data.pack" for stage in STAGES if stage != "sft"},
    **{(stage, "eval tokens"): "eval.max_tokens" for stage in ("ppo", "grpo")},
    **{(stage, "eval batch"): "eval.batch_size" for stage in ("ppo", "grpo")},
}
"""The cells that are refused, and the setting that the sentence names. All others train."""


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, str], str]]:
    """The result of each cell; printed at the end."""
    cells: dict[tuple[str, str], str] = {}
    yield cells
    options = list(dict.fromkeys(option for _, option in cells))
    width = max(map(len, options), default=0)
    print("\n\n" + " " * width + "".join(f"{stage:>12}" for stage in STAGES))
    for option in options:
        print(f"{option:<{width}}" + "".join(f"{cells.get((stage, option), '–'):>12}" for stage in STAGES))


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory, sft_run: Run) -> Run:
    """A parent with an untied head, grouped queries, n-gram and value embeddings."""
    from understudy.config.model import ModelConfig

    shape = ModelConfig(
        family="qwen3", context_length=32, n_layers=2, n_heads=2, n_kv_heads=1, d_model=16, tied=False,
        vocab_size=sft_run.tokenizer.vocab_size, ngram_orders=(2,), ngram_buckets=64, value_embeddings=True, dropout=0.1,
    )  # fmt: skip
    torch.manual_seed(1)
    return finished_run(tmp_path_factory.mktemp("runs") / "untied", shape, sft_run.tokenizer, "sft")


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory, sft_run: Run, preferences: Path, judgements: Path, prompts: Path
) -> dict[str, Path]:
    """Data of each kind, in the eight letters that the parent knows."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "book.txt").write_text("\n".join(LETTERS[k % 8 :] + LETTERS[: k % 8] for k in range(400)))
    words = ["prepare", str(folder / "book.txt"), "--tokenizer", str(sft_run.path / "tokenizer.json")]
    assert main([*words, "--out", str(folder / "text")]) == 0
    talk = [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
        for a in LETTERS for b in LETTERS
    ]  # fmt: skip
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talk))
    return {
        "text": folder / "text", "conversations": folder / "talk.jsonl", "preferences": preferences,
        "judgements": judgements, "prompts": prompts,
    }  # fmt: skip


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory, sft_run: Run, data: dict[str, Path]) -> Run:
    """A reward model whose scores differ from answer to answer."""
    folder = tmp_path_factory.mktemp("runs") / "scorer"
    assert train("reward", folder, sft_run.path, data["preferences"], {"train.steps": 20})[0] == 0
    return load_run(folder, "latest")


def words(stage: str, folder: Path, parent: Path | None, data: Path, settings: dict[str, Any]) -> list[str]:
    preset = folder.parent / f"{folder.name}.yaml"
    preset.parent.mkdir(parents=True, exist_ok=True)
    preset.write_text(f"stage: {stage}\ndata: {{path: {data}}}\n")
    given = BASE | OWN.get(stage, {}) | settings
    origin = ["--init-from", str(parent)] if parent else ["--resume"]
    dotted = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [stage, str(preset), "--run-name", str(folder), *origin, "--seed", "3", *dotted]


def train(stage: str, folder: Path, parent: Path | None, data: Path, settings: dict[str, Any]) -> tuple[int, str]:
    """Exit status and standard error of one training."""
    import contextlib
    import io

    with contextlib.redirect_stderr(error := io.StringIO()):
        status = main(words(stage, folder, parent, data, settings))
    return status, error.getvalue()


def rewarded(stage: str, scorer: Path) -> dict[str, Any]:
    return {f"{stage}.reward_model": scorer} if STAGES[stage].rollout else {}


def losses(folder: Path) -> list[float]:
    return [row["train/loss"] for row in read_metrics(RunFolder(folder).metrics) if "train/loss" in row]


def unchanged(folder: Path, parent: Run) -> list[str]:
    """Names of parameters that should have learnt and have not."""
    run = RunFolder(folder)
    config, weights = run.config(), read_tensors(run.checkpoint("latest") / "model.safetensors")
    before = dict(parent.model.named_parameters())
    idle = []
    for name, tensor in weights.items():
        if config.model.lora:
            learns = "lora_" in name or name.startswith("score")
            first = torch.zeros_like(tensor) if "lora_b" in name or name.startswith("score") else None
        else:
            learns, first = name != "head.weight" or config.info.generates, before.get(name, torch.zeros_like(tensor))
        if learns and first is not None and torch.equal(tensor.float(), first.float()):
            idle.append(name)
    return idle


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_option_trains_or_is_refused(
    stage: str, option: str, sft_run: Run, untied: Run, scorer: Run, data: dict[str, Path], tmp_path: Path,
    table: dict[tuple[str, str], str],
) -> None:  # fmt: skip
    parent = untied if option.startswith("untied") else sft_run
    folder, kind = tmp_path / "run", data[STAGES[stage].data]
    status, error = train(stage, folder, parent.path, kind, rewarded(stage, scorer.path) | OPTIONS[option])
    refusal = REFUSED.get((stage, option))
    if refusal:
        assert status == 2 and refusal in error and "Traceback" not in error, error
        assert not folder.exists(), "a refused run leaves nothing"
        table[stage, option] = "refused"
        return
    assert status == 0, error
    values = losses(folder)
    assert len(values) == STEPS and all(map(math.isfinite, values)), values
    assert max(values) - min(values) > 1e-6, f"the loss stays at {values[0]}"
    assert unchanged(folder, parent) == []
    rows = read_metrics(RunFolder(folder).metrics)
    if stage == "dpo":  # policy and reference are the same model without dropout
        assert rows[0]["val/loss"] == pytest.approx(math.log(2), abs=2e-2 if option == "bf16" else 1e-5)
    if stage == "kto":  # likewise: the sigmoid of 0
        assert rows[0]["val/loss"] == pytest.approx(0.5, abs=1e-2 if option == "bf16" else 1e-5)
    if STAGES[stage].rollout:
        first = next(row["train/first_ratio"] for row in rows if "train/first_ratio" in row)
        assert first == pytest.approx(1, abs=2e-2 if option == "bf16" else 1e-4)
    table[stage, option] = "trains"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "LoRA"])
def test_a_stopped_stage_resumes_to_the_same_bits(
    stage: str, lora: bool, sft_run: Run, scorer: Run, data: dict[str, Path], tmp_path: Path,
    table: dict[tuple[str, str], str],
) -> None:  # fmt: skip
    kind = data[STAGES[stage].data]
    settings = rewarded(stage, scorer.path) | (OPTIONS["LoRA"] if lora else {}) | {"train.micro_batch_size": 2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(stage, whole, sft_run.path, kind, settings)[0] == 0
    assert train(stage, parts, sft_run.path, kind, settings | {"train.stop_at_tokens": 1})[0] == 0
    assert RunFolder(parts).steps()[-1] < STEPS
    status, error = train(stage, parts, None, kind, settings)
    assert status == 0, error
    assert losses(parts) == losses(whole)
    a, b = (read_tensors(RunFolder(f).checkpoint("latest") / "model.safetensors") for f in (whole, parts))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    table[stage, "resume, LoRA" if lora else "resume"] = "same bits"


LENGTHS = {"minutes": 0.0005, "epochs": 0.02, "tokens": 300}
LENGTH_OF_STAGE = (*LENGTHS, "minutes", "tokens", "epochs", "tokens")


@pytest.mark.parametrize(("stage", "name"), list(zip(STAGES, LENGTH_OF_STAGE, strict=True)))
def test_a_length_in_minutes_tokens_or_epochs_is_that_of_its_steps(
    stage: str, name: str, sft_run: Run, scorer: Run, data: dict[str, Path], tmp_path: Path,
    table: dict[tuple[str, str], str],
) -> None:  # fmt: skip
    """Timing leaves no trace: the steps are those of the same number given by hand, to the bit, and can be resumed."""
    kind, value = data[STAGES[stage].data], LENGTHS[name]
    settings = rewarded(stage, scorer.path) | {"train.micro_batch_size": 2, "optim.ema": 0.5}
    length = settings | {f"train.{name}": value, "train.steps": 8, "checkpoint.every_steps": 4}
    planned, by_hand = RunFolder(tmp_path / "planned"), RunFolder(tmp_path / "by-hand")
    status, error = train(stage, planned.path, sft_run.path, kind, length | {"train.stop_at_tokens": 1})
    assert status == 0 and f"train.{name} {value:g}: " in error, error
    config = planned.config()
    assert getattr(config.train, name) is None and planned.record()["length"] == {name: value}
    status, error = train(stage, planned.path, None, kind, length)
    assert status == 0, error
    by_steps = settings | {
        "train.steps": config.train.steps, "train.batch_size": config.train.batch_size, "optim.lr": config.optim.lr,
        "train.micro_batch_size": config.train.micro_batch_size, "checkpoint.every_steps": config.checkpoint.every_steps,
    }  # fmt: skip
    status, error = train(stage, by_hand.path, sft_run.path, kind, by_steps)
    assert status == 0, error
    assert losses(planned.path) == losses(by_hand.path) and len(losses(planned.path)) == config.train.steps
    a, b = (read_tensors(folder.checkpoint("latest") / "model.safetensors") for folder in (planned, by_hand))
    assert all(torch.equal(a[tensor], b[tensor]) for tensor in a)
    table[stage, "minutes, tokens, epochs"] = "same bits"


TWO = """
import json, sys
import torch.distributed as dist
from understudy.cli import main
dist.init_process_group("gloo")
for arguments in json.loads(sys.argv[1]):
    status = main(arguments)
    if status:
        sys.exit(status)
"""


@pytest.mark.skipif(os.name == "nt", reason="gloo's launcher is not tested on Windows")
def test_two_processes_take_the_steps_of_one(
    sft_run: Run, scorer: Run, data: dict[str, Path], tmp_path: Path, table: dict[tuple[str, str], str]
) -> None:
    """Each stage, whole and with adapters, in one launch of two processes."""
    script, calls, cells = tmp_path / "two.py", [], []
    script.write_text(TWO)
    for stage, info in STAGES.items():
        for lora in (False, True):
            settings = rewarded(stage, scorer.path) | {"train.micro_batch_size": 2}
            settings |= OPTIONS["LoRA"] if lora else {}
            name = f"{stage}{'-lora' if lora else ''}"
            assert train(stage, tmp_path / "one" / name, sft_run.path, data[info.data], settings)[0] == 0
            calls.append(words(stage, tmp_path / "two" / name, sft_run.path, data[info.data], settings))
            cells.append((stage, name, "two processes, LoRA" if lora else "two processes"))
    run_two([str(script), json.dumps(calls)], tmp_path)
    for stage, name, option in cells:
        one, two = losses(tmp_path / "one" / name), losses(tmp_path / "two" / name)
        assert two == pytest.approx(one, rel=1e-4, abs=2e-5), name
        a, b = (
            read_tensors(RunFolder(tmp_path / where / name).checkpoint("latest") / "model.safetensors")
            for where in ("one", "two")
        )
        for tensor in a:
            torch.testing.assert_close(a[tensor], b[tensor], atol=2e-3, rtol=1e-2, msg=lambda m, n=name: f"{n}: {m}")
        table[stage, option] = "as one"


def test_no_stage_is_left_out() -> None:
    """A stage that is added to the table is walked here, with data of its kind."""
    assert {info.data for info in STAGES.values()} <= {
        "text", "conversations", "preferences", "judgements", "prompts",
    }  # fmt: skip
    assert {stage for stage, _ in REFUSED} <= STAGES.keys() and {o for _, o in REFUSED} <= OPTIONS.keys()
