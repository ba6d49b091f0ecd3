"""Verbs about preferences and rewards: score, compare, best-of-n."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from understudy.commands import Arguments, check_least, shared_arguments, show_result
from understudy.console import (
    final_table,
    interval_text,
    print_json,
    print_line,
    printable,
    progress_bars,
    progress_callback,
    show_table,
)  # fmt: skip

if TYPE_CHECKING:
    from understudy.evaluation.compare import Judge
    from understudy.evaluation.score import ScoredText
    from understudy.runtime import Runtime

SHOWN_LINES = 20
"""Rows of the table of scores."""


# ---- score ----------------------------------------------------------------------------------------------------------


def score_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="a reward model: a name under runs/, or a path")
    add("file", metavar="FILE", help="lines of conversations or of preferences; - reads standard input")
    add("--batch-size", type=int, default=16, metavar="N", help="conversations in one forward")
    shared_arguments(
        parser, "--checkpoint", "--device", "--json", help="print one JSON document, with the score of every line"
    )


def score(arguments: Arguments) -> None:
    from understudy.evaluation.score import score_file
    from understudy.run import load_run
    from understudy.runtime import start_runtime

    check_least(1, batch_size=arguments.batch_size)
    run = load_run(arguments.run, arguments.checkpoint)
    with start_runtime(arguments.device) as runtime, progress_bars() as bars:
        report = partial(progress_callback(bars), f"{run.path.name} scores")
        scored = score_file(run, arguments.file, runtime, arguments.batch_size, report)
    show_result(arguments, scored.as_dict(), lambda: _print_scores(scored))


def _print_scores(scored: ScoredText) -> None:
    heads = ("line", "chosen", "rejected", "chosen answer") if scored.has_pairs else ("line", "score", "answer")
    rows = []
    for line in scored.lines[:SHOWN_LINES]:
        numbers = [f"{value:.3f}" for value in line.scores]
        numbers += [""] * (len(heads) - 2 - len(numbers))
        rows.append([f"{line.number:,}", *numbers, shorten(line.conversations[0][-1]["content"], 60, placeholder="…")])
    show_table(f"{scored.run.path}, step {scored.run.step:,}", heads, rows)
    mean = scored.mean()
    facts = {"mean score": interval_text(mean.value, mean.low, mean.high, ".4f")}
    if accuracy := scored.accuracy():
        text = interval_text(accuracy.value, accuracy.low, accuracy.high, ".1%")
        facts["chosen scores higher"] = f"{text} of {accuracy.n:,} pairs"
    if len(scored.lines) > SHOWN_LINES:
        facts["not shown"] = f"{len(scored.lines) - SHOWN_LINES:,} more lines; --json prints all"
    if scored.dropped:
        facts["dropped"] = f"{len(scored.dropped):,} lines; the first: {scored.dropped[0]}"
    final_table(facts)


# ---- compare --------------------------------------------------------------------------------------------------------


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("first", metavar="RUN_A", help="the baseline run")
    add("second", metavar="RUN_B", help="the run whose win rate is measured")
    add("--by", choices=("checker", "reward", "person"), default="checker", help="the judge (default: checker)")
    add("--reward-model", metavar="RUN", help="with --by reward: a run of `understudy reward`")
    add(
        "--data", metavar="PATH",
        help="a folder of prompts (its validation split) or a file of prompts (default, for runs trained on Hamlet: "
        "held-out Hamlet prompts)",
    )  # fmt: skip
    add("--limit", type=int, default=200, metavar="N", help="the first N prompts (default: 200)")
    add("--temperature", type=float, default=0.0, metavar="X", help="sampling temperature; 0 is greedy (default)")
    add("--max-new-tokens", type=int, default=120, metavar="N", help="maximum length of an answer (default: 120)")
    add("--seed", type=int, default=0, metavar="N", help="seed of sampling and of the order shown")
    add("--save", type=Path, metavar="FILE", help="write the judged pairs as preferences to train on")
    shared_arguments(parser, "--device", "--json", help="print one JSON document, with every answer")


def compare(arguments: Arguments) -> None:
    from understudy.evaluation.compare import compare_runs, save_preferences
    from understudy.files import check_new_lines_file
    from understudy.report.tables import print_comparison
    from understudy.run import load_run
    from understudy.runtime import start_runtime

    by = arguments.by
    check_least(1, limit=arguments.limit, max_new_tokens=arguments.max_new_tokens)
    check_least(0, seed=arguments.seed)
    if arguments.reward_model is not None and by != "reward":
        raise ValueError(f"--reward-model would be ignored with --by {by}; add --by reward, or leave it out")
    if arguments.reward_model is None and by == "reward":
        raise ValueError("--by reward needs --reward-model RUN; `understudy reward` trains one")
    if arguments.save is not None:
        check_new_lines_file(arguments.save, "--save")
    first, second = load_run(arguments.first), load_run(arguments.second)
    with start_runtime(arguments.device) as runtime, progress_bars() as bars:
        judge = _judge(arguments.reward_model, by == "person", runtime, bars.stop)
        comparison = compare_runs(
            first, second, runtime, arguments.data, arguments.limit, judge=judge,
            max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature, seed=arguments.seed,
            progress=progress_callback(bars),
        )  # fmt: skip
    names = ("by", "reward_model", "data", "temperature", "max_new_tokens", "seed")
    settings = {name: getattr(arguments, name) for name in names}
    saved = None
    if arguments.save is not None:
        annotator = f"reward model {arguments.reward_model}" if by == "reward" else by
        saved = save_preferences(comparison, annotator, arguments.save)
    if arguments.json:
        print_json(settings | comparison.as_dict(answers=True) | {"saved_pairs": saved})
        return
    print_comparison(comparison)
    if saved is not None:
        print_line(
            f"{saved:,} pairs are in {arguments.save}" if saved
            else "no judged pair can be trained on (equal or empty answers), so no file was written"
        )  # fmt: skip


def _judge(reward_model: str | None, person: bool, runtime: Runtime, stop_bars: Callable[[], None]) -> Judge:
    from understudy.evaluation.compare import by_person, by_reward, by_verifier
    from understudy.rewards.model import RewardModel

    def ask(text: str) -> str:
        stop_bars()
        print(printable(text), end="", file=sys.stderr, flush=True)
        return sys.stdin.readline()

    if person:
        return by_person(ask)
    return by_verifier if reward_model is None else by_reward(RewardModel(reward_model, runtime))


# ---- best-of-n ------------------------------------------------------------------------------------------------------


def best_of_n_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="a run of ppo or grpo: a name under runs/, or a path")
    add("--most", type=int, default=64, metavar="N", help="completions of each prompt, a power of two (default: 64)")
    add("--prompts", type=int, default=64, metavar="N", help="validation prompts (default: 64)")
    add("--seed", type=int, default=0, metavar="N", help="seed of sampling")
    shared_arguments(parser, "--device", "--json", help="print the contents of best_of_n.json")


def best_of_n(arguments: Arguments) -> None:
    from understudy.report.report import update_report
    from understudy.run import load_run
    from understudy.runtime import start_runtime
    from understudy.stages.best_of import best_of_run

    check_least(0, seed=arguments.seed)
    run = load_run(arguments.run, "latest")
    with start_runtime(arguments.device) as runtime, progress_bars() as bars:
        report = partial(progress_callback(bars), f"sampling {arguments.most} completions of each prompt")
        result = best_of_run(run, runtime, arguments.most, arguments.prompts, arguments.seed, report)
    page = update_report(run)
    show_result(arguments, result, lambda: _print_best_of_n(result, str(run.path), page))


def _print_best_of_n(result: dict[str, Any], run: str, page: Path) -> None:
    names = {"reward": "reward", "true_score": "true score"}
    names = {name: words for name, words in names.items() if name in result["rows"][0]}
    rows = [
        [f"{row['n']:,}", f"{row['kl']:.3f}",
         *(interval_text(row[name], row[f"{name}_low"], row[f"{name}_high"], ".3f") for name in names)]
        for row in result["rows"]
    ]  # fmt: skip
    show_table(f"best of n of the reference model of {run}", ["n", "KL", *names.values()], rows)
    final_table({"report": str(page)})
