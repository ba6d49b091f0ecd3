"""Asking a model the questions of a task: one call, batches inside, a result that can be compared with another run's.

    result = run_task(find_task("hamlet"), run.model, run.tokenizer, runtime)
    result.accuracy, result.low, result.high

How a prompt is written, the same for every task:

- Messages are rendered as a chat where the tokenizer has the chat tokens, and as `task.as_text` has it otherwise.
- A text to continue (HellaSwag) stays plain text in either case.
- A choice is the continuation of the prompt, after a space where that is plain text; the end of the turn is not part
  of it. A generated answer ends with the turn, and in plain text at a line break.
- A prompt too long for the context, an eighth of which is kept for the answer, loses its oldest turns (examples of
  few_shot first), and if the last alone is too long, its beginning. Such questions are counted in ``cut``.

Several processes share the examples, and each has the whole result. Not here: what a task is (task.py), and files
(tasks/).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.evaluate.likelihood import Progress, Span, continuation, document, score_sequences
from understudy.evaluate.statistics import Estimate, estimate, ratio_estimate
from understudy.evaluate.task import Example, Task, as_text
from understudy.inference.generate import Model, encode_prompt, generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.runtime import Runtime, autocast_of
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, end_ids, render, speaks_chat


@dataclass(frozen=True)
class TaskResult:
    """What came of a task. ``metric`` names the headline among ``metrics``."""

    name: str
    metric: str
    metrics: dict[str, Estimate]
    categories: dict[str, Estimate]
    """The headline for each category, where there are several."""
    examples: list[dict[str, Any]]
    """For each: id, category, score (the headline's), answer, the expected one, the question, and of choices the scores
    by either metric and the log-probabilities."""
    cut: int
    """Prompts that were too long and lost their beginning."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> Estimate:
        return self.metrics[self.metric]

    @property
    def accuracy(self) -> float:
        """The headline's value (of a loss task, the loss)."""
        return self.headline.value

    @property
    def low(self) -> float | None:
        return self.headline.low

    @property
    def high(self) -> float | None:
        return self.headline.high

    @property
    def n(self) -> int:
        return self.headline.n

    def scores(self) -> dict[str, float]:
        """The score of each example by its id, for `statistics.compare_paired`."""
        return {example["id"]: example["score"] for example in self.examples}

    def as_dict(self) -> dict[str, Any]:
        """Everything but the single examples, as plain JSON."""
        name = "loss" if self.metric == "loss" else "accuracy"

        def row(of: Estimate) -> dict[str, Any]:
            return {name: of.value, "low": of.low, "high": of.high, "n": of.n}

        return {
            "metric": self.metric, **row(self.headline), "cut": self.cut, **self.settings,
            "metrics": {metric: of.as_dict() for metric, of in self.metrics.items()},
            "categories": {category: row(of) for category, of in self.categories.items()},
        }  # fmt: skip


def run_task(
    task: Task,
    model: Model,
    tokenizer: Tokenizer,
    runtime: Runtime,
    limit: int | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> TaskResult:
    """Ask the first ``limit`` questions of a task, all when left out.

    Args:
        model: on the runtime's device, in either mode, which it is in again afterwards.
        batch_size: rows in one forward; it changes time and memory, and results by rounding only.
        progress: called with how many questions are done, and of how many.

    Raises:
        ValueError: the task's data is not there, or the tokenizer lacks a character of it.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError("the limit and the batch size are numbers from 1")
    examples = task.examples("val", limit)
    assert examples, f"the task {task.name} gave no example and no complaint"
    settings = {"kind": task.kind, "few_shot": task.few_shot}
    if task.kind == "loss":
        return _run_loss(task, examples, model, tokenizer, runtime, batch_size, progress, settings)
    run = _run_choices if task.kind == "choice" else _run_answers
    shard, shard_cut = run(
        task, examples[runtime.rank :: runtime.world_size], model, tokenizer, runtime, batch_size, progress
    )
    rows, cut = runtime.gather_shards(shard), sum(runtime.all_gather(shard_cut))
    metrics = {"accuracy": estimate([row["score"] for row in rows])}
    if task.kind == "choice":
        metrics = {name: estimate([row["scores"][name] for row in rows]) for name in rows[0]["scores"]}
    return TaskResult(task.name, task.metric, metrics, _by_category(rows), rows, cut, settings)


def _row(example: Example, score: float, answer: str) -> dict[str, Any]:
    """What is kept of one example."""
    asked = example.text
    if example.messages:
        several = len(example.messages) > 1
        asked = "\n\n".join(f"{m['role']}: {m['content']}" if several else m["content"] for m in example.messages)
    return {
        "id": example.id, "category": example.category, "score": score, "answer": answer, "expected": example.answer,
        "question": asked,
    }  # fmt: skip


def _by_category(rows: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["category"], []).append(row["score"])
    return {category: estimate(own) for category, own in scores.items()} if len(scores) > 1 else {}


def _run_answers(
    task: Task, examples: Sequence[Example], model: Model, tokenizer: Tokenizer, runtime: Runtime, batch_size: int,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Generate greedily, the longest prompts first."""
    chat = speaks_chat(tokenizer)
    room = prompt_room(model, task.max_new_tokens)
    prompts = [prompt_tokens(tokenizer, task.prompt(example), room) for example in examples]
    answers = answer_all(
        model, tokenizer, [tokens for tokens, _ in prompts], task.max_new_tokens, lambda start: SamplingSettings(temperature=0),
        runtime, batch_size, stop=() if chat else "\n", progress=progress,
    )  # fmt: skip
    rows = [_row(example, task.score(example, answer), answer) for example, answer in zip(examples, answers)]
    return rows, sum(was_cut for _, was_cut in prompts)


def answer_all(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[list[int]], max_new_tokens: int,
    settings: Callable[[int], SamplingSettings], runtime: Runtime, batch_size: int, stop: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """The answer to each of the rendered prompts, without white space around it. The longest come first, so that a
    batch that is too large fails at once, and rows of a batch are alike; ``settings`` are those of the batch that
    starts with so many done."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        completions = generate_text(
            model, tokenizer, [prompts[i] for i in batch], max_new_tokens, settings(start), stop=stop,
            autocast=autocast_of(runtime), end_ids=end_ids(tokenizer),
        )  # fmt: skip
        for i, completion in zip(batch, completions):
            answers[i] = completion.text.strip()
        if progress:
            progress(start + len(batch), len(order))
    return answers


def _run_choices(
    task: Task, examples: Sequence[Example], model: Model, tokenizer: Tokenizer, runtime: Runtime, batch_size: int,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """The likeliest choice, by its whole log-probability and by that for each byte of its text."""
    spans: list[Span] = []
    cut = 0
    context = model.config.context_length
    for example in examples:
        longest = max(len(tokenizer.encode(f" {choice}")) for choice in example.choices)
        prompt, shorter = _fit(tokenizer, task.prompt(example), context - longest)
        own = [choice_span(tokenizer, prompt, choice) for choice in example.choices]
        spans += own
        cut += shorter or any(len(span.ids) - 1 > context for span in own)
    scored = iter(score_sequences(model, spans, runtime, batch_size, _per_example(progress, len(examples))))
    rows = []
    for example in examples:
        found = [next(scored) for _ in example.choices]
        raw = _best([s.logprob for s in found])
        normalised = _best([s.logprob / max(1, len(c.encode())) for s, c in zip(found, example.choices)])
        scores = {
            "accuracy": task.score(example, example.choices[raw]),
            "accuracy_normalised": task.score(example, example.choices[normalised]),
        }
        chosen = example.choices[normalised if task.metric == "accuracy_normalised" else raw]
        rows.append(
            _row(example, scores[task.metric], chosen) | {"scores": scores, "logprobs": [s.logprob for s in found]}
        )
    return rows, cut


def _per_example(progress: Progress | None, n: int) -> Progress | None:
    """Progress over choices, told as progress over questions."""
    return (lambda done, total: progress(done * n // total, n)) if progress else None


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _run_loss(
    task: Task, examples: Sequence[Example], model: Model, tokenizer: Tokenizer, runtime: Runtime, batch_size: int,
    progress: Progress | None, settings: dict[str, Any],
) -> TaskResult:  # fmt: skip
    """Loss in nats a token and bits a byte, over all documents; an example's score is its own loss a token."""
    texts = [example.text or "" for example in examples]
    spans = [document(tokenizer, text) for text in texts]
    shard = score_sequences(model, spans[runtime.rank :: runtime.world_size], runtime, batch_size, progress)
    scored = runtime.gather_shards(shard)
    sums = [-s.logprob for s in scored]
    loss = ratio_estimate(sums, [s.tokens for s in scored])
    bits = ratio_estimate([total / math.log(2) for total in sums], [len(text.encode()) for text in texts])
    rows = [_row(example, total / s.tokens, "") for example, total, s in zip(examples, sums, scored)]
    tokens = sum(s.tokens for s in scored)
    about = settings | {"perplexity": math.exp(min(loss.value, 700.0)), "tokens": tokens}
    metrics = {"loss": loss, "bits_per_byte": bits}
    return TaskResult(task.name, task.metric, metrics, {}, rows, 0, about)


def choice_span(tokenizer: Tokenizer, prompt: list[Message] | str, choice: str) -> Span:
    """A choice after its prompt, ready to be scored."""
    if isinstance(prompt, list) and speaks_chat(tokenizer):
        before = render(tokenizer, prompt, reply=True).tokens
        return Span(before + tokenizer.encode(choice), len(before))
    return continuation(tokenizer, as_text(prompt) if isinstance(prompt, list) else prompt, f" {choice}")


def prompt_tokens(tokenizer: Tokenizer, prompt: list[Message] | str, room: int) -> tuple[list[int], bool]:
    """The tokens of a prompt, at most ``room`` of them, and whether it had to be cut."""
    prompt, cut = _fit(tokenizer, prompt, room)
    tokens = _encode(tokenizer, prompt)
    return tokens[-room:], cut or len(tokens) > room


def _fit(tokenizer: Tokenizer, prompt: list[Message] | str, room: int) -> tuple[list[Message] | str, bool]:
    """The prompt without as many of its oldest turns as must leave for it to take ``room`` tokens, and whether any
    left. The last turn always stays."""
    cut = False
    while isinstance(prompt, list) and len(_encode(tokenizer, prompt)) > room:
        shorter = _without_oldest_turn(prompt)
        if shorter is None:
            break
        prompt, cut = shorter, True
    return prompt, cut


def _without_oldest_turn(messages: list[Message]) -> list[Message] | None:
    """Without the first message from the user and its answer; None where only one is left."""
    system = [m for m in messages if m["role"] == "system"]
    turns = messages[len(system) :]
    return system + turns[2:] if len(turns) > 2 else None


def _encode(tokenizer: Tokenizer, prompt: list[Message] | str) -> list[int]:
    if isinstance(prompt, str):
        return encode_prompt(tokenizer, prompt)
    if speaks_chat(tokenizer):
        return render(tokenizer, prompt, reply=True).tokens
    return encode_prompt(tokenizer, as_text(prompt))


def prompt_room(model: Model, max_new_tokens: int) -> int:
    """Tokens a prompt may take. Answers are mostly shorter than the most they may be, so an eighth is kept free;
    one that outgrows the context goes on as `inference/generate.py` says."""
    context = model.config.context_length
    return max(1, context - min(max_new_tokens, context // 8))
