"""Inspection of a forward pass: probabilities, attention weights and logit lens, as plain tensors.

Three views. The probability of each token, and the alternatives at its place. The attention of each layer and head:
the weight of each earlier token at a place, as the forward used it. The logit lens
(nostalgebraist 2020): the last norm and the head applied to the residual stream after each layer, that is,
the prediction of a model that ends there. :func:`heads_off` switches attention heads off, to see what they are good for.

A *place* t is the position at which the model has read tokens 0 to t and predicts token t + 1. Not here: generating, and
drawing the results (commands/looking.py, report/look.py, serve/playground/).

Shapes: T time, L layers, H heads, A alternatives, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.inference.generate import Model, check_request, precision
from understudy.model import GPT
from understudy.model.attention import attention_weights
from understudy.model.gpt import Block
from understudy.model.masks import causal
from understudy.model.positions import shift_keys
from understudy.tokenizer import Tokenizer


@dataclass(frozen=True)
class Guesses:
    """The likeliest next tokens, likeliest first, under the model's own distribution (temperature 1)."""

    tokens: Tensor  # (..., T, A)
    logprobs: Tensor  # (..., T, A) in nats, fp32


@dataclass(frozen=True)
class Look:
    """The result of :func:`look_inside`; all on the CPU, numbers in fp32."""

    tokens: Tensor  # (T,)
    following: Tensor  # (T,) the token after each place; after the last one, which nothing follows, the likeliest
    logprobs: Tensor  # (T,) of ``following``, in nats
    guesses: Guesses  # (T, A)
    attention: Tensor  # (L, H, T, T): of place t on token s; rows sum to 1, and are 0 where s > t. A bigram: L is 0
    lens: Guesses  # (L + 1, T, A): of the embedding, then after each layer; the last is ``guesses``
    lens_logprobs: Tensor  # (L + 1, T) of ``following``, in nats


@torch.no_grad()
def look_inside(
    model: Model,
    tokens: Sequence[int],
    alternatives: int = 8,
    autocast: torch.dtype | None = None,
    vocab_size: int | None = None,
) -> Look:
    """Run one forward over ``tokens`` and record its intermediate results.

    Nothing of the model is changed meanwhile, so others may generate with it at the same time; dropout acts as the
    model's mode says.

    Args:
        tokens: at least one; no more than the context.
        alternatives: how many of the likeliest tokens are kept of each place, at most the vocabulary.
        vocab_size: the tokenizer's; ids from it on are no alternatives. None: the model's.

    Raises:
        ValueError: no tokens, too many, or one outside the vocabulary.

    >>> from understudy import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=65, context_length=16, n_layers=2, n_heads=2, d_model=32))
    >>> look = look_inside(model, [1, 2, 3, 4])
    >>> tuple(look.attention.shape), tuple(look.lens.tokens.shape)
    ((2, 2, 4, 4), (3, 4, 8))
    """
    check_request(model, [list(tokens)], 0)
    vocab_size = vocab_size or model.shape.vocab_size
    device = next(model.parameters()).device
    row, length = torch.tensor([list(tokens)], device=device), len(tokens)
    with precision(device, autocast):
        states, attention = layer_states(model, row) if isinstance(model, GPT) else ([model.hidden(row)], [])
        last = model.logits(states[-1])[0, -1]  # (V,)
        following = torch.cat((row[0, 1:], last[:vocab_size].argmax()[None]))  # (T,)
        layers = []
        for state in states:  # a layer at a time: (T, V) of all of them would be gigabytes
            logprobs = model.logits(state)[0].float().log_softmax(dim=-1)  # (T, V)
            top = logprobs[:, :vocab_size].topk(min(alternatives, vocab_size), dim=-1)
            layers.append((top.indices.cpu(), top.values.cpu(), logprobs.gather(1, following[:, None])[:, 0].cpu()))
    ids, values, of_following = (torch.stack(parts) for parts in zip(*layers))
    return Look(
        row[0].cpu(), following.cpu(), of_following[-1], Guesses(ids[-1], values[-1]),
        torch.stack(attention) if attention else torch.zeros(0, 0, length, length),
        Guesses(ids, values), of_following,
    )  # fmt: skip


def layer_states(model: GPT, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states and attention weights of each layer for ``tokens`` (1, T).

    Returns:
        Normed states (1, T, D) of the embedding and after each block, and the attention weights (H, T, T) of each block in
        fp32, on the CPU; zeros for a short convolution, which has none.
    """
    context = model.prepare(tokens, causal())
    x = model.embed(tokens, context)
    states, attention = [model.norm(x)], []
    for block in cast("Iterable[Block]", model.blocks):
        if block.is_conv:
            attention.append(torch.zeros(model.shape.n_heads, tokens.shape[1], tokens.shape[1]))
        else:
            q, k, _ = block.attention.queries_keys_values(block.attention_norm(x), context)
            k = shift_keys(k, context.positions) if context.key_shift else k
            mask = context.mask if isinstance(context.mask, Tensor) else None  # of a sliding window
            attention.append(attention_weights(q.float(), k.float(), mask)[0].cpu())
        x = block(x, context)
        states.append(model.norm(x))
    return states, attention


@contextlib.contextmanager
def heads_off(model: GPT, heads: Iterable[tuple[int, int]]) -> Iterator[None]:
    """A context in which some attention heads add nothing to the residual stream (zero ablation), in every forward of the
    model: training, generating and :func:`look_inside`, which still shows the weights of their attention.

    Args:
        heads: pairs (layer, head), counted from 0.

    Raises:
        ValueError: a head that the model does not have.

    >>> from understudy import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=65, context_length=16, n_layers=2, n_heads=2, d_model=32))
    >>> with heads_off(model, [(1, 0)]):
    ...     look = look_inside(model, [1, 2, 3, 4])
    """
    shape = model.shape
    off: dict[int, list[int]] = {}  # heads by layer
    for layer, head in heads:
        if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
            raise ValueError(
                f"there is no head {(layer, head)}: the model has {shape.n_layers} layers with {shape.n_heads} heads each, "
                "counted from 0"
            )
        if layer in shape.conv_layers:
            raise ValueError(f"there is no head {(layer, head)}: layer {layer} is a short convolution")
        off.setdefault(layer, []).append(head)
    with contextlib.ExitStack() as stack:
        for layer, numbers in off.items():
            keep = torch.ones(shape.n_heads, device=next(model.parameters()).device)
            keep[numbers] = 0
            features = keep.repeat_interleave(shape.head_width)  # (H * K,), head by head, as the projection reads them

            def mask(_: nn.Module, inputs: tuple[Tensor], features: Tensor = features) -> Tensor:
                return inputs[0] * features.to(inputs[0].dtype)

            block = cast("Block", model.blocks[layer])
            stack.callback(block.attention.project.register_forward_pre_hook(mask).remove)
        yield


def describe(look: Look, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """A row for each token of a text with the model's prediction at the place before it, ready for JSON.

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
    """Lists of probabilities, rounded to six digits."""
    return torch.round(logprobs.double().exp(), decimals=6).tolist()


def visible(text: str) -> str:
    """A token's text on one line: line breaks and tabs as signs, spaces at its ends as ``␣``."""
    text = text.replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")
    inner = text.strip(" ")
    if not inner:
        return "␣" * len(text)
    return "␣" * (len(text) - len(text.lstrip(" "))) + inner + "␣" * (len(text) - len(text.rstrip(" ")))
