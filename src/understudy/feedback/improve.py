"""From stored feedback to a better run: export, train, and hold the new run against the old.

Corrections finetune the run where there are enough of them; where there are not, or where that is asked for, it is
improved by preferences, directly or through a reward model. What is trained, and how, is the stages' work
(train/runner.py); what becomes of a judgement feedback_export.py's. Of a run NAME the parts are data/NAME-feedback, NAME-sft, NAME-reward and NAME itself; each that is
done is kept, so that an interrupted improvement goes on.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.stages import STAGES
from understudy.files import now, read_json, write_json, write_text
from understudy.run import RunFolder, find_run, load_run, run_path

if TYPE_CHECKING:
    from understudy.data.chat.prompts import Prompt
    from understudy.evaluate.compare import Judge
    from understudy.feedback.export import ExportedFeedback
    from understudy.runtime import Runtime

METHODS = tuple(name for name, info in STAGES.items() if info.parent != "optional" and info.generates)
"""Stages that can come last."""
FINETUNE, BY_PREFERENCES, SCORE = "sft", "dpo", "reward"
"""The stages that learn from corrections, by default from preferences, and the one whose scores are rewards."""
FEWEST_PREFERENCES = 50
"""Below that many pairs there is nothing to learn but the people who gave them."""
FEWEST_CORRECTIONS = 50
"""Below that many corrections they only count as preferences, and the method is dpo unless another is asked for."""
BATCH = 16
"""Conversations, or prompts with their pairs, of a step in the presets of these stages."""
RECORD = "improvement.json"


@dataclass(frozen=True)
class ImproveRequest:
    """What to improve, and how. ``method``: None is sft where there are enough corrections, else dpo. ``judge``: the
    reward model that compares, where no checker can. ``data``: prompts to compare on; without them Hamlet's for a run that learnt Hamlet, else those of the feedback's validation split.
    ``temperature``: of those answers; that at which most judged ones were sampled where it is left out, since it is
    those that people judged. ``settings``: dotted ones, for the last stage."""

    run: str
    database: str
    name: str
    method: str | None = None
    data: str | None = None
    judge: str | None = None
    limit: int = 200
    max_new_tokens: int = 120
    temperature: float | None = None
    seed: int = 0
    device: str = "auto"
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the exported feedback lies."""
        return Path("data") / f"{Path(self.name).name}-feedback"

    def part(self, suffix: str = "") -> RunFolder:
        return RunFolder(run_path(f"{self.name}{suffix}"))


def improve(request: ImproveRequest, resume: bool = False) -> dict[str, Any]:
    """Train the run ``request.name`` from stored feedback, compare it with the old one, and keep what was found in its
    folder.

    Raises:
        ValueError: too little feedback, a name that is taken, or no way to tell which run is better.
        Interrupted: a signal asked to stop; ``resume`` goes on.
    """
    from understudy.evaluate.compare import by_verifier, has_verifier
    from understudy.evaluate.compare_runs import compare_runs
    from understudy.report.tables import print_comparison
    from understudy.runtime import start_runtime

    old = find_run(request.run)
    prompts = _prompts(request, old)
    truth = bool(prompts) and all(map(has_verifier, prompts))
    if not truth and not request.judge and request.method and STAGES[request.method].rollout:
        raise ValueError(
            f"the reward model that {request.method} optimises cannot judge what came of it; name another by --judge RUN, "
            "or prompts with answers by --data PATH"
        )
    feedback = _feedback(request, resume)
    method: str = feedback["method"]
    request, start, new = replace(request, method=method), old, request.part()
    if method != FINETUNE and feedback["corrections"] >= FEWEST_CORRECTIONS:
        start = request.part("-sft")
        _train(request, FINETUNE, start, old, feedback["sft"], feedback["corrections"])
    if STAGES[method].rollout or not (truth or request.judge):
        _train(request, SCORE, request.part("-reward"), old, feedback["preferences"], feedback["prompts_compared"])
    kind, n = {
        "conversations": ("sft", "corrections"), "preferences": ("preferences", "prompts_compared"),
        "prompts": ("prompts", "pairs"),
    }[STAGES[method].data]  # fmt: skip
    _train(request, method, new, start, feedback[kind], feedback[n])
    temperature = feedback["temperature"] if request.temperature is None else request.temperature
    with start_runtime(request.device) as runtime:
        judge = by_verifier if truth else _judge(request, runtime)
        found = compare_runs(
            load_run(old.path), load_run(new.path), runtime, prompts=prompts or _held_out(request), judge=judge,
            max_new_tokens=request.max_new_tokens, temperature=temperature,
        )  # fmt: skip
    print_comparison(found)
    record = {
        "created": now(), "compared_at_temperature": temperature, **{name: value for name, value in asdict(request).items() if name != "database"},
        "feedback": feedback, "judged_by": "checker" if truth else "reward", "comparison": found.as_dict(),
    }  # fmt: skip
    write_json(new.path / RECORD, record)
    return record


# ---- feedback -------------------------------------------------------------------------------------------------------


def _feedback(request: ImproveRequest, resume: bool) -> dict[str, Any]:
    """What the feedback was exported to: the file of each kind, and how much each holds. Where an improvement goes on
    it is what it began with, whatever people have said since."""
    record = request.folder / "feedback.json"
    asked = {"run": request.run, "method": request.method, "seed": request.seed, **request.settings}
    if resume:
        if not record.exists():
            raise ValueError(f"there is no improvement {request.name} to resume; leave --resume out to start it")
        saved = read_json(record)
        if saved["asked"] != asked:
            raise ValueError(
                f"{request.name} was begun with {_words(saved['asked'])}; --resume goes on with the same, and --run NAME "
                "begins another"
            )
        return dict(saved["feedback"])
    taken = next((p for p in (request.folder, request.part().path, request.part("-sft").path) if p.exists()), None)
    if taken:
        raise ValueError(f"{taken} is there already; go on with it by --resume, or choose another name with --run NAME")
    exports, about = _export(request.database)
    pairs, corrections = exports["preferences"].lines, len(exports["sft"].lines)
    method = request.method or (FINETUNE if corrections >= FEWEST_CORRECTIONS else BY_PREFERENCES)
    if len(pairs) < FEWEST_PREFERENCES:
        left_out = exports["preferences"].left_out
        raise ValueError(
            f"the feedback comes to {len(pairs):,} preferences"
            + (f" ({_counted(left_out)} left out)" if left_out else "")
            + f", and {FEWEST_PREFERENCES} are the least to learn from; collect more, as with `understudy serve`"
        )
    if method == FINETUNE and corrections < FEWEST_CORRECTIONS:
        raise ValueError(
            f"the feedback has {corrections:,} corrections, and {FEWEST_CORRECTIONS} are the least to finetune on; collect "
            "more, or learn from preferences by --method dpo"
        )
    # A setting that there is not is found before anything is written.
    _preset(replace(request, method=method), method, {})
    request.folder.mkdir(parents=True)
    feedback: dict[str, Any] = {
        **about, "method": method, "corrections": corrections, "pairs": len(pairs),
        "prompts_compared": len({json.dumps(pair["prompt"]) for pair in pairs}),
        "left_out": {kind: dict(exported.left_out) for kind, exported in exports.items()},
    }  # fmt: skip
    for kind, exported in exports.items():
        write_text(request.folder / f"{kind}.jsonl", exported.text())
        feedback[kind] = str(request.folder / f"{kind}.jsonl")
    write_json(record, {"asked": asked, "created": now(), "feedback": feedback})  # last: it says that all is there
    return feedback


def _export(database: str) -> tuple[dict[str, ExportedFeedback], dict[str, Any]]:
    """What the store comes to; and its URL without a password, and the temperature of most answers."""
    from understudy.feedback.export import EXPORTS
    from understudy.feedback.store import FeedbackStore

    with FeedbackStore(database, create=False) as store:
        found = Counter(record.settings.get("temperature", 0.0) for record in store.answers(judged=True))
        about = {"database": store.url, "temperature": found.most_common(1)[0][0] if found else 0.0}
        return {kind: EXPORTS[kind](store) for kind in ("sft", "preferences", "prompts")}, about


def _counted(left_out: dict[str, int]) -> str:
    return ", ".join(f"{n:,} as {reason}" for reason, n in left_out.items())


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


# ---- training -------------------------------------------------------------------------------------------------------


def _train(request: ImproveRequest, stage: str, folder: RunFolder, start: RunFolder, data: str, n: int) -> None:
    """One stage by its preset, so many steps as see each of ``n`` examples as often as the table of stages says."""
    from understudy.stages.table import train_unless_done

    settings = {"data.path": data, "train.seed": str(request.seed), "train.device": request.device}
    if (epochs := STAGES[stage].epochs) is not None:
        steps = max(10, -(-n * epochs // BATCH))
        settings |= {name: str(steps) for name in ("train.steps", "eval.every_steps", "checkpoint.every_steps")}
    else:
        settings[f"{stage}.reward_model"] = str(request.part("-reward").path)
    print(f"{stage}: {folder.path}, from {start.path} and {data}", file=sys.stderr)
    if not train_unless_done(_preset(request, stage, settings), folder, start):
        print("it is trained already", file=sys.stderr)


def _preset(request: ImproveRequest, stage: str, settings: dict[str, str]) -> dict[str, Any]:
    """The raw settings of a stage: its preset's, those given here, and for the last stage those that were asked for."""
    from understudy.config.load import apply_overrides, read_preset

    asked = request.settings if stage == request.method else {}
    return apply_overrides(read_preset(f"feedback-{stage}"), settings | asked)


# ---- comparing ------------------------------------------------------------------------------------------------------


def _prompts(request: ImproveRequest, old: RunFolder) -> list[Prompt]:
    """What both runs are asked; nothing where that is what the feedback holds out."""
    from understudy.evaluate.compare_runs import comparison_prompts, task_of_run

    if request.data is None and task_of_run(old.path) is None:
        return []
    return comparison_prompts([old.path], request.data, request.limit, verifiable=False)


def _held_out(request: ImproveRequest) -> list[Prompt]:
    """The prompts of the preferences' validation split, on which nothing was trained."""
    from understudy.data.chat.preferences import open_preferences
    from understudy.data.chat.prompts import Prompt

    pairs = open_preferences(request.folder / "preferences.jsonl", "val")
    return [Prompt(each.prompt, None, None, each.category) for each in islice(pairs, request.limit)]


def _judge(request: ImproveRequest, runtime: Runtime) -> Judge:
    from understudy.evaluate.compare import by_reward
    from understudy.rewards.model import RewardModel

    return by_reward(RewardModel(request.judge or str(request.part("-reward").path), runtime))
