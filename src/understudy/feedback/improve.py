"""Improve a run by stored feedback: export, train, and compare the new run with the old one.

With enough corrections the run is finetuned on them; otherwise it learns from preferences, or with too few of them from
thumbs and ratings of single answers. ``method`` names another way, such as a reward model. An improvement NAME writes
data/NAME-feedback and the runs NAME-sft, NAME-reward and NAME; finished parts are kept, so that an interrupted improvement can
be resumed. Not here: training (train/runner.py), the conversion of judgements (exchange.py).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from understudy.config.load import apply_overrides, read_preset
from understudy.config.stages import STAGES, stages_for
from understudy.data.chat.judgements import open_judgements
from understudy.data.chat.preferences import open_preferences
from understudy.data.chat.prompts import Prompt
from understudy.evaluation.compare import (
    Judge,
    by_reward,
    by_verifier,
    compare_runs,
    comparison_prompts,
    task_of_run,
)  # fmt: skip
from understudy.feedback.exchange import EXPORTS
from understudy.feedback.store import FeedbackStore
from understudy.files import now, read_json, write_json, write_text
from understudy.report.tables import print_comparison
from understudy.rewards.model import RewardModel
from understudy.rewards.verifiers import verifier_of
from understudy.run import RunFolder, find_run, load_run, run_path
from understudy.runtime import start_runtime
from understudy.stages.table import train_unless_done

[CORRECTION_STAGE], [PREFERENCE_STAGE] = stages_for("conversations"), stages_for("preferences")
"""The stages that learn from corrections and directly from preferences."""
[JUDGEMENT_STAGE] = stages_for("judgements")
"""The stage that learns from thumbs and ratings of single answers."""
[REWARD_STAGE] = stages_for("preferences", generates=False)
"""The stage that trains a reward model."""
EXPORTS_OF_DATA = {
    "conversations": "sft", "preferences": "preferences", "judgements": "judgements", "prompts": "prompts",
}  # fmt: skip
"""The export (exchange.py) that is the data of a kind."""
MIN_PREFERENCES = 50
"""Fewer pairs would teach the taste of single annotators."""
MIN_CORRECTIONS = 50
"""With fewer corrections the default method learns from preferences, of which corrections are a part."""
MIN_JUDGEMENTS = 50
"""Thumbs and ratings that the stage for single judgements needs."""
BATCH = 16
"""Conversations, judgements, or prompts with their pairs, per step in the presets of these stages."""
RECORD = "improvement.json"


@dataclass(frozen=True)
class ImproveRequest:
    """Arguments of `understudy improve`, whose help describes them; ``settings`` are dotted ones of the last stage."""

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
        """Folder of the exported feedback."""
        return Path("data") / f"{Path(self.name).name}-feedback"

    def part(self, suffix: str = "") -> RunFolder:
        return RunFolder(run_path(f"{self.name}{suffix}"))


def improve(request: ImproveRequest, resume: bool = False) -> dict[str, Any]:
    """Train the run ``request.name`` on stored feedback, compare it with the old one, and record the result in its folder.

    Raises:
        ValueError: too little feedback, a name in use, or no means to compare the runs.
        Interrupted: a signal; ``resume`` continues.
    """
    old = find_run(request.run)
    prompts = None  # those that the feedback holds out
    if request.data or task_of_run(old.path) is not None:
        prompts = comparison_prompts([old.path], request.data, request.limit, verifiable=False)
    verifiable = prompts is not None and all(map(verifier_of, prompts))
    if not verifiable and not request.judge and request.method and STAGES[request.method].rollout:
        raise ValueError(
            f"the reward model that {request.method} optimises cannot compare its result; give another one with "
            "--judge RUN, or prompts with answers with --data PATH"
        )
    feedback = _feedback(request, resume, verifiable or request.judge is not None)
    method: str = feedback["method"]
    request, start, new = replace(request, method=method), old, request.part()
    if method != CORRECTION_STAGE and feedback["corrections"] >= MIN_CORRECTIONS:
        start = request.part("-sft")
        _train(request, CORRECTION_STAGE, start, old, feedback)
    if STAGES[method].rollout or not (verifiable or request.judge):
        _train(request, REWARD_STAGE, request.part("-reward"), old, feedback)
    _train(request, method, new, start, feedback)
    temperature = feedback["temperature"] if request.temperature is None else request.temperature
    with start_runtime(request.device) as runtime:
        judge: Judge = by_verifier
        if not verifiable:
            judge = by_reward(RewardModel(request.judge or str(request.part("-reward").path), runtime))
        comparison = compare_runs(
            load_run(old.path), load_run(new.path), runtime, prompts=prompts or _held_out(request), judge=judge,
            max_new_tokens=request.max_new_tokens, temperature=temperature,
        )  # fmt: skip
    print_comparison(comparison)
    record = {
        "created": now(), "compared_at_temperature": temperature,
        **{name: value for name, value in asdict(request).items() if name != "database"},
        "feedback": feedback, "judged_by": "checker" if verifiable else "reward", "comparison": comparison.as_dict(),
    }  # fmt: skip
    write_json(new.path / RECORD, record)
    return record


# ---- feedback -------------------------------------------------------------------------------------------------------


def _feedback(request: ImproveRequest, resume: bool, comparable: bool) -> dict[str, Any]:
    """Export the feedback: the file of each kind, and the number of its lines. With ``resume`` those of the start, without
    later judgements. ``comparable``: the runs can be compared without a reward model of the preferences."""
    record = request.folder / "feedback.json"
    settings = {"run": request.run, "method": request.method, "seed": request.seed, **request.settings}
    if resume:
        if not record.exists():
            raise ValueError(f"there is no improvement {request.name} to resume; leave --resume out to start it")
        saved = read_json(record)
        if saved["settings"] != settings:
            given = ", ".join(f"{name} {value}" for name, value in saved["settings"].items())
            raise ValueError(f"{request.name} was started with {given}; give the same, or another name with --run NAME")
        return dict(saved["feedback"])
    taken = next((p for p in (request.folder, request.part().path, request.part("-sft").path) if p.exists()), None)
    if taken:
        raise ValueError(f"{taken} exists; continue it with --resume, or choose another name with --run NAME")
    with FeedbackStore(request.database, create=False) as store:
        temperatures = Counter(record.settings.get("temperature", 0.0) for record in store.answers(judged=True))
        exports = {kind: EXPORTS[kind](store) for kind in EXPORTS_OF_DATA.values()}
    pairs, corrections = exports["preferences"].lines, len(exports["sft"].lines)
    labels = len(exports["judgements"].lines)
    method = request.method or _method(corrections, len(pairs), labels)
    _check_enough(method, corrections, len(pairs), labels, exports["preferences"].left_out, comparable)
    # An unknown setting is refused before anything is written.
    _preset(replace(request, method=method), method, {})
    request.folder.mkdir(parents=True)
    feedback: dict[str, Any] = {
        "database": store.url, "temperature": temperatures.most_common(1)[0][0], "method": method,
        "corrections": corrections, "pairs": len(pairs), "single_judgements": labels,
        "prompts_compared": len({json.dumps(pair["prompt"]) for pair in pairs}),
        "left_out": {kind: dict(exported.left_out) for kind, exported in exports.items()},
    }  # fmt: skip
    for kind, exported in exports.items():
        write_text(request.folder / f"{kind}.jsonl", exported.text())
        feedback[kind] = str(request.folder / f"{kind}.jsonl")
    # last: it marks the export complete
    write_json(record, {"settings": settings, "created": now(), "feedback": feedback})
    return feedback


def _method(corrections: int, pairs: int, labels: int) -> str:
    """The stage that learns from most of what there is: corrections say most, then pairs, then single judgements."""
    if corrections >= MIN_CORRECTIONS:
        return CORRECTION_STAGE
    if pairs < MIN_PREFERENCES and labels >= MIN_JUDGEMENTS:
        return JUDGEMENT_STAGE
    return PREFERENCE_STAGE


def _check_enough(
    method: str, corrections: int, pairs: int, labels: int, left_out: Counter[str], comparable: bool
) -> None:
    """Refuse a method for which there is too little feedback.

    Raises:
        ValueError: there is.
    """
    if method == JUDGEMENT_STAGE:
        if labels < MIN_JUDGEMENTS:
            raise ValueError(
                f"the feedback gives {labels:,} thumbs and ratings for {method}; {MIN_JUDGEMENTS} are needed; collect more with "
                "`understudy serve`"
            )
        if pairs < MIN_PREFERENCES and not comparable:
            raise ValueError(
                f"the {pairs:,} preferences are too few for a reward model that compares the runs; name another one with --judge "
                f"RUN, or prompts with answers with --data PATH, or train without a comparison: `understudy feedback export "
                f"--kind judgements --out FILE`, then `understudy {method} feedback-{method} --init-from RUN --data FILE`"
            )
        return
    if pairs < MIN_PREFERENCES:
        counts = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
        reasons = f" (left out: {counts})" if counts else ""
        finetune = f", or export the {corrections:,} corrections with --kind sft and finetune on them"
        raise ValueError(
            f"the feedback gives {pairs:,} preferences{reasons}, and {labels:,} thumbs and ratings for {JUDGEMENT_STAGE}; "
            f"{MIN_PREFERENCES} of either are needed; collect more with `understudy serve`{finetune if corrections else ''}"
        )
    if method == CORRECTION_STAGE and corrections < MIN_CORRECTIONS:
        raise ValueError(
            f"the feedback has {corrections:,} corrections; {MIN_CORRECTIONS} are needed; collect more, or learn from "
            f"preferences with --method {PREFERENCE_STAGE}"
        )


# ---- training -------------------------------------------------------------------------------------------------------


def _train(request: ImproveRequest, stage: str, folder: RunFolder, start: RunFolder, feedback: dict[str, Any]) -> None:
    """Train one stage with its preset, for the epochs of the table of stages."""
    info = STAGES[stage]
    data = feedback[EXPORTS_OF_DATA[info.data]]
    settings = {"data.path": data, "train.seed": str(request.seed), "train.device": request.device}
    if info.epochs is not None:
        counts = {"conversations": "corrections", "judgements": "single_judgements"}
        examples = feedback[counts.get(info.data, "prompts_compared")]
        steps = max(10, -(-examples * info.epochs // BATCH))
        settings |= {name: str(steps) for name in ("train.steps", "eval.every_steps", "checkpoint.every_steps")}
    else:
        settings[f"{stage}.reward_model"] = str(request.part("-reward").path)
    print(f"{stage}: {folder.path}, from {start.path} and {data}", file=sys.stderr)
    if not train_unless_done(_preset(request, stage, settings), folder, start):
        print(f"{folder.path} was trained before", file=sys.stderr)


def _preset(request: ImproveRequest, stage: str, settings: dict[str, str]) -> dict[str, Any]:
    """The raw settings of a stage: its preset, ``settings``, and for the last stage the request's settings."""
    overrides = request.settings if stage == request.method else {}
    return apply_overrides(read_preset(f"feedback-{stage}"), settings | overrides)


# ---- comparing ------------------------------------------------------------------------------------------------------


def _held_out(request: ImproveRequest) -> list[Prompt]:
    """The prompts of the validation split of the preferences or judgements, which is not trained on."""
    prompts: dict[str, Prompt] = {}
    if request.method == JUDGEMENT_STAGE:
        for judged in open_judgements(request.folder / "judgements.jsonl", "val"):
            prompts.setdefault(json.dumps(judged.prompt), Prompt(judged.prompt, None, None, ""))
        return list(islice(prompts.values(), request.limit))
    pairs = open_preferences(request.folder / "preferences.jsonl", "val")
    return [Prompt(each.prompt, None, None, each.category) for each in islice(pairs, request.limit)]
