"""Continuous batching: many requests at once with one model.

One thread runs the model in steps. In each step every sequence whose prompt has been computed gets one token, all in one
forward; before it at most ``prefill_tokens`` tokens of waiting prompts are computed, so that a long prompt slows the other
sequences but does not stop them. Requests join and leave between any two steps.

On a CPU with a fixed number of threads, the same seed gives the same completion to the bit, regardless of other requests:

- The result for a sequence does not depend on the others in the batch: attention runs per sequence (model/kv_cache.py), and
  linear layers use kernels that give a row the same bits in every batch (quantize.py).
- A prompt is computed alone, in chunks that begin at multiples of ``prefill_tokens``. A request with a seed reuses only
  whole chunks of earlier prompts (slots.py); one without a seed reuses any prefix.
- Draws depend on the seed alone, as in :func:`generate_text`, whose results differ only by rounding.

A request that raises an exception ends with the finish reason ``error``; the others and the engine continue. Not here: limits on requests (serve/), sampling (sampling.py), a fixed batch from start to end (generate.py).

Shapes: B sequences, T time, D model width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from understudy.inference import sampling
from understudy.inference.generate import Model, check_request, evaluating
from understudy.inference.quantize import is_prepared, prepare_for_inference
from understudy.inference.requests import (
    Completion,
    CompletionChunk,
    CompletionText,
    EngineStats,
    FinishReason,
    QueueFull,
    SequenceRequest,
    TokenLogprob,
)
from understudy.inference.sampling import SamplingSettings
from understudy.inference.slots import Slot, Slots
from understudy.model.masks import cached
from understudy.runtime import let_threads_go
from understudy.tokenizer import Tokenizer

logger = logging.getLogger("understudy.engine")


class RequestHandle:
    """A submitted request. Its client may call the public methods; the rest belongs to the engine's thread."""

    def __init__(
        self, request: SequenceRequest, text: CompletionText, on_chunk: Callable[[CompletionChunk], object]
    ) -> None:
        self.request, self.text, self.on_chunk = request, text, on_chunk
        [self.generator] = sampling.row_generators(request.settings.seed, [0])
        self.submitted = self.started = time.monotonic()
        self.slot: Slot | None = None
        self.in_prompt = True  # until the whole prompt is computed and the first token is sampled
        self.seen: Tensor | None = None  # (V,), with a repetition penalty
        self.constraint = None if request.constraint is None else request.constraint.start()
        self.prompt_logprobs: list[TokenLogprob] = []
        self.reused_tokens = 0
        self.cancelled = False

    @property
    def held_slot(self) -> Slot:
        """The slot of a running request."""
        assert self.slot is not None
        return self.slot

    def early_end(self, now: float) -> FinishReason | None:
        """``cancelled`` or ``timeout`` if the sequence has to end now."""
        if self.cancelled:
            return "cancelled"
        timeout = self.request.timeout
        return "timeout" if timeout is not None and now - self.submitted >= timeout else None

    def cancel(self) -> None:
        """End the completion at the next step, with one last chunk; no effect after its end. From any thread."""
        self.cancelled = True

    def completion(self) -> Completion:
        """The completion so far; complete after its last chunk."""
        return self.text.completion()


class BatchEngine:
    """Generates for many requests at once in its own thread.

    >>> with BatchEngine(model, tokenizer) as engine:  # doctest: +SKIP
    ...     handle = engine.submit(SequenceRequest(tokens, max_new_tokens=100), on_chunk=print)

    Args:
        model: as trained, or from :func:`prepare_for_inference` for at least ``max_rows`` rows. On a CPU a model as trained
            is prepared in fp32.
        tokenizer: its vocabulary limits the sampled ids, where the model's is padded.
        max_rows: requests that run at once; others wait.
        prefill_tokens: prompt tokens computed between two steps of the running sequences.
        queue_limit: requests that may wait.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 8,
        prefill_tokens: int = 128,
        queue_limit: int = 64,
    ) -> None:
        weight = next(model.parameters())
        self._device = weight.device
        self._slots = Slots(model.shape, max_rows, prefill_tokens, self._device, weight.dtype)
        if self._device.type == "cpu" and not is_prepared(model):
            model = prepare_for_inference(model, "fp32", len(self._slots))
        self.model, self.tokenizer, self.queue_limit = model, tokenizer, queue_limit
        self._running: list[RequestHandle] = []  # with a slot; only the engine's thread changes it
        self._waiting: deque[RequestHandle] = deque()
        self._wake = threading.Condition()  # guards the attributes below and the queue
        self._open = self._abandoned = False
        self._thread: threading.Thread | None = None
        self._finished: Counter[str] = Counter()
        self._tokens_generated = self._prompt_tokens = self._prompt_tokens_reused = 0
        self._seconds = 1.0  # moving average of the time a request holds a slot

    def __enter__(self) -> BatchEngine:
        if self._thread is not None:
            raise RuntimeError("the engine was started before; build another one")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._open = True
        let_threads_go()  # of the thread that loaded the model
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(drain=kind is None)

    def submit(self, request: SequenceRequest, on_chunk: Callable[[CompletionChunk], object]) -> RequestHandle:
        """Queue a request. ``on_chunk`` is called in the engine's thread for each chunk and must not block.

        A RuntimeError from ``on_chunk``, which a closed event loop raises, cancels the request.

        Raises:
            ValueError: an invalid request.
            QueueFull: too many requests wait.
            RuntimeError: the engine is closed, not started, or failed.
        """
        sequence = RequestHandle(request, self._checked(request), on_chunk)
        with self._wake:
            if not self._open:
                raise RuntimeError("the engine is not running; submit inside its `with` block, before it is closed")
            if len(self._waiting) >= self.queue_limit:
                wait = self._seconds * (len(self._waiting) + 1) / len(self._slots)
                raise QueueFull(len(self._waiting), max(1.0, wait))
            self._waiting.append(sequence)
            self._wake.notify_all()
        return sequence

    def stats(self) -> EngineStats:
        with self._wake:
            return EngineStats(
                len(self._running), len(self._waiting), len(self._slots), self._slots.cached_tokens,
                self._slots.cache_bytes, self._tokens_generated, self._prompt_tokens, self._prompt_tokens_reused,
                dict(self._finished),
            )  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether it accepts requests: after its start, until it is closed or its thread fails."""
        return self._open

    def close(self, drain: bool = True) -> None:
        """Accept no more requests, and end: when all are finished, or at once without ``drain``."""
        with self._wake:
            self._open, self._abandoned = False, self._abandoned or not drain
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _checked(self, request: SequenceRequest) -> CompletionText:
        """Refuse an invalid request, in the caller's thread."""
        check_request(self.model, [list(request.tokens)], request.max_new_tokens, self.tokenizer)
        context, needed = self.model.shape.context_length, len(request.tokens) + request.max_new_tokens
        if self._slots.cache is not None and needed > context:
            raise ValueError(
                f"the prompt and the new tokens are {needed} and exceed the context of {context}; ask for fewer"
            )
        if min(request.logprobs or 0, request.prompt_logprobs or 0) < 0:
            raise ValueError("a number of log-probabilities is below 0; give 0 or more, or leave it out")
        return CompletionText(self.tokenizer, request.stop, frozenset(request.end_ids), request.answer)

    # The methods below run in the engine's thread.

    def _run(self) -> None:
        complete = False
        try:
            with evaluating(self.model), torch.inference_mode():
                while self._admit():
                    self._step()
            complete = True
        finally:  # an exception reaches threading.excepthook, which prints it
            with self._wake:
                self._open = False
                remaining = [*self._running, *self._waiting]
                self._waiting.clear()
            for sequence in remaining:
                self._end(sequence, "cancelled" if complete else "error")

    def _admit(self) -> bool:
        """Wait for work, and give free slots to waiting requests; False when the engine is closed and idle."""
        with self._wake:
            while self._open and not (self._waiting or self._running):
                self._wake.wait()
            now = time.monotonic()
            ending = [sequence for sequence in self._waiting if self._abandoned or sequence.early_end(now)]
            for sequence in ending:
                self._waiting.remove(sequence)
            while self._waiting and (slot := self._slots.acquire(self._waiting[0].request)):
                sequence = self._waiting.popleft()
                sequence.slot, sequence.started, sequence.reused_tokens = slot, now, len(slot.tokens)
                self._running.append(sequence)
                self._prompt_tokens += len(sequence.request.tokens)
                self._prompt_tokens_reused += len(slot.tokens)
        for sequence in ending:
            self._end(sequence, sequence.early_end(now) or "cancelled")
        return self._open or bool(self._waiting or self._running)

    def _step(self) -> None:
        """Compute prompt chunks, then one token for each sequence whose prompt is complete."""
        now = time.monotonic()
        for sequence in list(self._running):
            reason = sequence.early_end(now)
            if reason or self._abandoned:
                self._end(sequence, reason or "cancelled")
        decoding = [sequence for sequence in self._running if not sequence.in_prompt]
        prefilled = self._prefill([sequence for sequence in self._running if sequence.in_prompt])
        sequences, logits = [sequence for sequence, _ in prefilled], [last for _, last in prefilled]
        if decoding:
            with self._isolated(decoding):
                logits.append(self._decode(decoding))
                sequences += decoding
        if sequences:
            self._sample(sequences, logits[0] if len(logits) == 1 else torch.cat(logits))

    @contextlib.contextmanager
    def _isolated(self, sequences: Sequence[RequestHandle]) -> Iterator[None]:
        """End ``sequences`` with the reason ``error`` if the block raises; the engine continues."""
        try:
            yield
        except torch.AcceleratorError:  # the device is lost: every later request would fail too
            raise
        except Exception:  # a defect that one request meets must not end the others
            logger.exception("a request failed while it was generated")
            for sequence in sequences:
                self._end(sequence, "error")

    def _prefill(self, sequences: Sequence[RequestHandle]) -> list[tuple[RequestHandle, Tensor]]:
        """Compute a chunk of each prompt in turn, ``prefill_tokens`` in all and one chunk at least.

        Returns:
            The sequences whose prompt is complete, with the logits (1, V) after it.
        """
        prefilled, budget = [], self._slots.chunk
        for sequence in sequences:
            slot, prompt = sequence.held_slot, sequence.request.tokens
            chunk = self._slots.next_chunk(slot, prompt)
            if len(chunk) > budget:
                break  # chunks are not cut shorter: the result for a prompt must not depend on the others
            budget -= len(chunk)
            with self._isolated([sequence]):
                logits = self._prefill_chunk(sequence, slot, chunk)
                if len(slot.tokens) < len(prompt):
                    self._running.remove(sequence)  # the others' turn
                    self._running.append(sequence)
                elif sequence.request.max_new_tokens:
                    prefilled.append((sequence, logits))
                else:
                    self._end(sequence, "length")
        return prefilled

    def _prefill_chunk(self, sequence: RequestHandle, slot: Slot, chunk: list[int]) -> Tensor:
        """Logits (1, V) after a chunk of the prompt."""
        top, prompt, start = sequence.request.prompt_logprobs, sequence.request.tokens, len(slot.tokens)
        hidden = self._hidden([chunk], [slot.number])  # (1, T, D)
        logits = self.model.logits(hidden[0] if top is not None else hidden[0, -1:])  # (T or 1, V)
        self._slots.append(slot, chunk)
        if top is not None:
            targets = prompt[start + 1 : start + len(chunk) + 1]
            sequence.prompt_logprobs += token_logprobs(logits[: len(targets)], targets, top, self.tokenizer.vocab_size)
        return logits[-1:]

    def _decode(self, sequences: Sequence[RequestHandle]) -> Tensor:
        """Logits (B, V) after the last token of each sequence."""
        slots = [sequence.held_slot for sequence in sequences]
        numbers = [slot.number for slot in slots]
        last = {slot.number: sequence.text.tokens[-1] for slot, sequence in zip(slots, sequences)}
        # A CPU computes the slots in use; a GPU takes all of them, so that shapes stay the same. For a slot that is not in
        # use, the written keys and values lie behind its cached tokens.
        batch = numbers if self._device.type == "cpu" else list(range(len(self._slots)))
        hidden = self._hidden([[last.get(number, 0)] for number in batch], batch)[:, -1]  # (B, D)
        if batch is not numbers:
            hidden = hidden[torch.tensor(numbers, device=self._device)]
        for slot in slots:
            self._slots.append(slot, [last[slot.number]])
        return self.model.logits(hidden)

    def _hidden(self, tokens: list[list[int]], numbers: list[int]) -> Tensor:
        """Hidden states (B, T, D) of ``tokens`` (B, T), which follow the cached tokens of the slots ``numbers``."""
        batch = torch.tensor(tokens, device=self._device)
        cache = self._slots.cache
        if cache is None:
            return self.model.hidden(batch)
        last_place = cache.max_tokens - 1
        lengths = [min(len(self._slots.slots[number].tokens), last_place) for number in numbers]
        return self.model.hidden(batch, cached(cache.pick(numbers, lengths), batch.shape[1]))

    def _sample(self, sequences: Sequence[RequestHandle], logits: Tensor) -> None:
        """Draw a token for each sequence from ``logits`` (B, V), in groups of equal settings."""
        groups: dict[SamplingSettings, list[int]] = {}
        masked = self._masked(sequences, logits)
        for number, sequence in enumerate(sequences):
            if sequence.slot is None:  # its constraint failed
                continue
            groups.setdefault(dataclasses.replace(sequence.request.settings, seed=None), []).append(number)
        for settings, numbers in groups.items():
            members = [sequences[number] for number in numbers]
            whole = len(numbers) == len(sequences)
            group_logits = masked if whole else masked[numbers]
            draws: list[tuple[int, float]] = []
            with self._isolated(members):
                seen = None
                if settings.repetition_penalty != 1:
                    seen = torch.stack([self._seen(sequence, group_logits) for sequence in members])
                generators = [sequence.generator for sequence in members]
                tokens, logprobs = sampling.draw(group_logits, settings, generators, seen, self.tokenizer.vocab_size)
                draws = list(zip(tokens.tolist(), logprobs))
            for place, (sequence, (token, logprob)) in enumerate(zip(members, draws)):
                with self._isolated([sequence]):
                    number = numbers[place]
                    self._append(sequence, token, logprob, logits[number : number + 1])

    def _masked(self, sequences: Sequence[RequestHandle], logits: Tensor) -> Tensor:
        """``logits`` (B, V) without the tokens that a sequence's constraint excludes."""
        masked = logits
        for number, sequence in enumerate(sequences):
            if sequence.constraint is not None:
                with self._isolated([sequence]):
                    row = sequence.constraint.mask(logits[number : number + 1])
                    masked = logits.clone() if masked is logits else masked
                    masked[number : number + 1] = row
        return masked

    def _seen(self, sequence: RequestHandle, logits: Tensor) -> Tensor:
        """(V,), true for the tokens of the prompt and the completion."""
        if sequence.seen is None:
            [sequence.seen] = sampling.seen_tokens([sequence.request.tokens], logits[:1])
        sequence.seen[sequence.text.tokens[-1:]] = True
        return sequence.seen

    def _append(self, sequence: RequestHandle, token: int, logprob: float, logits: Tensor) -> None:
        """Append the next token, sampled from ``logits`` (1, V)."""
        if not math.isfinite(logprob):  # the model diverged
            self._end(sequence, "error")
            return
        sequence.in_prompt = False
        self._tokens_generated += 1
        top = sequence.request.logprobs
        logprobs = () if top is None else tuple(token_logprobs(logits, [token], top, self.tokenizer.vocab_size))
        chunk = CompletionChunk(sequence.text.push(token, logprob), (token,), logprobs)
        complete = sequence.text.stopped
        if sequence.constraint is not None and not complete:
            sequence.constraint.advance(token)
            complete = sequence.constraint.complete
        if complete:
            self._end(sequence, "stop", chunk)
        elif len(sequence.text.tokens) == sequence.request.max_new_tokens:
            self._end(sequence, "length", chunk)
        else:
            self._emit(sequence, chunk)

    def _end(self, sequence: RequestHandle, reason: FinishReason, last: CompletionChunk | None = None) -> None:
        """Free the sequence's slot, and emit its last chunk."""
        if sequence.slot is not None:
            if reason == "error":
                self._slots.truncate(sequence.slot)
            self._slots.release(sequence.slot)
            with self._wake:
                self._running.remove(sequence)
                self._seconds += 0.2 * (time.monotonic() - sequence.started - self._seconds)
            sequence.slot = None
        self._finished[reason] += 1
        last = last or CompletionChunk("")
        rest = "" if reason == "error" else sequence.text.finish()  # an error may come from the decoder
        self._emit(sequence, dataclasses.replace(last, text=last.text + rest, finish_reason=reason))

    def _emit(self, sequence: RequestHandle, chunk: CompletionChunk) -> None:
        if sequence.prompt_logprobs or sequence.reused_tokens:  # part of the first chunk
            chunk = dataclasses.replace(
                chunk, prompt_logprobs=tuple(sequence.prompt_logprobs), reused_tokens=sequence.reused_tokens
            )
            sequence.prompt_logprobs, sequence.reused_tokens = [], 0
        try:
            sequence.on_chunk(chunk)
        except RuntimeError:  # a closed event loop: the client is gone
            sequence.cancelled = True


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], top: int, vocab_size: int | None = None
) -> list[TokenLogprob]:
    """Log-probabilities of ``tokens`` (T,) under ``logits`` (T, V), each with the ``top`` likeliest of the first
    ``vocab_size`` tokens."""
    if not tokens:
        return []
    logprobs = logits.float().log_softmax(dim=-1)[:, :vocab_size]
    sampled = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
    tops = [tuple(zip(*pair)) for pair in zip(best.indices.tolist(), best.values.tolist())]
    return [TokenLogprob(token, logprob, likeliest) for token, logprob, likeliest in zip(tokens, sampled, tops)]
