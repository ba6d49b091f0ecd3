"""The TRL side of lora_vs_trl.py: one finetuning with PEFT adapters, in an interpreter that has trl and peft.

    python benchmarks/trl_lora_side.py MODEL DATA.jsonl OPTIONS_AS_JSON

Prints one line of JSON: seconds of each step, tokens without padding of each step, losses before and after on the held-out
conversations.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)


class Counting(SFTTrainer):
    """Counts the tokens of each batch without padding."""

    counts: list[int]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.counts.append(int(inputs["attention_mask"].sum()))
        return super().training_step(model, inputs, *args, **kwargs)


def main() -> None:
    model_path, data_path, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    torch.set_num_threads(options["threads"])
    rows = [json.loads(line) for line in Path(data_path).read_text(encoding="utf-8").splitlines()]
    data = Dataset.from_list([{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows])
    held_out = data.select(range(options["held_out"]))
    train = data.select(range(options["held_out"], len(data)))
    clock = Clock()
    config = SFTConfig(
        output_dir=options["out"], max_steps=options["steps"], per_device_train_batch_size=options["batch_size"],
        per_device_eval_batch_size=8, learning_rate=options["lr"], warmup_steps=options["warmup"],
        lr_scheduler_type="constant_with_warmup", weight_decay=0.0, max_grad_norm=1.0, bf16=options["bf16"],
        gradient_checkpointing=options["gradient_checkpointing"], max_length=options["context"], use_cpu=True,
        report_to=[], save_strategy="no", logging_strategy="no", seed=options["seed"], disable_tqdm=True,
        dataloader_num_workers=0, loss_type=options["loss_type"], gradient_accumulation_steps=options["accumulation"],
    )  # fmt: skip
    dtype = torch.bfloat16 if options["bf16"] else torch.float32
    trainer = Counting(
        AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype), config, train_dataset=train,
        eval_dataset=held_out if len(held_out) else None, processing_class=AutoTokenizer.from_pretrained(model_path), callbacks=[clock],
        peft_config=LoraConfig(r=options["rank"], lora_alpha=options["alpha"], target_modules="all-linear"),
    )  # fmt: skip
    trainer.counts = []
    before = trainer.evaluate()["eval_loss"] if options["evaluate"] else None
    trainer.train()
    after = trainer.evaluate()["eval_loss"] if options["evaluate"] else None
    parts = options["accumulation"]
    counts = [sum(trainer.counts[first : first + parts]) for first in range(0, len(trainer.counts), parts)]
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    print(json.dumps({
        "seconds": clock.seconds, "tokens": counts, "before": before, "after": after,
        "trained_parameters": trained,
    }))  # fmt: skip


main()
