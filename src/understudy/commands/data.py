"""The verb `prepare`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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


def prepare_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources", nargs="*", metavar="SOURCE",
        help="a named source, hf:owner/name[:config][#field], files, folders, globs; conversations with @WEIGHT where "
        "an epoch is to show it more or less than once",
    )  # fmt: skip
    add("--preset", metavar="NAME", help="prepare the data of this preset: its source, tokenizer and folder")
    add(
        "--kind", choices=("text", "stories", "conversations", "preferences", "prompts"),
        help="text, or for the later stages messages; stories are hamlet's text (default: text)",
    )  # fmt: skip
    add("--out", type=Path, metavar="PATH", help="the folder to make (default: data/NAME)")
    add("--format", metavar="NAME", help="of messages: how the records are written (default: by their fields)")
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
        help="a file or folder that is the validation text; may be given several times (default: a share of the sources)",
    )  # fmt: skip
    add("--val-fraction", type=float, metavar="X", help="share of the text kept for validation")
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
    add("--workers", type=int, metavar="N", help="threads that encode, and processes that clean (default: one a core)")
    add("--force", action="store_true", help="replace existing data")
    shared_arguments(parser, "--json", help="print the manifest")


def prepare(arguments: Arguments) -> None:
    from understudy.config.load import load_config

    config = load_config(arguments.preset) if arguments.preset else None
    if config is not None:
        arguments.sources = arguments.sources or ([config.data.source] if config.data.source else [])
        arguments.out = arguments.out or Path(config.data.path)
        arguments.kind = arguments.kind or config.info.data
    if arguments.sources == ["identity"]:
        arguments.kind = arguments.kind or "conversations"
    if not arguments.sources:
        raise ValueError("no source is given: `understudy prepare SOURCE`, or --preset NAME")
    if arguments.kind in ("conversations", "preferences", "prompts"):
        _prepare_conversations(arguments)
    else:
        _prepare_text(arguments, config)


def _prepare_conversations(arguments: Arguments) -> None:
    from understudy.data.chat.prepare import prepare_conversations
    from understudy.data.progress import preparation_bars

    _refuse(
        arguments,
        ("tokenizer", "vocab_size", "pattern", "field", "template", "separator", "val", "workers", *OF_CLEANING),
    )
    sampling = _sampling(arguments)
    with preparation_bars() as report:
        summary = prepare_conversations(
            arguments.sources, arguments.out, arguments.kind, arguments.format, arguments.val_fraction,
            arguments.limit, arguments.seed, arguments.force, report=report, sampling=sampling,
            identity=_identity(arguments),
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

    _refuse(arguments, ("format", "from", *OF_SAMPLING, *OF_IDENTITY))
    if arguments.kind == "stories" and arguments.sources != ["hamlet"]:
        raise ValueError(
            f"stories are hamlet's, not of {', '.join(arguments.sources)}: leave --kind out to prepare text"
        )
    tokenizer, vocab_size = arguments.tokenizer, arguments.vocab_size
    if config is not None:
        tokenizer = tokenizer or config.tokenizer.kind
        vocab_size = vocab_size or (config.tokenizer.vocab_size if tokenizer == "bpe" else None)
    filters, dedup, tasks = (_names(arguments, name) for name in OF_CLEANING)
    benchmarks = find_benchmarks(tasks)
    with preparation_bars() as report:
        summary = prepare_data(
            arguments.sources, arguments.out, tokenizer or "bpe", vocab_size, arguments.pattern, arguments.field,
            arguments.val_fraction, arguments.limit, arguments.seed, arguments.workers, arguments.force, report=report,
            separator=arguments.separator, template=arguments.template, validation=arguments.val or (),
            filters=filters, dedup=dedup, decontaminate=benchmarks,
        )  # fmt: skip
    page = cleaning_page(summary.folder)

    def show() -> None:
        print(summary, file=sys.stderr)
        if summary.manifest.quality is not None:
            print_quality(summary.manifest.quality)
        if page is not None:
            print(f"  what was dropped, with examples: {page}", file=sys.stderr)

    show_result(arguments, dataclasses.asdict(summary.manifest), show)


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
