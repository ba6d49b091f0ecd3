"""The feedback store: acknowledged records are stored, on SQLite and on PostgreSQL, also after kill -9."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from processes import Forked
from understudy.feedback.records import MOST_CHARACTERS, AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore

HOSTILE = (
    "Robert'); DROP TABLE judgements; --",
    "' OR '1'='1",
    "<script>alert(1)</script> **bold** <|im_end|>",
    '%s %(name)s :name ? $1 \\ " ` 🎭 \u202e\x1b[31m',
)


@pytest.fixture
def store(database: str) -> Iterator[FeedbackStore]:
    with FeedbackStore(database) as opened:
        yield opened


def record(conversation: str = "talk", text: str = "Sam did.", **others: Any) -> AnswerRecord:
    prompt = [{"role": "user", "content": "Who found the purse?"}]
    given = {
        "conversation_id": conversation, "prompt": prompt, "text": text, "run": "chat", "step": 850,
        "weights_sha256": "ab" * 32, "settings": {"temperature": 0.7, "seed": None}, "finish_reason": "stop", "tokens": 4,
    }  # fmt: skip
    return AnswerRecord(**given | others)


def test_records_come_back_from_a_reopened_store(database: str) -> None:
    with FeedbackStore(database) as store:
        given = record(text="Größe 🎭")
        first = store.add_answer(given)
        second = store.add_answer(replace(given, text="Lily did.", id="chosen-by-the-server"))
        judged = store.add_judgement(Judgement("rating", first, "ann", 4, comment=" quite good "))
    with FeedbackStore(database, create=False) as store:
        stored = store.answer(first)
        assert stored == replace(given, id=first, created=stored.created if stored else "")
        assert stored.created.endswith("Z") and second == "chosen-by-the-server"
        assert [answer.id for answer in store.answers()] == [first, second]
        assert store.answer("unknown") is None
        [loaded] = store.judgements()
        assert (loaded.id, loaded.kind, loaded.value, loaded.comment) == (judged, "rating", 4, "quite good")
        assert store.stats() == {
            "conversations": 1, "answers": 2, "judgements": 1, "replaced": 0, "withdrawn": 0,
            "kinds": {"thumb": 0, "rating": 1, "correction": 0, "comparison": 0},
        }  # fmt: skip


def test_the_last_judgement_of_an_annotator_counts_and_the_earlier_stay(store: FeedbackStore) -> None:
    one, two = store.add_answer(record()), store.add_answer(record(text="Lily."))
    for annotator, value in (("ann", 1), ("bob", 1), ("ann", -1)):
        store.add_judgement(Judgement("thumb", one, annotator, value))
    store.add_judgement(Judgement("comparison", one, "ann", 1, other_answer_id=two))
    store.add_judgement(Judgement("comparison", two, "ann", 1, other_answer_id=one))  # the same pair, turned round
    counting = {(j.annotator, j.kind): (j.answer_id, j.value) for j in store.judgements()}
    assert counting == {("bob", "thumb"): (one, 1), ("ann", "thumb"): (one, -1), ("ann", "comparison"): (two, 1)}
    assert len(store.judgements(replaced=True)) == 5 and store.stats()["replaced"] == 2


def test_a_judgement_that_is_taken_back_counts_no_more(store: FeedbackStore) -> None:
    one, two = store.add_answer(record()), store.add_answer(record(text="Lily."))
    for kind, given in (
        ("thumb", {"value": 1}), ("rating", {"value": 4}), ("correction", {"correction": "Sam found it."}),
    ):  # fmt: skip
        for annotator in ("ann", "bob"):
            store.add_judgement(Judgement(kind, one, annotator, **given))
        store.add_judgement(Judgement(kind, one, "ann", 0))
    store.add_judgement(Judgement("comparison", one, "ann", 0, other_answer_id=two))
    assert [(j.annotator, j.kind) for j in store.judgements()] == [
        ("bob", "thumb"), ("bob", "rating"), ("bob", "correction"), ("ann", "comparison"),
    ], "a comparison with 0 is a tie"  # fmt: skip
    stats = store.stats()
    assert (stats["judgements"], stats["replaced"], stats["withdrawn"]) == (4, 3, 3)
    store.add_judgement(Judgement("thumb", one, "ann", -1))
    assert [j.value for j in store.judgements() if j.annotator == "ann"] == [0, -1], "and given again"


def test_an_answer_whose_only_judgement_was_taken_back_is_not_judged(store: FeedbackStore) -> None:
    one, two = store.add_answer(record()), store.add_answer(record(text="Lily."))
    for answer, value in ((one, 1), (two, 1), (one, 0)):
        store.add_judgement(Judgement("thumb", answer, "ann", value))
    assert [answer.id for answer in store.answers(judged=True)] == [two]
    assert [answer.id for answer in store.answers()] == [one, two]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"answer_id": "nobody's"}, "no answer with the id \"nobody's\""),
        ({"kind": "star"}, "choose one of thumb, rating, correction, comparison"),
        ({"value": 2}, "the value of a thumb is 2; give one of -1, 0, 1"),
        ({"value": None}, "the value of a thumb is None"),
        ({"value": True}, "the value of a thumb is True"),
        ({"kind": "rating", "value": 6}, "give one of 0, 1, 2, 3, 4, 5"),
        ({"kind": "rating", "value": 3.5}, "the value of a rating is 3.5"),
        ({"kind": "correction", "value": None}, "needs a correction"),
        ({"kind": "correction", "correction": "Lily did."}, "has no value, except 0 to take it back"),
        ({"kind": "correction", "value": False}, "has no value, except 0 to take it back"),
        ({"kind": "correction", "value": 0, "correction": "Lily did."}, "leave the text or the value out"),
        ({"value": 0, "correction": "Lily did."}, "and no other kind has one"),
        ({"kind": "correction", "value": None, "correction": " \n"}, "the correction is empty"),
        ({"kind": "correction", "value": None, "correction": " Sam did. "}, "equals the answer"),
        ({"correction": "Lily did."}, "and no other kind has one"),
        ({"kind": "comparison"}, "needs answer_id and other_answer_id"),
        ({"kind": "comparison", "other_answer_id": "one"}, "cannot be compared with itself"),
        ({"kind": "comparison", "other_answer_id": "else"}, "different prompts"),
        ({"other_answer_id": "two"}, "no other kind has both"),
        ({"comment": "x" * (MOST_CHARACTERS + 1)}, "give at most 100,000"),
        ({"annotator": "a" * 201}, "1 to 200 characters"),
        ({"annotator": "a\0b"}, "1 to 200 characters"),
    ],
)  # fmt: skip
def test_an_invalid_judgement_is_refused_in_a_sentence(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    with FeedbackStore(f"sqlite:///{tmp_path}/f.db") as store:
        for id in ("one", "two"):
            store.add_answer(record(id=id))
        store.add_answer(record(id="else", prompt=[{"role": "user", "content": "Where?"}]))
        good = {"kind": "thumb", "answer_id": "one", "annotator": "ann", "value": 1}
        with pytest.raises(ValueError) as refused:
            store.add_judgement(Judgement(**good | wrong))
        assert says in str(refused.value) and "\n" not in str(refused.value)
        assert store.judgements(replaced=True) == []


def test_hostile_texts_are_kept_as_texts(store: FeedbackStore) -> None:
    for n, text in enumerate(HOSTILE):
        answer = store.add_answer(record(conversation=text, text=text, run=text, settings={"stop": [text]}))
        store.add_judgement(Judgement("correction", answer, f"ann {text}", comment=text, correction=text + "!"))
        stored, judged = store.answer(answer), store.judgements()
        assert stored and (stored.text, stored.run, stored.conversation_id, stored.settings) == (
            text,
            text,
            text,
            {"stop": [text]},
        )
        assert len(judged) == n + 1 and judged[-1].comment == text and judged[-1].correction == text + "!"


def test_characters_no_database_stores_become_replacement_characters(store: FeedbackStore) -> None:
    odd, stored = "a\0b\ud800c", "a\ufffdb\ufffdc"
    answer = store.add_answer(
        record(
            text=odd, run=odd, finish_reason=odd, prompt=[{"role": "user", "content": odd}], settings={"stop": [odd]}
        )
    )
    store.add_judgement(Judgement("rating", answer, "ann", 1, comment=odd))
    loaded = store.answer(answer)
    assert loaded and (loaded.text, loaded.run, loaded.finish_reason) == (stored, stored, stored)
    assert loaded.prompt == [{"role": "user", "content": stored}] and loaded.settings == {"stop": [stored]}
    assert store.judgements()[0].comment == stored


def test_a_comment_and_a_correction_of_the_greatest_length_are_kept(store: FeedbackStore) -> None:
    answer = store.add_answer(record(text="🎭" * 1_000_000))
    long = "é" * MOST_CHARACTERS
    store.add_judgement(Judgement("correction", answer, "ann", comment=long, correction=long))
    [loaded] = store.judgements()
    assert loaded.comment == loaded.correction == long


def test_many_threads_lose_nothing(store: FeedbackStore) -> None:
    answer = store.add_answer(record())

    def work(n: int) -> str:
        answer_id = store.add_answer(record(conversation=f"talk {n % 3}"))
        store.add_judgement(Judgement("comparison", answer_id, f"ann {n}", 1, other_answer_id=answer))
        return store.add_judgement(Judgement("thumb", answer, f"ann {n}", 1))

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(work, range(48)))
    assert {j.id for j in store.judgements() if j.kind == "thumb"} == set(ids)
    assert store.stats()["answers"] == 49 and store.stats()["judgements"] == 96


def test_an_id_that_is_taken_is_refused_and_a_batch_is_all_or_nothing(store: FeedbackStore) -> None:
    store.add_answer(record(id="one"))
    with pytest.raises(ValueError, match="refused the records"):
        store.add_answer(record(id="one", text="Another."))
    batch = [record(id="two", created="2026-01-01T00:00:00Z")]
    with pytest.raises(ValueError, match="refused the records"):
        store.add(batch, [Judgement("thumb", "three", "ann", 1, id="j", created="2026-01-01T00:00:00Z")])
    assert store.answer("two") is None and store.answer("one") == replace(record(id="one"), created=store.answer("one").created)  # type: ignore[union-attr]  # fmt: skip


def test_a_newer_schema_is_refused_and_left_alone(database: str) -> None:
    FeedbackStore(database).close()
    engine = sql.create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 99")
    engine.dispose()
    with pytest.raises(ValueError, match="its schema is 99, and 1 is read here"):
        FeedbackStore(database)


def test_two_processes_may_open_a_new_database_at_once(database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: FeedbackStore(database), range(4)))
    stores[0].add_answer(record(id="one"))
    assert all(store.answer("one") for store in stores)
    for store in stores:
        store.close()


def test_a_database_in_another_encoding_is_refused(postgres: str) -> None:
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE old ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(ValueError, match="encoding LATIN1"):
        FeedbackStore(postgres.replace("/postgres?", "/old?"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("feedback.db", "is no database; give sqlite:///PATH or postgresql://"),
        ("mysql://root:secret@host/db", "mysql://root:***@host/db is no database used here"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql://ann:secret@127.0.0.1:1/db", "postgresql+psycopg://ann:***@127.0.0.1:1/db cannot be opened"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_without_telling_its_password(url: str, says: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError) as refused:
        FeedbackStore(url)
    assert says in str(refused.value) and "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("my notes, which are no database\n" * 100)
    with pytest.raises(ValueError, match="not a database"):
        FeedbackStore(f"sqlite:///{path}")
    assert path.read_text().startswith("my notes")
    with pytest.raises(ValueError, match="no feedback"):
        FeedbackStore(f"sqlite:///{tmp_path}/none.db", create=False)
    assert not (tmp_path / "none.db").exists()


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from understudy.feedback.store import FeedbackStore
from understudy.feedback.records import AnswerRecord, Judgement

store = FeedbackStore(sys.argv[1])
answer = store.add_answer(AnswerRecord("talk", [{"role": "user", "content": "Hi"}], "Hello.", "chat", 1, "", {}, "stop", 2))

def judge(n):
    id = store.add_judgement(Judgement("rating", answer, f"ann {n}", 1 + n % 5, comment="word " * 200))
    sys.stdout.write(id + "\\n")  # the acknowledgement
    sys.stdout.flush()

with ThreadPoolExecutor(4) as pool:
    list(pool.map(judge, range(100_000)))
"""


def test_kill_9_loses_no_acknowledged_judgement(database: str, tmp_path: Path) -> None:
    process = Forked(["-c", WRITER, database], tmp_path)
    while process.printed().count("\n") < 200:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    done = process.wait()
    acknowledged = done.stdout.split()  # those that were told before it died, too
    assert done.returncode == -signal.SIGKILL
    with FeedbackStore(database, create=False) as store:
        stored = {judgement.id for judgement in store.judgements()}
        assert len(acknowledged) >= 200 and {id for id in acknowledged if len(id) == 32} <= stored
        assert store.add_judgement(Judgement("thumb", store.judgements()[0].answer_id, "ann", 1))
    if database.startswith("sqlite"):
        with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_commit_of_sqlite_is_flushed_to_the_disk(tmp_path: Path) -> None:
    with FeedbackStore(f"sqlite:///{tmp_path}/f.db") as store, store._engine.connect() as connection:
        pragmas = {n: connection.exec_driver_sql(f"PRAGMA {n}").scalar() for n in ("synchronous", "foreign_keys")}
        assert pragmas == {"synchronous": 2, "foreign_keys": 1}  # FULL
