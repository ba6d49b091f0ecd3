"""The hub: which files stand for a dataset, fetched one by one, from a small server that does as it does."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from processes import run_python
from understudy.cli import main
from understudy.data.chat.prepare import prepare_conversations
from understudy.data.fetch.download import UnavailableError
from understudy.data.fetch.hub import HubDataset, fetch_file, list_dataset, parse_hub_name
from understudy.data.sources import NAMED, Request, Source, list_sources, open_feed
from understudy.data.text.reading import read_file

MAIN = "1" * 40
CONVERTED = "2" * 40


def parquet(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), buffer)
    return buffer.getvalue()


class FakeHub:
    """Datasets as {repo: {commit: {path: bytes}}}, and the configs of their cards."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.configs: dict[str, list[dict[str, Any]]] = {}
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def log_message(self, *arguments: object) -> None:
                pass

            def answer(self, with_body: bool) -> None:
                status, headers, body = hub.respond(unquote(urlsplit(self.path).path), with_body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def respond(self, path: str, with_body: bool) -> tuple[int, dict[str, str], bytes]:
        for repo, commits in self.repos.items():
            known = {"main": MAIN, "refs/convert/parquet": CONVERTED, MAIN: MAIN, CONVERTED: CONVERTED}
            for name, commit in known.items():
                if commit not in commits:
                    if path in (f"/api/datasets/{repo}/revision/{name}",):
                        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
                    continue
                files = commits[commit]
                if path in (f"/api/datasets/{repo}", f"/api/datasets/{repo}/revision/{name}"):
                    card = {"configs": self.configs.get(repo)}
                    info = {"id": repo, "sha": commit, "private": False, "tags": [], "likes": 0}
                    return 200, {}, json.dumps({**info, "cardData": card}).encode()
                if path == f"/api/datasets/{repo}/tree/{name}":
                    return 200, {}, json.dumps([self.entry(p, data) for p, data in files.items()]).encode()
                for file, data in files.items():
                    if path == f"/datasets/{repo}/resolve/{name}/{file}":
                        if with_body:
                            self.fetched.append(file)
                        tag = hashlib.sha256(data).hexdigest()
                        return 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit}, data
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def entry(self, path: str, data: bytes) -> dict[str, Any]:
        oid = hashlib.sha256(data).hexdigest()
        lfs = {"oid": oid, "size": len(data), "pointerSize": 100}
        return {"type": "file", "path": path, "size": len(data), "oid": "0" * 40, "lfs": lfs}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def listed(hub: FakeHub, name: str) -> list[str]:
    return [file.path for file in list_dataset(parse_hub_name(name), hub.url).files]


def test_names() -> None:
    assert parse_hub_name("hf:a/b") == HubDataset("a/b")
    assert parse_hub_name("hf:a/b-c.d:en#content") == HubDataset("a/b-c.d", config="en", field="content")
    with pytest.raises(ValueError, match="names no dataset"):
        parse_hub_name("hf:a/b/c")


def test_reads_the_repository_s_own_parquet_one_file_at_a_time(hub: FakeHub, tmp_path: Path) -> None:
    first, second = parquet(["one", "two"]), parquet(["three"])
    hub.repos["a/b"] = {MAIN: {"data/train-1.parquet": second, "data/train-0.parquet": first, "README.md": b"x"}}
    source = Source("hf:a/b", 1.0, HubDataset("a/b"))
    request = Request("text", (source,), None, None, 0, {})
    feed = open_feed(source, request, read_file, tmp_path, lambda progress: None, endpoint=hub.url)
    assert [part.name for part in feed.parts] == ["data/train-0.parquet", "data/train-1.parquet"]
    assert feed.parts[0].sha256 == hashlib.sha256(first).hexdigest() and feed.revision == MAIN
    assert [piece.text for piece in feed.read(0)] == ["one", "two"]
    assert hub.fetched == ["data/train-0.parquet"]
    assert [piece.text for piece in feed.read(1)] == ["three"]
    assert [piece.text for piece in feed.read(0)] == ["one", "two"]
    assert hub.fetched == [part.name for part in feed.parts], "what is in the cache is not fetched again"


def test_training_split_by_name_where_the_card_says_nothing(hub: FakeHub) -> None:
    data = parquet(["x"])
    hub.repos["a/b"] = {MAIN: {f"en/{split}-0.parquet": data for split in ("train", "test", "validation")}}
    assert listed(hub, "hf:a/b") == ["en/train-0.parquet"]
    hub.repos["a/b"][MAIN] = {"x.parquet": data, "x.test.parquet": data}
    assert listed(hub, "hf:a/b") == ["x.parquet"]


def test_configs_of_the_card(hub: FakeHub) -> None:
    data = parquet(["x"])
    paths = ["de/train-0.parquet", "en/test-0.parquet", "en/train-0.parquet", "en/train-1.parquet"]
    hub.repos["a/b"] = {MAIN: dict.fromkeys(paths, data)}
    hub.configs["a/b"] = [
        {"config_name": "en", "data_files": [{"split": s, "path": f"en/{s}-*"} for s in ("train", "test")]},
        {"config_name": "de", "data_files": "de/*"},
        {"config_name": "all", "data_dir": "en"},
    ]
    assert listed(hub, "hf:a/b:en") == ["en/train-0.parquet", "en/train-1.parquet"]
    assert listed(hub, "hf:a/b:de") == ["de/train-0.parquet"]
    assert listed(hub, "hf:a/b:all") == ["en/train-0.parquet", "en/train-1.parquet"]
    with pytest.raises(ValueError, match="several configs; write hf:a/b:CONFIG with one of all, de, en"):
        listed(hub, "hf:a/b")
    with pytest.raises(ValueError, match="no config 'fr'"):
        listed(hub, "hf:a/b:fr")


def test_falls_back_on_the_hub_s_conversion_and_says_when_it_is_partial(hub: FakeHub) -> None:
    data = parquet(["x"])
    hub.repos["a/b"] = {
        MAIN: {"subsets/urlsf_00.tar": b"tar"},
        CONVERTED: {"plain_text/partial-train/0000.parquet": data, "plain_text/test/0000.parquet": data},
    }
    listing = list_dataset(HubDataset("a/b"), hub.url)
    assert [file.path for file in listing.files] == ["plain_text/partial-train/0000.parquet"]
    assert listing.revision == CONVERTED and "only the beginning" in listing.note


def test_nothing_to_read(hub: FakeHub) -> None:
    hub.repos["a/b"] = {MAIN: {"data.tar": b"tar"}}
    with pytest.raises(ValueError, match="holds no parquet files, nor has the hub converted it"):
        list_dataset(HubDataset("a/b"), hub.url)
    with pytest.raises(ValueError, match="there is no dataset no/such"):
        list_dataset(HubDataset("no/such"), hub.url)


def test_a_damaged_file_is_removed(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["a/b"] = {MAIN: {"train.parquet": parquet(["right"])}}
    file = list_dataset(HubDataset("a/b"), hub.url).files[0]
    hub.repos["a/b"][MAIN]["train.parquet"] = parquet(["wrong"])
    with pytest.raises(UnavailableError, match="arrived damaged"):
        fetch_file("a/b", MAIN, file, tmp_path, hub.url)
    hub.repos["a/b"][MAIN]["train.parquet"] = parquet(["right"])
    assert fetch_file("a/b", MAIN, file, tmp_path, hub.url).is_file()


def test_no_hub_in_reach(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="fetch its parquet files on another machine"):
        list_dataset(HubDataset("a/b"), "http://127.0.0.1:9")


def test_named_sources_have_a_licence_and_their_files_are_where_they_say(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list_sources()
    assert all(row["licence"] and row["licence"] != "not stated" and row["what"] for row in rows)
    assert {"opensubtitles", "gutenberg", "wikipedia", "fineweb-edu", "climbmix", "smoltalk2", "oasst", "hh", "ultrafeedback",
            "tinystories"} <= {row["name"] for row in rows}  # fmt: skip
    data = parquet(["x"])
    for row in rows:
        origin = NAMED[row["kind"]][row["name"]]
        if isinstance(origin, HubDataset):
            wanted = [pattern.replace("*", "0") for pattern in (origin.files, origin.val_files) if pattern]
            hub.repos = {origin.repo: {MAIN: dict.fromkeys([*wanted, "data/other_think-0.parquet"], data)}}
            listing = list_dataset(origin, hub.url)
            assert [file.path for file in listing.files if file.path in wanted] == sorted(wanted, key=wanted.index)
            splits = [file.split for file in listing.files]
            assert splits == (["train", "val"] if origin.val_files else [None])
    hh = NAMED["preferences"]["hh"]
    assert isinstance(hh, HubDataset)
    files = {f"default/{split}/0000.parquet": data for split in ("train", "test", "validation")}
    hub.repos = {"Anthropic/hh-rlhf": {MAIN: {"helpful-base/train.jsonl.gz": b"x"}, CONVERTED: files}}
    listing = list_dataset(hh, hub.url)
    assert [(file.path, file.split) for file in listing.files] == [
        ("default/train/0000.parquet", "train"), ("default/test/0000.parquet", "val")
    ]  # fmt: skip
    assert listing.revision == CONVERTED
    assert main(["prepare", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["source", "kind", "licence", "size", "rows", "contents"]
    assert len(lines) == len(rows) + 1
    assert any(line.startswith("wikipedia ") and "CC BY-SA 3.0, GFDL" in line and "11.6" in line for line in lines)
    assert main(["prepare", "--list", "--kind", "preferences", "--json"]) == 0
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)} == {"preferences"}
    assert (
        main(["prepare", "--list", "--out", "x"]) == 2 and "--out does nothing with --list" in capsys.readouterr().err
    )
    assert main(["prepare", "wikipedia", "--list"]) == 2 and "leave wikipedia out" in capsys.readouterr().err
    for given, meant in (
        ("wikipeda", "wikipedia"),
        ("TinyStories2", "tinystories"),
        ("gsm8", "gsm8k', with --kind conv"),
    ):
        assert main(["prepare", given]) == 2 and f"did you mean '{meant}" in capsys.readouterr().err


def test_trees_from_the_hub_with_their_splits(hub: FakeHub, tmp_path: Path) -> None:
    def tree(n: int) -> list[dict[str, Any]]:
        return [{"message_id": f"{n}", "parent_id": None, "role": "prompter", "text": f"Q{n}?", "rank": None},
                {"message_id": f"{n}a", "parent_id": f"{n}", "role": "assistant", "text": f"A{n}.", "rank": 0},
                {"message_id": f"{n}b", "parent_id": f"{n}", "role": "assistant", "text": f"B{n}.", "rank": 1}]  # fmt: skip

    def table(numbers: range) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([message for n in numbers for message in tree(n)]), buffer)
        return buffer.getvalue()

    files = {"data/train-0.parquet": table(range(9)), "data/validation-0.parquet": table(range(20, 22))}
    hub.repos["OpenAssistant/oasst2"] = {MAIN: files}
    for kind in ("conversations", "preferences"):
        out = tmp_path / kind
        manifest = prepare_conversations(["oasst"], out, kind=kind, cache=tmp_path, endpoint=hub.url).manifest
        assert {name: split[kind] for name, split in manifest["splits"].items()} == {"train": 9, "val": 2}


def test_text_from_the_hub_with_validation_files(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["a/b"] = {MAIN: {"train-0.parquet": parquet([f"Document {n}." for n in range(120)])}}
    (tmp_path / "held.txt").write_text("A held-out text, which is long enough to be of use. " * 20)
    words = [
        "-c",
        PREPARE_WITH_VALIDATION,
        "hf:a/b",
        str(tmp_path / "out"),
        str(tmp_path / "cache"),
        str(tmp_path / "held.txt"),
    ]
    done = run_python(words, tmp_path, {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["120", "1"]


PREPARE_WITH_VALIDATION = """
import sys
from pathlib import Path
from understudy.data.text.prepare import prepare
made = prepare([sys.argv[1]], Path(sys.argv[2]), tokenizer="char", cache=Path(sys.argv[3]), validation=[sys.argv[4]])
print(*(made.manifest.splits[split].documents for split in ("train", "val")))
"""
PREPARE = """
import sys
from pathlib import Path
from understudy.data.text.prepare import prepare
print(prepare([sys.argv[1]], Path(sys.argv[2]), tokenizer="char", cache=Path(sys.argv[3])).status)
"""


def test_prepared_from_the_hub_as_from_the_same_files_here(hub: FakeHub, tmp_path: Path) -> None:
    """With HF_ENDPOINT, which the library reads once, hence in a separate process."""
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(2):
        (folder / f"train-{n}.parquet").write_bytes(parquet([f"Document {n} {i}." for i in range(80)]))
    hub.repos["a/b"] = {MAIN: {p.name: p.read_bytes() for p in folder.iterdir()}}

    def prepared(source: str, out: str) -> str:
        words = ["-c", PREPARE, source, str(tmp_path / out), str(tmp_path / "cache")]
        done = run_python(words, tmp_path, {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert prepared("hf:a/b", "hub") == prepared(str(folder), "here") == "prepared"
    for split in ("train", "val"):
        assert (tmp_path / f"hub/{split}.bin").read_bytes() == (tmp_path / f"here/{split}.bin").read_bytes()
    [source] = json.loads((tmp_path / "hub/manifest.json").read_text())["sources"]
    assert source["revision"] == MAIN and source["parts"][0]["name"] == "train-0.parquet"
    hub.repos.clear()
    assert prepared("hf:a/b", "hub") == "already prepared", "what is done needs no network"
