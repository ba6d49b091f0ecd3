"""The demo: prepare, pretrain, sft, grpo, evaluate and a page, on the embedded stories.

It calls the library functions of these commands in order, and skips steps that are done. The runs of a demo NAME are
NAME-base, NAME-chat, and the improved assistant NAME. The minutes of training are shared out between the
stages; each stage measures its speed and plans its steps by it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.chat.session import Chat
from understudy.config.load import apply_overrides, build_config, read_preset
from understudy.console import duration_text, show_table
from understudy.data.chat.prepare import prepare_conversations
from understudy.data.progress import preparation_bars
from understudy.data.text.prepare import prepare
from understudy.evaluation.compare import compare_runs
from understudy.evaluation.run_evaluation import evaluate_split
from understudy.evaluation.runner import TaskResult, evaluate_on_tasks
from understudy.evaluation.tasks import find_task
from understudy.inference.generate import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.report.report import write_report
from understudy.report.story import BeforeAfter, DemoStory, StoryStage, write_story
from understudy.report.tables import print_comparison, print_task_evaluation
from understudy.run import Run, RunFolder, load_run, run_path
from understudy.runtime import Runtime, start_runtime
from understudy.stages.table import train_unless_done
from understudy.tokenizer.chat import speaks_chat

MINUTES = 8.0
"""Training of all stages together, by default."""
SHARES = {"hamlet": 0.08, "hamlet-chat": 0.66, "hamlet-grpo": 0.26}
"""What each preset gets of the minutes."""
CONVERSATIONS_PER_MINUTE = 4000
"""So many conversations are written for each minute of the demo: on fast machines they are read more than once."""
MOST_CONVERSATIONS = 60_000
PROMPTS_PER_MINUTE = 250
PROMPTS = ("One morning,", '"Where is')
QUESTIONS = (
    "Hello! Who are you?",
    "Who is the baker?",
    "Here is a story.\n\nOne windy morning Lily lost her red kite at the mill. Ben found the kite under an oak and gave "
    "it to her.\n\nWho found the kite?",
    "What is the capital of France?",
)
FRESH_PROMPTS = 1200
"""Prompts that both assistants answer, sampled, to measure the last stage."""
DEMO_SETTINGS: dict[str, dict[str, Any]] = {
    "hamlet-grpo": {"optim": {"lr": 3.0e-4}, "eval": {"every_steps": 240}, "checkpoint": {"every_steps": 240}},
}
"""Settings by preset that differ in the demo."""


@dataclass
class Stage:
    """A step of the demo that trains, for the plan and for what is said of it at the end."""

    title: str
    preset: str
    teaches: str
    folder: RunFolder
    planned_seconds: float
    seconds: float | None = None


def run_demo(name: str, fresh: bool = False, minutes: float | None = None, show: bool = False) -> None:
    """Prepare, train, align, evaluate and write the page.

    Args:
        fresh: delete the runs of an earlier demo of this name first.
        minutes: of training, for all stages together; :data:`MINUTES` by default.
        show: open the page where there is a screen.

    Raises:
        ValueError: ``fresh``, and a folder in the way is not a run below runs/; nothing is deleted then.
        Interrupted: a signal asked to stop; the same command continues later.
    """
    began = time.perf_counter()
    minutes = minutes or MINUTES
    path = run_path(name)
    base, chat, best = (RunFolder(path.with_name(path.name + ending)) for ending in ("-base", "-chat", ""))
    if fresh:
        earlier = [folder for folder in (base, chat, best) if folder.path.exists()]
        for folder in earlier:
            folder.check_deletable()
        for folder in earlier:
            folder.delete()
    pretraining, finetuning, aligning = stages = [
        Stage(title, preset, teaches, folder, 60 * minutes * SHARES[preset])
        for title, preset, teaches, folder in (
            ("Pretrain", "hamlet", "to write stories of a village", base),
            ("Finetune", "hamlet-chat", "to answer questions", chat),
            ("GRPO", "hamlet-grpo", "from rewards for its own answers", best),
        )
    ]
    show_table(
        f"About {minutes:g} minutes of training on this machine, and about two for data, questions and a page",
        ["stage", "planned", "the model learns", "run"],
        [
            [stage.title, duration_text(stage.planned_seconds), stage.teaches, str(stage.folder.path)]
            for stage in stages
        ],
    )
    _say("1 of 7  prepare: the stories of a village, split into pieces of words")
    with preparation_bars() as report:
        config = build_config(read_preset("hamlet"))
        _say(str(prepare(["hamlet"], Path(config.data.path), "bpe", config.tokenizer.vocab_size, report=report)))
    _say(f"2 of 7  pretrain: a GPT learns to write them ({base.path})")
    _train(pretraining, None)
    _say("3 of 7  prepare: conversations about the village")
    conversations = Path("data") / f"{best.name}-conversations"
    if not chat.exists():
        limit = min(MOST_CONVERSATIONS, round(CONVERSATIONS_PER_MINUTE * minutes))
        _prepare("conversations", conversations, limit, force=True)
    _say(f"4 of 7  finetune: the GPT learns to answer ({chat.path})")
    _train(finetuning, base, {"data": {"path": conversations}})
    _say(f"5 of 7  improve: the assistant learns from rewards for its own answers ({best.path})")
    prompts = Path(read_preset("hamlet-grpo")["data"]["path"])
    _prepare("prompts", prompts, max(500, round(PROMPTS_PER_MINUTE * minutes)))
    _train(aligning, chat)
    _say("6 of 7  evaluate: stories, people and phrasings that none of them has met")
    runs = [load_run(folder.path) for folder in (base, chat, best)]
    with start_runtime() as runtime:
        results, changes = _evaluate(runs, runtime)
    samples = [
        (prompt, f"{completion.text.rstrip()} …")
        for prompt, completion in zip(
            PROMPTS,
            generate_text(runs[0].model, runs[0].tokenizer, PROMPTS, 60, SamplingSettings(temperature=0.7, seed=7)),
        )
    ]
    for prompt, text in samples:
        print(f"\n{prompt}{text}")
    exchanges = [(question, (_answer(runs[0], question), _answer(runs[1], question), _answer(runs[2], question)))
                 for question in QUESTIONS]  # fmt: skip
    for question, (_, _, answer) in exchanges:
        print(f"\nyou: {question}\n{runs[2].path.name}: {answer}")
    program = "understudy" if shutil.which("understudy") else sys.argv[0]  # `make` leaves it in .venv/bin
    play = "make play" if name == "demo" else f"{program} serve {best.as_argument()} --open"
    write_report([best.path], best.path / "report.html")
    seconds = time.perf_counter() - began
    page = write_story(
        DemoStory(
            base=runs[0], assistant=runs[1], aligned=runs[2],
            stages=[
                StoryStage(stage.title, f"The model learnt {stage.teaches}.", stage.seconds, stage.planned_seconds,
                           stage.folder.path)
                for stage in stages
            ],
            results=results, changes=changes, samples=samples, exchanges=exchanges, seconds=seconds, program=program,
            play=play, look=find_task("hamlet").suggestions[1],
        ),
        best.path / "story.html",
    )  # fmt: skip
    show_table(
        "Planned and actual time of training",
        ["stage", "planned", "took"],
        [[stage.title, duration_text(stage.planned_seconds),
          "trained earlier" if stage.seconds is None else duration_text(stage.seconds)] for stage in stages],
    )  # fmt: skip
    _say(f"7 of 7  the whole story: {page}")
    if show and _has_screen():
        webbrowser.open(page.resolve().as_uri())
    _say(f"The demo took {seconds / 60:.1f} minutes. Chat with it in the terminal:")
    _say(f"    {program} chat {best.as_argument()}")
    _say("or in the browser:")
    _say(f"    {play}")
    _say("It knows one village and its stories, and says so when it is asked about anything else. Ask it, for example:")
    for question in find_task("hamlet").suggestions:
        _say(f"    {question}")


def _evaluate(runs: list[Run], runtime: Runtime) -> tuple[tuple[TaskResult, TaskResult, TaskResult], list[BeforeAfter]]:
    """Print and save what the base model, the assistant and the aligned assistant can do, and what the last stage changed."""
    base, chat, best = runs
    for run in (base, chat):
        evaluate_split(run, runtime).save()
    results: list[TaskResult] = []
    for group in ([base], [chat, best]):
        evaluation = evaluate_on_tasks(group, [find_task("hamlet")], runtime)
        evaluation.save()
        print_task_evaluation(evaluation, categories=False)
        results += [of_run[0] for of_run in evaluation.results]
    comparison = compare_runs(chat, best, runtime, limit=FRESH_PROMPTS, temperature=1.0)
    print_comparison(comparison, categories=False)
    of_base, before, after = results
    return (of_base, before, after), [
        BeforeAfter.from_comparison("sampled answers to fresh questions", comparison),
        BeforeAfter.from_results("likeliest answers to the held-out questions", before, after),
    ]


def _prepare(kind: str, path: Path, limit: int | None = None, force: bool = False) -> None:
    """Prepare Hamlet's conversations or prompts in ``path``."""
    with preparation_bars() as report:
        _say(str(prepare_conversations(["hamlet"], path, kind, limit=limit, force=force, report=report)))


def _train(stage: Stage, parent: RunFolder | None, more: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Train one stage, unless it is done already; an interrupted one is resumed."""
    began = time.perf_counter()
    sections: dict[str, dict[str, Any]] = {"train": {"minutes": stage.planned_seconds / 60}}
    for settings in (DEMO_SETTINGS.get(stage.preset, {}), more or {}):
        for section, values in settings.items():
            sections[section] = sections.get(section, {}) | dict(values)
    dotted = {f"{section}.{name}": str(value) for section, values in sections.items() for name, value in values.items()}
    if train_unless_done(apply_overrides(read_preset(stage.preset), dotted), stage.folder, parent):
        stage.seconds = time.perf_counter() - began
    else:
        _say("        it is trained already; --fresh trains it again")


def _answer(run: Run, question: str) -> str:
    """The likeliest answer to a question; a base model, which knows no chat, continues it."""
    if not speaks_chat(run.tokenizer):
        [completion] = generate_text(run.model, run.tokenizer, [question], 30, SamplingSettings(temperature=0))
        return completion.text.strip()
    chat = Chat(run.model, run.tokenizer, SamplingSettings(temperature=0), max_new_tokens=60)
    return "".join(chat.say(question))


def _has_screen() -> bool:
    """Whether a browser can show a page here."""
    return sys.stdout.isatty() and (
        sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
