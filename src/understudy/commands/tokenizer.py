"""The verb `tokenizer`: train, inspect and compare tokenizers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.commands import Arguments, show_result
from understudy.console import show_table

if TYPE_CHECKING:
    from understudy.tokenizer import Tokenizer

SHOWN_TOKENS = 200


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    train = actions.add_parser("train", help="train a byte-level BPE, or collect the characters")
    train.add_argument("sources", nargs="+", metavar="FILE", help="text to learn from: files, folders, globs")
    train.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="where to write it, such as tokenizer.json"
    )
    train.add_argument("--kind", choices=("bpe", "char"), default="bpe", help="(default: bpe)")
    train.add_argument("--vocab-size", type=int, metavar="N", help="of bpe (default: 4096, or what the text gives)")
    train.add_argument("--pattern", choices=("gpt2", "gpt4"), default="gpt2", help="of bpe (default: gpt2)")
    train.add_argument("--field", default="text", metavar="NAME", help="field of records with the text (default: text)")
    inspect = actions.add_parser("inspect", help="show how a text is split")
    inspect.add_argument("tokenizer", metavar="TOKENIZER", help="a tokenizer file or folder, a run, or gpt2")
    inspect.add_argument("text", metavar="TEXT", help="the text; - reads standard input")
    compare = actions.add_parser("compare", help="bytes per token of several tokenizers on a text")
    compare.add_argument("tokenizers", nargs="+", metavar="TOKENIZER", help="tokenizer files or folders, runs, or gpt2")
    compare.add_argument("--text", required=True, type=Path, metavar="FILE", help="the text to measure on")
    for sub in (train, inspect, compare):
        sub.add_argument("--json", action="store_true", help="print one JSON document")


def tokenizer(arguments: Arguments) -> None:
    {"train": _train, "inspect": _inspect, "compare": _compare}[arguments.action](arguments)


def _train(arguments: Arguments) -> None:
    from understudy.data.find import find_files
    from understudy.data.text.readers.base import ReadOptions
    from understudy.data.text.reading import TEXT_FILES, read_file
    from understudy.tokenizer import train_tokenizer

    files = find_files(arguments.sources, TEXT_FILES).files
    options = ReadOptions(arguments.field)
    texts = (piece.text for path in files for piece in read_file(path, options, len(files) > 1) if piece.note is None)
    trained = train_tokenizer(arguments.kind, texts, arguments.vocab_size, arguments.pattern)
    if not arguments.out.parent.is_dir():
        raise ValueError(f"the folder {arguments.out.parent} of --out does not exist; make it first")
    trained.save(arguments.out)
    facts = {name: getattr(trained, name) for name in ("kind", "vocab_size", "sha256")}
    words = f"{arguments.out}: {trained.kind} of {trained.vocab_size:,} tokens"
    show_result(arguments, {"path": str(arguments.out), **facts}, lambda: print(words, file=sys.stderr))


def _inspect(arguments: Arguments) -> None:
    named = _named(arguments.tokenizer)
    ids = named.encode(sys.stdin.read() if arguments.text == "-" else arguments.text)
    pieces = [named.token_bytes(id) for id in ids]
    rows = [[str(i), str(id), _quoted(piece), piece.hex(" ")] for i, (id, piece) in enumerate(zip(ids, pieces))]
    title = f"{len(rows):,} tokens" + (f", the first {SHOWN_TOKENS} shown" if len(rows) > SHOWN_TOKENS else "")
    show_result(
        arguments, [{"id": id, "text": _quoted(piece)} for id, piece in zip(ids, pieces)],
        lambda: show_table(title, ("", "id", "token", "bytes"), rows[:SHOWN_TOKENS], stderr=False),
    )  # fmt: skip


def _quoted(piece: bytes) -> str:
    """In quotes, so that blanks show: 'text', or b'bytes' where they are not whole characters."""
    try:
        return repr(piece.decode())
    except UnicodeDecodeError:
        return repr(piece)


def _compare(arguments: Arguments) -> None:
    try:
        text = arguments.text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{arguments.text} is not UTF-8 text (byte {error.start})") from None
    if not text:
        raise ValueError(f"{arguments.text} is empty; give some text to compare tokenizers on")
    n_bytes, results = len(text.encode()), []
    for name in arguments.tokenizers:
        named = _named(name)
        try:
            n_tokens = len(named.encode(text))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        results.append({
            "name": name, "kind": named.kind, "vocab_size": named.vocab_size, "n_bytes": n_bytes, "n_tokens": n_tokens,
            "bytes_per_token": n_bytes / n_tokens,
        })  # fmt: skip
    rows = [
        [r["name"], r["kind"], f"{r['vocab_size']:,}", f"{r['n_tokens']:,}", f"{r['bytes_per_token']:.3f}"]
        for r in results
    ]
    heads = ("tokenizer", "kind", "vocabulary", "tokens", "bytes per token")
    show_result(arguments, results, lambda: show_table(f"{n_bytes:,} bytes of text", heads, rows, stderr=False))


def _named(name: str) -> Tokenizer:
    """A tokenizer by file or folder, by run, or GPT-2's own."""
    from understudy.data.fetch.download import fetch_gpt2_vocabulary
    from understudy.data.layout import CACHE
    from understudy.run import find_run
    from understudy.tokenizer import gpt2_tokenizer, load_tokenizer

    if Path(name).exists():
        return load_tokenizer(Path(name))
    if name == "gpt2":
        return gpt2_tokenizer(fetch_gpt2_vocabulary(CACHE))
    return load_tokenizer(find_run(name).path / "tokenizer.json")
