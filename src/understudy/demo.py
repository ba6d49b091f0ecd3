"""The whole path in one command: the embedded stories, a GPT that writes them, conversations, an assistant that answers,
what each of the two is worth, and a report.

It calls what the commands call, in their order, and keeps what is already done. The base model is runs/NAME-base and
the assistant runs/NAME.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from understudy.chat import Chat
from understudy.commands.evaluating import ask_and_tell
from understudy.data.prepare import prepare, progress_bars
from understudy.data.prepare_conversations import prepare_conversations
from understudy.evaluate.loss import evaluate_run, save_evaluation
from understudy.evaluate.report import write_report
from understudy.evaluate.tasks import find_task
from understudy.inference.engine import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.run import Run, RunFolder, load_run, run_path
from understudy.runtime import start_runtime
from understudy.settings import load_config, read_preset
from understudy.train.inherit import config_from_parent
from understudy.train.stages import pretrain, sft

PROMPTS = ("One morning,", '"Where is')
QUESTIONS = (
    "Hello! Who are you?",
    "Who is the baker?",
    "Here is a story.\n\nOne windy morning Lily lost her red kite at the mill. Ben found the kite under an oak and gave "
    "it to her.\n\nWho found the kite?",
    "Say these words in capital letters: the old bridge",
)


def run_demo(name: str, fresh: bool = False) -> None:
    """Prepare, train, finetune, evaluate and report into runs/NAME-base and runs/NAME.

    Raises:
        Interrupted: a signal asked to stop; the same command goes on later.
    """
    began = time.perf_counter()
    base, assistant = RunFolder(run_path(f"{name}-base")), RunFolder(run_path(name))
    for folder in (base, assistant):
        if fresh and folder.path.exists():
            shutil.rmtree(folder.path)
    _train_base(base)
    _train_assistant(assistant, base)
    runs = [load_run(folder.path) for folder in (assistant, base)]
    _evaluate(runs)
    _say("6 of 7  talk: what each has to say")
    for prompt, completion in zip(
        PROMPTS, generate_text(runs[1].model, runs[1].tokenizer, PROMPTS, 60, SamplingSettings(temperature=0.7, seed=7))
    ):
        print(f"\n{prompt}{completion.text.rstrip()} …")
    _answer(runs[0])
    page = write_report([assistant.path], assistant.path / "report.html")
    _say(f"\n7 of 7  report: {page}")
    _say(f"The demo took {(time.perf_counter() - began) / 60:.1f} minutes. Talk with it:")
    program = "understudy" if shutil.which("understudy") else sys.argv[0]  # `make` leaves it in .venv/bin
    _say(f"    {program} chat {name}")


def _train_base(folder: RunFolder) -> None:
    config = load_config("hamlet")
    _say(f"1 of 7  prepare: the stories of a village, split into pieces of words ({config.data.path})")
    with progress_bars() as report:
        _say(str(prepare(
            [config.data.source or "hamlet"], Path(config.data.path), config.tokenizer.kind or "bpe",
            config.tokenizer.vocab_size, report=report,
        )))  # fmt: skip
    _say(f"2 of 7  pretrain: a GPT learns to write them ({folder.path})")
    if not _is_trained(folder):
        pretrain(folder.config() if folder.exists() else config, folder, resume=folder.exists())


def _train_assistant(folder: RunFolder, base: RunFolder) -> None:
    tree = read_preset("hamlet-chat") | {"init_from": str(base.path)}
    path = Path(tree["data"]["path"])
    _say(f"3 of 7  prepare: conversations about the village ({path})")
    with progress_bars() as report:
        _say(str(prepare_conversations(["hamlet"], path, report=report)))
    _say(f"4 of 7  finetune: the GPT learns to answer ({folder.path})")

    if _is_trained(folder):
        return
    resume = folder.exists()
    parent = None if resume else load_run(base.path)
    sft(config_from_parent(tree, parent) if parent else folder.config(), folder, resume, parent)


def _is_trained(folder: RunFolder) -> bool:
    """Whether a run came to its end, which is then said."""
    done = folder.exists() and bool(folder.steps()) and folder.steps()[-1] >= folder.config().train.steps
    if done:
        _say("        it is trained already; --fresh trains it again")
    return done


def _evaluate(runs: list[Run]) -> None:
    _say("5 of 7  evaluate: stories, people and phrasings that neither has met")
    with start_runtime() as runtime:
        for run in runs:
            result = evaluate_run(run, runtime)
            save_evaluation(RunFolder(run.path), result, str(run.step))
            per_byte = f", {result.bits_per_byte:.3f} bits a byte of text" if result.bits_per_byte else ""
            _say(f"        {run.path.name}: loss {result.loss:.3f} a token{per_byte}")
        ask_and_tell(runs, [find_task("hamlet")], runtime)


def _answer(run: Run) -> None:
    for question in QUESTIONS:
        chat = Chat(run.model, run.tokenizer, SamplingSettings(temperature=0), max_new_tokens=60)
        print(f"\nyou: {question}\n{run.path.name}: {''.join(chat.say(question))}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
