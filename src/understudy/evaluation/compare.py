"""Comparison of two runs: both answer the same prompts, and a judge that does not know which run gave which compares.

Judges are a verifier, a reward model or a person. Not here: printing (report/tables.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from understudy.config.run import RunConfig
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.formats import Dropped
from understudy.data.chat.judgements import open_judgements
from understudy.data.chat.preferences import open_preferences, tidy_preference
from understudy.data.chat.prompts import Prompt, open_prompts, prompt_of, read_prompts
from understudy.evaluation.likelihood import Progress
from understudy.evaluation.runner import answer_all
from understudy.evaluation.statistics import sign_test, win_rate
from understudy.evaluation.task import Task
from understudy.evaluation.tasks import PUBLIC, TASKS, find_task
from understudy.files import write_text
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import true_score, verifier_of
from understudy.run import Run, RunFolder, lineage
from understudy.runtime import Runtime
from understudy.tokenizer.chat import Message, render, speaks_chat

ANSWER_TOKENS = 120
"""Maximum length of an answer, by default."""
BATCH_SIZE = 64
"""Prompts answered in one batch."""
Judge = Callable[[Prompt, str, str], float]
"""Given a prompt and two answers in random order: 1 if the first is better, 0 if the second is, else 0.5.
StopIteration ends the comparison."""


@dataclass(frozen=True)
class ComparedPair:
    """Two answers to one prompt. ``points`` are those of the second: 1 for a win, 0.5 for a tie, 0 for a loss."""

    prompt: Prompt
    first: str
    second: str
    points: float


@dataclass(frozen=True)
class RunComparison:
    """Result of the second run against the first.

    Attributes:
        prompts: number of prompts to compare on.
        too_long: prompts left out, since they leave no room for an answer of one of the runs.
        trained_on: prompts that a run, or one it started from, was trained on.
    """

    first: Run
    second: Run
    pairs: list[ComparedPair]
    prompts: int
    too_long: int = 0
    trained_on: int = 0

    @property
    def not_judged(self) -> int:
        """Prompts that fit and that the judge did not reach."""
        return self.prompts - self.too_long - len(self.pairs)

    def categories(self) -> dict[str, list[ComparedPair]]:
        """The pairs by category, in order of first appearance; empty if there is only one category."""
        groups: dict[str, list[ComparedPair]] = {}
        for pair in self.pairs:
            groups.setdefault(pair.prompt.category, []).append(pair)
        return groups if len(groups) > 1 else {}

    def as_dict(self, answers: bool = False) -> dict[str, Any]:
        """The result as plain JSON. ``answers`` adds each prompt with both answers as ``rows``."""
        result = {
            "first": {"run": str(self.first.path), "step": self.first.step},
            "second": {"run": str(self.second.path), "step": self.second.step},
            **outcome(self.pairs), "too_long": self.too_long, "trained_on": self.trained_on,
            "categories": {name: outcome(pairs) for name, pairs in self.categories().items()},
        }  # fmt: skip
        if answers:
            result["rows"] = [
                {
                    "prompt": list(pair.prompt.messages), "category": pair.prompt.category, "first": pair.first,
                    "second": pair.second, "points": pair.points,
                }
                for pair in self.pairs
            ]  # fmt: skip
        return result


def outcome(pairs: Sequence[ComparedPair]) -> dict[str, Any]:
    """The second run's ``win_rate`` with ``low`` and ``high``, the counts, and the p-value of the sign test."""
    points = [pair.points for pair in pairs]
    rate = win_rate(points)
    wins, ties, losses = (points.count(value) for value in (1.0, 0.5, 0.0))
    return {
        "win_rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n,
        "wins": wins, "ties": ties, "losses": losses, "p_value": sign_test(wins, losses),
    }  # fmt: skip


def judge_answers(
    prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], judge: Judge, seed: int = 0,
    progress: Progress | None = None,
) -> list[ComparedPair]:  # fmt: skip
    """Judge the answers to each prompt, in an order drawn from the seed.

    Equal answers are ties for every judge. If the judge stops early, or the user interrupts, the judged pairs count.

    Raises:
        ValueError: no pair was judged.
    """
    swapped = np.random.default_rng(seed).random(len(prompts)) < 0.5
    pairs: list[ComparedPair] = []
    try:
        for prompt, a, b, swap in zip(prompts, first, second, swapped):
            if a == b:
                points = 0.5
            else:
                points = float(judge(prompt, b, a) if swap else 1 - judge(prompt, a, b))
            pairs.append(ComparedPair(prompt, a, b, points))
            if progress:
                progress(len(pairs), len(prompts))
    except (StopIteration, KeyboardInterrupt):
        if not pairs:
            raise ValueError("no pair of answers was judged, so there is no result") from None
    return pairs


def by_verifier(prompt: Prompt, first: str, second: str) -> float:
    """Judge by the true score."""
    return float(1 + np.sign(true_score(prompt, first) - true_score(prompt, second))) / 2


def by_reward(model: RewardModel) -> Judge:
    """A judge that prefers the higher score of a reward model."""

    def judge(prompt: Prompt, first: str, second: str) -> float:
        conversations = [[*prompt.messages, {"role": "assistant", "content": text}] for text in (first, second)]
        scores = model.conversations(conversations)
        return float(1 + np.sign(scores[0] - scores[1])) / 2

    return judge


def by_person(ask: Callable[[str], str]) -> Judge:
    """A judge that asks a person: 1, 2, t for a tie, q to stop.

    Args:
        ask: shows a text and returns the line that was typed, or an empty string at the end of the input, which stops.
    """
    points = {"1": 1.0, "2": 0.0, "t": 0.5}

    def judge(prompt: Prompt, first: str, second: str) -> float:
        asked = "\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages)
        text = f"\n{asked}\n\n1: {first or '(nothing)'}\n2: {second or '(nothing)'}\n\n"
        while reply := ask(f"{text}Which is better? 1, 2, t for a tie, q to stop: "):
            text, reply = "", reply.strip().lower()
            if reply in points:
                return points[reply]
            if reply == "q":
                break
        raise StopIteration

    return judge


# ---- Runs ---------------------------------------------------------------------------------------------------------------


def compare_runs(
    first: Run, second: Run, runtime: Runtime, data: str | None = None, limit: int = 200,
    prompts: Sequence[Prompt] | None = None, judge: Judge = by_verifier, max_new_tokens: int = ANSWER_TOKENS,
    temperature: float = 0.0, seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda description, done, total: None,
) -> RunComparison:  # fmt: skip
    """Let both runs answer the same prompts, and judge each pair of answers as :func:`judge_answers` does.

    A sampled answer depends on the seed, the run's position and the number of the prompt, not on the batch.

    Args:
        prompts: by default those of :func:`comparison_prompts`.
        progress: called with a description of the work, the number of finished prompts and the number of all.

    Raises:
        ValueError: no prompts, a run that does not answer, no prompt that leaves room for an answer, or no judged pair.
    """
    runs = (first, second)
    if prompts is None:
        prompts = comparison_prompts([run.path for run in runs], data, limit, verifiable=judge is by_verifier)
    for run in runs:
        if not isinstance(run.model, GPT) or not speaks_chat(run.tokenizer) or not run.config.info.generates:
            raise ValueError(f"the run {run.path} does not answer; name one of sft, dpo, kto, ppo or grpo")
    rendered = [[render(run.tokenizer, list(p.messages), reply=True).tokens for p in prompts] for run in runs]
    contexts = [run.config.model.context_length for run in runs]
    numbers = [
        i for i, rows in enumerate(zip(*rendered))
        if all(len(row) + max_new_tokens <= context for row, context in zip(rows, contexts))
    ]  # fmt: skip
    if not numbers:
        raise ValueError(
            f"no prompt leaves room for {max_new_tokens} tokens of an answer in contexts of {contexts[0]} and "
            f"{contexts[1]}; choose shorter prompts or a smaller --max-new-tokens"
        )
    answers = [
        answer_all(
            run.model.to(runtime.device), run.tokenizer, [rows[i] for i in numbers], max_new_tokens,
            SamplingSettings(temperature, seed=2 * seed + position), runtime, BATCH_SIZE, numbers=numbers,
            progress=partial(progress, f"{run.path.name} answers"),
        )
        for position, (run, rows) in enumerate(zip(runs, rendered))
    ]  # fmt: skip
    one, other = ([answer.strip() for answer in of_run] for of_run in answers)
    pairs = judge_answers([prompts[i] for i in numbers], one, other, judge, seed, partial(progress, "judging"))
    trained_on = count_trained(prompts, [run.path for run in runs])
    return RunComparison(first, second, pairs, len(prompts), len(prompts) - len(numbers), trained_on)


def comparison_prompts(runs: Sequence[Path], data: str | None, limit: int, verifiable: bool) -> list[Prompt]:
    """The first prompts of the validation split of a folder, or of a file. Without ``data``, prompts of the task that
    belongs to the data source of the runs; neither training nor the choice of a checkpoint used them.

    Args:
        verifiable: refuse prompts that have no verifier.

    Raises:
        ValueError: no such data, no prompt in it, a run whose data source has no task, or prompts without a verifier.
    """
    if data is None:
        tasks = {path: task_of_run(path) for path in runs}
        if without_task := [path for path, task in tasks.items() if task is None]:
            raise ValueError(
                f"there are no default prompts for the run {without_task[0]}, since no task belongs to its data; name "
                "prompts with --data PATH, a file or a folder of `understudy prepare SOURCE --kind prompts`"
            )
        [task, *_] = [task for task in tasks.values() if task is not None]
        return [task.as_prompt(example) for example in task.comparison_examples(limit)]
    if Path(data).is_dir():
        prompts = list(islice(open_prompts(Path(data), "val"), limit))
    else:
        records = (row.record for row in read_prompts(Path(data)))
        prompts = list(islice((prompt_of(record) for record in records if record is not None), limit))
    if not prompts:
        raise ValueError(f"{data} has no prompt that can be answered")
    if verifiable and (without := sum(verifier_of(prompt) is None for prompt in prompts)):
        raise ValueError(
            f"{without:,} of the {len(prompts):,} prompts in {data} have neither a check nor an answer to verify; choose "
            "--by person, or --by reward with --reward-model RUN"
        )
    return prompts


def task_of_run(path: Path) -> Task | None:
    """The task that generates questions about the data source of a run or of a run it started from; None without one."""
    sources = [folder.config().data.source for folder in _ancestry(path)]
    name = next((source for source in sources if source in TASKS and source not in PUBLIC), None)
    return None if name is None else find_task(name)


def suggested_questions(path: Path) -> tuple[str, ...]:
    """Questions for a person to try on a run: those of its task; none if it has no task or its record cannot be read."""
    try:
        task = task_of_run(path)
    except (OSError, ValueError):  # of a run that it started from
        return ()
    return () if task is None else task.suggestions


def _ancestry(path: Path) -> list[RunFolder]:
    return [folder for folder, _ in lineage(RunFolder(path)) if folder.exists()]


def count_trained(prompts: Sequence[Prompt], runs: Iterable[Path]) -> int:
    """The number of prompts in the training data of the runs and of those they started from.

    System messages are ignored. Data that is missing or damaged counts as none.
    """
    wanted = {_key(prompt.messages) for prompt in prompts}
    trained: set[tuple[tuple[str, str], ...]] = set()
    folders = {folder.path.resolve(): folder for path in runs for folder in _ancestry(path)}
    for config in [folder.config() for folder in folders.values()]:
        try:
            trained |= wanted.intersection(map(_key, _training_prompts(config)))
        except (OSError, ValueError):  # moved or damaged since; the warning is best effort
            continue
    return sum(_key(prompt.messages) in trained for prompt in prompts)


def _key(messages: Iterable[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages if message["role"] != "system")


def _training_prompts(config: RunConfig) -> Iterator[Sequence[Message]]:
    """The messages before each answer in the training split of a run's data; none for text."""
    path = Path(config.data.path)
    if not path.exists():
        return
    if config.info.data == "conversations":
        for record in open_conversations(path, "train"):
            messages = record["messages"]
            yield from (messages[: i + 1] for i, message in enumerate(messages) if message["role"] == "user")
    elif config.info.data == "preferences":
        yield from (comparison.prompt for comparison in open_preferences(path, "train"))
    elif config.info.data == "judgements":
        yield from (judged.prompt for judged in open_judgements(path, "train"))
    elif config.info.data == "prompts":
        yield from (prompt.messages for prompt in open_prompts(path, "train"))


def save_preferences(comparison: RunComparison, annotator: str, path: Path) -> int:
    """Write the judged pairs as preferences to train on, without empty and equal answers, and return their number. No
    file is written for none."""
    lines = []
    for pair in comparison.pairs:
        texts = (pair.second, pair.first) if pair.points >= 0.5 else (pair.first, pair.second)
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts)
        record: dict[str, Any] = {"prompt": list(pair.prompt.messages), "chosen": chosen, "rejected": rejected}
        record |= {"tie": True} if pair.points == 0.5 else {}
        record |= {"annotator": annotator}
        record |= {"category": pair.prompt.category} if pair.prompt.category else {}
        if verifier_of(pair.prompt):
            record["truth"] = [true_score(pair.prompt, text) for text in texts]
        if not isinstance(tidy_preference(record), Dropped):
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    if lines:
        write_text(path, "".join(lines))
    return len(lines)
