"""The commands as Python functions, for notebooks and scripts.

    import understudy

    understudy.prepare("shakespeare.txt", out="data/shakespeare", tokenizer="char")
    result = understudy.pretrain("shakespeare-char-cpu", run="small", data="data/shakespeare", train={"steps": 300})
    result.final.loss, result.metrics[-1], result.load().model
    understudy.evaluate("small").result.loss

Each does what the command of its name does, writes the same files, and raises a ValueError with the sentence that the
command would print. The functions of the stages (`pretrain`, `sft`, `reward`, `dpo`, `kto`, `ppo`, `grpo`) come from the table of
stages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.run import SHORT_OPTIONS
from understudy.config.stages import STAGES
from understudy.data.chat.prepare import KINDS, ChatSummary, prepare_conversations
from understudy.data.progress import preparation_bars
from understudy.data.text.prepare import prepare as prepare_text
from understudy.data.text.summary import TextSummary
from understudy.evaluation.compare import RunComparison, by_reward, compare_runs
from understudy.evaluation.questions import find_benchmarks
from understudy.evaluation.run_evaluation import RunEvaluation, evaluate_split
from understudy.evaluation.runner import TaskEvaluation, evaluate_on_tasks, find_tasks
from understudy.report.cleaning import cleaning_page
from understudy.rewards.model import RewardModel
from understudy.run import load_run
from understudy.runtime import start_runtime
from understudy.stages.table import train_preset
from understudy.train.runner import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prepare(
    sources: str | Path | Sequence[str], out: str | Path | None = None, kind: str = "text", **options: Any
) -> TextSummary | ChatSummary:
    """Turn sources into training data, as `understudy prepare` does; data that is prepared already is left as it is.

    Args:
        sources: one or several named sources, hub names, files, folders or globs.
        out: the folder, of text also its URL in an object store; by default data/NAME.
        kind: "text", "conversations", "preferences", "judgements" or "prompts".
        options: further arguments of :func:`understudy.data.text.prepare.prepare` (``tokenizer``, ``vocab_size``, …) or
            of :func:`understudy.data.chat.prepare.prepare_conversations` (``format_name``, ``limit``, …). In
            ``decontaminate`` of text are names of tasks and paths of files.

    Raises:
        ValueError: sources or options that cannot be used.
    """
    names = [str(sources)] if isinstance(sources, (str, Path)) else [str(source) for source in sources]
    with preparation_bars() as report:
        if kind == "text":
            if tasks := options.pop("decontaminate", ()):
                options["decontaminate"] = find_benchmarks([tasks] if isinstance(tasks, str) else tasks)
            summary = prepare_text(names, out, report=report, **options)
            cleaning_page(summary.folder)
            return summary
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; choose text, {', '.join(KINDS)}")
        return prepare_conversations(names, out, kind, report=report, **options)


def train_stage(
    stage: str, preset: str | None = None, run: str | Path | None = None, *, data: str | Path | None = None,
    init_from: str | Path | None = None, resume: bool = False, fresh: bool = False, chat_template: str | None = None,
    **settings: Any,
) -> Result:  # fmt: skip
    """Train one stage, as its command does: `understudy.pretrain("hamlet", run="small", train={"steps": 100})`.

    Args:
        preset: a name that `understudy presets` lists, or a YAML file.
        run: name of the run, a folder below runs/; by default that of the preset.
        data: a folder that :func:`prepare` wrote, or a .jsonl file.
        init_from: the run to start from.
        resume: continue the run from its last checkpoint.
        fresh: delete an earlier run of this name first.
        chat_template: replaces the chat template of an imported model.
        settings: sections of the configuration, such as ``train={"steps": 100}`` or ``model={"lora": {"rank": 8}}``,
            and ``seed``, ``device``, ``minutes``, ``tokens``, ``epochs``.

    Returns:
        The finished training: ``final`` (its validation loss), ``metrics`` (a dict for each logged step) and ``load()``.

    Raises:
        ValueError: settings, data, parent or folder do not fit together.
        Interrupted: stopped by a signal; everything is saved, and ``resume`` continues.
    """
    given = {SHORT_OPTIONS.get(name, name): value for name, value in settings.items()}
    given |= {name: value for name, value in (("data.path", data), ("init_from", init_from)) if value is not None}
    name = None if run is None else str(run)
    return train_preset(stage, preset, name, dotted(given), resume, chat_template, fresh)


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by their dotted names, each value as YAML."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value) if isinstance(value, (str, Path)) else json.dumps(value)
    return flat


def stage_function(stage: str) -> Callable[..., Result]:
    """:func:`train_stage` for one stage."""
    function = partial(train_stage, stage)
    function.__doc__ = f"{STAGES[stage].summary[0].upper()}{STAGES[stage].summary[1:]}.\n\n{train_stage.__doc__}"
    return function


def evaluate(
    run: str | Path, tasks: str | Sequence[str] | None = None, *, data: str | Path | None = None, split: str = "val",
    limit: int | None = None, batch_size: int = 16, context_length: int | None = None, few_shot: int = 0,
    task_data: str | Path | None = None, checkpoint: str = "best", device: str = "auto",
) -> RunEvaluation | TaskEvaluation:  # fmt: skip
    """Measure the loss of a run on held-out data, or with ``tasks`` its accuracy, and write it to the run's folder.

    Args:
        tasks: names such as "hamlet", or .jsonl files of questions; None measures the loss (a reward model: the accuracy).
        data, split, context_length: of the loss. By default the run's own data, its validation split and its context.
        limit, few_shot, task_data: of tasks; see `understudy evaluate --help`.
        batch_size: rows in one forward.
        checkpoint: best, latest or a step.

    Returns:
        With ``result.loss`` in nats per token, or with tasks ``results[0][i].headline`` for the i-th task.

    Raises:
        ValueError: data or tasks that are missing or do not fit the run.
    """
    loaded = load_run(str(run), checkpoint)
    evaluation: RunEvaluation | TaskEvaluation
    with start_runtime(device) as runtime:
        if tasks is None:
            evaluation = evaluate_split(loaded, runtime, data, split, context_length, batch_size)
        else:
            names = [tasks] if isinstance(tasks, str) else list(tasks)
            found = find_tasks(names, None if task_data is None else Path(task_data), few_shot)
            evaluation = evaluate_on_tasks([loaded], found, runtime, limit, batch_size)
        if runtime.is_main:
            evaluation.save()
    return evaluation


def compare(
    first: str | Path, second: str | Path, *, reward_model: str | Path | None = None, device: str = "auto", **options: Any
) -> RunComparison:  # fmt: skip
    """Let two runs answer the same prompts and count which answers are better, as `understudy compare` does.

    Args:
        reward_model: a run of `reward`, whose score is the judge; by default the verifier of the prompts is.
        options: further arguments of :func:`understudy.evaluation.compare.compare_runs`: ``data``, ``limit``, ``judge``,
            ``temperature``, ``seed``, ….

    Raises:
        ValueError: no prompts, or a run that does not answer.
    """
    with start_runtime(device) as runtime:
        if reward_model is not None:
            options["judge"] = by_reward(RewardModel(str(reward_model), runtime))
        return compare_runs(load_run(str(first)), load_run(str(second)), runtime, **options)


def plot_losses(*results: Result, labels: Sequence[str] | None = None) -> Figure:
    """Training and validation losses of finished trainings against tokens, as a matplotlib figure.

    Args:
        labels: one for each; by default the names of the runs.
    """
    from understudy.report.plots import draw_losses

    names = labels or [result.folder.name for result in results]
    return draw_losses({name: result.metrics for name, result in zip(names, results, strict=True)})
