"""Pretraining: next-token prediction over text."""

from __future__ import annotations

from understudy.config.run import RunConfig
from understudy.data.loader import Windows, consecutive_batches
from understudy.data.text.shards import data_tokenizer, open_split
from understudy.evaluation.loss import LossResult, loss_over
from understudy.tokenizer import Tokenizer
from understudy.train.objective import NextToken
from understudy.train.stage import IndexedBatches, StageContext, TrainingStage, existing_data


class Pretrain(TrainingStage):
    """Next-token prediction over windows of token files."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer | None) -> None:
        """Open the token files. Their tokenizer must be the parent's, if there is one."""
        super().__init__(config, tokenizer)
        path = existing_data(config)
        self.tokenizer = data_tokenizer(config)
        if tokenizer and tokenizer.sha256 != self.tokenizer.sha256:
            raise ValueError(
                f"the data was prepared with another tokenizer than the run {config.init_from} has; prepare it with "
                f"`--tokenizer {config.init_from}/tokenizer.json`"
            )
        self.tokenizer.encode(config.log.prompt)  # a prompt that cannot be sampled from is refused before training
        vocab_size = config.model.vocab_size or self.tokenizer.vocab_size
        train, val = (open_split(path, split, vocab_size) for split in ("train", "val"))
        self.rows = Windows(train.tokens, config.model.context_length, config.train.seed)
        self.epoch_samples = self.rows.per_epoch
        self.val = val
        if len(val.tokens[: config.eval.max_tokens]) < 2:
            raise ValueError(f"the validation split in {path} has too few tokens, and nothing can be predicted")
        prompt = config.log.prompt
        if not prompt and self.tokenizer.eot_id is None:  # characters have no token for the beginning of a text
            prompt = self.tokenizer.decode(val.tokens[:1])
        self.sample_prompts = [(prompt.lstrip("\n"), prompt)] * config.log.samples
        self.data_summary = {
            "path": str(train.path), "sha256": train.sha256(), "train_tokens": len(train.tokens),
            "val_tokens": len(val.tokens), "val_bytes": val.bytes,
        }  # fmt: skip

    def setup(self, context: StageContext) -> None:
        self.runtime = context.runtime
        self.objective = NextToken(context.model, context.config.train.loss_chunk_tokens)
        self.batches = IndexedBatches(self.rows, context)

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        runtime, length = self.runtime, self.config.model.context_length
        tokens = self.val.tokens[: self.config.eval.max_tokens]
        read = self.val.bytes if len(tokens) == len(self.val.tokens) else self.tokenizer.count_bytes(tokens)
        batches = consecutive_batches(tokens, length, batch_size, runtime.rank, runtime.world_size)
        return loss_over(self.objective.model, batches, runtime, read), {}
