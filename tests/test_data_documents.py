"""Reading documents: every kind of file, in order, in pieces, and every way a file can be bad."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.data.find import LocalFiles
from understudy.data.find import find_files as find
from understudy.data.text import documents as reading
from understudy.data.text.documents import DocumentPiece, cut_position, split_document
from understudy.data.text.readers.base import ReadOptions
from understudy.data.text.reading import TEXT_FILES, read_file

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"""
    r"""|\s+(?!\S)|\s+"""
)


def find_files(arguments: list[str]) -> LocalFiles:
    return find(arguments, TEXT_FILES)


def documents(path: Path, field: str = "text", piece_chars: int = 1 << 20, separator: str | None = None) -> list[str]:
    whole, piece_text = [], ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE_CHARS", piece_chars)
        pieces = list(read_file(path, ReadOptions(field, separator=separator)))
    for piece in pieces:
        if piece.note is not None:
            continue
        piece_text += piece.text
        if piece.ends:
            whole.append(piece_text)
            piece_text = ""
    assert piece_text == "", "the last piece of a file ends a document"
    return whole


def pieces_of(text: str, piece_chars: int) -> list[DocumentPiece]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE_CHARS", piece_chars)
        return list(split_document(text, 7))


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def zipped(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def test_every_kind_of_file(tmp_path: Path) -> None:
    text = "Tä\r\n\n€ 😀 no newline at the end"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "b.md").write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows = jsonl(tmp_path / "c.jsonl", {"text": text, "n": 1}, {"text": "second"}, {"text": None})
    pq.write_table(pa.table({"n": [1, 2], "body": [text, "second"]}), tmp_path / "d.parquet")
    plain = text.replace("\r\n", "\n")
    assert documents(tmp_path / "a.txt") == documents(zipped(tmp_path / "a.txt")) == [plain]
    assert documents(tmp_path / "b.md") == [plain], "a byte order mark is no text"
    assert documents(rows) == documents(zipped(rows)) == [plain, "second", ""]
    assert documents(tmp_path / "d.parquet", "body") == [plain, "second"]


def test_columns_of_parquet_that_hold_text(tmp_path: Path) -> None:
    for i, kind in enumerate([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]):
        column = pa.array(["x", None, "y"], pa.string()).cast(kind)
        pq.write_table(pa.table({"text": column}), tmp_path / f"{i}.parquet")
        assert documents(tmp_path / f"{i}.parquet") == ["x", "", "y"]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab .\n\r\té😀'9", max_size=300), st.integers(1, 40))
def test_pieces_put_together_are_the_document(text: str, piece_chars: int) -> None:
    pieces = pieces_of(text, piece_chars)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(len(piece.text) <= piece_chars for piece in pieces)


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN])
def test_cuts_are_cuts_of_the_tokenizers_patterns(pattern: str) -> None:
    """Where there is a space or a newline between two words to cut at, no token is another for the cut."""
    encoding = tiktoken.Encoding(
        "bytes", pat_str=pattern, mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    words = ["a", "don't", "x.", "\n\n", "  ", "12345", "\r\n", "(b)", "\t", "\n", "é"]
    text = " ".join(words[i * i % 11] + ("\n" if i % 5 == 0 else "") + "word" for i in range(400))

    def chunks(part: str) -> list[str]:
        import regex

        return regex.findall(pattern, part)

    assert encoding.encode(text)
    for piece_chars in (40, 64, 111):
        pieces = [piece.text for piece in pieces_of(text, piece_chars)]
        assert [c for piece in pieces for c in chunks(piece)] == chunks(text)


def test_where_to_cut() -> None:
    assert cut_position("one two\nthree four", 14) == 8, "a newline between words before a later space"
    assert cut_position("one two three", 10) == 7, "before the space, which belongs to the word that follows"
    assert cut_position("one\n\n\n\n...", 8) == 7, "else after a newline"
    assert cut_position("abcdefgh", 5) == 5


def test_a_long_text_comes_in_pieces_and_characters_are_never_split(tmp_path: Path) -> None:
    text = "größe €😀\n" * 300_000
    (tmp_path / "a.txt").write_text(text, "utf-8")
    pieces = list(read_file(tmp_path / "a.txt"))
    assert len(pieces) > 2 and "".join(piece.text for piece in pieces) == text
    assert pieces[-1].offset == (tmp_path / "a.txt").stat().st_size
    assert [piece.text for piece in split_document(text, 0)] == [piece.text for piece in pieces]


def test_folders_and_globs_in_order(tmp_path: Path) -> None:
    for name in ["b/2.txt", "b/1.md", "a.jsonl", "c.png", "d.png", "README", ".git/x.txt", "e.TXT"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x89PNG\0" if path.suffix == ".png" else b"x")
    listing = find_files([str(tmp_path)])
    names = [p.relative_to(tmp_path).as_posix() for p in listing.files]
    assert names == ["README", "a.jsonl", "b/1.md", "b/2.txt", "e.TXT"]
    assert listing.skipped == {".png": 2}
    listing = find_files([str(tmp_path / "b" / "*.txt"), str(tmp_path / "b" / "1.md"), str(tmp_path / "b")])
    assert [p.name for p in listing.files] == ["2.txt", "1.md"], "as given, and a file met twice is read once"
    listing = find_files([str(tmp_path / "**" / "*.txt")])
    assert [p.name for p in listing.files] == ["2.txt"]


BAD_TEXT = [
    (b"abc\0def", "has a NUL byte at byte 3"),
    (b"x" * (1 << 20) + b"\0", "has a NUL byte at byte 1,048,576"),
]


@pytest.mark.parametrize(("content", "sentence"), BAD_TEXT)
def test_files_that_are_not_text(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        documents(path)


BAD_LINES = [
    (b'{"text": \n', "line 1 is not JSON"),
    (b'\n{"body": "b", "id": 3}', "line 2 has no field 'text'; its fields are body, id"),
    (b'["a"]\n', "element 1 is not an object but a string"),
    (b'["a"]\n["b"]\n', "line 1 is not a JSON object but a list"),
    (b'{"text": ["a"]}\n', "field 'text' of .* line 1 is not text but a list"),
    (b'{"text": 1.5}\n', "is not text but a number"),
    (b'{"text": "\\ud800"}\n', "half a surrogate pair"),
    (b'{"text": "caf\xe9"}\n', "line 1 is not UTF-8"),
]


@pytest.mark.parametrize(("content", "sentence"), BAD_LINES)
def test_bad_jsonl(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        documents(path)


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), path)
    with pytest.raises(ValueError, match="has no field 'text'; its fields are body, n"):
        documents(path)
    with pytest.raises(ValueError, match=r"field 'n' of .* row 1 is not text but a number"):
        documents(path, "n")
    for content in (b"", b"PAR1 and no more", path.read_bytes()[:-20]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a readable parquet file"):
            documents(path, "body")


def test_bad_gzip(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(os.urandom(50_000).hex().encode())
    whole = zipped(tmp_path / "a.txt")
    content = whole.read_bytes()
    overwritten = content[:5000] + b"x" * 5000 + content[10_000:]
    for bad in (b"not gzip at all", content[: len(content) // 2], overwritten):
        whole.write_bytes(bad)
        with pytest.raises(ValueError, match="is a damaged or cut-off gzip file"):
            documents(whole)


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(ValueError, match="no such file or folder"):
        find_files([str(tmp_path / "none.txt")])
    with pytest.raises(ValueError, match=r"the glob .* matches nothing"):
        find_files([str(tmp_path / "*.txt")])
    with pytest.raises(ValueError, match=r"cannot read .*a\.xlsx: it is a \.xlsx file; save the sheet as CSV first"):
        find_files([str(tmp_path / "a.xlsx")])
    with pytest.raises(ValueError, match=r"has no file with text; it holds 1 \.xlsx"):
        find_files([str(tmp_path)])
