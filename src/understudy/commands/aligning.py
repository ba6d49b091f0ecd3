"""Verbs about preferences and rewards: score, compare, best-of-n; and `evaluate` for a reward model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.commands import Arguments, check_least
from understudy.console import print_json, progress_bars, show_table
from understudy.evaluate.compare_runs import ANSWER_TOKENS, comparison_prompts, show_comparison

if TYPE_CHECKING:
    from understudy.evaluate.compare import Judge
    from understudy.evaluate.statistics import Estimate
    from understudy.run import Run
    from understudy.runtime import Runtime

SHOWN = 20
"""Rows of a table of scores."""


# ---- score ----------------------------------------------------------------------------------------------------------


def score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a reward model: a name under runs/, or a path")
    parser.add_argument("file", metavar="FILE", help="lines of conversations or of preferences; - reads standard input")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="conversations in one forward")
    parser.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), latest, or a step")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with the score of every line")


def score(arguments: Arguments) -> None:
    from understudy.evaluate.score import read_lines, score_lines
    from understudy.rewards.model import RewardModel
    from understudy.run import load_run
    from understudy.runtime import start_runtime
    from understudy.train.metrics import final_table

    check_least(1, batch_size=arguments.batch_size)
    run = load_run(arguments.run, arguments.checkpoint)
    piped = arguments.file == "-"
    with nullcontext(sys.stdin.buffer) if piped else Path(arguments.file).open("rb") as stream:
        lines = read_lines(stream, "standard input" if piped else arguments.file)
    with start_runtime(arguments.device) as runtime, progress_bars() as bars:
        bar = bars.add_task(f"{run.path.name} scores", total=None)
        scored = score_lines(
            RewardModel(run, runtime), lines, arguments.batch_size,
            lambda done, total: bars.update(bar, completed=done, total=total),
        )  # fmt: skip
    if arguments.json:
        print_json({"run": str(run.path), "step": run.step} | scored.as_dict())
        return
    pairs = any(len(own) == 2 for own in scored.scores)
    rows = [
        [f"{line.number:,}", *(f"{value:.3f}" for value in own), *([""] if len(own) < 1 + pairs else []),
         _beginning(line.conversations[0][-1]["content"])]
        for line, own in zip(lines[:SHOWN], scored.scores)
    ]  # fmt: skip
    heads = ("line", "better", "worse", "better answer") if pairs else ("line", "score", "answer")
    show_table(f"{run.path}, step {run.step:,}", heads, rows)
    facts = {"mean score": _interval(scored.mean(), "{:.4f}")}
    if accuracy := scored.accuracy():
        facts["better scores higher"] = f"{_interval(accuracy, '{:.1%}')} of {accuracy.n:,} pairs"
    if len(lines) > SHOWN:
        facts["not shown"] = f"{len(lines) - SHOWN:,} more lines; --json gives them all"
    final_table(facts)


def _beginning(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def _interval(of: Estimate, form: str) -> str:
    shown = form.format(of.value)
    return shown if of.low is None else f"{shown} (95% interval {form.format(of.low)} to {form.format(of.high)})"


# ---- compare --------------------------------------------------------------------------------------------------------


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="RUN_A", help="the run to compare with")
    parser.add_argument("second", metavar="RUN_B", help="the run whose win rate is told")
    parser.add_argument("--by", choices=("checker", "reward", "person"), help="who judges (default: checker)")
    parser.add_argument("--reward-model", metavar="RUN", help="with --by reward: the run that `understudy reward` made")
    parser.add_argument(
        "--data", metavar="PATH", help="a folder of prompts (validation) or a file of them (default: Hamlet's own)"
    )
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="the first N prompts (default: 200)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="X", help="of the answers; 0 takes the likeliest (default)"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=ANSWER_TOKENS,
        metavar="N",
        help="at most so many an answer (default: 120)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling and of the order shown")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write what was judged as preferences to train on")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every answer")


def compare(arguments: Arguments) -> None:
    from understudy.evaluate.compare import duel, preferences_of
    from understudy.files import write_text
    from understudy.run import load_run
    from understudy.runtime import start_runtime

    by = arguments.by or "checker"
    check_least(1, limit=arguments.limit, max_new_tokens=arguments.max_new_tokens)
    check_least(0, seed=arguments.seed)
    if arguments.reward_model is not None and by != "reward":
        raise ValueError(f"--reward-model would be ignored with --by {by}; add --by reward, or leave it out")
    if arguments.reward_model is None and by == "reward":
        raise ValueError("--by reward needs --reward-model RUN; `understudy reward` trains one")
    save = arguments.save
    if save is not None and (save.suffix != ".jsonl" or save.exists() or not save.absolute().parent.is_dir()):
        raise ValueError(f"--save {save} wants the name of a new .jsonl file in a folder that is there")
    first, second = load_run(arguments.first), load_run(arguments.second)
    prompts = comparison_prompts(arguments.data, arguments.limit, needs_truth=by == "checker")
    with start_runtime(arguments.device) as runtime, progress_bars() as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if by != "person" or what != "judging":
                tasks.setdefault(what, bars.add_task(what, total=total) if what not in tasks else None)
                bars.update(tasks[what], completed=done, total=total)

        judge = _judge(by, arguments.reward_model, runtime, bars.stop)
        found = duel(
            first,
            second,
            prompts,
            judge,
            runtime,
            arguments.temperature,
            arguments.max_new_tokens,
            arguments.seed,
            report,
        )
    about = {
        "first": {"run": str(first.path), "step": first.step}, "second": {"run": str(second.path), "step": second.step},
        "by": by, "reward_model": arguments.reward_model, "data": arguments.data or "hamlet",
        "temperature": arguments.temperature, "max_new_tokens": arguments.max_new_tokens, "seed": arguments.seed,
    }  # fmt: skip
    saved = None
    if save is not None:
        annotator = f"reward model {arguments.reward_model}" if by == "reward" else by
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in preferences_of(found, annotator)]
        saved = len(lines)
        if lines:
            write_text(save, "".join(lines))
    if arguments.json:
        rows = [
            {"prompt": list(row.prompt.messages), "category": row.prompt.category, "first": row.first,
             "second": row.second, "points": row.points}
            for row in found.rows
        ]  # fmt: skip
        print_json(about | found.as_dict() | {"saved_pairs": saved, "rows": rows})
        return
    show_comparison(found, first, second, len(prompts))
    if save is not None:
        said = (
            f"{saved:,} pairs are in {save}"
            if saved
            else "no judged pair can be trained on (equal or empty answers), so nothing was saved"
        )
        print(said, file=sys.stderr)


def _judge(by: str, reward_model: str | None, runtime: Runtime, stop_bars: Callable[[], None]) -> Judge:
    from understudy.console import printable
    from understudy.evaluate.compare import by_checker, by_person, by_reward
    from understudy.rewards.model import RewardModel

    if by == "reward":
        assert reward_model is not None, "checked before"
        return by_reward(RewardModel(reward_model, runtime))
    if by == "checker":
        return by_checker

    def show(text: str) -> None:
        print(printable(text), file=sys.stderr)

    def ask(question: str) -> str:
        stop_bars()
        print(question, end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line

    return by_person(ask, show)


# ---- best-of-n ------------------------------------------------------------------------------------------------------


def best_of_n_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run of ppo or grpo: a name under runs/, or a path")
    parser.add_argument(
        "--most", type=int, default=64, metavar="N", help="answers to each prompt, a power of two (default: 64)"
    )
    parser.add_argument("--prompts", type=int, default=64, metavar="N", help="validation prompts (default: 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the answers")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--json", action="store_true", help="print what best_of_n.json holds")


def best_of_n(arguments: Arguments) -> None:
    from understudy.report.alignment import draw_overoptimisation
    from understudy.report.report import write_report
    from understudy.run import RunFolder, load_run, read_metrics
    from understudy.runtime import start_runtime
    from understudy.stages.best_of import best_of_run
    from understudy.train.metrics import final_table

    check_least(0, seed=arguments.seed)
    run = load_run(arguments.run, "latest")
    with start_runtime(arguments.device) as runtime, progress_bars() as bars:
        bar = bars.add_task(f"sampling {arguments.most} completions of each prompt", total=None)
        found = best_of_run(
            run, runtime, arguments.most, arguments.prompts, arguments.seed,
            lambda done, total: bars.update(bar, completed=done, total=total),
        )  # fmt: skip
    draw_overoptimisation(run.path, read_metrics(RunFolder(run.path).metrics), run.config.model_dump())
    page = write_report([run.path], run.path / "report.html")
    if arguments.json:
        print_json(found)
        return
    names = {"reward": "reward", "true_score": "true score"}
    names = {name: words for name, words in names.items() if name in found["rows"][0]}
    rows = [
        [f"{row['n']:,}", f"{row['kl']:.3f}", *(f"{row[n]:.3f} [{row[f'{n}_low']:.3f}, {row[f'{n}_high']:.3f}]" for n in names)]
        for row in found["rows"]
    ]  # fmt: skip
    show_table(f"best of n of the reference model of {run.path}", ["n", "KL", *names.values()], rows)
    final_table({"report": str(page)})


# ---- evaluate a reward model ----------------------------------------------------------------------------------------


def evaluate_reward(arguments: Arguments, run: Run, context: int) -> None:
    """The loss a pair of a reward model, and how often it agrees with the labels and with the truth."""
    from understudy.evaluate.reward_model import judge_run
    from understudy.run import RunFolder
    from understudy.runtime import start_runtime
    from understudy.train.metrics import final_table

    path = Path(arguments.data) if arguments.data else None
    with start_runtime(arguments.device) as runtime:
        judged = judge_run(run, runtime, path, arguments.split, context, arguments.batch_size)
    if arguments.data is None and arguments.split == "val" and context == run.config.model.context_length:
        judged.save(RunFolder(run.path), run.step)
    found = judged.as_dict()
    about = {"run": str(run.path), "step": run.step, "split": arguments.split, "context_length": context}
    if arguments.json:
        print_json(about | {name: value for name, value in found.items() if name != "scores"})
        return
    rows = {name.replace("_", " "): str(value) for name, value in about.items()}
    rows["loss a pair"] = f"{found['loss']:.4f} (95% interval {found['loss_low']:.4f} to {found['loss_high']:.4f})"
    for name, words in (("accuracy", "agrees with labels"), ("true_accuracy", "agrees with truth")):
        if name in found:
            rows[words] = f"{found[name]:.1%} (95% interval {found[f'{name}_low']:.1%} to {found[f'{name}_high']:.1%})"
    final_table(rows | {"pairs": f"{found['pairs']:,}"})
