"""How likely a model finds the tokens of a given text, each with the likeliest in its place: what OpenAI's completions
echo. Not here: sums over continuations, which evaluation takes in batches (evaluate/likelihood.py).

Shapes: T time, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

from understudy.inference.batching import TokenLogprob
from understudy.inference.engine import Model

PLACES = 64
"""Whose logits (PLACES, V) are held at once."""


@torch.no_grad()
def score_tokens(
    model: Model, tokens: Sequence[int], top: int = 0, autocast: torch.dtype | None = None
) -> list[TokenLogprob]:
    """The log-probability in nats of each token but the first, given all before it, at temperature 1.

    Args:
        model: in evaluation mode.
        tokens: at most one more than the context.
        top: how many of the likeliest tokens of each place go with it.
    """
    device = next(model.parameters()).device
    found: list[TokenLogprob] = []
    if len(tokens) < 2:
        return found
    targets = torch.tensor(tokens[1:], device=device)
    with contextlib.nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast):
        hidden = model.hidden(torch.tensor([tokens[:-1]], device=device))[0]  # (T - 1, D)
        for start in range(0, len(targets), PLACES):
            own = targets[start : start + PLACES]
            logprobs = model.logits(hidden[start : start + PLACES]).float().log_softmax(-1)  # (PLACES, V)
            chosen = logprobs.gather(1, own[:, None])[:, 0].tolist()
            best = logprobs.topk(min(top, logprobs.shape[-1]))
            for token, logprob, ids, values in zip(own.tolist(), chosen, best.indices.tolist(), best.values.tolist()):
                found.append(TokenLogprob(token, logprob, tuple(zip(ids, values))))
    return found
