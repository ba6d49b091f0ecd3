"""Generation from a batch of prompts: one loop (:func:`continue_rows`) with three interfaces: tokens, texts, a stream of text.

At the end of the context, for every model and position encoding:

- A prompt longer than the context is cut to its last ``context_length`` tokens.
- A sequence that fills the context continues from its most recent half, which is computed again from position 0; earlier
  tokens are dropped. (A sliding window would be wrong with a cache: learned positions would have to move, and the cached
  values of the remaining tokens depend on the dropped ones.)

A bigram has no context to fill. Not here: sampling (sampling.py), text (requests.py), requests that join and leave
(batching.py).

Shapes: B batch, R sequences still running, T time, D model width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from understudy.inference import sampling
from understudy.inference.constraint import ConstraintState, OutputConstraint
from understudy.inference.requests import Completion, CompletionText
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
        model: on any device, in training or evaluation mode; dropout is off meanwhile.
        tokens: a (B, T) tensor of token ids, or a list of prompts of any lengths. Of a prompt longer than the context the
            model is given the last ``context_length`` tokens.
        max_new_tokens: for each sequence, unless it stops.
        temperature, top_k, top_p, min_p, repetition_penalty, seed: see :class:`SamplingSettings`. Draws depend on the seed
            and the sequence's place in the batch, not on the other sequences.
        stop_tokens: ids that end a sequence, as its last token.
        autocast: precision of matrix products, as in training; by default the weights' own.

    Returns:
        The prompts with their continuation, in the form of ``tokens``: a list of lists, or a (B, T + new) tensor on the same
        device, in which a sequence that stopped early is padded with its stop token.

    Raises:
        ValueError: an empty prompt, a token outside the vocabulary, a setting out of range.

    >>> from understudy import ModelConfig
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
        raise ValueError("tokens are one sequence; give a list of sequences, such as [tokens]")
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


@torch.no_grad()
def predict(
    model: Model, tokens: Tensor, targets: bool = True, autocast: torch.dtype | None = None
) -> Tensor:  # fmt: skip
    """The likeliest next token after every position, or after the last alone.

    Args:
        model: on any device; dropout is off meanwhile.
        tokens: (B, T) or (T,) token ids, at most the model's context long.
        targets: whether to predict after every position, as training does.
        autocast: see :func:`generate`.

    Returns:
        Token ids on the device of ``tokens``: (B, T) or (T,), without ``targets`` (B,) or ().

    Raises:
        ValueError: no tokens, too many, or one outside the vocabulary.

    >>> from understudy import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=65, context_length=16, n_layers=2, n_heads=2, d_model=32))
    >>> tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    >>> predict(model, tokens).shape, predict(model, tokens, targets=False).shape
    (torch.Size([2, 3]), torch.Size([2]))
    """
    if tokens.ndim not in (1, 2) or tokens.is_floating_point() or not tokens.numel():
        raise ValueError(f"tokens are {tokens.dtype} {tuple(tokens.shape)}; give whole numbers (B, T)")
    limit = model.shape.context_length if isinstance(model, GPT) else tokens.shape[-1]
    if tokens.shape[-1] > limit:
        raise ValueError(f"{tokens.shape[-1]} tokens are longer than the model's context of {limit}")
    rows = tokens if tokens.ndim == 2 else tokens[None]
    check_request(model, rows.tolist(), 0)
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with precision(device, autocast):
            hidden = model.hidden(rows.to(device))
            predicted = model.logits(hidden if targets else hidden[:, -1:]).argmax(dim=-1).to(tokens.device)
    finally:
        model.train(was_training)
    predicted = predicted if targets else predicted[:, 0]
    return predicted if tokens.ndim == 2 else predicted[0]


def generate_text(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    max_new_tokens: int,
    settings: SamplingSettings | None = None,
    stop: str | Sequence[str] = (),
    autocast: torch.dtype | None = None,
    end_ids: Collection[int] = (),
    numbers: Sequence[int] | None = None,
    constraint: OutputConstraint | None = None,
) -> list[Completion]:
    """Continue each prompt, in one batch that finished sequences leave.

    Args:
        model, max_new_tokens, autocast: as for :func:`generate`.
        tokenizer: that of the model's training. Ids beyond its vocabulary are never sampled.
        prompts: texts or token ids, of any lengths. An empty text becomes an end-of-text token, or a line break if the
            tokenizer has no such token.
        settings: sampling settings; by default the model's own distribution.
        stop: a string, or several, before which the text ends, however it is tokenized.
        end_ids: tokens that end an answer beside the tokenizer's end of text, such as the end of a message; none for a
            text that is continued.
        numbers: of the prompts; draws depend on the seed and this number. By default 0, 1, …
        constraint: a grammar for each continuation.

    Raises:
        ConstraintFailed: no token of the vocabulary continues the grammar.
        ValueError: an empty prompt that cannot be replaced, an empty stop string, text the tokenizer cannot encode, tokens
            outside the vocabulary.
    """
    texts = [CompletionText(tokenizer, stop, {tokenizer.eot_id, *end_ids}, bool(end_ids)) for _ in prompts]
    with precision(next(model.parameters()).device, autocast):  # around all steps, as in generate
        for _ in continue_texts(
            model, tokenizer, prompts, texts, max_new_tokens, settings, autocast, numbers, constraint
        ):
            pass  # the texts collect the pieces
    return [text.completion() for text in texts]


def stream_text(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str | list[int],
    max_new_tokens: int,
    settings: SamplingSettings | None = None,
    stop: str | Sequence[str] = (),
    autocast: torch.dtype | None = None,
    end_ids: Collection[int] = (),
    constraint: OutputConstraint | None = None,
) -> Iterator[str]:
    """Continue one prompt, yielding its text in pieces; arguments and errors as for :func:`generate_text`.

    The joined pieces equal the text of :func:`generate_text` for this prompt alone. No piece is empty or ends inside a
    character, and a possible beginning of a stop string is withheld. The model is in evaluation mode until the iterator ends
    or is closed.
    """
    texts = [CompletionText(tokenizer, stop, {tokenizer.eot_id, *end_ids}, bool(end_ids))]
    return continue_texts(model, tokenizer, [prompt], texts, max_new_tokens, settings, autocast, constraint=constraint)


def continue_texts(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    texts: Sequence[CompletionText],
    max_new_tokens: int,
    settings: SamplingSettings | None,
    autocast: torch.dtype | None = None,
    numbers: Sequence[int] | None = None,
    constraint: OutputConstraint | None = None,
) -> Iterator[str]:
    """Check the prompts at once; then lazily add sampled tokens to the texts, yielding the text they release."""
    tokens = [encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    check_request(model, tokens, max_new_tokens, tokenizer)
    finished: set[int] = set()
    states = [] if constraint is None else [constraint.start() for _ in prompts]
    steps = continue_rows(
        model, tokens, max_new_tokens, settings or SamplingSettings(), finished, autocast, numbers,
        tokenizer.vocab_size, states,
    )  # fmt: skip

    def pieces() -> Iterator[str]:
        for row, token, logprob in steps:
            if piece := texts[row].push(token, logprob):
                yield piece
            if states and not texts[row].stopped and states[row].complete and (piece := texts[row].end()):
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
    constraints: Sequence[ConstraintState] = (),
) -> Iterator[tuple[int, int, float]]:
    """The loop: sample a token for each sequence, yield them, drop finished sequences, compute the next logits.

    Args:
        model, max_new_tokens, settings, autocast: the same for all sequences.
        prompts: token ids, valid by :func:`check_request`.
        finished: indices of sequences, which the caller may add to; they leave before the next step.
        numbers: as for :func:`generate_text`.
        vocab_size: the tokenizer's; ids from it on are never sampled. None samples from the model's whole vocabulary.
        constraints: one for each sequence, or none.

    Yields:
        (index, token, its log-probability under the sampling distribution), step by step, in any order of sequences.

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
            if constraints:
                logits = torch.cat([constraints[row].mask(logits[n : n + 1]) for n, row in enumerate(rows)])
            tokens, chosen = sampling.draw(logits, settings, generators, seen, vocab_size)  # (R,)
            if not all(math.isfinite(logprob) for logprob in chosen):
                raise ValueError("the logits are not finite: training diverged; use an earlier checkpoint")
            for row, token in zip(rows, tokens.tolist() if constraints else ()):
                constraints[row].advance(token)
            yield from zip(rows, tokens.tolist(), chosen)

            stay = _without(finished, rows)
            if not stay or step + 1 == max_new_tokens:
                return
            if len(stay) < len(rows):
                rows, generators = [rows[place] for place in stay], [generators[place] for place in stay]
                staying = torch.tensor(stay, device=tokens.device)
                tokens, seen = tokens[staying], None if seen is None else seen[staying]
                if cache:
                    cache.keep(staying)
            if seen is not None:
                seen.scatter_(1, tokens[:, None], True)
            if cache and cache.longest == cache.max_tokens:
                _make_room(model, cache, autocast)
            logits = _read(model, tokens[:, None], cache, autocast)


def _without(finished: Collection[int], rows: Sequence[int]) -> list[int]:
    """The places of the unfinished rows; the last of them fill the free places, so that few rows are copied."""
    staying = [place for place, row in enumerate(rows) if row not in finished]
    spare = iter(place for place in staying if place >= len(staying))
    return [place if rows[place] not in finished else next(spare) for place in range(len(staying))]


@torch.no_grad()
def _prefill(
    model: Model, prompts: Sequence[list[int]], max_new_tokens: int, autocast: torch.dtype | None
) -> tuple[Tensor, KVCache | None]:
    """Compute the prompts, equal ones once: logits (B, V) after the last token of each, and their KV cache.

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
    """Keep only the recent half of the tokens of rows that fill the context, computed again from position 0."""
    full = (cache.lengths == cache.max_tokens).nonzero()[:, 0]  # (F,)
    half = max(0, cache.max_tokens // 2 - 1)
    if half:
        recent = cache.tokens[full, -half:]  # (F, half)
        fresh = KVCache(model.shape, len(full), half, recent.device, cache.keys.dtype)
        _read(model, recent, fresh, autocast)
        cache.replace(full, fresh)
    cache.set_lengths(cache.lengths.index_fill(0, full, half))


def precision(device: torch.device, autocast: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """A context with matrix products in ``autocast``; None leaves the weights' precision."""
    return contextlib.nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """A context with all modules in evaluation mode; afterwards each is in its former mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The tokens of a prompt, at least one: those that begin every text, or for an empty prompt the end-of-text token or
    a line break.

    Raises:
        ValueError: an empty prompt for a tokenizer with neither, or a prompt that it cannot encode.
    """
    if prompt or tokenizer.prefix_ids:
        return tokenizer.encode_prompt(prompt)
    if tokenizer.eot_id is not None:
        return [tokenizer.eot_id]
    try:
        return tokenizer.encode("\n")
    except ValueError:
        raise ValueError("the prompt is empty, and the tokenizer has no token for that; give a prompt") from None


def check_request(
    model: Model, prompts: Sequence[list[int]], max_new_tokens: int, tokenizer: Tokenizer | None = None
) -> None:
    """Refuse prompts that cannot be continued.

    Raises:
        ValueError: a negative number of tokens, an empty prompt, a token outside the vocabulary of the model or, where a
            tokenizer is given, of the tokenizer.
    """
    vocab_size = min(each.vocab_size for each in (model.shape, tokenizer) if each is not None)
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; give 0 or more")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} is empty; give at least one token to continue from")
        for token in (min(prompt), max(prompt)):
            if not 0 <= token < vocab_size:
                place = f"token {token} of prompt {row}"
                raise ValueError(f"{place} is outside the vocabulary of {vocab_size}; encode with the run's tokenizer")
