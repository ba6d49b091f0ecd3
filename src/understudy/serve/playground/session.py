"""What visitors of the playground do, without its widgets: talk, judge, compare two blind answers, look inside.

Everything a visitor has said stays on the server, in the session; the page is given views of it as JSON, and names
places in them. Answers come from the engines that the API uses, and into the same store. Not here: the page
(playground.py), how answers are planned and kept (planning.py, chat_completions.py).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import logging
import math
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from understudy.runtime import let_threads_go
from understudy.serve.errors import ApiError
from understudy.serve.openai.chat import keep_answer
from understudy.serve.openai.plan import plan_chat
from understudy.serve.openai.schemas import ChatRequest
from understudy.serve.openai.stream import Answers
from understudy.serve.served import Served, ServedRun
from understudy.tokenizer.chat import Message

LOOK_TOKENS, LOOK_WEIGHTS = 160, 1_500_000
"""Of what a look shows, at most: tokens, and attention weights of all heads together, a byte each."""
SECONDS_BETWEEN_VIEWS = 0.05
VIEWS = itertools.count(time.time_ns() // 1000)
"""Numbers views, since Gradio sends an event's last view once more when it ends, by then perhaps an old one. From the
clock on, so that a page that outlives the server draws what the next one sends."""
REMARKS = {
    "length": "cut at the most tokens it may have",
    "cancelled": "stopped",
    "timeout": "stopped: it took too long",
    "error": "generating failed; the server's log says how",
}


NAMES = {"thumb": "your thumb", "rating": "your rating", "correction": "your correction", "comparison": "your choice"}


@dataclass(frozen=True)
class Wishes:
    """How a visitor wants to be answered."""

    model: str
    system: str | None = None
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    max_tokens: int = 200
    seed: str | None = None
    """Digits, as they were typed; none draws anew each time."""

    def request(self, messages: Sequence[Message], number: int) -> ChatRequest:
        """What the API would be asked. With a seed, each answer of a conversation draws by its own number.

        Raises:
            ApiError: a value out of its range.
        """
        system = [{"role": "system", "content": self.system}] if (self.system or "").strip() else []
        seed = (self.seed or "").strip()
        if seed and not seed.isdecimal():
            raise ApiError(400, "the seed is a whole number from 0, or left empty; see the settings")
        try:
            return ChatRequest.model_validate({
                "model": self.model, "messages": [*system, *messages], "temperature": float(self.temperature),
                "top_p": float(self.top_p), "top_k": int(self.top_k) or None, "max_tokens": int(self.max_tokens),
                "seed": int(seed) + number if seed else None,
            })  # fmt: skip
        except ValidationError as error:
            raise ApiError(400, f"{error.errors()[0]['loc'][-1]}: {error.errors()[0]['msg']}") from error


@dataclass
class PlaygroundAnswer:
    """An answer while it is written, and what its visitor said of it."""

    run: ServedRun
    text: str = ""
    state: str = "writing"
    id: str | None = None
    """Where it is kept, and so can be judged."""
    prompt: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    left_out: int = 0
    judged: dict[str, Any] = field(default_factory=dict)
    saved: str = ""
    refused: bool = False

    @property
    def remark(self) -> str:
        parts = [f"given without the {self.left_out} oldest messages"] if self.left_out else []
        return "; ".join([*parts, *([REMARKS[self.state]] if self.state in REMARKS else [])])


@dataclass
class Writing:
    """An answer that is being asked for; ``stop`` ends it where it is."""

    served: Served
    answer: PlaygroundAnswer
    conversation_id: str
    answers: Answers | None = None

    async def write(self, request: ChatRequest) -> AsyncGenerator[PlaygroundAnswer, None]:
        """Yield the answer whenever there is more of it, until it is whole and kept.

        Raises:
            ApiError: it cannot be asked for, or not be kept.
        """
        answer, served = self.answer, self.served
        plan = await asyncio.to_thread(plan_chat, answer.run, request, served.limits)
        answer.prompt, answer.left_out = plan.prompts[0], plan.left_out
        self.answers = Answers(lambda seconds: None)  # the times of the API alone are measured
        try:
            self.answers.submit(answer.run.engine, plan.requests)
            shown = 0.0
            async for _ in self.answers.deltas():
                answer.text = self.answers.totals[0].text
                if time.monotonic() - shown >= SECONDS_BETWEEN_VIEWS:
                    shown = time.monotonic()
                    yield answer
        finally:  # also when the visitor leaves
            self.answers.cancel()
        total = self.answers.totals[0]
        answer.text, answer.tokens, id = total.text, list(total.tokens), uuid.uuid4().hex
        answer.state = total.finish_reason or "stop"
        if await keep_answer(served.store, answer.run, plan, 0, total, self.conversation_id, id):
            answer.id = id

    def stop(self) -> None:
        if self.answers is not None:
            self.answers.cancel()


@dataclass
class PlaygroundConversation:
    """A visitor's conversation: questions, and the answer to each."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    turns: list[tuple[str, PlaygroundAnswer]] = field(default_factory=list)
    drawn: int = 0
    writing: Writing | None = None
    left: bool = False
    """For another; an answer that was being written comes to its end unseen."""

    def __deepcopy__(self, memo: Any) -> PlaygroundConversation:
        """Each session begins with one of its own; a copy of an engine would be no use."""
        return PlaygroundConversation()

    def view(self, several: bool, greeting: str = "") -> dict[str, Any]:
        """What the page draws; ``several`` models are told apart by their names."""
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
        return {"messages": messages, "greeting": greeting, "number": next(VIEWS)}

    async def say(
        self, served: Served, text: str, wishes: Wishes, place: int | None = None
    ) -> AsyncGenerator[None, None]:
        """PlaygroundAnswer a message, at the end or, forgetting what came from there on, at turn ``place``.

        Raises:
            ApiError: it cannot be answered now; the conversation is as it was.
        """
        if self.writing is not None:
            raise ApiError(409, "an answer is being written; stop it, or wait for it")
        if not text.strip():
            raise ApiError(400, "the message is empty; write something to answer")
        run = served.find(wishes.model)
        before = list(self.turns)
        kept = before if place is None else before[:place]
        answer = PlaygroundAnswer(run)
        self.turns = [*kept, (text, answer)]
        self.writing = writing = Writing(served, answer, self.id)
        messages = [message for turn in kept for message in _messages(*turn)]
        try:
            request = wishes.request([*messages, {"role": "user", "content": text}], self.drawn)
            self.drawn += 1
            async with contextlib.aclosing(writing.write(request)) as pieces:
                yield  # the question, while the model reads it
                async for _ in pieces:
                    yield
        finally:
            self.writing = None
            if answer.state == "writing":  # it was refused, or the visitor left
                self.turns = before

    def stop(self) -> None:
        if self.writing is not None:
            self.writing.stop()

    def leave(self) -> None:
        self.left = True
        self.stop()

    def answer_at(self, place: Any) -> PlaygroundAnswer:
        """The answer that the page calls by this place of its messages.

        Raises:
            ApiError: there is none.
        """
        turn = place // 2 if isinstance(place, int) else -1
        if not 0 <= turn < len(self.turns):
            raise ApiError(404, "that answer is no longer there")
        return self.turns[turn][1]


@dataclass
class AnswerPair:
    """Two answers to one question, in an order that only the server knows the meaning of until one is picked."""

    question: str = ""
    answers: list[PlaygroundAnswer] = field(default_factory=list)
    writing: list[Writing] = field(default_factory=list)
    picked: int | None = None
    saved: str = ""
    refused: bool = False

    def __deepcopy__(self, memo: Any) -> AnswerPair:
        return AnswerPair()

    def view(self, greeting: str = "") -> dict[str, Any]:
        """What the page draws; no name of a model before one answer is picked."""
        over = bool(self.saved) and not self.refused
        return {
            "question": self.question, "greeting": greeting, "picked": self.picked if over else None,
            "saved": self.saved, "refused": self.refused, "number": next(VIEWS),
            "ready": bool(self.answers) and not over and all(answer.id is not None for answer in self.answers),
            "answers": [
                {
                    "text": answer.text, "state": answer.state, "remark": answer.remark,
                    "model": f"{answer.run.name}, step {answer.run.step}" if over else "",
                }
                for answer in self.answers
            ],
        }  # fmt: skip

    async def ask(self, served: Served, text: str, wishes: Sequence[Wishes]) -> AsyncGenerator[None, None]:
        """Have both answer at once; the second draws by another number, or one model would say the same twice.

        Raises:
            ApiError: one of them cannot be asked now.
        """
        if self.writing:
            raise ApiError(409, "two answers are being written; stop them, or wait for them")
        if not text.strip():
            raise ApiError(400, "the question is empty; write something to answer")
        order = [0, 1] if secrets.randbits(1) else [1, 0]
        conversation = uuid.uuid4().hex
        self.question, self.picked, self.saved, self.refused = text, None, "", False
        self.answers = [PlaygroundAnswer(served.find(wishes[n].model)) for n in order]
        self.writing = [Writing(served, answer, conversation) for answer in self.answers]
        messages = [{"role": "user", "content": text}]

        async def finish(writing: Writing, number: int) -> None:
            async for _ in writing.write(wishes[number].request(messages, number)):
                pass  # the answer itself grows

        tasks = [asyncio.create_task(finish(writing, n)) for writing, n in zip(self.writing, order)]
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
            self.writing = []
            for answer in self.answers:
                if answer.state == "writing":
                    answer.state = "cancelled"

    def stop(self) -> None:
        for writing in self.writing:
            writing.stop()

    async def pick(self, served: Served, value: int, annotator: str) -> None:
        """Say which is better: +1 the first, -1 the second, 0 neither; once only."""
        if len(self.answers) != 2 or (self.saved and not self.refused):
            return
        first, second = self.answers
        self.saved, self.refused = await save(
            served, kind="comparison", answer_id=first.id, other_answer_id=second.id, value=value, annotator=annotator
        )
        self.picked = {1: 0, -1: 1}.get(value)


async def judge(served: Served, answer: PlaygroundAnswer, annotator: str, kind: str, **said: Any) -> None:
    """Keep what a visitor thinks of an answer, and say on the answer whether it is kept."""
    answer.saved, answer.refused = await save(served, kind=kind, answer_id=answer.id, annotator=annotator, **said)
    if not answer.refused:
        answer.judged |= {kind: said["correction"] if kind == "correction" else said["value"]}
        if kind == "rating":
            answer.judged["comment"] = said.get("comment") or ""


async def save(served: Served, **fields: Any) -> tuple[str, bool]:
    """Give a judgement to the store: what to tell the visitor, and whether it was refused. "Saved" means it is on
    the disk."""
    from sqlalchemy.exc import SQLAlchemyError

    from understudy.feedback.records import ANONYMOUS, Judgement

    if served.store is None or fields["answer_id"] is None:
        return "this server keeps no feedback", True
    fields["annotator"] = (fields["annotator"] or "").strip() or ANONYMOUS
    fields["comment"] = (fields.get("comment") or "").strip() or None
    try:
        await asyncio.to_thread(served.store.add_judgement, Judgement(**fields))
    except ValueError as error:
        return str(error), True
    except SQLAlchemyError:
        logging.getLogger("uvicorn.error").exception("a judgement could not be kept")
        return "not saved: the feedback database failed; the server's log says why", True
    return f"saved: {NAMES[fields['kind']]}", False


async def look_view(answer: PlaygroundAnswer) -> dict[str, Any]:
    """What the page draws of how an answer came about: the tokens of the last exchange, or the last ones of it that
    can be shown, each with its probability, alternatives and layers, and the attention between them."""
    from understudy.inference.lookinside import Look, describe, look_inside

    tokens = [*answer.prompt, *answer.tokens][: answer.run.context_length]

    def work() -> Look:
        try:
            return look_inside(answer.run.model, tokens)
        finally:
            let_threads_go()

    look = await asyncio.to_thread(work)
    layers, heads = look.attention.shape[:2]
    most = min(LOOK_TOKENS, int(math.sqrt(LOOK_WEIGHTS / max(1, layers * heads))))
    cut = max(0, len(tokens) - most)
    weights = (look.attention[:, :, cut:, cut:] * 255).round().byte().contiguous()
    special = set(answer.run.tokenizer.special_tokens.values())
    rows = [row | {"special": row["id"] in special} for row in describe(look, answer.run.tokenizer)[cut:]]
    return {
        "rows": rows, "own": max(0, len(answer.prompt) - cut), "cut": cut,
        "layers": layers, "heads": heads, "attention": base64.b64encode(weights.numpy().tobytes()).decode(),
    }  # fmt: skip


def _messages(question: str, answer: PlaygroundAnswer) -> list[Message]:
    """A turn as the next answer reads it; a question that got no word of an answer is not read again."""
    if not answer.text.strip():
        return []
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]
