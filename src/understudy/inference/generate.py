"""Generating: one loop (:func:`continue_rows`) under three ways in: tokens, texts, a stream of text.

At the end of the context, the same for every model and position encoding:

- A prompt longer than the context is cut to its last ``context_length`` tokens.
- A row that has filled the context goes on from its most recent half, which is read again from position 0.
  What came before is forgotten at once. (Sliding by one token would be wrong with a cache: learned positions
  would have to move, and what was computed for the tokens that stay has already seen those that go.)

A bigram looks at one token and has no context to fill. Not here: choosing a token (sampling.py), the text it becomes
(completion.py), serving many requests that come and go (batching.py).

Shapes: B batch (rows asked for), R rows still being continued, T time, D model width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from understudy.inference import sampling
from understudy.inference.completion import Completion, CompletionText, end_tokens
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT, Bigram, KVCache
from understudy.model.masks import cached, causal
from understudy.tokenizer import Tokenizer

Model = GPT | Bigram
Tokens = TypeVar("Tokens", Tensor, list[list[int]])


def generate(
    model: Model,
    tokens: Tokens,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop_tokens: Collection[int] = (),
    autocast: torch.dtype | None = None,
) -> Tokens:
    """Continue each row of ``tokens`` by up to ``max_new_tokens`` tokens.

    Args:
        model: on any device and in either mode, which it is in again afterwards; dropout never acts here.
        tokens: a (B, T) tensor of token ids, or a list of rows of any lengths. Of a row longer than the context
            the model reads the last ``context_length`` tokens.
        max_new_tokens: for each row, unless it stops. A row that fills the context goes on from its most
            recent half.
        temperature, top_k, top_p, min_p, repetition_penalty, seed: see :class:`SamplingSettings`. What a row
            draws depends on the seed and its place in the batch, not on the other rows.
        stop_tokens: ids that end a row; the one that did is the row's last token.
        autocast: precision of matrix products, as in training; the weights' own when left out.

    Returns:
        The rows with their continuation, in the form they came in: a list of lists, or a (B, T + new) tensor
        on the same device, where a row that stopped early is filled up with its stop token.

    Raises:
        ValueError: an empty row, a token outside the vocabulary, a setting out of its range.

    >>> from understudy.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=65, context_length=16, n_layers=2, n_heads=2, d_model=32))
    >>> generate(model, torch.zeros(2, 3, dtype=torch.long), max_new_tokens=20, top_k=10).shape
    torch.Size([2, 23])
    >>> rows = generate(model, [[1, 2, 3], [4]], max_new_tokens=5, seed=1)
    >>> [len(row) for row in rows]
    [8, 6]
    >>> rows == generate(model, [[1, 2, 3], [4]], max_new_tokens=5, seed=1)
    True
    """
    settings = SamplingSettings(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    if isinstance(tokens, Tensor) and (tokens.ndim != 2 or tokens.is_floating_point()):
        raise ValueError(f"tokens are {tokens.dtype} {tuple(tokens.shape)}; give whole numbers (B, T)")
    if not isinstance(tokens, Tensor) and any(isinstance(row, int) for row in tokens):
        raise ValueError("tokens are one row; give a list of rows, such as [tokens]")
    prompts = tokens.tolist() if isinstance(tokens, Tensor) else tokens
    check_request(model, prompts, max_new_tokens)
    rows, finished = [list(prompt) for prompt in prompts], set[int]()
    # One autocast context around all steps: it casts each weight once, a context for each step would once a token.
    with precision(next(model.parameters()).device, autocast):
        for row, token, _ in continue_rows(model, prompts, max_new_tokens, settings, finished, autocast):
            rows[row].append(token)
            if token in stop_tokens:
                finished.add(row)
    if not isinstance(tokens, Tensor):
        return rows
    longest = max((len(row) for row in rows), default=tokens.shape[1])
    filled = [row + row[-1:] * (longest - len(row)) for row in rows]
    return torch.tensor(filled, dtype=torch.long, device=tokens.device).view(len(rows), longest)


def generate_text(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    max_new_tokens: int,
    settings: SamplingSettings | None = None,
    stop: str | Sequence[str] = (),
    stop_at_end_of_text: bool = True,
    autocast: torch.dtype | None = None,
    end_ids: Collection[int] = (),
    numbers: Sequence[int] | None = None,
) -> list[Completion]:
    """Continue each prompt, all in one batch from which finished rows leave.

    Args:
        model, max_new_tokens, autocast: as for :func:`generate`.
        tokenizer: the one the model was trained with.
        prompts: texts, or token ids, of any lengths. An empty text starts after an end-of-text token, or after a
            line break where the tokenizer has no such token.
        settings: how tokens are chosen; from the model's own distribution when left out.
        stop: a string, or several, before which the text ends, whatever tokens spell it.
        stop_at_end_of_text: whether the tokenizer's end-of-text token ends a row, or is text like any other.
        end_ids: further tokens that end a row, such as the one that ends a message.
        numbers: of the prompts, which together with the seed decide what each one draws; 0, 1, … when left out.

    Raises:
        ValueError: an empty prompt that nothing can stand for, an empty stop string, text the tokenizer
            cannot encode, tokens outside the model's vocabulary.
    """
    ends = end_tokens(tokenizer, stop_at_end_of_text, end_ids)
    texts = [CompletionText(tokenizer, stop, ends) for _ in prompts]
    with precision(next(model.parameters()).device, autocast):  # around all steps, as in generate
        for _ in _continue_texts(model, tokenizer, prompts, texts, max_new_tokens, settings, autocast, numbers):
            pass  # the texts collect the pieces
    return [text.completion() for text in texts]


def stream_text(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str | list[int],
    max_new_tokens: int,
    settings: SamplingSettings | None = None,
    stop: str | Sequence[str] = (),
    stop_at_end_of_text: bool = True,
    autocast: torch.dtype | None = None,
    end_ids: Collection[int] = (),
) -> Iterator[str]:
    """Continue one prompt, yielding its text as it comes; arguments and errors as for :func:`generate_text`.

    Joined, the pieces are the text that :func:`generate_text` gives for this prompt alone. No piece is empty
    or ends inside a character, and what may turn out to begin a stop string is held back until that is known.
    The model is in evaluation mode until the iterator ends or is dropped.
    """
    texts = [CompletionText(tokenizer, stop, end_tokens(tokenizer, stop_at_end_of_text, end_ids))]
    return _continue_texts(model, tokenizer, [prompt], texts, max_new_tokens, settings, autocast)


def _continue_texts(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    texts: Sequence[CompletionText],
    max_new_tokens: int,
    settings: SamplingSettings | None,
    autocast: torch.dtype | None,
    numbers: Sequence[int] | None = None,
) -> Iterator[str]:
    """Check at once, then lazily feed what is sampled to the texts, yielding what each releases."""
    tokens = [encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    check_request(model, tokens, max_new_tokens, tokenizer)
    finished: set[int] = set()
    steps = continue_rows(
        model, tokens, max_new_tokens, settings or SamplingSettings(), finished, autocast, numbers, tokenizer.vocab_size
    )

    def pieces() -> Iterator[str]:
        for row, token, logprob in steps:
            if piece := texts[row].push(token, logprob):
                yield piece
            if texts[row].stopped:
                finished.add(row)
        for text in texts:
            if piece := text.finish():
                yield piece

    return pieces()


def continue_rows(
    model: Model,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    settings: SamplingSettings,
    finished: Collection[int] = (),
    autocast: torch.dtype | None = None,
    numbers: Sequence[int] | None = None,
    vocab_size: int | None = None,
) -> Iterator[tuple[int, int, float]]:
    """The loop: sample a token for each row, hand them out, drop finished rows, read the tokens, again.

    Args:
        model, max_new_tokens, settings, autocast: the same for all rows.
        prompts: the token ids of each row, as :func:`check_request` lets them through.
        finished: places of rows, which the caller adds to on the way; such rows leave before the next step.
        numbers: as for :func:`generate_text`.
        vocab_size: the tokenizer's; ids from it on are never sampled. None samples from the model's whole vocabulary.

    Yields:
        (row, token, log-probability it was sampled with), step by step, the rows in any order.

    Raises:
        ValueError: the model's logits are not finite.
    """
    if not prompts or not max_new_tokens:
        return
    rows = list(range(len(prompts)))
    generators = sampling.row_generators(settings.seed, rows if numbers is None else numbers)
    with evaluating(model):
        logits, cache = _prefill(model, prompts, max_new_tokens, autocast)  # (R, V)
        seen = sampling.seen_tokens(prompts, logits) if settings.repetition_penalty != 1 else None  # (R, V)
        for step in range(max_new_tokens):
            tokens, chosen = sampling.draw(logits, settings, generators, seen, vocab_size)  # (R,)
            if not all(math.isfinite(logprob) for logprob in chosen):
                raise ValueError("the logits are not finite: training diverged; use an earlier checkpoint")
            yield from zip(rows, tokens.tolist(), chosen)

            stay = _without(finished, rows)
            if not stay or step + 1 == max_new_tokens:
                return
            if len(stay) < len(rows):
                rows, generators = [rows[place] for place in stay], [generators[place] for place in stay]
                kept = torch.tensor(stay, device=tokens.device)
                tokens, seen = tokens[kept], None if seen is None else seen[kept]
                if cache:
                    cache.keep(kept)
            if seen is not None:
                seen.scatter_(1, tokens[:, None], True)
            if cache and cache.longest == cache.max_tokens:
                _make_room(model, cache, autocast)
            logits = _read(model, tokens[:, None], cache, autocast)


def _without(finished: Collection[int], rows: Sequence[int]) -> list[int]:
    """The places of the rows that are not finished, the last of them in those that fall free, so that few move."""
    staying = [place for place, row in enumerate(rows) if row not in finished]
    spare = iter(place for place in staying if place >= len(staying))
    return [place if rows[place] not in finished else next(spare) for place in range(len(staying))]


@torch.no_grad()
def _prefill(
    model: Model, prompts: Sequence[list[int]], max_new_tokens: int, autocast: torch.dtype | None
) -> tuple[Tensor, KVCache | None]:
    """Read the prompts, equal ones once: logits (B, V) after each one's last token, and the cache that holds them.

    Rows are padded on the right: no real token attends to the padding, and the next tokens overwrite it.
    """
    weight = next(model.parameters())
    window = 1 if isinstance(model, Bigram) else model.shape.context_length
    shown = [tuple(prompt[-window:]) for prompt in prompts]
    different = {prompt: number for number, prompt in enumerate(dict.fromkeys(shown))}
    prompts = [list(prompt) for prompt in different]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=weight.device)
    longest = max(len(prompt) for prompt in prompts)
    padded = [prompt + [0] * (longest - len(prompt)) for prompt in prompts]
    cache = None
    if not isinstance(model, Bigram):
        room = min(window, longest + max_new_tokens - 1)  # the last token sampled is not read
        cache = KVCache(model.shape, len(prompts), room, weight.device, autocast or weight.dtype)
    logits = _read(model, torch.tensor(padded, device=weight.device), cache, autocast, lengths - 1)
    if cache:
        cache.set_lengths(lengths)
    if len(shown) == len(prompts):
        return logits, cache
    rows = torch.tensor([different[prompt] for prompt in shown], device=weight.device)
    if cache:
        cache.keep(rows)
    return logits[rows], cache


@torch.no_grad()
def _read(
    model: Model,
    tokens: Tensor,
    cache: KVCache | None,
    autocast: torch.dtype | None,
    last: Tensor | None = None,
) -> Tensor:
    """Logits (R, V) after the last of ``tokens`` (R, T), or after each row's token at place ``last`` (R,).

    The other places get no logits, which would be most of the memory of a long prompt, nor all of the last block.
    """
    rows, length = tokens.shape
    select = None
    if length > 1:
        select = torch.arange(rows, device=tokens.device) * length + (length - 1 if last is None else last)  # in R x T
    context = causal(select) if cache is None else cached(cache, length, select)
    with precision(tokens.device, autocast):
        return model.logits(model.hidden(tokens, context).view(rows, -1))  # (R, D), then (R, V)


@torch.no_grad()
def _make_room(model: Model, cache: KVCache, autocast: torch.dtype | None) -> None:
    """Have rows that fill the context hold only their recent tokens, with the next one half as many as fit.

    Those are read again from position 0; the other rows stay as they are.
    """
    full = (cache.lengths == cache.max_tokens).nonzero()[:, 0]  # (F,)
    kept = max(0, cache.max_tokens // 2 - 1)
    if kept:
        recent = cache.tokens[full, -kept:]  # (F, kept)
        fresh = KVCache(model.shape, len(full), kept, recent.device, cache.keys.dtype)
        _read(model, recent, fresh, autocast)
        cache.keys[:, full, :, :kept] = fresh.keys
        cache.values[:, full, :, :kept] = fresh.values
        cache.tokens[full, :kept] = recent
    cache.set_lengths(cache.lengths.index_fill(0, full, kept))


def precision(device: torch.device, autocast: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Matrix products in ``autocast``, or as the weights are."""
    return contextlib.nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Every part of the model in evaluation mode, and afterwards each in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The tokens of a prompt, at least one: an end-of-text token or a line break stands for nothing.

    Raises:
        ValueError: the prompt is empty and the tokenizer has neither, or it cannot encode the prompt.
    """
    if not prompt and tokenizer.eot_id is not None:
        return [tokenizer.eot_id]
    try:
        return tokenizer.encode(prompt or "\n")
    except ValueError as error:
        if prompt:
            raise
        raise ValueError(f"the prompt is empty, and nothing can stand for it ({error}); give a prompt") from None


def check_request(
    model: Model, prompts: Sequence[list[int]], max_new_tokens: int, tokenizer: Tokenizer | None = None
) -> None:
    """Refuse prompts that cannot be continued.

    Raises:
        ValueError: a negative number of tokens, an empty prompt, a token outside the vocabulary of the model or, where a
            tokenizer is given, of the tokenizer.
    """
    vocab_size = model.shape.vocab_size
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; give 0 or more")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} is empty; give at least one token to continue from")
        for token in (min(prompt), max(prompt)):
            if not 0 <= token < vocab_size:
                raise ValueError(
                    f"token {token} of prompt {row} is outside the vocabulary of {vocab_size}; encode text with the run's "
                    "tokenizer"
                )
