"""`tokenizer compare` and `tokenizer inspect`."""

import json
from pathlib import Path

import pytest

from understudy.cli import main
from understudy.tokenizer import train_tokenizer

PROSE = "the [bold] bear\nthe [bold] bear é é" * 3


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two tokenizers and a text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    train_tokenizer("char", [PROSE]).save(tmp_path / "[c].json")
    train_tokenizer("bpe", [PROSE], 268).save(tmp_path / "bpe.json")
    (tmp_path / "t.txt").write_text("é bear")
    return tmp_path


def test_compare_counts_bytes_and_tokens(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tokenizer", "compare", "[c].json", "bpe.json", "--text", "t.txt"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["kind"], row["n_bytes"]) for row in rows] == [
        ("[c].json", "char", 7), ("bpe.json", "bpe", 7)
    ]  # fmt: skip
    assert rows[0]["n_tokens"] == 6 and rows[0]["bytes_per_token"] == 7 / 6
    assert rows[1]["n_tokens"] == len(train_tokenizer("bpe", [PROSE], 268).encode("é bear")) < 6
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "[c].json" in table and "1.167" in table and "268" in table


def test_compare_refuses_what_says_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, message in (("", "t.txt is empty"), ("Z", "[c].json: the character 'Z'")):
        (files / "t.txt").write_text(text)
        assert main(["tokenizer", "compare", "[c].json", "--text", "t.txt"]) == 2
        assert message in capsys.readouterr().err


def test_inspect_gives_the_pieces_of_a_text(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "the [bold] ö\n"
    assert main(["tokenizer", "inspect", "bpe.json", text, "--json"]) == 0
    pieces = json.loads(capsys.readouterr().out)
    assert [piece["id"] for piece in pieces] == train_tokenizer("bpe", [PROSE], 268).encode(text)
    assert [piece["text"] for piece in pieces][-3:] == [r"b'\xc3'", r"b'\xb6'", r"'\n'"]
    assert main(["tokenizer", "inspect", "bpe.json", text]) == 0
    table = capsys.readouterr().out
    assert "bold" in table, "it is not taken for markup"
    assert "c3" in table and "shown" not in table
    assert main(["tokenizer", "inspect", "bpe.json", "ö" * 150]) == 0
    assert "300 tokens, the first 200 shown" in capsys.readouterr().out
