"""Comparison of two runs: the prompts, whether a run was trained on them, the judged pairs as training data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from understudy.config.run import RunConfig
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.formats import Dropped
from understudy.data.chat.preferences import open_preferences, tidy_preference
from understudy.data.chat.prompts import Prompt, open_prompts, prompt_of, read_prompts
from understudy.evaluate.compare import Judge, RunComparison, by_verifier, judge_answers
from understudy.evaluate.runner import answer_all
from understudy.evaluate.task import Task
from understudy.evaluate.tasks import PUBLIC, TASKS, find_task
from understudy.files import read_json, write_text
from understudy.inference.sampling import SamplingSettings
from understudy.model import GPT
from understudy.rewards.verifiers import true_score, verifier_of
from understudy.run import Run, RunFolder
from understudy.runtime import Runtime
from understudy.tokenizer.chat import Message, render, speaks_chat

ANSWER_TOKENS = 120
"""Maximum length of an answer, by default."""
BATCH_SIZE = 64
"""Prompts answered in one batch."""


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
            raise ValueError(f"the run {run.path} does not answer; name one of sft, dpo, ppo or grpo")
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
    pairs = judge_answers(
        [prompts[i] for i in numbers], answers[0], answers[1], judge, seed, partial(progress, "judging")
    )
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
    sources = [folder.config().data.source for folder in lineage_folders(path)]
    name = next((source for source in sources if source in TASKS and source not in PUBLIC), None)
    return None if name is None else find_task(name)


def lineage_folders(path: Path) -> Iterator[RunFolder]:
    """The folder of a run, then those of the runs it started from, the nearest first, as far as they exist."""
    seen: set[Path] = set()
    folder = RunFolder(path)
    while folder.exists() and folder.path.resolve() not in seen:
        seen.add(folder.path.resolve())
        yield folder
        record = folder.path / "run.json"
        parent = read_json(record).get("parent") if record.exists() else None
        if not parent:
            return
        folder = RunFolder(Path(parent["run"]))


def count_trained(prompts: Sequence[Prompt], runs: Iterable[Path]) -> int:
    """The number of prompts in the training data of the runs and of those they started from.

    System messages are ignored. Data that is missing or damaged counts as none.
    """
    wanted = {_key(prompt.messages) for prompt in prompts}
    trained: set[tuple[tuple[str, str], ...]] = set()
    folders = {folder.path.resolve(): folder for path in runs for folder in lineage_folders(path)}
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
