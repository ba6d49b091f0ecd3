"""The verb `prepare`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.commands import Arguments, shared_arguments, show_result

if TYPE_CHECKING:
    from understudy.annotators import Sampling
    from understudy.config.run import RunConfig
    from understudy.identity.settings import IdentitySettings


OF_SAMPLING = ("answers", "temperature", "corrected", "ties")
"""Options that only mean something with --from."""
OF_CLEANING = ("filter", "dedup", "decontaminate")
"""Options that clean text."""
OF_IDENTITY = ("name", "maker", "facts", "phrases")
"""Options of the source identity."""
ALWAYS = ("json", "command", "command_name", "parser", "overrides")
"""Attributes of the arguments of every command that prints JSON."""
OF_TASKS = ("tasks", "task", "executor", "executor_option")
"""Options of text that several processes or machines prepare."""


def prepare_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources", nargs="*", metavar="SOURCE",
        help="a named source, hf:owner/name[:config][#field], files, folders, globs; conversations with @WEIGHT where "
        "an epoch is to show it more or less than once",
    )  # fmt: skip
    add("--list", action="store_true", help="print the named sources with licence and size, of --kind or of all kinds")
    add("--options", type=Path, metavar="FILE", help="YAML with options of this command; those given here come first")
    add("--preset", metavar="NAME", help="prepare the data of this preset: its source, tokenizer and folder")
    add(
        "--kind", choices=("text", "stories", "conversations", "preferences", "judgements", "prompts"),
        help="text, or for the later stages messages; stories are hamlet's text (default: text)",
    )  # fmt: skip
    add("--out", metavar="PATH", help="the folder to make, of text also s3://, gs:// or hf:// (default: data/NAME)")
    add("--format", metavar="NAME", help="of messages: how the records are written (default: by their fields)")
    add(
        "--columns", metavar="NAMES",
        help="of messages: fields or columns of the files by the names of a format, as question=Frage,answer=Antwort; by "
        "numbers from 1 for CSV without a header",
    )  # fmt: skip
    add(
        "--max-dropped", type=float, metavar="X",
        help="of messages: the largest share of records that may be dropped because they cannot be used (default: 0.5)",
    )  # fmt: skip
    add(
        "--from", metavar="RUN",
        help="of hamlet's preferences: sample the answers from this run, compared by simulated annotators",
    )  # fmt: skip
    add("--answers", type=int, metavar="K", help="with --from: answers to each prompt (default: 4)")
    add("--temperature", type=float, metavar="X", help="with --from: of the answers (default: 1.0)")
    add("--corrected", action="store_true", default=None, help="with --from: compare the right answer with them too")
    add("--ties", action="store_true", default=None, help="with --from: keep pairs of equally good answers, as ties")
    add("--name", metavar="TEXT", help="of identity: the assistant's name")
    add("--maker", metavar="TEXT", help="of identity: who made the assistant")
    add("--facts", type=Path, metavar="FILE", help="of identity: YAML with facts, their questions and wrong statements")
    add("--phrases", type=Path, metavar="FILE", help="of identity: phrases of another language than English")
    add("--tokenizer", metavar="KIND", help="char, bpe (trained here), gpt2, or the path of a tokenizer (default: bpe)")
    add("--vocab-size", type=int, metavar="N", help="of bpe (default: 4096, or what the text gives)")
    add("--pattern", choices=("gpt2", "gpt4"), help="of bpe: how text is split before merging (default: gpt2)")
    add(
        "--field", metavar="NAME",
        help="field of records with the text, such as body or translation.en (default: text)",
    )  # fmt: skip
    add(
        "--template", metavar="TEXT",
        help="text of a record made of several fields, such as '{question}\\n{answer}', in place of --field",
    )  # fmt: skip
    add("--separator", metavar="TEXT", help="ends a document within files of plain text, such as '<|endoftext|>'")
    add(
        "--val", action="append", metavar="FILE",
        help="a file or folder that is for validation; may be given several times (default: a share of the sources, or "
        "their own validation split)",
    )  # fmt: skip
    add("--val-fraction", type=float, metavar="X", help="share of the sources kept for validation")
    add(
        "--limit", type=int, metavar="N",
        help="the most documents of each source; of generated ones, which have no end, the number to train on (with "
        "--from: the number of prompts; default: 2000)",
    )  # fmt: skip
    add(
        "--filter", metavar="NAMES",
        help="of text: drop documents by these filters: gopher, c4, fineweb, language:CODE, pii (replaces addresses)",
    )  # fmt: skip
    add("--dedup", metavar="NAMES", help="of text: drop copies and repeated sentences: exact, minhash, sentence")
    add(
        "--decontaminate", metavar="NAMES",
        help="of text: drop documents with questions of these tasks (hellaswag,gsm8k) or files",
    )  # fmt: skip
    add("--seed", type=int, metavar="N", help="of generated sources (default: 0)")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="threads that encode, processes that clean, or tasks at once (default: one a core)",
    )
    add("--tasks", type=int, metavar="N", help="of text: divide the work into N tasks, run here or by --executor")
    add("--task", type=int, metavar="I", help="with --tasks: do task I alone, from 0, as one of many machines")
    add("--merge", metavar="PATH", help="put the finished tasks of this folder together; takes no SOURCE")
    add("--executor", choices=("local", "slurm", "ray"), help="with --tasks: what runs them (default: local)")
    add(
        "--executor-option", action="append", metavar="NAME=VALUE",
        help="of datatrove's executor, such as partition=cpu and time=4:00:00 of slurm; may be given several times",
    )  # fmt: skip
    add("--force", action="store_true", help="replace existing data")
    shared_arguments(parser, "--json", help="print the manifest")


def prepare(arguments: Arguments) -> None:
    from understudy.config.load import load_config

    if arguments.list:
        _list_sources(arguments)
        return
    if arguments.merge is not None:
        _merge(arguments)
        return
    if arguments.options is not None:
        from understudy.commands.options_file import fill_from_file

        fill_from_file(arguments, arguments.options)
    config = load_config(arguments.preset) if arguments.preset else None
    if config is not None:
        arguments.sources = arguments.sources or ([config.data.source] if config.data.source else [])
        arguments.out = arguments.out or config.data.path
        arguments.kind = arguments.kind or config.info.data
    if arguments.sources == ["identity"]:
        arguments.kind = arguments.kind or "conversations"
    if not arguments.sources:
        raise ValueError("no source is given: `understudy prepare SOURCE`, or --preset NAME")
    if arguments.kind in ("conversations", "preferences", "judgements", "prompts"):
        _prepare_conversations(arguments)
    else:
        _prepare_text(arguments, config)


def _list_sources(arguments: Arguments) -> None:
    """Print the named sources."""
    from understudy.console import bytes_text, count_text
    from understudy.data.sources import list_sources

    _refuse_others(arguments, "list", "which prepares nothing", "kind")
    rows = list_sources("text" if arguments.kind == "stories" else arguments.kind)

    def show() -> None:
        cells = [("source", "kind", "licence", "size", "rows", "contents")]
        for row in rows:
            size, count = (row[name] for name in ("bytes", "rows"))
            texts = (bytes_text(size) if size else "-", count_text(count) if count else "-")
            cells.append((row["name"], row["kind"], row["licence"], *texts, row["what"]))
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
        for line in cells:
            print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]]))

    show_result(arguments, rows, show)


def _prepare_conversations(arguments: Arguments) -> None:
    from understudy.data.chat.prepare import prepare_conversations
    from understudy.data.progress import preparation_bars

    _refuse(
        arguments,
        ("tokenizer", "vocab_size", "pattern", "field", "template", "separator", "workers", *OF_TASKS, *OF_CLEANING),
    )
    sampling = _sampling(arguments)
    with preparation_bars() as report:
        summary = prepare_conversations(
            arguments.sources, arguments.out, arguments.kind, arguments.format, arguments.val_fraction,
            arguments.limit, arguments.seed, arguments.force, report=report, sampling=sampling,
            identity=_identity(arguments), validation=arguments.val or (), columns=arguments.columns,
            max_dropped=arguments.max_dropped,
        )  # fmt: skip
    show_result(arguments, summary.manifest, lambda: print(summary, file=sys.stderr))


def _sampling(arguments: Arguments) -> Sampling | None:
    given = {name: getattr(arguments, name) for name in OF_SAMPLING}
    given = {name: value for name, value in given.items() if value is not None}
    run = getattr(arguments, "from")  # a keyword of Python
    if run is None and given:
        raise ValueError(f"--{next(iter(given))} does nothing without --from RUN: leave it out, or name a run")
    if run is None:
        return None
    from understudy.annotators import Sampling

    return Sampling(run, **given)


def _identity(arguments: Arguments) -> IdentitySettings | None:
    given = [name for name in OF_IDENTITY if getattr(arguments, name) is not None]
    if not given:
        return None
    if missing := [name for name in ("name", "maker") if name not in given]:
        raise ValueError(f"--{given[0]} needs --{missing[0]} too: an identity is a name and a maker")
    from understudy.identity.settings import read_identity

    return read_identity(arguments.name, arguments.maker, arguments.facts, arguments.phrases)


def _refuse(arguments: Arguments, names: tuple[str, ...]) -> None:
    """Refuse options that this kind of data would ignore."""
    for name in names:
        if getattr(arguments, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} does nothing with --kind {arguments.kind or 'text'}: leave it out"
            )


def _prepare_text(arguments: Arguments, config: RunConfig | None) -> None:
    from understudy.data.progress import preparation_bars
    from understudy.data.text.prepare import prepare as prepare_data
    from understudy.evaluation.questions import find_benchmarks
    from understudy.report.cleaning import cleaning_page, print_quality

    _refuse(arguments, ("format", "columns", "max_dropped", "from", *OF_SAMPLING, *OF_IDENTITY))
    if arguments.kind == "stories" and arguments.sources != ["hamlet"]:
        raise ValueError(
            f"stories are hamlet's, not of {', '.join(arguments.sources)}: leave --kind out to prepare text"
        )
    tokenizer, vocab_size = arguments.tokenizer, arguments.vocab_size
    if config is not None:
        tokenizer = tokenizer or config.tokenizer.kind
        vocab_size = vocab_size or (config.tokenizer.vocab_size if tokenizer == "bpe" else None)
    settings = {
        "tokenizer": tokenizer or "bpe", "vocab_size": vocab_size, "validation": arguments.val or (),
        **{name: getattr(arguments, name) for name in (
            "pattern", "field", "val_fraction", "limit", "seed", "force", "separator", "template", "workers",
        )},
    }  # fmt: skip
    filters, dedup, tasks = (_names(arguments, name) for name in OF_CLEANING)
    settings |= {"filters": filters, "dedup": dedup, "decontaminate": find_benchmarks(tasks)}
    for name in OF_TASKS[1:]:
        if getattr(arguments, name) is not None and arguments.tasks is None:
            raise ValueError(f"--{name.replace('_', '-')} does nothing without --tasks N: leave it out, or give it too")
    if arguments.tasks is not None and arguments.out is None:
        raise ValueError("--tasks needs --out: the folder that all tasks write to")
    with preparation_bars() as report:
        if arguments.tasks is None:
            summary = prepare_data(arguments.sources, arguments.out, report=report, **settings)
        elif arguments.task is None:
            _prepare_in_tasks(arguments, settings | {"report": report})
            return
        else:
            _prepare_task(arguments, settings | {"report": report})
            return
    page = cleaning_page(summary.folder)

    def show() -> None:
        print(summary, file=sys.stderr)
        if summary.manifest.quality is not None:
            print_quality(summary.manifest.quality)
        if page is not None:
            print(f"  what was dropped, with examples: {page}", file=sys.stderr)

    show_result(arguments, dataclasses.asdict(summary.manifest), show)


def _prepare_task(arguments: Arguments, settings: dict[str, Any]) -> None:
    from understudy.data.text.prepare import prepare_task

    for name in ("executor", "executor_option"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} runs all tasks, and --task is one of them: leave one out")
    done = prepare_task(arguments.sources, arguments.out, arguments.tasks, arguments.task, **settings)
    show_result(
        arguments, dataclasses.asdict(done) | {"folder": str(done.folder)}, lambda: print(done, file=sys.stderr)
    )


def _prepare_in_tasks(arguments: Arguments, settings: dict[str, Any]) -> None:
    from understudy.data.text.cluster import SubmittedTasks, prepare_in_tasks

    pairs = [option.partition("=") for option in arguments.executor_option or ()]
    if bad := next((name for name, equals, _ in pairs if not equals), None):
        raise ValueError(f"--executor-option {bad} has no value: write {bad}=VALUE")
    options = {name: value for name, _, value in pairs}
    executor = arguments.executor or "local"
    done = prepare_in_tasks(
        arguments.sources, arguments.out, arguments.tasks, executor=executor, options=options, **settings
    )
    if isinstance(done, SubmittedTasks):
        document = dataclasses.asdict(done) | {"folder": str(done.folder), "logs": str(done.logs)}
    else:
        document = dataclasses.asdict(done.manifest)
    show_result(arguments, document, lambda: print(done, file=sys.stderr))


def _merge(arguments: Arguments) -> None:
    from understudy.data.progress import preparation_bars
    from understudy.data.text.prepare import merge

    _refuse_others(arguments, "merge", "which takes all from the folder")
    with preparation_bars() as report:
        summary = merge(arguments.merge, report=report)
    show_result(arguments, dataclasses.asdict(summary.manifest), lambda: print(summary, file=sys.stderr))


def _refuse_others(arguments: Arguments, option: str, because: str, *allowed: str) -> None:
    """Refuse what was given beside an option that uses nothing but the ``allowed`` ones."""
    given = (name for name, value in vars(arguments).items() if value not in (None, False, []))
    if extra := next((name for name in given if name not in (option, *allowed, *ALWAYS)), None):
        named = arguments.sources[0] if extra == "sources" else f"--{extra.replace('_', '-')}"
        raise ValueError(f"{named} does nothing with --{option}, {because}: leave {named} out")


def _names(arguments: Arguments, option: str) -> list[str]:
    """The names of a list with commas.

    Raises:
        ValueError: it has none.
    """
    given = getattr(arguments, option)
    names = [name.strip() for name in (given or "").split(",") if name.strip()]
    if given is not None and not names:
        raise ValueError(f"--{option} names nothing: write names with commas between them, or leave it out")
    return names
