"""Preferences as rows to train on: each answer with its prompt is a document, several to a row, and the documents of
one prompt are always in the same batch, where the pairs among them are learnt from together.

Shapes: B rows of a batch, T time (the longest row's), N documents (answers) of a batch, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from understudy.data.loader import Batch, shuffled
from understudy.data.packing import lay_in_rows
from understudy.data.preferences import Comparison, Pair
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, fit, render


@dataclass(frozen=True)
class Document:
    """A prompt and one answer to it: ``tokens`` up to the one that ends the answer, which starts at ``answer``."""

    tokens: list[int]
    answer: int


@dataclass(frozen=True)
class Unit:
    """One prompt's answers, as documents numbered from ``first``, and which of them are better than which."""

    first: int
    documents: list[Document]
    pairs: tuple[Pair, ...]
    category: str
    truths: tuple[float | None, ...]


@dataclass
class RenderedPairs:
    """Units in order, and what became of the prompts on the way."""

    units: list[Unit] = field(default_factory=list)
    documents: int = 0
    cut: int = 0
    too_long: int = 0

    @property
    def pairs(self) -> int:
        return sum(len(unit.pairs) for unit in self.units)

    @property
    def tokens(self) -> int:
        return sum(len(document.tokens) for unit in self.units for document in unit.documents)

    def __str__(self) -> str:
        parts = [f"{len(self.units):,} prompts with {self.documents:,} answers and {self.pairs:,} pairs"]
        parts += [f"{self.cut:,} prompts without their oldest turns, which did not fit"] if self.cut else []
        parts += [f"{self.too_long:,} left out, since an answer does not fit"] if self.too_long else []
        return ", ".join(parts)


def render_pairs(comparisons: Iterable[Comparison], tokenizer: Tokenizer, context_length: int) -> RenderedPairs:
    """Render answers for rows of ``context_length`` tokens.

    Where a prompt and its longest answer do not fit, the prompt's oldest turns are left out; where that does not help,
    the prompt is.

    Raises:
        ValueError: a message that cannot be rendered, or nothing left to train on.
    """
    found = RenderedPairs()
    for comparison in comparisons:
        prompt = list(comparison.prompt)
        documents = [document_of(tokenizer, prompt, answer) for answer in comparison.answers]
        if max(len(document.tokens) for document in documents) > context_length:
            longest = max(len(document.tokens) - document.answer for document in documents)
            try:
                prompt, _ = fit(tokenizer, prompt, context_length - longest)
            except ValueError:
                found.too_long += 1
                continue
            found.cut += 1
            documents = [document_of(tokenizer, prompt, answer) for answer in comparison.answers]
        found.units.append(Unit(found.documents, documents, comparison.pairs, comparison.category, comparison.truths))
        found.documents += len(documents)
    if not found.units:
        raise ValueError(f"no preference is left to train on ({found}); choose a longer model.context_length")
    return found


def document_of(tokenizer: Tokenizer, prompt: Sequence[Message], answer: Sequence[Message]) -> Document:
    """A prompt with an answer, of one message mostly, up to the token that ends it."""
    rendered = render(tokenizer, [*prompt, *answer])
    last = max(place for place, trained in enumerate(rendered.mask) if trained)
    return Document(rendered.tokens[: last + 1], rendered.contents[len(prompt)].start)


class PairRows:
    """Samples are units, shuffled anew each epoch; each batch is as few rows as hold its documents.

    Args:
        reference: (documents,) what a batch brings along for each document, such as its log-probability under the
            reference; nothing when left out.
    """

    def __init__(
        self, rendered: RenderedPairs, context_length: int, seed: int, reference: torch.Tensor | None = None
    ) -> None:
        self.rendered, self.context_length, self.seed, self.reference = rendered, context_length, seed, reference

    def batch(self, first: int, size: int) -> Batch:
        """Samples ``first`` to ``first + size`` as a batch."""
        units = self.rendered.units
        chosen = [units[shuffled(index, len(units), self.seed)] for index in range(first, first + size)]
        return collate_pairs(chosen, self.context_length, self.reference)


def collate_pairs(units: Sequence[Unit], context_length: int, reference: torch.Tensor | None = None) -> Batch:
    """A batch of units.

    Returns:
        ``tokens``, ``documents`` and ``branch_ids`` (B, T), a prompt being read once for all of its answers; of the N
        answers ``ends`` (N,), where in B x T each ends, and for the M tokens of all of them ``places`` (M,), where in
        B x T each is predicted, ``targets`` and ``owners`` (M,), the token and its answer's number; ``better`` and
        ``worse`` (P,), numbers of answers, with ``margin``, ``tie`` and ``weight`` (P,): a prompt's pairs weigh 1
        together. With a reference also ``reference`` (N,).
    """
    documents = [document for unit in units for document in unit.documents]
    answers = [document.tokens[document.answer :] for document in documents]
    laid, places = lay_in_rows(
        [(document.tokens[: document.answer], answer) for document, answer in zip(documents, answers)], context_length
    )
    firsts = np.cumsum([0, *(len(unit.documents) for unit in units)]).tolist()
    pairs = [(first, pair, len(unit.pairs)) for first, unit in zip(firsts, units) for pair in unit.pairs]
    batch = laid | {
        "places": torch.cat([place[:-1] for place in places]),
        "targets": torch.tensor([token for answer in answers for token in answer]),
        "owners": torch.tensor([number for number, answer in enumerate(answers) for _ in answer]),
        "ends": torch.stack([place[-1] for place in places]),
        "better": torch.tensor([first + pair.better for first, pair, _ in pairs]),
        "worse": torch.tensor([first + pair.worse for first, pair, _ in pairs]),
        "margin": torch.tensor([pair.margin for _, pair, _ in pairs]),
        "tie": torch.tensor([pair.tie for _, pair, _ in pairs]),
        "weight": torch.tensor([1 / several for _, _, several in pairs]),
    }
    if reference is not None:
        batch["reference"] = reference[[unit.first + k for unit in units for k in range(len(unit.documents))]]
    return batch


def unit_batches(
    rendered: RenderedPairs, context_length: int, batch_size: int, rank: int = 0, world_size: int = 1,
    reference: torch.Tensor | None = None,
) -> Iterator[tuple[list[Unit], Batch]]:  # fmt: skip
    """Every unit once, in order, in batches that go round the processes: for evaluation."""
    for number, first in enumerate(range(0, len(rendered.units), batch_size)):
        if number % world_size == rank:
            units = rendered.units[first : first + batch_size]
            yield units, collate_pairs(units, context_length, reference)


def weighted_pairs(
    batch: Batch, loss: torch.Tensor, reverse: torch.Tensor, difference: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The summed loss over pairs, and how many are the right way round.

    Args:
        loss, reverse: (P,) the loss of each pair, and of the same turned round; a tie is half of each.
        difference: (P,) by how much the better one is rated better; a tie counts as half right, and so does 0.
    """
    tie, weight = batch["tie"], batch["weight"]
    each = torch.where(tie, (loss + reverse) / 2, loss)
    right = torch.where(tie, 0.5, (difference.sign() + 1) / 2)
    return (each * weight).sum(), {"accuracy": (right * weight).sum()}
