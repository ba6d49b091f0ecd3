"""Serving many requests at once with one model: continuous batching.

One thread runs the model, in steps. In each step, every request whose prompt has been read gets one token, all in one
forward; before it, some of the prompts that are not read yet are read on, at most ``prefill_tokens`` tokens of them,
so that a long prompt slows the others down and does not stop them. Requests join and leave between any two steps.

With fp32 or int8 weights on a CPU with one number of threads, the same seed gives the same answer, to the bit, whatever
else is running:

- What is computed for a row in a step does not depend on the rows beside it: attention reads each row by itself
  (model/kv_cache.py), and linear layers are only given numbers of rows for which products agree (quantize.py).
- A prompt is read alone, in chunks that begin at multiples of ``prefill_tokens``. A request with a seed uses of what
  earlier requests left only whole chunks of their prompts (slots.py); one without uses all of it.
- Draws come from the seed alone, as in :func:`generate_text`, whose answers differ from these only by rounding: where
  that decides between two tokens, about once in a million.

Not here: what a request may ask (serve/), how a token is chosen (sampling.py), one batch from start to end (engine.py).

Shapes: R rows, T time, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor

from understudy.inference import sampling
from understudy.inference.engine import Model, check_request, evaluating, precision
from understudy.inference.quantize import is_prepared, prepare_for_inference
from understudy.inference.requests import EngineStats, Piece, QueueFull, Request, TokenLogprob
from understudy.inference.row_text import Completion, FinishReason, RowText
from understudy.inference.sampling import SamplingSettings
from understudy.inference.slots import Slot, Slots
from understudy.model.masks import cached
from understudy.runtime import let_threads_go
from understudy.tokenizer import Tokenizer


class _Row:
    """A request on its way."""

    def __init__(self, request: Request, text: RowText, on_piece: Callable[[Piece], None]) -> None:
        self.request, self.text, self.on_piece = request, text, on_piece
        [self.generator] = sampling.row_generators(request.settings.seed, [0])
        self.submitted = self.started = time.monotonic()
        self.slot: Slot | None = None
        self.in_prompt = True  # until all of the prompt is read and the first token is sampled
        self.seen: Tensor | None = None  # (V,), with a repetition penalty
        self.prompt_logprobs: list[TokenLogprob] = []
        self.reused_tokens = 0
        self.cancelled = False

    @property
    def own_slot(self) -> Slot:
        """The slot, which every row in a step has.

        Raises:
            ValueError: the row waits, or has ended.
        """
        if self.slot is None:
            raise ValueError("a request without a slot was read")
        return self.slot

    def over(self, now: float) -> FinishReason | None:
        """Why the row ends before its time, if it does."""
        if self.cancelled:
            return "cancelled"
        timeout = self.request.timeout
        return "timeout" if timeout is not None and now - self.submitted >= timeout else None


class Ticket:
    """What the one who asked holds on to."""

    def __init__(self, row: _Row) -> None:
        self._row = row

    def cancel(self) -> None:
        """End the answer at the next step, with one last piece; nothing happens when it has ended. From any thread."""
        self._row.cancelled = True

    def completion(self) -> Completion:
        """The answer so far, with the log-probabilities that its tokens were sampled with; whole after its last piece."""
        return self._row.text.completion()


class BatchEngine:
    """Answers requests, many at once, in a thread of its own.

    >>> with BatchEngine(model, tokenizer) as engine:  # doctest: +SKIP
    ...     ticket = engine.submit(Request(tokens, max_new_tokens=100), on_piece=print)

    Args:
        model: as trained, or from :func:`prepare_for_inference` for at least ``max_rows`` rows. One as trained is prepared
            on a CPU, in fp32, unless ``autocast`` says otherwise.
        max_rows: requests that run at once; others wait.
        prefill_tokens: how many tokens of prompts are read between two steps of those that answer.
        queue_limit: requests that may wait.
        autocast: precision of matrix products; the weights' own when left out.
        cache_bytes: the most that keys and values may take; fewer rows run at once where it is not enough for all.

    Raises:
        ValueError: not one row fits ``cache_bytes``.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 8,
        prefill_tokens: int = 128,
        queue_limit: int = 64,
        autocast: torch.dtype | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        weight = next(model.parameters())
        self._device, self._autocast = weight.device, autocast
        self._slots = Slots(model.shape, max_rows, prefill_tokens, self._device, autocast or weight.dtype, cache_bytes)
        if self._device.type == "cpu" and autocast is None and not is_prepared(model):
            model = prepare_for_inference(model, "fp32", len(self._slots))
        self.model, self.tokenizer, self.queue_limit = model, tokenizer, queue_limit
        self._rows: list[_Row] = []  # that have a slot; only the engine's thread touches them
        self._waiting: deque[_Row] = deque()
        self._wake = threading.Condition()  # guards what follows, and the queue
        self._open = self._abandoned = False
        self._thread: threading.Thread | None = None
        self._finished: Counter[str] = Counter()
        self._tokens_generated = self._prompt_tokens = self._prompt_tokens_reused = 0
        self._seconds = 1.0  # that a request holds a slot, averaged over the last ones

    def __enter__(self) -> BatchEngine:
        assert self._thread is None, "an engine is started once"
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._open = True
        let_threads_go()  # where the model was loaded
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    def submit(self, request: Request, on_piece: Callable[[Piece], None]) -> Ticket:
        """Queue a request; its pieces come by ``on_piece``, called in the engine's thread, which must not block.

        A RuntimeError from ``on_piece`` (which is what an event loop that has ended raises) cancels the request.

        Raises:
            ValueError: a request that cannot be answered.
            QueueFull: as many wait as may.
            RuntimeError: the engine is closed, not started yet, or broken.
        """
        row = _Row(request, self._checked(request), on_piece)
        with self._wake:
            if not self._open:
                raise RuntimeError("the engine is not running; it answers inside its `with` block, until it is closed")
            if len(self._waiting) >= self.queue_limit:
                wait = self._seconds * (len(self._waiting) + 1) / len(self._slots)
                raise QueueFull(len(self._waiting), max(1.0, wait))
            self._waiting.append(row)
            self._wake.notify_all()
        return Ticket(row)

    def stats(self) -> EngineStats:
        with self._wake:
            return EngineStats(
                len(self._rows), len(self._waiting), len(self._slots), self._slots.cached_tokens,
                self._slots.cache_bytes, self._tokens_generated, self._prompt_tokens, self._prompt_tokens_reused,
                dict(self._finished),
            )  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether it takes requests: not before its start, after its end, or when its thread failed."""
        return self._open

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Take no more requests, and end: when all are answered, or at once; after ``timeout`` seconds in any case."""
        with self._wake:
            self._open, self._abandoned = False, self._abandoned or not drain
            self._wake.notify_all()
        if self._thread is None or self._thread is threading.current_thread():
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._abandoned = True  # what is left ends as cancelled, at the next step
            self._thread.join()

    def _checked(self, request: Request) -> RowText:
        """Refuse what cannot be answered, in the caller's thread."""
        check_request(self.model, [list(request.tokens)], request.max_new_tokens)
        context, needed = self.model.shape.context_length, len(request.tokens) + request.max_new_tokens
        if self._slots.cache is not None and needed > context:
            raise ValueError(
                f"the prompt's {len(request.tokens)} tokens and {request.max_new_tokens} new ones exceed the context "
                f"of {context}; shorten the prompt, or ask for fewer"
            )
        for name in ("logprobs", "prompt_logprobs"):
            if (asked := getattr(request, name)) is not None and asked < 0:
                raise ValueError(f"{name} is {asked}; give 0 or more, or leave it out")
        return RowText(self.tokenizer, request.stop, frozenset(request.end_ids))

    # What follows runs in the engine's thread.

    def _run(self) -> None:
        whole = False
        try:
            with evaluating(self.model), torch.inference_mode():
                while self._admit():
                    self._step()
            whole = True
        finally:  # an exception goes on to threading.excepthook, which shows it
            with self._wake:
                self._open = False
                left = [*self._rows, *self._waiting]
                self._waiting.clear()
            for row in left:
                self._end(row, "cancelled" if whole else "error")

    def _admit(self) -> bool:
        """Wait for something to do, and give free slots to those who wait; False when all is done."""
        with self._wake:
            while self._open and not (self._waiting or self._rows):
                self._wake.wait()
            now = time.monotonic()
            over = [row for row in self._waiting if self._abandoned or row.over(now)]
            for row in over:
                self._waiting.remove(row)
            while self._waiting and (slot := self._take_slot(self._waiting[0])):
                row = self._waiting.popleft()
                row.slot, row.started, row.reused_tokens = slot, now, len(slot.held)
                self._rows.append(row)
                self._prompt_tokens += len(row.request.tokens)
                self._prompt_tokens_reused += len(slot.held)
        for row in over:
            self._end(row, row.over(now) or "cancelled")
        return self._open or bool(self._waiting or self._rows)

    def _take_slot(self, row: _Row) -> Slot | None:
        asked = row.request
        return self._slots.take(asked.tokens, asked.settings.seed is not None, asked.prompt_logprobs is None)

    def _step(self) -> None:
        """Read on in prompts, then one token for each row whose prompt is read."""
        now = time.monotonic()
        for row in list(self._rows):
            reason = row.over(now)
            if reason or self._abandoned:
                self._end(row, reason or "cancelled")
        answering = [row for row in self._rows if not row.in_prompt]
        begun = self._read_prompts([row for row in self._rows if row.in_prompt])
        rows = [row for row, _ in begun] + answering
        logits = [logits for _, logits in begun]
        if answering:
            logits.append(self._read_tokens(answering))
        if rows:
            self._sample(rows, logits[0] if len(logits) == 1 else torch.cat(logits))

    def _read_prompts(self, rows: Sequence[_Row]) -> list[tuple[_Row, Tensor]]:
        """Read a chunk of each prompt in turn while they are within ``prefill_tokens``, and at least one.

        Returns:
            The rows whose prompt is read, with the logits (1, V) after it.
        """
        begun, left = [], self._slots.chunk
        for row in rows:
            tokens = self._slots.next_chunk(row.own_slot, row.request.tokens)
            if len(tokens) > left:
                break  # chunks are not cut shorter: what a prompt gives must not depend on the others
            left -= len(tokens)
            every = self._read_chunk(row, tokens)
            if len(row.own_slot.held) == len(row.request.tokens):
                begun.append((row, every))
            else:
                self._rows.remove(row)  # the others' turn
                self._rows.append(row)
        ended = [row for row, _ in begun if not row.request.max_new_tokens]
        for row in ended:
            self._end(row, "length")
        return [(row, logits) for row, logits in begun if row not in ended]

    def _read_chunk(self, row: _Row, chunk: list[int]) -> Tensor:
        """Logits (1, V) after a chunk of the row's prompt."""
        slot, wanted, prompt = row.own_slot, row.request.prompt_logprobs, row.request.tokens
        start = len(slot.held)
        hidden = self._hidden([chunk], [slot.number])  # (1, T, D)
        with precision(self._device, self._autocast):
            logits = self.model.logits(hidden[0] if wanted is not None else hidden[0, -1:])  # (T or 1, V)
        self._slots.add(slot, chunk)
        if wanted is not None:
            targets = prompt[start + 1 : start + len(chunk) + 1]
            row.prompt_logprobs += token_logprobs(logits[: len(targets)], targets, wanted)
        return logits[-1:]

    def _read_tokens(self, rows: Sequence[_Row]) -> Tensor:
        """Logits (R, V) after the last token of each row."""
        slots = [row.own_slot for row in rows]
        last = {slot.number: row.text.tokens[-1] for slot, row in zip(slots, rows)}
        numbers = [slot.number for slot in slots]
        # A GPU is given all slots in every step: then a row's numbers do not depend on how many there are. What it
        # writes for slots that are not in it lies behind what they hold.
        given = numbers if self._device.type == "cpu" else list(range(len(self._slots)))
        hidden = self._hidden([[last.get(number, 0)] for number in given], given)[:, -1]  # (R, D)
        if given is not numbers:
            hidden = hidden[torch.tensor(numbers, device=self._device)]
        for slot in slots:
            self._slots.add(slot, [last[slot.number]])
        with precision(self._device, self._autocast):
            return self.model.logits(hidden)

    def _hidden(self, tokens: list[list[int]], numbers: list[int]) -> Tensor:
        """Hidden states (R, T, D) of ``tokens`` (R, T) after what the slots of these numbers hold."""
        read = torch.tensor(tokens, device=self._device)
        cache = self._slots.cache
        with precision(self._device, self._autocast):
            if cache is None:
                return self.model.hidden(read)
            last_place = cache.max_tokens - 1
            lengths = [min(len(self._slots.slots[number].held), last_place) for number in numbers]
            return self.model.hidden(read, cached(cache.pick(numbers, lengths), read.shape[1]))

    def _sample(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """Draw a token for each row from ``logits`` (R, V), those with equal settings together."""
        groups: dict[SamplingSettings, list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault(dataclasses.replace(row.request.settings, seed=None), []).append(place)
        for settings, places in groups.items():
            members = [rows[place] for place in places]
            part = logits if len(groups) == 1 else logits[places]
            seen = None
            if settings.repetition_penalty != 1:
                seen = torch.stack([self._seen(row, part) for row in members])
            tokens, chosen = sampling.draw(part, settings, [row.generator for row in members], seen)  # (R,)
            for place, (row, token, logprob) in enumerate(zip(members, tokens.tolist(), chosen)):
                self._take(row, token, logprob, part[place : place + 1])

    def _seen(self, row: _Row, logits: Tensor) -> Tensor:
        """(V,) true for the tokens of the row's prompt and answer."""
        if row.seen is None:
            [row.seen] = sampling.seen_tokens([row.request.tokens], logits[:1])
        row.seen[row.text.tokens[-1:]] = True
        return row.seen

    def _take(self, row: _Row, token: int, logprob: float, logits: Tensor) -> None:
        """Give a row its next token, sampled from ``logits`` (1, V)."""
        if not math.isfinite(logprob):  # the model diverged
            self._end(row, "error")
            return
        row.in_prompt = False
        self._tokens_generated += 1
        wanted = row.request.logprobs
        logprobs = () if wanted is None else tuple(token_logprobs(logits, [token], wanted))
        text = row.text.push(token, logprob)
        if row.text.stopped:
            self._end(row, "stop", text, (token,), logprobs)
        elif len(row.text.tokens) == row.request.max_new_tokens:
            self._end(row, "length", text, (token,), logprobs)
        else:
            self._hand_out(row, Piece(text, (token,), logprobs))

    def _end(
        self,
        row: _Row,
        reason: FinishReason,
        text: str = "",
        tokens: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """Free the row's slot, and hand out its last piece."""
        if row.slot is not None:
            if reason == "error":
                self._slots.forget(row.slot)
            self._slots.give_back(row.slot)
            with self._wake:
                self._rows.remove(row)
                self._seconds += 0.2 * (time.monotonic() - row.started - self._seconds)
            row.slot = None
        self._finished[reason] += 1
        self._hand_out(row, Piece(text + row.text.finish(), tokens, logprobs, reason))

    def _hand_out(self, row: _Row, piece: Piece) -> None:
        if row.prompt_logprobs or row.reused_tokens:  # which go with the first piece
            piece = dataclasses.replace(
                piece, prompt_logprobs=tuple(row.prompt_logprobs), reused_tokens=row.reused_tokens
            )
            row.prompt_logprobs, row.reused_tokens = [], 0
        try:
            row.on_piece(piece)
        except RuntimeError:  # an event loop that has ended: nobody listens any more
            row.cancelled = True


def complete(engine: BatchEngine, request: Request) -> Completion:
    """Answer one request, and wait for it; arguments and errors as for :meth:`BatchEngine.submit`."""
    ended, reasons = threading.Event(), list[FinishReason]()

    def on_piece(piece: Piece) -> None:
        if piece.finish_reason is not None:
            reasons.append(piece.finish_reason)
            ended.set()

    ticket = engine.submit(request, on_piece)
    ended.wait()
    return dataclasses.replace(ticket.completion(), finish_reason=reasons[0])


def token_logprobs(logits: Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Of each of ``tokens`` (T,) under ``logits`` (T, V), with the ``top`` likeliest in its place."""
    if not tokens:
        return []
    logprobs = logits.float().log_softmax(dim=-1)
    own = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(top, logits.shape[-1]), dim=-1)
    tops = [tuple(zip(*pair)) for pair in zip(best.indices.tolist(), best.values.tolist())]
    return [TokenLogprob(token, logprob, likeliest) for token, logprob, likeliest in zip(tokens, own, tops)]
