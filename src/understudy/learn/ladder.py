"""The ladder: short trainings from a bigram to PPO, each with the time it takes and the result to expect.

A step is one stage on data of the embedded village, by a preset that is shortened. It starts from the run of an earlier
step, which is trained first where it is missing. The runs are `runs/learn-NN-NAME`, the data is in `data/learn-…`.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy import api
from understudy.bench import measure_training
from understudy.config.load import load_config
from understudy.console import duration_text
from understudy.run import RunFolder, run_path
from understudy.runtime import start_runtime

Settings = Mapping[str, Mapping[str, Any]]

REFERENCE_MACHINE = "one core of an Intel Xeon (Sapphire Rapids) in bf16, in seconds of the processor"
"""The machine of the table's seconds."""
REFERENCE_SPEED = 6_450.0
"""Tokens per second of :func:`measure_speed` on it."""
PROBE_SECONDS = 0.8
COMPARED_PROMPTS = 400


@dataclass(frozen=True)
class StepData:
    """What `understudy prepare hamlet` makes for a step: the folder, the kind, and its other options."""

    out: str
    kind: str = "text"
    options: Mapping[str, str | int] = field(default_factory=dict)

    def command(self) -> str:
        kind = [] if self.kind == "text" else ["--kind", self.kind]
        options = [word for name, value in self.options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return shlex.join(["understudy", "prepare", "hamlet", *kind, *options, "--out", self.out])

    def prepare(self) -> None:
        """Make it, unless it is there already."""
        print(api.prepare("hamlet", self.out, self.kind, **self.options), file=sys.stderr)


@dataclass(frozen=True)
class Measure:
    """The number by which a step is judged.

    Attributes:
        number_format: of the number.
        value: measures the trained run of a step.
        command: measures it from a shell, with {run}, {start} and {reward} for names of runs.
    """

    name: str
    number_format: str
    value: Callable[[Step], float]
    command: str = "understudy evaluate {run}"

    def text(self, value: float) -> str:
        return format(value, self.number_format)


@dataclass(frozen=True)
class Step:
    """A step of the ladder.

    Attributes:
        teaches: one sentence.
        settings: of the preset, by section.
        expected: the mean of measured results; ``low`` to ``high`` is the band.
        seconds: it took on the machine of REFERENCE_SPEED, with its data and its measurement.
        start: the step it starts from.
        reward: the step whose run gives the rewards.
    """

    number: int
    name: str
    teaches: str
    data: StepData
    stage: str
    preset: str
    settings: Settings
    measure: Measure
    expected: float
    low: float
    high: float
    seconds: float
    start: int | None = None
    reward: int | None = None

    @property
    def run(self) -> str:
        """The name of its run."""
        return f"learn-{self.number:02}-{self.name}"

    @property
    def earlier(self) -> list[Step]:
        """The steps whose runs it needs."""
        return [find_step(number) for number in (self.start, self.reward) if number is not None]

    def all_settings(self) -> Settings:
        """The settings of its training, with the run that gives the rewards."""
        if self.reward is None:
            return self.settings
        section = {**self.settings.get(self.stage, {}), "reward_model": find_step(self.reward).run}
        return {**self.settings, self.stage: section}

    def commands(self) -> list[str]:
        """The commands that prepare, train and measure, as one types them."""
        words = ["understudy", self.stage, self.preset, "--run", self.run, "--data", self.data.out]
        if self.start is not None:
            words += ["--init-from", find_step(self.start).run]
        for name, value in api.dotted(self.all_settings()).items():
            words += [f"--{name}", value]
        return [self.data.command(), shlex.join(words), self.measure.command.format(**self.names())]

    def names(self) -> dict[str, str]:
        """The names of its run, and of those it starts from and is rewarded by."""
        others = {"start": self.start, "reward": self.reward}
        return {"run": self.run} | {name: find_step(n).run for name, n in others.items() if n is not None}

    def is_done(self) -> bool:
        """Whether its run is trained to the last step."""
        return RunFolder(run_path(self.run)).is_finished()

    def train(self, fresh: bool = False) -> bool:
        """Prepare and train it, or resume it; returns whether there was something to train."""
        if self.is_done() and not fresh:
            return False
        self.data.prepare()
        names, exists = self.names(), RunFolder(run_path(self.run)).exists()
        api.train_stage(
            self.stage, self.preset, self.run, data=self.data.out, init_from=names.get("start"),
            resume=exists and not fresh, fresh=fresh, **dict[str, Any](self.all_settings()),
        )  # fmt: skip
        return True

    def expected_text(self) -> str:
        low, expected, high = map(self.measure.text, (self.low, self.expected, self.high))
        return f"{self.measure.name} {expected} ({low} to {high})"


# ---- measures --------------------------------------------------------------------------------------------------------


def _evaluate(step: Step) -> Any:
    """The loss of the run of a step, or the scores of its reward model."""
    return api.evaluate(step.run).result  # type: ignore[union-attr]  # no task is named


def _choices(step: Step) -> float:
    return api.evaluate(step.run, tasks="hamlet-choice").results[0][0].headline.value  # type: ignore[union-attr]


def _win_rate(step: Step, **judge: str) -> float:
    compared = api.compare(step.names()["start"], step.run, temperature=1.0, limit=COMPARED_PROMPTS, **judge)
    return float(compared.as_dict()["win_rate"])


def _win_rate_by_reward(step: Step) -> float:
    return _win_rate(step, reward_model=step.names()["reward"])


_COMPARE = f"understudy compare {{start}} {{run}} --temperature 1 --limit {COMPARED_PROMPTS}"
BITS_PER_BYTE = Measure("bits per byte", ".3f", lambda step: _evaluate(step).bits_per_byte)
LOSS = Measure("validation loss", ".3f", lambda step: _evaluate(step).loss)
ACCURACY = Measure("accuracy on pairs", ".1%", lambda step: _evaluate(step).accuracies()["accuracy"].value)
CHOICES = Measure("right answers chosen", ".1%", _choices, "understudy evaluate {run} --tasks hamlet-choice")
WIN_RATE = Measure("win rate over its start", ".1%", _win_rate, _COMPARE)
WIN_RATE_BY_REWARD = Measure(
    "win rate by the reward model", ".1%", _win_rate_by_reward, f"{_COMPARE} --by reward --reward-model {{reward}}"
)

# ---- the steps -------------------------------------------------------------------------------------------------------

_CHARACTERS = StepData("data/learn-characters", options={"tokenizer": "char", "limit": 2000})
_TOKENS = StepData("data/learn-tokens", options={"tokenizer": "bpe", "vocab_size": 1536, "limit": 4000})
_CONVERSATIONS = StepData("data/learn-conversations", "conversations", {"limit": 6000})
_PREFERENCES = StepData("data/learn-preferences", "preferences", {"limit": 1000})
_PROMPTS = StepData("data/learn-prompts", "prompts", {"limit": 500})


def _training(steps: int) -> dict[str, dict[str, Any]]:
    """Settings of a training of this many steps, with one evaluation, at the end."""
    return {"train": {"steps": steps}, "eval": {"every_steps": 0}, "checkpoint": {"every_steps": 0}}


def _adapters() -> dict[str, dict[str, Any]]:
    """Settings of 60 steps, in place of the epochs of the preset, with a learning rate for a small model."""
    settings = _training(60)
    settings["train"] |= {"epochs": None, "batch_size": 8, "micro_batch_size": 8}
    return {**settings, "model": {"context_length": 384}, "optim": {"lr": 0.003}}


def _rollouts(stage: str) -> dict[str, dict[str, Any]]:
    """Settings of eight iterations of 256 answers, each of four steps."""
    settings = _training(32)
    settings["train"]["batch_size"] = 64
    return {**settings, stage: {"prompts": 32, "eval_prompts": 64}}


# Measured by benchmarks/ladder.py on 28 November 2026: steps 1 and 2 with three seeds in bf16 and fp32, step 3 with two
# seeds in bf16, steps 4 to 10 with one seed, and bands around that by judgement.
LADDER: tuple[Step, ...] = (
    Step(
        1, "bigram", "A table of which character follows which is the smallest language model.",
        _CHARACTERS, "pretrain", "shakespeare-bigram", _training(300), BITS_PER_BYTE, 3.334, 3.30, 3.37, 7,
    ),
    Step(
        2, "characters", "A small GPT reads the characters before, and predicts the next one far better.",
        _CHARACTERS, "pretrain", "shakespeare-char-cpu", _training(150), BITS_PER_BYTE, 1.289, 1.24, 1.34, 20,
    ),
    Step(
        3, "tokens", "Byte-pair encoding joins frequent characters, so that a GPT sees more text in as many tokens.",
        _TOKENS, "pretrain", "hamlet", _training(30), BITS_PER_BYTE, 0.916, 0.86, 0.98, 24,
    ),
    Step(
        4, "base", "The same GPT gets better with three times as many steps; all that follows starts from this base model.",
        _TOKENS, "pretrain", "hamlet", _training(100), BITS_PER_BYTE, 0.617, 0.58, 0.66, 48,
    ),
    Step(
        5, "assistant", "Finetuning on conversations turns the base model into an assistant that answers.",
        _CONVERSATIONS, "sft", "hamlet-chat", _training(160), LOSS, 0.93, 0.83, 1.04, 75, start=4,
    ),
    Step(
        6, "lora", "Low-rank adapters improve the assistant further, though they train a small share of its weights.",
        _CONVERSATIONS, "sft", "sft-lora", _adapters(), LOSS, 0.89, 0.79, 1.00, 59, start=5,
    ),
    Step(
        7, "reward", "A reward model learns which of two answers people prefer.",
        _PREFERENCES, "reward", "hamlet-reward", _training(60), ACCURACY, 0.61, 0.54, 0.68, 43, start=5,
    ),
    Step(
        8, "dpo", "DPO learns from the same preferences directly, without a reward model.",
        _PREFERENCES, "dpo", "hamlet-dpo", _training(40), CHOICES, 0.50, 0.43, 0.57, 52, start=5,
    ),
    Step(
        9, "grpo", "GRPO samples groups of answers, has a program check them, and makes the right ones more likely.",
        _PROMPTS, "grpo", "hamlet-grpo", _rollouts("grpo"), WIN_RATE, 0.515, 0.48, 0.56, 56, start=5,
    ),
    Step(
        10, "ppo", "PPO raises the reward model's score of sampled answers, with a critic as the baseline.",
        _PROMPTS, "ppo", "hamlet-ppo", _rollouts("ppo"), WIN_RATE_BY_REWARD, 0.69, 0.57, 0.81, 69, start=5, reward=7,
    ),
)  # fmt: skip


def find_step(number: int) -> Step:
    """A step by its number; a ValueError if there is none."""
    if not 1 <= number <= len(LADDER):
        raise ValueError(f"there is no step {number}; choose one of 1 to {len(LADDER)}, which `understudy learn` lists")
    return LADDER[number - 1]


# ---- this machine ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MachineSpeed:
    """Measured speed of training of a small GPT on this machine."""

    tokens_per_second: float
    device: str
    dtype: str

    def seconds(self, step: Step) -> float:
        """The time that a step is planned to take here."""
        return step.seconds * REFERENCE_SPEED / self.tokens_per_second


def measure_speed() -> MachineSpeed:
    """Measure for about a second, by the model of preset hamlet in small batches."""
    config = load_config("hamlet", {"train.batch_size": "8", "train.micro_batch_size": "8", "train.compile": "off"})
    with start_runtime() as runtime:
        speed = measure_training(config, runtime, PROBE_SECONDS)
        return MachineSpeed(speed.tokens_per_second, str(runtime.device), str(runtime.dtype).removeprefix("torch."))


def plan(speed: MachineSpeed) -> dict[str, Any]:
    """The ladder with the time of each step on this machine, as plain JSON."""
    return {
        "device": speed.device, "dtype": speed.dtype, "tokens_per_second": speed.tokens_per_second,
        "reference_tokens_per_second": REFERENCE_SPEED,
        "steps": [
            {
                "number": step.number, "name": step.name, "teaches": step.teaches, "run": step.run,
                "starts_from": [earlier.run for earlier in step.earlier], "commands": step.commands(),
                "measure": step.measure.name, "expected": step.expected, "low": step.low, "high": step.high,
                "seconds": speed.seconds(step), "reference_seconds": step.seconds, "done": step.is_done(),
            }
            for step in LADDER
        ],
    }  # fmt: skip


def render(speed: MachineSpeed) -> str:
    """The ladder as text."""
    total = duration_text(sum(speed.seconds(step) for step in LADDER))
    lines = [
        f"{len(LADDER)} steps, about {total} minutes in all on this machine ({speed.device}, {speed.dtype}, "
        f"{speed.tokens_per_second:,.0f} tokens/s). `understudy learn run N` runs one."
    ]
    for step in LADDER:
        done = "  done" if step.is_done() else ""
        after = "".join(f", after step {earlier.number}" for earlier in step.earlier)
        lines += [
            "", f"{step.number:>2}  {step.name}{done}", f"    {step.teaches}",
            f"    {duration_text(speed.seconds(step))} minutes{after}; expected: {step.expected_text()}",
            *(f"    $ {command}" for command in step.commands()),
        ]  # fmt: skip
    return "\n".join(lines)


# ---- running a step --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepResult:
    """A measured step.

    Attributes:
        value: of the step's measure.
        trained: whether it was trained now; otherwise an earlier training was measured again.
        seconds: of the whole step.
        planned_seconds: of the whole step with its training, on this machine.
    """

    step: Step
    value: float
    trained: bool
    seconds: float
    planned_seconds: float

    @property
    def is_inside(self) -> bool:
        """Whether the value is inside the expected band."""
        return self.step.low <= self.value <= self.step.high

    def as_dict(self) -> dict[str, Any]:
        step = self.step
        return {
            "number": step.number, "name": step.name, "run": step.run, "measure": step.measure.name,
            "value": self.value, "expected": step.expected, "low": step.low, "high": step.high,
            "inside": self.is_inside, "trained": self.trained, "seconds": self.seconds,
            "planned_seconds": self.planned_seconds,
        }  # fmt: skip

    def rows(self) -> dict[str, str]:
        """Names and values of a table for people."""
        step = self.step
        took, planned = duration_text(self.seconds), duration_text(self.planned_seconds)
        note = f"planned {planned}" if self.trained else "it was trained before; --fresh trains it again"
        return {
            "step": f"{step.number} {step.name}",
            "run": str(run_path(step.run)),
            "expected": step.expected_text(),
            "measured": f"{step.measure.text(self.value)}, {'inside' if self.is_inside else 'OUTSIDE'} the expected band",
            "time": f"{took}, {note}",
        }


def run_step(number: int, fresh: bool = False) -> StepResult:
    """Run a step: prepare, train and measure. What is trained already is only measured again.

    Args:
        fresh: delete its run and train it again.

    Raises:
        ValueError: no such step, or a folder in the way.
        Interrupted: a signal asked to stop; the same step continues later.
    """
    step = find_step(number)
    speed = measure_speed()
    for earlier in step.earlier:
        _train_first(earlier, step)
    _say(f"step {step.number}: {step.teaches}")
    began = time.perf_counter()
    trained = step.train(fresh)
    value = step.measure.value(step)
    return StepResult(step, value, trained, time.perf_counter() - began, speed.seconds(step))


def _train_first(step: Step, later: Step) -> None:
    """Train a step that a later one needs, unless that is done."""
    if step.is_done():
        return
    for earlier in step.earlier:
        _train_first(earlier, step)
    _say(f"step {later.number} needs the run of step {step.number}, which is trained first: {step.teaches}")
    step.train()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
