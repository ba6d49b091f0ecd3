"""One file of every kind read, and every refusal: one sentence each, with bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import signal
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from data_corpus import contents
from processes import run_python
from test_data_resume import KILLED
from text_files import (
    ASCII_LINES,
    FILES,
    LINES,
    MBOX,
    ROWS,
    TALE,
    TMX,
    as_jsonl,
    docx,
    epub,
    parquet,
    pdf,
    tarred,
    warc,
    write_all,
    zipped,
    zst,
)
from understudy.cli import main
from understudy.data import inputs, records
from understudy.data.chat.prepare import prepare_conversations
from understudy.data.text.documents import DocumentPiece, Note
from understudy.data.text.prepare import merge, prepare, prepare_task
from understudy.data.text.readers import base, fields, table
from understudy.data.text.readers.base import FieldChoiceError, MissingLibraryError, ReadOptions
from understudy.data.text.reading import kind_of_path, read_file

LIBRARIES = {"HTML": "trafilatura", "PDF": "pypdf", "WARC": "warcio"}


def read(path: Path, options: ReadOptions | None = None, keep_going: bool = False) -> tuple[list[str], list[Note]]:
    """The documents of a file, and the notes."""
    texts, notes, text = [], [], ""
    pieces: list[DocumentPiece] = list(read_file(path, options, keep_going))
    for piece in pieces:
        if piece.note is not None:
            notes.append(piece.note)
            continue
        text += piece.text
        if piece.ends:
            texts.append(text)
            text = ""
    assert text == "" and pieces[-1].offset <= path.stat().st_size
    return texts, notes


def refused(path: Path, content: bytes, sentence: str, options: ReadOptions | None = None) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read(path, options)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_one_of_everything(tmp_path: Path, name: str) -> None:
    kind, content, count = FILES[name]
    if kind in LIBRARIES:
        pytest.importorskip(LIBRARIES[kind])
    path = tmp_path / name
    path.write_bytes(content())
    found = kind_of_path(path)
    assert found is not None and found.name == kind
    texts, _ = read(path)
    assert len(texts) == count
    for line in ASCII_LINES if kind == "PDF" else LINES:
        assert line in "\n".join(texts)
    assert not any(stray in text for text in texts for stray in ("\r", "-->", "<", "Buy flour", "STYLE", "menu"))
    if kind in ("plain text", "subtitles", "OPUS", "DOCX"):
        assert texts == [TALE]


def test_a_folder_of_everything_is_prepared_with_a_table_of_what_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in LIBRARIES.values():
        pytest.importorskip(library)
    folder = tmp_path / "all"
    folder.mkdir()
    write_all(folder)
    assert main(["prepare", str(folder), "--tokenizer", "char", "--out", str(tmp_path / "out")]) == 0
    shown, manifest = capsys.readouterr(), json.loads((tmp_path / "out" / "manifest.json").read_text())
    aside = [name for name, (kind, _, _) in FILES.items() if kind in ("JSON", "CSV", "TSV", "Arrow")]
    [source] = manifest["sources"]
    assert source["documents"] == sum(n for name, (_, _, n) in FILES.items() if name not in aside)
    assert source["skipped"] == {".json": 1, ".csv": 2, ".tsv": 1, ".arrow": 1}
    rows = []
    for name, (kind, _, _) in FILES.items():
        texts, _ = read(folder / name)
        rows.append((kind, name, len(texts), sum(map(len, texts))))
    print("\n".join(f"{kind:12s} {name:16s} {n:3d} {characters:6,d}" for kind, name, n, characters in rows))
    assert all(n and characters for _, _, n, characters in rows)
    for remark in (
        "read as cp1252",
        "read as utf-16-le",
        "line ends made \\n",
        "files in archives left out: .png: 1",
    ):
        assert remark in shown.err


def test_killed_and_continued_to_the_same_bytes_and_notes(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for name, (kind, content, _) in FILES.items():
        if kind not in LIBRARIES:
            (folder / name).write_bytes(content())
    (folder / "bad.txt.gz").write_bytes(gzip.compress((TALE * 999).encode())[:-40])
    (folder / "more.jsonl").write_text(
        "".join(json.dumps({"text": f"{i} {TALE}"}) + "\n" * (1 + i % 2) + "{\n" for i in range(90))
    )
    prepare([str(folder)], tmp_path / "whole", vocab_size=300)
    outcomes = []
    for batches in (3, 9, 17, 22, 10**6):
        done = run_python(["-c", KILLED, str(folder), str(tmp_path / "out"), str(batches)], tmp_path)
        outcomes.append(done.returncode)
    assert outcomes == [-signal.SIGKILL] * 4 + [0], done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    notes = json.loads((tmp_path / "out" / "manifest.json").read_text())["notes"]
    assert notes["dropped"]["not JSON"][0] == 90 and len(notes["failed"]) == 1


def test_encodings_are_found_and_said(tmp_path: Path) -> None:
    russian = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"
    french = "L'été dernier, où étiez-vous allés ? À l'école, très près de la forêt, les élèves étaient là.\n"
    polish = "Zażółć gęślą jaźń. W Szczebrzeszynie chrząszcz brzmi w trzcinie i Szczebrzeszyn z tego słynie.\n"
    japanese = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
    path = tmp_path / "text"
    for text, encoding, named in [
        (russian, "cp1251", "cp1251"), (russian, "koi8-r", "koi8_r"), (french, "cp1252", "cp1252"),
        (polish, "cp1250", "cp1250"), (japanese, "shift_jis", "cp932"), (russian, "utf-16", "utf-16-le"),
        (french, "utf-16-be", "utf-16-be"), (french, "utf-8-sig", ""), ("caf\xe9 au lait", "latin-1", "cp1252"),
        (japanese, "utf-32", "utf-32-le"),
    ]:  # fmt: skip
        path.write_bytes(text.encode(encoding))
        texts, notes = read(path)
        assert texts == [text], encoding
        assert [note.reason for note in notes] == ([f"read as {named}"] if named else [])


def test_a_late_byte_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import understudy.data.decoding as decoding

    monkeypatch.setattr(decoding, "BLOCK_BYTES", 64)
    path = tmp_path / "a.log"
    path.write_bytes(b"plain line\n" * 50 + "Der Müller ging über die Brücke zurück.\n".encode("cp1252"))
    texts, [note] = read(path)
    assert texts[0].endswith("Der Müller ging über die Brücke zurück.\n") and note.reason == "read as cp1252"
    path.write_bytes("Größe und Weite.\n".encode() * 50 + b"\xff broken\n" + "Schöne Grüße.\r\n".encode())
    texts, notes = read(path)
    assert "\ufffd broken\nSchöne Grüße.\n" in texts[0]
    assert [note.reason for note in notes] == ["bytes that are not utf-8 replaced by U+FFFD", "line ends made \\n"]
    path.write_bytes("cut off €".encode()[:-1])
    assert read(path)[0] == ["cut off \ufffd"]
    path.write_bytes(b"one\rtwo\r\nthree\n")
    assert read(path)[0] == ["one\ntwo\nthree\n"]


HEADER = "The Project Gutenberg eBook of Tales\n\n*** START OF THE PROJECT GUTENBERG EBOOK TALES ***\n\n\n"
FOOTER = "\n\n*** END OF THE PROJECT GUTENBERG EBOOK TALES ***\n\nThe licence.\n"


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_headers_and_licences_of_gutenberg_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    import understudy.data.decoding as decoding

    monkeypatch.setattr(decoding, "BLOCK_BYTES", block)
    path = tmp_path / "pg1.txt"
    path.write_text(HEADER + TALE * 30 + FOOTER, "utf-8")
    texts, [note] = read(path)
    assert texts == [TALE * 30] and note.reason == "header and licence of Project Gutenberg cut"
    (tmp_path / "pg1.epub").write_bytes(epub([f"<pre>{HEADER}</pre>", f"<p>{LINES[0]}</p>", f"<pre>{FOOTER}</pre>"]))
    assert read(tmp_path / "pg1.epub")[0] == [LINES[0] + "\n"]


def test_templates_fill_fields_of_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"q": "Why?", "a": {"text": ["Because.", "So."]}, "n": 3, "yes": True, "none": None},
        {"q": "How?"},
        {"q": "Who?", "a": {"text": ["He."]}, "n": 1.5, "yes": False, "none": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts, [note] = read(path, ReadOptions(template="{q}\\n{a.text.0} {{{n}}} {yes}{none}"))
    assert texts == ["Why?\nBecause. {3} true", "Who?\nHe. {1.5} false"]
    assert note == Note("dropped", "no field 'a.text.0'", f"{path} line 2")
    with pytest.raises(
        FieldChoiceError, match=r"field 'a.text' of .* is not text but a list; name one inside it .*\{a.text.0\}"
    ):
        read(path, ReadOptions(template="{a.text}"))
    for template in ("no field", "{", "{}", "a } b {q}"):
        with pytest.raises(ValueError, match="is no text with fields"):
            fields.template_fields(template)
    (tmp_path / "a.parquet").write_bytes(parquet())
    assert read(tmp_path / "a.parquet", ReadOptions(template="{n}: {deep.en}"))[0] == [
        f"{i}: {line}" for i, line in enumerate(LINES)
    ]
    (tmp_path / "a.tmx").write_text(TMX)
    assert read(tmp_path / "a.tmx", ReadOptions("en"))[0] == LINES
    assert read(tmp_path / "a.tmx", ReadOptions(template="{en}\\t{de}"))[0][1] == f"{LINES[1]}\tZeile 1"
    with pytest.raises(FieldChoiceError, match="has no field 'text'; its fields are en, de: choose one with --field"):
        read(tmp_path / "a.tmx")


def test_the_commands_for_fields_templates_and_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"q": f"Q{i}", "a": f"A{i}"}) + "\n" for i in range(30)))
    (tmp_path / "v.jsonl").write_text(json.dumps({"q": "Q99", "a": "A99"}) + "\n")
    command = ["prepare", str(tmp_path / "q.jsonl"), "--tokenizer", "char", "--out", str(tmp_path / "out")]
    assert main(command) == 2 and "has no field 'text'; its fields are q, a" in capsys.readouterr().err
    assert main([*command, "--template", "{q}\\n{a}", "--field", "q"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main([*command, "--template", "{q}\\n{a}", "--val", str(tmp_path / "v.jsonl")]) == 0
    assert "files for training: 1, for validation: 1" in capsys.readouterr().err
    splits = json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]
    assert (splits["train"]["documents"], splits["val"]["documents"]) == (30, 1)
    assert main([*command, "--template", "{q}\\n{a}"]) == 2 and "(other sources)" in capsys.readouterr().err
    (tmp_path / "t.txt").write_text(TALE)
    assert main(["prepare", str(tmp_path / "t.txt"), "--template", "{q}", "--out", str(tmp_path / "x")]) == 2
    assert "template='{q}' would do nothing" in capsys.readouterr().err
    assert (
        main(
            [
                "prepare",
                "hamlet",
                "--tokenizer",
                "char",
                "--limit",
                "9",
                "--val",
                str(tmp_path / "t.txt"),
                "--out",
                str(tmp_path / "h"),
            ]
        )
        == 0
    )
    manifest = json.loads((tmp_path / "h" / "manifest.json").read_text())
    assert {name: split["documents"] for name, split in manifest["splits"].items()} == {"train": 9, "val": 1}
    assert [source["name"] for source in manifest["sources"]] == ["hamlet", "validation"]


def test_splits_named_by_files_are_kept_apart_and_cards_left_out(tmp_path: Path) -> None:
    for names, train, val, left_out in [
        (("train.txt", "validation.txt", "test.txt"), 1, 1, {"for testing": 1}),
        (("stories-train.txt", "stories-valid.txt"), 1, 1, {}),
        (("train/0.txt", "train/1.txt", "test/0.txt"), 2, 1, {}),
        (("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "dev-00000-of-00001.jsonl", "README.md"), 2, 1, {"dataset cards": 1}),
    ]:  # fmt: skip
        folder = tmp_path / names[0].split(".")[0].replace("/", "-")
        for i, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            text = f"Tale {i}. " + TALE
            (folder / name).write_text(json.dumps({"text": text}) if name.endswith("jsonl") else text, "utf-8")
        manifest = prepare([str(folder)], tmp_path / f"out-{folder.name}", tokenizer="char").manifest
        assert (manifest.splits["train"].documents, manifest.splits["val"].documents) == (train, val)
        [source] = manifest.sources
        assert source["validation"] == "own" and source["skipped"] == left_out
    prose = tmp_path / "prose"
    prose.mkdir()
    for name in ("train.txt", "test.txt", "the-train-at-night.txt", "README.md"):
        (prose / name).write_text(TALE)
    (prose / "README.md").write_text("---\nlicense: mit\n---\nAbout the data.\n")
    [source] = prepare([str(prose)], tmp_path / "out-prose", tokenizer="char").manifest.sources
    assert source["validation"] == "tail" and source["skipped"] == {"dataset cards": 1}, "a tale of a train is no split"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_splits_named_inside_archives_are_kept_apart(tmp_path: Path, name: str) -> None:
    def packed(members: dict[str, bytes | str]) -> Path:
        path = tmp_path / name
        path.write_bytes(
            zipped(members) if name == "a.zip" else tarred(members, "w:gz" if name.endswith("gz") else "w")
        )
        return path

    tales = {
        f"data/{split}/{i}.txt": f"{split} {i}. {TALE}" for split in ("train", "validation", "test") for i in range(3)
    }
    path = packed({**tales, "data/train/a.png": b"\x89PNG\0", "data/train/9.rst": "Nine. " + TALE})
    summary = prepare([str(path)], tmp_path / "out", tokenizer="char")
    splits, [source] = summary.manifest.splits, summary.manifest.sources
    assert (splits["train"].documents, splits["val"].documents) == (4, 3) and source["validation"] == "own"
    assert splits["val"].bytes == sum(len(text.encode()) for name, text in tales.items() if "validation" in name)
    assert source["skipped"] == {"for testing": 3} and "files in archives left out: .png: 1" in str(summary)
    merged = [prepare_task([str(path)], tmp_path / "tasks", 3, task, tokenizer="char") for task in range(3)]
    assert merged[-1].done == 3 and merge(tmp_path / "tasks").manifest == summary.manifest
    assert contents(tmp_path / "tasks") == contents(tmp_path / "out")
    val = tmp_path / "val.txt"
    val.write_text("Other words. " + TALE)
    given = prepare([str(path)], tmp_path / "given", tokenizer="char", validation=[str(val)]).manifest
    assert (given.splits["train"].documents, given.splits["val"].documents) == (10, 1), "--val leaves splits aside"
    one = prepare([str(packed({**tales, "loose.txt": TALE}))], tmp_path / "loose", tokenizer="char").manifest
    assert [source["validation"] for source in one.sources] == ["tail"], "names that tell it of some files tell nothing"
    rows = {
        f"{split}/0.jsonl": json.dumps({"question": f"{split}?", "answer": "A."}) + "\n" for split in ("train", "dev")
    }
    chat = prepare_conversations([str(packed({**rows, "README.md": "About."}))], tmp_path / "chat", "conversations")
    [about] = chat.manifest["sources"]
    assert (about["train"], about["val"]) == (1, 1), chat


def test_a_bad_file_or_record_does_not_end_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text(TALE * 9)
    (folder / "b.txt.gz").write_bytes(gzip.compress((TALE * 999).encode())[:-40])
    (folder / "c.jsonl").write_bytes(as_jsonl() + b'{"text": \n{"n": 1}\n{"text": 7}\n[1]\n' + as_jsonl())
    (folder / "d.docx").write_bytes(b"PK nothing")
    (folder / "e.zip").write_bytes(zipped({"good.txt": TALE, "bad.txt.xz": b"no", "bad.docx": zipped({"x": "y"})}))
    assert main(["prepare", str(folder), "--tokenizer", "char", "--out", str(tmp_path / "out")]) == 0
    shown, notes = capsys.readouterr(), json.loads((tmp_path / "out" / "manifest.json").read_text())["notes"]
    assert {reason: number for reason, (number, _) in notes["dropped"].items()} == {
        "not JSON": 1, "no field 'text'": 1, "no field 'text' of text": 1, "not a JSON object": 1,
    }  # fmt: skip
    failed = "\n".join(notes["failed"])
    assert len(notes["failed"]) == 4 and "c.jsonl line 3" in notes["dropped"]["not JSON"][1]
    for sentence in ("b.txt.gz is a damaged or cut-off gzip file", "d.docx is a damaged or cut-off zip file",
                     "e.zip: bad.txt.xz is a damaged", "e.zip: bad.docx is no DOCX document"):  # fmt: skip
        assert sentence in failed and f"could not be read: {folder}" in shown.err
    for name, sentence in (("b.txt.gz", "damaged or cut-off gzip"), ("d.docx", "damaged or cut-off zip")):
        assert main(["prepare", str(folder / name), "--out", str(tmp_path / "alone")]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "alone").exists()


def test_encrypted_files(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    for password, opens in (("", True), ("secret", False)):
        writer = pypdf.PdfWriter(io.BytesIO(pdf(ASCII_LINES)))
        writer.encrypt(password, "owner", algorithm="RC4-128")
        buffer = io.BytesIO()
        writer.write(buffer)
        if opens:
            (tmp_path / "a.pdf").write_bytes(buffer.getvalue())
            assert read(tmp_path / "a.pdf")[0] == ["\n".join(ASCII_LINES) + "\n"]
        else:
            refused(tmp_path / "a.pdf", buffer.getvalue(), "is encrypted; remove its password first: qpdf --decrypt")
    refused(tmp_path / "a.pdf", b"%PDF-1.4 and no more", "is a damaged PDF file")
    refused(tmp_path / "a.pdf", pdf([]), "has no text: its pages are pictures")
    rights = '<encryption><EncryptedData><CipherReference URI="OEBPS/c%200.xhtml"/></EncryptedData></encryption>'
    book = epub(["<p>x</p>"], extra={"META-INF/encryption.xml": rights})
    refused(tmp_path / "a.epub", book, r"is encrypted \(protected against copying\)")
    archive = bytearray(zipped({"a.txt": TALE}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        archive[archive.index(mark) + place] |= 1  # the bit that says that the member is encrypted
    (tmp_path / "a.zip").write_bytes(archive)
    _, [note] = read(tmp_path / "a.zip")
    assert note.kind == "failed" and "a.txt is encrypted; unpack the archive with its password first" in note.reason
    with pytest.raises(ValueError, match="is encrypted"):
        prepare([str(tmp_path / "a.zip")], tmp_path / "out", tokenizer="char")


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>'


def test_xml_entities(tmp_path: Path) -> None:
    refused(tmp_path / "a.docx", docx(["&b;"], ENTITIES), "declares XML entities")
    refused(tmp_path / "a.epub", epub(["x"], ENTITIES), "declares XML entities")
    refused(tmp_path / "a.tmx", f"<?xml version='1.0'?>{ENTITIES}<tmx>&f;</tmx>".encode(), "declares XML entities")
    refused(
        tmp_path / "a.xml",
        f"<?xml version='1.0'?>{ENTITIES}<document><s>&b;</s></document>".encode(),
        "declares XML entities",
    )
    refused(tmp_path / "a.docx", docx(["<unclosed>"]), "is damaged XML")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.txt.bz2", "a.jsonl.zst", "a.zip", "a.tar.gz", "a.csv.gz"])
def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of 40 MB of one letter, none of which may be held in memory as a whole."""
    monkeypatch.setattr(inputs, "FREE_GROWTH_BYTES", 1 << 22)
    monkeypatch.setattr("understudy.data.archives.FREE_GROWTH_BYTES", 1 << 22)
    content = b"a" * 40_000_000
    if name == "a.zip":
        packed = zipped({"a.txt": content})
    elif "tar" in name:
        packed = tarred({"a.txt": content}, "w:gz")
    else:
        pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zst}
        packed = pack[Path(name).suffix](content)
    del content
    tracemalloc.start()
    refused(tmp_path / name, packed, "as a decompression bomb does; it is not read")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


def test_archives_in_archives_and_paths_that_lead_out(tmp_path: Path) -> None:
    nested = zipped({"a.zip": zipped({"b.zip": zipped({"c.txt": TALE})})})
    (tmp_path / "a.zip").write_bytes(nested)
    assert read(tmp_path / "a.zip")[1][0].reason.endswith(
        "is in an archive in an archive in an archive; unpack it first"
    )
    for name in ("../x.txt", "/etc/x.txt", "a/../../x.txt", "..\\x.txt", "C:\\x.txt"):
        refused(
            tmp_path / "a.zip",
            zipped({"good.txt": TALE, name: "bad"}),
            "holds a file whose path leads out of the archive",
        )
        refused(
            tmp_path / "a.tar",
            tarred({"good.txt": TALE, name: "bad"}),
            "holds a file whose path leads out of the archive",
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name in (".hidden.txt", "__MACOSX/a.txt", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(TALE.encode())
            archive.addfile(info, io.BytesIO(TALE.encode()))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    assert read(tmp_path / "a.tar") == ([TALE], [])
    refused(tmp_path / "a.tar", buffer.getvalue()[:700] + b"\xff" * 600, "is a damaged or cut-off tar file")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.txt", TALE * 50)
    content = bytearray((tmp_path / "b.zip").read_bytes())
    content[60:70] = b"x" * 10
    (tmp_path / "b.zip").write_bytes(content)
    _, notes = read(tmp_path / "b.zip")
    assert "is a damaged or cut-off" in notes[-1].reason


def test_lines_without_end_are_refused_with_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1 << 22)
    huge = 60_000_000
    contents = {
        "a.jsonl": (b'{"text": "' + b"x" * huge + b'"}\n', "line 1 is longer than 4 MiB"),
        "a.json": (b'[{"text": "' + b"x" * huge + b'"}]', "element 1 is longer than 4 MiB"),
        "b.json": (b'{"text": "' + b"x" * huge + b'"}', "line 1 is longer than 4 MiB"),
        "a.csv": (b"n,text\n1," + b"x" * huge, "line 2 is longer than 4 MiB"),
        "b.csv": (
            b'n,text\n1,"' + b"xxxxxxx\n" * (huge // 8),
            "is not a readable csv file .field larger than field limit",
        ),
    }
    for name, (content, sentence) in contents.items():
        tracemalloc.start()
        refused(tmp_path / name, content, sentence)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50_000_000, name
    del content, contents
    good = b'{"text": "good"}\n'
    (tmp_path / "c.jsonl").write_bytes(good + b'{"text": "' + b"x" * huge + b'"}\n' + good)
    texts, [note] = read(tmp_path / "c.jsonl")
    assert texts == ["good", "good"] and note.reason == "too long for one record"
    (tmp_path / "d.txt").write_bytes(b"x" * huge)
    assert all(len(piece.text) <= 1 << 20 for piece in read_file(tmp_path / "d.txt")), (
        "a line of plain text has any length"
    )


def test_csv_files_without_a_header(tmp_path: Path) -> None:
    for content in ("1,2\n3,4\n", "Yes,Yes\nNo,Yes\n", f"{'A long text. ' * 20},1\n"):
        refused(tmp_path / "a.csv", content.encode(), "has no header: its first row is")
    refused(
        tmp_path / "a.csv",
        b"First line,x\nSecond,y\n",
        "has no field 'text'; its fields are First line, x: .* if its first row is no header",
    )
    refused(tmp_path / "a.json", b"7", "holds a number: a list of objects is expected")


def test_lists_of_records_are_read_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BLOCK_BYTES", 16)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*ROWS, {"text": "x" * 500}, 3, {"text": "ö"}], indent=2, ensure_ascii=False), "utf-8")
    texts, [note] = read(path)
    assert texts == [*LINES, "x" * 500, "ö"] and note.reason == "not an object"
    refused(path, b'[{"text": "a"}, {"text": ', "a.json is not JSON after element 1")
    (tmp_path / "b.jsonl").write_text(json.dumps(ROWS))
    assert read(tmp_path / "b.jsonl")[0] == LINES


def test_mails_and_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.mbox"
    path.write_text(MBOX, "utf-8")
    assert read(path)[0][0] == f"Line 0\n\n{LINES[0]}\nFrom there on.\n"
    html = "From a b\nSubject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=\nContent-Type: text/html; charset=utf-8\n\n<p>One</p><script>x</script><p>Two &amp; 3</p>\n"
    path.write_text(html + "\nFrom c d\nSubject: empty\n\n\n", "utf-8")
    texts, [note] = read(path)
    assert texts == ["Größe\n\nOne\n\nTwo & 3\n"] and note.reason == "a mail without text"
    refused(path, b"Dear all", "is no mailbox")
    pytest.importorskip("warcio")
    pytest.importorskip("trafilatura")
    (tmp_path / "a.warc").write_bytes(
        warc("response", "image/png", ["x"]) + warc("response", "text/html", ["<html></html>"])
    )
    _, notes = read(tmp_path / "a.warc")
    assert [note.reason for note in notes] == ["a record of image/png", "a page without main text"]
    refused(tmp_path / "a.warc", b"nothing of the kind\r\n\r\n", "WARC")


def test_a_missing_library_is_named_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(base.importlib, "import_module", missing)
    (tmp_path / "a.txt").write_text(TALE)
    (tmp_path / "b.pdf").write_bytes(pdf(ASCII_LINES))
    with pytest.raises(
        MissingLibraryError,
        match=r"b\.pdf is read with pypdf, which is not installed .*: pip install 'understudy\[documents\]'",
    ):
        prepare([str(tmp_path)], tmp_path / "out", tokenizer="char")
    (tmp_path / "c.zip").write_bytes(zipped({"a.txt": TALE, "b.pdf": pdf(ASCII_LINES)}))
    with pytest.raises(MissingLibraryError, match=r"c\.zip: b\.pdf is read with pypdf"):
        read(tmp_path / "c.zip", keep_going=True)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    for name, content in (
        ("a.bin", bytes(range(256)) * 9),
        ("b.svg", b"<svg/>"),
        ("c.pkl", b"I1\n."),
        ("d", b"\0" * 50),
    ):
        (tmp_path / name).write_bytes(content)
        assert kind_of_path(tmp_path / name) is None
        refused(tmp_path / name, content, "it is neither text nor a kind of file that text can be taken from")
        assert main(["prepare", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2


def test_every_kind_has_a_file_here() -> None:
    assert {kind.name for kind in table.TEXT_KINDS} == {kind for kind, _, _ in FILES.values()} | {"TMX"}
