"""Pretraining: predict the next token of text."""

from __future__ import annotations

from understudy.config import RunConfig
from understudy.data.loader import Windows, consecutive_batches
from understudy.data.text.folder import data_tokenizer, text_sha256
from understudy.data.text.shards import open_split
from understudy.evaluate.loss import LossResult, loss_over
from understudy.train.objective import Objective
from understudy.train.stage import StageContext, StageData, TrainingSetup, _next_token, by_sample, present_data


def text_material(config: RunConfig) -> StageData:
    """Token files, in windows.

    Raises:
        ValueError: no such data, or another tokenizer than the configuration expects.
    """
    path = present_data(config)
    tokenizer = data_tokenizer(config)
    tokenizer.encode(config.log.prompt)  # a prompt that cannot be sampled from is refused before training
    vocab_size = config.model.vocab_size or tokenizer.vocab_size
    train, val = (open_split(path, split, vocab_size) for split in ("train", "val"))
    rows = Windows(train.tokens, config.model.context_length, config.train.seed)
    context, most = config.model.context_length, config.eval.max_tokens
    short = most is not None and most < len(val.tokens)
    val_tokens = val.tokens[:most] if short else val.tokens
    if len(val_tokens) < 2:
        raise ValueError(f"the validation split in {path} has {len(val_tokens)} tokens, and nothing can be predicted")
    prompt = config.log.prompt
    if not prompt and tokenizer.eot_id is None:  # characters have no sign for a beginning
        prompt = tokenizer.decode(val.tokens[:1])

    def prepare(setting: StageContext) -> TrainingSetup:
        def judge(objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
            runtime, text_bytes = setting.runtime, None if short else val.bytes
            batches = consecutive_batches(val_tokens, context, size, runtime.rank, runtime.world_size)
            return loss_over(objective.model, batches, runtime, text_bytes), {}

        return TrainingSetup(_next_token(setting), by_sample(rows, setting), judge)

    return StageData(
        tokenizer=tokenizer,
        prepare=prepare,
        prompts=[(prompt.lstrip("\n"), prompt)] * config.log.samples,
        ends=frozenset(),
        about={
            "path": str(train.path), "sha256": text_sha256(train), "train_tokens": len(train.tokens),
            "val_tokens": len(val.tokens), "val_bytes": val.bytes,
        },
        notes=[],
    )  # fmt: skip
