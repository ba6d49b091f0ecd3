"""Comparison of two runs: the prompts, whether a run was trained on them, the judged pairs as training data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from understudy.config.run import RunConfig
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.preferences import open_preferences
from understudy.data.chat.prompt_formats import read_prompts
from understudy.data.chat.prompts import Prompt, open_prompts, prompt_of
from understudy.evaluate.compare import (
    ANSWER_TOKENS,
    ComparisonProgress,
    Judge,
    RunComparison,
    by_verifier,
    compare_answers,
    has_verifier,
    preferences_of,
)
from understudy.evaluate.task import Task
from understudy.evaluate.tasks import PUBLIC, TASKS, find_task
from understudy.files import check_output_path, read_json, write_text
from understudy.run import Run, RunFolder
from understudy.runtime import Runtime
from understudy.tokenizer.chat import Message


def compare_runs(
    first: Run, second: Run, runtime: Runtime, data: str | None = None, limit: int = 200,
    prompts: Sequence[Prompt] | None = None, judge: Judge = by_verifier, max_new_tokens: int = ANSWER_TOKENS,
    temperature: float = 0.0, seed: int = 0, progress: ComparisonProgress | None = None,
) -> RunComparison:  # fmt: skip
    """Compare the second run with the first on the same prompts.

    Args:
        prompts: by default those of :func:`comparison_prompts`.

    Raises:
        ValueError: no prompts, a run that does not answer, or no judged pair.
    """
    if prompts is None:
        prompts = comparison_prompts([first.path, second.path], data, limit, verifiable=judge is by_verifier)
    comparison = compare_answers(first, second, prompts, judge, runtime, temperature, max_new_tokens, seed, progress)
    return replace(comparison, trained_on=count_trained(prompts, [first.path, second.path]))


def comparison_prompts(runs: Sequence[Path], data: str | None, limit: int, verifiable: bool) -> list[Prompt]:
    """The first prompts of the validation split of a folder, or of a file. Without ``data``, prompts of the task that
    belongs to the data source of the runs; neither training nor the choice of a checkpoint used them.

    Args:
        verifiable: refuse prompts that have no verifier.

    Raises:
        ValueError: no such data, no prompt in it, a run whose data source has no task, or prompts without a verifier.
    """
    if data is None:
        task = _common_task(runs)
        return [task.as_prompt(example) for example in task.comparison_examples(limit)]
    if Path(data).is_dir():
        prompts = list(islice(open_prompts(Path(data), "val"), limit))
    else:
        records = (row.record for row in read_prompts(Path(data)))
        prompts = list(islice((prompt_of(record) for record in records if record is not None), limit))
    if not prompts:
        raise ValueError(f"{data} has no prompt that can be answered")
    if verifiable and (without := sum(not has_verifier(prompt) for prompt in prompts)):
        raise ValueError(
            f"{without:,} of the {len(prompts):,} prompts in {data} have neither a check nor an answer to verify; choose "
            "--by person, or --by reward with --reward-model RUN"
        )
    return prompts


def _common_task(runs: Sequence[Path]) -> Task:
    tasks = []
    for path in runs:
        if (task := task_of_run(path)) is None:
            raise ValueError(
                f"there are no default prompts for the run {path}, since no task belongs to its data; name prompts with "
                "--data PATH, a file or a folder of `understudy prepare SOURCE --kind prompts`"
            )
        tasks.append(task)
    return tasks[0]


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


def check_preference_file(path: Path) -> None:
    """Refuse a path that :func:`save_preferences` cannot create.

    Raises:
        ValueError: it exists, does not end in .jsonl, or its folder does not exist.
    """
    if path.suffix != ".jsonl" or path.exists() or not path.absolute().parent.is_dir():
        raise ValueError(f"--save {path} must be the name of a new .jsonl file in a folder that exists")
    check_output_path(path)


def save_preferences(comparison: RunComparison, annotator: str, path: Path) -> int:
    """Write the judged pairs as preferences to train on, and return their number. No file is written for none."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in preferences_of(comparison, annotator)]
    if lines:
        write_text(path, "".join(lines))
    return len(lines)
