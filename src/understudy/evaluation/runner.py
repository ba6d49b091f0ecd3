"""Runs a task on a model: batched prompts, scored answers, and a result that can be compared with another run's.

    result = run_task(find_task("hamlet"), run.model, run.tokenizer, runtime)
    result.headline.value, result.headline.low, result.headline.high

Format of prompts, the same for every task:

- Messages are rendered in the chat format if the tokenizer has its tokens, else as plain text by `task.as_text`.
- A text to continue (HellaSwag) is always plain text.
- A choice is a continuation of the prompt, after a space in plain text, without the end-of-turn token. A generated
  answer ends with the turn, and in plain text at a line break.
- An eighth of the context is reserved for the answer. A prompt that is too long loses its oldest turns (few-shot
  examples first), and if the last turn alone is too long, its beginning. ``cut`` counts such prompts.

Several processes share the examples, and each has the whole result. In the folder of a run, evaluation_tasks.json has the
last result of each task, and evaluations/TASK.jsonl its examples. Not here: the definition of a task (task.py), and its
files (tasks/).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from understudy.evaluation.likelihood import Progress, Span, continuation, document, score_sequences
from understudy.evaluation.statistics import Estimate, Paired, compare_paired, estimate, ratio_estimate
from understudy.evaluation.task import Example, Task, as_text
from understudy.evaluation.tasks import PUBLIC, find_task
from understudy.files import now, read_json, write_json, write_text
from understudy.inference.generate import Model, encode_prompt, generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.run import Run, refuse_reward_model
from understudy.runtime import Runtime, autocast_of
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import Message, end_ids, render, speaks_chat


@dataclass(frozen=True)
class TaskResult:
    """Result of a task.

    Attributes:
        metric: name of the main metric among ``metrics``.
        categories: the main metric for each category, if there are several.
        examples: id, category, score (of the main metric), answer, expected answer, question and scores by every metric
            of each example; for choices also the log-probabilities.
        cut: number of prompts that were too long and lost their beginning.
    """

    name: str
    metric: str
    metrics: dict[str, Estimate]
    categories: dict[str, Estimate]
    examples: list[dict[str, Any]]
    cut: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> Estimate:
        """The main metric (for a loss task, the loss)."""
        return self.metrics[self.metric]

    def scores(self) -> dict[str, float]:
        """Score of each example by id, as `statistics.compare_paired` takes them."""
        return {example["id"]: example["score"] for example in self.examples}

    def as_dict(self) -> dict[str, Any]:
        """Everything except the examples, as plain JSON."""
        name = "loss" if self.metric == "loss" else "accuracy"

        def row(value: Estimate) -> dict[str, Any]:
            return {name: value.value, "low": value.low, "high": value.high, "n": value.n}

        return {
            "metric": self.metric, **row(self.headline), "cut": self.cut, **self.settings,
            "metrics": {metric: value.as_dict() for metric, value in self.metrics.items()},
            "categories": {category: row(value) for category, value in self.categories.items()},
        }  # fmt: skip


def run_task(
    task: Task, model: Model, tokenizer: Tokenizer, runtime: Runtime, limit: int | None = None, batch_size: int = 16,
    progress: Progress | None = None,
) -> TaskResult:  # fmt: skip
    """Run the first ``limit`` examples of a task, by default all.

    Args:
        model: on the runtime's device; its mode is restored afterwards.
        batch_size: rows in one forward. It changes time and memory, and results by rounding only.
        progress: called with the number of finished examples and the number of all.

    Raises:
        ValueError: the task's data is missing, the tokenizer lacks a character of it, or the logits are not finite.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError("the limit and the batch size must be at least 1")
    examples = task.examples("val", limit)
    if not examples:
        raise ValueError(f"the task {task.name} has no examples")
    settings = {"kind": task.kind, "few_shot": task.few_shot}
    if task.kind == "loss":
        return _run_loss(task, examples, model, tokenizer, runtime, batch_size, progress, settings)
    run = _run_choices if task.kind == "choice" else _run_answers
    shard, shard_cut = run(
        task, examples[runtime.rank :: runtime.world_size], model, tokenizer, runtime, batch_size, progress
    )
    rows, cut = runtime.gather_shards(shard), sum(runtime.all_gather(shard_cut))
    metrics = {name: estimate([row["scores"][name] for row in rows]) for name in rows[0]["scores"]}
    return TaskResult(task.name, task.metric, metrics, _by_category(rows), rows, cut, settings)


def _row(example: Example, score: float, answer: str) -> dict[str, Any]:
    question = example.text
    if example.messages:
        several = len(example.messages) > 1
        question = "\n\n".join(f"{m['role']}: {m['content']}" if several else m["content"] for m in example.messages)
    return {
        "id": example.id, "category": example.category, "score": score, "answer": answer, "expected": example.answer,
        "question": question,
    }  # fmt: skip


def _by_category(rows: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["category"], []).append(row["score"])
    return {category: estimate(values) for category, values in scores.items()} if len(scores) > 1 else {}


def _run_answers(
    task: Task, examples: Sequence[Example], model: Model, tokenizer: Tokenizer, runtime: Runtime, batch_size: int,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    chat = speaks_chat(tokenizer)
    room = prompt_room(model, task.max_new_tokens)
    prompts = [prompt_tokens(tokenizer, task.prompt(example), room) for example in examples]
    answers = answer_all(
        model, tokenizer, [tokens for tokens, _ in prompts], task.max_new_tokens, SamplingSettings(temperature=0),
        runtime, batch_size, stop=() if chat else "\n", progress=progress,
    )  # fmt: skip
    rows = []
    for example, text in zip(examples, answers):
        answer = text.strip()
        scores = task.scores(example, answer)
        rows.append(_row(example, scores[task.metric], answer) | {"scores": scores})
    return rows, sum(was_cut for _, was_cut in prompts)


def answer_all(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[list[int]], max_new_tokens: int, settings: SamplingSettings,
    runtime: Runtime, batch_size: int, stop: str | Sequence[str] = (), numbers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """One answer to each rendered prompt.

    A sampled answer depends on the seed and the number of its prompt, not on the batch it is in. ``numbers`` are
    0, 1, … by default. The longest prompts come first, so that a batch that does not fit the memory fails at once.
    """
    numbers = range(len(prompts)) if numbers is None else numbers
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        completions = generate_text(
            model, tokenizer, [prompts[i] for i in batch], max_new_tokens, settings, stop=stop,
            autocast=autocast_of(runtime), end_ids=end_ids(tokenizer), numbers=[numbers[i] for i in batch],
        )  # fmt: skip
        for i, completion in zip(batch, completions):
            answers[i] = completion.text
        if progress:
            progress(start + len(batch), len(order))
    return answers


def _run_choices(
    task: Task, examples: Sequence[Example], model: Model, tokenizer: Tokenizer, runtime: Runtime, batch_size: int,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Choose by log-probability: of the whole choice, and per byte of its text."""
    spans: list[Span] = []
    cut = 0
    context = model.config.context_length
    for example in examples:
        longest = max(len(tokenizer.encode(f" {choice}")) for choice in example.choices)
        prompt, was_cut = _fit(tokenizer, task.prompt(example), context - longest)
        choice_spans = [choice_span(tokenizer, prompt, choice) for choice in example.choices]
        spans += choice_spans
        cut += was_cut or any(len(span.ids) - 1 > context for span in choice_spans)
    scored = iter(score_sequences(model, spans, runtime, batch_size, progress))
    rows = []
    for example in examples:
        logprobs = [next(scored).logprob for _ in example.choices]
        sizes = [max(1, len(choice.encode())) for choice in example.choices]
        raw, normalised = int(np.argmax(logprobs)), int(np.argmax(np.divide(logprobs, sizes)))
        scores = {
            "accuracy": task.score(example, example.choices[raw]),
            "accuracy_normalised": task.score(example, example.choices[normalised]),
        }
        chosen = example.choices[normalised if task.metric == "accuracy_normalised" else raw]
        rows.append(_row(example, scores[task.metric], chosen) | {"scores": scores, "logprobs": logprobs})
    return rows, cut


def _run_loss(
    task: Task, examples: Sequence[Example], model: Model, tokenizer: Tokenizer, runtime: Runtime, batch_size: int,
    progress: Progress | None, settings: dict[str, Any],
) -> TaskResult:  # fmt: skip
    """Loss over all documents, in nats per token and bits per byte. The score of an example is its loss per token."""
    texts = [example.text or "" for example in examples]
    spans = [document(tokenizer, text) for text in texts]
    shard = score_sequences(model, spans[runtime.rank :: runtime.world_size], runtime, batch_size, progress)
    scored = runtime.gather_shards(shard)
    sums = [-s.logprob for s in scored]
    loss = ratio_estimate(sums, [s.tokens for s in scored])
    bits = ratio_estimate([total / math.log(2) for total in sums], [len(text.encode()) for text in texts])
    rows = [_row(example, total / s.tokens, "") for example, total, s in zip(examples, sums, scored)]
    tokens = sum(s.tokens for s in scored)
    settings = settings | {"perplexity": math.exp(min(loss.value, 700.0)), "tokens": tokens}
    return TaskResult(task.name, task.metric, {"loss": loss, "bits_per_byte": bits}, {}, rows, 0, settings)


def choice_span(tokenizer: Tokenizer, prompt: list[Message] | str, choice: str) -> Span:
    """Tokens of a prompt and a choice, of which the choice is to be scored."""
    if isinstance(prompt, list) and speaks_chat(tokenizer):
        before = render(tokenizer, prompt, reply=True).tokens
        return Span(before + tokenizer.encode(choice), len(before))
    return continuation(tokenizer, as_text(prompt) if isinstance(prompt, list) else prompt, f" {choice}")


def prompt_tokens(tokenizer: Tokenizer, prompt: list[Message] | str, room: int) -> tuple[list[int], bool]:
    """Tokens of a prompt, at most ``room``, and whether it was cut."""
    prompt, cut = _fit(tokenizer, prompt, room)
    tokens = _encode(tokenizer, prompt)
    return tokens[-room:], cut or len(tokens) > room


def _fit(tokenizer: Tokenizer, prompt: list[Message] | str, room: int) -> tuple[list[Message] | str, bool]:
    """The prompt without its oldest turns, so that it takes at most ``room`` tokens, and whether any was removed. The
    last turn always stays."""
    cut = False
    while isinstance(prompt, list) and len(_encode(tokenizer, prompt)) > room:
        system = [m for m in prompt if m["role"] == "system"]
        if len(prompt) <= len(system) + 2:
            break
        prompt, cut = system + prompt[len(system) + 2 :], True
    return prompt, cut


def _encode(tokenizer: Tokenizer, prompt: list[Message] | str) -> list[int]:
    if isinstance(prompt, str):
        return encode_prompt(tokenizer, prompt)
    if speaks_chat(tokenizer):
        return render(tokenizer, prompt, reply=True).tokens
    return encode_prompt(tokenizer, as_text(prompt))


def prompt_room(model: Model, max_new_tokens: int) -> int:
    """Maximum tokens of a prompt. Most answers are shorter than ``max_new_tokens``, so at most an eighth of the context
    is reserved; an answer that outgrows the context continues as `inference/generate.py` describes."""
    context = model.config.context_length
    return max(1, context - min(max_new_tokens, context // 8))


# ---- Tasks on runs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskEvaluation:
    """Results of tasks on one run, or on two that are compared.

    Attributes:
        results: for each run, one result per task.
        paired: with two runs, for each task the first run minus the second on the same questions.
    """

    runs: Sequence[Run]
    results: list[list[TaskResult]]
    paired: dict[str, Paired] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        documents = [
            {"run": str(run.path), "step": run.step, "tasks": {result.name: result.as_dict() for result in results}}
            for run, results in zip(self.runs, self.results)
        ]
        if len(documents) == 1:
            return documents[0]
        paired = {name: asdict(pair) for name, pair in self.paired.items()}
        return documents[0] | {"against": documents[1], "paired": paired}

    def save(self) -> None:
        """Write the results to the folders of the runs, beside those of other tasks."""
        for run, results in zip(self.runs, self.results):
            path, folder = run.path / "evaluation_tasks.json", run.path / "evaluations"
            saved = read_json(path) if path.exists() else {}
            folder.mkdir(exist_ok=True)
            for result in results:
                saved[result.name] = {"checkpoint": str(run.step), "created": now()} | result.as_dict()
                lines = "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in result.examples)
                write_text(folder / f"{result.name}.jsonl", lines)
            write_json(path, saved)


def evaluate_on_tasks(
    runs: Sequence[Run], tasks: Sequence[Task], runtime: Runtime, limit: int | None = None, batch_size: int = 16,
    progress: Callable[[str, int, int], None] = lambda description, done, total: None,
) -> TaskEvaluation:  # fmt: skip
    """Run tasks on one run or on two.

    Args:
        progress: called with a description, the number of finished examples and the number of all.

    Raises:
        ValueError: a task's data is missing, or a run is a reward model.
    """
    for run in runs:
        refuse_reward_model(run)
    results: list[list[TaskResult]] = [[] for _ in runs]
    for run, own in zip(runs, results):
        model = run.model.to(runtime.device)
        for task in tasks:
            report = partial(progress, f"{run.path.name}: {task.name}")
            own.append(run_task(task, model, run.tokenizer, runtime, limit, batch_size, report))
    both = zip(*results) if len(runs) == 2 else ()
    return TaskEvaluation(runs, results, {a.name: compare_paired(b.scores(), a.scores()) for a, b in both})


def find_tasks(names: Sequence[str], data: Path | None = None, few_shot: int = 0) -> list[Task]:
    """Tasks by name or file.

    Args:
        data: file or folder of the questions of the public tasks; a subfolder with the name of a task is preferred.

    Raises:
        ValueError: no such task, one that is named twice, or ``data`` for tasks that do not read it.
    """
    if not names:
        raise ValueError("--tasks names no task; write them as in --tasks hamlet,gsm8k")
    if data is not None and not set(names) & set(PUBLIC):
        raise ValueError(f"--task-data is for {', '.join(PUBLIC)}, and none of them is in --tasks; leave it out")
    tasks = []
    for name in names:
        path = data / name if data and (data / name).is_dir() else data
        tasks.append(find_task(name, path if name in PUBLIC else None, few_shot))
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"--tasks {','.join(names)} names a task twice, and results are saved by name; name each once")
    return tasks
