"""Judgements as batches: completions with their labels, and the mismatched completions that KTO estimates a KL from.

Shapes: N completions of a batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch

from understudy.data.chat.judgements import LabelledCompletion
from understudy.data.chat.packing import nothing_fits
from understudy.data.chat.pair_rows import EncodedCompletion, FittedPrompts, collate_completions
from understudy.data.loader import Batch, shuffled
from understudy.tokenizer import Tokenizer


@dataclass
class EncodedJudgements(FittedPrompts):
    """The completions of a split in order, whether each is desirable, and counts of shortened and dropped ones."""

    completions: list[EncodedCompletion] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)

    @property
    def desirable(self) -> int:
        return sum(self.labels)

    @property
    def undesirable(self) -> int:
        return len(self.labels) - self.desirable

    @property
    def tokens(self) -> int:
        return sum(map(len, self.completions))

    def limit(self, max_tokens: int | None) -> EncodedJudgements:
        """The first completions, at least one, of at most ``max_tokens`` in all; None: all of them."""
        if max_tokens is None:
            return self
        count = max(1, bisect_right(list(accumulate(map(len, self.completions))), max_tokens))
        return replace(self, completions=self.completions[:count], labels=self.labels[:count])

    def __str__(self) -> str:
        count = len(self.completions)
        text = f"{count:,} judgements, {self.desirable:,} desirable and {self.undesirable:,} undesirable"
        return ", ".join([text, *self.remarks("judgements")])


def encode_judgements(
    judgements: Iterable[LabelledCompletion], tokenizer: Tokenizer, context_length: int, split: str = "train"
) -> EncodedJudgements:
    """Encode the judgements of a split for a context of ``context_length`` tokens.

    A prompt that does not fit with its completion loses its oldest turns, or is dropped.

    Raises:
        ValueError: a message that cannot be rendered, or no judgement that fits.
    """
    encoded = EncodedJudgements()
    for judged in judgements:
        if completions := encoded.encode(tokenizer, judged.prompt, [judged.completion], context_length):
            encoded.completions += completions
            encoded.labels.append(judged.desirable)
    if not encoded.completions:
        raise nothing_fits("judgement", split, encoded)
    return encoded


def mismatched(
    prompt_of: EncodedCompletion, completion_of: EncodedCompletion, context_length: int
) -> EncodedCompletion:
    """The prompt of one row with the completion of another. The first tokens of a prompt that does not fit are left out."""
    room = context_length - len(completion_of.completion)
    return EncodedCompletion(prompt_of.prompt[-room:], completion_of.completion, completion_of.mask)


def mismatched_split(completions: list[EncodedCompletion], context_length: int) -> list[EncodedCompletion]:
    """Each prompt of a split with the completion that comes half of the split later, from the end on at the beginning.

    Judgements of one prompt often stand side by side, and half of the split apart they seldom do. A single row keeps its
    own completion.
    """
    shift = len(completions) // 2
    others = completions[shift:] + completions[:shift]
    return [mismatched(row, other, context_length) for row, other in zip(completions, others, strict=True)]


class JudgementRows:
    """Samples are judgements, shuffled anew each epoch.

    Args:
        reference_logprobs: (judgements of the split,), the log-probability of each completion under the reference model.
    """

    def __init__(
        self, judgements: EncodedJudgements, context_length: int, seed: int, reference_logprobs: torch.Tensor
    ) -> None:
        self.completions, self.context_length, self.seed = judgements.completions, context_length, seed
        self.labels, self.reference_logprobs = torch.tensor(judgements.labels), reference_logprobs

    def index(self, sample: int) -> int:
        """The index of the judgement that a sample is."""
        return shuffled(sample, len(self.completions), self.seed)

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size``: what :func:`collate_completions` gives, ``desirable`` (N,) booleans, and
        ``reference_logprobs`` (N,)."""
        indices = [self.index(sample) for sample in range(first, first + size)]
        batch = collate_completions([self.completions[index] for index in indices], self.context_length)
        return batch | {"desirable": self.labels[indices], "reference_logprobs": self.reference_logprobs[indices]}


class MismatchedRows:
    """Samples are the prompt of a sample of ``rows`` with the completion of the next sample of the same step, of the last
    one with that of the first.

    Args:
        batch_size: samples of a step over all processes, so that the pairs do not depend on how a step is divided.
    """

    def __init__(self, rows: JudgementRows, batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size``, as :func:`collate_completions` lays them out."""
        completions = [self._sample(sample) for sample in range(first, first + size)]
        return collate_completions(completions, self.rows.context_length)

    def _sample(self, sample: int) -> EncodedCompletion:
        step, place = divmod(sample, self.batch_size)
        other = step * self.batch_size + (place + 1) % self.batch_size
        prompt_of, completion_of = (self.rows.completions[self.rows.index(number)] for number in (sample, other))
        return mismatched(prompt_of, completion_of, self.rows.context_length)
