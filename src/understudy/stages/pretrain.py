"""Pretraining: next-token prediction over text."""

from __future__ import annotations

import time

import torch

from understudy.config.run import RunConfig
from understudy.data.loader import Windows, consecutive_batches
from understudy.data.mixture import MixedWindows, Phase
from understudy.data.text.shards import data_tokenizer, open_split
from understudy.evaluation.loss import LossResult, loss_over, pooled
from understudy.files import sha256_of_text
from understudy.model import GPT
from understudy.tokenizer import Tokenizer
from understudy.train.bigram_start import start_from_bigrams
from understudy.train.objective import NextToken
from understudy.train.stage import IndexedBatches, StageContext, TrainingStage, existing_data


class Pretrain(TrainingStage):
    """Next-token prediction over windows of token files."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer | None) -> None:
        """Open the token files. Their tokenizer must be the parent's, if there is one."""
        super().__init__(config, tokenizer)
        paths = existing_data(config)
        self.tokenizer = data_tokenizer(config)
        if tokenizer and tokenizer.sha256 != self.tokenizer.sha256:
            raise ValueError(
                f"the data was prepared with another tokenizer than the run {config.init_from} has; prepare it with "
                f"`--tokenizer {config.init_from}/tokenizer.json`"
            )
        self.tokenizer.encode(config.log.prompt)  # a prompt that cannot be sampled from is refused before training
        vocab_size = config.model.vocab_size or self.tokenizer.vocab_size
        train, self.val = ([open_split(path, split, vocab_size) for path in paths] for split in ("train", "val"))
        for data in train:
            if data.tokenizer_sha256 not in (None, self.tokenizer.sha256):
                raise ValueError(
                    f"the data in {data.path} was prepared with another tokenizer than that in {paths[0]}; prepare it with "
                    f"`--tokenizer {paths[0]}/tokenizer.json`"
                )
        self.parts = [Windows(data.tokens, config.model.context_length, config.train.seed) for data in train]
        self.epoch_samples = sum(part.per_epoch for part in self.parts)
        for data in self.val:
            if len(data.tokens[: self._eval_tokens(config)]) < 2:
                raise ValueError(
                    f"the validation split in {data.path} has too few tokens, and nothing can be predicted"
                )
        prompt = config.log.prompt
        if not prompt and self.tokenizer.eot_id is None:  # characters have no token for the beginning of a text
            prompt = self.tokenizer.decode(self.val[0].tokens[:1])
        self.sample_prompts = [(prompt.lstrip("\n"), prompt)] * config.log.samples
        self.data_summary = {
            "path": ", ".join(str(data.path) for data in train),
            "sha256": train[0].sha256()
            if len(train) == 1
            else sha256_of_text("".join(data.sha256() for data in train)),
            "train_tokens": sum(len(data.tokens) for data in train),
            "val_tokens": sum(len(data.tokens) for data in self.val),
            "val_bytes": sum(data.bytes or 0 for data in self.val) or None,
        }

    def setup(self, context: StageContext) -> None:
        self.runtime = context.runtime
        if context.config.train.bigram_start and not self.start_seconds and not context.folder.steps():
            self._start_from_bigrams(context)
        self.objective = NextToken(context.model, context.config.train.loss_chunk_tokens)
        self.batches = IndexedBatches(self._rows(context.config), context)

    def _start_from_bigrams(self, context: StageContext) -> None:
        if context.config.init_from:
            self.notes += ["train.bigram_start is not used: the weights are those of the run to start from"]
            return
        assert isinstance(context.model, GPT)  # the configuration refuses the bigram family
        began = time.perf_counter()
        loss = start_from_bigrams(context.model, [part.tokens for part in self.parts], context.runtime)
        elapsed = torch.tensor(time.perf_counter() - began)
        self.start_seconds = float(context.runtime.all_sum(elapsed)) / context.runtime.world_size  # the same everywhere
        self.notes.append(
            f"embeddings and head begin as a bigram model with a loss of {loss:.2f} on the training text "
            f"({self.start_seconds:.1f} s)"
        )

    def _rows(self, config: RunConfig) -> Windows | MixedWindows:
        if config.data.mixture is None:
            return self.parts[0]
        phases = [
            Phase(step * config.train.batch_size, tuple(part.weight_at(step) for part in config.data.mixture))
            for step in config.data.phase_steps()
        ]
        rows = MixedWindows(self.parts, phases, config.train.seed)
        drawn = rows.drawn(config.train.steps * config.train.batch_size)
        self.notes[:] = [
            note for note in self.notes if not note.startswith("mixture: ")
        ]  # of a plan with another batch
        self.notes.append("mixture: " + ", ".join(
            f"{data.path} {count / drawn.sum():.1%} of the windows, {count / part.per_epoch:.2g} epochs"
            for data, part, count in zip(self.val, self.parts, drawn.tolist())
        ))  # fmt: skip
        return rows

    def _eval_tokens(self, config: RunConfig) -> int | None:
        """Tokens of each validation split that are read."""
        return config.eval.max_tokens and max(2, config.eval.max_tokens // len(self.val))

    def evaluate(self, batch_size: int) -> tuple[LossResult, dict[str, float]]:
        runtime, length = self.runtime, self.config.model.context_length
        results = []
        for data in self.val:
            tokens = data.tokens[: self._eval_tokens(self.config)]
            read = data.bytes if len(tokens) == len(data.tokens) else self.tokenizer.count_bytes(tokens)
            batches = consecutive_batches(tokens, length, batch_size, runtime.rank, runtime.world_size)
            results.append(loss_over(self.objective.model, batches, runtime, read))
        if len(results) == 1:
            return results[0], {}
        names = [data.path.name for data in self.val]
        if len(set(names)) < len(names):
            names = [str(data.path) for data in self.val]
        return pooled(results), {f"val/loss/{name}": result.loss for name, result in zip(names, results)}
