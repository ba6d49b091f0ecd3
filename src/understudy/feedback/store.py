"""The feedback store: conversations, a model's answers in them, and judgements of the answers.

SQLite by default, PostgreSQL by URL. A method that adds a record returns after the database has written it to the disk. Records
are never changed or deleted: a further judgement of an answer by the same annotator is added, and the last one counts, or
takes the earlier one back. Not here: validation (records.py), exports (exchange.py), statistics (statistics.py), HTTP.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from understudy.feedback.records import KINDS, MOST_NAME, AnswerRecord, Judgement, check_answer, check_judgement
from understudy.run import RUNS

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
"""Time that a writer of a SQLite file waits for the lock."""

TABLES = sql.MetaData()
VERSION = sql.Table("schema_version", TABLES, sql.Column("version", sql.Integer, primary_key=True))
CONVERSATIONS = sql.Table(
    "conversations",
    TABLES,
    sql.Column("id", sql.String(MOST_NAME), primary_key=True),
    sql.Column("created", sql.String(20), nullable=False),
)
ANSWERS = sql.Table(
    "answers",
    TABLES,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("id", sql.String(MOST_NAME), nullable=False, unique=True),
    sql.Column("conversation_id", sql.ForeignKey("conversations.id"), nullable=False, index=True),
    sql.Column("prompt", sql.JSON, nullable=False),
    sql.Column("text", sql.Text, nullable=False),
    sql.Column("run", sql.Text, nullable=False),
    sql.Column("step", sql.Integer, nullable=False),
    sql.Column("weights_sha256", sql.String(64), nullable=False),
    sql.Column("settings", sql.JSON, nullable=False),
    sql.Column("finish_reason", sql.Text, nullable=False),
    sql.Column("tokens", sql.Integer, nullable=False),
    sql.Column("created", sql.String(20), nullable=False),
)
JUDGEMENTS = sql.Table(
    "judgements",
    TABLES,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("id", sql.String(MOST_NAME), nullable=False, unique=True),
    sql.Column("kind", sql.String(20), nullable=False),
    sql.Column("answer_id", sql.ForeignKey("answers.id"), nullable=False, index=True),
    sql.Column("other_answer_id", sql.ForeignKey("answers.id")),
    sql.Column("annotator", sql.String(MOST_NAME), nullable=False),
    sql.Column("value", sql.Integer),
    sql.Column("comment", sql.Text),
    sql.Column("correction", sql.Text),
    sql.Column("created", sql.String(20), nullable=False),
)


class FeedbackStore:
    """Answers and judgements in a database; safe to use from several threads and processes.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://user@host/database``.
        create: create the file and the tables if they do not exist.

    Raises:
        ValueError: another kind of database, one that cannot be opened, or one of another schema version.
    """

    def __init__(self, url: str, create: bool = True) -> None:
        self._engine = _engine(url, create)
        self.url = self._engine.url.render_as_string(hide_password=True)
        try:
            self._open(create)
        except sql.exc.DBAPIError as error:
            self.close()
            reason = " ".join(str(error.orig).split())
            raise ValueError(f"the feedback database {self.url} cannot be opened ({reason}); check its URL") from error
        except ValueError:
            self.close()
            raise

    def add_answer(self, record: AnswerRecord) -> str:
        """Add an answer; returns its id. Errors as of :meth:`add`."""
        self.add([record], [])
        return record.id

    def add_judgement(self, judgement: Judgement) -> str:
        """Add a judgement; returns its id.

        Raises:
            ValueError: an unknown answer, or an invalid judgement.
        """
        judgement = check_judgement(judgement)
        answer = self._known(judgement.answer_id)
        if judgement.correction is not None and judgement.correction == answer.text.strip():
            raise ValueError("the correction equals the answer; give the text that it should have been")
        if judgement.other_answer_id is not None and self._known(judgement.other_answer_id).prompt != answer.prompt:
            raise ValueError("the two answers are to different prompts; only answers to the same one can be compared")
        self.add([], [judgement])
        return judgement.id

    def add(self, answers: Iterable[AnswerRecord], judgements: Iterable[Judgement]) -> None:
        """Add records, and conversations that are new: all of them or none.

        Raises:
            ValueError: an id in use, a judgement of an unknown answer, or an invalid field.
        """
        answers, judgements = list(map(check_answer, answers)), list(map(check_judgement, judgements))
        try:
            with self._writing() as connection:
                for record in answers:
                    conversation = {"id": record.conversation_id, "created": record.created}
                    connection.execute(_insert_new(connection, CONVERSATIONS), conversation)
                if answers:
                    connection.execute(sql.insert(ANSWERS), [vars(record) for record in answers])
                if judgements:
                    connection.execute(sql.insert(JUDGEMENTS), [vars(judgement) for judgement in judgements])
        except sql.exc.IntegrityError as error:
            reason = " ".join(str(error.orig).split())
            raise ValueError(f"the feedback store refused the records: {reason}") from error

    def answer(self, id: str) -> AnswerRecord | None:
        return next(self._answers(ANSWERS.c.id == id), None)

    def answers(self, judged: bool = False) -> Iterator[AnswerRecord]:
        """All answers in order; with ``judged`` those that have a judgement which was not taken back."""
        if not judged:
            yield from self._answers(sql.true())
            return
        having = sql.or_(ANSWERS.c.id == JUDGEMENTS.c.answer_id, ANSWERS.c.id == JUDGEMENTS.c.other_answer_id)
        ids = {id for judgement in self.judgements() for id in (judgement.answer_id, judgement.other_answer_id)}
        yield from (answer for answer in self._answers(sql.exists().where(having)) if answer.id in ids)

    def judgements(self, replaced: bool = False) -> list[Judgement]:
        """The judgements in order, without those that a later one replaced or took back unless ``replaced``."""
        with self._engine.connect() as connection:
            judgements = [Judgement(**row) for row in connection.execute(_in_order(JUDGEMENTS)).mappings()]
        if replaced:
            return judgements
        return [judgement for judgement in _last(judgements) if not judgement.withdrawn]

    def ids(self) -> tuple[set[str], set[str]]:
        """The ids of all answers and of all judgements."""
        with self._engine.connect() as connection:
            answers, judgements = (set(connection.scalars(sql.select(t.c.id))) for t in (ANSWERS, JUDGEMENTS))
        return answers, judgements

    def stats(self) -> dict[str, Any]:
        """Counts of conversations, answers, judgements in all and by kind, replaced judgements and those taken back."""
        with self._engine.connect() as connection:
            conversations, answers = (
                connection.scalar(sql.select(sql.func.count()).select_from(table)) for table in (CONVERSATIONS, ANSWERS)
            )
        judgements = self.judgements(replaced=True)
        last = _last(judgements)
        counting = [judgement.kind for judgement in last if not judgement.withdrawn]
        return {
            "conversations": conversations, "answers": answers, "judgements": len(counting),
            "replaced": len(judgements) - len(last), "withdrawn": len(last) - len(counting),
            "kinds": {kind: counting.count(kind) for kind in KINDS},
        }  # fmt: skip

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self, create: bool) -> None:
        """Check the schema version, or create the schema."""
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                # Two servers that start together must not both create the tables.
                connection.execute(sql.text("SELECT pg_advisory_xact_lock(hashtext('understudy feedback'))"))
                encoding = connection.scalar(sql.text("SHOW server_encoding"))
                if encoding != "UTF8":
                    raise ValueError(f"the database {self.url} has the encoding {encoding}; create one with UTF8")
            if not sql.inspect(connection).has_table(VERSION.name):
                if not create:
                    raise ValueError(f"there is no feedback in {self.url} yet; `understudy serve RUN` collects it")
                TABLES.create_all(connection)
                connection.execute(sql.insert(VERSION), {"version": SCHEMA_VERSION})
            version = connection.scalar(sql.select(sql.func.max(VERSION.c.version)))
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"the feedback in {self.url} was written by another version of Understudy (its schema is {version}, and "
                f"{SCHEMA_VERSION} is read here); use that version, or another database"
            )

    def _known(self, id: str) -> AnswerRecord:
        answer = self.answer(id)
        if answer is None:
            raise ValueError(f"there is no answer with the id {id!r}; give the id of a recorded one")
        return answer

    def _answers(self, where: sql.ColumnElement[bool]) -> Iterator[AnswerRecord]:
        with self._engine.connect() as connection:
            query = _in_order(ANSWERS).where(where)
            for row in connection.execution_options(yield_per=500).execute(query).mappings():
                yield AnswerRecord(**row)

    @contextmanager
    def _writing(self) -> Iterator[sql.Connection]:
        """A write transaction. SQLite takes the write lock at its start, since an upgrade from a read lock fails instead of
        waiting."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection


def default_url() -> str:
    return f"sqlite:///{RUNS / 'feedback.db'}"


def _last(judgements: list[Judgement]) -> list[Judgement]:
    """The last judgement of each annotator, kind and answer (or pair)."""
    last = {judgement.subject: judgement.id for judgement in judgements}
    return [judgement for judgement in judgements if last[judgement.subject] == judgement.id]


def _in_order(table: sql.Table) -> sql.Select[Any]:
    return sql.select(*(column for column in table.c if column.name != "number")).order_by(table.c.number)


def _insert_new(connection: sql.Connection, table: sql.Table) -> sql.Insert:
    """An insert that skips existing rows."""
    from sqlalchemy.dialects import postgresql, sqlite

    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing()


# ---- connecting -----------------------------------------------------------------------------------------------------


def _engine(given: str, create: bool) -> sql.Engine:
    try:
        url = sql.make_url(given)
    except sql.exc.ArgumentError:
        raise ValueError(f"{given!r} is no database; give sqlite:///PATH or postgresql://USER@HOST/DATABASE") from None
    shown = url.render_as_string(hide_password=True)
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        try:
            return sql.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        except ImportError as error:
            raise ValueError("PostgreSQL needs a driver; install it: pip install 'understudy[postgres]'") from error
    if url.drivername != "sqlite":
        raise ValueError(f"{shown} is no database used here; give sqlite:///PATH or postgresql://USER@HOST/DATABASE")
    if not url.database or url.database == ":memory:":
        raise ValueError(f"{shown} names no file, so nothing would be stored; give sqlite:///PATH")
    path = Path(url.database)
    if not path.exists():
        if not create:
            raise ValueError(f"there is no feedback in {shown} yet; `understudy serve RUN` collects it")
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = sql.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    sql.event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: sqlite3.Connection, record: object) -> None:
    """Use a write-ahead log that is flushed at every commit, so that a saved record is on the disk."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
