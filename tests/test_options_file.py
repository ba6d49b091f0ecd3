"""Options of `prepare` from a YAML file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from understudy.cli import main


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"body": f"The miller walks to mill {n % 40} at night, slowly, and back."} for n in range(120)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("val.jsonl").write_text(json.dumps({"body": "Another tale of another mill."}) + "\n")


def test_a_file_gives_what_the_options_give(texts: None) -> None:
    Path("web.yaml").write_text(
        "sources: [a.jsonl]\nfield: body\ntokenizer: bpe\nvocab-size: 280\ndedup: [exact]\nval: [val.jsonl]\nout: from-file\n"
    )
    assert main(["prepare", "--options", "web.yaml"]) == 0
    options = ["--field", "body", "--vocab-size", "280", "--dedup", "exact", "--val", "val.jsonl"]
    assert main(["prepare", "a.jsonl", *options, "--out", "from-options"]) == 0
    first, second = (Path(name, "manifest.json").read_text() for name in ("from-file", "from-options"))
    assert first == second and json.loads(first)["quality"]["kept"]["documents"] == 40
    assert main(["prepare", "--options", "web.yaml", "--vocab-size", "270", "--out", "smaller"]) == 0
    assert json.loads(Path("smaller/manifest.json").read_text())["vocab_size"] == 270, "the command line comes first"


def test_a_file_for_conversations(texts: None) -> None:
    Path("faq.csv").write_text("Frage,Antwort\n" + "".join(f"Was ist {n}?,Zahl {n}.\n" for n in range(9)))
    Path("faq.yaml").write_text(
        "sources: faq.csv\nkind: conversations\ncolumns: {question: Frage, answer: Antwort}\nout: faq\n"
    )
    assert main(["prepare", "--options", "faq.yaml"]) == 0
    assert '"Was ist' in Path("faq/train.jsonl").read_text()


@pytest.mark.parametrize(("content", "sentence"), [
    ("feild: body", "has the option 'feild', which is none of prepare's (did you mean field?)"),
    ("task: 3", "has the option 'task', which is none of prepare's"),
    ("vocab-size: many", "web.yaml: argument --vocab-size: invalid int value: 'many'"),
    ("kind: poems", "web.yaml: argument --kind: invalid choice: 'poems'"),
    ("field:", "web.yaml has no value for field"),
    ("- a.jsonl", "web.yaml has no options"),
    ("a: b: c", "web.yaml is no YAML file"),
])  # fmt: skip
def test_refusals(texts: None, capsys: pytest.CaptureFixture[str], content: str, sentence: str) -> None:
    Path("web.yaml").write_text(content + "\n")
    assert main(["prepare", "--options", "web.yaml"]) == 2
    assert sentence in capsys.readouterr().err
    assert main(["prepare", "--options", "none.yaml"]) == 2 and "there is no file none.yaml" in capsys.readouterr().err
