"""Log-likelihood of given tokens, in batches, for choices, documents and the lm-eval adapter.

Not here: tasks, and scores from likelihoods (runner.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.inference.generate import Model, encode_prompt, evaluating
from understudy.runtime import Runtime
from understudy.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""Called with the number of finished examples and the number of all."""


@dataclass(frozen=True)
class ScoredSpan:
    """Summed log-probability in nats of ``tokens`` tokens. ``greedy``: each of them was the likeliest at its position."""

    logprob: float
    greedy: bool
    tokens: int


@dataclass(frozen=True)
class Span:
    """Token ids, of which those from ``first`` on are scored, given all before them; ``first`` is at least 1."""

    ids: list[int]
    first: int


def continuation(tokenizer: Tokenizer, context: str, text: str) -> Span:
    """Span that scores ``text`` as a continuation of ``context``, encoded together as in training.

    White space at the end of the context belongs to the continuation, since the token of a word begins with its space.
    So does a token across the border.
    """
    stripped = context.rstrip()
    context, text = stripped, context[len(stripped) :] + text
    if not context:
        prefix = encode_prompt(tokenizer, "")
        return Span(prefix + tokenizer.encode(text), len(prefix))
    before, whole = tokenizer.encode_prompt(context), tokenizer.encode_prompt(context + text)
    first = 0
    while first < min(len(before), len(whole)) and before[first] == whole[first]:
        first += 1
    if first == 0:  # one token spans the whole context: nothing would be left to predict from
        return Span(before + tokenizer.encode(text), len(before))
    return Span(whole, first)


def document(tokenizer: Tokenizer, text: str) -> Span:
    """Span that scores a whole text, its first token after what begins a text: see :func:`encode_prompt`."""
    prefix = encode_prompt(tokenizer, "")
    return Span(prefix + tokenizer.encode(text), len(prefix))


@torch.no_grad()
def score_sequences(
    model: Model, sequences: Sequence[Span], runtime: Runtime, batch_size: int, progress: Progress | None = None
) -> list[ScoredSpan]:
    """Log-likelihood of the scored part of each sequence.

    Each scored token is predicted once. If more than ``context_length`` tokens come before the last one, the model
    reads the last ``context_length``. If the scored part itself is longer, it is scored in pieces of
    ``context_length``, the last of which has as much context as possible. Rows are batched by length and padded on the
    right, which no scored token attends to.

    Raises:
        ValueError: the logits are not finite.
    """
    limit = model.config.context_length
    windows = [(row, window) for row, sequence in enumerate(sequences) for window in _windows(sequence, limit)]
    windows.sort(key=lambda entry: -len(entry[1].ids))  # a batch that does not fit the memory fails at once
    logprobs, greedy = [0.0] * len(sequences), [True] * len(sequences)
    done = 0
    with evaluating(model):
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            for (row, _), (logprob, likeliest) in zip(batch, _forward(model, [w for _, w in batch], runtime)):
                logprobs[row] += logprob
                greedy[row] = greedy[row] and likeliest
            done += len(batch)
            if progress:
                progress(done * len(sequences) // max(1, len(windows)), len(sequences))
    return [ScoredSpan(logprobs[i], greedy[i], len(s.ids) - s.first) for i, s in enumerate(sequences)]


def _windows(sequence: Span, limit: int) -> list[Span]:
    """Windows of at most ``limit`` inputs that score each token from ``first`` on once."""
    pieces = []
    for begin in range(sequence.first, len(sequence.ids), limit):
        end = min(begin + limit, len(sequence.ids))
        start = max(0, end - 1 - limit)
        pieces.append(Span(sequence.ids[start:end], begin - start))
    return pieces


def _forward(model: Model, windows: Sequence[Span], runtime: Runtime) -> list[tuple[float, bool]]:
    """Log-probability of the scored part of each window, and whether greedy decoding gives it."""
    longest = max(len(window.ids) for window in windows) - 1
    inputs = torch.tensor([w.ids[:-1] + [0] * (longest - len(w.ids) + 1) for w in windows], device=runtime.device)
    with runtime.autocast():
        hidden = model.hidden(inputs)  # (B, T, D)
    scores, dtype = [], next(model.parameters()).dtype
    for row, window in enumerate(windows):  # logits of scored positions only: (T, V) of a long prompt is large
        places = slice(window.first - 1, len(window.ids) - 1)
        logits = model.logits(hidden[row, places].to(dtype))  # in bf16, logits near 20 are eighths, and answers tie
        scores.append(_score(logits.float(), torch.tensor(window.ids[window.first :], device=runtime.device)))
    if not all(math.isfinite(logprob) for logprob, _ in scores):
        raise ValueError(
            "the logits are not finite: training diverged or the weights are damaged; use another checkpoint"
        )
    return scores


def _score(logits: Tensor, targets: Tensor) -> tuple[float, bool]:
    """Of ``targets`` (T,) under ``logits`` (T, V)."""
    chosen = logits.gather(1, targets[:, None])[:, 0]  # (T,)
    logprobs = chosen - logits.logsumexp(1)
    # Ties count as greedy: their order is arbitrary.
    return float(logprobs.double().sum()), bool((chosen >= logits.amax(1)).all())
