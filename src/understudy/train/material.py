"""What a stage trains on and is judged by: its data opened, its objective, its source of batches and its judge.

Here are the stages that predict the next token; those that learn from preferences and rewards are in align/.
Not here: the model, the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from understudy.config import RunConfig
from understudy.data.conversations import Conversations, open_conversations
from understudy.data.folder import data_tokenizer, text_sha256
from understudy.data.loader import Batch, Windows, consecutive_batches
from understudy.data.packing import PackedRows, RenderedSet, all_rows, render_set
from understudy.data.shards import open_split
from understudy.evaluate.loss import LossResult, loss_over
from understudy.model import GPT, Bigram
from understudy.run import Run, RunFolder
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, check_messages, end_ids, render
from understudy.train.loop import Fixed, Source
from understudy.train.objectives import NextToken, Objective

Judge = Callable[[Objective, int], tuple[LossResult, dict[str, float]]]
"""Given an objective and the size of a batch: the validation loss, and what else was measured on the way, by name."""


class Rows(Protocol):
    """Samples by number, without end: a pure function of what they were made from and their number."""

    def batch(self, first: int, size: int) -> Batch: ...


@dataclass(frozen=True)
class Setting:
    """Where a course is prepared: ``model`` has its first weights, those of the parent where there is one."""

    config: RunConfig
    folder: RunFolder
    runtime: Runtime
    model: GPT | Bigram
    parent: Run | None


@dataclass(frozen=True)
class Course:
    """What the loop is handed.

    Attributes:
        optimizers: those of parameters that the objective has beside its model.
        keep: writes into the run's folder what the last evaluation found beside its numbers; it is called with the step
            whenever that is the checkpoint that others will use.
    """

    objective: Objective
    source: Source
    judge: Judge
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    keep: Callable[[int], None] = lambda step: None


@dataclass(frozen=True)
class Material:
    """One stage's data, opened.

    Attributes:
        prepare: makes of a model, and of where it runs, what the loop needs: a :class:`Course`.
        prompts: what the samples shown at each evaluation continue, as (what is shown of it, text or token ids).
        ends: ids that end such a sample.
        about: what run.json says of the data.
        notes: what to tell whoever watches.
        evaluate_first: evaluate before the first step too, since the end is to be held against the beginning.
    """

    tokenizer: Tokenizer
    prepare: Callable[[Setting], Course]
    prompts: list[tuple[str, str | list[int]]]
    ends: frozenset[int]
    about: dict[str, Any]
    notes: list[str]
    evaluate_first: bool = False


def text_material(config: RunConfig) -> Material:
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

    def prepare(setting: Setting) -> Course:
        def judge(objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
            runtime, text_bytes = setting.runtime, None if short else val.bytes
            batches = consecutive_batches(val_tokens, context, size, runtime.rank, runtime.world_size)
            return loss_over(objective.model, batches, runtime, text_bytes), {}

        return Course(_next_token(setting), by_sample(rows, setting), judge)

    return Material(
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


def conversation_material(config: RunConfig, tokenizer: Tokenizer) -> Material:
    """Conversations, rendered and packed. ``tokenizer`` speaks chat.

    Raises:
        ValueError: no such data, or nothing in it to train on.
    """
    path = present_data(config)
    context = config.model.context_length
    opened = {split: open_conversations(path, split) for split in ("train", "val")}
    sets = {split: _rendered(conversations, config, tokenizer) for split, conversations in opened.items()}
    train, val = sets["train"], sets["val"].first(config.eval.max_tokens)
    rows = PackedRows(train, context, config.train.seed, bool(config.data.pack))

    def prepare(setting: Setting) -> Course:
        def judge(objective: Objective, size: int) -> tuple[LossResult, dict[str, float]]:
            runtime = setting.runtime
            return loss_over(
                objective.model, all_rows(val, context, size, runtime.rank, runtime.world_size), runtime
            ), {}

        return Course(_next_token(setting), by_sample(rows, setting), judge)

    return Material(
        tokenizer=tokenizer,
        prepare=prepare,
        prompts=shown_prompts(config, tokenizer, (messages[:1] for messages in _questions(opened["val"]))),
        ends=end_ids(tokenizer),
        about={
            "path": str(path), "sha256": opened["train"].sha256,
            **{f"{split}_{what}": number for split, each in sets.items() for what, number in (
                ("conversations", len(each)), ("tokens", len(each.tokens)), ("trained_tokens", int(each.mask.sum())))},
            "counts": {split: vars(each.counts) for split, each in sets.items()},
        },
        notes=[f"{split}: {each.counts}" for split, each in sets.items()],
    )  # fmt: skip


def shown_prompts(
    config: RunConfig, tokenizer: Tokenizer, questions: Iterable[Sequence[Message]]
) -> list[tuple[str, str | list[int]]]:
    """What the samples answer: log.prompts, else the first of ``questions``, but for those that fill the context."""
    asked = [[{"role": "user", "content": prompt}] for prompt in config.log.prompts] or questions
    shown = [
        (f"user: {messages[-1]['content']}\nassistant: ", render(tokenizer, list(messages), reply=True).tokens)
        for messages in islice(asked, config.log.samples)
    ]
    return [(text, tokens) for text, tokens in shown if len(tokens) < config.model.context_length]


def _next_token(setting: Setting) -> NextToken:
    return NextToken(setting.model, setting.config.train.loss_chunk_tokens)


def by_sample(rows: Rows, setting: Setting) -> Fixed:
    """The micro-batches of a step: the samples that follow those of the steps before, shared by the processes."""
    config, runtime = setting.config, setting.runtime
    total, micro = config.train.batch_size, config.train.micro_batch
    share = share_of_batch(config, runtime)

    def batches(step: int) -> list[Batch]:
        first = step * total + runtime.rank * share
        return [rows.batch(first + start, micro) for start in range(0, share, micro)]

    return Fixed(batches)


def share_of_batch(config: RunConfig, runtime: Runtime) -> int:
    """The samples of a step that one process takes.

    Raises:
        ValueError: the processes, or their micro-batches, cannot share a batch evenly.
    """
    total, processes, micro = config.train.batch_size, runtime.world_size, config.train.micro_batch_size
    if total % processes:
        raise ValueError(f"train.batch_size {total} cannot be shared by {processes} processes; choose a multiple")
    share = total // processes
    if micro and share % micro:
        raise ValueError(
            f"each of {processes} processes takes {share} samples a step, and train.micro_batch_size {micro} does not "
            "divide that; choose a divisor"
        )
    return share


def present_data(config: RunConfig) -> Path:
    """The path of the data, which must be there."""
    path = Path(config.data.path)
    if path.exists():
        return path
    source = config.data.source or "SOURCE"
    if config.stage != "pretrain":
        kinds = {"sft": "conversations", "ppo": "prompts", "grpo": "prompts"}
        options = f"--kind {kinds.get(config.stage, 'preferences')}"
    else:
        size = f" --vocab-size {config.tokenizer.vocab_size}" if config.tokenizer.vocab_size else ""
        options = f"--tokenizer {config.tokenizer.kind or 'bpe'}{size}"
    raise ValueError(
        f"there is no data in {path}; prepare it first: `understudy prepare {source} {options} --out {path}`"
    )


def _rendered(conversations: Conversations, config: RunConfig, tokenizer: Tokenizer) -> RenderedSet:
    messages = (record["messages"] for record in conversations)
    too_long = config.data.too_long or "cut"
    return render_set(messages, tokenizer, config.model.context_length, too_long, conversations.weights)


def _questions(conversations: Conversations) -> Iterator[list[dict[str, str]]]:
    """The conversations without system messages, each beginning with what a user says."""
    for record in conversations:
        if (messages := check_messages(record["messages"]))[0]["role"] == "user":
            yield messages
