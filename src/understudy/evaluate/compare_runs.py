"""Two runs compared on the same prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from understudy.console import show_table
from understudy.data.chat.prompts import Prompt
from understudy.evaluate.compare import Judge, RunComparison
from understudy.run import Run
from understudy.runtime import Runtime

ANSWER_TOKENS = 120
"""Of an answer to compare, at most."""


def compare_runs(
    first: Run, second: Run, runtime: Runtime, limit: int = 200, prompts: Sequence[Prompt] | None = None,
    judge: Judge | None = None, max_new_tokens: int = ANSWER_TOKENS, temperature: float = 0.0,
) -> RunComparison:  # fmt: skip
    """Both runs answer prompts, by default Hamlet's, a judge (the checker) compares them, and the second's win rate is
    shown."""
    from understudy.evaluate.compare import by_checker, duel

    prompts = prompts or comparison_prompts(None, limit, needs_truth=True)
    found = duel(first, second, prompts, judge or by_checker, runtime, temperature, max_new_tokens)
    show_comparison(found, first, second, len(prompts))
    return found


def comparison_prompts(data: str | None, limit: int, needs_truth: bool) -> list[Prompt]:
    """The first prompts of a folder's validation split or of a whole file; without either, Hamlet's."""
    from itertools import islice

    from understudy.data.chat.prompt_formats import read_prompts
    from understudy.data.chat.prompts import open_prompts, prompt_of
    from understudy.evaluate.compare import has_truth
    from understudy.hamlet.write import write_lines

    if data is None:
        found = [prompt_of(json.loads(line)) for line in write_lines("prompts", 0, "val", limit)]
    elif Path(data).is_dir():
        found = list(islice(open_prompts(Path(data), "val"), limit))
    else:
        records = (row.record for row in read_prompts(Path(data)))
        found = list(islice((prompt_of(record) for record in records if record is not None), limit))
    if not found:
        raise ValueError(f"{data} holds no prompt that can be answered")
    if needs_truth and (without := sum(not has_truth(prompt) for prompt in found)):
        raise ValueError(
            f"{without:,} of the {len(found):,} prompts in {data} have neither a check nor an answer for the checker; choose "
            "--by person, or --by reward with --reward-model RUN"
        )
    return found


def show_comparison(found: RunComparison, first: Run, second: Run, asked: int) -> None:
    from understudy.evaluate.compare import outcome

    groups = {"all": found.rows, **found.categories()}
    rows = []
    for name, own in groups.items():
        of = outcome(own)
        rows.append([
            name or "–", f"{of['n']:,}", f"{of['win_rate']:.1%}", f"{of['low']:.1%} to {of['high']:.1%}",
            " / ".join(f"{of[count]:,}" for count in ("wins", "ties", "losses")), f"{of['p_value']:.3g}",
        ])  # fmt: skip
    heads = ("category", "n", "win rate", "95% interval", "wins / ties / losses", "p")
    names = [f"{run.path.name} (step {run.step:,})" for run in (second, first)]
    show_table(f"{names[0]} against {names[1]}", heads, rows)
    if found.too_long:
        print(f"{found.too_long:,} prompts leave no room for an answer and were left out", file=sys.stderr)
    if left := asked - found.too_long - len(found.rows):
        print(f"{left:,} prompts were not judged", file=sys.stderr)
