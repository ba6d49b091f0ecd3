"""Preferences as batches: the completions of each prompt with the pairs among them, in rows that share prefixes.

All completions of a prompt are in one batch, since the pairs among them are learnt from together.

Shapes: B rows of a batch, T width, N completions of a batch, M trained tokens of all of them, P pairs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch

from understudy.data.chat.packing import nothing_fits, pack_prefix_trees
from understudy.data.chat.preferences import Pair, PreferenceComparison
from understudy.data.loader import Batch, shuffled
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, RefusedConversation, fit, render


@dataclass(frozen=True)
class EncodedCompletion:
    """Token ids of a prompt, up to where the completion begins, and of a completion, up to the end of its last turn.

    ``mask``: whether each token of the completion is the assistant's. Others, where a completion has several turns, are
    read and not trained on.
    """

    prompt: list[int]
    completion: list[int]
    mask: list[bool]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class EncodedComparison:
    """The completions of one prompt and the pairs among them. ``first``: the index of its first completion among those
    of the split."""

    first: int
    completions: list[EncodedCompletion]
    pairs: tuple[Pair, ...]
    category: str
    true_scores: tuple[float | None, ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.completions))


@dataclass
class FittedPrompts:
    """Counts of shortened and dropped prompts (``refused``: by the chat template)."""

    shortened: int = 0
    too_long: int = 0
    refused: int = 0

    def remarks(self, noun: str) -> list[str]:
        """A phrase for each count that is not 0."""
        parts = [f"{self.shortened:,} {noun} without their oldest turns, which did not fit"] if self.shortened else []
        parts += [f"{self.too_long:,} {noun} dropped, since a completion does not fit"] if self.too_long else []
        return parts + ([f"{self.refused:,} {noun} dropped, refused by the chat template"] if self.refused else [])

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Message], answers: Sequence[Sequence[Message]],
        context_length: int,
    ) -> list[EncodedCompletion] | None:  # fmt: skip
        """A prompt with each of its answers; None if it is dropped. A prompt that does not fit with the longest answer loses
        its oldest turns, or is dropped.

        Raises:
            ValueError: a message that cannot be rendered.
        """
        prompt = list(messages)
        try:
            completions = [encode_completion(tokenizer, prompt, answer) for answer in answers]
        except RefusedConversation:
            self.refused += 1
            return None
        if max(map(len, completions)) <= context_length:
            return completions
        longest = max(len(completion.completion) for completion in completions)
        try:
            prompt = fit(tokenizer, prompt, context_length - longest).messages
        except ValueError:
            self.too_long += 1
            return None
        self.shortened += 1
        return [encode_completion(tokenizer, prompt, answer) for answer in answers]


@dataclass
class EncodedPreferences(FittedPrompts):
    """The comparisons of a split in order, and counts of shortened and dropped prompts."""

    comparisons: list[EncodedComparison] = field(default_factory=list)

    @property
    def prompts(self) -> int:
        return len(self.comparisons)

    @property
    def completions(self) -> int:
        return sum(len(comparison.completions) for comparison in self.comparisons)

    @property
    def pairs(self) -> int:
        return sum(len(comparison.pairs) for comparison in self.comparisons)

    @property
    def tokens(self) -> int:
        return sum(comparison.tokens for comparison in self.comparisons)

    def limit(self, max_tokens: int | None) -> EncodedPreferences:
        """The first comparisons, at least one, of at most ``max_tokens`` in all; None: all of them."""
        if max_tokens is None:
            return self
        ends = list(accumulate(comparison.tokens for comparison in self.comparisons))
        return replace(self, comparisons=self.comparisons[: max(1, bisect_right(ends, max_tokens))])

    def __str__(self) -> str:
        text = f"{self.prompts:,} prompts with {self.completions:,} completions and {self.pairs:,} pairs"
        return ", ".join([text, *self.remarks("prompts")])


def encode_preferences(
    comparisons: Iterable[PreferenceComparison], tokenizer: Tokenizer, context_length: int, split: str = "train"
) -> EncodedPreferences:
    """Encode the comparisons of a split for a context of ``context_length`` tokens.

    A prompt that does not fit with its longest completion loses its oldest turns, or is dropped.

    Raises:
        ValueError: a message that cannot be rendered, or no comparison that fits.
    """
    encoded, first = EncodedPreferences(), 0
    for comparison in comparisons:
        completions = encoded.encode(tokenizer, comparison.prompt, comparison.answers, context_length)
        if completions is None:
            continue
        encoded.comparisons.append(
            EncodedComparison(first, completions, comparison.pairs, comparison.category, comparison.truths)
        )
        first += len(completions)
    if not encoded.comparisons:
        raise nothing_fits("preference", split, encoded)
    return encoded


def encode_completion(
    tokenizer: Tokenizer, prompt: Sequence[Message], completion: Sequence[Message]
) -> EncodedCompletion:
    """Encode a prompt and a completion: an answer, or an answer and further turns."""
    rendered = render(tokenizer, [*prompt, *completion])
    start = rendered.mask.index(True, rendered.contents[len(prompt) - 1].stop)
    end = 1 + max(index for index, trained in enumerate(rendered.mask) if trained)
    return EncodedCompletion(rendered.tokens[:start], rendered.tokens[start:end], rendered.mask[start:end])


class PairRows:
    """Samples are comparisons, shuffled anew each epoch.

    Args:
        reference_logprobs: (completions of the split,), which go with each batch; None for objectives without.
    """

    def __init__(
        self, preferences: EncodedPreferences, context_length: int, seed: int,
        reference_logprobs: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        self.comparisons, self.context_length, self.seed = preferences.comparisons, context_length, seed
        self.reference_logprobs = reference_logprobs

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size`` as a batch."""
        indices = (shuffled(sample, len(self.comparisons), self.seed) for sample in range(first, first + size))
        comparisons = [self.comparisons[index] for index in indices]
        return collate_pairs(comparisons, self.context_length, self.reference_logprobs)


def collate_completions(completions: Sequence[EncodedCompletion], context_length: int) -> Batch:
    """A batch of completions, each of which fits the context with its prompt.

    Returns:
        ``tokens``, ``documents`` and ``branch_ids`` (B, T), as :func:`pack_prefix_trees` lays them out.
        ``ends`` (N,): the place in B x T of the last token of each completion.
        ``places``, ``targets`` and ``completion_index`` (M,): for each trained token the place in B x T that predicts
        it, its id, and the index of its completion in the batch.
    """
    rows, places = pack_prefix_trees([(c.prompt, c.completion) for c in completions], context_length)
    masks = [torch.tensor(completion.mask) for completion in completions]
    targets = [torch.tensor(completion.completion)[mask] for completion, mask in zip(completions, masks)]
    return rows | {
        "ends": torch.stack([place[-1] for place in places]),
        "places": torch.cat([place[:-1][mask] for place, mask in zip(places, masks)]),
        "targets": torch.cat(targets),
        "completion_index": torch.arange(len(targets)).repeat_interleave(torch.tensor(list(map(len, targets)))),
    }


def collate_pairs(
    comparisons: Sequence[EncodedComparison], context_length: int, reference_logprobs: torch.Tensor | None = None
) -> Batch:
    """A batch of comparisons.

    Returns:
        What :func:`collate_completions` gives, and
        ``chosen`` and ``rejected`` (P,): indices of completions; ``margin``, ``tie`` and ``weight`` (P,), where the
        weights of a prompt's pairs add up to 1;
        ``reference_logprobs`` (N,), where given.
    """
    completions = [completion for comparison in comparisons for completion in comparison.completions]
    pairs, first = [], 0
    for comparison in comparisons:
        pairs += [(first, pair, 1 / len(comparison.pairs)) for pair in comparison.pairs]
        first += len(comparison.completions)
    batch = collate_completions(completions, context_length) | {
        "chosen": torch.tensor([first + pair.chosen for first, pair, _ in pairs]),
        "rejected": torch.tensor([first + pair.rejected for first, pair, _ in pairs]),
        "margin": torch.tensor([pair.margin for _, pair, _ in pairs]),
        "tie": torch.tensor([pair.tie for _, pair, _ in pairs]),
        "weight": torch.tensor([weight for _, _, weight in pairs]),
    }
    if reference_logprobs is not None:
        indices = [comparison.first + k for comparison in comparisons for k in range(len(comparison.completions))]
        batch["reference_logprobs"] = reference_logprobs[indices]
    return batch


def comparison_batches(
    preferences: EncodedPreferences, context_length: int, batch_size: int, rank: int = 0, world_size: int = 1,
    reference_logprobs: torch.Tensor | None = None,
) -> Iterator[tuple[list[EncodedComparison], Batch]]:  # fmt: skip
    """For evaluation: every ``world_size``-th batch of the comparisons in order, from batch ``rank`` on."""
    starts = range(0, len(preferences.comparisons), batch_size)
    for start in starts[rank::world_size]:
        comparisons = preferences.comparisons[start : start + batch_size]
        yield comparisons, collate_pairs(comparisons, context_length, reference_logprobs)
