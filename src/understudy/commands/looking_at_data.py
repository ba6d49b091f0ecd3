"""The verb `data`: a look at text."""

from __future__ import annotations

import argparse
from pathlib import Path

from understudy.commands import Arguments, check_least, show_result
from understudy.console import print_line


def data_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    look = actions.add_parser("look", help="sizes, lengths, languages, copies and samples of text, as a page")
    look.add_argument("path", metavar="PATH", help="a file, folder or glob of text, or a folder that prepare made")
    look.add_argument("--out", type=Path, metavar="FILE", help="the page (default: data-look.html)")
    look.add_argument("--field", metavar="NAME", help="field of records with the text (default: text)")
    look.add_argument("--template", metavar="TEXT", help="text of a record made of several fields, in place of --field")
    look.add_argument("--separator", metavar="TEXT", help="ends a document within files of plain text")
    look.add_argument(
        "--tokenizer", metavar="FILE",
        help="a tokenizer.json that counts tokens (default: the folder's own, or one trained on the text)",
    )  # fmt: skip
    look.add_argument("--limit", type=int, metavar="N", help="the most documents to look at")
    look.add_argument("--json", action="store_true", help="print one JSON document")


def data(arguments: Arguments) -> None:
    from understudy.data.progress import preparation_bars
    from understudy.data.quality.look import look_at_data
    from understudy.report.cleaning import look_page, print_look
    from understudy.report.page import page_path

    check_least(1, limit=arguments.limit)
    out = page_path(arguments.out or Path("data-look.html"), "data-look.html")
    with preparation_bars() as report:
        look = look_at_data(
            arguments.path, report, arguments.field, arguments.template, arguments.separator, arguments.tokenizer,
            arguments.limit,
        )  # fmt: skip
    page = look_page(look, out)
    show_result(arguments, look.as_dict() | {"page": str(page)}, lambda: print_look(look))
    print_line(f"the page is {page}")
