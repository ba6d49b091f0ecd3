"""`prepare` from end to end: files, refusals and messages."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from data_corpus import contents, corpus, documents, run, small_batches, story
from understudy.data import sources
from understudy.data.fetch.download import GPT2_FILES, UnavailableError
from understudy.data.progress import PreparationProgress, preparation_bars
from understudy.data.sources import WebText
from understudy.data.text import encoding
from understudy.data.text.documents import without_gutenberg
from understudy.data.text.prepare import prepare
from understudy.data.text.shards import open_split
from understudy.data.text.summary import TextSummary
from understudy.tokenizer import load_tokenizer

__all__ = ["corpus", "small_batches"]  # fixtures


def test_tiny_shakespeare_as_nanogpt_has_it(tmp_path: Path) -> None:
    data = os.environ.get("UNDERSTUDY_TEST_DATA")
    if not data:
        pytest.skip("UNDERSTUDY_TEST_DATA names no folder with tinyshakespeare.txt and gpt2/")
    text = Path(data, "tinyshakespeare.txt")
    summary = prepare([str(text)], tmp_path / "char", tokenizer="char")
    assert summary.manifest.vocab_size == 65 and summary.manifest.eot_id is None
    assert {k: v.tokens for k, v in summary.manifest.splits.items()} == {"train": 1_003_854, "val": 111_540}
    train = np.fromfile(tmp_path / "char" / "train.bin", dtype=np.uint16)
    id_of = {character: id for id, character in enumerate(sorted(set(text.read_text("utf-8"))))}
    assert train.tolist() == [id_of[c] for c in text.read_text("utf-8")[:1_003_854]]
    summary = prepare([str(text)], tmp_path / "gpt2", tokenizer=str(Path(data, "gpt2")))
    assert {k: v.tokens for k, v in summary.manifest.splits.items()} == {"train": 301_966, "val": 36_059}
    sha256 = hashlib.sha256(text.read_bytes()).hexdigest()
    assert sources.TEXT["shakespeare"].urls[0][1] == sha256  # type: ignore[union-attr]
    for name, sha256 in GPT2_FILES.items():
        assert hashlib.sha256(Path(data, "gpt2", name).read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("tokenizer", [{"tokenizer": "char"}, {"tokenizer": "bpe", "vocab_size": 300}])
def test_documents_in_and_out(corpus: Path, tmp_path: Path, tokenizer: dict[str, Any]) -> None:
    summary = run(corpus, tmp_path / "out", **tokenizer)
    rows = [json.loads(line)["text"] for line in (corpus / "a.jsonl").read_text("utf-8").splitlines()]
    expected = [row for row in rows if row.strip()] + [story(i) for i in range(170, 319)]
    expected.append((corpus / "c.txt").read_text("utf-8"))
    train, val = documents(tmp_path / "out", "train"), documents(tmp_path / "out", "val")
    assert sorted(train + val) == sorted(expected)
    assert [d for d in expected if d in set(train)] == train, "their order is kept"
    manifest = summary.manifest
    for split, docs in (("train", train), ("val", val)):
        info = manifest.splits[split]
        assert (info.documents, info.bytes) == (len(docs), sum(len(d.encode()) for d in docs))
        assert info.sha256 == hashlib.sha256((tmp_path / "out" / f"{split}.bin").read_bytes()).hexdigest()
    assert manifest.tokenizer_sha256 == load_tokenizer(tmp_path / "out").sha256
    assert manifest.empty_documents == 2
    [source] = manifest.sources
    assert source["validation"] == "hash" and source["skipped"] == {".png": 1} and source["documents"] == 320
    assert source["parts"][0]["sha256"] == hashlib.sha256((corpus / "a.jsonl").read_bytes()).hexdigest()
    assert "dropped empty documents: 2" in str(summary) and "files left out, .png: 1" in str(summary)


def test_long_documents_among_others_end_once(tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    books = ["".join(story(i) for i in range(n, n + 60)) for n in (0, 100, 200)]
    for i, book in enumerate(books):
        (folder / f"{i}.md").write_text(book, "utf-8")
    run(folder, tmp_path / "out", piece_chars=333)
    train, val = documents(tmp_path / "out", "train"), documents(tmp_path / "out", "val")
    assert [head + tail for head, tail in zip(train, val)] == books
    assert [len(head) for head in train] == [int(len(book) * 0.9) for book in books]


def test_neither_workers_nor_batches_change_a_byte(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, tmp_path / "one", workers=1)
    monkeypatch.setattr(encoding, "BATCH_CHARS", 1 << 20)
    run(corpus, tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_other_people_s_files_are_left_alone(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(b"12")
    with pytest.raises(ValueError, match="holds token files that were not made here"):
        run(corpus, tmp_path)
    with pytest.raises(ValueError, match="is a file: give --out a folder"):
        run(corpus, tmp_path / "train.bin")
    (tmp_path / "gone").mkdir()
    run(corpus, tmp_path / "gone")
    (tmp_path / "gone" / "val.bin").unlink()
    with pytest.raises(ValueError, match="has no split 'val'"):
        run(corpus, tmp_path / "gone")


BAD = [
    ({"a.txt": b""}, "there is no text in .*a.txt: every document is empty"),
    ({"a.txt": b" \n ", "b.jsonl": b'{"text": ""}'}, "there is no text in files"),
    ({"a.txt": b"x"}, "too short or too uniform to split: of 1 bytes in 1 documents none fell to train"),
    ({"a.txt": b"text\0"}, "NUL byte"),
    ({"a.jsonl": b"{\n" * 500}, "line 1 is not JSON"),
]


@pytest.mark.parametrize(("files", "sentence"), BAD)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, files: dict[str, bytes], sentence: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    # GPT-2's pattern and bytes: no pass over the whole text comes before the encoding.
    from understudy.tokenizer import train_tokenizer

    train_tokenizer("bpe", [], vocab_size=257).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=sentence):
        run(folder, tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"))
    assert not (tmp_path / "out").exists()


def test_a_character_the_tokenizer_does_not_have(corpus: Path, tmp_path: Path) -> None:
    run(corpus / "c.txt", tmp_path / "first")
    other = tmp_path / "other.txt"
    other.write_text("Story ∞" * 5000, "utf-8")
    with pytest.raises(ValueError, match="∞"):
        run(other, tmp_path / "out", tokenizer=str(tmp_path / "first"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"has no <\|endoftext\|> token to put between documents"):
        run(corpus, tmp_path / "out", tokenizer=str(tmp_path / "first"))


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"vocab_size": 300}, "vocab_size is a setting of the tokenizer 'bpe' and does nothing for 'char'"),
    ({"pattern": "gpt4"}, "pattern is a setting of the tokenizer 'bpe'"),
    ({"tokenizer": "bpe", "pattern": "gpt9"}, "no pattern 'gpt9': choose one of"),
    ({"tokenizer": "bpe", "vocab_size": 0}, "vocab_size must be a positive number"),
    ({"tokenizer": "wordpiece"}, "no tokenizer 'wordpiece': give 'char', 'bpe', 'gpt2'"),
    ({"seed": 3}, "seed=3 would do nothing"),
    ({"val_fraction": 0.0}, "val_fraction must be above 0"),
    ({"limit": 0}, "limit must be at least 1"),
    ({"workers": 0}, "workers must be at least 1"),
]


@pytest.mark.parametrize(("settings", "sentence"), SETTINGS)
def test_settings_that_make_no_sense(corpus: Path, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(corpus, tmp_path / "out", **settings)


def test_field_without_anything_that_has_fields(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="field='body' would do nothing"):
        run(corpus / "c.txt", tmp_path / "out", field="body")
    with pytest.raises(ValueError, match="has no field 'body'; its fields are text: choose one with --field"):
        run(corpus, tmp_path / "out", field="body")


def test_names(corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(corpus / "c.txt", None).folder == Path("data/c")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="have no common name: give the folder of the data, --out FOLDER"):
        run(corpus, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'shakespear' is neither .*: did you mean 'shakespeare'"):
        prepare(["shakespear"], tokenizer="char")
    with pytest.raises(ValueError, match="nothing to prepare"):
        prepare([], tokenizer="char")
    with pytest.raises(ValueError, match="named twice"):
        prepare(["shakespeare", "shakespeare"], tokenizer="char")


BOOK = (
    "\ufeffThe Project Gutenberg eBook\r\n\r\n*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\r\n\r\n\r\n"
    "Chapter 1\r\n\r\nIt was a dark night.\r\n\r\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\r\nLicence\r\n"
)


def test_a_book_without_gutenbergs_header_and_licence() -> None:
    assert without_gutenberg(BOOK, "x") == "Chapter 1\n\nIt was a dark night.\n"
    with pytest.raises(ValueError, match="its START and END lines are missing"):
        without_gutenberg("no book", "x")


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, bytes]]]:
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files[self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", files
    server.shutdown()
    server.server_close()


def test_a_named_source_is_fetched_once_and_pinned(
    web: tuple[str, dict[str, bytes]], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, files = web
    files["book.txt"] = BOOK.encode()
    monkeypatch.setitem(sources.TEXT, "book", WebText(((url + "book.txt", None),), gutenberg=True))
    monkeypatch.chdir(tmp_path)
    summary = prepare(["book"], tokenizer="char")
    assert summary.folder == Path("data/book")
    [part] = summary.manifest.sources[0]["parts"]
    assert part["name"] == url + "book.txt"
    assert part["sha256"] == hashlib.sha256(BOOK.encode()).hexdigest()
    tokenizer = load_tokenizer(summary.folder)
    text = "".join(tokenizer.decode(open_split(summary.folder, split).tokens) for split in ("train", "val"))
    assert text == "Chapter 1\n\nIt was a dark night.\n"
    files["book.txt"] = b"another text altogether"
    assert prepare(["book"], tokenizer="char").status == "already prepared"
    (tmp_path / "data/.cache/web/book/book.txt").unlink()
    with pytest.raises(ValueError, match="seen at the first download"):
        prepare(["book"], tokenizer="char", force=True)


def test_offline_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = WebText((("http://no-such-host.invalid/a.txt", None),))
    monkeypatch.setitem(sources.TEXT, "away", away)
    with pytest.raises(UnavailableError, match="seems to be offline; fetch the file on another machine"):
        prepare(["away"], tmp_path / "out", tokenizer="char", cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


def test_progress_is_reported_and_drawn_only_on_terminals(corpus: Path, tmp_path: Path, capfd: Any) -> None:
    seen: list[PreparationProgress] = []
    run(corpus, tmp_path / "out", report=seen.append)
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages[:4] == ["hashing files", "looking through the text", "collecting characters", "encoding"]
    encoding_steps = [progress for progress in seen if progress.stage == "encoding"]
    assert [p.done for p in encoding_steps] == sorted(p.done for p in encoding_steps)
    assert encoding_steps[-1].done == encoding_steps[-1].total
    with preparation_bars() as report:
        run(corpus, tmp_path / "again", report=report)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.strip() == ""


def test_hamlet_keeps_its_own_splits(tmp_path: Path) -> None:
    from understudy.hamlet import stories

    def prepared(out: str, **settings: Any) -> TextSummary:
        return prepare(["hamlet"], tmp_path / out, tokenizer="char", limit=30, **settings)

    summary = prepared("out", seed=7)
    for split in ("train", "val"):
        written = stories(7, split)
        assert documents(tmp_path / "out", split) == [next(written) for _ in range(30)]
    [source] = summary.manifest.sources
    assert source["validation"] == "own" and summary.manifest.seed == 7
    assert prepared("out", seed=7).status == "already prepared"
    with pytest.raises(ValueError, match=r"\(other sources\)"):
        prepared("out", seed=8)
    with pytest.raises(ValueError, match="hamlet has its own validation split"):
        prepared("out", val_fraction=0.1)


def test_several_sources_each_have_their_rule(corpus: Path, tmp_path: Path) -> None:
    summary = prepare(["hamlet", str(corpus), str(corpus / "c.txt")], tmp_path / "out", tokenizer="char", limit=120)
    assert [source["validation"] for source in summary.manifest.sources] == ["own", "hash"]
    assert [source["documents"] for source in summary.manifest.sources] == [240, 120]
    assert len(documents(tmp_path / "out", "train")) + len(documents(tmp_path / "out", "val")) == 360


END = "<|endoftext|>"


def test_an_end_of_text_in_the_text_is_noticed(tmp_path: Path) -> None:
    text = tmp_path / "stories.txt"
    text.write_text(f"\n{END}\n".join(story(i) for i in range(150)), "utf-8")
    summary = run(text, tmp_path / "one")
    assert summary.manifest.end_of_text_spelled == 149 and summary.manifest.eot_id is None
    assert f"the text spells {END} 149 times" in str(summary) and f"--separator '{END}'" in str(summary)


@pytest.mark.parametrize("piece_chars", [1 << 20, 100])
def test_a_separator_ends_documents(tmp_path: Path, piece_chars: int) -> None:
    text = tmp_path / "stories.txt"
    stories = [story(i) * (1 + 9 * (i % 3)) for i in range(150)]
    text.write_text(f"{END}\n".join([*stories, "", "\n"]), "utf-8")
    summary = run(text, tmp_path / "out", separator=END, piece_chars=piece_chars)
    ended = documents(tmp_path / "out", "train") + documents(tmp_path / "out", "val")
    assert sorted(ended) == sorted(s.rstrip("\n") for s in stories)
    assert summary.manifest.end_of_text_spelled == 0 and summary.manifest.request["separator"] == END
    with pytest.raises(ValueError, match=r"prepared otherwise \(other separator\)"):
        run(text, tmp_path / "out")
    with pytest.raises(ValueError, match=r"separator='x' would do nothing"):
        prepare(["hamlet"], tmp_path / "x", separator="x")


def test_documents_that_are_all_the_same_are_named(tmp_path: Path) -> None:
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"text": "The same."}\n' * 150)
    for settings in ({}, {"val_fraction": 0.5}):
        with pytest.raises(ValueError, match="the 150 documents are all the same"):
            run(rows, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_raw_text_given_to_a_stage_is_refused_with_the_command_that_prepares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from understudy.cli import main

    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("".join(story(i) for i in range(99)), "utf-8")
    assert main(["pretrain", "shakespeare-bpe", "--data", "book.txt", "--run", "r"]) == 2
    message = capfd.readouterr().err
    command = "understudy prepare book.txt --out data/book"
    assert f"book.txt is a file, which must be prepared first: `{command}`" in message
    with pytest.raises(ValueError, match="prepared first"):
        open_split(Path("book.txt"), "train")
    assert main(["prepare", "book.txt", "--out", "data/book", "--vocab-size", "270"]) == 0


# Two processes.

HOLD = """
import sys, time
from pathlib import Path
from understudy.files import locked
with locked(Path(sys.argv[1]), "--out"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["text", "conversations"])
def test_two_preparations_of_one_folder_are_not_mixed(
    corpus: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from understudy.cli import main

    source = corpus / "a.jsonl"
    if kind == "conversations":
        rows = ({"prompt": f"{i}?", "response": "Yes."} for i in range(50))
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    command = ["prepare", str(source), "--kind", kind, "--out", str(out)]
    command += ["--tokenizer", "char"] if kind == "text" else []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert main(command) == 2
        message = capfd.readouterr().err
        assert f"{out} is being written by process {holder.pid} on " in message and "another --out" in message
        holder.communicate("")
    assert not out.exists(), "a folder that stayed empty is removed"
    assert main(command) == 0
    assert ".lock" not in {path.name for path in out.iterdir()}
    assert main(command) == 0 and "already prepared" in capfd.readouterr().err


def test_preparing_at_once_many_times_never_gives_other_bytes(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "alone")
    command = [sys.executable, "-m", "understudy", "prepare", str(corpus), "--tokenizer", "char", "--out"]
    processes = [
        subprocess.Popen([*command, str(tmp_path / "out")], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        _, message = process.communicate()
        assert process.returncode == 0 or "is being written by" in message, message
    assert [process.returncode for process in processes].count(0) >= 1
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_bytes_that_changed_since_they_were_written_are_noticed(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out")
    file = tmp_path / "out" / "train.bin"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.bin has the SHA-256 .* it was changed or damaged since"):
        run(corpus, tmp_path / "out")
    assert run(corpus, tmp_path / "out", force=True).status == "prepared"


def test_bytes_that_another_process_writes_meanwhile_are_noticed(corpus: Path, tmp_path: Path) -> None:
    def meddle(progress: PreparationProgress) -> None:
        if progress.stage == "encoding" and progress.tokens > 3000:
            with (tmp_path / "out" / ".partial" / "train.bin").open("r+b") as file:
                file.write(b"xy")

    with pytest.raises(ValueError, match=r"train\.bin has the SHA-256"):
        run(corpus, tmp_path / "out", report=meddle)
    assert not (tmp_path / "out").exists()


def test_a_second_generated_corpus_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from understudy.data.chat.prepare import prepare_conversations
    from understudy.data.generated import CORPORA, PROMPT_CORPORA

    class Counting:
        counts: ClassVar = {"text": {"train": 40, "val": 4}, "conversations": {"train": 20, "val": 3}}
        annotators: ClassVar[dict[str, float]] = {}

        def texts(self, seed: int, split: str) -> Iterator[str]:
            yield from (f"{split} {seed} {i}\n" for i in range(1000))

        def records(self, kind: str, seed: int, split: str, count: int) -> Iterator[dict[str, Any]]:
            for i in range(count):
                yield {"messages": [{"role": "user", "content": f"{split} {i}"}, {"role": "assistant", "content": "x"}]}

    for table in (CORPORA, PROMPT_CORPORA):
        monkeypatch.setitem(table, "counting", Counting())  # type: ignore[arg-type]
    monkeypatch.setitem(sources.TEXT, "counting", sources.Generated("counting"))
    monkeypatch.setitem(sources.CONVERSATIONS, "counting", sources.Generated("counting"))
    summary = prepare(["counting"], tmp_path / "text", tokenizer="char", seed=3)
    assert {k: v.documents for k, v in summary.manifest.splits.items()} == {"train": 40, "val": 4}
    assert documents(tmp_path / "text", "val")[0] == "val 3 0\n"
    manifest = prepare_conversations(["counting"], tmp_path / "chat").manifest
    assert (manifest["sources"][0]["train"], manifest["sources"][0]["val"]) == (20, 3)
