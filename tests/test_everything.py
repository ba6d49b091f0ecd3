"""`prepare` on one file of every kind: documents, characters and remarks; and the refusals with their sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everything import Example, Refusal, examples, refusals
from understudy.cli import main
from understudy.data.text.shards import open_split

EXAMPLES, REFUSALS = examples(), [refusal for refusal in refusals() if not refusal.big]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_one_of_every_kind(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if example.library:
        pytest.importorskip(example.library)
    source, out = example.write(tmp_path / "in"), tmp_path / "out"
    assert main(["prepare", source, "--tokenizer", "char", "--out", str(out), *example.options]) == 0
    shown, manifest = capsys.readouterr().err, json.loads((out / "manifest.json").read_text())
    [about] = manifest["sources"]
    assert about["documents"] == example.documents
    tokens = [token for split in ("train", "val") for token in open_split(out, split).tokens.tolist()]
    assert sum(token != manifest["eot_id"] for token in tokens) == example.characters
    for remark in example.said:
        assert remark in shown
    if example.validation is not None:
        assert manifest["splits"]["val"]["documents"] == example.validation


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.kind)
def test_refusals(refusal: Refusal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if refusal.library:
        pytest.importorskip(refusal.library)
    path, out = tmp_path / refusal.name, tmp_path / "out"
    if callable(refusal.content):
        refusal.content(path)
    else:
        path.write_bytes(refusal.content)
    assert main(["prepare", str(path), "--tokenizer", "char", "--out", str(out)]) == 2
    shown = capsys.readouterr().err
    assert refusal.sentence in shown and shown.count("understudy:") == 1
    assert not out.exists()
