"""A visitor's session in the playground, without widgets: talk, judge, compare two blind answers, look inside.

The state of a session stays on the server; the page is given views of it as JSON, and refers to messages by number. Answers
come from the engines of the API and are recorded in the same feedback store. Not here: the page (page.py), how answers are
planned and recorded (openai/).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from understudy.feedback.records import Judgement
from understudy.runtime import let_threads_go
from understudy.serve.errors import ApiError
from understudy.serve.openai.completions import ChatCompletion
from understudy.serve.openai.schemas import ChatRequest
from understudy.serve.served import Served, ServedRun
from understudy.tokenizer.chat import Message

LOOK_TOKENS, LOOK_WEIGHTS = 160, 1_500_000
"""Limits of a look inside: tokens, and attention weights of all heads together, a byte each."""
SECONDS_BETWEEN_VIEWS = 0.05
SECONDS_TO_STOP = 5.0
"""Time that a page waits for its conversation's answer to stop, when it was loaded again meanwhile."""
CONVERSATIONS_KEPT = 200
"""Conversations of all visitors that a page finds again after a reload."""
REMARKS = {
    "length": "cut at the limit of tokens",
    "cancelled": "stopped",
    "timeout": "stopped: it took too long",
    "error": "generation failed; see the server's log",
}
"""Remark under an answer, by finish reason."""
SAVED = {
    "thumb": "your thumb. It can train a model.",
    "rating": "your rating. It can train a model, except 3 stars alone.",
    "correction": "your correction. It can train a model.",
    "comparison": "your choice. It can train a model.",
}
"""Message after a judgement, by its kind, with its use in `feedback export`."""
TAKEN_BACK = {"thumb": "your thumb", "rating": "your rating", "correction": "your correction"}


@dataclass(frozen=True)
class GenerationOptions:
    """A visitor's settings."""

    model: str
    system: str | None = None
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    max_tokens: int = 200
    seed: str | None = None
    """Digits, as typed; empty draws differently each time."""

    def request(self, messages: Sequence[Message], number: int, conversation_id: str) -> ChatRequest:
        """The request to the API. Each answer of a conversation adds its number to the seed."""
        system = [{"role": "system", "content": self.system}] if (self.system or "").strip() else []
        seed = (self.seed or "").strip()
        if seed and not seed.isdecimal():
            raise ApiError(400, "the seed is no whole number; give one from 0, or leave it empty, in the settings")
        try:
            return ChatRequest.model_validate({
                "model": self.model, "messages": [*system, *messages], "temperature": float(self.temperature),
                "top_p": float(self.top_p), "top_k": int(self.top_k) or None, "max_tokens": int(self.max_tokens),
                "seed": int(seed) + number if seed else None, "conversation_id": conversation_id,
            })  # fmt: skip
        except ValidationError as error:
            first = error.errors()[0]
            raise ApiError(400, f"{'.'.join(map(str, first['loc'][-1:]))}: {first['msg']}") from error


@dataclass
class PlaygroundAnswer:
    """An answer, while it is generated and after, with its visitor's judgements."""

    run: ServedRun
    text: str = ""
    state: str = "writing"
    id: str | None = None
    """Its id in the feedback store; None if it is not stored and cannot be judged."""
    prompt: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    left_out: int = 0
    judged: dict[str, Any] = field(default_factory=dict)
    saved: str = ""
    refused: bool = False
    completion: ChatCompletion | None = None

    @property
    def remark(self) -> str:
        parts = [f"without the {self.left_out} oldest messages, which do not fit the context"] if self.left_out else []
        return "; ".join([*parts, *([REMARKS[self.state]] if self.state in REMARKS else [])])

    async def write(self, served: Served, request: ChatRequest) -> AsyncGenerator[None, None]:
        """Generate and record the answer; yields whenever it has grown."""
        completion = ChatCompletion(served, request, lambda model, seconds: None)  # the metric is about the API
        stream = completion.stream
        await completion.begin()
        self.completion = completion
        self.prompt, self.left_out = completion.plan.prompts[0], completion.plan.left_out
        try:
            last_view = 0.0
            async for _ in stream.deltas():
                self.text = stream.totals[0].text
                if time.monotonic() - last_view >= SECONDS_BETWEEN_VIEWS:
                    last_view = time.monotonic()
                    yield
        finally:  # also when the visitor leaves
            stream.cancel()
        total = stream.totals[0]
        self.text, self.tokens, self.state = total.text, list(total.tokens), total.finish_reason or "stop"
        if await completion.record(0):
            self.id = completion.id

    def stop(self) -> None:
        """End it early."""
        if self.completion is not None:
            self.completion.stream.cancel()


@dataclass
class PlaygroundConversation:
    """A visitor's conversation: questions and their answers."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    turns: list[tuple[str, PlaygroundAnswer]] = field(default_factory=list)
    answers: int = 0
    """Number of answers sampled, which is added to the seed."""
    pending: PlaygroundAnswer | None = None
    closed: bool = False
    """Whether the visitor started another conversation."""
    earlier: PlaygroundConversation | None = None
    """The conversation that the visitor left for this one."""
    problem: str = ""
    """Why the visitor's last wish was refused; empty if it was not."""

    def __deepcopy__(self, memo: Any) -> PlaygroundConversation:
        """Gradio copies the initial state for each session; it is a new conversation, with no copy of an engine."""
        return PlaygroundConversation()

    def next(self) -> PlaygroundConversation:
        """A new conversation in place of this one, from which the visitor can come back to it."""
        self.closed, self.problem = True, ""
        self.stop()
        left = self if self.turns else self.earlier
        self.earlier = None
        return PlaygroundConversation(earlier=left)

    def view(self, several: bool) -> dict[str, Any]:
        """The JSON that the page draws; with ``several`` models answers show the model's name."""
        busy = any(answer.state == "writing" for _, answer in self.turns)
        messages: list[dict[str, Any]] = []
        for place, (question, answer) in enumerate(self.turns):
            messages.append({"role": "user", "text": question, "busy": busy})
            messages.append({
                "role": "assistant", "text": answer.text, "state": answer.state, "remark": answer.remark,
                "model": answer.run.name if several else "", "judgeable": answer.id is not None,
                "lookable": bool(answer.tokens), "last": place + 1 == len(self.turns) and not busy,
                "judged": answer.judged, "saved": answer.saved, "refused": answer.refused,
            })  # fmt: skip
        return {
            "messages": messages, "id": self.id, "earlier": self.earlier is not None, "problem": self.problem,
            "number": view_number(),
        }  # fmt: skip

    async def say(
        self, served: Served, text: str, options: GenerationOptions, place: int | None = None
    ) -> AsyncGenerator[None, None]:
        """Answer a message: a new one, or with ``place`` that of this turn, which removes the later ones. An ApiError leaves
        the conversation as it was. If the visitor leaves, the answer ends where it is."""
        if self.pending is not None:
            raise ApiError(409, "an answer is being written; stop it, or wait for it")
        if not text.strip():
            raise ApiError(400, "the message is empty; write something to answer")
        run = served.find(options.model)
        self.problem = ""
        before = list(self.turns)
        earlier = before if place is None else before[:place]
        self.pending = answer = PlaygroundAnswer(run)
        self.turns = [*earlier, (text, answer)]
        messages = [message for turn in earlier for message in _messages(*turn)]
        try:
            request = options.request([*messages, {"role": "user", "content": text}], self.answers, self.id)
            self.answers += 1
            async with contextlib.aclosing(answer.write(served, request)) as updates:
                yield  # the question, while its prompt is computed
                async for _ in updates:
                    yield
        except ApiError:
            self.turns = before
            raise
        finally:
            self.pending, self.problem = None, ""
            if answer.state == "writing":
                answer.state = "cancelled"

    def stop(self) -> None:
        if self.pending is not None:
            self.pending.stop()

    async def stopped(self) -> None:
        """Stop an answer, and wait for its end."""
        self.stop()
        ends = time.monotonic() + SECONDS_TO_STOP
        while self.pending is not None and time.monotonic() < ends:
            await asyncio.sleep(SECONDS_BETWEEN_VIEWS)

    def answer_at(self, place: Any) -> PlaygroundAnswer:
        """The answer of a message, by its number on the page."""
        turn = place // 2 if isinstance(place, int) else -1
        if not 0 <= turn < len(self.turns):
            raise ApiError(404, "that answer no longer exists")
        return self.turns[turn][1]


class RecentConversations:
    """The conversations of all visitors by id, without the oldest beyond CONVERSATIONS_KEPT. A page that is loaded again has
    another session of Gradio, and finds its conversation here; nobody else knows the id."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, PlaygroundConversation] = OrderedDict()

    def keep(self, conversation: PlaygroundConversation) -> None:
        self._kept[conversation.id] = conversation
        self._kept.move_to_end(conversation.id)
        while len(self._kept) > CONVERSATIONS_KEPT:
            self._kept.popitem(last=False)

    def find(self, id: Any) -> PlaygroundConversation | None:
        return self._kept.get(id) if isinstance(id, str) else None


@dataclass
class AnswerPair:
    """Two answers to one question, in a random order that the page learns only after the choice."""

    question: str = ""
    answers: list[PlaygroundAnswer] = field(default_factory=list)
    pending: bool = False
    picked: int | None = None
    saved: str = ""
    refused: bool = False
    problem: str = ""

    def __deepcopy__(self, memo: Any) -> AnswerPair:
        return AnswerPair()

    def view(self, greeting: str = "") -> dict[str, Any]:
        """The JSON that the page draws, without names of models before the choice is saved."""
        over = bool(self.saved) and not self.refused
        return {
            "question": self.question, "greeting": greeting, "picked": self.picked if over else None,
            "saved": self.saved, "refused": self.refused, "problem": self.problem, "number": view_number(),
            "ready": bool(self.answers) and not over and all(answer.id is not None for answer in self.answers),
            "answers": [
                {
                    "text": answer.text, "state": answer.state, "remark": answer.remark,
                    "model": f"{answer.run.name}, step {answer.run.step}" if over else "",
                }
                for answer in self.answers
            ],
        }  # fmt: skip

    async def ask(self, served: Served, text: str, options: Sequence[GenerationOptions]) -> AsyncGenerator[None, None]:
        """Generate both answers at once, with different seeds, since both may come from one model."""
        if self.pending:
            raise ApiError(409, "two answers are being written; stop them, or wait for them")
        if not text.strip():
            raise ApiError(400, "the question is empty; write something to answer")
        order = [0, 1] if secrets.randbits(1) else [1, 0]
        conversation = uuid.uuid4().hex
        messages = [{"role": "user", "content": text}]
        requests = [options[n].request(messages, n, conversation) for n in order]
        answers = [PlaygroundAnswer(served.find(options[n].model)) for n in order]
        self.question, self.picked, self.saved, self.refused, self.problem = text, None, "", False, ""
        self.answers, self.pending = answers, True

        async def finish(answer: PlaygroundAnswer, request: ChatRequest) -> None:
            async for _ in answer.write(served, request):
                pass  # the text collects in the answer

        tasks = [asyncio.create_task(finish(answer, request)) for answer, request in zip(answers, requests)]
        try:
            while True:
                done, waiting = await asyncio.wait(
                    tasks, timeout=SECONDS_BETWEEN_VIEWS, return_when=asyncio.FIRST_EXCEPTION
                )
                for task in done:
                    task.result()
                if not waiting:
                    return
                yield
        finally:
            for task in tasks:
                task.cancel()
            self.pending, self.problem = False, ""
            for answer in self.answers:
                if answer.state == "writing":
                    answer.state = "cancelled"

    def stop(self) -> None:
        for answer in self.answers:
            answer.stop()

    async def pick(self, served: Served, value: int, annotator: str) -> None:
        """Save which answer is better, once: +1 the first, -1 the second, 0 neither."""
        if len(self.answers) != 2 or (self.saved and not self.refused):
            return
        first, second = self.answers
        self.saved, self.refused = await save(
            served, kind="comparison", answer_id=first.id, other_answer_id=second.id, value=value, annotator=annotator
        )
        self.picked = {1: 0, -1: 1}.get(value)


async def judge(served: Served, answer: PlaygroundAnswer, annotator: str, kind: str, **fields: Any) -> None:
    """Save a visitor's judgement of an answer, and set the answer's message about it."""
    answer.saved, answer.refused = await save(served, kind=kind, answer_id=answer.id, annotator=annotator, **fields)
    if not answer.refused:
        answer.judged |= {kind: fields.get("correction") or fields["value"]}  # 0 if it was taken back
        if kind == "rating":
            answer.judged["comment"] = fields.get("comment") or ""


async def save(served: Served, **fields: Any) -> tuple[str, bool]:
    """Save a judgement in the store.

    Returns:
        The message to the visitor, and whether the judgement was refused. A saved one is on the disk.
    """
    judgement = Judgement(**fields | {"annotator": fields["annotator"] or ""})
    try:
        await served.save(judgement)
    except ApiError as error:
        return error.message, True
    if judgement.withdrawn:
        return f"taken back: {TAKEN_BACK[judgement.kind]}. It no longer counts.", False
    return f"saved: {SAVED[judgement.kind]}", False


async def look_view(answer: PlaygroundAnswer) -> dict[str, Any]:
    """The JSON of a look inside an answer: its last LOOK_TOKENS tokens with the prompt's, each with probability,
    alternatives and layers, and the attention weights between them of the layers that have attention."""
    from understudy.inference.lookinside import Look, describe, look_inside

    tokens = [*answer.prompt, *answer.tokens][: answer.run.context_length]

    def work() -> Look:
        try:
            return look_inside(answer.run.model, tokens, vocab_size=answer.run.tokenizer.vocab_size)
        finally:
            let_threads_go()

    look = await asyncio.to_thread(work)
    layers, heads = look.attention.shape[:2]
    attending = [layer for layer in range(layers) if layer not in answer.run.model.shape.conv_layers]
    most = min(LOOK_TOKENS, int(math.sqrt(LOOK_WEIGHTS / max(1, len(attending) * heads))))
    cut = max(0, len(tokens) - most)
    weights = (look.attention[attending, :, cut:, cut:] * 255).round().byte().contiguous()
    special = set(answer.run.tokenizer.special_tokens.values())
    rows = [row | {"special": row["id"] in special} for row in describe(look, answer.run.tokenizer)[cut:]]
    return {
        "rows": rows, "own": max(0, len(answer.prompt) - cut), "cut": cut,
        "layers": layers, "attending": attending, "heads": heads, "attention": base64.b64encode(weights.numpy().tobytes()).decode(),
    }  # fmt: skip


def view_number() -> int:
    """A number that increases from view to view, also over a restart of the server: the time in microseconds.

    The page ignores a view with a smaller number than its own: when an event ends, Gradio sends its last view again.
    """
    return time.time_ns() // 1000


def _messages(question: str, answer: PlaygroundAnswer) -> list[Message]:
    """A turn as messages for the next prompt; none for a question with an empty answer."""
    if not answer.text.strip():
        return []
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]
