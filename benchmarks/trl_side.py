"""TRL's half of align_vs_trl.py, which starts this file with the interpreter of an environment that has TRL.

    /tmp/trl-env/bin/python trl_side.py FOLDER STAGE STEPS [--by-length] [--bf16-weights] [--as-it-comes]

FOLDER is what align_vs_trl.py prepared: the same weights, tokens and settings that our half reads. Nothing here
imports Understudy; what both halves share is :class:`Rounds`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Rounds:
    """Times parts of a training that goes on between them: each is begun by a line on standard input, and ended by a
    line of JSON on what was standard output. Whatever else is printed goes to standard error."""

    def __init__(self) -> None:
        self.replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.started: tuple[float, float] | None = None

    def end_part(self, **measured: float) -> None:
        """Say how long the part took, and wait for the next; without one, end. The first call ends the warm-up, which
        has no time."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
        told: dict[str, float] = {"threads": torch.get_num_threads(), "peak_bytes": peak, **measured}
        if self.started:
            told["seconds"] = time.perf_counter() - self.started[0]
            told["cpu_seconds"] = time.process_time() - self.started[1]
        print(json.dumps(told), file=self.replies, flush=True)
        if not sys.stdin.readline():
            raise SystemExit
        self.started = time.perf_counter(), time.process_time()


class Half:
    """Models, data and arguments of one stage, as TRL takes them."""

    def __init__(self, folder: Path, stage: str, steps: int, options: list[str]) -> None:
        from transformers import AutoTokenizer, set_seed

        self.folder, self.steps, self.by_length = folder, steps, "--by-length" in options
        self.bf16_weights, self.as_it_comes = "--bf16-weights" in options, "--as-it-comes" in options
        plan = json.loads((folder / "plan.json").read_text())
        self.plan, self.work, self.bf16 = plan, plan["stages"][stage], plan["dtype"] == "bf16"
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "hf-policy", padding_side="left")
        self.tokenizer.pad_token = "<|endoftext|>"  # stands in no prompt; the token that ends a message does
        self.rows = json.loads((folder / f"{self.work['data']}.tokens.json").read_text())
        self.sampled = [0, 0]  # answers, and tokens of them
        set_seed(0)

    def dtype(self, frozen: bool) -> str:
        """Of weights: those that learn are of fp32, unless told otherwise; TRL computes in bf16 with no others."""
        return "bfloat16" if self.bf16_weights or (frozen and self.bf16 and not self.as_it_comes) else "float32"

    def language_model(self, frozen: bool = False) -> Any:
        from transformers import GPT2LMHeadModel

        return GPT2LMHeadModel.from_pretrained(self.folder / "hf-policy", dtype=self.dtype(frozen))

    def scoring_model(self, which: str, frozen: bool = False) -> Any:
        from transformers import GPT2ForSequenceClassification

        pad = self.tokenizer.pad_token_id
        return GPT2ForSequenceClassification.from_pretrained(
            self.folder / f"hf-{which}", num_labels=1, pad_token_id=pad, dtype=self.dtype(frozen)
        )

    def arguments(self) -> dict[str, Any]:
        """What all trainers are told: our optimiser, our precision, and nothing that only costs time."""
        optim = self.plan["optim"]
        return {
            "output_dir": str(self.folder / "trl"), "max_steps": self.steps, "seed": 0, "use_cpu": True, "bf16": self.bf16,
            "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no", "logging_strategy": "no",
            "disable_tqdm": True, "dataloader_num_workers": 0, "dataloader_pin_memory": False,
            "optim": "adamw_torch_fused", "lr_scheduler_type": "constant", "learning_rate": optim["lr"],
            "adam_beta1": optim["betas"][0], "adam_beta2": optim["betas"][1], "weight_decay": optim["weight_decay"],
            "max_grad_norm": optim["grad_clip"], "per_device_train_batch_size": self.work["micro_batch_size"],
            "gradient_accumulation_steps": self.work["batch_size"] // self.work["micro_batch_size"],
        }  # fmt: skip

    def sampler(self) -> dict[str, Any]:
        """Pairs of like length together, which spares padding; Trainer finds the lengths in a column of that name."""
        return {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False} if self.by_length else {}


def reward(half: Half) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = [
        {"chosen_ids": r["chosen"], "rejected_ids": r["rejected"], "length": max(len(r["chosen"]), len(r["rejected"]))}
        for r in half.rows
    ]
    arguments = RewardConfig(**half.arguments(), **half.sampler(), max_length=None)
    return RewardTrainer(
        model=half.scoring_model("policy"), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=half.tokenizer,
    )  # fmt: skip


def dpo(half: Half) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    def text(tokens: list[int]) -> str:
        return str(half.tokenizer.decode(tokens))

    rows = [
        {
            "prompt": text(r["chosen"][: r["prompt"]]), "chosen": text(r["chosen"][r["prompt"] :]),
            "rejected": text(r["rejected"][r["prompt"] :]), "length": max(len(r["chosen"]), len(r["rejected"])),
        }
        for r in half.rows
    ]  # fmt: skip
    arguments = DPOConfig(
        **half.arguments(), **half.sampler(), max_length=None, beta=half.work["settings"]["beta"],
        precompute_ref_log_probs=True, precompute_ref_batch_size=half.work["batch_size"],
    )  # fmt: skip
    trainer = DPOTrainer(
        model=half.language_model(), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=half.tokenizer,
    )  # fmt: skip
    for row, ours in zip(trainer.train_dataset, half.rows):  # it tokenises by itself, and has to find the same
        assert row["prompt_ids"] + row["chosen_ids"] == ours["chosen"], "another chosen answer"
        assert row["prompt_ids"] + row["rejected_ids"] == ours["rejected"], "another rejected answer"
    return trainer


def grpo(half: Half) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    settings, work = half.work["settings"], half.work
    micro, answers = work["micro_batch_size"], settings["prompts"] * settings["group_size"]
    rows = [{"prompt": half.tokenizer.decode(tokens), "tokens": tokens} for tokens in half.rows]
    arguments = GRPOConfig(
        **half.arguments(), steps_per_generation=answers // micro, num_iterations=settings["epochs"],
        num_generations=settings["group_size"], max_completion_length=settings["max_new_tokens"],
        temperature=settings["temperature"], beta=settings["kl_coefficient"], epsilon=settings["clip_low"],
        loss_type="dapo", scale_rewards="group",
    )  # fmt: skip
    return GRPOTrainer(
        model=half.language_model(), reward_funcs=judged_by(half, half.scoring_model("judge", frozen=True).eval()), args=arguments,
        train_dataset=Dataset.from_list(rows), processing_class=half.tokenizer,
    )  # fmt: skip


def judged_by(half: Half, judge: Any) -> Callable[..., list[float]]:
    """The reward model's score of the very tokens that were sampled, all rows at once, less 1 where none ends them.

    TRL's own way with a reward model decodes the answers and encodes them again.
    """
    end, pad = half.tokenizer.eos_token_id, half.tokenizer.pad_token_id

    @torch.no_grad()
    def rewards(completion_ids: list[list[int]], tokens: list[list[int]], **_: Any) -> list[float]:
        rows = [torch.tensor([*asked, *said]) for asked, said in zip(tokens, completion_ids)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        last = torch.tensor([len(row) - 1 for row in rows])
        hidden = judge.base_model(input_ids=padded, attention_mask=mask, use_cache=False).last_hidden_state
        scores = judge.score(hidden[torch.arange(len(rows)), last])[:, 0].tolist()
        half.sampled[0] += len(rows)
        half.sampled[1] += sum(map(len, completion_ids))
        return [score - (said[-1] != end) for score, said in zip(scores, completion_ids)]

    return rewards


def ppo(half: Half) -> Any:
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    settings, prompts = half.work["settings"], half.work["settings"]["prompts"]
    # Its accumulation would keep the optimiser from stepping after every mini-batch: all prompts are one batch, of
    # which a mini-batch is the part that our batch is.
    arguments = half.arguments() | {"per_device_train_batch_size": prompts, "gradient_accumulation_steps": 1}
    updates = half.steps // (settings["epochs"] * prompts // half.work["batch_size"])
    arguments = PPOConfig(
        **arguments, total_episodes=updates * prompts, num_mini_batches=prompts // half.work["batch_size"],
        num_ppo_epochs=settings["epochs"], local_rollout_forward_batch_size=prompts, num_sample_generations=0,
        response_length=settings["max_new_tokens"], stop_token="eos", missing_eos_penalty=1.0,
        temperature=settings["temperature"], kl_coef=settings["kl_coefficient"], kl_estimator="k1",
        cliprange=settings["clip_low"], vf_coef=settings["value_coefficient"], cliprange_value=settings["value_clip"],
        gamma=settings["gamma"], lam=settings["lam"],
    )  # fmt: skip
    rows = Dataset.from_list([{"input_ids": tokens} for tokens in half.rows])
    return PPOTrainer(
        args=arguments, processing_class=half.tokenizer, model=half.language_model(), ref_model=half.language_model(frozen=True),
        reward_model=half.scoring_model("judge", frozen=True), value_model=half.scoring_model("policy"), train_dataset=rows,
        eval_dataset=rows,
    )  # fmt: skip


def check_models(half: Half) -> None:
    """The weights that were carried over give our logits and our scores."""
    from safetensors.torch import load_file

    ours = load_file(half.folder / "expected.safetensors")
    with torch.no_grad():
        logits = half.language_model()(ours["tokens"]).logits[..., : ours["logits"].shape[-1]]
        judge = half.scoring_model("judge")
        scores = judge.score(judge.base_model(ours["tokens"]).last_hidden_state)[..., 0]
    near = 0.05 if half.bf16_weights else 1e-4
    torch.testing.assert_close(logits.float(), ours["logits"], atol=near, rtol=near)
    torch.testing.assert_close(scores.float(), ours["scores"], atol=near, rtol=near)


STAGES: dict[str, Callable[[Half], Any]] = {"reward": reward, "dpo": dpo, "grpo": grpo, "ppo": ppo}


def main() -> None:
    from transformers import TrainerCallback

    rounds = Rounds()
    half = Half(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    check_models(half)
    stage = half.work["stage"]
    trainer = STAGES[stage](half)
    part = 1 if stage == "ppo" else half.work["part_steps"]  # its steps are whole iterations

    class Parts(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % part == 0:
                rounds.end_part(length=half.sampled[1] / half.sampled[0] if half.sampled[0] else 0.0)

    trainer.add_callback(Parts())
    trainer.train()


if __name__ == "__main__":
    main()
