"""The rows and tables behind `tokenizer compare` and `tokenizer inspect`."""

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from understudy.commands.tokenizer import compare, inspect, render_comparison, render_pieces
from understudy.tokenizer import train_tokenizer

PROSE = "the [bold] bear\nthe [bold] bear é é" * 3


def printed(table: Table) -> str:
    output = StringIO()
    Console(file=output, width=120).print(table)
    return output.getvalue()


def test_compare_counts_bytes_and_tokens() -> None:
    tokenizers = {"[c]": train_tokenizer("char", [PROSE]), "bpe": train_tokenizer("bpe", [PROSE], 268)}
    rows = compare(tokenizers, "é bear")
    assert [(row.name, row.kind, row.n_bytes) for row in rows] == [("[c]", "char", 7), ("bpe", "bpe", 7)]
    assert rows[0].n_tokens == 6
    assert rows[1].n_tokens == len(tokenizers["bpe"].encode("é bear")) < 6
    assert rows[0].bytes_per_token == 7 / 6
    table = printed(render_comparison(rows))
    assert "[c]" in table
    assert "1.167" in table
    assert "268" in table


def test_compare_refuses_what_says_nothing() -> None:
    with pytest.raises(ValueError, match="the text is empty"):
        compare({"char": train_tokenizer("char", [PROSE])}, "")
    with pytest.raises(ValueError, match=r"^char: the character 'Z'"):
        compare({"char": train_tokenizer("char", [PROSE])}, "Z")


def test_inspect_gives_the_pieces_of_a_text() -> None:
    tokenizer = train_tokenizer("bpe", [PROSE], 268)
    text = "the [bold] ö\n"
    pieces = inspect(tokenizer, text)
    assert [piece.id for piece in pieces] == tokenizer.encode(text)
    assert b"".join(piece.bytes for piece in pieces).decode() == text
    assert [piece.shown for piece in pieces][-3:] == [r"b'\xc3'", r"b'\xb6'", r"'\n'"]
    table = printed(render_pieces(pieces))
    assert "bold" in table  # and was not taken for markup
    assert "c3" in table
    assert "shown" not in table
    assert f"{len(pieces)} tokens, the first 3 shown" in printed(render_pieces(pieces, limit=3))
