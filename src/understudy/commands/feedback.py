"""Commands on feedback: `feedback stats | export | import`, and `improve`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.commands import Arguments, check_least, shared_arguments, show_result
from understudy.config.stages import improving_stages
from understudy.console import final_table, interval_text, print_json, show_table

if TYPE_CHECKING:
    from understudy.feedback.store import FeedbackStore

EXPORTED = ("sft", "preferences", "judgements", "prompts", "store")
IMPORTED = ("sft", "preferences", "store")


def feedback_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="WHAT", required=True)
    stats = verbs.add_parser("stats", help="count judgements, compare runs, measure the agreement of annotators")
    stats.add_argument("--json", action="store_true", help="print one JSON document")
    export = verbs.add_parser("export", help="write judgements as data of the training stages")
    export.add_argument(
        "--kind", required=True, choices=EXPORTED,
        help="sft: corrections as conversations; preferences: pairs of answers (a thumb or rating is used only if two "
        "answers to the same prompt differ in it); judgements: each thumb and rating of an answer, for kto; prompts; store: "
        "every record, for another store",
    )  # fmt: skip
    export.add_argument("--out", required=True, type=Path, metavar="FILE", help="a new .jsonl file")
    take = verbs.add_parser("import", help="add judgements from files, without duplicates")
    take.add_argument("files", nargs="+", type=Path, metavar="FILE", help="json, jsonl (each also gzipped) or parquet")
    take.add_argument(
        "--kind", required=True, choices=IMPORTED,
        help="sft: conversations whose last answer is a correction; preferences; store: another store's export",
    )  # fmt: skip
    for verb, run in ((stats, feedback_stats), (export, feedback_export), (take, feedback_import)):
        _database_argument(verb)
        verb.set_defaults(run_feedback=run)


def _database_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--db", metavar="URL", help="sqlite:///PATH or postgresql://… (default: sqlite:///runs/feedback.db)"
    )


def feedback(arguments: Arguments) -> None:
    arguments.run_feedback(arguments)


def feedback_stats(arguments: Arguments) -> None:
    from understudy.feedback.statistics import statistics

    with _store(arguments.db, create=False) as store:
        stats = statistics(store)
    if arguments.json:
        print_json(stats)
        return
    if stats["runs"]:
        show_table("judged runs", ("run", "judgements", "thumbs up", "mean rating", "corrections"), [
            [run, f"{entry['judgements']:,}", _estimate(entry["thumbs_up"]), _estimate(entry["rating"], ".2f"),
             f"{entry['corrections']:,}"]
            for run, entry in stats["runs"].items()
        ])  # fmt: skip
    if stats["win_rates"]:
        show_table("runs compared", ("run", "against", "comparisons", "win rate"), [
            [entry["second"], entry["first"], f"{entry['n']:,}", _estimate(entry)] for entry in stats["win_rates"]
        ])  # fmt: skip
    if stats["annotators"]:
        show_table("annotators", ("annotator", "judgements", "agrees with others"), [
            [name, f"{entry['judgements']:,}", _estimate(entry["agreement"])] for name, entry in stats["annotators"].items()
        ])  # fmt: skip
    alphas = {kind: "–" if alpha is None else f"{alpha:.3f}" for kind, alpha in stats["alpha"].items()}
    final_table(
        {name: f"{stats[name]:,}" for name in ("conversations", "answers", "judgements", "replaced", "withdrawn")}
        | {f"{kind}s": f"{n:,}" for kind, n in stats["kinds"].items()}
        | {"preferences in an export": f"{stats['preferences']:,}"}
        | {"judgements in an export": f"{stats['single_judgements']:,}"}
        | {"Krippendorff's alpha": ", ".join(f"{kind} {alpha}" for kind, alpha in alphas.items())}
    )
    _say_left_out(stats["left_out"])


def feedback_export(arguments: Arguments) -> None:
    from understudy.feedback.exchange import EXPORTS
    from understudy.files import check_new_lines_file, write_text

    out = arguments.out
    check_new_lines_file(out, "--out")
    with _store(arguments.db, create=False) as store:
        exported = EXPORTS[arguments.kind](store)
    for phrase in exported.summary(arguments.kind):
        print(phrase, file=sys.stderr)
    _say_left_out(exported.left_out)
    if not exported.lines:
        raise ValueError(
            f"the feedback gives no line of the kind {arguments.kind}, so {out} was not written; collect more, or export "
            "another kind"
        )
    write_text(out, exported.text())
    print(f"wrote {len(exported.lines):,} lines to {out}", file=sys.stderr)


def feedback_import(arguments: Arguments) -> None:
    from understudy.feedback.exchange import import_file

    with _store(arguments.db) as store:
        for path in arguments.files:
            imported = import_file(store, path, arguments.kind)
            _say_left_out(imported.left_out)
            print(f"{path}: added {imported.answers:,} answers and {imported.judgements:,} judgements", file=sys.stderr)


def _store(url: str | None, create: bool = True) -> FeedbackStore:
    from understudy.feedback.store import FeedbackStore, default_url

    return FeedbackStore(url or default_url(), create)


def _say_left_out(left_out: dict[str, int]) -> None:
    for reason, n in left_out.items():
        print(f"left out: {n:,}, {reason}", file=sys.stderr)


def _estimate(entry: dict[str, Any] | None, number_format: str = ".1%") -> str:
    if entry is None:
        return "–"
    return f"{interval_text(entry['value'], entry['low'], entry['high'], number_format)} of {entry['n']:,}"


# ---- improve --------------------------------------------------------------------------------------------------------


def improve_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("old", metavar="RUN", help="the run that people judged: a name under runs/, or a path")
    _database_argument(parser)
    add(
        "--method", choices=improving_stages(),
        help="learn from corrections alone (sft), from preferences directly (dpo), from thumbs and ratings (kto), or through a "
        "reward model (default: sft with 50 corrections or more, else dpo with 50 preferences, else kto)",
    )  # fmt: skip
    add("--run", metavar="NAME", help="folder of the new run under runs/ (default: RUN-improved)")
    add("--resume", action="store_true", help="continue an interrupted improvement")
    add("--data", metavar="PATH", help="prompts to compare the runs on (default: Hamlet's, or held out)")
    add("--limit", type=int, default=200, metavar="N", help="the first N prompts (default: 200)")
    add("--max-new-tokens", type=int, default=120, metavar="N", help="length limit of a compared answer (default: 120)")
    add("--temperature", type=float, metavar="X", help="of compared answers (default: that of most judged ones)")
    add("--judge", metavar="RUN", help="a reward model that compares the runs where no answer is known")
    add("--seed", type=int, default=0, metavar="N", help="of training")
    shared_arguments(parser, "--device", "--json", help="print the content of improvement.json")


def improve(arguments: Arguments) -> None:
    from understudy.feedback.improve import ImproveRequest
    from understudy.feedback.improve import improve as run_improvement
    from understudy.feedback.store import default_url

    check_least(1, limit=arguments.limit, max_new_tokens=arguments.max_new_tokens)
    check_least(0, seed=arguments.seed)
    request = ImproveRequest(
        arguments.old, arguments.db or default_url(), arguments.run or f"{arguments.old.rstrip('/')}-improved",
        arguments.method, arguments.data, arguments.judge, arguments.limit, arguments.max_new_tokens,
        arguments.temperature, arguments.seed, arguments.device, arguments.overrides,
    )  # fmt: skip
    record = run_improvement(request, arguments.resume)
    entry, feedback = record["comparison"], record["feedback"]
    show_result(arguments, record, lambda: final_table({
        "run": str(request.part().path),
        "corrections": f"{feedback['corrections']:,}",
        "preferences": f"{feedback['pairs']:,} on {feedback['prompts_compared']:,} prompts",
        "thumbs and ratings": f"{feedback['single_judgements']:,}",
        "judged by": record["judged_by"],
        "win rate": f"{interval_text(entry['win_rate'], entry['low'], entry['high'], '.1%')} of {entry['n']:,}",
        "next": f"understudy serve {request.name}",
    }))  # fmt: skip
