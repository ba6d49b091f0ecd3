"""Cleaning of training text: filters, copies, repeated sentences, decontamination, resuming, refusals."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_corpus import documents
from understudy.cli import main
from understudy.data import layout
from understudy.data.progress import PreparationProgress
from understudy.data.quality import cleaning, examining
from understudy.data.quality.contamination import Benchmark, read_benchmark
from understudy.data.quality.copies import SENTENCE, Signer, first_of_groups, repeated_spans
from understudy.data.quality.filters import WordSplitter, make_steps
from understudy.data.quality.settings import FILTERS, QualitySettings, quality_settings
from understudy.data.text.prepare import merge, prepare, prepare_task
from understudy.data.text.shards import read_manifest

WORDS = [
    "the", "of", "and", "with", "river", "carries", "small", "boats", "toward", "an", "old", "harbour", "where", "people", "mend",
    "their", "nets", "that", "morning", "market", "sells", "bread", "apples", "wool", "every", "winter", "snow", "covers", "roofs",
    "children", "sing", "near", "church", "while", "travellers", "rest", "beside", "warm", "fires", "telling", "long", "stories",
]  # fmt: skip
QUESTION = "Which seven animals did the quick brown fox ask about their private opinion of hens and geese?"


def page(seed: int, sentences: int = 10) -> str:
    """A page of distinct sentences that all filters let through."""
    rng = random.Random(seed)
    lines = [" ".join(rng.choices(WORDS, k=11)).capitalize() + "." for _ in range(sentences)]
    return "\n".join(" ".join(lines[i : i + 2]) for i in range(0, sentences, 2))


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def changed(text: str, share: float, seed: int = 0) -> str:
    """A text with a share of its words replaced."""
    rng = random.Random(seed)
    return " ".join(word if rng.random() >= share else f"w{rng.randrange(10**6)}" for word in text.split())


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small text is many batches and shards."""
    monkeypatch.setattr(examining, "SHARD_CHARS", 6000)
    monkeypatch.setattr(examining, "BATCH_DOCUMENTS", 3)


DIRTY = [
    *(page(i) for i in range(30)),
    page(3), "  " + page(4) + "\n",
    changed(page(5, 40), 0.01), page(5, 40),
    page(40, 6) + "\n" + page(41, 6), page(42, 6) + "\n" + page(41, 6),
    page(61, 3),
    page(43).replace("river", "{river}", 1) + " {",
    page(44) + " Write to someone@somewhere.org today.",
    page(45, 4) + "\n" + QUESTION + "\n" + page(46, 4),
    "   \n",
]  # fmt: skip
"""Pages, and one or two of each fault."""
SETTINGS: dict[str, Any] = {
    "filters": ["fineweb", "pii", "language:en"], "dedup": ["minhash", "sentence"],
    "decontaminate": [Benchmark("riddles", ((QUESTION, "None of them."),))], "tokenizer": "bpe", "vocab_size": 300,
}  # fmt: skip


def test_filters_give_what_datatrove_gives() -> None:
    from datatrove_filters import datatrove_chains, filtered_by_both

    texts = [
        *DIRTY, "", "word " * 200, "- one\n" * 40, "# " * 100, "… " * 300, "a b c d e. " * 80, page(1) + "\n" + page(1),
        page(2) + "\nThis site uses cookies.\nlorem ipsum dolor sit amet is here.", "12345 " * 90, "Home\nNews\nMail\n" * 30,
        "Pneumonoultramicroscopicsilicovolcanoconiosis " * 60, page(7).replace("\n", "\n\n") * 3, page(8) + " 203.0.113.7 8.8.8.8",
    ]  # fmt: skip
    chains = datatrove_chains()
    assert chains.keys() == FILTERS.keys()
    for name, chain in chains.items():
        steps = make_steps(QualitySettings((name,)), WordSplitter("en"))
        dropped = 0
        for text in texts:
            ours, theirs = filtered_by_both(steps, chain, text)
            assert ours == theirs, (name, text)
            dropped += ours is None
        assert name == "pii" or 0 < dropped < len(texts), name


def test_signatures_and_contamination_are_those_of_datatrove(tmp_path: Path) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.decont import NGramsDecontFilter
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    texts = [page(i) for i in range(12)] + [changed(page(i, 40), 0.02 * i, i) for i in range(6)] * 2
    texts += [page(i, 40) for i in range(6)] + ["three small words"] * 2
    steps = [MinhashDedupSignature(str(tmp_path / "s")), MinhashDedupCluster(str(tmp_path / "b"), str(tmp_path / "c"))]
    steps[0].run((Document(text=text, id=str(i)) for i, text in enumerate(texts)))
    for bucket in range(MinhashConfig().num_buckets):
        MinhashDedupBuckets(str(tmp_path / "s"), str(tmp_path / "b")).run(None, bucket, MinhashConfig().num_buckets)
    steps[1].run()
    removed = len((tmp_path / "c" / "000000.remove").read_bytes()) // 4
    words = WordSplitter("en")
    signer = Signer(("minhash",), words)
    bands = np.array([signer.bands(text) for text in texts])
    first = first_of_groups(iter(bands.T), np.arange(len(texts)))
    assert (first != np.arange(len(texts))).sum() == removed > 5
    assert (first <= np.arange(len(texts))).all(), "the first of a group stays"
    long_question = QUESTION + " It is a matter of taste."
    index = [words.hash_of(" ".join(words.simplified(long_question)[i : i + 12])) for i in range(8)]
    (tmp_path / "index").mkdir()
    np.array(index, np.uint64).tofile(tmp_path / "index" / "riddles.index.hashes")
    theirs = NGramsDecontFilter(str(tmp_path / "index"))
    ours = make_steps(QualitySettings(benchmarks=(Benchmark("riddles", ((long_question,),)),)), words)[
        "decontamination"
    ]
    spellings = [long_question.upper(), long_question.replace(" ", "\n"), long_question.replace("seven", "7"), page(1)]
    spellings += [
        page(1) + " " + " ".join(long_question.split()[2:13]),
        page(1) + " " + " ".join(long_question.split()[2:15]),
    ]
    results = [theirs.filter(Document(text=text, id="0")) is True for text in spellings]
    assert [ours(text).text is not None for text in spellings] == results
    assert set(results) == {True, False}


def test_everything_planted_is_found(tmp_path: Path, small_shards: None) -> None:
    source = write(tmp_path / "dirty.jsonl", DIRTY)
    summary = prepare([str(source)], tmp_path / "out", **SETTINGS)
    quality = summary.manifest.quality
    assert quality is not None and quality["read"]["documents"] == len(DIRTY)
    assert {reason: count for reason, (count, _) in quality["dropped"].items()} == {
        "exact: copy of another document": 2,
        "minhash: near copy of another document": 1,
        "gopher quality: fewer than 50 words": 1,
        "c4 except line ends: has a curly bracket": 1,
        "decontamination: has a question of riddles": 1,
        "empty": 1,
    }
    text = "".join(documents(tmp_path / "out", "train") + documents(tmp_path / "out", "val"))
    assert "someone@somewhere.org" not in text and "email@example.com" in text
    assert text.count(page(41, 6).split(". ")[1]) == 1, "a repeated span of sentences stays once"
    assert quality["kept"]["documents"] == sum(i.documents for i in summary.manifest.splits.values()) // 2
    content = json.loads((tmp_path / "out" / "quality.json").read_text("utf-8"))
    near = content["tally"]["dropped"]["minhash: near copy of another document"]["examples"]
    assert len(near) == 1 and near[0]["detail"] == "similarity 0.89" and "document 34" in near[0]["where"]
    assert not (tmp_path / "out" / ".partial").exists()


def result(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_processes_and_interruptions_change_no_byte(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "SMALL_BYTES", 0)
    source = write(tmp_path / "dirty.jsonl", DIRTY)
    prepare([str(source)], tmp_path / "whole", workers=1, **SETTINGS)
    prepare([str(source)], tmp_path / "several", workers=2, **SETTINGS)
    assert result(tmp_path / "several") == result(tmp_path / "whole")
    for stage in ("cleaning", "removing copies"):
        calls = 0

        def interrupt(progress: PreparationProgress, stage: str = stage) -> None:
            nonlocal calls
            calls += progress.stage == stage
            if calls == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare([str(source)], tmp_path / stage, workers=1, report=interrupt, **SETTINGS)
        assert (tmp_path / stage / ".partial" / "quality").is_dir()
        assert prepare([str(source)], tmp_path / stage, workers=1, **SETTINGS).status == "continued"
        assert result(tmp_path / stage) == result(tmp_path / "whole")
    assert prepare([str(source)], tmp_path / "whole", **SETTINGS).status == "already prepared"
    with pytest.raises(ValueError, match=r"other quality"):
        prepare([str(source)], tmp_path / "whole", **SETTINGS | {"dedup": []})


def test_tasks_share_the_filters_and_change_no_byte(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, part in (("a", DIRTY[:13]), ("b", DIRTY[13:14]), ("c", DIRTY[14:])):
        write(folder / f"{name}.jsonl", part)
    (folder / "c.jsonl").write_text((folder / "c.jsonl").read_text() + "{\n")
    (folder / "d.jsonl").write_text("")
    sources, settings = [str(folder)], SETTINGS | {"workers": 1}
    prepare(sources, tmp_path / "whole", **settings)
    for tasks in (2, 7):
        out = tmp_path / f"in-{tasks}"
        with pytest.raises(ValueError, match="holds no tasks to merge"):
            merge(out)
        for task in range(tasks - 1, 0, -1):
            assert prepare_task(sources, out, tasks, task, **settings).status == "done"
        assert prepare_task(sources, out, tasks, 1, **settings).status == "already done"
        with pytest.raises(ValueError, match=rf"1 of {tasks} tasks that clean text are not done \(0\)"):
            prepare(sources, out, cleaning_tasks=tasks, **settings)
        with pytest.raises(ValueError, match=r"the tasks of .* clean text, and the rest is done from the sources"):
            merge(out)
        with pytest.raises(ValueError, match=rf"unfinished preparation in {tasks} tasks: give --tasks {tasks}"):
            prepare_task(sources, out, tasks + 1, 0, **settings)
        with pytest.raises(ValueError, match=r"other quality"):
            prepare_task(sources, out, tasks, 0, **settings | {"dedup": []})
        with (
            monkeypatch.context() as patch,
            pytest.raises(ValueError, match=r"was begun by version .* and this is 9.9"),
        ):
            patch.setattr(layout, "__version__", "9.9")
            prepare_task(sources, out, tasks, 0, **settings)
        killed = out / ".partial/quality/task-00000"
        killed.mkdir()
        (killed / "00000.jsonl.zst").write_bytes(b"of a task that was killed")
        assert "finish with the same command without --task" in str(prepare_task(sources, out, tasks, 0, **settings))
        prepare(sources, out, cleaning_tasks=tasks, **settings)
        assert result(out) == result(tmp_path / "whole")
        assert prepare_task(sources, out, tasks, 0, **settings).status == "already prepared"
    with pytest.raises(ValueError, match="--limit counts documents from the beginning"):
        prepare_task(sources, tmp_path / "limited", 2, 0, **settings | {"limit": 3})


def test_given_validation_text_is_left_as_it_is(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [page(i) for i in range(12)])
    val = write(tmp_path / "b.jsonl", [page(3), "Short.", page(50), page(50)])
    summary = prepare(
        [str(train)], tmp_path / "out", tokenizer="bpe", vocab_size=300, validation=[str(val)], filters=["gopher"],
        dedup=["exact"],
    )  # fmt: skip
    assert documents(tmp_path / "out", "val") == [page(3), "Short.", page(50), page(50)]
    assert documents(tmp_path / "out", "train") == [page(i) for i in range(12) if i != 3]
    assert summary.manifest.quality is not None and summary.manifest.quality["validation"]["documents"] == 4
    limited = prepare([str(train)], tmp_path / "few", tokenizer="bpe", vocab_size=300, dedup=["exact"], limit=5)
    assert limited.manifest.quality is not None and limited.manifest.quality["read"]["documents"] == 5


def test_groups_and_spans() -> None:
    columns = [np.array([1, 1, 2, 0, 0, 3], np.uint64), np.array([7, 8, 7, 0, 0, 9], np.uint64)]
    assert first_of_groups(iter(columns), np.arange(6)).tolist() == [0, 0, 0, 3, 4, 5]
    assert first_of_groups(iter(columns), np.array([5, 4, 0, 1, 2, 3])).tolist() == [2, 2, 2, 3, 4, 5]
    rows = np.array([(9, 0, 0), (9, 1, 4), (8, 1, 5), (9, 1, 6), (8, 2, 0)], SENTENCE)
    found = repeated_spans([rows[:2], rows[2:]], np.arange(3))
    assert sorted((row["doc"], row["sentence"]) for row in found) == [(1, 4), (1, 6), (2, 0)]


def test_a_file_of_questions(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [QUESTION])
    (tmp_path / "b.txt").write_text(f"A heading\n\n{QUESTION}\n\n{page(1)}", "utf-8")
    assert read_benchmark(tmp_path / "a.jsonl").questions == ((QUESTION,),)
    assert (QUESTION,) in read_benchmark(tmp_path / "b.txt").questions
    short = Benchmark("s", (("Who mended the nets near the old harbour?",), ("Why?",)))
    step = make_steps(QualitySettings(benchmarks=(short,)), WordSplitter("en"))["decontamination"]
    assert step(page(1) + " who mended the nets near the old harbour").text is None
    assert step(page(1) + " who mended the nets near an old harbour").text is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--filter", "goffer"], r"there is no filter 'goffer' \(did you mean gopher\?\): filters are gopher, c4, fineweb, pii, language:CODE"),
        (["--filter", "language:english"], r"no language 'english' can be recognised: give its code"),
        (["--filter", "gopher,language:de"], r"the filter gopher counts English words and would drop all text in de"),
        (["--filter", ","], r"--filter names nothing"),
        (["--dedup", "fuzzy"], r"there is no deduplication 'fuzzy': choose of exact, minhash, sentence"),
        (["--decontaminate", "gsm9k"], r"neither a task nor a file 'gsm9k' \(did you mean gsm8k\?\)"),
        (["--kind", "conversations", "--dedup", "exact"], r"--dedup does nothing with --kind conversations"),
        (["--filter", "gopher"], r"nothing is left of 2 documents: 2 were dropped by gopher quality: fewer than 50 words"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str) -> None:
    source = write(tmp_path / "a.jsonl", [page(61, 3), page(62, 3)])
    assert main(["prepare", str(source), "--out", str(tmp_path / "out"), *options]) == 2
    assert re.search(sentence, " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ValueError, match=r"text is cleaned with spacy, .*: pip install 'understudy\[quality\]'"):
        quality_settings(["c4"])
    assert quality_settings(dedup=["exact"]) is not None, "which needs no library"
    assert quality_settings() is None


def test_the_command_writes_a_table_and_a_page(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "dirty.jsonl", [*DIRTY, page(60).replace("river", "<b>&")])
    write(tmp_path / "riddles.jsonl", [QUESTION])
    arguments = ["prepare", str(source), "--out", str(tmp_path / "out"), "--vocab-size", "300", "--filter", "c4,pii"]
    arguments += ["--dedup", "minhash", "--decontaminate", str(tmp_path / "riddles.jsonl"), "--json"]
    assert main(arguments) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["quality"]["dropped"]["exact: copy of another document"][0] == 2
    assert printed.err == "", "no chatter of the libraries"
    assert main(arguments[:-1]) == 0
    error = capfd.readouterr().err
    assert "decontamination:" in error and "kept" in error
    page_text = (tmp_path / "out" / "quality.html").read_text("utf-8")
    assert "near copy of another document" in page_text and "similarity" in page_text
    assert "&lt;b&gt;&amp;" in page_text or "<b>&" not in page_text
    assert "http" not in page_text.replace("http-equiv", ""), "the page loads nothing"
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest.sources[0]["parts"][0]["name"] == str(source)


def test_a_look_at_text(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    german = "Der alte Müller ging am Morgen zum Fluss und sah den Booten nach, die langsam stromabwärts fuhren."
    write(
        tmp_path / "a.jsonl",
        [*(page(i) for i in range(20)), page(2), changed(page(5, 40), 0.01), page(5, 40), german, ""],
    )
    assert main(["data", "look", "a.jsonl", "--json"]) == 0
    look = json.loads(capfd.readouterr().out)
    assert (look["documents"], look["empty_documents"], look["exact_copies"], look["near_copies"]) == (24, 1, 1, 1)
    assert look["languages"]["de"] == 1 and sum(look["languages"].values()) == 24
    assert sum(look["histogram"].values()) == 24 and look["lengths"][0] == len(german)
    assert 0 < look["tokens_per_byte"] < 1 and len(look["samples"]) == 10
    assert "A look at a.jsonl" in (tmp_path / "data-look.html").read_text("utf-8")
    prepare(["a.jsonl"], tmp_path / "data", tokenizer="bpe", vocab_size=300)
    assert main(["data", "look", "data", "--out", "p.html", "--json"]) == 0
    prepared = json.loads(capfd.readouterr().out)
    assert prepared["characters"] == look["characters"] and prepared["documents"] >= 24
    assert main(["data", "look", "data", "--field", "text"]) == 2
    assert "field would do nothing" in capfd.readouterr().err
