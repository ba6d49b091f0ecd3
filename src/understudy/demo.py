"""The demo: prepare, pretrain, sft, preferences, reward, grpo, evaluate and report on the embedded stories.

It calls the library functions of these commands in order, and skips steps that are done. The runs of a demo NAME are
NAME-base, NAME-chat, NAME-reward, and the improved assistant NAME.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from understudy.annotators import Sampling
from understudy.chat.session import Chat
from understudy.config.load import apply_overrides, build_config, read_preset
from understudy.data.chat.prepare import prepare_conversations
from understudy.data.progress import preparation_bars
from understudy.data.text.prepare import prepare
from understudy.evaluation.compare import compare_runs
from understudy.evaluation.run_evaluation import evaluate_split
from understudy.evaluation.runner import evaluate_on_tasks
from understudy.evaluation.tasks import find_task
from understudy.inference.generate import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.report.report import write_report
from understudy.report.tables import print_comparison, print_task_evaluation
from understudy.run import Run, RunFolder, load_run, run_path
from understudy.runtime import start_runtime
from understudy.stages.table import train_unless_done

PROMPTS = ("One morning,", '"Where is')
EXAMPLES = ("Who are you?", "What can you do?", "Who is the baker?")
"""Questions that the demo suggests; a trained demo answers them."""
QUESTIONS = (
    "Hello! Who are you?",
    "Who is the baker?",
    "Here is a story.\n\nOne windy morning Lily lost her red kite at the mill. Ben found the kite under an oak and gave "
    "it to her.\n\nWho found the kite?",
    "Say these words in capital letters: the old bridge",
)
PREFERENCE_PROMPTS = 400
SHORTER: dict[str, dict[str, dict[str, float]]] = {
    "hamlet-chat": {"train": {"steps": 850}, "eval": {"every_steps": 425}, "checkpoint": {"every_steps": 425}},
    "hamlet-reward": {"train": {"steps": 40}, "eval": {"every_steps": 20}, "checkpoint": {"every_steps": 20}},
    "hamlet-grpo": {
        "train": {"steps": 40, "batch_size": 64},
        "optim": {"lr": 3e-4},  # the preset's steps are too long for so few
        "eval": {"every_steps": 20},
        "checkpoint": {"every_steps": 20},
    },
}
"""Settings by preset that shorten the demo."""


def run_demo(name: str, fresh: bool = False) -> None:
    """Prepare, train, align, evaluate and report.

    Args:
        fresh: delete the runs of an earlier demo of this name first.

    Raises:
        ValueError: ``fresh``, and a folder in the way is not a run below runs/; nothing is deleted then.
        Interrupted: a signal asked to stop; the same command continues later.
    """
    began = time.perf_counter()
    path = run_path(name)
    base, chat, reward, best = (
        RunFolder(path.with_name(path.name + ending)) for ending in ("-base", "-chat", "-reward", "")
    )
    if fresh:
        earlier = [folder for folder in (base, chat, reward, best) if folder.path.exists()]
        for folder in earlier:
            folder.check_deletable()
        for folder in earlier:
            folder.delete()
    _say("1 of 9  prepare: the stories of a village, split into pieces of words")
    with preparation_bars() as report:
        config = build_config(read_preset("hamlet"))
        _say(str(prepare(["hamlet"], Path(config.data.path), "bpe", config.tokenizer.vocab_size, report=report)))
    _say(f"2 of 9  pretrain: a GPT learns to write them ({base.path})")
    _train("hamlet", base, None)
    _say("3 of 9  prepare: conversations about the village")
    conversations = _prepare("hamlet-chat", "conversations")
    _say(f"4 of 9  finetune: the GPT learns to answer ({chat.path})")
    _train("hamlet-chat", chat, base, data=conversations)
    _say("5 of 9  prefer: its answers to more questions, compared by simulated annotators who err at times")
    preferences = Path("data") / f"{best.name}-preferences"
    if not reward.exists():
        _prepare("", "preferences", preferences, PREFERENCE_PROMPTS, Sampling(str(chat.path)), force=True)
    _say(f"6 of 9  reward: a model learns which answers are preferred ({reward.path})")
    _train("hamlet-reward", reward, chat, data=preferences)
    _say(f"7 of 9  improve: the assistant learns from rewards for its own answers ({best.path})")
    prompts = _prepare("hamlet-grpo", "prompts")
    _train("hamlet-grpo", best, chat, data=prompts, grpo={
        "reward_model": reward.path, "reward_weight": 0.1, "prompts": 32, "kl_coefficient": 0.02, "eval_prompts": 64,
    })  # fmt: skip
    runs = [load_run(folder.path) for folder in (best, chat, base)]
    _say("8 of 9  evaluate: stories, people and phrasings that none of them has met")
    with start_runtime() as runtime:
        for run in runs[1:]:
            evaluate_split(run, runtime).save()
        for group in (runs[2:], runs[:2]):
            evaluation = evaluate_on_tasks(group, [find_task("hamlet")], runtime)
            evaluation.save()
            print_task_evaluation(evaluation, categories=False)
        print_comparison(compare_runs(runs[1], runs[0], runtime), categories=False)
    for prompt, completion in zip(
        PROMPTS, generate_text(runs[2].model, runs[2].tokenizer, PROMPTS, 60, SamplingSettings(temperature=0.7, seed=7))
    ):
        print(f"\n{prompt}{completion.text.rstrip()} …")
    _answer(runs[0])
    page = write_report([best.path], best.path / "report.html")
    _say(f"\n9 of 9  report: {page}")
    program = "understudy" if shutil.which("understudy") else sys.argv[0]  # `make` leaves it in .venv/bin
    _say(f"The demo took {(time.perf_counter() - began) / 60:.1f} minutes. Chat with it in the terminal:")
    _say(f"    {program} chat {best.as_argument()}")
    _say("or in the browser:")
    _say("    make play" if name == "demo" else f"    {program} serve {best.as_argument()}")
    _say("It knows one village and its stories. Ask it, for example:")
    for question in EXAMPLES:
        _say(f"    {question}")


def _prepare(
    preset: str, kind: str, path: Path | None = None, limit: int | None = None, sampling: Sampling | None = None,
    force: bool = False,
) -> Path:  # fmt: skip
    """Prepare Hamlet's conversations, preferences or prompts in the folder that the preset names, or in ``path``."""
    path = path or Path(read_preset(preset)["data"]["path"])
    with preparation_bars() as report:
        _say(str(prepare_conversations(
            ["hamlet"], path, kind, limit=limit, force=force, report=report, sampling=sampling
        )))  # fmt: skip
    return path


def _train(preset: str, folder: RunFolder, parent: RunFolder | None, data: Path | None = None, **sections: Any) -> None:
    """Train one stage, unless it is done already; an interrupted one is resumed."""
    settings = SHORTER.get(preset, {}) | sections | ({"data": {"path": data}} if data else {})
    dotted = {f"{section}.{name}": str(value) for section, values in settings.items() for name, value in values.items()}
    if not train_unless_done(apply_overrides(read_preset(preset), dotted), folder, parent):
        _say("        it is trained already; --fresh trains it again")


def _answer(run: Run) -> None:
    for question in QUESTIONS:
        chat = Chat(run.model, run.tokenizer, SamplingSettings(temperature=0), max_new_tokens=60)
        print(f"\nyou: {question}\n{run.path.name}: {''.join(chat.say(question))}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
