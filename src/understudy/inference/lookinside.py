"""Looking inside: what a model made of given tokens, as plain tensors.

Three views. How likely each token was, and what else was expected at its place. The attention of each layer and head:
how much of each earlier token went into a place, the very weights that the forward used. The logit lens
(nostalgebraist 2020): the last norm and the head applied to what each layer left in the residual stream, that is,
what the model would have answered had it ended there.

A *place* t is where the model has read tokens 0 to t, and says what comes next: token t + 1. Not here: generating, and
drawing what is found (commands/looking.py, report/look_plot.py, serve/playground/mount.py).

Shapes: T time, L layers, H heads, A alternatives, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.inference.generate import Model, check_request, precision
from understudy.model import GPT
from understudy.model.gpt import Trace
from understudy.tokenizer import Tokenizer


@dataclass(frozen=True)
class Guesses:
    """The likeliest next tokens, likeliest first, under the model's own distribution (temperature 1)."""

    tokens: Tensor  # (..., T, A)
    logprobs: Tensor  # (..., T, A) in nats, fp32


@dataclass(frozen=True)
class Look:
    """What :func:`look_inside` saw; all on the CPU, numbers in fp32."""

    tokens: Tensor  # (T,)
    following: Tensor  # (T,) the token after each place; after the last one, which nothing follows, the likeliest
    logprobs: Tensor  # (T,) of ``following``, in nats
    guesses: Guesses  # (T, A)
    attention: Tensor  # (L, H, T, T): of place t on token s; rows sum to 1, and are 0 where s > t. A bigram: L is 0
    lens: Guesses  # (L + 1, T, A): of the embedding, then after each layer; the last is ``guesses``
    lens_logprobs: Tensor  # (L + 1, T) of ``following``, in nats


@torch.no_grad()
def look_inside(
    model: Model, tokens: Sequence[int], alternatives: int = 8, autocast: torch.dtype | None = None
) -> Look:
    """Read ``tokens`` once and keep what can be seen on the way.

    Nothing of the model is changed meanwhile, so others may generate with it at the same time; dropout acts as the
    model's mode says.

    Args:
        tokens: at least one; no more than the context.
        alternatives: how many of the likeliest tokens are kept of each place, at most the vocabulary.

    Raises:
        ValueError: no tokens, too many, or one outside the vocabulary.

    >>> from understudy.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=65, context_length=16, n_layers=2, n_heads=2, d_model=32))
    >>> look = look_inside(model, [1, 2, 3, 4])
    >>> tuple(look.attention.shape), tuple(look.lens.tokens.shape)
    ((2, 2, 4, 4), (3, 4, 8))
    """
    check_request(model, [list(tokens)], 0)
    vocab_size = model.config.vocab_size
    assert vocab_size is not None, "a built model knows its vocabulary"
    device = next(model.parameters()).device
    row, trace = torch.tensor([list(tokens)], device=device), Trace()
    with precision(device, autocast):
        if isinstance(model, GPT):
            model.hidden(row, trace=trace)
            states = [model.norm(x) for x in trace.residual]
        else:
            states = [model.hidden(row)]
        following: Tensor | None = None
        layers: list[tuple[Tensor, Tensor, Tensor]] = []
        for state in reversed(states):  # a layer at a time: (T, V) of all of them would be gigabytes
            logprobs = model.logits(state)[0].float().log_softmax(dim=-1)  # (T, V)
            if following is None:
                following = torch.cat((row[0, 1:], logprobs[-1].argmax()[None]))  # (T,)
            top = logprobs.topk(min(alternatives, vocab_size), dim=-1)
            layers.insert(0, (top.indices.cpu(), top.values.cpu(), logprobs.gather(1, following[:, None])[:, 0].cpu()))
    assert following is not None, "every model has a last state"
    ids, values, of_following = (torch.stack(parts) for parts in zip(*layers))
    places = len(tokens)
    attention = [weights[0].cpu() for weights in trace.attention]
    return Look(
        row[0].cpu(), following.cpu(), of_following[-1], Guesses(ids[-1], values[-1]),
        torch.stack(attention) if attention else torch.zeros(0, 0, places, places),
        Guesses(ids, values), of_following,
    )  # fmt: skip


def describe(look: Look, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """For each token of a text what was thought of it before it was read, ready for JSON.

    ``probability``, ``alternatives`` and ``layers`` are those of the place before the token; the first token has
    none. The rows of ``layers`` are the embedding and each layer: its likeliest token, that one's probability, and
    the probability of the token that really came. A bigram has one row.
    """
    names: dict[int, str] = {}

    def name(token: int) -> str:
        if token not in names:
            names[token] = visible(tokenizer.token_bytes(token).decode("utf-8", "replace"))
        return names[token]

    tokens: list[int] = look.tokens.tolist()
    guesses, guessed = look.guesses.tokens.tolist(), _probabilities(look.guesses.logprobs)
    lens, sure = look.lens.tokens[..., 0].tolist(), _probabilities(look.lens.logprobs[..., 0])
    chosen, of_layers = _probabilities(look.logprobs), _probabilities(look.lens_logprobs)
    rows = []
    for t, token in enumerate(tokens):
        row: dict[str, Any] = {"id": token, "token": name(token), "probability": None, "alternatives": [], "layers": []}
        if t:
            row["probability"] = chosen[t - 1]
            row["alternatives"] = [[name(other), p] for other, p in zip(guesses[t - 1], guessed[t - 1])]
            row["layers"] = [
                [name(ids[t - 1]), top[t - 1], real[t - 1]] for ids, top, real in zip(lens, sure, of_layers)
            ]
        rows.append(row)
    return rows


def _probabilities(logprobs: Tensor) -> Any:
    """Lists of probabilities in six digits, which is what anyone reads."""
    return torch.round(logprobs.double().exp(), decimals=6).tolist()


def visible(text: str) -> str:
    """A token's text on one line: line breaks and tabs as signs, spaces at its ends as ``␣``."""
    text = text.replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")
    inner = text.strip(" ")
    if not inner:
        return "␣" * len(text)
    return "␣" * (len(text) - len(text.lstrip(" "))) + inner + "␣" * (len(text) - len(text.rstrip(" ")))
