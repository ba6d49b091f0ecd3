"""Prompts answered by a model, and answers read again: as rows, token by token.

Sampling and reading are the same model at the same temperature, without truncation. What answers are worth is in
rewards.py.

Shapes: N answers, A tokens of the longest, M tokens of all of them; R rows, T time, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.config import RolloutConfig
from understudy.data.loader import Batch
from understudy.data.packing import lay_in_rows
from understudy.data.prompts import Prompt
from understudy.evaluate.runner import autocast_of
from understudy.inference.engine import evaluating, generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.losses import token_logprobs, vocabulary_logprobs
from understudy.model import GPT
from understudy.model.masks import prefix_shared
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import end_ids, render

AT_ONCE = 128
"""Answers sampled at a time."""
READ_AT_ONCE = 64
"""Answers read without gradients at a time."""


@dataclass(frozen=True)
class Asked:
    """A prompt ready to be answered."""

    prompt: Prompt
    tokens: list[int]


@dataclass(frozen=True)
class Answer:
    """What the policy said: ``tokens`` and their log-probabilities as sampled; ``ended`` by itself."""

    asked: Asked
    tokens: list[int]
    logprobs: list[float]
    ended: bool
    text: str


def fitting(prompts: Iterable[Prompt], tokenizer: Tokenizer, room: int) -> list[Asked]:
    """The prompts of at most ``room`` tokens."""
    asked = [Asked(prompt, render(tokenizer, list(prompt.messages), reply=True).tokens) for prompt in prompts]
    return [each for each in asked if len(each.tokens) <= room]


def ask(
    model: GPT,
    tokenizer: Tokenizer,
    asked: Sequence[Asked],
    config: RolloutConfig,
    seed: int,
    runtime: Runtime,
    first: int = 0,
) -> list[Answer]:
    """Sample an answer to each prompt. What is drawn depends on the seed and on the prompt's number, the first being
    ``first``, and not on what else is asked or by how many processes."""
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].tokens))  # alike in length, there is little padding
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), AT_ONCE):
        batch = order[start : start + AT_ONCE]
        with runtime.autocast():  # around all steps, so that the weights are cast once and not for each token
            completions = generate_text(
                model, tokenizer, [asked[i].tokens for i in batch], config.max_new_tokens,
                SamplingSettings(config.temperature, seed=seed), autocast=autocast_of(runtime),
                end_ids=end_ids(tokenizer), numbers=[first + i for i in batch],
            )  # fmt: skip
        for i, said in zip(batch, completions):
            answers[i] = Answer(asked[i], said.tokens, said.logprobs, said.finish_reason == "stop", said.text.strip())
    return [answers[i] for i in range(len(asked))]


def lay_out(answers: Sequence[Answer], context_length: int) -> Batch:
    """Answers with their prompts, several to a row.

    Returns:
        ``tokens``, ``documents`` and ``branch_ids`` (R, T), a prompt being read once for all of its answers; ``places``
        (M,), where in R x T the M tokens of all answers are predicted, answer by answer; ``targets`` (M,), those tokens.
    """
    batch, places = lay_in_rows([(answer.asked.tokens, answer.tokens[:-1]) for answer in answers], context_length)
    batch["places"] = torch.cat(places)
    batch["targets"] = torch.tensor([token for answer in answers for token in answer.tokens])
    return batch


def token_mask(answers: Sequence[Answer]) -> Tensor:
    """(N, A), true for the tokens of each answer, A being those of the longest."""
    lengths = torch.tensor([len(answer.tokens) for answer in answers])
    return torch.arange(int(lengths.max())) < lengths[:, None]


def sampled_logprobs(answers: Sequence[Answer]) -> Tensor:
    """(N, A) what each token of each answer was sampled with, 0 beyond its end."""
    mask = token_mask(answers)
    each = torch.tensor([logprob for answer in answers for logprob in answer.logprobs])
    return torch.zeros(mask.shape).masked_scatter(mask, each)


@torch.no_grad()
def read_answers(
    answers: Sequence[Answer], read: Callable[[Batch], Tensor], model: torch.nn.Module, context_length: int,
    runtime: Runtime,
) -> Tensor:  # fmt: skip
    """What ``read`` finds for each token of the answers, (N, A), 0 beyond an answer's end; in evaluation mode."""
    found = []
    with evaluating(model), runtime.autocast():
        for start in range(0, len(answers), READ_AT_ONCE):
            batch = lay_out(answers[start : start + READ_AT_ONCE], context_length)
            found.append(read({name: tensor.to(runtime.device) for name, tensor in batch.items()}).float().cpu())
    mask = token_mask(answers)
    return torch.zeros(mask.shape).masked_scatter(mask, torch.cat(found))


def states(model: GPT, batch: Batch, at: Tensor | None = None) -> Tensor:
    """The hidden states (M, D) from which the tokens of answers are predicted, or those ``at`` other places."""
    at = batch["places"] if at is None else at
    return model.hidden(batch["tokens"], prefix_shared(batch["documents"], batch["branch_ids"], at))


def answer_logprobs(model: GPT, temperature: float) -> Callable[[Batch], Tensor]:
    """Reads the log-probability (M,) of each token."""

    def read(batch: Batch) -> Tensor:
        logits = model.logits(states(model, batch)[None])[0]
        return token_logprobs(logits, batch["targets"], temperature)

    return read


def divergence(model: GPT, reference: GPT, temperature: float) -> Callable[[Batch], Tensor]:
    """Reads the KL divergence (M,) of the policy's next token from the reference's, over the whole vocabulary.

    Summed over an answer drawn from the policy it is an unbiased estimate of the divergence of whole answers, and it is
    never negative.
    """

    def read(batch: Batch) -> Tensor:
        ours, theirs = (
            vocabulary_logprobs(m.logits(states(m, batch)[None])[0], temperature) for m in (model, reference)
        )
        return (ours.exp() * (ours - theirs)).sum(-1).clamp(min=0)

    return read
