"""The one reader of files of records, unreadable files, and the advice for them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.cli import main
from understudy.data.records import READERS, read_records

ROWS = [{"text": 'One, "two"\nthree.', "n": "1"}, {"text": "größer", "n": "2"}]


def as_csv(delimiter: str) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["text", "n"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return buffer.getvalue().encode()


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def as_arrow(new: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with new(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FILES = {
    ".jsonl": [LINES, b"\xef\xbb\xbf" + LINES, json.dumps(ROWS).encode(), json.dumps(ROWS, indent=1).encode()],
    ".ndjson": [LINES],
    ".json": [LINES, json.dumps(ROWS).encode(), json.dumps(ROWS, indent=1).encode()],
    ".csv": [as_csv(",")],
    ".tsv": [as_csv("\t")],
    ".parquet": [as_parquet()],
    ".arrow": [as_arrow(pa.ipc.new_stream), as_arrow(pa.ipc.new_file)],
}


@pytest.mark.parametrize("ending", READERS)
def test_every_format_gives_the_same_records(tmp_path: Path, ending: str) -> None:
    for content in FILES[ending]:
        path = tmp_path / f"data{ending}"
        path.write_bytes(content)
        records = list(read_records(path))
        assert [record.fields for record in records] == ROWS
        assert all(str(path) in record.where for record in records)
        assert records[-1].offset <= path.stat().st_size
        if ending not in (".parquet", ".arrow"):
            for suffix, compress in ((".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)):
                packed = tmp_path / f"data{ending}{suffix}"
                packed.write_bytes(compress(content))
                assert [record.fields for record in read_records(packed)] == ROWS


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]
)
def test_damaged_compression_is_one_sentence(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    for content in (b"nothing of the kind", compress(LINES * 1000)[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is a damaged or cut-off"):
            list(read_records(path))


@pytest.mark.parametrize("ending", READERS)
def test_files_of_garbage_are_one_sentence(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    for content in (b"\xff\xfe\0", b"[" * 100_000, b"{" * 10, FILES[ending][0][:-8] + b"\xff" * 8):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=str(path)):
            for record in read_records(path):
                assert record.fields
            raise ValueError(f"{path} was read")  # a CSV file may hold anything that is UTF-8


def test_a_csv_file_with_uneven_rows_or_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n\n3\n")
    with pytest.raises(ValueError, match="row 4 has 1 cells, not 2: a, b"):
        list(read_records(path))
    path.write_text("1,2\n")
    assert [record.fields for record in read_records(path, header=("x", "y"))] == [{"x": "1", "y": "2"}]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.pdf", "it is a .pdf file; its text can be prepared without --kind"),
        ("a.html", "it is a .html file; its text can be prepared without --kind"),
        ("a.tar.gz", "is a damaged or cut-off gzip file"),
        ("a.pkl", "pickle files can run code"),
        ("corpus.en", "it has the ending .en, and .json, .jsonl"),
        ("README", "it has no ending, and .json, .jsonl"),
    ],
)
def test_files_that_hold_no_records_are_refused_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, sentence: str
) -> None:
    (tmp_path / name).write_text("Some text.")
    assert main(["prepare", str(tmp_path / name), "--kind", "conversations", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert sentence in message and "rename" not in message and not (tmp_path / "out").exists()


def test_a_list_of_texts_and_nested_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"translation": {"en": f"Line {i}.", "fr": "x"}} for i in range(30)]
    for name in ("a.json", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    sums = set()
    for name in ("a.json", "b.jsonl", "c.parquet"):
        command = ["prepare", str(tmp_path / name), "--tokenizer", "char", "--out", str(tmp_path / f"out-{name}")]
        assert main([*command, "--field", "translation"]) == 2
        assert "it has translation.en, translation.fr; choose another with --field" in capsys.readouterr().err
        assert main([*command, "--field", "translation.de"]) == 2
        assert "has no field 'translation.de'" in capsys.readouterr().err
        assert main([*command, "--field", "translation.en"]) == 0
        sums.add((tmp_path / f"out-{name}" / "train.bin").read_bytes())
    assert len(sums) == 1


def test_files_of_the_datasets_library_are_left_out(tmp_path: Path) -> None:
    from understudy.data.chat.prepare import prepare_conversations

    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    rows = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Yes."}]}
        for i in range(30)
    ]
    table = pa.Table.from_pylist(rows)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    for name in ("dataset_info.json", "state.json", "../dataset_dict.json"):
        (folder / name).write_text('{"features": {}}')
    [source] = prepare_conversations([str(tmp_path / "saved")], tmp_path / "out").manifest["sources"]
    assert source["train"] + source["val"] == 30 and source["left_out"] == {".json": 3}


def test_tables_in_a_folder_of_text_are_skipped_and_counted(tmp_path: Path) -> None:
    from understudy.data.find import find_files
    from understudy.data.text.reading import TEXT_FILES

    for name in ("a.md", "package.json", "b.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "b.csv").write_text("text\nx")
    listing = find_files([str(tmp_path)], TEXT_FILES)
    assert [path.name for path in listing.files] == ["a.md"] and listing.skipped == {".csv": 1, ".json": 1}
    (tmp_path / "a.md").unlink()
    assert [path.name for path in find_files([str(tmp_path)], TEXT_FILES).files] == ["b.csv", "package.json"]
